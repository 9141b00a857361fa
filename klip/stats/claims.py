"""Verdicts on the paper's claims, computed from what was measured, never typed.

Evidence has a row per comparison: claim (id), test (`published.Comparison.name`), set,
difference, low, high (95 % interval), status and why.  In a test's unit `points` the
three numbers are fractions of queries, in `times` natural logarithms of a ratio of
seconds.  A row whose status is not `compared` says why and is shown, but decides
nothing: `not comparable`, the rival ended under its own frozen backbone and is no
rival; `not tested`, the tower cannot tell, it knows too little before fine-tuning.

A row holds when its whole interval lies on the claimed side: above, low > 0; below,
high < 0; near, low > -margin.  It fails when it lies on the other side, and is open
when it touches both.  The verdict of a claim is the first of these that is true:
`not tested`      it has no row, or all its rows are not tested;
`not upheld`      one compared row at least fails (the likelier, the more rows);
`not comparable`  one row at least is not comparable;
`upheld`          each of its tests was measured and all compared rows hold;
`undecided`       else.
Its `why` says in at most twelve words what decided.

C6 sets the best *inner* depth against either end of the sweep, whichever depth was
chosen: where an end is best, the difference to it is negative.  The best depth is
picked on the very queries that it is compared on, which flatters it a little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from klip.stats.published import CLAIMS, PAPER_SET, SENTENCES, Claim, Comparison

STATUSES = ("compared", "not comparable", "not tested")
VERDICTS = ("not tested", "not upheld", "not comparable", "upheld", "undecided")
MOST_WORDS = 12
"""Words of a `why`, at most."""


def evidence(
    claim: str,
    test: str,
    *,
    place: str,
    difference: Sequence[float],
    status: str = "compared",
    why: str = "",
) -> dict[str, Any]:
    """A checked row of evidence, see the head of this file.

    test: name of its Comparison.  place: the set, perhaps with more words after it (the
    gallery rule).  difference: value, low, high.
    """
    value, low, high = map(float, difference)
    row = {"claim": claim, "test": test, "set": place, "difference": value}
    row |= {"low": low, "high": high, "status": status, "why": why}
    _check(row)
    return row


def with_status(row: Mapping[str, Any]) -> dict[str, Any]:
    """A stored row; those stored before there was a status were all compared."""
    return {"status": "compared", "why": "", **row}


def holds(row: Mapping[str, Any]) -> bool | None:
    """Whether a row is as the paper says; None: its interval lies on both sides."""
    claim, test = _terms(row)
    low, high, bound = row["low"], row["high"], 0.0
    if test.expected == "below":  # above, seen from the other side
        low, high = -high, -low
    if test.expected == "near":
        bound = -claim.margin
    if low > bound:
        return True
    return False if high < bound else None


def verdicts(
    rows: Sequence[Mapping[str, Any]], reasons: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """The ledger, a row per claim, all text: id, claim, section, paper, ours, verdict, why.

    rows: evidence, perhaps none; ValueError for one that cannot be judged.  reasons:
    claim's id -> why it, or a part of it, could not be tested.  Only column `paper` has
    published figures.
    """
    rows = [with_status(row) for row in rows]
    for row in rows:
        _check(row)
    ledger = []
    for claim in CLAIMS:
        own = [row for row in rows if row["claim"] == claim.id]
        reason = reasons.get(claim.id, "") if reasons else ""
        sentence = ": ".join(filter(None, [SENTENCES[claim.id], claim.quotation]))
        told = (_ours(claim, own, reason=reason), _verdict(claim, own))
        why = _why(claim, own, reason=reason)
        ledger.append((claim.id, sentence, claim.section, claim.paper, *told, why))
    columns = ["id", "claim", "section", "paper", "ours", "verdict", "why"]
    return pd.DataFrame(ledger, columns=columns)


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


def _why(claim: Claim, rows: Sequence[Mapping[str, Any]], *, reason: str) -> str:
    """What decided the verdict, counted: at most twelve words."""
    verdict = _verdict(claim, rows)
    if not rows:  # a longer reason stands in `ours`
        short = 0 < len(reason.split()) <= MOST_WORDS
        return reason if short else "no comparison of the claim was measured"
    if verdict == "not tested":
        return "the tower cannot tell, it knows too little before fine-tuning"
    if verdict == "not comparable":
        rivals = {row["test"] for row in rows if row["status"] != "not tested"}
        under = {row["test"] for row in rows if row["status"] == "not comparable"}
        whose = "its" if len(under) == 1 else "their"
        return f"{_of(len(under), len(rivals), 'rival')} ended under {whose} own frozen backbone"
    answers = [holds(row) for row in rows if row["status"] == "compared"]
    if verdict == "undecided" and all(answers):
        missed = len(claim.tests) - len({r["test"] for r in rows if r["status"] == "compared"})
        was = "was" if missed == 1 else "were"
        return f"{_of(missed, len(claim.tests), 'comparison')} {was} not measured"
    count = answers.count({"upheld": True, "not upheld": False}.get(verdict))
    word = "lie" if verdict != "undecided" else "contain"
    verb = f"{word}s" if count == 1 else word
    return f"{_of(count, len(answers), 'interval')} {verb} {_side(claim, verdict)}"


def _of(count: int, total: int, noun: str) -> str:
    """How many of how many, in words that read: the only one, all 3, 2 of 3."""
    if total == 1:
        return f"the only {noun}"
    return f"all {total} {noun}s" if count == total else f"{count} of {total} {noun}s"


def _side(claim: Claim, verdict: str) -> str:
    """Where intervals lie that led to a verdict: above zero, or above a ratio of one."""
    bound = "a ratio of one" if claim.tests[0].unit == "times" else "zero"
    if claim.margin:
        bound = f"{-100 * claim.margin:g} points"
    if verdict == "undecided":
        return bound
    expected = {"above" if test.expected == "near" else test.expected for test in claim.tests}
    if len(expected) > 1:  # a claim that wants both
        side = "claimed" if verdict == "upheld" else "other"
        return f"on the {side} side of {bound}"
    return f"{'above' if (expected == {'above'}) == (verdict == 'upheld') else 'below'} {bound}"


def _ours(claim: Claim, rows: Sequence[Mapping[str, Any]], *, reason: str) -> str:
    """What was measured, test by test, and why a part was not."""
    if not rows:
        return reason or "no run has measured it"
    told, unseen = [], []
    for test in claim.tests:
        own = [shown(row) for row in rows if row["test"] == test.name]
        if own:
            told.append(f"{test.name}: {', '.join(own)}")
        else:
            unseen.append(test.name)
    if unseen:
        told.append(f"not measured: {', '.join(unseen)}")
    return "; ".join([*told, reason] if reason else told)


def shown(row: Mapping[str, Any]) -> str:
    """A row's set and numbers: points, or how many times as many seconds."""
    _, test = _terms(row)
    numbers = [row["difference"], row["low"], row["high"]]
    if test.unit == "times":
        value, low, high = (f"{math.exp(number):.3g}" for number in numbers)
        value += " times"
    else:
        value, low, high = (f"{100 * number:+.1f}" for number in numbers)
    aside = "" if row["status"] == "compared" else f" [{row['status']}: {row['why']}]"
    return f"{row['set']} {value} ({low} to {high}){aside}"


def _terms(row: Mapping[str, Any]) -> tuple[Claim, Comparison]:
    """The claim and the test of a row."""
    known = []
    for claim in CLAIMS:
        for test in claim.tests:
            if (claim.id, test.name) == (row["claim"], row["test"]):
                return claim, test
            known.append(f"{claim.id} {test.name}")
    raise ValueError(
        f"evidence: no claim {row['claim']!r} has a test {row['test']!r}; "
        f"there are {'; '.join(known)}"
    )


def _check(row: Mapping[str, Any]) -> None:
    """ValueError for a row that cannot be judged."""
    claim, test = _terms(row)
    mirrors = [ours for ours, theirs in PAPER_SET.items() if theirs in claim.sets]
    numbers = [row["difference"], row["low"], row["high"]]
    problem = ""
    if claim.sets and row["set"].split(" ")[0] not in [*claim.sets, *mirrors]:
        sets = ", ".join([*claim.sets, *mirrors])
        problem = f"set must be {sets}, perhaps with more words after it"
    # A number that was not finite is stored as null.
    elif None in numbers or not all(map(math.isfinite, numbers)):
        problem = f"difference, low and high must be finite, got {numbers}"
    elif row["low"] > row["high"]:
        problem = f"low must not be above high, got {numbers[1:]}"
    elif test.unit == "points" and max(map(abs, numbers)) > 1:
        problem = f"points are stored as fractions from -1 to 1, got {numbers}"
    elif row["status"] not in STATUSES:
        problem = f"status must be one of {', '.join(STATUSES)}, got {row['status']!r}"
    if problem:
        raise ValueError(f"evidence: {claim.id} '{test.name}' on {row['set']}: {problem}")
