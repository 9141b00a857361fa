"""How long a new product waits, on pictures whose answers are known."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from klip.data.catalogue import Catalogue
from klip.model import encoder
from klip.model.augment import Preprocess
from klip.recognise.first_recognition import arrivals
from klip.settings import paths

VIT = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16},
}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def shelf(tmp_path):
    """Four products: a packshot each, and two queries, of which the first shows the next product."""
    rng, rows = np.random.default_rng(0), []
    looks = rng.integers(0, 256, (4, 24, 24, 3)).astype(np.uint8)
    for number in range(4):
        shown = {"gallery": [number], "query": [(number + 1) % 4, number]}
        for split, looked in shown.items():
            for place, look in enumerate(looked):
                name = f"{split}{number}_{place}.png"
                Image.fromarray(looks[look]).save(tmp_path / name)
                rows.append((name, f"p{number}", split))
    frame = pd.DataFrame(rows, columns=["image", "product", "split"])
    return Catalogue(frame, tmp_path, "shelf")


@pytest.fixture
def tower():
    return encoder.build(VIT, Preprocess(size=16, mean=(0.5,) * 3, std=(0.25,) * 3), name="tiny")


def test_a_product_is_recognised_at_its_first_right_query(shelf, tower):
    table = arrivals(tower, shelf, views=1)
    assert sorted(table["product"]) == ["p0", "p1", "p2", "p3"]
    assert (
        (table["asked"] == 2).all()
        and (table["seconds"] > table["added"]).all()
        and (table["added"] > 0).all()
    )


def test_a_product_that_is_never_recognised_has_no_time(shelf, tower):
    wrong = shelf.where(~shelf["image"].str.fullmatch(r"query\d_1.png"))
    table = arrivals(tower, wrong, number=3, views=1)
    assert len(table) == 3 and table["seconds"].isna().all() and (table["asked"] == 1).all()


def test_what_is_timed_is_never_looked_up(shelf, tower, monkeypatch, tmp_path, seen):
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    encoder.embed(tower, shelf, remember=True)  # as an earlier notebook left it
    seen.clear()
    table = arrivals(tower, shelf, views=1, remember=True)
    assert sum(seen) == 4 + len(table) + table["asked"].sum()  # gallery, packshots, queries
