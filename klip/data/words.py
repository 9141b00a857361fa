"""Names: their one form, their one order, what they say of splits, and in a sentence."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

SPLITS = {
    "train": "train training",
    "val": "val valid validation dev",
    "query": "query queries test testing probe",
    "gallery": "gallery galleries packshot packshots reference references",
    "index": "index",
}
"""Split -> the words for it, in any case (index: GroZi-120's own, see `Catalogue.pick`)."""
_SPLIT_OF = {word: split for split, words in SPLITS.items() for word in words.split()}
TRUE, FALSE = ("true", "yes", "1", "1.0", "t", "y"), ("false", "no", "0", "0.0", "f", "n", "")

UNSEEN = (
    r"^[\s\u200b-\u200f\u2028-\u202e\u2060\ufeff]+|[\s\u200b-\u200f\u2028-\u202e\u2060\ufeff]+$"
)
"""Spaces, and signs without a width, at either end of a name."""


def natural(text: str) -> tuple[list[Any], str]:
    """Sorting key under which numbers inside names count as numbers: 2 before 10, and of
    1 and 01 the plain order decides; no two names are equal."""
    pieces = re.findall(r"\d+|\D+", text)
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces], text


def name(text: Any) -> str:
    """The one form of a name: nothing unseen around it, accents as one sign (NFC).

    ValueError: nothing is left, or it holds what no file could (line breaks, bytes that
    are no UTF-8).
    """
    shown = re.sub(UNSEEN, "", unicodedata.normalize("NFC", str(text)))
    if not shown:
        raise ValueError(f"name: a product needs one, got {text!r}")
    wrong = {"Cc": "a control character", "Cs": "bytes that are no UTF-8"}
    for sign in shown:
        if unicodedata.category(sign) in wrong:
            raise ValueError(f"name: {shown!r} holds {wrong[unicodedata.category(sign)]}")
    return shown


def split(text: str) -> str:
    """The split that a word names; "" for any other word."""
    return _SPLIT_OF.get(text.strip().lower(), "")


def truth(text: Any) -> bool:
    """What a word or number of a table says: False, 0, "no" and "" are false.  ValueError:
    it says neither."""
    word = str(text).strip().lower()
    if word not in TRUE + FALSE:
        raise ValueError(f"{text!r} is neither true nor false; accepted are true, false, 1, 0")
    return word in TRUE


def named(names: Iterable[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
