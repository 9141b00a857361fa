"""The paper's own numbers (arXiv 2312.10282) and the classical floor, as data: percent, as printed there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One published accuracy; `percent` is None where the paper prints no number."""

    set_name: str
    method: str
    percent: float | None
    source: str
    note: str = ""


@dataclass(frozen=True)
class Floor:
    """What a method without any learning reaches, measured by this project: percent of queries."""

    percent: float
    histogram: float
    chance: float
    protocol: str
    source: str


_TABLES = {"capg-gp": "Table 1", "grozi-120": "Table 2", "rp2k": "§5.1"}
_METHODS: dict[str, tuple[float | None, float | None, float | None]] = {
    "ResNext-WSL, full finetuning": (84.1, 60.4, None),
    "ResNext-WSL + LCA + MaxEnt, full finetuning": (92.2, 72.3, None),
    "Semi-supervised ResNext-WSL + linear layer": (87.6, 76.19, None),
    "RetailKLIP, zero-shot": (88.6, 82.8, 87.7),
    "ResNet and others, full finetuning per category": (None, None, 95.0),
}
_NOTES = {("rp2k", "ResNet and others, full finetuning per category"):
          "up to 95, under 90 for hard categories (Peng et al. 2020)"}

PUBLISHED = tuple(
    Row(name, method, percent, f"arXiv 2312.10282 {_TABLES[name]}", _NOTES.get((name, method), ""))
    for method, values in _METHODS.items() for name, percent in zip(_TABLES, values, strict=True))
"""Every cell of the paper's tables: sets `capg-gp`, `grozi-120`, `rp2k` by five methods."""

_ROOTSIFT = ("RootSIFT, 400 keypoints, each descriptor votes for the product of its nearest neighbour, "
             "weighted by the margin to the second product; one packshot per product, no learning")
FLOORS = {
    "grozi-120": Floor(56.9, 4.5, 0.8, "all 120 products, 10 crops each, gallery web1", _ROOTSIFT),
    "grocery-store": Floor(25.5, 5.4, 1.2, "81 products, 1,000 test photographs, gallery iconic", _ROOTSIFT),
}
"""Classical floor of the real sets (`histogram`: 2x2 HSV).  Fewer products or other crops: not comparable."""


def published(set_name: str, method: str = "RetailKLIP, zero-shot") -> float | None:
    """Percent that the paper prints, None where it prints none (as for every set that it does not have)."""
    if method not in _METHODS:
        raise ValueError(f"published: the paper has no method {method!r}; accepted are {', '.join(_METHODS)}")
    return next((row.percent for row in PUBLISHED if (row.set_name, row.method) == (set_name, method)), None)
