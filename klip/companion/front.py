"""What README and docs show of the stored results, put between marks in their text."""

from __future__ import annotations

import re

import pandas as pd

from klip.companion import overview, page, report, stored
from klip.settings import paths
from klip.stats.published import BRIEFLY

FILLED = ("README.md", "docs/results.md", "docs/scale.md")
"""The files that hold such marks."""
KINDS = {"real": "real photographs", "nano": "rendered images"}
"""Profiles of the table of verdicts, and what they were measured on."""


def headline(place: str) -> str:
    """One sentence on what fine-tuning did there, with its interval."""
    return " ".join(page.headline(place)) + "\n"


def times(place: str) -> str:
    """How long the notebooks took that are stored, but the appendix, and on what."""
    found = {name: one for name, one in stored.all_metrics(place).items() if name[0].isdigit()}
    if not found:
        return f"Not run yet: `{stored.command(place)}`.\n"
    minutes = sum(one.get("seconds", 0) for one in found.values()) / 60
    made = found[max(found)]["provenance"]
    where = f"{made['device']}, {made['threads']} threads"
    took = f"took {minutes:.0f} minutes when they last ran ({where})"
    return f"The {len(found)} notebooks of profile `{place}` {took}.\n"


def verdicts() -> str:
    """A row per claim of the paper: in few words, and its verdict for each of KINDS."""
    ledgers = {}
    for place in KINDS:
        file = stored.folder(place) / "claims.csv"
        if file.is_file():
            ledgers[place] = pd.read_csv(file).set_index("id")["verdict"]
    rows = []
    for claim, words in BRIEFLY.items():
        row = {"": claim, "the paper says": words}
        for place, kind in KINDS.items():
            verdict = ledgers[place][claim] if place in ledgers else "not tested"
            row[kind] = f"{page.MARKS[verdict]} {verdict}"
        rows.append(row)
    return report.markdown(pd.DataFrame(rows))


def cost(place: str, only: str = "") -> str:
    """The bars of notebook B: what is held against what, and whether it is there.

    only: rows whose work has these words.
    """
    found = stored.all_metrics(place).get("cost")
    if not found:
        return "Not measured yet: `make bench`.\n"
    table = pd.DataFrame(found["bars"])
    table = table[table["work"].str.contains(only)]
    for column in {"measured", "at best"} & {*table}:
        shown = table[column].map("{:.3g}".format, na_action="ignore")
        table[column] = shown.astype(object).fillna("")
    if only:  # beside peers there is no limit to tell
        table = table.drop(columns="at best", errors="ignore")
    table["met"] = table["met"].map({True: "\u2713", False: "\u2717"})
    return report.markdown(table)


def filled(text: str) -> str:
    """A text, made anew between `<!-- KIND:PROFILE -->` and `<!-- /KIND -->`.

    Kinds: `bars`, of notebook B; `cost`, those of them beside peers; `headline`, a sentence;
    `results`, ours beside the paper's numbers; `claims`, the ledger; `verdicts:all`, the
    ledger in short; `times`, a sentence; `speed:all`, see `report.speeds`.
    """

    def fresh(match: re.Match[str]) -> str:
        start, kind, place, end = match.groups()
        if kind == "cost":
            new = cost(place, only="best peer")
        elif kind == "bars":
            new = cost(place)
        elif kind == "headline":
            new = headline(place)
        elif kind == "results":
            new = overview.results_table(place)
        elif kind == "claims":
            new = overview.ledger(place)
        elif kind == "times":
            new = times(place)
        elif kind == "verdicts":
            new = verdicts()
        else:
            new = report.markdown(report.speeds().round(3))
        return start + new + end

    block = r"(<!-- (bars|cost|headline|results|claims|verdicts|times|speed):(\w+) -->\n).*?(<!-- /\2 -->)"
    return re.sub(block, fresh, text, flags=re.DOTALL)


def fill() -> None:
    """Put the stored results into all files of FILLED."""
    for name in FILLED:
        path = paths.ROOT / name
        report.write(path, filled(path.read_text(encoding="utf-8")))
