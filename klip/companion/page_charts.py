"""The three charts of report.html: which rows each one shows, and what its title finds."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from klip.companion import stored
from klip.companion.dots import Dot
from klip.stats import claims
from klip.stats.published import OURS

CHOICES = ("C5", "C6", "C7", "C8")
"""The claims that say which choice in fine-tuning is the better one."""


class Chart(NamedTuple):
    """What is drawn; without rows `title` says what is missing."""

    title: str
    note: str
    rows: Sequence[Dot] = ()
    sign: str = ""


def table(name: str, place: str) -> pd.DataFrame:
    """A stored table, or an empty one."""
    path = stored.folder(place) / "tables" / f"{name}.csv"
    return pd.read_csv(path) if path.is_file() else pd.DataFrame()


def evidence(place: str) -> list[dict[str, Any]]:
    """The rows that all notebooks stored for the claims."""
    return [claims.with_status(row) for row in stored.evidence(place)]


def charts(place: str) -> list[Chart]:
    """Sets, methods, choices."""
    return [by_set(place), by_method(place), by_choice(place)]


def by_set(place: str) -> Chart:
    """SIFT, frozen, fine-tuned and re-ranked on every set, by every gallery rule."""
    found, rows = stored.sets(place), []
    if not found:
        return Chart("What fine-tuning adds is not measured yet", "Notebook 04 has not run.")
    ends = {}
    for row in table("04_top1", place).itertuples():
        key = (f"{row.set} {row.gallery}", row.encoder)
        ends[key] = (row.top1_low / 100, row.top1_high / 100)
    nothing = (math.nan, math.nan)
    for label, row in found.items():
        if row.get("floor") is not None:
            limits = (row["floor_low"], row["floor_high"])
            rows.append(Dot(label, "SIFT, no learning", row["floor"], *limits))
        limits = ends.get((label, "frozen"), nothing)
        rows.append(Dot(label, "frozen", row["frozen"], *limits))
        limits = ends.get((label, "fine-tuned"), nothing)
        rows.append(Dot(label, "fine-tuned", row["fine_tuned"], *limits, ours=True))
        if row.get("reranked") is not None:
            limits = (row["reranked_low"], row["reranked_high"])
            rows.append(Dot(label, "fine-tuned, re-ranked by print", row["reranked"], *limits))
    above, below = _certain(found.values())
    title = f"Fine-tuning is above frozen for certain on {above} of {len(found)} galleries"
    title += f", below on {below}" if below else ""
    note = "Top-1 in percent, each with its own 95 % interval. The difference is paired over the "
    note += "same photographs, so it can be certain where these intervals overlap."
    return Chart(title, note, rows)


def _certain(rows: Collection[Mapping[str, Any]]) -> tuple[int, int]:
    """How many intervals lie above zero, and how many below."""
    known = [row for row in rows if row["low"] is not None]
    return sum(row["low"] > 0 for row in known), sum(row["high"] < 0 for row in known)


def by_method(place: str) -> Chart:
    """Every row of the comparison on the first set, the best first."""
    found = table("05_rows", place)
    if found.empty:
        return Chart("The other methods are not measured yet", "Notebook 05 has not run.")
    place = found["set"].iloc[0]
    own = found[(found["set"] == place) & found["top1"].notna()]
    own = own.sort_values("top1", ascending=False, kind="stable")
    rows = []
    for row in own.itertuples():
        marked = isinstance(row.note, str)  # an empty one is not a number
        rows.append(Dot("", row.row, row.top1, row.low, row.high, row.row == OURS, marked))
    ours = own.loc[own["row"] == OURS, "top1"]
    if ours.empty:
        return Chart(f"Every method on {place}", "Top-1 in percent.", rows)
    above = int((own["top1"] > ours.iloc[0]).sum())
    title = f"{above} of {len(own) - 1} other rows stand above {OURS} on {place}"
    note = "Top-1 in percent with 95 % intervals. Diamond: ours."
    hollow = ", ".join(own["note"].dropna().unique())
    return Chart(title, f"{note} Hollow: {hollow}." if hollow else note, rows)


def by_choice(place: str) -> Chart:
    """The paper's choice minus the other one, on validation products, once per test."""
    own: dict[str, dict[str, Any]] = {}
    for row in sorted(evidence(place), key=lambda row: row["claim"]):
        if row["claim"] in CHOICES and row["set"].split(",")[0] == "validation":
            own.setdefault(row["test"], row)  # the profile's own tower comes first
    if not own:
        missing = "Notebooks 02 and 03 have not run."
        return Chart("What each choice is worth is not measured yet", missing)
    rows = []
    for test, row in own.items():
        ends = (row["difference"], row["low"], row["high"])
        hollow = row["status"] != "compared"
        rows.append(Dot("", f"{row['claim']} {test}", *ends, hollow=hollow))
    above, below = _certain([row for row in own.values() if row["status"] == "compared"])
    title = f"The paper's choice is better for certain in {above} of {len(rows)} tests"
    title += f", worse in {below}" if below else ""
    note = "Points of top-1 on products held out for validation, with 95 % intervals. "
    note += "Right of the line at 0 the paper's choice is better."
    return Chart(title, note + (" Hollow: not judged." if _hollow(rows) else ""), rows, "+")


def _hollow(rows: Sequence[Dot]) -> bool:
    return any(row.hollow for row in rows)
