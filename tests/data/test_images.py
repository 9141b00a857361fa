"""Scaled decoding of JPEGs; what `read` makes of every kind of image is tested with the catalogues."""

import numpy as np
import pytest
from PIL import Image

from klip.data import images
from klip.data.images import read


@pytest.fixture
def photo(tmp_path):
    """A smooth photograph, 640 x 480."""
    coarse = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC).save(
        tmp_path / "photo.jpg", quality=95
    )
    return tmp_path / "photo.jpg"


def test_pixels_are_those_of_a_plain_decoder(photo):
    with Image.open(photo) as image:
        plain = np.array(image.convert("RGB"))
    assert np.array_equal(images.read(photo), plain) and read is images.read
    assert np.array_equal(images.read(photo, at_least=241), plain)  # 1/2 would have 240


@pytest.mark.parametrize(
    "at_least, shape",
    [
        (241, (480, 640)),
        (240, (240, 320)),
        (121, (240, 320)),
        (120, (120, 160)),
        (60, (60, 80)),
        (1, (60, 80)),
    ],
)
def test_scaled_decoding_keeps_the_pixels_of_the_short_side(photo, at_least, shape):
    found = images.read(photo, at_least)
    assert found.shape == (*shape, 3) and min(shape) >= at_least


def test_scaled_decoding_looks_the_same_when_shrunk(photo):
    def small(pixels):
        return np.asarray(
            Image.fromarray(pixels).resize((60, 60), Image.Resampling.BICUBIC)
        ).astype(int)

    quick, whole = images.read(photo, at_least=120), images.read(photo)
    assert len(quick) < len(whole) and np.abs(small(quick) - small(whole)).mean() < 1


def test_scaled_decoding_turns_and_leaves_other_formats(photo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(photo) as image:
        image.save(tmp_path / "turned.jpg", exif=exif)
        image.save(tmp_path / "same.png")
        image.convert("L").save(tmp_path / "grey.jpg")
        image.convert("CMYK").save(tmp_path / "four.jpg")
    assert images.read(tmp_path / "turned.jpg", 120).shape == (160, 120, 3)
    assert images.read(tmp_path / "same.png", 120).shape == (480, 640, 3)
    assert (
        images.read(tmp_path / "grey.jpg", 120).shape
        == images.read(tmp_path / "four.jpg", 120).shape
        == (120, 160, 3)
    )


def test_area(photo, tmp_path):
    assert images.area(photo) == 640 * 480
    (tmp_path / "text.png").write_text("text")
    assert images.area(tmp_path / "text.png") == images.area(tmp_path / "none.png") == 0
