"""The paper's numbers, compared with its tables as they were read."""

import pytest

from klip.published import FLOORS, PUBLISHED, published


@pytest.mark.parametrize("set_name, percent", [("capg-gp", 88.6), ("grozi-120", 82.8), ("rp2k", 87.7)])
def test_the_papers_own_row(set_name, percent):
    assert published(set_name) == published(set_name, "RetailKLIP, zero-shot") == percent


def test_baselines():
    assert published("grozi-120", "ResNext-WSL + LCA + MaxEnt, full finetuning") == 72.3
    assert published("capg-gp", "Semi-supervised ResNext-WSL + linear layer") == 87.6
    assert sum(row.percent is not None for row in PUBLISHED) == 10 and len(PUBLISHED) == 15
    assert "hard categories" in next(row.note for row in PUBLISHED if row.percent == 95.0)


def test_what_the_paper_does_not_have():
    assert published("rp2k", "ResNext-WSL, full finetuning") is None
    assert published("grocery-store") is None  # a set of ours
    with pytest.raises(ValueError, match="no method 'resnet'; accepted are"):
        published("rp2k", "resnet")


def test_floors():
    grozi, grocery = FLOORS["grozi-120"], FLOORS["grocery-store"]
    assert (grozi.percent, grocery.percent) == (56.9, 25.5)
    assert "120 products" in grozi.protocol and "RootSIFT" in grozi.source
    assert (round(100 / 120, 1), round(100 / 81, 1)) == (grozi.chance, grocery.chance)
