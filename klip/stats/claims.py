"""Floor 1: verdicts on the paper's claims, computed from what was measured, never typed.

Evidence has a row per comparison: claim (id), test (`published.Comparison.name`), set, difference, low, high (95 %
interval), expected (above, below, near), margin (fraction; 0 unless near), unit, status and why.  In unit `points` the
three numbers are fractions of queries, in unit `times` natural logarithms of a ratio of seconds.  A row whose status is
not `compared` says why and is shown, but decides nothing: `not comparable`, the rival ended under its own frozen
backbone and is no rival; `not tested`, the tower cannot tell, as one that knows too little before it is fine-tuned.

A row holds when its whole interval lies on the claimed side: above, low > 0; below, high < 0; near, low > -margin.
It fails when the whole interval lies on the other side, and is open when the interval touches both.
The verdict of a claim is the first of these that is true:
`not tested`      it has no row, or all its rows are not tested;
`not upheld`      one compared row at least fails (by chance the likelier, the more rows there are: read them);
`not comparable`  one row at least is not comparable;
`upheld`          each of its tests was measured and all compared rows hold;
`undecided`       else.

C6 sets the best *inner* depth against either end of the sweep, whichever depth was chosen: a depth against itself
would be open, and where an end is best, the difference to it is negative.  The best depth is picked on the very
queries that it is compared on, which flatters it a little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from klip.stats.published import CLAIMS, PAPER_SET, Claim

COLUMNS = ("claim", "test", "set", "difference", "low", "high", "expected", "margin", "unit")
USUAL = {"status": "compared", "why": ""}
"""Columns that evidence may lack."""
STATUSES = ("compared", "not comparable", "not tested")
VERDICTS = ("not tested", "not upheld", "not comparable", "upheld", "undecided")


def evidence(
    claim: str,
    test: str,
    set_name: str,
    difference: tuple[float, float, float],
    status: str = "compared",
    why: str = "",
) -> dict[str, Any]:
    """A row of evidence: `test` as `published.CLAIMS` names it, which also says what is expected of it.

    set_name may have more words after the set's name (the gallery rule).  difference: value, low, high, as
    `metrics.Difference`; for a test in `times` the natural logarithms of the ratio of seconds.  status, why: see the
    head of this file.
    """
    terms = _terms(claim, test)
    row = dict(
        zip(
            (*COLUMNS, *USUAL),
            (claim, test, set_name, *map(float, difference), *terms, status, why),
            strict=True,
        )
    )
    _check(row)
    return row


def holds(row: Mapping[str, Any]) -> bool | None:
    """Whether a row of evidence is as the paper says: True, False, or None where its interval is on both sides."""
    low, high = (
        (-row["high"], -row["low"]) if row["expected"] == "below" else (row["low"], row["high"])
    )
    bound = -row["margin"] if row["expected"] == "near" else 0.0
    return True if low > bound else False if high < bound else None


def verdicts(
    evidence: pd.DataFrame | Sequence[Mapping[str, Any]], reasons: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """The ledger, one row per claim of CLAIMS: id, claim, section, paper, ours, verdict (all text).

    evidence: a frame, or a list of such rows, perhaps empty; rules in the head of this file.  reasons: claim's id ->
    why it, or a part of it, could not be tested.  Published figures are in column `paper` alone.
    """
    rows, reasons = pd.DataFrame(evidence), reasons or {}
    if len(rows) and (missing := [name for name in COLUMNS if name not in rows]):
        raise ValueError(
            f"evidence: needs the columns {', '.join(COLUMNS)}; missing: {', '.join(missing)}"
        )
    rows = rows.assign(
        **{
            name: rows[name].fillna(usual) if name in rows else usual
            for name, usual in USUAL.items()
        }
    )
    records = rows.to_dict("records")
    for row in records:
        _check(row)
    if len(rows) and (again := rows.duplicated(["claim", "test", "set"])).any():
        raise ValueError(
            f"evidence: {_where(records[int(again.argmax())])} is there twice; keep one row of it"
        )
    for number in reasons:
        _find(number)
    ledger = [
        _judge(
            claim, [row for row in records if row["claim"] == claim.id], reasons.get(claim.id, "")
        )
        for claim in CLAIMS
    ]
    return pd.DataFrame(ledger, columns=["id", "claim", "section", "paper", "ours", "verdict"])


def _judge(claim: Claim, rows: Sequence[Mapping[str, Any]], reason: str) -> tuple[str, ...]:
    sentence = claim.sentence + (f": {claim.quotation}" if claim.quotation else "")
    found = {test.name: [row for row in rows if row["test"] == test.name] for test in claim.tests}
    lacking = [
        name for name, own in found.items() if all(row["status"] == "not tested" for row in own)
    ]
    answers = [holds(row) for row in rows if row["status"] == "compared"]
    if not rows:
        ours, verdict = reason or "no run has measured it", "not tested"
    else:
        told = [f"{name}: {', '.join(map(_text, own))}" for name, own in found.items() if own]
        unseen = [name for name in lacking if not found[name]]
        ours = "; ".join(
            told + [f"not measured: {', '.join(unseen)}"] * bool(unseen) + [reason] * bool(reason)
        )
        rules = (
            len(lacking) == len(found),
            False in answers,
            any(row["status"] == "not comparable" for row in rows),
            not lacking and all(answers),
            True,
        )
        verdict = VERDICTS[rules.index(True)]
    return claim.id, sentence, claim.section, claim.paper, ours, verdict


def _text(row: Mapping[str, Any]) -> str:
    """A row's set and numbers: points of accuracy, or how many times as many seconds."""
    aside = "" if row["status"] == "compared" else f" [{row['status']}: {row['why']}]"
    value, low, high = (
        f"{math.exp(row[name]):.3g}" if row["unit"] == "times" else f"{100 * row[name]:+.1f}"
        for name in ("difference", "low", "high")
    )
    return (
        f"{row['set']} {value}{' times' if row['unit'] == 'times' else ''} ({low} to {high}){aside}"
    )


def _find(number: str) -> Claim:
    found = {claim.id: claim for claim in CLAIMS}
    if number not in found:
        raise ValueError(f"claims: no claim is called {number!r}; there are {', '.join(found)}")
    return found[number]


def _terms(number: str, name: str) -> tuple[str, float, str]:
    """expected, margin, unit of the rows of a claim's test."""
    claim = _find(number)
    tests = {test.name: test for test in claim.tests}
    if name not in tests:
        raise ValueError(
            f"claims: {number} has no test {name!r}; published.CLAIMS has {', '.join(map(repr, tests))}"
        )
    return (
        tests[name].expected,
        claim.margin if tests[name].expected == "near" else 0.0,
        tests[name].unit,
    )


def _where(row: Mapping[str, Any]) -> str:
    return f"{row['claim']} '{row['test']}' on {row['set']}"


def _check(row: Mapping[str, Any]) -> None:
    """One sentence on the first thing that is wrong with a row."""
    terms, claim = _terms(row["claim"], str(row["test"])), _find(row["claim"])
    where = f"evidence: {_where(row)}"
    name = "".join(row["set"].split()[:1]) if isinstance(row["set"], str) else ""
    if not name or claim.sets and PAPER_SET.get(name, name) not in claim.sets:
        places = ", ".join(
            (*claim.sets, *(ours for ours, theirs in PAPER_SET.items() if theirs in claim.sets))
        )
        raise ValueError(
            f"{where}: set must be {places or 'the name of a set'}, perhaps with more words after it"
        )
    numbers = {name: row[name] for name in ("difference", "low", "high")}
    for name, number in numbers.items():
        if not isinstance(number, int | float) or not math.isfinite(number):
            raise ValueError(f"{where}: {name} must be a finite number, got {number!r}")
    if row["low"] > row["high"]:
        raise ValueError(
            f"{where}: low must not be above high, got {row['low']:.4g} and {row['high']:.4g}"
        )
    if (given := tuple(row[name] for name in ("expected", "margin", "unit"))) != terms:
        raise ValueError(
            f"{where}: expected, margin and unit must be {terms} as in published.CLAIMS, got {given}; "
            "run the notebook that measured it again"
        )
    if row["status"] not in STATUSES or bool(row["why"]) == (row["status"] == "compared"):
        raise ValueError(
            f"{where}: status must be compared, or not comparable or not tested with why, got "
            f"{row['status']!r} and {row['why']!r}"
        )
    if row["unit"] == "points" and max(map(abs, numbers.values())) > 1:
        raise ValueError(
            f"{where}: points are stored as fractions from -1 to 1, got {tuple(numbers.values())}"
        )
