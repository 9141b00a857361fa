"""How the contenders of a contest stand: medians, spread, and ratios to the best peer."""

from __future__ import annotations

import pandas as pd

OWN = ("klip", "floor")
"""How the names of contenders begin that are no peers: klip's, and limits of the machine."""


def summary(table: pd.DataFrame, own: tuple[str, ...] = OWN) -> pd.DataFrame:
    """A row per contender of a table of `rounds`, in its order.

    rounds: how many.  per_second: median, with low and high the least and the most.
    ratio: median over the rounds of its rate through the best peer's in the same round,
    with ratio_low and ratio_high; the best peer has the highest median of those whose name
    begins with none of `own`.  user_ms: milliseconds of computing for an image or query,
    median.  peak_mib: the most.  note.
    """
    rates = table.pivot_table("per_second", "round", "contender")  # (rounds, contenders)
    peers = [name for name in rates if not name.startswith(own)]
    best = rates[peers].median().idxmax() if peers else None
    rows = []
    for name, found in table.groupby("contender", sort=False):
        rate, notes = found["per_second"].dropna(), found["note"]
        row = {"contender": name, "rounds": len(rate), "per_second": rate.median()}
        row |= {"low": rate.min(), "high": rate.max()}
        if best is not None and len(rate):
            ratio = (rates[name] / rates[best]).dropna()
            row |= {"ratio": ratio.median(), "ratio_low": ratio.min(), "ratio_high": ratio.max()}
        row["user_ms"] = (1000 * found["user_s"] / found["done"]).median()
        row |= {"peak_mib": found["peak_mib"].max(), "note": notes.iloc[-1]}
        rows.append(row)
    columns = ["contender", "rounds", "per_second", "low", "high", "ratio", "ratio_low"]
    columns += ["ratio_high", "user_ms", "peak_mib", "note"]
    return pd.DataFrame(rows, columns=columns).set_index("contender")


def of_compute(table: pd.DataFrame) -> tuple[float, float]:
    """klip's rate as a share of its pure compute, from a `summary`: measured, and at best, which
    is reading and computing one after the other, for both want all cores."""
    rate = table["per_second"]
    together = 1 / (1 / rate["klip compute"] + 1 / rate["klip reading"])
    return rate["klip"] / rate["klip compute"], together / rate["klip compute"]
