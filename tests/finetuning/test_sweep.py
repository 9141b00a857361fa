"""A sweep gives the same runs one after the other and side by side."""

import pytest
import torch

from klip.finetuning import loop, sweep
from klip.model import encoder
from klip.settings import paths


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_runs_side_by_side_are_those_that_this_process_makes(config, shop, monkeypatch):
    configs = [config.changed(images=4, seed=seed) for seed in (0, 1)]
    monkeypatch.setattr(sweep.joblib, "cpu_count", lambda: 2)
    there = list(sweep.sweep(configs, shop, executor="cores"))
    assert [run.config.seed for run in there] == [0, 1] and len({run.path for run in there}) == 2
    monkeypatch.setattr(
        loop.Loop, "run", lambda *given, **more: 1 / 0
    )  # found in the cache, not made again
    here = sweep.sweep(configs, shop)
    for one, other in zip(here, there, strict=True):
        assert one.path == other.path and one.path.is_relative_to(paths.CACHE)
        assert encoder.fingerprint(one.encoder) == encoder.fingerprint(other.encoder)


@pytest.mark.parametrize(
    "cores, jobs, shares",
    [(2, 3, [1, 1, 2]), (2, 4, [1] * 4), (8, 5, [2] * 4 + [8]), (8, 7, [2] * 4 + [2] * 3)],
)
def test_the_last_runs_share_the_cores_that_are_left(
    config, shop, monkeypatch, cores, jobs, shares
):
    given = []
    monkeypatch.setattr(sweep.joblib, "cpu_count", lambda: cores)
    monkeypatch.setattr(sweep.joblib, "Parallel", lambda **_: lambda own: given.extend(own) or [])
    configs = [config.changed(seed=seed) for seed in range(jobs)]
    with pytest.raises(ValueError, match="zip"):  # no run comes back here
        list(sweep.sweep(configs, shop, executor="cores"))
    runs = [args[1] for _, args, _ in given]
    assert [args[2] for _, args, _ in given] == shares
    assert [one.args[0].seed for one in runs] == list(range(jobs))
    assert {one.args[0].workers for one in runs} == {0}
    given.clear()
    sweep.side_by_side([int] * jobs)  # which may take unlike times
    assert [args[2] for _, args, _ in given] == [cores // min(cores, 4, jobs)] * jobs


@pytest.mark.slow
def test_a_process_that_had_more_cores_gives_them_back(monkeypatch):
    monkeypatch.setattr(sweep.joblib, "cpu_count", lambda: 2)
    count = torch.get_num_threads
    assert sweep.side_by_side([count] * 3, alike=True) == [1, 1, 2]
    assert sweep.side_by_side([count] * 4) == [1] * 4


@pytest.mark.slow
def test_an_error_of_a_run_side_by_side_is_the_one_that_this_process_raises(
    config, shop, monkeypatch
):
    monkeypatch.setattr(sweep.joblib, "cpu_count", lambda: 2)
    nobody = shop.where(shop["split"] == "")
    sentences = []
    for executor in ("here", "cores"):
        with pytest.raises(ValueError, match="balance plan: no image has split 'train'") as error:
            list(sweep.sweep([config, config.changed(seed=1)], nobody, executor=executor))
        sentences.append(str(error.value))
    assert sentences[0] == sentences[1]
