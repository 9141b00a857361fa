"""Contestants in this process: all start from the same tower, see the same pixels and find the same
rows; slow: whole contests, a process each."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from klip.model import encoder as encoders
from klip.model.augment import Preprocess
from klip.model.weights import save
from klip.scale import (
    contest,
    peers_embedding,
    peers_print,
    peers_search,
    peers_training,
    plain,
    same_start,
    standings,
    watch,
)
from klip.scale.contender import Cannot
from klip.scale.peers_embedding import Embedding
from klip.scale.peers_print import Prints
from klip.scale.peers_search import Search
from klip.scale.plain_training import Training

VIT = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16},
}
NETWORK = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 32, "timm_model_name": "resnet10t", "timm_pool": "avg"}
    | {"timm_proj": "none", "timm_model_pretrained": False},
}
OPTIONAL = {"faiss": "faiss", "usearch": "usearch", "oml": "gdown"}
"""Contestant of a package that klip does not pin -> the module that it lacks first."""

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad:UserWarning"),
    pytest.mark.usefixtures("one_thread"),
]


def folder_of(config, size, folder):
    """The folder of `same_start.write` of a small random tower."""
    seen = Preprocess(size=size, mean=(0.5, 0.4, 0.3), std=(0.25,) * 3)
    made = encoders.build(config, seen, name="tiny")
    return same_start.write(str(save(made, folder / "tower.safetensors")), folder / "start")


@pytest.fixture
def photographs(tmp_path):
    """The files of six photographs."""
    (tmp_path / "photographs").mkdir()
    found = watch.photographs(tmp_path / "photographs", 6, size=(30, 40))
    return [str(file) for file in found.files]


@pytest.fixture
def training(tmp_path, photographs):
    """What contestants of the training are given, as JSON has it."""
    folder = str(folder_of(VIT, 16, tmp_path))
    return {"folder": folder, "files": photographs, "labels": [0, 1, 2] * 2, "batch": 4} | {
        "steps": 3,
        "workers": 0,
    }


def available(name):
    """Skip what needs a package that is not here."""
    module = OPTIONAL.get(name)
    if module and importlib.util.find_spec(module) is None:
        pytest.skip(f"{name} needs {module}, which is not installed")


@pytest.mark.parametrize("config, size", [(VIT, 16), (NETWORK, 32)], ids=["vit", "timm"])
def test_open_clip_and_timm_get_klips_tower_and_pixels(tmp_path, photographs, config, size):
    folder = folder_of(config, size, tmp_path)
    ours = encoders.load(folder / same_start.TOWER)
    wanted = encoders.embed(ours, photographs, precision="fp32")
    found = {"open_clip": plain.of_open_clip(str(folder), "cpu")[::2]}
    if config is NETWORK:
        found["timm"] = plain.of_timm(str(folder), "cpu")
    else:
        with pytest.raises(Cannot, match="no network of timm"):
            plain.of_timm(str(folder), "cpu")
    for network, transform in found.values():
        pixels = torch.stack([transform(Image.open(file).convert("RGB")) for file in photographs])
        with torch.no_grad():
            rows = torch.nn.functional.normalize(network.eval()(pixels), dim=1)
        assert torch.allclose(rows, wanted, atol=1e-5)
    assert plain.dim(str(folder)) == ours.dim


@pytest.mark.parametrize("name", peers_training.CONTESTANTS)
def test_a_round_of_training_counts_all_steps_but_the_first(training, name):
    available(name)
    work = peers_training.CONTESTANTS[name](training)
    for found in (work(), work()):
        assert (found["work"], found["done"]) == (4 * 2, 4 * 3) and found["seconds"] > 0


@pytest.mark.parametrize("name", ["pml", "plain"])
def test_peers_move_the_tower(training, name, monkeypatch):
    made, load = [], plain.of_open_clip

    def kept(*asked):
        found = load(*asked)
        made.append(found[0])
        return found

    monkeypatch.setattr(f"klip.scale.plain_training.{load.__name__}", kept)
    work = peers_training.CONTESTANTS[name](training)
    before = [weight.detach().clone() for weight in made[0].parameters()]
    work()
    moved = [not torch.equal(*pair) for pair in zip(before, made[0].parameters(), strict=True)]
    assert all(moved)


@pytest.mark.parametrize("config, size", [(VIT, 16), (NETWORK, 32)], ids=["vit", "timm"])
def test_all_embeddings_have_the_same_nearest(tmp_path, photographs, config, size):
    out = tmp_path / "out"
    out.mkdir()
    folder = str(folder_of(config, size, tmp_path))
    given = {"folder": folder, "files": photographs, "out": str(out), "workers": 0}
    for name, contestant in peers_embedding.CONTESTANTS.items():
        if name == "timm" and config is VIT:
            with pytest.raises(Cannot):
                contestant(given)
            continue
        found = contestant(given)()
        assert found["work"] == 6 and found["seconds"] > 0
    shares = peers_embedding.agreement(out)
    assert set(shares) == {"open_clip", "pml"} | ({"timm"} if config is NETWORK else set())
    assert set(shares.values()) == {1.0}


def test_agreement_is_the_share_of_equal_nearest_neighbours(tmp_path):
    turned = np.radians([0, 10, 90, 95])
    rows = np.column_stack([np.cos(turned), np.sin(turned)])
    np.save(tmp_path / "klip.npy", rows)
    np.save(tmp_path / "same.npy", -rows)
    np.save(tmp_path / "crossed.npy", rows[[0, 2, 1, 3]])  # pairs 0 2 and 1 3
    np.save(tmp_path / "first.npy", np.vstack([rows[:2], rows[1:2], rows[3:]]))
    shares = peers_embedding.agreement(tmp_path)
    assert shares["same"] == 1 and shares["crossed"] == 0 and shares["first"] == 0.25


@pytest.mark.parametrize("name", peers_search.CONTESTANTS)
def test_every_search_finds_the_nearest(name):
    available(name)
    given = {"queries": 7, "gallery": 50, "dim": 16, "top": 3, "repeats": 2}
    found = peers_search.CONTESTANTS[name](given)()
    assert found["work"] == 14 and found["seconds"] > 0
    queries, gallery = Search(**given).rows()
    if not name.startswith("floor"):
        assert found["first"] == (queries @ gallery.T).argmax(axis=1).tolist()


@pytest.mark.parametrize("name", peers_print.CONTESTANTS)
def test_every_print_finds_its_packshot(tmp_path, name):
    rng, files = np.random.default_rng(0), []
    for number in range(3):
        file = tmp_path / f"{number}.png"
        blocks = rng.integers(0, 256, (12, 12), np.uint8)
        Image.fromarray(np.kron(blocks, np.ones((12, 12), np.uint8))).convert("RGB").save(file)
        files.append(str(file))
    given = {"queries": files[::-1], "packshots": files}
    found = peers_print.CONTESTANTS[name](given)()
    assert found["work"] == 3 and found["seconds"] > 0
    if not name.startswith("floor"):
        assert found["first"] == [2, 1, 0]
    assert Prints(**given).seen()[0][0].shape[1] == 130


def test_a_tower_that_peers_cannot_load_is_refused(tmp_path):
    seen = Preprocess(size=16, mean=(0.5,) * 3, std=(0.25,) * 3)
    made = encoders.build(VIT, seen, name="tiny")
    encoders.drop_projection(made)
    file = save(made, tmp_path / "tower.safetensors")
    with pytest.raises(ValueError, match="which peers cannot load"):
        same_start.write(str(file), tmp_path / "start")


@pytest.mark.slow
def test_whole_contests_in_processes_of_their_own(tmp_path, training, photographs):
    out = tmp_path / "out"
    out.mkdir()
    embedding = Embedding(training["folder"], photographs, str(out), workers=1)
    for entered, peers in (
        (peers_training.contenders(Training(**{**training, "workers": 1})), {"pml", "plain"}),
        (peers_embedding.contenders(embedding), {"open_clip", "pml"}),
        (peers_search.contenders(Search(4, 20, 8, 2)), {"sklearn", "pml", "torch"}),
    ):
        table = contest.held(entered, 2)
        found = standings.summary(table)
        assert found.index.is_unique and set(found.index) == {one.name for one in entered}
        full = found.index[found["rounds"] == 2]
        assert {"klip"} | peers <= set(full)
        assert found["note"][found["rounds"] == 0].str.startswith("empty: ").all()
        assert (found.loc[full, "peak_mib"] > 20).all()
    assert set(peers_embedding.agreement(out).values()) == {1.0}
