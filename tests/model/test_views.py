"""What a network sees of a file: large JPEGs in part, plain views from memory, the same to the bit."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from klip.data.images import read
from klip.model import augment, encoder, views
from klip.model.augment import Preprocess
from klip.model.views import Recent, Views

SEEN = Preprocess(size=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


@pytest.fixture
def recent(monkeypatch):
    """Plain views in memory, none yet."""
    found = Recent(views.MOST)
    monkeypatch.setattr(views, "_plain", found)
    return found


@pytest.fixture
def photo(tmp_path):
    """photo(name, sides): a smooth photograph's file."""
    coarse = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)

    def taken(name, sides):
        Image.fromarray(coarse).resize(sides, Image.Resampling.BICUBIC).save(
            tmp_path / name, quality=95
        )
        return tmp_path / name

    return taken


def test_a_large_photograph_is_decoded_in_part_and_looks_the_same(photo):
    seen = {}
    for name, sides in {"large.jpg": (400, 300), "small.jpg": (63, 47)}.items():
        file = photo(name, sides)
        asked = Views([file, read(file)], SEEN)
        seen[name] = asked[0], asked[1]
        whole = torch.from_numpy(augment.evaluation(read(file), SEEN))
        assert torch.equal(seen[name][1][0], whole)
    assert torch.equal(*seen["small.jpg"])  # half of it would be less than 1.5 times 32
    part = augment.evaluation(read(photo("large.jpg", (400, 300)), 48), SEEN)  # 300 / 4 = 75
    assert np.array_equal(seen["large.jpg"][0][0], part)
    level = 1 / (255 * 0.25)  # one of 256, after normalisation
    one, other = seen["large.jpg"]
    assert not torch.equal(one, other) and (one - other).abs().mean() < level


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
def test_what_stays_in_memory_changes_nothing(photo, recent, resize):
    how = SEEN.changed(resize=resize)
    files = [photo(f"{side}.jpg", (side, 50)) for side in (30, 60, 90)]
    plain = [Views(files, how)[place] for place in range(3)]
    assert not recent.arrays
    for _ in range(2):
        found = [Views(files, how, again=True)[place] for place in range(3)]
        assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))
        assert len(recent.arrays) == 3 and recent.bytes == 3 * 32 * 32 * 3
    other = how.changed(std=(1, 1, 1))
    wanted = Views(files, other)[0]  # other numbers of the same colours
    assert torch.equal(Views(files, other, again=True)[0], wanted) and len(recent.arrays) == 3
    Views(files, how.changed(size=16), again=True)[0]
    Views(files, how, views=3, again=True)[0]
    Views([read(files[0])], how, again=True)[0]
    assert len(recent.arrays) == 4


def test_a_file_that_changed_is_read_anew(photo, recent):
    file = photo("one.jpg", (40, 40))
    before = Views([file], SEEN, again=True)[0]
    Image.new("RGB", (40, 40), "red").save(file)
    os.utime(file, ns=(1, 1))
    after = Views([file], SEEN, again=True)[0]
    assert not torch.equal(before, after) and torch.equal(after, Views([file], SEEN)[0])


def test_the_oldest_go_first():
    made, recent = [], Recent(25)

    def get(key):
        return recent.get(key, lambda: made.append(key) or np.full(10, key, np.uint8))

    for key in (1, 2, 1, 3, 1, 2):
        assert (get(key) == key).all()
    assert made == [1, 2, 3, 2] and recent.bytes == 20 and list(recent.arrays) == [1, 2]
    get_large = recent.get("large", lambda: np.zeros(30, np.uint8))
    assert len(get_large) == 30 and recent.bytes == 0


def test_a_file_that_cannot_be_read_is_told_each_time(tmp_path, recent):
    (tmp_path / "bad.jpg").write_text("no image")
    for _ in range(2):
        with pytest.raises(ValueError, match="bad.jpg: cannot be read"):
            Views([tmp_path / "bad.jpg"], SEEN, again=True)[0]
    assert not recent.arrays


def test_encoders_share_what_was_read(photo, recent, monkeypatch):
    files = [photo(f"{side}.jpg", (side, 50)) for side in (30, 60, 90)]
    one, other = encoder.load("nano", pixels=32), encoder.load("nano", pixels=32)
    rows = encoder.embed(one, files, precision="fp32")
    again = {"precision": "fp32", "again": True, "workers": 2}
    assert torch.equal(encoder.embed(one, files, **again), rows)
    monkeypatch.setattr(views, "picture", None)  # nothing is read any more
    assert torch.equal(encoder.embed(other, files, **again), rows)
