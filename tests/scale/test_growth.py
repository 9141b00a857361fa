"""Slopes of known power laws, every work at its smallest size, the floors of the machine."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from klip.model import encoder
from klip.model.augment import Preprocess
from klip.model.weights import save
from klip.scale import floors, growth, watch

VIT = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16},
}


@pytest.fixture
def tiny(tmp_path):
    """The file of a small random tower of 2 blocks."""
    made = encoder.build(VIT, Preprocess(size=16, mean=(0.5,) * 3, std=(0.25,) * 3), name="tiny")
    return str(save(made, tmp_path / "tower.safetensors"))


def test_the_slope_of_a_power_law_is_its_power():
    rows = [
        {"work": f"to the {power}", "size": size, "seconds": 3 * size**power * outlier}
        for power in (0, 1, 1.5)
        for size in (1, 10, 100)
        for outlier in (1, 1, 50)  # a median knows none
    ]
    found = growth.slopes(pd.DataFrame(rows)).set_index("work")["slope"]
    assert found.to_dict() == pytest.approx(
        {"to the 0": 0, "to the 1": 1, "to the 1.5": 1.5}, abs=1e-9
    )


@pytest.mark.usefixtures("one_thread")
def test_every_work_runs_at_its_sizes(tiny):
    small = dict.fromkeys(growth.WORKS, 2) | {"loading, images": 10, "planning, images": 10}
    table = growth.growth(tiny, rounds=2, factors=(1, 3), sizes=small)
    assert table["work"].unique().tolist() == list(growth.WORKS)
    for name, own in table.groupby("work"):
        assert own["size"].tolist() == [small[name], 3 * small[name]] * 2
        assert own["round"].tolist() == [0, 0, 1, 1] and (own["seconds"] > 0).all()
    assert growth.slopes(table)["slope"].map(np.isfinite).all()


@pytest.mark.usefixtures("one_thread")
def test_a_work_of_no_size_is_left_out(tiny):
    sizes = dict.fromkeys(growth.WORKS, 0) | {"search of one query, gallery rows": 5}
    table = growth.growth(tiny, rounds=1, factors=(1,), sizes=sizes)
    assert table["work"].tolist() == ["search of one query, gallery rows"]


@pytest.mark.usefixtures("one_thread")
def test_floors_have_a_median_and_a_spread():
    table = floors.floors(rounds=3, side=32, megabytes=1, size=(24, 32))
    assert table["unit"].tolist() == ["FLOP", "byte", "image"]
    assert (table["low"] > 0).all() and (table["low"] <= table["per_second"]).all()
    assert (table["per_second"] <= table["high"]).all()


def test_photographs_have_the_size_that_is_asked_for(tmp_path):
    (file,) = watch.photographs(tmp_path, 1, size=(60, 80)).files
    with Image.open(file) as image:
        assert image.size == (60, 80)
