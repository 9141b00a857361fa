"""The paper's own numbers and claims (arXiv 2312.10282) as data."""

from __future__ import annotations

from dataclasses import dataclass

PAPER_SET = {"grozi-like": "grozi-120", "capg-like": "capg-gp", "rp2k-like": "rp2k"}
"""Rendered set -> the set of the paper that it mirrors, whose number is no target."""
_OURS = "RetailKLIP"
_WHOLE = "ResNeXt, full fine-tuning"
_LINEAR = "semi-supervised ResNeXt + linear layer"
_LCA = "ResNeXt + LCA + MaxEnt"
_HARD = "ResNet on the full training split, hardest categories"
_RANGE = "up to 95, under 90 for hard categories (Peng et al. 2020)"
PUBLISHED: dict[str, dict[str, float | str]] = {
    _OURS: {"capg-gp": 88.6, "grozi-120": 82.8, "rp2k": 87.7},  # RetailKLIP, zero-shot
    _WHOLE: {"capg-gp": 84.1, "grozi-120": 60.4},  # ResNext-WSL, full finetuning
    _LINEAR: {"capg-gp": 87.6, "grozi-120": 76.19},  # Semi-supervised ResNext-WSL + linear layer
    _LCA: {"capg-gp": 92.2, "grozi-120": 72.3},  # ResNext-WSL + LCA + MaxEnt, full finetuning
    _HARD: {"rp2k": _RANGE},  # full finetuning per category
}
"""Row of ours, as the claims name it -> set -> percent as printed, words for a range; beside it
the paper's own name of the method.  capg-gp: Table 1, grozi-120: Table 2, rp2k: §5.1."""


def of_row(set_name: str, row: str = _OURS) -> float | None:
    """Published percent for a set or the one it mirrors; None where no number is printed."""
    found = PUBLISHED.get(row, {}).get(PAPER_SET.get(set_name, set_name))
    return found if isinstance(found, float) else None


@dataclass(frozen=True)
class Comparison:
    """One test of a claim: row `a` against row `b` on the claim's sets."""

    a: str
    b: str
    expected: str = "above"
    """Where a stands: above, below, or near b (not more than the claim's margin below it)."""
    unit: str = "points"
    """points: a's fraction of right queries minus b's.  times: ln of a's seconds over b's."""

    @property
    def name(self) -> str:
        return f"{self.a} {'over' if self.unit == 'times' else 'minus'} {self.b}"


@dataclass(frozen=True)
class Claim:
    """What the paper says, in our words, and what must be measured for it to hold."""

    id: str
    sentence: str
    section: str
    tests: tuple[Comparison, ...]
    sets: tuple[str, ...] = ()
    """Sets of the paper that it is about (see PAPER_SET); empty: any set."""
    margin: float = 0.0
    """Fraction that still counts as near: an assumption of ours, the paper gives none."""
    quotation: str = ""
    """The paper's own few words with their place; empty where they are not at hand."""

    @property
    def paper(self) -> str:
        """The paper's figures for these rows and sets; empty where it prints none."""
        names = [name for test in self.tests for name in (test.a, test.b)]
        rows = [name for name in dict.fromkeys(names) if name in PUBLISHED]
        told = []
        for place in self.sets:
            own = []
            for row in rows:
                said = PUBLISHED[row].get(place)
                if isinstance(said, str):
                    own.append(f"{row}: {said}")
                elif said is not None:
                    own.append(f"{row} {said:g}")
            told.append(f"{place}: {'; '.join(own)}")
        return " / ".join(told)


_CLOSE = '"accuracy close to or exceeding full finetuning" (abstract)'
CLAIMS = (
    Claim(
        "C1",
        "Zero-shot recognition is better with the fine-tuned encoder than with the frozen one",
        "implied throughout",
        (Comparison(_OURS, "frozen encoder"),),
    ),
    Claim(
        "C2",
        "CAPG-GP: above full fine-tuning of ResNeXt and above the linear layer, below LCA + MaxEnt",
        "§5, Table 1",
        (Comparison(_OURS, _WHOLE), Comparison(_OURS, _LINEAR), Comparison(_OURS, _LCA, "below")),
        ("capg-gp",),
        quotation=_CLOSE,
    ),
    Claim(
        "C3",
        "GroZi-120: above full fine-tuning of ResNeXt, above the linear layer and above LCA + MaxEnt",
        "§5, Table 2",
        (Comparison(_OURS, _WHOLE), Comparison(_OURS, _LINEAR), Comparison(_OURS, _LCA)),
        ("grozi-120",),
        quotation=_CLOSE,
    ),
    Claim(
        "C4",
        "RP2K: near what full fine-tuning on the whole training split reaches in its hardest categories",
        "§5.1",
        (Comparison(_OURS, _HARD, "near"),),
        ("rp2k",),
        margin=0.05,
        quotation=_CLOSE,
    ),
    Claim(
        "C5",
        "At a fixed number of images it is best to take all products, and fewer images of each",
        "§4.1.3, after Zhang & Deng 2020",
        (
            Comparison("all products", "half of them"),
            Comparison("all products", "a quarter of them"),
        ),
    ),
    Claim(
        "C6",
        "A depth between the lowest and the highest is best",
        "§4.1.3",
        (
            Comparison("best inner depth", "lowest depth"),
            Comparison("best inner depth", "highest depth"),
        ),
    ),
    Claim(
        "C7",
        "Block-wise learning rates are better than one common rate",
        "§4.1.2",
        (Comparison("block-wise", "common rate"),),
    ),
    Claim(
        "C8",
        "On the long tail ArcFace is better than softmax, even unbalanced ArcFace than balanced softmax",
        "§4.1",
        (Comparison("ArcFace", "softmax"), Comparison("unbalanced ArcFace", "balanced softmax")),
    ),
    Claim(
        "C9",
        "A new product needs no training: from its image to its first correct recognition takes less time "
        "than refitting the linear layer, and less than full fine-tuning",
        "abstract",
        (
            Comparison("refitting the linear layer", _OURS, unit="times"),
            Comparison("full fine-tuning", _OURS, unit="times"),
        ),
        quotation='"needs no incremental training for new products" (abstract)',
    ),
)
"""The paper's claims; `klip.stats.claims` judges them by what was measured."""
