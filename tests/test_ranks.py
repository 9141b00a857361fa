"""Two processes over gloo train what one process does: the same weights and losses; an error in one ends both."""

import pickle
import socket

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import distributed, multiprocessing

from klip import data, encoder, paths, ranks, train
from klip.augment import Preprocess
from klip.config import FinetuneConfig

pytestmark = [pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"), pytest.mark.usefixtures("one_thread")]
VIT = {"embed_dim": 16,
       "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16}}
CHANGES = {
    "arcface": {"ema": 0.5, "validate_every": 2},  # the last batch holds one image: one process has none
    "parts": {"loss": "softmax", "entropy": 0.1, "accumulate": 3, "frozen_blocks": 1, "optimiser": "adamw"},
    "triplet": {"loss": "triplet", "depth": 2, "images": 16, "batch_size": 8, "accumulate": 2, "proj": "drop"},
}


@pytest.fixture
def shop(tmp_path):
    """Four products of one colour each, four training images and one validation image of each."""
    rng, rows = np.random.default_rng(0), []
    for product in ("apple", "bread", "cocoa", "dates"):
        colour = rng.integers(30, 226, 3)
        for i in range(5):
            pixels = (colour + rng.integers(-25, 25, (24, 24, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{product}{i}.png")
            rows.append((f"{product}{i}.png", product, "train" if i < 4 else "val"))
    frame = pd.DataFrame(rows, columns=["image", "product", "split"])
    frame.attrs.update(root=str(tmp_path), name="shop")
    return frame


@pytest.fixture
def config(shop, tmp_path):
    """Four steps, of 4, 4, 4 and 1 images."""
    made = encoder.build(VIT, Preprocess(16, (0.5,) * 3, (0.25,) * 3), "tiny")
    model = str(encoder.save(made, tmp_path / "tower.safetensors"))
    return FinetuneConfig(model=model, images=13, depth=4, batch_size=4, precision="fp32", workers=0)


def seen(run):
    return {"tower": run.encoder.tower.state_dict(), "head": run.head.state_dict(), "history": run.history,
            "average": run.average and run.average.tower.state_dict(), "path": run.path}


def work(rank, port, folder, shop, configs):
    """One of two processes: its runs, or the sentence it ended with, go to FOLDER/RANK."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    found = {}
    for name, config in configs.items():
        try:
            found[name] = seen(train.finetune(config, shop, progress=False))
            found[f"{name} again"] = seen(train.finetune(config, shop, progress=False))
        except ValueError as error:
            found[name] = str(error)
    (folder / str(rank)).write_bytes(pickle.dumps(found))
    distributed.destroy_process_group()


def two_processes(folder, shop, configs):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.start_processes(work, (port, folder, shop, configs), nprocs=2, start_method="fork")
    return [pickle.loads((folder / str(rank)).read_bytes()) for rank in range(2)]


def close(one, two):
    """AdamW makes a whole step of a gradient that is 0 but for rounding, so the key's bias (a third) is left out."""
    for name, value in one.items():
        if name.endswith("in_proj_bias"):
            keys = len(value) // 3
            value, other = (torch.cat([v[:keys], v[2 * keys:]]) for v in (value, two[name]))
        else:
            other = two[name]
        torch.testing.assert_close(other, value, rtol=1e-4, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}")


def test_two_processes_train_what_one_does(config, shop, tmp_path):
    configs = {name: config.changed(**change) for name, change in CHANGES.items()}
    first, second = two_processes(tmp_path, shop, configs)
    for name, one in configs.items():
        alone = seen(train.finetune(one, shop, progress=False, cache=False))
        for part in ("tower", "head"):
            close(alone[part], first[name][part])
            assert all(torch.equal(value, second[name][part][key]) for key, value in first[name][part].items())
        columns = [column for column in alone["history"] if column != "images_per_s"]
        for rank in (first, second):
            pd.testing.assert_frame_equal(rank[name]["history"][columns], alone["history"][columns], rtol=1e-4)
            pd.testing.assert_frame_equal(rank[f"{name} again"]["history"], first[name]["history"], check_like=True)
            assert rank[name]["path"] == rank[f"{name} again"]["path"] == first[name]["path"]
        before = encoder.load(config.model).tower.state_dict()
        assert not torch.equal(before["ln_post.weight"], alone["tower"]["ln_post.weight"]), name
    close(seen(train.finetune(configs["arcface"], shop, progress=False, cache=False))["average"],
          first["arcface"]["average"])
    assert len(list((paths.CACHE / "runs").glob("*/run.json"))) == 3


def test_an_error_in_one_process_ends_both(config, shop, tmp_path, monkeypatch):
    read = data.read

    def fails_in_the_second(file, at_least=0):
        if distributed.is_initialized() and distributed.get_rank() == 1 and "cocoa" in str(file):
            raise ValueError("this image cannot be read")
        return read(file, at_least)

    monkeypatch.setattr(train.encoders, "embed", lambda encoder, frame, **more: torch.ones(len(frame), encoder.dim))
    monkeypatch.setattr(data, "read", fails_in_the_second)
    unseen = shop[shop["split"] == "train"]
    first, second = two_processes(tmp_path, unseen, {"damaged": config})
    assert second["damaged"] == "this image cannot be read"
    assert first["damaged"] == "fine-tuning: another process of this run failed; its own message says why"
    assert not list(paths.CACHE.rglob("run.json"))


def test_one_process_alone_is_left_as_it_is():
    rows, labels = torch.randn(3, 2, requires_grad=True), torch.arange(3)
    assert ranks.count() == 1 and ranks.first() and ranks.mine([5, 6, 7]) == [5, 6, 7]
    assert ranks.gathered(rows, labels, 3) == (rows, labels)
    with pytest.raises(OSError, match="as it was"), ranks.together(torch.device("cpu")):
        raise OSError("as it was")
