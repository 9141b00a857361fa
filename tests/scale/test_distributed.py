"""Two processes over gloo train what one process does: the same weights and losses; an error in one ends both."""

import pickle
import socket

import pandas as pd
import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing

from klip.data.images import read as read_image
from klip.finetuning import loop, prepare
from klip.model import encoder
from klip.scale import distributed
from klip.settings import paths

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]
CHANGES = {
    "arcface": {
        "ema": 0.5,
        "validate_every": 2,
    },  # the last batch holds one image: one process has none
    "parts": {
        "loss": "softmax",
        "entropy": 0.1,
        "accumulate": 3,
        "frozen_blocks": 1,
        "optimiser": "adamw",
    },
    "triplet": {
        "loss": "triplet",
        "depth": 2,
        "images": 16,
        "batch_size": 8,
        "accumulate": 2,
        "proj": "drop",
    },
}


def seen(run):
    return {
        "tower": run.encoder.tower.state_dict(),
        "head": run.head.state_dict(),
        "history": run.history,
        "average": run.average and run.average.tower.state_dict(),
        "path": run.path,
    }


def work(rank, port, folder, shop, configs, cache, damaged):
    """One of two processes: its runs, or the sentence it ended with, go to FOLDER/RANK."""
    torch.set_num_threads(1)
    paths.CACHE = cache
    if damaged and rank == 1:
        prepare.read_image = unreadable
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    found, kind = {}, distributed.SharedLoop
    for name, config in configs.items():
        try:
            for run in (name, f"{name} again"):
                found[run] = seen(loop.finetune(config, shop, progress=False, loop=kind))
        except ValueError as error:
            found[name] = str(error)
    (folder / str(rank)).write_bytes(pickle.dumps(found))
    dist.destroy_process_group()


def unreadable(file, at_least=0):
    if "cocoa" in str(file):
        raise ValueError("this image cannot be read")
    return read_image(file, at_least)


def two_processes(folder, shop, configs, damaged=False):
    """Forked from a process that has trained nothing: torch's threads do not survive a fork."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.start_processes(
        work,
        (port, folder, shop, configs, paths.CACHE, damaged),
        nprocs=2,
        start_method="forkserver",
    )
    return [pickle.loads((folder / str(rank)).read_bytes()) for rank in range(2)]


def close(one, two):
    """AdamW makes a whole step of a gradient that is 0 but for rounding, so the key's bias (a third) is left out."""
    for name, value in one.items():
        if name.endswith("in_proj_bias"):
            keys = len(value) // 3
            value, other = (torch.cat([v[:keys], v[2 * keys :]]) for v in (value, two[name]))
        else:
            other = two[name]
        torch.testing.assert_close(
            other, value, rtol=1e-4, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_two_processes_train_what_one_does(config, shop, tmp_path):
    configs = {name: config.changed(**change) for name, change in CHANGES.items()}
    first, second = two_processes(tmp_path, shop, configs)
    for name, one in configs.items():
        alone = seen(loop.finetune(one, shop, progress=False, cache=False))
        for part in ("tower", "head"):
            close(alone[part], first[name][part])
            assert all(
                torch.equal(value, second[name][part][key])
                for key, value in first[name][part].items()
            )
        columns = [column for column in alone["history"] if column != "images_per_s"]
        for rank in (first, second):
            pd.testing.assert_frame_equal(
                rank[name]["history"][columns], alone["history"][columns], rtol=1e-4
            )
            pd.testing.assert_frame_equal(
                rank[f"{name} again"]["history"], first[name]["history"], check_like=True
            )
            assert rank[name]["path"] == rank[f"{name} again"]["path"] == first[name]["path"]
        before = encoder.load(config.model).tower.state_dict()
        assert not torch.equal(before["ln_post.weight"], alone["tower"]["ln_post.weight"]), name
    close(
        seen(loop.finetune(configs["arcface"], shop, progress=False, cache=False))["average"],
        first["arcface"]["average"],
    )
    assert len(list((paths.CACHE / "runs").glob("*/run.json"))) == 3


def test_an_error_in_one_process_ends_both(config, shop, tmp_path):
    unseen = shop.split("train")
    first, second = two_processes(tmp_path, unseen, {"damaged": config}, damaged=True)
    assert second["damaged"] == "this image cannot be read"
    assert (
        first["damaged"]
        == "fine-tuning: another process of this run failed; its own message says why"
    )
    assert not list(paths.CACHE.rglob("run.json"))


def test_one_process_alone_has_the_plain_loop(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with distributed.joined() as kind:
        assert kind is loop.Loop and distributed.first() and not dist.is_initialized()


def test_a_group_of_one_trains_what_the_plain_loop_does(config, shop, tmp_path):
    """Bit for bit: the shared loop adds nothing but the other processes."""
    dist.init_process_group("gloo", f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        how = {"progress": False, "cache": False}
        plain = loop.finetune(config, shop, **how)
        shared = loop.finetune(config, shop, loop=distributed.SharedLoop, **how)
    finally:
        dist.destroy_process_group()
    assert encoder.fingerprint(plain.encoder) == encoder.fingerprint(shared.encoder)
    assert plain.history["loss"].tolist() == shared.history["loss"].tolist()
