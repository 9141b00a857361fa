"""RP2K's mangled names, empty folders and one-sided products; Index/ of GroZi-120."""

import pytest

from klip.data import damage, folders
from klip.data.loading import load_catalogue

TEA, COLA = "冰红茶", "可乐(罐装)"


@pytest.fixture
def rp2k(tmp_path, picture):
    """As unpacked by a tool that took UTF-8 or GBK for code page 437; the same file name in many folders."""
    root = tmp_path / "rp2k"
    for image in (
        f"train/{mangled(TEA)}/0.jpg",
        f"train/{mangled(TEA)}/1.png",
        f"test/{mangled(TEA)}/0.jpg",
        f"train/{TEA}/0.jpg",
        f"train/{mangled(COLA, 'gbk')}/0.jpg",
        f"test/{COLA}/0.jpg",
        "train/café/0.jpg",
        "train/others/0.jpg",
        "test/others/0.jpg",
        f"test/{mangled('新品')}/0.jpg",
    ):
        picture(root / "all" / image)
    (root / f"all/train/{mangled('空')}").mkdir()
    (root / f"all/train/{mangled(TEA)}/Thumbs.db").write_bytes(b"x")
    return root


def mangled(name, encoding="utf-8"):
    return name.encode(encoding).decode("cp437")


@pytest.mark.parametrize(
    "name", [TEA, COLA, "新品", "Coca Cola 330ml", "café", "caféx", "Müller", "others", "Ωmega", ""]
)
def test_names_are_decoded_and_right_ones_left_alone(name):
    assert folders.decoded(name) == name
    if all(ord(sign) < 128 or ord(sign) > 0x3000 for sign in name):
        assert folders.decoded(mangled(name)) == folders.decoded(mangled(name, "gbk")) == name


def test_rp2k(rp2k):
    catalogue = load_catalogue("rp2k", rp2k)
    assert catalogue.frame.groupby(["product", "split"]).size().to_dict() == {
        (TEA, "train"): 3,
        (TEA, "query"): 1,
        (COLA, "train"): 1,
        (COLA, "query"): 1,
        ("café", "train"): 1,
        ("新品", "query"): 1,
    }
    assert (
        catalogue["image"].is_unique and damage.check(catalogue).empty
    )  # paths are as they are on disk
    assert damage.one_sided(catalogue) == (["café"], ["新品"])
    notes = "\n".join(catalogue.notes)
    assert "others/ left out, 2 images" in notes and "1 folders are empty: train/" in notes
    several = catalogue.notes[-1]
    assert (
        several.startswith("2 products have folders of several names: ")
        and TEA in several
        and COLA in several
    )


def test_rp2k_others_by_choice_and_other_places(rp2k):
    kept = load_catalogue("rp2k", rp2k, others=True)
    assert (kept["product"] == "others").sum() == 2 and "left out" not in "".join(kept.notes)
    plain = load_catalogue("rp2k", rp2k)["image"].tolist()
    assert load_catalogue("rp2k", rp2k / "all")["image"].tolist() == plain
    (rp2k.parent / "outer").mkdir()
    rp2k.rename(rp2k.parent / "outer" / "rp2k_dataset")
    assert load_catalogue("rp2k", rp2k.parent / "outer")["image"].tolist() == plain


def test_products_only_in_test_count_or_are_dropped(rp2k):
    with pytest.warns(
        UserWarning, match="rp2k: 1 queries count as wrong, there is no packshot of 新品"
    ):
        _, counted = load_catalogue("rp2k", rp2k).pick()
    with pytest.warns(UserWarning, match="rp2k: 1 queries left out, there is no packshot of 新品"):
        _, dropped = load_catalogue("rp2k", rp2k, test_only="drop").pick()
    assert len(counted) == 3 and len(dropped) == 2 and "新品" not in set(dropped["product"])
    with pytest.raises(ValueError, match="test_only must be count or drop, got 'keep'"):
        load_catalogue("rp2k", rp2k, test_only="keep")


@pytest.fixture
def grozi(tmp_path, picture):
    for product in (1, 2, 10):
        picture(tmp_path / f"inVitro/{product}/web/JPEG/web1.jpg")
        picture(tmp_path / f"inVitro/{product}/web/masks/mask1.png")
        picture(tmp_path / f"inSitu/{product}/video/video1.png")
    return tmp_path


@pytest.mark.parametrize("place", ["inVitro/{}/Index/{}.jpg", "Index/{0}.png"])
def test_grozi_index_is_a_gallery_by_choice(grozi, picture, place):
    before = load_catalogue("grozi-120", grozi)
    for product in (1, 2, 10):
        picture(grozi / place.format(product, "front"))
    (grozi / place.format(1, "x")).with_name("notes.txt").write_text("no image")
    catalogue = load_catalogue("grozi-120", grozi)
    gallery, _ = catalogue.pick("index")
    assert (
        gallery["product"].tolist() == ["1", "2", "10"]
        and gallery["image"].str.contains("Index/").all()
    )
    for rule in ("first", "largest", "random"):  # the other rules see what they saw
        for now, then in zip(catalogue.pick(rule), before.pick(rule), strict=True):
            assert now.frame.equals(then.frame)


def test_grozi_without_index(grozi):
    with pytest.raises(
        ValueError, match="rule index wants pictures in Index/ .* take first, largest or random"
    ):
        load_catalogue("grozi-120", grozi).pick("index")
