"""Scores with intervals: counts first, whole products resampled (one product's queries are alike).

Takes outcome frames: one row per query with `product` (the true one), `top1` and `top5` (bool).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pandas as pd

STATS = ("top1", "top1_per_product", "top5", "top5_per_product")
"""Share of all queries, or mean of the products' shares."""


@dataclass(frozen=True)
class Score:
    """Counts of one outcome frame; shares are fractions, percent is made when printing."""

    correct: int
    correct_top5: int
    total: int
    products: int
    top1_per_product: float
    """Mean over products of the share of its queries that are right."""
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
    per_product = _sums(frame, "top1"), _sums(frame, "top5")
    correct, total = (int(x) for x in per_product[0].sum())
    means = [float((sums["correct"] / sums["total"]).mean()) for sums in per_product]
    return Score(correct, int(per_product[1]["correct"].sum()), total, len(per_product[0]), *means)


def wilson(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of a fraction of independent queries (Wilson 1927): also sound at none and at all correct."""
    if not 0 <= correct <= total or total < 1:
        raise ValueError(f"wilson: needs 0 <= correct <= total and a query, got {correct} of {total}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = (correct + z * z / 2) / (total + z * z)
    half = z / (total + z * z) * (correct * (total - correct) / total + z * z / 4) ** 0.5
    return (0.0 if correct == 0 else centre - half), (1.0 if correct == total else centre + half)


def bootstrap_products(frame: pd.DataFrame, stat: str = "top1", n: int = 2000, seed: int = 0,
                       confidence: float = 0.95) -> tuple[float, float]:
    """Percentile interval of one of STATS, whole products resampled with replacement.

    One product says nothing about others: the interval is (0, 1).
    """
    sums = _sums(frame, stat)
    low, high = _interval(*_weighed(sums["correct"], sums["total"], stat), n, seed, confidence)
    return max(low, 0.0), high


def paired_difference(a: pd.DataFrame | Sequence[pd.DataFrame], b: pd.DataFrame | Sequence[pd.DataFrame],
                      stat: str = "top1_per_product", n: int = 2000, seed: int = 0,
                      confidence: float = 0.95) -> Difference:
    """a minus b on the same queries, each a frame or one frame per seed, paired by product.

    A product's difference is the difference of its means over the seeds; then whole products are resampled.
    `top1` and `top5` weigh products by their queries (pooled accuracy), `..._per_product` all alike.  The
    interval is about products, not about seeds.  With one product it is (-1, 1).
    """
    mine, theirs = _over_seeds(a, stat), _over_seeds(b, stat)
    if not mine["total"].equals(theirs["total"]):
        raise ValueError("paired difference: both sides need the same products and queries of each, got "
                         f"{int(mine['total'].sum())} queries of {len(mine)} products and "
                         f"{int(theirs['total'].sum())} of {len(theirs)}")
    part, whole = _weighed(mine["correct"] - theirs["correct"], mine["total"], stat)
    return Difference(float(part.sum() / whole.sum()), *_interval(part, whole, n, seed, confidence))


def unpaired_difference(a: Sequence[pd.DataFrame], b: Sequence[pd.DataFrame], stat: str = "top1", n: int = 2000,
                        seed: int = 0, confidence: float = 0.95) -> Difference:
    """a minus b where they answer different queries: each side's products are resampled by themselves."""
    sides = []
    for frames, own in ((a, seed), (b, seed + 1)):
        sums = _over_seeds(frames, stat)
        part, whole = _weighed(sums["correct"], sums["total"], stat)
        sides.append((part.sum() / whole.sum(), _resampled(part, whole, n, own)))
    (x, many), (y, other) = sides
    low, high = np.quantile(many - other, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Difference(float(x - y), float(low), float(high))


def mean_interval(values: Sequence[float], n: int = 2000, seed: int = 0, confidence: float = 0.95) -> Difference:
    """Mean of some measurements with its percentile bootstrap interval."""
    values = np.asarray(values, float)
    if len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"mean interval: needs at least 2 finite values, got {values.tolist()}")
    low, high = np.quantile(_resampled(values, np.ones_like(values), n, seed),
                            [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Difference(float(values.mean()), float(low), float(high))


class McNemar(NamedTuple):
    """Queries that only one of two methods answers rightly, and the p-value of so uneven a split."""

    only_a: int
    only_b: int
    p: float


def mcnemar(a: pd.DataFrame, b: pd.DataFrame) -> McNemar:
    """Exact two-sided McNemar test (1947) of two methods on the same queries, matched by column `image`.

    Only the queries on which the two disagree count: if neither is better, each side wins such a query like
    a fair coin.  It takes queries for independent, which near-duplicate photographs of a product are not: read
    it beside the interval of `paired_difference`, never alone.
    """
    from scipy.stats import binomtest

    right = [_by_image(frame) for frame in (a, b)]
    if not right[0].index.equals(right[1].index):
        raise ValueError("McNemar: both sides need the same queries, got "
                         f"{len(right[0].index.symmetric_difference(right[1].index))} images that only one has")
    only_a, only_b = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    return McNemar(only_a, only_b, float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0)


def over_seeds(frames: Sequence[pd.DataFrame], stat: str = "top1") -> Difference:
    """Mean of one of STATS over the seeds' frames with its range (lowest, highest): how much luck there was."""
    values = [getattr(score(frame), stat) for frame in frames]
    return Difference(float(np.mean(values)), min(values), max(values))


def row(frames: Sequence[pd.DataFrame]) -> dict[str, float]:
    """A line of a results table, of one method's frames, one a seed: counts first, then shares as fractions.

    correct is the mean over the seeds; low and high are bootstrapped over products, wilson_low and wilson_high take
    the queries for independent; lowest and highest are the seeds' range of top1.
    """
    one, pooled = score(frames[0]), score(whole := pd.concat(frames))
    found = {"products": one.products, "queries": one.total, "seeds": len(frames),
             "correct": pooled.correct / len(frames), "top1": pooled.top1}
    found |= dict(zip(("low", "high"), bootstrap_products(whole), strict=True))
    found |= dict(zip(("wilson_low", "wilson_high"), wilson(round(found["correct"]), one.total), strict=True))
    _, lowest, highest = over_seeds(frames)
    return found | {"lowest": lowest, "highest": highest, "per_product": pooled.top1_per_product, "top5": pooled.top5}


def by_part(frame: pd.DataFrame, parts: pd.Series, stat: str = "top1") -> pd.DataFrame:
    """One row per part of `longtail.parts` (product -> head, middle, tail): products, queries, value, low, high.

    Products of the frame that have no part are left out; `stat` and its interval as in `bootstrap_products`.
    """
    own = frame.assign(part=frame["product"].map(parts)).dropna(subset="part")
    rows = [(name, each["product"].nunique(), len(each), getattr(score(each), stat), *bootstrap_products(each, stat))
            for name, each in own.groupby("part", sort=False)]
    return pd.DataFrame(rows, columns=["part", "products", "queries", stat, "low", "high"])


def compare(outcomes: Mapping[str, Sequence[pd.DataFrame]], a: str, others: Sequence[str] = (),
            stat: str = "top1") -> pd.DataFrame:
    """Row `a` of a results table against the other rows (all of them, or `others`), each a list of seeds' frames.

    Columns: a, b, difference (fraction), low, high (paired bootstrap over products), only_a, only_b and p (exact
    McNemar; with several seeds of the pairing whose p is largest, so that a small p held for every seed).
    """
    rows = []
    for b in others or [name for name in outcomes if name != a]:
        if missing := [name for name in (a, b) if not len(outcomes.get(name, ()))]:
            raise ValueError(f"compare: no outcomes of {missing[0]!r}; there are {', '.join(outcomes)}")
        worst = max((mcnemar(x, y) for x in outcomes[a] for y in outcomes[b]), key=lambda test: test.p)
        rows.append((a, b, *paired_difference(outcomes[a], outcomes[b], stat), *worst))
    return pd.DataFrame(rows, columns=["a", "b", "difference", "low", "high", "only_a", "only_b", "p"])


def _by_image(frame: pd.DataFrame) -> pd.Series:
    if missing := {"image", "top1"} - set(frame.columns):
        raise ValueError(f"McNemar: queries are matched by image; missing: {', '.join(sorted(missing))}")
    if frame["image"].duplicated().any():
        raise ValueError("McNemar: every image must be asked once, got "
                         f"{frame['image'].duplicated().sum()} asked again; compare one seed with one seed")
    return frame.set_index("image")["top1"].astype(bool).sort_index()


def _sums(frame: pd.DataFrame, stat: str) -> pd.DataFrame:
    """`correct` and `total` of every product, sorted by name."""
    if stat not in STATS:
        raise ValueError(f"metrics: stat must be one of {', '.join(STATS)}, got {stat!r}")
    column = stat.removesuffix("_per_product")
    if missing := {"product", column} - set(frame.columns):
        raise ValueError("metrics: an outcome frame has product, top1, top5; "
                         f"missing: {', '.join(sorted(missing))}")
    if frame.empty or frame[["product", column]].isna().any(axis=None):
        raise ValueError(f"metrics: needs at least one query and no missing value in product and {column}")
    sums = frame[column].astype(float).groupby(frame["product"].astype(str), sort=True).agg(["sum", "size"])
    return sums.set_axis(["correct", "total"], axis=1)


def _over_seeds(frames: pd.DataFrame | Sequence[pd.DataFrame], stat: str) -> pd.DataFrame:
    """`_sums` averaged over the seeds' frames, which must ask the same queries."""
    each = [_sums(f, stat) for f in ([frames] if isinstance(frames, pd.DataFrame) else frames)]
    if not each or any(not sums["total"].equals(each[0]["total"]) for sums in each):
        raise ValueError("paired difference: every seed needs a frame with the same queries, "
                         f"got {len(each)} frames")
    return each[0].assign(correct=sum(sums["correct"] for sums in each) / len(each))


def _weighed(correct: pd.Series, total: pd.Series, stat: str) -> tuple[np.ndarray, np.ndarray]:
    """Numerator and denominator of a product, (P,) each: the statistic is the ratio of their sums."""
    part, whole = correct.to_numpy(float), total.to_numpy(float)
    return (part / whole, np.ones_like(whole)) if stat.endswith("_per_product") else (part, whole)


def _interval(part: np.ndarray, whole: np.ndarray, n: int, seed: int,
              confidence: float) -> tuple[float, float]:
    """Percentile bootstrap of sum(part) / sum(whole) over products; (-1, 1) for a single product."""
    if len(part) < 2:
        return -1.0, 1.0
    low, high = np.quantile(_resampled(part, whole, n, seed), [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


def _resampled(part: np.ndarray, whole: np.ndarray, n: int, seed: int) -> np.ndarray:
    """sum(part) / sum(whole) of n resamples of the P products, (n,)."""
    times = np.random.default_rng(seed).multinomial(len(part), np.full(len(part), 1 / len(part)), size=n)  # (n, P)
    return (times @ part) / (times @ whole)
