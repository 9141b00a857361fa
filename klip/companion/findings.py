"""What a figure finds, in the words of its title: computed from the table that it draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd


def head(images: np.ndarray, part: np.ndarray) -> str:
    """How much of the images (N,) the products of part "head" hold; part (N,)."""
    own = part == "head"
    share = images[own].sum() / images.sum()
    return f"{own.sum():,} of {len(own):,} products, the head, hold {_percent(share)} of the images"


def highest(table: pd.DataFrame, x: str, words: str) -> str:
    """Where the top-1 (mean) of each set is highest; of equals the lowest x.

    words: how to say x, "depth {}".
    """
    best: dict[float, list[str]] = {}
    for name, rows in table.groupby("set", sort=False):
        rows = rows.sort_values(x).reset_index(drop=True)
        best.setdefault(float(rows[x][rows["mean"].idxmax()]), []).append(str(name))
    places = sorted(best)
    lines = sum(map(len, best.values()))
    if len(places) == 1:
        everywhere = {1: "", 2: " on both"}.get(lines, f" on all {lines}")
        return f"Top-1 is highest at {words.format(f'{places[0]:g}')}{everywhere}"
    many = lines > 4
    told = []
    for place in places:
        names = f"{len(best[place])} rows" if many else ", ".join(best[place])
        # The unit is said once.
        at = f"{place:g}" if told else words.format(f"{place:g}")
        told.append(f"{at} ({names})".replace("(1 rows)", "(1 row)"))
    return f"Top-1 is highest at {', '.join(told)}"


def passing(shares: Sequence[float]) -> str:
    """Which share of the unknown passes at the chosen thresholds, a share per curve."""
    low, high = _percent(min(shares)), _percent(max(shares))
    if low == high:
        return f"At the chosen threshold {low} of the queries of unknown products pass"
    return f"At the chosen thresholds {low} to {high} of the queries of unknown products pass"


def training(losses: Sequence[np.ndarray], judged: Sequence[np.ndarray]) -> str:
    """From what to what loss and validation accuracy went, means over the runs."""
    told = []
    if all(len(values) for values in losses):
        first, last = np.mean([values[[0, -1]] for values in losses], axis=0)
        went = "fell" if last < first else "rose"
        told.append(f"the loss {went} from {first:.2f} to {last:.2f}")
    if all(len(values) > 1 for values in judged):
        first, last = np.mean([values[[0, -1]] for values in judged], axis=0)
        went = "rose" if last > first else "fell"
        told.append(f"validation top-1 {went} from {_percent(first, 1)} to {_percent(last, 1)}")
    text = "; ".join(told) or "training as it went"
    return text[0].upper() + text[1:]


def falling(lines: Sequence[np.ndarray]) -> str:
    """How many losses ended lower than they began."""
    fell = sum(bool(values[-1] < values[0]) for values in lines if len(values))
    return f"{fell} of {len(lines)} losses ended lower than they began"


def slowest(tables: Mapping[str, pd.DataFrame]) -> str:
    """How far the lowest rate (lr) of each tower is below its highest."""
    told = []
    for name, table in tables.items():
        rates = table["lr"][table["lr"] > 0]
        told.append(f"{rates.max() / rates.min():,.0f} times in {name}")
    return f"The lowest block learns slower than the top: {', '.join(told)}"


def certain(table: pd.DataFrame) -> str:
    """On how many rows the interval (low, high) is wholly above zero, and below.

    A row that is zero throughout is compared with itself, and left out.
    """
    rows = table.dropna(subset=["low", "high"])
    rows = rows[(rows[["mean", "low", "high"]] != 0).any(axis=1)]
    above, below = int((rows["low"] > 0).sum()), int((rows["high"] < 0).sum())
    return f"above zero on {above} of {len(rows)}, below on {below}"


def ahead(table: pd.DataFrame) -> str:
    """Which group has the highest mean of a label, on how many labels; columns label,
    group, mean.  Of a single group: which label is highest."""
    if table["group"].nunique() == 1:
        return f"{table['label'][table['mean'].idxmax()]} is highest"
    won: Counter[str] = Counter()
    for _, rows in table.groupby("label", sort=False):
        best = rows[rows["mean"] == rows["mean"].max()]
        if len(best) == 1:  # nobody is ahead in a tie
            won[str(best["group"].iloc[0])] += 1
    if not won:
        return "nobody is ahead"
    (first, times), *others = won.most_common()
    told = [f"{first} is ahead on {times} of {table['label'].nunique()}"]
    return ", ".join(told + [f"{name} on {times}" for name, times in others])


def beaten(table: pd.DataFrame, ours: str) -> tuple[int, int]:
    """How many other rows (row, top1) are below the row `ours`, and of how many."""
    others = table[(table["row"] != ours) & table["top1"].notna()]
    own = table.loc[table["row"] == ours, "top1"]
    return int((others["top1"] < own.max()).sum()), len(others)


def traded(table: pd.DataFrame, across: str) -> str:
    """How many of the variants that gain on `across` for certain lose elsewhere for certain."""
    gained = table.loc[(table["set"] == across) & (table["low"] > 0), "variant"]
    elsewhere = table[(table["set"] != across) & table["variant"].isin(gained)]
    lost = elsewhere.loc[elsewhere["high"] < 0, "variant"].nunique()
    return f"{lost} of {gained.nunique()} variants that gain on {across} lose elsewhere"


def kinds(errors: Sequence[str]) -> str:
    """How often each kind of error is there, the most frequent first."""
    return "; ".join(f"{times} x {kind}" for kind, times in Counter(errors).most_common())


def _percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"
