"""The paper's numbers, compared with its tables as they were read."""

import pytest

from klip.stats.published import CLAIMS, PAPER_SET, PUBLISHED, SENTENCES, TESTS, of_row


@pytest.mark.parametrize(
    "set_name, percent", [("capg-gp", 88.6), ("grozi-120", 82.8), ("rp2k", 87.7)]
)
def test_the_papers_own_row(set_name, percent):
    assert of_row(set_name) == of_row(set_name, "RetailKLIP") == percent


def test_baselines():
    assert of_row("grozi-120", "ResNeXt + LCA + MaxEnt") == 72.3
    assert of_row("capg-gp", "semi-supervised ResNeXt + linear layer") == 87.6
    assert sum(len(row) for row in PUBLISHED.values()) == 10
    assert {name for row in PUBLISHED.values() for name in row} == set(PAPER_SET.values())


def test_what_the_paper_does_not_have():
    assert of_row("rp2k", "ResNeXt, full fine-tuning") is None
    assert of_row("grocery-store") is None  # a set of ours


def test_every_claim_can_be_tested():
    assert [claim.id for claim in CLAIMS] == [f"C{number}" for number in range(1, 10)]
    assert list(SENTENCES) == sorted({number for number, *_ in TESTS}) == [one.id for one in CLAIMS]
    for claim in CLAIMS:
        assert SENTENCES[claim.id] and claim.section and claim.tests
        assert set(claim.sets) <= set(PAPER_SET.values())
        assert len({test.name for test in claim.tests}) == len(claim.tests)
        assert {test.expected for test in claim.tests} <= {"above", "below", "near"}
        assert {test.unit for test in claim.tests} <= {"points", "times"}
        assert (claim.margin > 0) == any(test.expected == "near" for test in claim.tests)


def test_a_quotation_is_short_and_has_its_place():
    for quotation in filter(None, (claim.quotation for claim in CLAIMS)):
        words, place = quotation.removeprefix('"').split('" ')
        assert len(words.split()) <= 12 and place in (
            "(abstract)",
            "(§4.1)",
            "(§4.1.2)",
            "(§4.1.3)",
        )


def test_the_papers_figures_agree_with_its_claims():
    """What the paper says of its sets is what its own tables say: each comparison goes the claimed way."""
    checked = 0
    for claim in CLAIMS[1:3]:
        for test in claim.tests:
            a, b = (of_row(claim.sets[0], name) for name in (test.a, test.b))
            assert (a > b) if test.expected == "above" else (a < b), test.name
            assert f"{test.b} {b:g}" in claim.paper and f"RetailKLIP {a:g}" in claim.paper
            checked += 1
    assert checked == 6


def test_figures_of_a_claim():
    figures = {claim.id: claim.paper for claim in CLAIMS}
    assert figures["C2"].startswith("capg-gp: RetailKLIP 88.6; ") and "76.19" in figures["C3"]
    assert figures["C4"].startswith("rp2k: RetailKLIP 87.7; ")
    assert ", hardest categories: up to 95, under 90 for hard categories" in figures["C4"]
    assert not any(
        figures[number] for number in ("C1", "C5", "C6", "C7", "C8", "C9")
    )  # the paper prints none


def test_a_row_of_ours_has_the_figure_of_its_method_and_set():
    assert of_row("grozi-like", "RetailKLIP") == of_row("grozi-120", "RetailKLIP") == 82.8
    assert of_row("capg-like", "ResNeXt + LCA + MaxEnt") == 92.2
    assert of_row("capg-like", "frozen encoder") is None  # the row that the paper lacks
    assert of_row("grocery-store", "RetailKLIP") is None
    assert (
        of_row("rp2k", "ResNet on the full training split, hardest categories") is None
    )  # a range
