"""Verdicts against the rule written out, and what a wrong row of evidence is told."""

import math
import re

import numpy as np
import pytest

from klip.stats import claims
from klip.stats.metrics import Difference
from klip.stats.published import BRIEFLY, CLAIMS, PUBLISHED

BY_ID = {claim.id: claim for claim in CLAIMS}
SET = {"C2": "capg-like", "C3": "grozi-120 web1", "C4": "rp2k"}


def rows(number, *intervals, place=None, status="compared"):
    """Evidence of the claim's tests in order, as many as there are intervals."""
    why = "" if status == "compared" else "a reason"
    return [
        claims.evidence(
            number,
            test.name,
            place=place or SET.get(number, "validation"),
            difference=(sum(ends) / 2, *ends),
            status=status,
            why=why,
        )
        for test, ends in zip(BY_ID[number].tests, intervals, strict=False)
    ]


def judged(evidence, **reasons):
    return claims.verdicts(evidence, reasons).set_index("id")


def verdict(number, *intervals, **where):
    return judged(rows(number, *intervals, **where)).loc[number, "verdict"]


def test_one_row_per_claim_in_order():
    ledger = claims.verdicts([])
    assert list(ledger["id"]) == [claim.id for claim in CLAIMS]
    assert list(ledger) == ["id", "claim", "section", "paper", "ours", "verdict", "why"]
    assert set(ledger["verdict"]) == {"not tested"}


@pytest.mark.parametrize(
    "number, intervals, expected",
    [
        ("C1", [(0.01, 0.2)], "upheld"),
        ("C1", [(-0.2, -0.01)], "not upheld"),
        ("C1", [(-0.01, 0.2)], "undecided"),
        ("C1", [(0.0, 0.2)], "undecided"),  # touching 0 is not above it
        (
            "C2",
            [(0.1, 0.2), (0.1, 0.2), (-0.2, -0.1)],
            "upheld",
        ),  # the last one is claimed to be below
        ("C2", [(0.1, 0.2), (0.1, 0.2), (0.1, 0.2)], "not upheld"),
        ("C2", [(0.1, 0.2), (-0.1, 0.2), (-0.2, -0.1)], "undecided"),
        (
            "C2",
            [(-0.2, -0.1), (-0.1, 0.2), (-0.2, -0.1)],
            "not upheld",
        ),  # one failure outweighs an open test
        ("C4", [(-0.04, 0.01)], "upheld"),  # near: up to 5 points below
        ("C4", [(0.2, 0.3)], "upheld"),  # better than near
        ("C4", [(-0.05, 0.0)], "undecided"),
        ("C4", [(-0.2, -0.06)], "not upheld"),
        ("C9", [(3.0, 5.0), (6.0, 9.0)], "upheld"),  # logarithms: far beyond 1
        ("C9", [(-0.5, 0.5), (6.0, 9.0)], "undecided"),
    ],
)
def test_each_verdict(number, intervals, expected):
    assert verdict(number, *intervals) == expected


@pytest.mark.parametrize(
    "intervals, expected",
    [
        ([(0.02, 0.06), (0.01, 0.05)], "upheld"),  # an inner depth above both ends
        ([(-0.06, -0.02), (0.01, 0.05)], "not upheld"),  # the lowest depth is best, clearly
        ([(-0.03, 0.01), (0.01, 0.05)], "undecided"),  # the lowest depth is best, not clearly
        ([(0.02, 0.06), (-0.05, -0.01)], "not upheld"),  # the highest depth is best
        ([(0.0, 0.0), (0.01, 0.05)], "undecided"),  # the lowest depth set against itself
    ],
)
def test_ends_of_the_sweep(intervals, expected):
    assert verdict("C6", *intervals) == expected


def test_a_claim_is_not_upheld_by_half_its_tests():
    ledger = judged(rows("C3", (0.1, 0.2), (0.1, 0.2)), C3="no LCA layer here")
    assert ledger.loc["C3", "verdict"] == "undecided"
    left = "; not measured: RetailKLIP minus ResNeXt + LCA + MaxEnt; no LCA layer here"
    assert ledger.loc["C3", "ours"].endswith(left)
    assert verdict("C3", (-0.2, -0.1), (0.1, 0.2)) == "not upheld"


def test_every_set_counts():
    good, open_, bad = (
        rows("C1", ends, place=place)
        for ends, place in [
            ((0.1, 0.2), "capg-like"),
            ((-0.1, 0.2), "rp2k-like"),
            ((-0.2, -0.1), "grocery-store iconic"),
        ]
    )
    assert judged(good).loc["C1", "verdict"] == "upheld"
    assert judged(good + open_).loc["C1", "verdict"] == "undecided"
    assert judged(good + open_ + bad).loc["C1", "verdict"] == "not upheld"


GOOD, OPEN, BAD = (0.1, 0.2), (-0.1, 0.1), (-0.2, -0.1)


@pytest.mark.parametrize(
    "compared, aside, status, expected",
    [
        (
            [GOOD],
            [GOOD],
            "not comparable",
            "not comparable",
        ),  # a rival that is none cannot uphold a claim
        ([GOOD], [BAD], "not comparable", "not comparable"),  # nor refute it
        ([OPEN], [GOOD], "not comparable", "not comparable"),  # nor is the claim merely open
        ([BAD], [GOOD], "not comparable", "not upheld"),  # what was compared refutes it
        ([], [GOOD], "not comparable", "not comparable"),
        ([GOOD], [BAD], "not tested", "upheld"),  # set aside: as if it were not there
        ([OPEN], [GOOD], "not tested", "undecided"),
        ([BAD], [GOOD], "not tested", "not upheld"),
        ([], [GOOD], "not tested", "not tested"),
    ],
)
def test_rows_set_aside(compared, aside, status, expected):
    ledger = judged(
        rows("C7", *compared, place="one") + rows("C7", *aside, place="two", status=status)
    )
    assert ledger.loc["C7", "verdict"] == expected
    assert ledger.loc["C7", "ours"].endswith(f"[{status}: a reason]")
    assert (ledger["verdict"] == "not tested").sum() >= len(CLAIMS) - 1


def test_a_test_whose_rows_are_all_not_tested_is_not_measured():
    mixed = rows("C8", GOOD) + rows("C8", GOOD, GOOD, status="not tested", place="other")
    assert judged(mixed).loc["C8", "verdict"] == "undecided"  # the second test says nothing
    assert judged(mixed + rows("C8", GOOD, GOOD, place="third")).loc["C8", "verdict"] == "upheld"


def test_evidence_of_old_files_is_compared():
    (old,) = rows("C1", GOOD)
    old |= {"expected": "above", "margin": 0.0, "unit": "points"}  # files held the terms, too
    del old["status"], old["why"]
    mixed = [old, *rows("C7", GOOD, status="not comparable")]
    assert judged([old]).loc["C1", "verdict"] == "upheld"
    assert list(judged(mixed).loc[["C1", "C7"], "verdict"]) == ["upheld", "not comparable"]


def test_verdicts_agree_with_the_rule_written_out():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        evidence, wanted = [], {}
        for claim in CLAIMS:
            measured = claim.tests[: rng.integers(0, len(claim.tests) + 1)]
            right, wrong = 0, 0
            for test in measured:
                shift = {"above": 0.2, "below": -0.2, "near": 0.0}[test.expected]
                low, high = np.sort(rng.normal(shift, 0.2, 2)).clip(-1, 1)
                where = {"place": SET.get(claim.id, "x"), "difference": (low, low, high)}
                evidence.append(claims.evidence(claim.id, test.name, **where))
                if test.expected == "above":
                    right, wrong = right + (low > 0), wrong + (high < 0)
                elif test.expected == "below":
                    right, wrong = right + (high < 0), wrong + (low > 0)
                else:
                    right, wrong = right + (low > -0.05), wrong + (high < -0.05)
            if not measured:
                wanted[claim.id] = "not tested"
            elif wrong:
                wanted[claim.id] = "not upheld"
            else:
                wanted[claim.id] = "upheld" if right == len(claim.tests) else "undecided"
        rng.shuffle(evidence)
        assert judged(evidence)["verdict"].to_dict() == wanted
        seen |= set(wanted.values())
    assert seen == {"upheld", "not upheld", "undecided", "not tested"}


def test_what_could_not_be_tested_says_why():
    ledger = judged([], C2="CAPG-GP is not at hand")
    assert tuple(ledger.loc["C2", ["ours", "verdict"]]) == ("CAPG-GP is not at hand", "not tested")
    assert ledger.loc["C3", "ours"] == "no run has measured it"


def test_ours_shows_points_and_times_with_their_sets():
    evidence = [
        claims.evidence(
            "C1",
            "RetailKLIP minus frozen encoder",
            place="capg-like",
            difference=Difference(0.0954, 0.02, 0.17),
        ),
        claims.evidence(
            "C1",
            "RetailKLIP minus frozen encoder",
            place="rp2k-like",
            difference=Difference(-0.01, -0.02, 0.0),
        ),
        claims.evidence(
            "C9",
            "refitting the linear layer over RetailKLIP",
            place="capg-like",
            difference=tuple(map(math.log, (120, 80, 160))),
        ),
    ]
    ours = judged(evidence)["ours"]
    assert ours["C1"] == (
        "RetailKLIP minus frozen encoder: capg-like +9.5 (+2.0 to +17.0), "
        "rp2k-like -1.0 (-2.0 to +0.0)"
    )
    assert ours["C9"] == (
        "refitting the linear layer over RetailKLIP: capg-like 120 times (80 to 160); "
        "not measured: full fine-tuning over RetailKLIP"
    )


def test_published_figures_stand_in_the_column_paper_alone():
    ledger = judged(rows("C2", (0.1, 0.2), (0.1, 0.2), (-0.2, -0.1)))
    values = [value for row in PUBLISHED.values() for value in row.values()]
    figures = {f"{value:g}" for value in values if isinstance(value, float)} | {
        "95"
    }  # the one that is a range
    for column in set(ledger) - {"paper"}:
        assert not figures & set(re.findall(r"\d+(?:\.\d+)?", " ".join(ledger[column]))), column
    assert figures <= set(re.findall(r"\d+(?:\.\d+)?", " ".join(ledger["paper"])))


ABOVE, OPEN, BELOW = (0.1, 0.2), (-0.1, 0.2), (-0.2, -0.1)


@pytest.mark.parametrize(
    "number, intervals, expected",
    [
        ("C1", [ABOVE], "the only interval lies above zero"),
        ("C1", [BELOW], "the only interval lies below zero"),
        ("C3", [ABOVE, ABOVE, ABOVE], "all 3 intervals lie above zero"),
        ("C3", [ABOVE, OPEN, BELOW], "1 of 3 intervals lies below zero"),
        ("C3", [ABOVE, OPEN, OPEN], "2 of 3 intervals contain zero"),
        ("C3", [ABOVE, ABOVE], "1 of 3 comparisons was not measured"),
        ("C3", [ABOVE, OPEN], "1 of 2 intervals contains zero"),
        ("C2", [ABOVE, ABOVE, BELOW], "all 3 intervals lie on the claimed side of zero"),
        ("C2", [BELOW, OPEN, ABOVE], "2 of 3 intervals lie on the other side of zero"),
        ("C4", [(-0.04, 0.2)], "the only interval lies above -5 points"),
        ("C4", [BELOW], "the only interval lies below -5 points"),
        ("C9", [ABOVE, BELOW], "1 of 2 intervals lies below a ratio of one"),
        ("C5", [], "no comparison of the claim was measured"),
    ],
)
def test_why_counts_what_decided(number, intervals, expected):
    assert judged(rows(number, *intervals)).loc[number, "why"] == expected


def test_why_names_rivals_that_are_none_and_towers_that_cannot_tell():
    under = rows("C3", ABOVE, ABOVE, status="not comparable")
    whys = [judged([*under[:count], *rows("C3", *[ABOVE] * 3)[count:]]) for count in (1, 2)]
    assert [ledger.loc["C3", "why"] for ledger in whys] == [
        "1 of 3 rivals ended under its own frozen backbone",
        "2 of 3 rivals ended under their own frozen backbone",
    ]
    blind = judged(rows("C7", ABOVE, status="not tested")).loc["C7", "why"]
    assert blind == "the tower cannot tell, it knows too little before fine-tuning"


def test_why_is_a_short_reason_or_leaves_a_long_one_to_ours():
    told = judged([], C2="capg-gp: not at hand", C4="word " * 13)
    assert told.loc["C2", "why"] == "capg-gp: not at hand"
    assert told.loc["C4", "why"] == "no comparison of the claim was measured"
    assert told.loc["C4", "ours"] == "word " * 13


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.id)
@pytest.mark.parametrize("status", claims.STATUSES)
def test_no_why_has_more_than_twelve_words(claim, status):
    for interval in (ABOVE, OPEN, BELOW):
        many = rows(claim.id, *[interval] * 3, status=status) * 4
        ledger = judged([*many, *rows(claim.id, *[ABOVE] * 3)])
        assert all(0 < len(why.split()) <= claims.MOST_WORDS for why in ledger["why"])
    assert 0 < len(BRIEFLY[claim.id].split()) <= 8


def test_evidence_is_one_row_and_its_terms_stand_in_the_claims():
    row = claims.evidence("C4", BY_ID["C4"].tests[0].name, place="rp2k", difference=(0, -0.04, 0.1))
    named = {"claim", "test", "set", "difference", "low", "high", "status", "why"}
    assert set(row) == named and (row["status"], row["why"]) == ("compared", "")
    assert claims.holds(row) is True  # near: 4 points below are as good as equal
    assert claims.holds(row | {"low": -0.05}) is None
    assert claims.holds(row | {"low": -0.2, "high": -0.06}) is False


@pytest.mark.parametrize(
    "change, message",
    [
        ({"claim": "C10"}, "no claim 'C10' has a test .*; there are C1 RetailKLIP minus frozen"),
        ({"test": "RetailKLIP minus chance"}, "no claim 'C2' has a test 'RetailKLIP minus chance'"),
        ({"test": None}, "no claim 'C2' has a test None"),
        (
            {"set": "grocery-store"},
            "on grocery-store: set must be capg-gp, capg-like, perhaps with more words",
        ),
        ({"set": ""}, "set must be capg-gp"),
        ({"low": 0.3}, "low must not be above high, got .0.3, 0.2"),
        ({"difference": float("nan")}, "must be finite, got .nan"),
        ({"high": None}, "must be finite, got .*None"),
        ({"high": float("inf")}, "must be finite, got .*inf"),
        ({"difference": 15.0, "low": 10.0, "high": 20.0}, "fractions from -1 to 1, got .15"),
        (
            {"status": "skipped"},
            "status must be one of compared, not comparable, not tested, got 'skipped'",
        ),
    ],
)
def test_wrong_rows(change, message):
    (row,) = rows("C2", (0.1, 0.2))
    assert len(claims.verdicts([row])) == 9
    with pytest.raises(ValueError, match=message):
        claims.verdicts([row | change])
    with pytest.raises(ValueError, match="low must not be above high"):
        rows("C2", (0.2, 0.1))
