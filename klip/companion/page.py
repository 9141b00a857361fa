"""report.html: a profile's results on one page for a telephone, from what is stored alone.

One file of HTML, CSS and SVG: no script, nothing from elsewhere, no picture, so that no
photograph can be in it.  The same results give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd

from klip.companion import dots, report, stored
from klip.companion.limits import limits
from klip.companion.page_charts import Chart, charts, evidence
from klip.stats import claims
from klip.stats.published import BRIEFLY, CLAIMS, SENTENCES

TEMPLATE = Path(__file__).with_name("page.html")
MARKS = {"upheld": "✓", "not upheld": "✗", "undecided": "?", "not comparable": "≠"}
MARKS |= {"not tested": "–"}
"""Verdict -> what tells it apart without colour."""


def write_page(place: str) -> Path:
    """Write results/<profile>/report.html; what has not run yet is said to be missing."""
    told = {"profile": escape(place)}
    told["headline"], told["beside"] = map(escape, headline(place))
    rows = evidence(place)
    reasons = stored.reasons(place)
    ledger = claims.verdicts(rows, reasons).set_index("id")
    told["counts"] = _counts(ledger["verdict"])
    told["charts"] = "\n".join(map(_figure, charts(place)))
    told["cards"] = "\n".join(_card(row, rows) for row in ledger.itertuples())
    told["limits"] = _items(limits(place))
    told["provenance"] = _provenance(stored.all_metrics(place))
    told["tables"] = _tables(stored.folder(place) / "tables")
    page = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(told)
    return report.write(stored.folder(place) / "report.html", page)


def headline(place: str) -> tuple[str, str]:
    """One sentence on the first set with its interval, and one on how much was asked."""
    found = stored.sets(place)
    if not found:
        missing = "No set is evaluated yet: notebook 04 has not run."
        return missing, f"{stored.command(place)} runs what is missing."
    label, row = next(iter(found.items()))
    name, _, rule = label.partition(" ")
    gain = f"{100 * row['difference']:+z.1f} points"
    surely = "no interval is known"
    if row["low"] is not None:
        gain += f" (95\u00a0% interval {100 * row['low']:+z.1f} to {100 * row['high']:+z.1f})"
        surely = "above zero" if row["low"] > 0 else "not to be told from zero"
        surely = "below zero" if row["high"] < 0 else surely
    levels = f"from {100 * row['frozen']:.1f} to {100 * row['fine_tuned']:.1f}\u00a0%"
    asked = f"{row['queries']:,} queries, {row['products']} products it was not trained on"
    packshot = f"one packshot of each{f' ({rule})' if rule else ''}, nearest neighbour"
    return (
        f"On {name}, fine-tuning moves top-1 accuracy by {gain}, {levels}: {surely}.",
        f"{asked}, {packshot}.",
    )


def _counts(verdicts: pd.Series) -> str:
    """How many claims have each verdict."""
    counts = verdicts.value_counts()
    parts = []
    for verdict, mark in MARKS.items():
        if verdict in counts:
            kind = verdict.replace(" ", "-")
            words = f"{mark} {counts[verdict]} {verdict}"
            parts.append(f'<span class="count {kind}">{words}</span>')
    return "\n".join(parts)


def _figure(chart: Chart) -> str:
    drawing = dots.svg(chart.rows, title=chart.title, sign=chart.sign) if chart.rows else ""
    words = f"<h3>{escape(chart.title)}</h3>\n<figcaption>{escape(chart.note)}</figcaption>"
    return f"<figure>\n{words}\n{drawing}\n</figure>"


def _card(row: Any, rows: Sequence[Mapping[str, Any]]) -> str:
    """A claim with its verdict; the numbers behind it are folded.  row: of the ledger."""
    kind = row.verdict.replace(" ", "-")
    return (
        f'<section class="card {kind}" id="{row.Index}">\n'
        f"<h3>{row.Index} {escape(BRIEFLY[row.Index])}</h3>\n"
        f'<p class="verdict"><span class="mark" aria-hidden="true">{MARKS[row.verdict]}</span>'
        f"{row.verdict}</p>\n<p>{escape(row.why)}</p>\n"
        f"<details><summary>Numbers</summary>\n{_numbers(row, rows)}</details>\n</section>"
    )


def _numbers(row: Any, rows: Sequence[Mapping[str, Any]]) -> str:
    """The claim at length, the paper's figures, and ours test by test."""
    (claim,) = (claim for claim in CLAIMS if claim.id == row.Index)
    quoted = f": {claim.quotation}" if claim.quotation else ""
    text = (
        f'<p class="claim">{escape(SENTENCES[claim.id] + quoted)} ({escape(claim.section)})</p>\n'
    )
    if row.paper:
        text += f"<p>Paper: {escape(row.paper)}</p>\n"
    for test in claim.tests:
        own = [item for item in rows if (item["claim"], item["test"]) == (claim.id, test.name)]
        told = [claims.shown(item) for item in own] or ["not measured"]
        text += f"<p>{escape(test.name)}</p>\n<ul>\n{_items(told)}\n</ul>\n"
    return text


def _items(lines: Iterable[str]) -> str:
    return "\n".join(f"<li>{escape(line)}</li>" for line in lines)


def _provenance(found: Mapping[str, Mapping[str, Any]]) -> str:
    """When, from which commit and on what each notebook ran; versions of the last one."""
    if not found:
        return "<p>Nothing has run yet.</p>"
    rows = []
    for name, values in found.items():
        made = values.get("provenance", {})
        row = {"notebook": name, "seconds": values.get("seconds"), "date": _date(made)[:10]}
        rows.append(row | {key: made.get(key) for key in ("commit", "device", "threads")})
    last = max((values.get("provenance", {}) for values in found.values()), key=_date)
    packages = [f"{name} {last[name]}" for name in ("python", *report.PACKAGES) if name in last]
    line = f"<p>{escape(', '.join(packages))}</p>\n" if packages else ""
    return line + _table(pd.DataFrame(rows), "notebooks")


def _date(made: Mapping[str, Any]) -> str:
    return made.get("date", "")


def _table(frame: pd.DataFrame, name: str) -> str:
    """A table in a box of its own that scrolls, with four digits."""
    # Names of users are escaped by pandas.
    body = frame.head(report.LONGEST).to_html(
        index=False, border=0, na_rep="", float_format="{:.4g}".format
    )
    body = body.replace("\n", f"\n<caption>{escape(name)}</caption>\n", 1)
    left = len(frame) - report.LONGEST
    more = f"<p>{left} more rows are in the .csv file.</p>\n" if left > 0 else ""
    box = f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">'
    return f"{box}{body}</div>\n{more}"


def _tables(folder: Path) -> str:
    """Every stored table, folded by notebook."""
    files = sorted(folder.glob("[!.]*.csv"))
    parts = []
    for number in sorted({file.name.split("_")[0] for file in files}):
        own = [file for file in files if file.name.startswith(f"{number}_")]
        shown = "".join(_table(pd.read_csv(file), file.stem) for file in own)
        head = f"<summary>Notebook {escape(number)}</summary>"
        parts.append(f"<details>{head}\n{shown}</details>")
    return "\n".join(parts) or "<p>No table is stored yet.</p>"
