"""Counts, parts and the leak audit, against counting by hand and against pictures made to leak."""

import imagehash
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from klip.data.catalogue import Catalogue
from klip.data.longtail import leak_audit, phashes, summary, suspects, zipf_exponent


def catalogue(sizes: dict[str, int], split: str = "train") -> Catalogue:
    rows = [
        (f"{product}/{i}.jpg", product, split) for product, n in sizes.items() for i in range(n)
    ]
    return Catalogue(pd.DataFrame(rows, columns=["image", "product", "split"]))


def test_counts_are_sorted_ties_by_name():
    sizes = catalogue({"b": 2, "c": 5, "a": 2, "10": 2}).counts()
    assert list(sizes.items()) == [("c", 5), ("10", 2), ("a", 2), ("b", 2)]


def test_counts_take_one_split():
    train, val = catalogue({"a": 3}), catalogue({"a": 1, "b": 4}, "val")
    both = train.of(pd.concat([train.frame, val.frame]))
    assert both.counts().to_dict() == {"a": 3}
    assert both.counts("val").to_dict() == {"a": 1, "b": 4}
    with pytest.raises(
        ValueError, match=r"no image has split 'test'; the catalogue has \['train', 'val'\]"
    ):
        both.counts("test")


def test_parts_at_their_edges():
    shop = catalogue({"h": 100, "m2": 99, "m1": 20, "t2": 19, "t1": 1})
    assert shop.parts().to_dict() == {
        "h": "head",
        "m2": "middle",
        "m1": "middle",
        "t2": "tail",
        "t1": "tail",
    }
    assert summary(shop).to_dict("list") == {
        "part": ["head", "middle", "tail"],
        "products": [1, 2, 2],
        "images": [100, 119, 20],
        "fewest": [100, 20, 1],
        "most": [100, 99, 19],
    }


def test_summary_keeps_empty_parts():
    table = summary(catalogue({"only": 3}))
    assert table["products"].tolist() == [0, 0, 1] and table["most"].tolist() == [0, 0, 3]


@pytest.mark.parametrize("exponent", [0.0, 0.8, 1.5])
def test_zipf_exponent_of_an_exact_power_law(exponent):
    sizes = pd.Series(1e6 * np.arange(1, 200) ** -exponent)
    assert zipf_exponent(sizes.sample(frac=1, random_state=0)) == pytest.approx(exponent, abs=1e-9)
    with pytest.raises(ValueError, match="at least 2 products, got 1"):
        zipf_exponent(sizes[:1])


def picture(seed: int, size: int = 96) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture
def two_sets(tmp_path):
    """a: pictures 0-3; b: pictures 10-11 and picture 2, smaller and blurred."""
    for i in range(4):
        picture(i).save(tmp_path / f"a{i}.png")
    picture(10).save(tmp_path / "b0.png")
    picture(11).convert("L").save(tmp_path / "b1.png")
    picture(2).resize((60, 60)).filter(ImageFilter.GaussianBlur(1)).save(tmp_path / "b2.png")
    a = pd.DataFrame(
        {"image": [f"a{i}.png" for i in range(4)], "product": list("wxyz"), "split": "train"}
    )
    b = pd.DataFrame(
        {"image": [f"b{i}.png" for i in range(3)], "product": list("pqr"), "split": "query"}
    )
    return Catalogue(a, tmp_path), Catalogue(b, tmp_path)


def test_a_resized_copy_is_found_and_nothing_else(two_sets):
    found = leak_audit(*two_sets)
    assert found[["image_a", "product_a", "image_b", "product_b", "reason"]].values.tolist() == [
        ["a2.png", "y", "b2.png", "r", "pHash"]
    ]
    assert found["cosine"].isna().all()


def test_distances_are_imagehashs_own(two_sets):
    a, b = two_sets
    found = leak_audit(a, b, max_distance=64)
    assert len(found) == 12 and found["distance"].is_monotonic_increasing
    hashed = {
        name: imagehash.phash(Image.open(f"{a.root}/{name}")) for name in [*a["image"], *b["image"]]
    }
    for row in found.itertuples():
        assert row.distance == hashed[row.image_a] - hashed[row.image_b]


def test_embedding_neighbours(two_sets):
    a, b = two_sets
    rows_a, rows_b = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)[[0, 3, 2]]
    found = leak_audit(a, b, embeddings=(rows_a, rows_b))
    assert set(zip(found["image_a"], found["image_b"], found["reason"], strict=True)) == {
        ("a0.png", "b0.png", "embedding"),
        ("a3.png", "b1.png", "embedding"),
        ("a2.png", "b2.png", "both"),
    }
    with pytest.raises(ValueError, match="got 4 and 2 rows for 4 and 3 images"):
        leak_audit(a, b, embeddings=(rows_a, rows_b[:2]))


def test_no_pair_gives_an_empty_table(two_sets):
    a, b = two_sets
    none = leak_audit(a.of(a.frame[:1]), b.of(b.frame[:1]))
    assert none.empty and "reason" in none.columns
    assert leak_audit(a.of(a.frame[:0]), b).empty


def test_an_unreadable_image_is_named(two_sets, tmp_path):
    (tmp_path / "a1.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"a1.png: cannot be read .*klip data check"):
        phashes(two_sets[0])


def test_blocks_and_workers_change_nothing(two_sets, monkeypatch):
    a, b = two_sets
    rng = np.random.default_rng(3)
    rows = [
        (own := rng.normal(size=(len(part), 4))) / np.linalg.norm(own, axis=1, keepdims=True)
        for part in (a, b)
    ]
    whole = leak_audit(a, b, embeddings=rows, max_distance=30, min_cosine=0.2)
    monkeypatch.setattr("klip.data.longtail.BLOCK", 1)
    pd.testing.assert_frame_equal(
        whole, leak_audit(a, b, embeddings=rows, max_distance=30, min_cosine=0.2, workers=2)
    )
    assert len(whole) > 1


def test_suspects_are_products_with_their_worst_pair():
    pairs = pd.DataFrame(
        [("x", "p", 5, 0.98), ("x", "p", 2, 0.90), ("x", "q", 2, 0.95), ("y", "p", 60, 0.99)],
        columns=["product_a", "product_b", "distance", "cosine"],
    )
    found = suspects(pairs)
    assert found.to_dict("list") == {
        "product_a": ["x", "x", "y"],
        "product_b": ["p", "q", "p"],
        "pairs": [2, 1, 1],
        "distance": [2, 2, 60],
        "cosine": [0.98, 0.95, 0.99],
    }
    assert suspects(pairs.iloc[:0]).empty
