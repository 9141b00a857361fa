"""Tables of many outcomes at once: scores, differences, top-1 by similarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from klip.stats import metrics
from klip.stats.metrics import Frames


def scores(
    outcomes: Mapping[Any, Frames], keys: Sequence[str], *, stat: str = "top1"
) -> pd.DataFrame:
    """A row per outcome: its key, in columns `keys`, then mean, low and high of a statistic."""
    rows = []
    for key, frames in outcomes.items():
        whole = frames if isinstance(frames, pd.DataFrame) else pd.concat(frames)
        own = getattr(metrics.score(whole), stat), *metrics.bootstrap_products(whole, stat)
        rows.append((*(key if isinstance(key, tuple) else (key,)), *own))
    return pd.DataFrame(rows, columns=[*keys, "mean", "low", "high"])


def all_scores(outcomes: Mapping[Any, Sequence[pd.DataFrame]], keys: Sequence[str]) -> pd.DataFrame:
    """A row per outcome, a frame a seed: its key, products, queries, and in percent top1,
    per_product and top5, each with _low and _high."""
    rows = []
    for key, frames in outcomes.items():
        whole = pd.concat(frames)
        found = metrics.score(whole)
        row = dict(zip(keys, key, strict=True))
        row |= {"products": found.products, "queries": len(frames[0])}
        for stat in metrics.STATS:
            name = stat.removeprefix("top1_")
            low, high = metrics.bootstrap_products(whole, stat)
            row |= {name: getattr(found, stat), f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    table = pd.DataFrame(rows)
    shares = table.columns.drop([*keys, "products", "queries"])
    return table.assign(**{name: 100 * table[name] for name in shares})


def differences(
    pairs: Mapping[Any, tuple[Frames, Frames]], keys: Sequence[str], *, stats: Sequence[str] = ()
) -> pd.DataFrame:
    """A row per pair: its key, in columns `keys`, then first minus second, low and high of
    top-1; or a row per pair and statistic, which column `measure` names."""
    rows = []
    for key, (a, b) in pairs.items():
        key = key if isinstance(key, tuple) else (key,)
        for stat in stats or ("top1",):
            named = (stat,) if stats else ()
            rows.append((*key, *named, *metrics.paired_difference(a, b, stat=stat)))
    columns = [*keys, *(["measure"] if stats else []), "difference", "low", "high"]
    return pd.DataFrame(rows, columns=columns)


def told(
    table: pd.DataFrame,
    value: str,
    low: str = "low",
    high: str = "high",
    *,
    scale: float = 100,
    sign: str = "",
) -> pd.DataFrame:
    """A table to be read: a value and the ends of its interval become one text, in percent,
    "52.1 [38.6, 66.6]", in the place of the value.  sign="+" for differences."""

    def number(one: float) -> str:
        return f"{scale * one:{sign}.1f}"

    columns = (table[name].map(number) for name in (value, low, high))
    texts = [f"{one} [{start}, {end}]" for one, start, end in zip(*columns, strict=True)]
    return table.assign(**{value: texts}).drop(columns=[low, high])


def by_similarity(frame: pd.DataFrame) -> pd.Series:
    """Top-1 of each quarter of the queries, from the lowest similarity to the highest."""
    names = ["lowest", "second", "third", "highest"]
    quarter = pd.qcut(frame["similarity"].rank(method="first"), 4, labels=names)
    return frame["top1"].groupby(quarter, observed=False).mean()
