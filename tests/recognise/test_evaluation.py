"""The gallery against brute force, and shops whose answer is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from klip.data.catalogue import Catalogue
from klip.data.loading import load_catalogue
from klip.model.augment import Preprocess
from klip.model.encoder import Encoder, embed
from klip.recognise import evaluation
from klip.recognise.gallery import Gallery


class MeanColour(nn.Module):
    """Mean colours of four quarters: (B, 3, S, S) -> (B, 12)."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((12,), gain))

    def forward(self, images):
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1) * self.gain


def colours(gain=1.0, resize="squash"):
    tower = MeanColour()
    tower.gain.data[0] = gain
    preprocess = Preprocess(size=16, mean=(0.5,) * 3, std=(0.5,) * 3, resize=resize)
    return Encoder(tower, preprocess, name="colours", arch="colours", config={"embed_dim": 12})


def shop(folder, products=7, queries=2, sizes=((16, 16),)):
    """A catalogue: a product is a pattern of four colours, with packshots of these sizes, and queries."""
    rng, rows = np.random.default_rng(5), []
    for product in (f"p{i}" for i in range(products)):
        pattern = Image.fromarray(rng.integers(0, 256, (2, 2, 3), dtype=np.uint8))
        for kind, number, size in [("gallery", n, size) for n, size in enumerate(sizes, 1)] + [
            ("query", n, (16, 16)) for n in range(queries)
        ]:
            name = f"{product}_{kind}{number}.png"
            pattern.resize(size, Image.Resampling.NEAREST).save(folder / name)
            rows.append((name, product, kind))
    frame = pd.DataFrame(rows, columns=["image", "product", "split"])
    return Catalogue(frame, folder, "shop")


def unit(rows, dim=8, seed=0):
    numbers = np.random.default_rng(seed).standard_normal((rows, dim))
    return nn.functional.normalize(torch.from_numpy(numbers).float(), dim=1)


def gallery_of(embeddings, owners):
    return Gallery(
        embeddings, owners, [f"{i}.png" for i in range(len(owners))], {"views": 1, "seed": 0}
    )


@pytest.mark.parametrize("top", [1, 2, 5, 9])
def test_search_equals_brute_force(top, monkeypatch):
    monkeypatch.setattr("klip.recognise.nearest.CHUNK", 7)  # 30 queries in uneven chunks
    owners = [f"p{i}" for i in np.random.default_rng(1).integers(0, 9, 60)]
    gallery, queries = gallery_of(unit(60), owners), unit(30, seed=2)
    found = gallery.classify(queries, top=top)
    for number, query in enumerate(queries):
        own = found[found["query"] == number]
        cosine = [
            sum(a * b for a, b in zip(query.tolist(), row, strict=True))
            for row in unit(60).tolist()
        ]
        order = sorted(range(60), key=lambda i: (-cosine[i], i))
        first = {}  # product -> its nearest row
        for row in order:
            first.setdefault(owners[row], row)
        expected = list(first.items())[:top]
        assert own["product"].tolist() == [product for product, _ in expected]
        assert own["rank"].tolist() == list(range(1, top + 1))
        assert own["packshot"].tolist() == [f"{row}.png" for _, row in expected]
        assert own["similarity"].tolist() == pytest.approx(
            [cosine[row] for _, row in expected], abs=1e-6
        )


@pytest.mark.parametrize("count, dim", [(3, 8), (37, 768), (129, 512)])
def test_exact_ties_go_to_the_lowest_row(count, dim):
    row = unit(1, dim)
    gallery = gallery_of(row.repeat(count, 1), [f"p{i}" for i in range(count)])
    rows, _ = gallery.search(torch.cat([row.float(), unit(40, dim, seed=1).float()]), top=3)
    assert (rows == [0, 1, 2]).all()


def test_no_queries_have_no_answers():
    gallery = gallery_of(unit(6), list("aabbcc"))
    rows, cosines = gallery.search(torch.zeros(0, 8), top=2)
    assert rows.shape == cosines.shape == (0, 2) and rows.dtype == np.int64
    assert gallery.classify(torch.zeros(0, 8)).empty


# ------------------------------------------------------------------------------------------------ unknown

ANGLES = torch.tensor([0.0, 0.2, 1.0, 2.0])
FAN = torch.stack([ANGLES.cos(), ANGLES.sin()], 1)
"""Directions of a, a, b, c; queries at 0.1 (cosine 0.995, margin 0.373), 0.7 (0.955, 0.078) and -1.2 (0.362, 0.951)."""


def fan(unknown=None):
    gallery = gallery_of(FAN, ["a", "a", "b", "c"])
    gallery.meta |= {"unknown": unknown} if unknown else {}
    return gallery, torch.stack(
        [torch.tensor([0.1, 0.7, -1.2]).cos(), torch.tensor([0.1, 0.7, -1.2]).sin()], 1
    )


@pytest.mark.parametrize(
    "own, arguments, unknown",
    [
        (None, {}, [False] * 3),
        (None, {"unknown_below": 0.97}, [False, True, True]),
        (None, {"unknown_below": 0.2, "score": "margin"}, [False, True, False]),
        (None, {"unknown_below": -2}, [False] * 3),
        (("similarity", 0.5), {}, [False, False, True]),
        (("margin", 0.2), {}, [False, True, False]),
        (
            ("margin", 0.2),
            {"unknown_below": 0.5},
            [True, True, False],
        ),  # of the gallery's own score
        (("margin", 0.2), {"unknown_below": 0.97, "score": "similarity"}, [False, True, True]),
        (("margin", 0.2), {"unknown_below": -2}, [False] * 3),
        (("margin", 0.2), {"score": "margin"}, [False, True, False]),
    ],
)
@pytest.mark.parametrize("top", [1, 2, 5])
def test_a_query_below_the_threshold_is_unknown(own, arguments, unknown, top):
    gallery, queries = fan({"score": own[0], "below": own[1]} if own else None)
    found = gallery.classify(queries, top=top, **arguments)
    plain = gallery.classify(queries, top=top, unknown_below=-2)
    assert found.groupby("query")["unknown"].agg(["min", "max"]).to_numpy().tolist() == [
        [x, x] for x in unknown
    ]
    pd.testing.assert_frame_equal(
        found.drop(columns="unknown"), plain.drop(columns="unknown")
    )  # still the nearest
    assert found["unknown"].dtype == bool and len(found) == 3 * min(top, 3)


def test_a_score_at_the_threshold_is_accepted_whatever_its_last_digit():
    gallery, queries = fan()
    value = gallery.classify(queries[:1], top=1)["similarity"].iloc[0]
    for digit, unknown in ((0, False), (1e-7, False), (1e-5, True)):
        assert (
            gallery.classify(queries[:1], unknown_below=value + digit)["unknown"].iloc[0] == unknown
        )


@pytest.mark.parametrize(
    "own, arguments, word",
    [
        (
            None,
            {"unknown_below": 0.5, "score": "cosine"},
            "similarity or margin, .*got score='cosine'",
        ),
        (None, {"score": "margin"}, "no threshold for it"),
        ("similarity", {"score": "margin"}, "no threshold for it"),
        (None, {"unknown_below": 95}, "between -2 and 2, got 95"),
        (None, {"unknown_below": float("nan")}, "got nan"),
    ],
)
def test_a_threshold_that_means_nothing_is_refused(own, arguments, word):
    gallery, queries = fan({"score": own, "below": 0.5} if own else None)
    with pytest.raises(ValueError, match=word):
        gallery.classify(queries, **arguments)


def test_margin_is_best_minus_second_product_and_of_one_product_as_if_another_lay_opposite():
    gallery, queries = fan()
    asked = pd.DataFrame({"image": list("xyz"), "product": list("aba")})
    frame = evaluation.outcome(gallery, asked, embeddings=queries)
    assert frame["margin"].tolist() == pytest.approx(
        [0.3734, 0.0777, 0.9509], abs=1e-4
    )  # not a's second row
    for margin, row in zip(
        frame["margin"], (gallery.embeddings @ queries.T).T.tolist(), strict=True
    ):
        best = sorted((max(row[:2]), row[2], row[3]))
        assert margin == pytest.approx(best[2] - best[1], abs=1e-6)
    alone = evaluation.outcome(gallery.without({"b", "c", "nothing"}), asked, embeddings=queries)
    assert alone["margin"].tolist() == pytest.approx((alone["similarity"] + 1).tolist(), abs=1e-6)
    assert np.isfinite(alone["margin"]).all()


def test_the_threshold_stays_with_the_gallery(tmp_path):
    gallery = Gallery.build(colours(), shop(tmp_path).packshots(), views=1)
    gallery.meta["unknown"] = {"below": 0.7123456789012345, "score": "margin", "how": "by hand"}
    gallery.add("new", [tmp_path / "p0_query0.png"])
    gallery.remove("p1")
    again = Gallery.load(gallery.save(tmp_path / "g"), colours())
    assert (
        again.meta["unknown"] == gallery.meta["unknown"] == gallery.without({"p2"}).meta["unknown"]
    )
    assert again.classify([tmp_path / "p0_query0.png"])["unknown"].all()  # p0 and new: margin 0
    del gallery.meta["unknown"]
    before = Gallery.load(gallery.save(tmp_path / "old"), colours())
    assert (
        "unknown" not in before.meta
        and not before.classify([tmp_path / "p0_query0.png"])["unknown"].any()
    )


@pytest.mark.parametrize(
    "arguments, word",
    [({"images": unit(3, 5)}, "must have 8 columns"), ({"images": ["a.png"]}, "need the encoder")],
)
def test_search_refuses(arguments, word):
    with pytest.raises(ValueError, match=word):
        gallery_of(unit(6), list("aabbcc")).classify(**{"images": unit(3)} | arguments)


def test_a_gallery_without_products_says_so():
    with pytest.raises(ValueError, match="holds no product to compare with; add one"):
        gallery_of(unit(6), list("aabbcc")).without({"a", "b", "c"}).classify(unit(3))


def test_an_encoder_that_broke_is_noticed(tmp_path):
    with pytest.raises(ValueError, match="not finite"):
        Gallery.build(colours(gain=float("nan")), shop(tmp_path).packshots())


def test_identical_packshots_give_100_percent_and_permuted_owners_0(tmp_path):
    catalogue = shop(tmp_path)
    frame = evaluation.evaluate(colours(), catalogue, views=4)
    assert len(frame) == 14 and frame["top1"].all() and frame["top5"].all()
    assert np.allclose(frame["similarity"], 1) and (frame["predicted"] == frame["product"]).all()
    assert frame["packshot"].tolist() == [f"{product}_gallery1.png" for product in frame["product"]]
    following = {f"p{i}": f"p{(i + 1) % 7}" for i in range(7)}
    shifted = catalogue["product"].map(following)
    moved = catalogue.assign(
        product=shifted.where(catalogue["split"] == "gallery", catalogue["product"])
    )
    wrong = evaluation.evaluate(colours(), moved, views=4)
    assert not wrong["top1"].any()
    assert wrong["predicted"].tolist() == wrong["product"].map(following).tolist()


def test_top5_counts_distinct_products(tmp_path):
    """With 8 views a product fills five rows by itself: top-5 must still hold five products."""
    gallery = Gallery.build(colours(), shop(tmp_path).packshots(), views=8)
    found = gallery.classify([tmp_path / "p3_query0.png"], top=5)
    assert found["product"].nunique() == 5 and found["product"].iloc[0] == "p3"


def test_all_views_are_kept_and_the_first_is_plain(tmp_path):
    packshots = shop(tmp_path).packshots()
    gallery, plain = (
        Gallery.build(colours(), packshots, views=3, seed=4),
        embed(colours(), packshots),
    )
    assert len(gallery) == 21 and gallery.products == [f"p{i}" for i in range(7)]
    assert torch.equal(gallery.embeddings[::3], plain)
    assert gallery.owners[:4] == ["p0", "p0", "p0", "p1"]
    assert gallery.images[2:4] == packshots["image"].tolist()[:2]
    other = Gallery.build(colours(), packshots, views=3, seed=5)
    assert not torch.equal(gallery.embeddings, other.embeddings)


def test_add_and_remove_leave_the_other_rows_alone(tmp_path):
    packshots = shop(tmp_path).packshots()
    whole = Gallery.build(colours(), packshots, views=4, seed=9)
    grown = Gallery.build(colours(), packshots.of(packshots.frame[:-1]), views=4, seed=9)
    before = grown.embeddings.clone()
    grown.add("p6", [tmp_path / "p6_gallery1.png"])
    assert torch.equal(grown.embeddings[:24], before)
    assert torch.equal(grown.embeddings, whole.embeddings) and grown.owners == whole.owners
    grown.remove("p2")
    keep = [row for row, owner in enumerate(whole.owners) if owner != "p2"]
    assert torch.equal(grown.embeddings, whole.embeddings[keep]) and "p2" not in grown.products
    assert [len(x) for x in (grown.owners, grown.images)] == [24, 24]
    assert grown.classify([tmp_path / "p2_query0.png"], top=1)["product"].iloc[0] != "p2"
    grown.add("p2", [tmp_path / "p2_gallery1.png", tmp_path / "p2_query1.png"])
    assert (
        len(grown) == 32
        and grown.classify([tmp_path / "p2_query0.png"], top=1)["product"].iloc[0] == "p2"
    )


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda gallery: gallery.add("new", []), "needs images, got none of 'new'"),
        (lambda gallery: gallery.add("", ["a.png"]), "a product needs one"),
        (lambda gallery: gallery.remove("p66"), "none of its 7 products; did you mean 'p6'"),
        (lambda gallery: gallery.add("new", ["torn.png"]), "torn.png"),
    ],
)
def test_a_refused_change_changes_nothing(tmp_path, change, word, monkeypatch):
    gallery = Gallery.build(colours(), shop(tmp_path).packshots(), views=2)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "torn.png").write_bytes(b"no image")
    before = gallery.embeddings.clone()
    with pytest.raises(ValueError, match=word):
        change(gallery)
    assert (
        torch.equal(gallery.embeddings, before) and len(gallery.owners) == len(gallery.images) == 14
    )


def test_save_and_load_give_the_same_gallery(tmp_path):
    gallery = Gallery.build(colours(), shop(tmp_path).packshots(), views=2, seed=3)
    gallery.add("Müsli 果", [tmp_path / "p0_query0.png"])
    again = Gallery.load(gallery.save(tmp_path / "shop.gallery"), colours())
    assert torch.equal(again.embeddings, gallery.embeddings)
    assert (again.owners, again.images, again.meta) == (
        gallery.owners,
        gallery.images,
        gallery.meta,
    )
    again.add("more", [tmp_path / "p1_query0.png"])
    gallery.add("more", [tmp_path / "p1_query0.png"])
    assert torch.equal(again.embeddings, gallery.embeddings)


@pytest.mark.parametrize(
    "other, word", [(colours(gain=0.5), "other weights"), (colours(resize="pad"), "another resize")]
)
def test_another_encoder_is_refused(tmp_path, other, word):
    file = Gallery.build(colours(), shop(tmp_path).packshots(), views=1).save(tmp_path / "g")
    with pytest.raises(ValueError, match="was made by colours"):
        Gallery.load(file, other)
    assert Gallery.load(file).encoder is None, word


def test_files_that_are_no_gallery(tmp_path):
    from safetensors.torch import save_file

    file = Gallery.build(colours(), shop(tmp_path).packshots(), views=1).save(tmp_path / "g")
    (tmp_path / "cut").write_bytes(file.read_bytes()[:-20])
    save_file({"visual.x": torch.zeros(1)}, tmp_path / "weights")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        Gallery.load(tmp_path / "cut")
    with pytest.raises(ValueError, match="is no gallery"):
        Gallery.load(tmp_path / "weights")
    with pytest.raises(FileNotFoundError, match="klip gallery build"):
        Gallery.load(tmp_path / "nowhere")


def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    gallery = Gallery.build(colours(), shop(tmp_path).packshots(), views=1)
    file = gallery.save(tmp_path / "g")
    before, names = file.read_bytes(), sorted(tmp_path.iterdir())

    def fail(tensors, part, head):
        part.write_bytes(b"half")
        raise OSError("disk full")

    gallery.remove("p0")
    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        gallery.save(file)
    assert file.read_bytes() == before and sorted(tmp_path.iterdir()) == names


def test_gallery_rules_pick_one_packshot_and_queries_can_be_reused(tmp_path):
    catalogue = shop(tmp_path, sizes=((8, 8), (32, 32), (16, 16)))
    reused = embed(colours(), catalogue.queries(), precision="fp32")
    shown = {}
    for rule, seed in [
        *[(rule, 0) for rule in ("first", "web1", "largest", "random")],
        ("random", 1),
    ]:
        frame = evaluation.evaluate(
            colours(), catalogue, rule=rule, views=2, seed=seed, embeddings=reused
        )
        pd.testing.assert_frame_equal(
            frame, evaluation.evaluate(colours(), catalogue, rule=rule, views=2, seed=seed)
        )
        assert frame.groupby("product")["packshot"].nunique().eq(1).all()
        shown[rule, seed] = frame["packshot"].tolist()
    assert all(name.endswith("gallery1.png") for name in shown["first", 0])
    assert shown["web1", 0] == shown["first", 0]
    assert all(name.endswith("gallery2.png") for name in shown["largest", 0])
    assert shown["random", 0] != shown["random", 1]


def test_evaluate_refuses(tmp_path):
    catalogue = shop(tmp_path)
    plain = catalogue.assign(split="train")
    with pytest.raises(ValueError, match="first, web1, largest, random"):
        evaluation.evaluate(colours(), catalogue, rule="web2")
    with pytest.raises(ValueError, match="got 3 for 14"):
        evaluation.evaluate(colours(), catalogue, embeddings=unit(3, 12))
    with pytest.raises(ValueError, match="no queries of its own"):
        plain.queries()
    with pytest.raises(ValueError, match="at least one packshot"):
        Gallery.build(colours(), catalogue.split("val"))
    assert evaluation.evaluate(colours(), plain, views=1)[
        "top1"
    ].all()  # first image of each, the rest asks


def test_a_product_without_a_packshot_counts_as_wrong(tmp_path, picture):
    from klip.model import encoder
    from klip.recognise import open_set

    for product in "abcde":
        for number in range(2):
            picture(
                tmp_path / f"all/test/{product}/{number}.jpg", (50 * "abcde".index(product), 90, 30)
            )
        if product != "e":
            picture(tmp_path / f"all/train/{product}/0.jpg", (50 * "abcde".index(product), 90, 30))
    tower = encoder.load("nano")
    with pytest.warns(UserWarning, match="2 queries count as wrong, there is no packshot of e"):
        counted = evaluation.evaluate(tower, load_catalogue("rp2k", tmp_path), views=1)
    with pytest.warns(UserWarning, match="2 queries left out"):
        dropped = evaluation.evaluate(
            tower, load_catalogue("rp2k", tmp_path, test_only="drop"), views=1
        )
    assert (
        len(counted) == 10 and len(dropped) == 8 and counted["top1"].sum() == dropped["top1"].sum()
    )
    assert not counted.loc[counted["product"] == "e", ["top1", "top5"]].any(axis=None)
    with pytest.warns(UserWarning, match="count as wrong"):  # and in the open set it is unknown
        frame = open_set.evaluate(tower, load_catalogue("rp2k", tmp_path), views=1)
    assert not frame.loc[frame["product"] == "e", "known"].any()
    assert frame.groupby("product")["known"].first().sum() == 2
