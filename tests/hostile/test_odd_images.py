"""Every odd image at every entry: read, or one sentence that names the file and the reason."""

import warnings

import numpy as np
import pandas as pd
import pytest
from kinds import FILES, JPEG, PICTURE, promising
from PIL import Image

from klip.data import damage, images, longtail, scan
from klip.data.catalogue import Catalogue
from klip.data.loading import load_catalogue
from klip.model import encoder
from klip.model.augment import Preprocess
from klip.recognise import evaluation, keypoints
from klip.recognise.gallery import Gallery

VIT = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16},
}
FINE = [name for name, (_, why) in FILES.items() if not why]
BAD = [name for name, (_, why) in FILES.items() if why]


@pytest.fixture(scope="module")
def tower():
    preprocess = Preprocess(size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    return encoder.build(VIT, preprocess, name="tiny")


@pytest.fixture
def shelf(tmp_path):
    """A folder of two products with whole photographs, and a place for an odd one."""
    for product in ("cola", "tea"):
        (tmp_path / product).mkdir()
        for number in range(2):
            turned = PICTURE.rotate(90 * number + 180 * (product == "tea"), expand=True)
            turned.save(tmp_path / product / f"{number}.png")
    return tmp_path


def put(shelf, name):
    file = shelf / "cola" / name
    file.write_bytes(FILES[name][0])
    return file


ENTRIES = {
    "images.read": lambda file, tower: images.read(file),
    "embed": lambda file, tower: encoder.embed(tower, [file]),
    "Gallery.add": lambda file, tower: gallery(file, tower).add("new", [file]),
    "gallery classify": lambda file, tower: gallery(file, tower).classify([file]),
    "keypoints": lambda file, tower: keypoints.describe([file]),
    "evaluate": lambda file, tower: evaluation.evaluate(tower, asked(file), views=1),
    "leak audit": lambda file, tower: longtail.phashes(load(file, bad_images="keep")),
}


def asked(file):
    """A set whose query is the odd image."""
    kept = load(file, bad_images="keep").frame
    split = kept["image"].str.endswith(file.name).map({True: "query", False: "gallery"})
    others = kept["image"].str.endswith(("/0.png", file.name))
    return Catalogue(kept.assign(split=split)[others].reset_index(drop=True), file.parents[1], "s")


def load(file, **how):
    return load_catalogue("folder", file.parents[1], **how)


def gallery(file, tower):
    others = load(file, bad_images="keep")
    return Gallery.build(tower, others.where(others["product"] == "tea"), views=1)


@pytest.mark.parametrize("name", FINE)
def test_what_pillow_can_read_is_read(shelf, tower, name):
    file = put(shelf, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, on EXIF that it cannot parse
        pixels = images.read(file)
        assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
        assert file.relative_to(shelf).as_posix() in scan.scan(shelf).images
        assert damage.check(load(file)).empty
        assert images.area(file) == pixels.shape[0] * pixels.shape[1]
        assert encoder.embed(tower, [file]).isfinite().all()


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_one_sentence(shelf, tower, name, entry):
    file = put(shelf, name)
    with pytest.raises(ValueError) as caught:
        ENTRIES[entry](file, tower)
    said = str(caught.value)
    assert str(file) in said and FILES[name][1] in said and "\n" not in said, said


@pytest.mark.parametrize("name", BAD)
def test_it_is_left_out_by_choice_counted_and_named(shelf, tower, name):
    file = put(shelf, name)
    with pytest.warns(UserWarning, match=f"1 left out: cola/{name} "):
        kept = load(file, bad_images="skip")
    assert len(kept) == 4 and list(kept.left_out) == [f"cola/{name}"]
    made = Gallery.build(tower, kept.packshots(), views=1)
    assert list(made.meta["left_out"]["why"]) == [f"cola/{name}"]
    assert made.meta["left_out"]["files"] == 1


def test_many_damaged_images_are_no_accident(shelf):
    for number in range(11):
        (shelf / "tea" / f"bad{number}.jpg").write_bytes(b"%d" % number)
    with pytest.raises(ValueError, match="11 of 15 images in .* are damaged, more than 1%"):
        load_catalogue("folder", shelf, bad_images="skip")


@pytest.mark.parametrize("name", ["exif.jpg", "exif_big_endian.jpg", "exif.png", "exif.webp"])
def test_a_sound_exif_turns_the_image_whatever_else_it_holds(shelf, name):
    assert images.read(put(shelf, name)).shape == (32, 24, 3)
    assert images.read(put(shelf, "exif_short_resolution.jpg")).shape == (32, 24, 3)


def test_grey_values_of_every_depth_are_the_same_picture(shelf):
    wanted = np.linspace(0, 255, 24 * 32).reshape(24, 32)
    for name in ("sixteen.png", "float_1.tif", "float_255.tif", "int32_of_bytes.tif"):
        found = images.read(put(shelf, name))[..., 0].astype(float)
        assert np.abs(found - wanted).max() <= 1.01, name


def test_two_scans_of_16_bits_are_told_apart_and_a_turned_copy_is_found(tmp_path, shelf):
    rng = np.random.default_rng(1)
    for number in range(2):
        deep = rng.integers(0, 256, (24, 32), dtype=np.uint16) * 257 // (1 + number)
        Image.fromarray(deep.astype(np.uint16)).save(shelf / f"tea/deep{number}.png")
    deep = [hash_of(shelf / f"tea/deep{number}.png") for number in range(2)]
    assert np.bitwise_count(deep[0] ^ deep[1]) > 10
    upright = shelf / "tea/upright.png"
    Image.fromarray(images.read(put(shelf, "exif.jpg"))).save(upright)
    copy = hash_of(shelf / "cola/exif.jpg")
    assert np.bitwise_count(copy ^ hash_of(upright)) <= 2


def hash_of(file):
    from klip.data.longtail import _phash

    return _phash(file)


@pytest.mark.parametrize("seed", range(300))
def test_a_mutated_file_is_read_or_refused_in_a_sentence(tmp_path, seed):
    from mutate import mutated

    name, content = mutated(seed)
    (tmp_path / name).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert images.read(tmp_path / name).dtype == np.uint8
        except ValueError as error:
            assert str(error).startswith(f"image {tmp_path / name}: cannot be read (")
            assert "\n" not in str(error)


def test_a_telephones_200_megapixels_are_no_bomb(shelf):
    file = shelf / "cola/large.png"
    file.write_bytes(promising(14_000, 14_000))
    assert images.area(file) == 196_000_000
    others = Catalogue(pd.DataFrame({"image": ["cola/0.png", "cola/large.png"]}), shelf)
    chosen = others.assign(product="cola", split="gallery")._one_each("largest", None)
    assert chosen == [1]


def test_the_fixture_is_what_it_says():
    assert JPEG[:2] == b"\xff\xd8" and len(FILES) >= 70 and len(BAD) * len(ENTRIES) >= 120
