"""A sweep gives the same runs here and as local jobs."""

import pytest

from klip.finetuning import loop, sweep
from klip.model import encoder
from klip.settings import paths


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_local_jobs_make_the_runs_that_this_process_makes(config, shop, monkeypatch):
    pytest.importorskip("submitit")
    configs = [config.changed(images=4, seed=seed) for seed in (0, 1)]
    there = list(sweep.sweep(configs, shop, executor="local"))
    assert [run.config.seed for run in there] == [0, 1] and len({run.path for run in there}) == 2
    monkeypatch.setattr(
        loop.Loop, "run", lambda *given, **more: 1 / 0
    )  # found in the cache, not made again
    here = sweep.sweep(configs, shop)
    for one, other in zip(here, there, strict=True):
        assert one.path == other.path and one.path.is_relative_to(paths.CACHE)
        assert encoder.fingerprint(one.encoder) == encoder.fingerprint(other.encoder)
