"""Names in their order, and in a sentence."""

import re
from collections.abc import Iterable
from typing import Any


def natural(text: str) -> list[Any]:
    """Sorting key under which numbers inside names count as numbers: 2 before 10."""
    pieces = re.findall(r"\d+|\D+", text)
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces]


def named(names: Iterable[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
