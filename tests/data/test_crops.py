"""Boxes of shelf photographs: the pixels cut out, kept once, and boxes that cannot be."""

import numpy as np
import pytest
from PIL import Image

from klip.data import damage
from klip.data.images import read
from klip.data.loading import load_catalogue
from klip.settings import paths

HEADER = "image,x1,y1,x2,y2,product,split\n"


@pytest.fixture
def shelf(tmp_path):
    """One photograph, 8 x 6, every pixel another; and folders of a product's packshots beside it."""
    pixels = np.arange(8 * 6 * 3, dtype=np.uint8).reshape(6, 8, 3)
    Image.fromarray(pixels).save(tmp_path / "store1_1.png")
    (tmp_path / "boxes.csv").write_text(
        HEADER + "store1_1.png,1,2,4,5,tea,\nstore1_1.png,-3,0.6,2,99,coke,Test\n"
        "store1_1.png,0,0,8,6,tea,train\n"
    )
    return tmp_path, pixels


def test_boxes_are_cut_out(shelf):
    root, pixels = shelf
    catalogue = load_catalogue("capg-gp", root)
    assert catalogue.frame[["product", "split"]].values.tolist() == [
        ["tea", "query"],
        ["coke", "query"],
        ["tea", "train"],
    ]
    cuts = [read(image) for image in catalogue["image"]]
    for cut, wanted in zip(cuts, (pixels[2:5, 1:4], pixels[1:6, 0:2], pixels), strict=True):
        assert np.array_equal(cut, wanted)
    assert damage.check(catalogue).empty and not list((paths.CACHE / "crops").glob(".*"))


def test_crops_are_cut_once_and_by_content(shelf):
    root, pixels = shelf
    first = load_catalogue("capg-gp", root)["image"].tolist()
    times = [(paths.CACHE / image).stat().st_mtime_ns for image in first]
    assert load_catalogue("capg-gp", root)["image"].tolist() == first
    assert [(paths.CACHE / image).stat().st_mtime_ns for image in first] == times
    Image.fromarray(255 - pixels).save(root / "store1_1.png")
    again = load_catalogue("capg-gp", root)["image"].tolist()
    assert again[0] != first[0] and np.array_equal(read(again[2]), 255 - pixels)


def test_folders_and_boxes_together(shelf, picture):
    root, _ = shelf
    picture(root / "train/tea/1.jpg")
    picture(root / "shelves/not_a_product.jpg")
    catalogue = load_catalogue("capg-gp", root)
    assert catalogue["product"].tolist() == ["tea", "tea", "coke", "tea"]
    assert catalogue["image"][0] == "train/tea/1.jpg" and catalogue.root == root
    with pytest.warns(UserWarning, match="1 queries left out, there is no packshot of coke"):
        assert [len(part) for part in catalogue.pick()] == [1, 1]
    (root / "boxes.csv").rename(root / "other.csv")
    picture(root / "test/tea/1.jpg")
    (root / "shelves/not_a_product.jpg").unlink()
    (root / "shelves").rmdir()
    assert (
        len(load_catalogue("capg-gp", root)) == 2
        and len(load_catalogue("capg-gp", root, boxes="other.csv")) == 5
    )
    with pytest.raises(FileNotFoundError, match="boxes.csv is missing; put the product crops"):
        load_catalogue("capg-gp", root, boxes="boxes.csv")


@pytest.mark.parametrize(
    "rows, words",
    [
        (
            "store1_1.png,4,2,4,5,tea,\n",
            "row 1 of .*boxes.csv has box 4, 2, 4, 5, accepted are numbers with x1 < x2",
        ),
        (
            "store1_1.png,1,2,4,5,tea,\nstore1_1.png,4,5,1,2,tea,\n",
            "row 2 of .* has box 4, 5, 1, 2, accepted",
        ),
        (
            "store1_1.png,8,0,12,5,tea,\n",
            r"row 1 of .* has box 8, 0, 12, 5, which has no pixel of store1_1.png \(8 x 6\)",
        ),
        ("store1_1.png,-8,0,-2,5,tea,\n", "which has no pixel"),
        ("store1_1.png,a,0,2,5,tea,\n", "row 1 of .* has box a, 0, 2, 5, accepted are numbers"),
        ("store1_1.png,inf,0,2,5,tea,\n", "accepted are numbers"),
        (
            "store9.png,0,0,2,5,tea,\n",
            "row 1 of .* has image 'store9.png', accepted are photographs below",
        ),
        ("../boxes.csv,0,0,2,5,tea,\n", "accepted are paths below"),
        ("store1_1.png,0,0,2,5,,\n", "row 1 of .* has no product"),
        ("store1_1.png,0,0,2,5,tea,later\n", "has split 'later', accepted are train"),
        ("", "wants columns image, x1, .* and 0 rows"),
    ],
)
def test_boxes_refused_leave_nothing(shelf, rows, words):
    root, _ = shelf
    (root / "boxes.csv").write_text(HEADER + rows)
    with pytest.raises(ValueError, match=words) as caught:
        load_catalogue("capg-gp", root)
    assert "\n" not in str(caught.value)
    assert not (paths.CACHE / "crops").exists() or not list((paths.CACHE / "crops").iterdir())
