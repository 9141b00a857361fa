"""Scores with intervals: whole products are resampled, since queries of one are alike.

Takes outcome frames: a row per query with `product` (the true one), `top1`, `top5` (bool).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

STATS = ("top1", "top1_per_product", "top5", "top5_per_product")
"""Share of all queries, or mean of the products' shares."""


class Score(NamedTuple):
    """Counts of an outcome frame; ..._per_product: mean of the products' fractions."""

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
    sums = [_sums(frame, "top1"), _sums(frame, "top5")]
    counts = [int(each["correct"].sum()) for each in sums]
    means = [float((each["correct"] / each["total"]).mean()) for each in sums]
    return Score(*counts, int(sums[0]["total"].sum()), len(sums[0]), *means)


def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a fraction of independent queries, sound also at 0 and 1 (Wilson 1927)."""
    from scipy.stats import binomtest

    if not 0 <= correct <= total or total < 1:
        raise ValueError(
            f"wilson: needs 0 <= correct <= total and a query, got {correct} of {total}"
        )
    return tuple(map(float, binomtest(correct, total).proportion_ci(confidence, "wilson")))


def bootstrap_products(
    frame: pd.DataFrame, stat: str = "top1", n: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of one of STATS, whole products resampled; (0, 1) for one product."""
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
    """a minus b on the same queries, each a frame or a frame per seed, paired by product.

    A product's difference is that of its means over the seeds; then whole products are
    resampled: the interval is about products, not seeds, and (-1, 1) with one product.
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
    """Top-1 of a minus that of b on other queries: each side is resampled alone."""
    sides = [_over_seeds(frames, "top1").to_numpy(float).T for frames in (a, b)]
    x, y = (part.sum() / whole.sum() for part, whole in sides)
    many, other = (_resampled(*side, 2000, seed) for seed, side in enumerate(sides))
    return Difference(float(x - y), *percentiles(many - other))


def mean_interval(values: Sequence[float], n: int = 2000) -> Difference:
    """Mean of some measurements with its 95 % percentile bootstrap interval."""
    values = np.asarray(values, float)
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"mean interval: needs at least 2 finite values, got {values.tolist()}")
    resampled = _resampled(values, np.ones_like(values), n, seed=0)
    return Difference(float(values.mean()), *percentiles(resampled))


def percentiles(values: np.ndarray) -> tuple[float, float]:
    """What the middle 95 % of some values lie between."""
    return tuple(np.quantile(values, [0.5 - 0.95 / 2, 0.5 + 0.95 / 2]).tolist())


class McNemar(NamedTuple):
    """Queries that only one of two methods has right; p-value of so uneven a split."""

    only_a: int
    only_b: int
    p: float


def mcnemar(a: pd.DataFrame, b: pd.DataFrame) -> McNemar:
    """Exact two-sided McNemar test (1947) of two methods, queries matched by column `image`.

    It takes queries for independent, which near-duplicate photographs of a product are not:
    read it beside the interval of `paired_difference`, never alone.
    """
    from scipy.stats import binomtest

    a, b = _by_image(a), _by_image(b)
    if not a.index.equals(b.index):
        alone = len(a.index.symmetric_difference(b.index))
        raise ValueError(
            f"McNemar: both sides need the same queries, got {alone} images that only one has"
        )
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    if only_a + only_b == 0:
        return McNemar(0, 0, 1.0)
    return McNemar(only_a, only_b, float(binomtest(only_a, only_a + only_b).pvalue))


def over_seeds(frames: Sequence[pd.DataFrame]) -> Difference:
    """Mean of top1 over the seeds' frames with its range: how much luck there was."""
    values = [score(frame).top1 for frame in frames]
    return Difference(float(np.mean(values)), min(values), max(values))


def row(frames: Sequence[pd.DataFrame]) -> dict[str, float]:
    """A line of a results table from one method's frames, one a seed: counts, fractions.

    correct is the mean over the seeds; low and high are bootstrapped over products, those of
    wilson take the queries for independent; lowest and highest are the seeds' range of top1.
    """
    whole = pd.concat(frames)
    one, pooled = score(frames[0]), score(whole)
    correct = pooled.correct / len(frames)
    low, high = bootstrap_products(whole)
    wilson_low, wilson_high = wilson(round(correct), one.total)
    _, lowest, highest = over_seeds(frames)
    found = {"products": one.products, "queries": one.total, "seeds": len(frames)}
    found |= {"correct": correct, "top1": pooled.top1, "low": low, "high": high}
    found |= {"wilson_low": wilson_low, "wilson_high": wilson_high}
    found |= {"lowest": lowest, "highest": highest}
    return found | {"per_product": pooled.top1_per_product, "top5": pooled.top5}


def by_part(frame: pd.DataFrame, parts: pd.Series) -> pd.DataFrame:
    """products, queries, top1, low, high for each part of `longtail.parts` (product -> part).

    Products without a part are left out; the interval is that of `bootstrap_products`.
    """
    own = frame.assign(part=frame["product"].map(parts)).dropna(subset="part")
    rows = []
    for name, each in own.groupby("part", sort=False):
        found = score(each)
        rows.append((name, found.products, found.total, found.top1, *bootstrap_products(each)))
    return pd.DataFrame(rows, columns=["part", "products", "queries", "top1", "low", "high"])


def compare(
    outcomes: Mapping[str, Sequence[pd.DataFrame]], a: str, others: Sequence[str] = ()
) -> pd.DataFrame:
    """Method `a` against the others (all, or `others`), each given as its seeds' frames.

    difference, low, high: of top1, `paired_difference`.  only_a, only_b, p: `mcnemar` of the
    two seeds whose p is largest, so that a small p held for every seed.
    """
    rows = []
    for b in others or [name for name in outcomes if name != a]:
        if missing := [name for name in (a, b) if not len(outcomes.get(name, ()))]:
            raise ValueError(
                f"compare: no outcomes of {missing[0]!r}; there are {', '.join(outcomes)}"
            )
        tests = [mcnemar(x, y) for x in outcomes[a] for y in outcomes[b]]
        worst = max(tests, key=lambda test: test.p)
        rows.append((a, b, *paired_difference(outcomes[a], outcomes[b], "top1"), *worst))
    columns = ["a", "b", "difference", "low", "high", "only_a", "only_b", "p"]
    return pd.DataFrame(rows, columns=columns)


def _by_image(frame: pd.DataFrame) -> pd.Series:
    missing = ", ".join(name for name in ("image", "top1") if name not in frame)
    if missing:
        raise ValueError(f"McNemar: queries are matched by image; missing: {missing}")
    again = frame["image"].duplicated().sum()
    if again:
        raise ValueError(
            f"McNemar: every image must be asked once, got {again} asked again; "
            "compare one seed with one seed"
        )
    return frame.set_index("image")["top1"].astype(bool).sort_index()


def _sums(frame: pd.DataFrame, stat: str) -> pd.DataFrame:
    """`correct` and `total` of every product, sorted by name."""
    if stat not in STATS:
        raise ValueError(f"metrics: stat must be one of {', '.join(STATS)}, got {stat!r}")
    column = stat.removesuffix("_per_product")
    missing = ", ".join(name for name in ("product", column) if name not in frame)
    if missing:
        raise ValueError(f"metrics: an outcome frame has product, top1, top5; missing: {missing}")
    if frame.empty or frame[["product", column]].isna().any(axis=None):
        raise ValueError(
            f"metrics: needs at least one query and no missing value in product and {column}"
        )
    by_product = frame[column].astype(float).groupby(frame["product"].astype(str))
    return by_product.agg(correct="sum", total="size")


def _over_seeds(frames: pd.DataFrame | Sequence[pd.DataFrame], stat: str) -> pd.DataFrame:
    """`_sums` averaged over the seeds' frames, which must ask the same queries."""
    frames = [frames] if isinstance(frames, pd.DataFrame) else frames
    each = [_sums(frame, stat) for frame in frames]
    if not each or any(not sums["total"].equals(each[0]["total"]) for sums in each):
        raise ValueError(
            "paired difference: every seed needs a frame with the same queries, "
            f"got {len(each)} frames"
        )
    return each[0].assign(correct=sum(sums["correct"] for sums in each) / len(each))


def _weighed(correct: pd.Series, total: pd.Series, stat: str) -> tuple[np.ndarray, np.ndarray]:
    """Numerator and denominator of each product; the statistic is the ratio of sums."""
    part, whole = correct.to_numpy(float), total.to_numpy(float)
    if stat.endswith("_per_product"):
        return part / whole, np.ones_like(whole)
    return part, whole


def _interval(part: np.ndarray, whole: np.ndarray, n: int, seed: int) -> tuple[float, float]:
    """Percentile bootstrap of sum(part) / sum(whole); (-1, 1) for a single product."""
    return percentiles(_resampled(part, whole, n, seed)) if len(part) > 1 else (-1.0, 1.0)


def _resampled(part: np.ndarray, whole: np.ndarray, n: int, seed: int) -> np.ndarray:
    """sum(part) / sum(whole) of n resamples of the P products, (n,)."""
    rng, count = np.random.default_rng(seed), len(part)
    times = rng.multinomial(count, np.full(count, 1 / count), size=n)  # (n, P)
    return (times @ part) / (times @ whole)
