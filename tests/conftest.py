"""What all tests share: folders of their own and small sets of pictures."""

import os
import tempfile
from pathlib import Path

_SESSION = tempfile.TemporaryDirectory(prefix="klip-tests-")  # before klip is imported: paths are read once
for _name in ("cache", "results", "data"):
    os.environ[f"KLIP_{_name.upper()}"] = str(Path(_SESSION.name, _name))

import numpy as np  # noqa: E402
import pytest  # noqa: E402
from PIL import Image  # noqa: E402

from klip import paths  # noqa: E402


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
def picture():
    """picture(path, colour, size, mode): write one speckled image of a colour, with the folders it needs."""
    def paint(path, colour=(200, 60, 40), size=(24, 32), mode="RGB"):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        speckle = np.random.default_rng(sum(path.name.encode())).integers(-20, 20, (size[1], size[0], 3))
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
