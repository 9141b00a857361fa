"""Re-ranking against plain loops over its definition, and galleries that keep descriptors."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from klip.data.catalogue import Catalogue
from klip.data.images import read
from klip.model.augment import Preprocess
from klip.model.encoder import Encoder
from klip.recognise import evaluation, keypoints, rerank
from klip.recognise.gallery import Gallery
from klip.recognise.rerank import Rerank


class MeanColour(nn.Module):
    """Mean colours of four quarters, (B, 12): all that this encoder sees."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(12))

    def forward(self, images):
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1) * self.gain


COLOURS = Encoder(
    MeanColour(),
    Preprocess(size=16, mean=(0.5,) * 3, std=(0.5,) * 3, resize="squash"),
    name="colours",
    arch="colours",
    config={"embed_dim": 12},
)


@pytest.fixture
def shop(tmp_path):
    """Seven products, a packshot and two dim queries each; product p3's second query is plain grey."""
    rng, rows = np.random.default_rng(3), []
    for product in range(7):
        picture = np.full((90, 70, 3), rng.integers(60, 200, 3), np.uint8)
        for _ in range(20):
            x, y = int(rng.integers(60)), int(rng.integers(80))
            corner = x + int(rng.integers(6, 25)), y + int(rng.integers(6, 25))
            cv2.rectangle(picture, (x, y), corner, rng.integers(0, 256, 3).tolist(), -1)
        for kind, factor in (("gallery", 1), ("query", 0.7), ("query", 0.5)):
            name = f"p{product}_{kind}{factor}.png"
            shown = (
                np.full_like(picture, 90)
                if (product, factor) == (3, 0.5)
                else (picture * factor).astype(np.uint8)
            )
            Image.fromarray(shown).save(tmp_path / name)
            rows.append((name, f"p{product}", kind))
    frame = pd.DataFrame(rows, columns=["image", "product", "split"])
    return Catalogue(frame, tmp_path, "shop")


def reranked(shop, frame, how):
    voted = rerank.votes([frame], [how.first], root=shop.root)
    return rerank.reranked([frame], voted, how=how)[0]


def by_loops(image, ranked, cosines, packshots, how, votes_by_loop):
    """(product, packshot, similarity) of all kept products, best first, from the definition in plain Python."""
    first = range(min(how.first, len(ranked)))
    theirs = [keypoints.sift(read(packshots[i]), keypoints.PACKSHOT) for i in first]
    votes = votes_by_loop(keypoints.sift(read(image)), theirs)
    score = list(cosines)
    for i in first:
        score[i] += how.weight * votes[i] / sum(votes) if sum(votes) else 0.0
    order = sorted(range(len(ranked)), key=lambda i: (-score[i], i))
    return [(ranked[i], packshots[i], score[i]) for i in order]


@pytest.mark.parametrize(
    "how",
    [
        Rerank(weight=0.3, first=4),
        Rerank(weight=1.0, first=50),
        Rerank(weight=0.5, first=1),
        Rerank(weight=0.0, first=5),
    ],
    ids=str,
)
def test_frames_and_galleries_follow_the_definition(shop, tmp_path, how, agreeing_votes_by_loop):
    frame = evaluation.evaluate(COLOURS, shop, views=2, keep=how.first)
    found = reranked(shop, frame, how)
    gallery = Gallery.build(COLOURS, shop.packshots(), views=2, keypoints=True)
    told = gallery.classify([tmp_path / image for image in frame["image"]], top=3, rerank=how)
    for row, own, (_, best) in zip(
        frame.itertuples(), found.itertuples(), told.groupby("query", sort=False), strict=True
    ):
        files = [tmp_path / name for name in row.packshots]
        expected = by_loops(
            tmp_path / row.image, row.products, row.cosines, files, how, agreeing_votes_by_loop
        )
        assert own.predicted == expected[0][0] and own.top1 == (own.predicted == own.product)
        assert own.top5 == (own.product in [name for name, _, _ in expected[:5]])
        assert tmp_path / own.packshot == expected[0][1]
        assert own.similarity == pytest.approx(expected[0][2], abs=1e-3)
        assert own.margin == pytest.approx(expected[0][2] - expected[1][2], abs=2e-3)
        assert best["product"].tolist() == [name for name, _, _ in expected[:3]]
        assert best["similarity"].tolist() == pytest.approx(
            [score for _, _, score in expected[:3]], abs=1e-3
        )
    assert found.columns.tolist() == evaluation.evaluate(COLOURS, shop, views=2).columns.tolist()


def test_weight_0_is_cosine_alone_and_the_first_alone_stays_first(shop):
    frame = evaluation.evaluate(COLOURS, shop, views=1, keep=6)
    plain = reranked(shop, frame, Rerank(weight=0, first=6))
    pd.testing.assert_frame_equal(
        plain.astype({"similarity": "float32"}), frame[plain.columns.tolist()]
    )
    alone = reranked(shop, frame, Rerank(weight=5, first=1))
    assert alone["predicted"].tolist() == frame["predicted"].tolist()


def test_print_is_read_where_colours_are_equal(shop, tmp_path):
    """Every query is tinted alike, so that the encoder sees little and the keypoints nearly everything."""
    for row in shop.split("query").frame.itertuples():
        image = cv2.imread(str(tmp_path / row.image), cv2.IMREAD_GRAYSCALE)
        Image.fromarray(image).save(tmp_path / row.image)
    frame = evaluation.evaluate(COLOURS, shop, views=1, keep=7)
    found = reranked(shop, frame, Rerank(weight=3, first=7))
    assert found["top1"].sum() >= 12 > frame["top1"].sum()  # of 14; one shows nothing


def test_a_query_without_keypoints_keeps_the_order_of_cosine(shop, tmp_path):
    frame = evaluation.evaluate(COLOURS, shop, views=1, keep=7)
    voted = rerank.votes([frame], [7, 2], root=shop.root)
    grey = frame.index[frame["image"] == "p3_query0.5.png"][0]
    for first in (2, 7):
        assert (
            voted.shares[0, first].shape == (14, first) and not voted.shares[0, first][grey].any()
        )
        assert np.delete(voted.shares[0, first], grey, 0).sum(axis=1) == pytest.approx(1)
    assert voted.keypoints_ms > 0 and voted.votes_ms > 0
    (found,) = rerank.reranked([frame], voted, how=Rerank(weight=1, first=7))
    assert found.loc[grey, "predicted"] == frame.loc[grey, "predicted"]
    assert found.loc[grey, "similarity"] == pytest.approx(frame.loc[grey, "similarity"])


def test_identical_packshots_share_nothing_and_the_first_of_them_wins(shop, tmp_path):
    same = (tmp_path / "p0_gallery1.png").read_bytes()
    for product in range(1, 4):
        (tmp_path / f"p{product}_gallery1.png").write_bytes(same)
    gallery = Gallery.build(COLOURS, shop.packshots(), views=1, keypoints=True).without(
        {"p4", "p5", "p6"}
    )
    queries = [tmp_path / "p0_query0.7.png", tmp_path / "p6_query0.7.png"]
    plain, found = (
        gallery.classify(queries, rerank=how) for how in (None, Rerank(weight=1, first=4))
    )
    assert found["product"].tolist() == plain["product"].tolist() == ["p0", "p1", "p2", "p3"] * 2
    assert np.allclose(found["similarity"], plain["similarity"], atol=1e-6)


@pytest.mark.parametrize(
    "cosine, shares, weight, expected",
    [
        ([0.9, 0.8, 0.7], [0.0, 0.25, 0.75], 1.0, [2, 1, 0]),
        ([0.9, 0.8, 0.7], [0.0, 1.0], 0.0, [0, 1, 2]),
        (
            [0.75, 0.5, 0.25],
            [0.0, 0.5, 0.5],
            0.5,
            [0, 1, 2],
        ),  # equal similarities: the better cosine
        (
            [0.5, 0.5 + 1e-7, 0.5],
            [0.0, 0.0, 0.0],
            1.0,
            [0, 1, 2],
        ),  # equal but for rounding: the gallery's order
        ([0.9, 0.8, 0.7], [1.0], 1.0, [0, 1, 2]),
    ],
)
def test_order(cosine, shares, weight, expected):
    places, scores = rerank.order(np.array([cosine]), np.array([shares]), weight=weight)
    assert places.tolist() == [expected]
    full = [c + weight * s for c, s in zip(cosine, [*shares, 0, 0], strict=False)]
    assert scores[0].tolist() == pytest.approx([full[i] for i in expected])


def test_one_pass_serves_several_encoders_and_numbers(shop):
    other = Encoder(
        MeanColour(), COLOURS.preprocess, name="other", arch="colours", config={"embed_dim": 12}
    )
    other.tower.gain.data[:6] = 0
    frames = [evaluation.evaluate(one, shop, views=1, keep=6) for one in (COLOURS, other)]
    assert frames[0]["products"].tolist() != frames[1]["products"].tolist()
    together = rerank.votes(frames, [2, 6, 4], root=shop.root, workers=3)
    assert sorted(together.shares) == [(n, first) for n in (0, 1) for first in (2, 4, 6)]
    for (number, first), shares in together.shares.items():
        alone = rerank.votes([frames[number]], [first], root=shop.root, workers=1).shares[0, first]
        assert shares == pytest.approx(alone, abs=1e-4)


def test_sensitivity_and_choice(shop):
    frames = [evaluation.evaluate(COLOURS, shop, views=views, keep=6) for views in (1, 3)]
    voted = rerank.votes(frames, [1, 3, 6], root=shop.root)
    curve = rerank.sensitivity(frames, voted, weights=[1, 0, 0.5])
    assert curve[["weight", "first"]].to_numpy().tolist() == [
        [w, f] for w in (0, 0.5, 1) for f in (1, 3, 6)
    ]
    for row in curve.itertuples():
        how = Rerank(weight=row.weight, first=row.first)
        right = [frame["top1"].mean() for frame in rerank.reranked(frames, voted, how=how)]
        assert row.top1 == pytest.approx(np.mean(right)) and row.low <= row.top1 <= row.high
    first_alone = rerank.sensitivity(frames[:1], voted, weights=[1])
    assert first_alone.equals(
        rerank.sensitivity(
            frames[:1], rerank.votes(frames[:1], [1, 3, 6], root=shop.root), weights=[1]
        )
    )
    best = rerank.choose(curve)
    assert curve.loc[
        (curve["weight"] == best.weight) & (curve["first"] == best.first), "top1"
    ].item() == (curve["top1"].max())


def test_equal_choices_go_to_the_lowest_weight_then_to_the_fewest_products():
    curve = pd.DataFrame(
        {"weight": [1, 0.5, 0.5, 0], "first": [5, 20, 10, 5], "top1": [0.7, 0.7, 0.7, 0.6]}
    )
    assert rerank.choose(curve) == Rerank(weight=0.5, first=10)


@pytest.mark.parametrize(
    "change, word",
    [
        (lambda frame: rerank.Rerank(weight=-1), "weight must be greater than or equal to 0"),
        (lambda frame: rerank.Rerank(weight=float("nan")), "got nan"),
        (
            lambda frame: rerank.Rerank(weight=1, first=0),
            "first must be greater than or equal to 1",
        ),
        (
            lambda frame: rerank.votes([frame], [8], root=Path()),
            r"they keep 5; make them by evaluation.evaluate\(..., keep=8\)",
        ),
        (
            lambda frame: rerank.votes([frame, frame.iloc[::-1]], [5], root=Path()),
            "the same queries in the same order",
        ),
    ],
)
def test_what_is_refused(shop, change, word):
    frame = evaluation.evaluate(COLOURS, shop, views=1, keep=5)
    with pytest.raises(ValueError, match=word):
        change(frame)


# ------------------------------------------------------------------------------------------------ galleries


def test_descriptors_come_and_go_with_their_products(shop, tmp_path):
    whole = Gallery.build(COLOURS, shop.packshots(), views=3, seed=2, keypoints=True)
    assert len(whole.descriptors) == 7 and whole.descriptors[0].dtype == np.uint8
    queries = [tmp_path / f"p{i}_query0.7.png" for i in range(7)]
    before = whole.classify(queries, rerank=Rerank())
    again = Gallery.load(whole.save(tmp_path / "g.gallery"), COLOURS)
    pd.testing.assert_frame_equal(again.classify(queries, rerank=Rerank()), before)
    again.remove("p2")
    assert (
        len(again.descriptors) == 6
        and again.classify(queries[2:3], rerank=Rerank())["product"][0] != "p2"
    )
    again.add("p2", [tmp_path / "p2_gallery1.png"])
    again = Gallery.load(again.save(tmp_path / "g.gallery"), COLOURS)
    after = again.classify(queries, rerank=Rerank())
    assert after["product"].tolist() == before["product"].tolist()
    assert after["similarity"].tolist() == pytest.approx(before["similarity"].tolist(), abs=1e-5)
    again.add(
        "p2", [tmp_path / "p2_query0.5.png"]
    )  # two packshots of one product vote for it together
    found = again.classify([tmp_path / "p2_query0.5.png"], rerank=Rerank(weight=1, first=3))
    assert found["product"][0] == "p2" and found["packshot"][0].endswith("p2_query0.5.png")
    few = again.without({"p0", "p1", "p3", "p4", "p5", "p6"})
    assert len(few.descriptors) == 2 and few.classify(queries[:1], rerank=Rerank())[
        "product"
    ].tolist() == ["p2"]
    assert not again.without(again.products).descriptors


def test_a_packshot_without_keypoints_is_kept_and_gets_no_vote(shop, tmp_path):
    Image.new("RGB", (30, 30), (90, 90, 90)).save(tmp_path / "p1_gallery1.png")
    gallery = Gallery.build(COLOURS, shop.packshots(), views=1, keypoints=True)
    gallery = Gallery.load(gallery.save(tmp_path / "g"), COLOURS)
    assert [len(rows) > 0 for rows in gallery.descriptors] == [True, False] + [True] * 5
    assert (
        gallery.classify([tmp_path / "p4_query0.7.png"], rerank=Rerank(weight=1, first=7))[
            "product"
        ][0]
        == "p4"
    )


def test_unknown_goes_by_the_cosine(shop, tmp_path):
    gallery = Gallery.build(COLOURS, shop.packshots(), views=1, keypoints=True)
    queries = [tmp_path / f"p{i}_query0.5.png" for i in range(7)]
    middle = gallery.classify(queries, top=1)["similarity"].median()
    plain, found = (
        gallery.classify(queries, top=1, unknown_below=middle, rerank=how)
        for how in (None, Rerank())
    )
    assert found["unknown"].tolist() == plain["unknown"].tolist() and 0 < found["unknown"].sum() < 7


@pytest.mark.parametrize(
    "keep, arguments, word",
    [
        (False, {}, "keeps no keypoints to re-rank by; build it anew with keypoints"),
        (True, {"images": torch.zeros(2, 12)}, "wants the images themselves, got embeddings"),
    ],
)
def test_a_gallery_that_cannot_re_rank_says_so(shop, tmp_path, keep, arguments, word):
    gallery = Gallery.build(COLOURS, shop.packshots(), views=1, keypoints=keep)
    with pytest.raises(ValueError, match=word):
        gallery.classify(
            **{"images": [tmp_path / "p0_query0.5.png"], "rerank": Rerank()} | arguments
        )
    assert gallery.classify([], rerank=Rerank() if keep else None).empty


def test_kept_prints_follow_changes_of_the_gallery(shop, tmp_path):
    gallery = Gallery.build(COLOURS, shop.packshots(), views=2, keypoints=True)
    query = [tmp_path / "p2_query0.7.png"]
    gallery.classify(query, rerank=Rerank())
    prints = gallery.printed()
    assert gallery.printed() is prints and prints.of(2) is prints.of(2)
    gallery.add("p0", [tmp_path / "p2_query0.7.png"])
    fresh = Gallery.load(gallery.save(tmp_path / "g"), COLOURS)
    pd.testing.assert_frame_equal(
        gallery.classify(query, rerank=Rerank()), fresh.classify(query, rerank=Rerank())
    )
    assert len(gallery.printed().of(0).roots) > len(prints.of(0).roots)
