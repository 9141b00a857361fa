"""Verdicts on the paper's claims, computed from what was measured, never typed.

Evidence has a row per comparison: claim (id), test (`published.Comparison.name`), set,
difference, low, high (95 % interval), expected (above, below, near), margin (fraction; 0
unless near), unit, status and why.  In unit `points` the three numbers are fractions of
queries, in unit `times` natural logarithms of a ratio of seconds.  A row whose status is not
`compared` says why and is shown, but decides nothing: `not comparable`, the rival ended
under its own frozen backbone and is no rival; `not tested`, the tower cannot tell, as one
that knows too little before it is fine-tuned.

A row holds when its whole interval lies on the claimed side: above, low > 0; below, high <
0; near, low > -margin.  It fails when the interval lies on the other side, and is open when
it touches both.  The verdict of a claim is the first of these that is true:
`not tested`      it has no row, or all its rows are not tested;
`not upheld`      one compared row at least fails (the likelier, the more rows: read them);
`not comparable`  one row at least is not comparable;
`upheld`          each of its tests was measured and all compared rows hold;
`undecided`       else.

C6 sets the best *inner* depth against either end of the sweep, whichever depth was chosen:
where an end is best, the difference to it is negative.  The best depth is picked on the very
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
    """A row of evidence, see the head of this file; `test` as `published.CLAIMS` names it.

    set_name may have more words after the set's name (the gallery rule).  difference: value,
    low, high, as `metrics.Difference`.
    """
    values = (claim, test, set_name, *map(float, difference), *_terms(claim, test), status, why)
    row = dict(zip((*COLUMNS, *USUAL), values, strict=True))
    _check(row)
    return row


def holds(row: Mapping[str, Any]) -> bool | None:
    """Whether a row is as the paper says; None where its interval lies on both sides."""
    low, high = row["low"], row["high"]
    if row["expected"] == "below":
        low, high = -high, -low
    bound = -row["margin"] if row["expected"] == "near" else 0.0
    if low > bound:
        return True
    return False if high < bound else None


def verdicts(
    evidence: pd.DataFrame | Sequence[Mapping[str, Any]], reasons: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """The ledger, a row per claim: id, claim, section, paper, ours, verdict (all text).

    evidence: rows, perhaps none; rules in the head of this file.  reasons: claim's id -> why
    it, or a part of it, could not be tested.  Only column `paper` has published figures.
    """
    rows, reasons = pd.DataFrame(evidence), reasons or {}
    missing = ", ".join(name for name in COLUMNS if name not in rows)
    if len(rows) and missing:
        raise ValueError(f"evidence: needs the columns {', '.join(COLUMNS)}; missing: {missing}")
    for name, usual in USUAL.items():
        rows[name] = rows[name].fillna(usual) if name in rows else usual
    records, seen = rows.to_dict("records"), set()
    for row in records:
        _check(row)
        if _where(row) in seen:
            raise ValueError(f"evidence: {_where(row)} is there twice; keep one row of it")
        seen.add(_where(row))
    for number in reasons:
        _find(number)
    ledger = []
    for claim in CLAIMS:
        own = [row for row in records if row["claim"] == claim.id]
        sentence = claim.sentence + (f": {claim.quotation}" if claim.quotation else "")
        told = _ours(claim, own, reasons.get(claim.id, "")), _verdict(claim, own)
        ledger.append((claim.id, sentence, claim.section, claim.paper, *told))
    return pd.DataFrame(ledger, columns=["id", "claim", "section", "paper", "ours", "verdict"])


def _verdict(claim: Claim, rows: Sequence[Mapping[str, Any]]) -> str:
    """The first of VERDICTS that is true, see the head of this file."""
    tested = {row["test"] for row in rows if row["status"] != "not tested"}
    answers = [holds(row) for row in rows if row["status"] == "compared"]
    if not tested:
        return "not tested"
    if False in answers:
        return "not upheld"
    if any(row["status"] == "not comparable" for row in rows):
        return "not comparable"
    return "upheld" if len(tested) == len(claim.tests) and all(answers) else "undecided"


def _ours(claim: Claim, rows: Sequence[Mapping[str, Any]], reason: str) -> str:
    """What was measured, test by test, and why a part was not."""
    if not rows:
        return reason or "no run has measured it"
    told, unseen = [], []
    for test in claim.tests:
        own = [_text(row) for row in rows if row["test"] == test.name]
        if own:
            told.append(f"{test.name}: {', '.join(own)}")
        else:
            unseen.append(test.name)
    if unseen:
        told.append(f"not measured: {', '.join(unseen)}")
    return "; ".join([*told, reason] if reason else told)


def _text(row: Mapping[str, Any]) -> str:
    """A row's set and numbers: points of accuracy, or how many times as many seconds."""
    numbers = [row["difference"], row["low"], row["high"]]
    if row["unit"] == "times":
        value, low, high = (f"{math.exp(number):.3g}" for number in numbers)
        value += " times"
    else:
        value, low, high = (f"{100 * number:+.1f}" for number in numbers)
    aside = "" if row["status"] == "compared" else f" [{row['status']}: {row['why']}]"
    return f"{row['set']} {value} ({low} to {high}){aside}"


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
        known = ", ".join(map(repr, tests))
        raise ValueError(f"claims: {number} has no test {name!r}; published.CLAIMS has {known}")
    test = tests[name]
    return test.expected, claim.margin if test.expected == "near" else 0.0, test.unit


def _where(row: Mapping[str, Any]) -> str:
    return f"{row['claim']} '{row['test']}' on {row['set']}"


def _check(row: Mapping[str, Any]) -> None:
    problem = _problem(row, _find(row["claim"]), _terms(row["claim"], str(row["test"])))
    if problem:
        raise ValueError(f"evidence: {_where(row)}: {problem}")


def _problem(row: Mapping[str, Any], claim: Claim, terms: tuple[str, float, str]) -> str:
    """One sentence on the first thing that is wrong with a row, or nothing."""
    words = row["set"].split() if isinstance(row["set"], str) else []
    if not words or (claim.sets and PAPER_SET.get(words[0], words[0]) not in claim.sets):
        rendered = [ours for ours, theirs in PAPER_SET.items() if theirs in claim.sets]
        places = ", ".join([*claim.sets, *rendered]) or "the name of a set"
        return f"set must be {places}, perhaps with more words after it"
    numbers = {name: row[name] for name in ("difference", "low", "high")}
    for name, number in numbers.items():
        if not isinstance(number, int | float) or not math.isfinite(number):
            return f"{name} must be a finite number, got {number!r}"
    if row["low"] > row["high"]:
        return f"low must not be above high, got {row['low']:.4g} and {row['high']:.4g}"
    given = (row["expected"], row["margin"], row["unit"])
    if given != terms:
        must = f"expected, margin and unit must be {terms} as in published.CLAIMS"
        return f"{must}, got {given}; run the notebook that measured it again"
    status, why = row["status"], row["why"]
    if status not in STATUSES or bool(why) == (status == "compared"):
        must = "status must be compared, or not comparable or not tested with why"
        return f"{must}, got {status!r} and {why!r}"
    given = tuple(numbers.values())
    if row["unit"] == "points" and max(map(abs, given)) > 1:
        return f"points are stored as fractions from -1 to 1, got {given}"
    return ""
