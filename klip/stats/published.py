"""The paper's own numbers and claims (arXiv 2312.10282) as tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

PAPER_SET = {"grozi-like": "grozi-120", "capg-like": "capg-gp", "rp2k-like": "rp2k"}
"""Rendered set -> the set of the paper that it mirrors, whose number is no target."""
OURS = "RetailKLIP"
RESNEXT = "ResNeXt, full fine-tuning"
LINEAR = "semi-supervised ResNeXt + linear layer"
LCA = "ResNeXt + LCA + MaxEnt"
HARDEST = "ResNet on the full training split, hardest categories"
PUBLISHED: dict[str, dict[str, float | str]] = {
    OURS: {"capg-gp": 88.6, "grozi-120": 82.8, "rp2k": 87.7},  # RetailKLIP, zero-shot
    RESNEXT: {"capg-gp": 84.1, "grozi-120": 60.4},  # ResNext-WSL, full finetuning
    LINEAR: {"capg-gp": 87.6, "grozi-120": 76.19},  # Semi-supervised ResNext-WSL + linear layer
    LCA: {"capg-gp": 92.2, "grozi-120": 72.3},  # ResNext-WSL + LCA + MaxEnt, full finetuning
    HARDEST: {"rp2k": "up to 95, under 90 for hard categories (Peng et al. 2020)"},
}
"""Row of ours, as the claims name it -> set -> percent as printed, words for a range;
beside it the paper's own name of the method.  capg-gp: Table 1, grozi-120: Table 2,
rp2k: §5.1."""
SENTENCES = {
    "C1": "Zero-shot recognition is better with the fine-tuned encoder than with the frozen one",
    "C2": "CAPG-GP: above full fine-tuning of ResNeXt and above the linear layer, "
    "below LCA + MaxEnt",
    "C3": "GroZi-120: above full fine-tuning of ResNeXt, above the linear layer "
    "and above LCA + MaxEnt",
    "C4": "RP2K: near what full fine-tuning on the whole training split reaches "
    "in its hardest categories",
    "C5": "At a fixed number of images it is best to take all products, and fewer images of each",
    "C6": "A depth between the lowest and the highest is best",
    "C7": "Block-wise learning rates are better than one common rate",
    "C8": "On the long tail ArcFace is better than softmax, even unbalanced ArcFace "
    "than balanced softmax",
    "C9": "A new product needs no training: from its image to its first correct recognition "
    "takes less time than refitting the linear layer, and less than full fine-tuning",
}
"""Claim -> what the paper says, in our words."""
BRIEFLY = {
    "C1": "Fine-tuning beats the frozen encoder on unseen products",
    "C2": "CAPG-GP: second only to LCA + MaxEnt",
    "C3": "GroZi-120: above all three of the paper's rivals",
    "C4": "RP2K: near full fine-tuning on the training split",
    "C5": "Take all products, with fewer images of each",
    "C6": "A depth between the extremes is best",
    "C7": "Block-wise learning rates beat one common rate",
    "C8": "ArcFace beats softmax on the long tail",
    "C9": "A new product needs no training",
}
"""Claim -> the same in at most eight words, for a heading."""
TESTS = (
    ("C1", OURS, "above", "frozen encoder"),
    ("C2", OURS, "above", RESNEXT),
    ("C2", OURS, "above", LINEAR),
    ("C2", OURS, "below", LCA),
    ("C3", OURS, "above", RESNEXT),
    ("C3", OURS, "above", LINEAR),
    ("C3", OURS, "above", LCA),
    ("C4", OURS, "near", HARDEST),
    ("C5", "all products", "above", "half of them"),
    ("C5", "all products", "above", "a quarter of them"),
    ("C6", "best inner depth", "above", "lowest depth"),
    ("C6", "best inner depth", "above", "highest depth"),
    ("C7", "block-wise", "above", "common rate"),
    ("C8", "ArcFace", "above", "softmax"),
    ("C8", "unbalanced ArcFace", "above", "balanced softmax"),
    ("C9", "refitting the linear layer", "above", OURS, "times"),
    ("C9", "full fine-tuning", "above", OURS, "times"),
)
"""Claim, and what must be measured for it to hold: the fields of `Comparison`."""


def of_row(set_name: str, row: str = OURS) -> float | None:
    """Published percent for a set or the one it mirrors; None where no number is printed."""
    found = PUBLISHED.get(row, {}).get(PAPER_SET.get(set_name, set_name))
    return found if isinstance(found, float) else None


class Comparison(NamedTuple):
    """Row a stands above, below or near row b (at most the claim's margin below it).

    unit points: right queries of a minus those of b (fractions); times: ln of a's
    seconds over b's.
    """

    a: str
    expected: str
    b: str
    unit: str = "points"

    @property
    def name(self) -> str:
        return f"{self.a} {'over' if self.unit == 'times' else 'minus'} {self.b}"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper with its section; `klip.stats.claims` judges it."""

    id: str
    section: str
    sets: tuple[str, ...] = ()
    """Sets of the paper that it is about (see PAPER_SET); empty: any set."""
    quotation: str = ""
    """The paper's own few words with their place; empty where they are not at hand."""
    margin: float = 0.0
    """Fraction that still counts as near: an assumption of ours, the paper gives none."""

    @property
    def tests(self) -> tuple[Comparison, ...]:
        return tuple(Comparison(*row) for number, *row in TESTS if number == self.id)

    @property
    def paper(self) -> str:
        """The paper's figures for these rows and sets; empty where it prints none."""
        # A dict keeps each row once, in the order of the tests.
        rows = dict.fromkeys(row for test in self.tests for row in (test.a, test.b))
        told = []
        for place in self.sets:
            own = []
            for row in rows:
                said = PUBLISHED.get(row, {}).get(place)
                if isinstance(said, str):
                    own.append(f"{row}: {said}")
                elif said is not None:
                    own.append(f"{row} {said:g}")
            told.append(f"{place}: {'; '.join(own)}")
        return " / ".join(told)


_CLOSE = '"accuracy close to or exceeding full finetuning" (abstract)'
_NO_TRAINING = '"needs no incremental training for new products" (abstract)'
CLAIMS = (
    Claim("C1", "implied throughout"),
    Claim("C2", "§5, Table 1", ("capg-gp",), _CLOSE),
    Claim("C3", "§5, Table 2", ("grozi-120",), _CLOSE),
    Claim("C4", "§5.1", ("rp2k",), _CLOSE, margin=0.05),
    Claim("C5", "§4.1.3, after Zhang & Deng 2020"),
    Claim("C6", "§4.1.3"),
    Claim("C7", "§4.1.2"),
    Claim("C8", "§4.1"),
    Claim("C9", "abstract", quotation=_NO_TRAINING),
)
