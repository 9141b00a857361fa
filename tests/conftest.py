"""What all tests share: folders of their own and small sets of pictures."""

import itertools
import os
import tempfile
from pathlib import Path

_SESSION = tempfile.TemporaryDirectory(
    prefix="klip-tests-"
)  # before klip is imported: paths are read once
for _name in ("cache", "results", "data"):
    os.environ[f"KLIP_{_name.upper()}"] = str(Path(_SESSION.name, _name))

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from PIL import Image  # noqa: E402

from klip.data.catalogue import Catalogue  # noqa: E402
from klip.settings import paths  # noqa: E402

TINY_VIT = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16},
}


@pytest.fixture(autouse=True)
def workspace(tmp_path_factory, monkeypatch):
    """Fresh cache, results and data folders for every test, for this process and for those it starts."""
    folder = tmp_path_factory.mktemp("klip")
    for name in ("CACHE", "RESULTS"):
        monkeypatch.setattr(paths, name, folder / name.lower())
    for name in ("CACHE", "RESULTS", "DATA"):
        monkeypatch.setenv(f"KLIP_{name}", str(folder / name.lower()))
    return folder


@pytest.fixture
def seen(monkeypatch):
    """A list with one for each image that an encoder has read."""
    from klip.model import encoder

    reads, item = [], encoder.Views.__getitem__

    def counted(views, place):
        reads.append(1)
        return item(views, place)

    monkeypatch.setattr(encoder.Views, "__getitem__", counted)
    return reads


@pytest.fixture
def picture():
    """picture(path, colour, size, mode): write one speckled image of a colour, with the folders it
    needs; no two are the same."""
    made = itertools.count()

    def paint(path, colour=(200, 60, 40), size=(24, 32), mode="RGB"):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng((sum(path.name.encode()), next(made)))
        speckle = rng.integers(-20, 20, (size[1], size[0], 3))
        pixels = (np.array(colour) + speckle).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).convert(mode).save(path)
        return path

    return paint


@pytest.fixture
def shop_root(tmp_path, picture):
    """A folder per product, colours far apart: red 6 images, green 4, blue 3; and what is no image."""
    root = tmp_path / "shop"
    colours = {"red": ((220, 30, 30), 6), "green": ((30, 200, 40), 4), "blue": ((30, 40, 220), 3)}
    for product, (colour, count) in colours.items():
        for number in range(1, count + 1):
            picture(root / product / f"{number}.jpg", colour, (24, 24 + 4 * number))
    (root / "red" / "notes.txt").write_text("not an image")
    (root / "red" / ".hidden.jpg").write_text("not an image")
    return root


@pytest.fixture
def one_thread():
    """torch on one thread while a test runs: bitwise comparisons hold for a fixed number of threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def shop(tmp_path):
    """Four products of one colour each, four training images and one validation image of each."""
    import pandas as pd

    rng, rows = np.random.default_rng(0), []
    for product in ("apple", "bread", "cocoa", "dates"):
        colour = rng.integers(30, 226, 3)
        for i in range(5):
            pixels = (colour + rng.integers(-25, 25, (24, 24, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{product}{i}.png")
            rows.append((f"{product}{i}.png", product, "train" if i < 4 else "val"))
    frame = pd.DataFrame(rows, columns=["image", "product", "split"])
    return Catalogue(frame, tmp_path, "shop")


@pytest.fixture
def config(shop, tmp_path):
    """Fine-tuning of a tiny tower in four steps, of 4, 4, 4 and 1 images."""
    from klip.model import encoder
    from klip.model.augment import Preprocess
    from klip.model.weights import save
    from klip.settings.config import FinetuneConfig

    made = encoder.build(
        TINY_VIT, Preprocess(size=16, mean=(0.5,) * 3, std=(0.25,) * 3), name="tiny"
    )
    model = str(save(made, tmp_path / "tower.safetensors"))
    return FinetuneConfig(
        model=model, images=13, depth=4, batch_size=4, precision="fp32", workers=0
    )


@pytest.fixture
def agreeing_votes_by_loop():
    """The votes of keypoints by definition: a function of the rows of a query and of each packshot."""
    from klip.recognise import keypoints

    def votes(query, gallery):
        """Of each product only the best group of matches that agree with one of them; rows as of `sift`."""
        floats, won = (
            [keypoints.prepared(rows).roots for rows in (query, *gallery)],
            [[] for _ in gallery],
        )
        for mine, (*_, angle, size) in zip(floats[0], query.tolist(), strict=True):
            nearest = []
            for product, rows in enumerate(gallery):
                apart = [
                    float(np.sqrt(((mine - other) ** 2).sum())) for other in floats[product + 1]
                ]
                best = int(np.argmin(apart)) if apart else -1
                turn, growth = (
                    (angle - int(rows[best, 128]), size - int(rows[best, 129])) if apart else (0, 0)
                )
                nearest.append((apart[best] if apart else 2**0.5, product, turn, growth))
            first, second = sorted(nearest)[:2] if len(nearest) > 1 else (nearest[0], (2**0.5,))
            won[first[1]].append((second[0] - first[0], first[2], first[3]))
        return [
            max(
                (
                    sum(
                        margin
                        for margin, turn, growth in own
                        if min((turn - middle) % 256, (middle - turn) % 256) <= 21
                        and abs(growth - mean) <= 12
                    )
                    for _, middle, mean in own
                ),
                default=0,
            )
            for own in won
        ]

    return votes
