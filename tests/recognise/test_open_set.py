"""Every measure by its definition, on scores whose answer is known; the protocol on a shop of plain patterns."""

import json
import math
from itertools import product as pairs

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from klip.data.catalogue import Catalogue
from klip.model.augment import Preprocess
from klip.model.encoder import Encoder, embed
from klip.recognise import open_set
from klip.recognise.gallery import Gallery
from klip.stats import metrics


def asked(known, unknown, top1=True):
    """A frame of scores per product: {"a": [0.9, 0.8]} of products in the gallery, and of others."""
    rows = [
        (name, side is known, value)
        for side in (known, unknown)
        for name, values in side.items()
        for value in values
    ]
    frame = pd.DataFrame(rows, columns=["product", "known", "similarity"])
    return frame.assign(
        top1=frame["known"] & top1, margin=frame["similarity"] / 2 - 0.3, image="x.png"
    )


def drawn(seed=0, products=12, queries=9, grid=20):
    """Known queries a little surer than the others; scores on a grid, so that many are equal."""
    rng, sides = np.random.default_rng(seed), []
    for shift in (0.3, 0.0):
        names = [f"p{i}" for i in rng.choice(99, products, replace=False)]
        sides.append(
            {
                name: np.round((rng.random(rng.integers(1, queries)) + shift) * grid) / grid
                for name in names
            }
        )
    return asked(*sides).assign(top1=lambda frame: frame["known"] & (rng.random(len(frame)) < 0.6))


def auroc(frame, score="similarity"):
    return open_set.choose([frame], score)["auroc"]


def intervals(frame):
    return open_set.intervals(frame, "similarity", accepts=0.95)


def by_definition(frame, score):
    wins = [
        (mine > theirs) + 0.5 * (mine == theirs)
        for mine, theirs in pairs(
            frame.loc[frame["known"], score], frame.loc[~frame["known"], score]
        )
    ]
    return sum(wins) / len(wins)


PERFECT = asked({"a": [0.9, 0.8], "b": [0.7]}, {"c": [0.6, 0.1], "d": [0.2]})
HOPELESS = asked({"a": [0.1, 0.2], "b": [0.15]}, {"c": [0.6, 0.5], "d": [0.7]})
EQUAL = asked({"a": [0.5] * 3, "b": [0.5]}, {"c": [0.5], "d": [0.5] * 2})
FRAMES = {
    "perfect": PERFECT,
    "hopeless": HOPELESS,
    "all equal": EQUAL,
    "one unknown product": asked({"a": [0.9, 0.3], "b": [0.7]}, {"c": [0.5, 0.2]}),
    **{f"drawn {seed}": drawn(seed) for seed in range(4)},
}


# ------------------------------------------------------------------------------------------------ measures


@pytest.mark.parametrize("score", ["similarity", "margin"])
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_auroc_is_the_share_of_pairs_won(frame, score):
    assert auroc(frame, score) == pytest.approx(by_definition(frame, score), abs=1e-12)


def test_auroc_of_known_answers():
    assert [auroc(frame) for frame in (PERFECT, HOPELESS, EQUAL)] == [1.0, 0.0, 0.5]


@pytest.mark.parametrize("accepts", [0.01, 0.5, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_threshold_is_the_largest_cut_that_accepts_enough(frame, accepts):
    known = frame.loc[frame["known"], "similarity"].tolist()
    between = [
        (a + b) / 2 for a, b in pairs(sorted(set(frame["similarity"])), repeat=2)
    ]  # and every score itself
    enough = [
        cut
        for cut in [-9, 9, *between]
        if sum(value >= cut for value in known) >= accepts * len(known) - 1e-9
    ]
    assert open_set.threshold(frame, "similarity", accepts=accepts) == max(enough)


def test_threshold_accepts_exactly_the_share_where_it_divides():
    frame = asked({"a": np.arange(20) / 20}, {"b": [0]})
    assert open_set.threshold(frame) == 0.05  # 19 of 20
    assert (
        open_set.threshold(frame[frame["known"]]) == 0.05
    )  # unknown ones have no say, and need not be there


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_rates_count_what_is_accepted(frame):
    for cut in (-1, 0.3, 0.5, 0.51, 2):
        names = ("known", "accepted", "right", "unknown", "accepted_unknown")
        got, want = open_set.rates(frame, "similarity", threshold=cut), dict.fromkeys(names, 0)
        for row in frame.itertuples():
            side = "known" if row.known else "unknown"
            want[side] += 1
            want["accepted" if row.known else "accepted_unknown"] += row.similarity >= cut
            want["right"] += row.known and row.top1 and row.similarity >= cut
        want["correct_accepts"] = want["accepted"] / want["known"]
        want["false_accepts"] = want["accepted_unknown"] / want["unknown"]
        assert got == want


@pytest.mark.parametrize("score", ["similarity", "margin"])
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_curve_holds_the_rates_of_every_cut_and_the_area_auroc(frame, score):
    curve = open_set.curve(frame, score)
    assert curve["threshold"].tolist() == [math.inf, *sorted(set(frame[score]), reverse=True)]
    for cut, false, correct in curve.itertuples(index=False):
        got = open_set.rates(frame, score, threshold=cut)
        expected = got["false_accepts"], got["correct_accepts"]
        assert (false, correct) == pytest.approx(expected, abs=1e-12)
    assert curve.iloc[0, 1:].tolist() == [0, 0] and curve.iloc[-1, 1:].tolist() == [1, 1]
    area = np.trapezoid(curve["correct_accepts"], curve["false_accepts"])
    assert area == pytest.approx(by_definition(frame, score), abs=1e-12)


# ------------------------------------------------------------------------------------------------ intervals


def resamples(frame, n):
    """Frames of whole products drawn with replacement, in the order in which openset draws them."""
    roles = frame.groupby("product")["known"].agg(["any", "all"])
    rng, times = np.random.default_rng(0), pd.DataFrame(0, index=roles.index, columns=range(n))
    for _, own in roles.groupby(["any", "all"]):
        times.loc[own.index] = rng.multinomial(len(own), [1 / len(own)] * len(own), size=n).T
    for number in range(n):
        yield pd.concat(
            [
                frame[frame["product"] == name]
                for name, count in times[number].items()
                for _ in range(count)
            ]
        )


@pytest.mark.parametrize(
    "frame", [drawn(1), pd.concat([drawn(2), drawn(3)])], ids=["one seed", "two seeds"]
)
def test_intervals_resample_whole_products(frame, monkeypatch):
    monkeypatch.setattr(open_set, "RESAMPLES", 40)
    found = list(resamples(frame, 40))
    oracle = [
        open_set.rates(each, "similarity", threshold=open_set.threshold(each))["false_accepts"]
        for each in found
    ]
    expected = [[auroc(each) for each in found], oracle]
    for own, values in zip(intervals(frame), expected, strict=True):
        assert own == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=1e-12)


def test_intervals_of_known_answers():
    assert intervals(PERFECT) == ((1, 1), (0, 0))
    assert intervals(EQUAL) == ((0.5, 0.5), (1, 1))
    assert intervals(FRAMES["one unknown product"]) == ((0, 1), (0, 1))


def test_table_has_a_row_per_set_and_score():
    chosen = {
        score: open_set.choose([drawn(7)], score, accepts=0.9) for score in ("similarity", "margin")
    }
    pair = [drawn(8), drawn(9)]
    found = open_set.table({"one": [drawn(6)], "two": pair}, chosen)
    assert list(zip(found["set"], found["score"], strict=True)) == list(
        pairs(("one", "two"), chosen)
    )
    row, pooled = found.iloc[3], pd.concat(pair, ignore_index=True)
    got = open_set.rates(pooled, "margin", threshold=chosen["margin"]["below"])
    assert (
        row["threshold"] == chosen["margin"]["below"]
        and row["products"] == pooled["product"].nunique()
    )
    assert (row["known"], row["unknown"]) == (got["known"], got["unknown"])
    assert row["auroc"] == pytest.approx(by_definition(pooled, "margin"))
    own = open_set.rates(
        pooled, "margin", threshold=open_set.threshold(pooled, "margin", accepts=0.9)
    )
    assert row["oracle_false_accepts"] == own["false_accepts"]
    assert (row["correct_accepts"], row["false_accepts"], row["right"]) == (
        got["correct_accepts"],
        got["false_accepts"],
        got["right"] / got["accepted"],
    )
    for column, side in (("correct_accepts", pooled["known"]), ("false_accepts", ~pooled["known"])):
        accepted = pooled[side].assign(top1=pooled["margin"] >= row["threshold"])
        low, high = metrics.bootstrap_products(accepted)
        assert (row[f"{column}_low"], row[f"{column}_high"]) == (low, high)
    assert (found["auroc_low"] <= found["auroc"]).all() and (
        found["auroc"] <= found["auroc_high"]
    ).all()


def test_choose_says_how_and_is_json():
    frames = [drawn(1), drawn(2)]
    chosen = open_set.choose(frames, "margin", accepts=0.8)
    assert json.loads(json.dumps(chosen)) == chosen
    pooled = pd.concat(frames)
    assert chosen["below"] == open_set.threshold(pooled, "margin", accepts=0.8)
    assert "at least 0.8" in chosen["how"] and (chosen["draws"], chosen["queries"]) == (
        2,
        len(pooled),
    )
    assert chosen["correct_accepts"] >= 0.8 and chosen["known"] == pooled["known"].sum()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: open_set.choose([PERFECT], accepts=0), "above 0 and at most 1, got 0"),
        (lambda: open_set.choose([PERFECT], accepts=95), "got 95"),
        (lambda: open_set.choose([PERFECT], "cosine"), "similarity or margin, got 'cosine'"),
    ],
)
def test_what_cannot_be_judged_is_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# ------------------------------------------------------------------------------------------------ the protocol


class MeanColour(nn.Module):
    """Mean colours of four quarters: (B, 3, S, S) -> (B, 12)."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(12))

    def forward(self, images):
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1) * self.gain


@pytest.fixture(scope="module")
def colours():
    return Encoder(
        MeanColour(),
        Preprocess(size=16, mean=(0.5,) * 3, std=(0.5,) * 3, resize="squash"),
        name="colours",
        arch="colours",
        config={"embed_dim": 12},
    )


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """Nine patterns of four colours, a packshot and two equal photographs each; a tenth without photographs."""
    folder, rng, rows = tmp_path_factory.mktemp("patterns"), np.random.default_rng(5), []
    for product in (f"p{i}" for i in range(10)):
        pattern = Image.fromarray(rng.integers(0, 256, (2, 2, 3), dtype=np.uint8))
        for split in ("gallery", "query", "query")[: 3 if product != "p9" else 1]:
            name = f"{len(rows):02}.png"
            pattern.resize((16, 16), Image.Resampling.NEAREST).save(folder / name)
            rows.append((name, product, split))
    frame = pd.DataFrame(rows, columns=["image", "product", "split"])
    return Catalogue(frame, folder, "patterns")


def test_half_of_the_products_is_kept_out(colours, catalogue):
    frame = open_set.evaluate(colours, catalogue, views=2, seed=3)
    per_product = frame.groupby("product")["known"].agg(["min", "max"])
    assert len(frame) == 18 and (per_product["min"] == per_product["max"]).all()
    assert (per_product["min"].sum(), (~per_product["min"]).sum()) == (5, 4)
    known, unknown = frame[frame["known"]], frame[~frame["known"]]
    assert known["top1"].all() and np.allclose(known["similarity"], 1)
    assert (
        not unknown["top1"].any()
        and not unknown["top5"].any()
        and (unknown["similarity"] < 0.999).all()
    )
    assert set(unknown["predicted"]) <= {*known["product"], "p9"}
    assert auroc(frame) == auroc(frame, "margin") == 1.0
    pd.testing.assert_frame_equal(frame, open_set.evaluate(colours, catalogue, views=2, seed=3))
    kept = [
        set(open_set.evaluate(colours, catalogue, views=1, seed=seed).query("known")["product"])
        for seed in range(4)
    ]
    assert len({frozenset(products) for products in kept}) > 1


def test_scores_are_those_of_the_gallery_without_the_others(colours, catalogue):
    frame = open_set.evaluate(colours, catalogue, views=3, seed=1)
    kept = {*frame.loc[frame["known"], "product"], "p9"}
    packshots = catalogue.split("gallery")
    packshots = packshots.where(packshots["product"].isin(kept))
    rows = embed(colours, packshots, views=3, seed=1, precision="fp32")
    cosines = embed(colours, catalogue.queries(), precision="fp32") @ rows.T
    for row, values in zip(frame.itertuples(), cosines.tolist(), strict=True):
        best = dict.fromkeys(packshots["product"], -1.0)
        for number, value in enumerate(values):
            owner = packshots["product"].iloc[number // 3]
            best[owner] = max(best[owner], value)
        first, second = sorted(best.values(), reverse=True)[:2]
        assert row.similarity == pytest.approx(first, abs=1e-6)
        assert row.margin == pytest.approx(first - second, abs=1e-6)


def test_query_embeddings_can_be_handed_in(colours, catalogue):
    embeddings = embed(colours, catalogue.queries(), precision="fp32")
    for seed in (0, 1):
        pd.testing.assert_frame_equal(
            open_set.evaluate(colours, catalogue, views=1, seed=seed, embeddings=embeddings),
            open_set.evaluate(colours, catalogue, views=1, seed=seed),
        )
    with pytest.raises(ValueError, match="got 3 for 18 queries"):
        open_set.evaluate(colours, catalogue, embeddings=embeddings[:3])


def test_too_few_products_are_refused(colours, catalogue):
    few = catalogue.where(catalogue["product"].isin(["p0", "p1", "p2", "p9"]))  # p9 has no queries
    gallery = Gallery.build(colours, catalogue.of(catalogue.frame[:1]), views=1)
    for call in (lambda: open_set.evaluate(colours, few), lambda: open_set.calibrate(gallery, few)):
        with pytest.raises(
            ValueError, match="at least 4 products with a packshot and queries, got 3"
        ):
            call()


def test_calibrate_pools_its_draws_beside_the_other_products_of_the_gallery(colours, catalogue):
    packshots = catalogue.split("gallery")
    gallery = Gallery.build(colours, packshots.of(packshots.frame[:5]), views=2, seed=4)
    before = gallery.embeddings.clone()
    asking = catalogue.where(~catalogue["product"].isin(["p0", "p1", "p2"]))
    chosen = open_set.calibrate(gallery, asking, score="margin", accepts=0.9, draws=3)
    assert torch.equal(gallery.embeddings, before) and "unknown" not in gallery.meta
    assert (chosen["beside"], chosen["products"], chosen["draws"], chosen["set"]) == (
        3,
        6,
        3,
        "patterns",
    )
    frames, queries = [], asking.split("query")
    for draw in range(3):
        out = set(np.random.default_rng(draw).permutation([f"p{i}" for i in range(3, 9)])[:3])
        shown = packshots.where(~packshots["product"].isin(out))
        inside = Gallery.build(colours, shown, views=2, seed=4)
        best = inside.classify(embed(colours, queries, precision="fp32"), top=2)
        both = [best.loc[best["rank"] == rank, "similarity"].to_numpy() for rank in (1, 2)]
        frames.append(
            pd.DataFrame(
                {
                    "product": queries["product"].to_numpy(),
                    "margin": both[0] - both[1],
                    "top1": True,
                    "known": ~queries["product"].isin(out).to_numpy(),
                }
            )
        )
    pooled = pd.concat(frames)
    assert chosen["below"] == pytest.approx(
        open_set.threshold(pooled, "margin", accepts=0.9), abs=1e-6
    )
    assert chosen["auroc"] == pytest.approx(by_definition(pooled, "margin"))
    gallery.encoder = None
    with pytest.raises(ValueError, match="need the encoder"):
        open_set.calibrate(gallery, asking)


def test_a_plain_folder_takes_its_first_images_as_packshots(colours, catalogue):
    plain = catalogue.assign(split="train")
    gallery = Gallery.build(colours, catalogue.of(catalogue.frame[-1:]), views=1)
    chosen = open_set.calibrate(gallery, plain, draws=2)
    assert chosen["queries"] == 2 * 18 and chosen["below"] == pytest.approx(1, abs=1e-5)
    assert chosen["false_accepts"] == 0 and chosen["products"] == 9 and chosen["beside"] == 0
