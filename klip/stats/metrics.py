"""Scores with intervals: counts first, whole products resampled (one product's queries are alike).

Takes outcome frames: one row per query with `product` (the true one), `top1` and `top5` (bool).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

STATS = ("top1", "top1_per_product", "top5", "top5_per_product")
"""Share of all queries, or mean of the products' shares."""


class Score(NamedTuple):
    """Counts of one outcome frame; shares are fractions; ..._per_product is the mean of the products' shares."""

    correct: int
    correct_top5: int
    total: int
    products: int
    top1_per_product: float
    top5_per_product: float

    @property
    def top1(self) -> float:
        return self.correct / self.total

    @property
    def top5(self) -> float:
        return self.correct_top5 / self.total

    def __str__(self) -> str:
        return f"{self.correct} / {self.total} = {self.top1:.1%}"


class Difference(NamedTuple):
    """A difference of fractions with its interval."""

    value: float
    low: float
    high: float


def score(frame: pd.DataFrame) -> Score:
    """Counts and per-product means of an outcome frame."""
    top1, top5 = _sums(frame, "top1"), _sums(frame, "top5")
    means = [float((sums["correct"] / sums["total"]).mean()) for sums in (top1, top5)]
    return Score(
        int(top1["correct"].sum()),
        int(top5["correct"].sum()),
        int(top1["total"].sum()),
        len(top1),
        *means,
    )


def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a fraction of independent queries (Wilson 1927): also sound at none and at all correct."""
    from scipy.stats import binomtest

    if not 0 <= correct <= total or total < 1:
        raise ValueError(
            f"wilson: needs 0 <= correct <= total and a query, got {correct} of {total}"
        )
    return tuple(map(float, binomtest(correct, total).proportion_ci(confidence, "wilson")))


def bootstrap_products(
    frame: pd.DataFrame, stat: str = "top1", n: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of one of STATS, whole products resampled with replacement; (0, 1) for one product."""
    sums = _sums(frame, stat)
    low, high = _interval(*_weighed(sums["correct"], sums["total"], stat), n, seed)
    return max(low, 0.0), high


def paired_difference(
    a: pd.DataFrame | Sequence[pd.DataFrame],
    b: pd.DataFrame | Sequence[pd.DataFrame],
    stat: str = "top1_per_product",
    n: int = 2000,
    seed: int = 0,
) -> Difference:
    """a minus b on the same queries, each a frame or one frame per seed, paired by product.

    A product's difference is that of its means over the seeds; then whole products are resampled: the interval,
    (-1, 1) with one product, is about products, not about seeds.  `stat` is one of STATS.
    """
    mine, theirs = _over_seeds(a, stat), _over_seeds(b, stat)
    if not mine["total"].equals(theirs["total"]):
        raise ValueError(
            "paired difference: both sides need the same products and queries of each, got "
            f"{int(mine['total'].sum())} queries of {len(mine)} products and "
            f"{int(theirs['total'].sum())} of {len(theirs)}"
        )
    part, whole = _weighed(mine["correct"] - theirs["correct"], mine["total"], stat)
    return Difference(float(part.sum() / whole.sum()), *_interval(part, whole, n, seed))


def unpaired_difference(a: Sequence[pd.DataFrame], b: Sequence[pd.DataFrame]) -> Difference:
    """Top-1 of a minus that of b where they answer different queries: each side's products are resampled alone."""
    sides = [_over_seeds(frames, "top1").to_numpy(float).T for frames in (a, b)]
    x, y = (part.sum() / whole.sum() for part, whole in sides)
    many, other = (_resampled(*side, 2000, seed) for seed, side in enumerate(sides))
    return Difference(float(x - y), *percentiles(many - other))


def mean_interval(values: Sequence[float], n: int = 2000) -> Difference:
    """Mean of some measurements with its 95 % percentile bootstrap interval."""
    values = np.asarray(values, float)
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"mean interval: needs at least 2 finite values, got {values.tolist()}")
    return Difference(
        float(values.mean()), *percentiles(_resampled(values, np.ones_like(values), n, seed=0))
    )


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """What the middle 95 % of some values lie between."""
    return tuple(np.quantile(values, [0.5 - 0.95 / 2, 0.5 + 0.95 / 2]).tolist())


class McNemar(NamedTuple):
    """Queries that only one of two methods answers rightly, and the p-value of so uneven a split."""

    only_a: int
    only_b: int
    p: float


def mcnemar(a: pd.DataFrame, b: pd.DataFrame) -> McNemar:
    """Exact two-sided McNemar test (1947) of two methods on the same queries, matched by column `image`.

    Only queries on which the two disagree count.  It takes queries for independent, which near-duplicate photographs
    of a product are not: read it beside the interval of `paired_difference`, never alone.
    """
    from scipy.stats import binomtest

    right = [_by_image(frame) for frame in (a, b)]
    if not right[0].index.equals(right[1].index):
        raise ValueError(
            "McNemar: both sides need the same queries, got "
            f"{len(right[0].index.symmetric_difference(right[1].index))} images that only one has"
        )
    only_a, only_b = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    return McNemar(
        only_a, only_b, float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    )


def over_seeds(frames: Sequence[pd.DataFrame]) -> Difference:
    """Mean of top1 over the seeds' frames with its range (lowest, highest): how much luck there was."""
    values = [score(frame).top1 for frame in frames]
    return Difference(float(np.mean(values)), min(values), max(values))


def row(frames: Sequence[pd.DataFrame]) -> dict[str, float]:
    """A line of a results table, of one method's frames, one a seed: counts first, then shares as fractions.

    correct is the mean over the seeds; low and high are bootstrapped over products, wilson_low and wilson_high take
    the queries for independent; lowest and highest are the seeds' range of top1.
    """
    one, pooled = score(frames[0]), score(whole := pd.concat(frames))
    found = {
        "products": one.products,
        "queries": one.total,
        "seeds": len(frames),
        "correct": pooled.correct / len(frames),
        "top1": pooled.top1,
    }
    found |= dict(zip(("low", "high"), bootstrap_products(whole), strict=True))
    found |= dict(
        zip(("wilson_low", "wilson_high"), wilson(round(found["correct"]), one.total), strict=True)
    )
    _, lowest, highest = over_seeds(frames)
    return found | {
        "lowest": lowest,
        "highest": highest,
        "per_product": pooled.top1_per_product,
        "top5": pooled.top5,
    }


def by_part(frame: pd.DataFrame, parts: pd.Series) -> pd.DataFrame:
    """One row per part of `longtail.parts` (product -> head, middle, tail): products, queries, top1, low, high.

    Products of the frame that have no part are left out; the interval is that of `bootstrap_products`.
    """
    own = frame.assign(part=frame["product"].map(parts)).dropna(subset="part")
    rows = [
        (name, each["product"].nunique(), len(each), score(each).top1, *bootstrap_products(each))
        for name, each in own.groupby("part", sort=False)
    ]
    return pd.DataFrame(rows, columns=["part", "products", "queries", "top1", "low", "high"])


def compare(
    outcomes: Mapping[str, Sequence[pd.DataFrame]], a: str, others: Sequence[str] = ()
) -> pd.DataFrame:
    """Row `a` of a results table against the other rows (all of them, or `others`), each a list of seeds' frames.

    Columns: a, b, difference (of top1, fraction), low, high (`paired_difference`), only_a, only_b and p (`mcnemar`;
    with several seeds of the pairing whose p is largest, so that a small p held for every seed).
    """
    rows = []
    for b in others or [name for name in outcomes if name != a]:
        if missing := [name for name in (a, b) if not len(outcomes.get(name, ()))]:
            raise ValueError(
                f"compare: no outcomes of {missing[0]!r}; there are {', '.join(outcomes)}"
            )
        worst = max(
            (mcnemar(x, y) for x in outcomes[a] for y in outcomes[b]), key=lambda test: test.p
        )
        rows.append((a, b, *paired_difference(outcomes[a], outcomes[b], "top1"), *worst))
    return pd.DataFrame(
        rows, columns=["a", "b", "difference", "low", "high", "only_a", "only_b", "p"]
    )


def _by_image(frame: pd.DataFrame) -> pd.Series:
    if missing := {"image", "top1"} - set(frame.columns):
        raise ValueError(
            f"McNemar: queries are matched by image; missing: {', '.join(sorted(missing))}"
        )
    if frame["image"].duplicated().any():
        raise ValueError(
            "McNemar: every image must be asked once, got "
            f"{frame['image'].duplicated().sum()} asked again; compare one seed with one seed"
        )
    return frame.set_index("image")["top1"].astype(bool).sort_index()


def _sums(frame: pd.DataFrame, stat: str) -> pd.DataFrame:
    """`correct` and `total` of every product, sorted by name."""
    if stat not in STATS:
        raise ValueError(f"metrics: stat must be one of {', '.join(STATS)}, got {stat!r}")
    column = stat.removesuffix("_per_product")
    if missing := {"product", column} - set(frame.columns):
        raise ValueError(
            f"metrics: an outcome frame has product, top1, top5; missing: {', '.join(sorted(missing))}"
        )
    if frame.empty or frame[["product", column]].isna().any(axis=None):
        raise ValueError(
            f"metrics: needs at least one query and no missing value in product and {column}"
        )
    return (
        frame[column]
        .astype(float)
        .groupby(frame["product"].astype(str))
        .agg(correct="sum", total="size")
    )


def _over_seeds(frames: pd.DataFrame | Sequence[pd.DataFrame], stat: str) -> pd.DataFrame:
    """`_sums` averaged over the seeds' frames, which must ask the same queries."""
    each = [_sums(f, stat) for f in ([frames] if isinstance(frames, pd.DataFrame) else frames)]
    if not each or any(not sums["total"].equals(each[0]["total"]) for sums in each):
        raise ValueError(
            f"paired difference: every seed needs a frame with the same queries, got {len(each)} frames"
        )
    return each[0].assign(correct=sum(sums["correct"] for sums in each) / len(each))


def _weighed(correct: pd.Series, total: pd.Series, stat: str) -> tuple[np.ndarray, np.ndarray]:
    """Numerator and denominator of a product, (P,) each: the statistic is the ratio of their sums."""
    part, whole = correct.to_numpy(float), total.to_numpy(float)
    return (part / whole, np.ones_like(whole)) if stat.endswith("_per_product") else (part, whole)


def _interval(part: np.ndarray, whole: np.ndarray, n: int, seed: int) -> tuple[float, float]:
    """Percentile bootstrap of sum(part) / sum(whole) over products; (-1, 1) for a single product."""
    return percentiles(_resampled(part, whole, n, seed)) if len(part) > 1 else (-1.0, 1.0)


def _resampled(part: np.ndarray, whole: np.ndarray, n: int, seed: int) -> np.ndarray:
    """sum(part) / sum(whole) of n resamples of the P products, (n,)."""
    times = np.random.default_rng(seed).multinomial(
        len(part), np.full(len(part), 1 / len(part)), size=n
    )  # (n, P)
    return (times @ part) / (times @ whole)
