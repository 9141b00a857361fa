"""Fine-tuning survives: whatever ends it, what was trained is kept, and the bits are the same.

Children are forked from a process that has imported everything, so that a kill costs no
start, and that has trained nothing: torch's threads do not survive a fork.
"""

import json
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from klip.finetuning import interrupts, loop
from klip.model import heads, readers
from klip.settings import files, paths

CLEAN = multiprocessing.get_context("forkserver")
CLEAN.set_forkserver_preload(["klip.finetuning.loop", "klip.recognise.gallery"])
KILLS = 20

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture
def long(config):
    """Ten steps, a state after each."""
    return config.changed(images=40, save_every=1, ema=0.9)


def weights(folder):
    """The bits of all that a run made."""
    bits = {}
    for name in ("encoder", "average", "head"):
        for tensor, value in load_file(folder / f"{name}.safetensors").items():
            bits[name, tensor] = value.numpy().tobytes()
    return bits


def child(target, *given):
    process = CLEAN.Process(target=target, args=given)
    process.start()
    return process


def train(config, shop, cache, kill_at=None):
    """In a child: one run; kill_at: (which file that is written, before or after it is put in
    its place)."""
    torch.set_num_threads(1)
    paths.CACHE = cache
    replace, written = os.replace, []

    def dying(source, target):
        written.append(target)
        if kill_at and len(written) == kill_at[0] and not kill_at[1]:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if kill_at and len(written) == kill_at[0] and kill_at[1]:
            os.kill(os.getpid(), signal.SIGKILL)

    files.os.replace = dying
    loop.finetune(config, shop, progress=False)


@pytest.fixture
def whole(long, shop, tmp_path, monkeypatch):
    """The bits of the run that nothing interrupted."""
    monkeypatch.setattr(paths, "CACHE", tmp_path / "whole")
    return weights(loop.finetune(long, shop, progress=False).path)


@pytest.mark.slow
def test_killed_runs_end_with_the_bits_of_the_uninterrupted_one(long, shop, tmp_path, whole):
    rng, killed, bits = np.random.default_rng(0), 0, 0
    child(train, long, shop, tmp_path / "first").join()  # the process that forks is warm now
    started = time.perf_counter()
    child(train, long, shop, tmp_path / "second").join()
    usual = time.perf_counter() - started
    for number in range(KILLS):
        cache = tmp_path / f"cache{number}"
        # one half while something is written, the other at any moment
        at = (int(rng.integers(1, 12)), bool(rng.integers(2))) if number % 2 else None
        process = child(train, long, shop, cache, at)
        if at is None:
            process.join(rng.uniform(0.05, 0.8) * usual)
            process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        again = child(train, long, shop, cache)
        again.join()
        assert again.exitcode == 0
        (folder,) = [path.parent for path in (cache / "runs").glob("*/run.json")]
        bits += weights(folder) == whole
        assert not (folder / "state.pt").exists()
    print(f"{killed} of {KILLS} runs were killed, {bits} ended with the same bits")
    assert killed >= KILLS - 3 and bits == KILLS


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_a_signal_saves_and_says_where_it_goes_on(long, shop, whole, tmp_path, monkeypatch, number):
    monkeypatch.setattr(paths, "CACHE", tmp_path / "other")
    step, steps = loop.Loop.step, []

    def asked(self):
        steps.append(1)
        step(self)
        if len(steps) == 3:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(loop.Loop, "step", asked)
    before = signal.getsignal(number)
    with pytest.raises(
        interrupts.Interrupted, match="saved at step 3 of 10; the same call goes on"
    ):
        loop.finetune(long.changed(save_every=0), shop, progress=False)
    assert signal.getsignal(number) is before
    run = loop.finetune(long.changed(save_every=0), shop, progress=False)
    assert len(steps) == 10 and weights(run.path) == whole


def test_an_error_in_the_middle_loses_nothing(long, shop, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CACHE", tmp_path / "other")
    from klip.finetuning import prepare

    read, seen = prepare.read_image, []

    def damaged(path, at_least=0):
        seen.append(path)
        if len(seen) == 30:
            raise ValueError(f"image {path}: cannot be read (a test)")
        return read(path, at_least)

    monkeypatch.setattr(prepare, "read_image", damaged)
    quick = long.changed(save_every=0)
    with pytest.raises(ValueError, match=r"image .*: cannot be read"):
        loop.finetune(quick, shop, progress=False)
    assert len(list((paths.CACHE / "runs").glob("*/state.pt"))) == 1
    assert weights(loop.finetune(quick, shop, progress=False).path) == whole
    assert len(seen) < 30 + 40  # it did not begin anew


def test_a_loss_that_is_no_number_names_its_images(long, shop, monkeypatch):
    forward, calls = heads.Head.forward, []

    def broken(self, embeddings, labels):
        calls.append(1)
        return forward(self, embeddings, labels) * (float("nan") if len(calls) == 4 else 1)

    monkeypatch.setattr(heads.Head, "forward", broken)
    with pytest.raises(ValueError, match="the loss became nan at step 4, .* are in .*json"):
        loop.finetune(long.changed(save_every=0), shop, progress=False)
    (file,) = (paths.CACHE / "runs").glob("*/not_finite.json")
    told = json.loads(file.read_text())
    assert told["step"] == 4 and len(told["images"]) == 4
    assert all(str(shop.root) in image for image in told["images"])
    assert file.with_name("state.pt").is_file()
    loop.finetune(long.changed(save_every=0), shop, progress=False)
    assert len(calls) == 4 + 7


def test_a_damaged_state_or_run_is_one_sentence(long, shop, monkeypatch):
    run = loop.finetune(long, shop, progress=False)
    for name in ("run.json", "history.csv", "encoder.safetensors", "head.safetensors"):
        whole = (run.path / name).read_bytes()
        (run.path / name).write_bytes(whole[: len(whole) // 2] if name != "history.csv" else b"")
        with pytest.raises(ValueError) as caught:
            loop.finetune(long, shop, progress=False)
        said = str(caught.value)
        assert str(run.path) in said and "\n" not in said, said
        (run.path / name).write_bytes(whole)
    (run.path / "run.json").unlink()
    (run.path / "state.pt").write_bytes(b"no state")
    with pytest.raises(ValueError, match="state.pt is damaged .* delete .* to make it anew"):
        loop.finetune(long, shop, progress=False)


def counted(config, shop, cache, log):
    torch.set_num_threads(1)
    paths.CACHE = cache
    step = loop.Loop.step

    def told(self):
        with open(log, "a") as file:
            file.write("step\n")
        time.sleep(0.02)
        step(self)

    loop.Loop.step = told
    loop.finetune(config, shop, progress=False)


def test_two_processes_make_a_run_once(long, shop, tmp_path):
    pair = [child(counted, long, shop, tmp_path / "one", tmp_path / "log") for _ in range(2)]
    for process in pair:
        process.join()
    assert [process.exitcode for process in pair] == [0, 0]
    assert (tmp_path / "log").read_text().count("step") == 10


@pytest.fixture
def processes(monkeypatch):
    """Images are read by processes, as for a GPU."""
    real = readers.batches
    monkeypatch.setattr(readers, "batches", lambda *a, **how: real(*a, **how | {"beside": True}))


def test_a_worker_that_is_killed_is_one_sentence(long, shop, monkeypatch, processes):
    from klip.finetuning import prepare

    read = prepare.read_image
    home = os.getpid()

    def deadly(path, at_least=0):
        if os.getpid() != home and "bread" in str(path):
            os.kill(os.getpid(), signal.SIGKILL)
        return read(path, at_least)

    monkeypatch.setattr(prepare, "read_image", deadly)
    with pytest.raises(OSError, match="a process that read images was killed.*workers=0"):
        loop.finetune(long.changed(workers=1), shop, progress=False)


def test_memory_that_is_not_there_is_one_sentence(long, shop, monkeypatch):
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: ...")):
        monkeypatch.setattr(loop.Loop, "train_step", lambda *_, error=error: raised(error))
        with pytest.raises(
            MemoryError, match="out of memory at 4 images at a time; take a smaller"
        ):
            loop.finetune(long, shop, progress=False)


def raised(error):
    raise error


def test_a_tiny_shared_memory_is_done_without(long, shop, monkeypatch, whole, tmp_path, processes):
    monkeypatch.setattr(paths, "CACHE", tmp_path / "other")
    real = readers.shutil.disk_usage

    def small(path):
        return real(path)._replace(free=1000) if path == readers.SHARED else real(path)

    monkeypatch.setattr(readers.shutil, "disk_usage", small)
    with pytest.warns(UserWarning, match="images are read in this process"):
        run = loop.finetune(long.changed(workers=2), shop, progress=False)
    assert weights(run.path) == whole
