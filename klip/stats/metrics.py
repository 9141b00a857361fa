"""Scores with intervals: whole products are resampled, since queries of one are alike.

Takes outcome frames: a row per query with `product` (the true one), `top1` and `top5`
(bool).  Intervals are 95 % percentile bootstraps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest

STATS = ("top1", "top1_per_product", "top5")
"""Share of all queries, or mean of the products' shares."""
Frames = pd.DataFrame | Sequence[pd.DataFrame]
"""An outcome frame, or one per seed."""


class Score(NamedTuple):
    """Counts and fractions; top1_per_product is the mean of the products' fractions."""

    correct: int
    total: int
    products: int
    top1: float
    top5: float
    top1_per_product: float

    def __str__(self) -> str:
        return f"{self.correct} / {self.total} = {self.top1:.1%}"


class Difference(NamedTuple):
    """A difference of fractions with its interval."""

    value: float
    low: float
    high: float


def score(frame: pd.DataFrame) -> Score:
    """Counts and fractions of an outcome frame."""
    first, five = _counts(frame, "top1"), _counts(frame, "top5")
    correct, total = int(first["correct"].sum()), int(first["total"].sum())
    top5 = int(five["correct"].sum()) / total
    share = float((first["correct"] / first["total"]).mean())
    return Score(correct, total, len(first), correct / total, top5, share)


def bootstrap_products(
    frame: pd.DataFrame, stat: str = "top1", *, n: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Interval of one of STATS, whole products resampled; (0, 1) for one product."""
    _, low, high = _bootstrap(_counts(frame, stat), stat=stat, n=n, seed=seed)
    return max(low, 0.0), high


def paired_difference(a: Frames, b: Frames, *, stat: str = "top1", seed: int = 0) -> Difference:
    """a minus b on the same queries, paired by product; ValueError for other queries.

    A product's difference is that of its means over the seeds; then whole products are
    resampled: the interval is about products, not seeds, and (-1, 1) with one product.
    """
    mine, theirs = _counts(a, stat), _counts(b, stat)
    if not mine["total"].equals(theirs["total"]):
        raise ValueError(
            "paired difference: both sides need the same products and queries of each, "
            f"got {int(mine['total'].sum())} queries of {len(mine)} products and "
            f"{int(theirs['total'].sum())} of {len(theirs)}"
        )
    gained = mine.assign(correct=mine["correct"] - theirs["correct"])
    return _bootstrap(gained, stat=stat, seed=seed)


def unpaired_difference(a: Sequence[pd.DataFrame], b: Sequence[pd.DataFrame]) -> Difference:
    """Top-1 of a minus that of b on other queries: each side is resampled alone."""
    sides = [_counts(frames, "top1").to_numpy(float).T for frames in (a, b)]
    x, y = (part.sum() / whole.sum() for part, whole in sides)
    many, other = (_resampled(*side, seed=seed) for seed, side in enumerate(sides))
    return Difference(float(x - y), *percentiles(many - other))


def mean_interval(values: Sequence[float]) -> Difference:
    """Mean of two or more measurements with its interval; ValueError for fewer."""
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"mean interval: needs 2 or more finite values, got {values}")
    return _bootstrap(pd.DataFrame({"correct": values, "total": 1.0}))


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """What the middle 95 % of some values lie between."""
    return tuple(np.quantile(values, [0.5 - 0.95 / 2, 0.5 + 0.95 / 2]).tolist())


def mcnemar(a: pd.DataFrame, b: pd.DataFrame) -> tuple[int, int, float]:
    """Exact two-sided McNemar test (1947), queries matched by column `image`.

    Queries that only a and only b has right, and the p-value of so uneven a split.  It
    takes queries for independent, which near-duplicate photographs of a product are
    not: read it beside the interval of `paired_difference`, never alone.
    """
    a, b = (frame.set_index("image")["top1"].astype(bool) for frame in (a, b))
    a, b = a.sort_index(), b.sort_index()
    if not a.index.equals(b.index) or a.index.has_duplicates:
        raise ValueError(
            "McNemar: both sides need every image once and the same images, got "
            f"{len(a)} and {len(b)} queries, "
            f"{len(a.index.intersection(b.index))} images in both"
        )
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    if only_a + only_b == 0:
        return 0, 0, 1.0
    return only_a, only_b, float(binomtest(only_a, only_a + only_b).pvalue)


def over_seeds(frames: Sequence[pd.DataFrame]) -> Difference:
    """Mean of top1 over the seeds' frames with its range: how much luck there was."""
    values = [score(frame).top1 for frame in frames]
    return Difference(float(np.mean(values)), min(values), max(values))


def row(frames: Sequence[pd.DataFrame]) -> dict[str, float]:
    """A line of a results table from one method's frames, one a seed.

    correct is the mean over the seeds; low and high are bootstrapped over products,
    those of Wilson (1927) take the queries for independent; lowest and highest are the
    seeds' range of top1.
    """
    whole = pd.concat(frames)
    pooled, queries = score(whole), len(frames[0])
    correct = pooled.correct / len(frames)
    low, high = bootstrap_products(whole)
    wilson = binomtest(round(correct), queries).proportion_ci(method="wilson")
    _, lowest, highest = over_seeds(frames)
    return {
        "products": pooled.products,
        "queries": queries,
        "seeds": len(frames),
        "correct": correct,
        "top1": pooled.top1,
        "low": low,
        "high": high,
        "wilson_low": float(wilson.low),
        "wilson_high": float(wilson.high),
        "lowest": lowest,
        "highest": highest,
        "per_product": pooled.top1_per_product,
        "top5": pooled.top5,
    }


def by_part(frame: pd.DataFrame, parts: pd.Series) -> pd.DataFrame:
    """Score and interval of each part, as `longtail.parts` gives them (product -> part).

    Products without a part are left out.  Columns part, products, queries, top1, low, high.
    """
    own = frame.assign(part=frame["product"].map(parts)).dropna(subset="part")
    rows = []
    for name, each in own.groupby("part", sort=False):
        found = score(each)
        size = (found.products, found.total)
        rows.append((name, *size, found.top1, *bootstrap_products(each)))
    columns = ["part", "products", "queries", "top1", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def compare(
    outcomes: Mapping[str, Sequence[pd.DataFrame]], a: str, *, others: Sequence[str] = ()
) -> pd.DataFrame:
    """Method `a` against all (or only `others`), each given as its seeds' frames.

    difference, low, high: of top1, `paired_difference`.  only_a, only_b, p: `mcnemar`
    of the two seeds whose p is largest, so that a small p held for every seed.
    """
    rows = []
    for b in others or [name for name in outcomes if name != a]:
        tests = [mcnemar(x, y) for x in outcomes[a] for y in outcomes[b]]
        worst = max(tests, key=lambda test: test[-1])
        rows.append((a, b, *paired_difference(outcomes[a], outcomes[b]), *worst))
    columns = ["a", "b", "difference", "low", "high", "only_a", "only_b", "p"]
    return pd.DataFrame(rows, columns=columns)


def _counts(frames: Frames, stat: str) -> pd.DataFrame:
    """`correct` (mean over the seeds) and `total` of every product, sorted by name.

    ValueError for frames without queries, with gaps, or of seeds that asked others.
    """
    column = stat.removesuffix("_per_product")
    each = []
    for frame in [frames] if isinstance(frames, pd.DataFrame) else frames:
        if frame.empty or frame[["product", column]].isna().any(axis=None):
            raise ValueError(
                f"metrics: needs at least one query and no missing value in product and {column}"
            )
        by_product = frame[column].astype(float).groupby(frame["product"].astype(str))
        each.append(by_product.agg(correct="sum", total="size"))
    if not each or any(not sums["total"].equals(each[0]["total"]) for sums in each):
        raise ValueError(
            f"metrics: every seed needs a frame with the same queries, got {len(each)} frames"
        )
    return each[0].assign(correct=sum(sums["correct"] for sums in each) / len(each))


def _bootstrap(
    counts: pd.DataFrame, *, stat: str = "top1", n: int = 2000, seed: int = 0
) -> Difference:
    """A statistic of `_counts` with its interval; (-1, 1) for a single product."""
    part, whole = counts["correct"].to_numpy(float), counts["total"].to_numpy(float)
    if stat.endswith("_per_product"):
        part, whole = part / whole, np.ones_like(whole)
    value = float(part.sum() / whole.sum())
    if len(part) == 1:
        return Difference(value, -1.0, 1.0)
    return Difference(value, *percentiles(_resampled(part, whole, n=n, seed=seed)))


def _resampled(part: np.ndarray, whole: np.ndarray, *, n: int = 2000, seed: int = 0) -> np.ndarray:
    """sum(part) / sum(whole) of n resamples of the P products, (n,)."""
    rng, count = np.random.default_rng(seed), len(part)
    # A product's number of copies in a resample is multinomial: no index is drawn.
    times = rng.multinomial(count, np.full(count, 1 / count), size=n)  # (n, P)
    return (times @ part) / (times @ whole)
