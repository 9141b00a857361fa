"""Products in words: a short name, and how far apart two of them are."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence


def said(product: str) -> str:
    """A product's name as words, without the numbers between them."""
    words = product.replace("-", " ").replace("_", " ").split()
    return " ".join([word for word in words if not word.isdigit()] or words)


def short(product: str) -> str:
    """`said` on three lines at most."""
    return "\n".join(textwrap.wrap(said(product), 15)[:3])


def told_apart(products: Sequence[str]) -> list[str]:
    """Each `said`, or as they are if two would read alike."""
    words = [said(str(product)) for product in products]
    return words if len(set(words)) == len(words) else [str(product) for product in products]


def mistake(right: str, wrong: str, groups: Mapping[str, str]) -> str:
    """What kind of error it is to take `wrong` for `right`.

    groups: product -> its place in the hierarchy of a catalogue.  That of a rendered
    product ends with brand and line, with which its name begins.
    """
    own, other = groups.get(right), groups.get(wrong)
    if not own or not other:
        return "another product"
    same = own == other
    if not (_of_line(right, own) and _of_line(wrong, other)):
        return "same group, other product" if same else "other group"
    if same:
        return "same line, other flavour"
    if right.split("-")[0] == wrong.split("-")[0]:
        return "same brand, other line"
    kind = own.rpartition("/")[0] == other.rpartition("/")[0]
    return "other brand, same kind" if kind else "other brand, other kind"


def _of_line(product: str, group: str) -> bool:
    """Does the name begin with the last part of the group, "zola-1" of "tea/ice_tea/zola-1"?"""
    return product.startswith(group.rpartition("/")[2] + "-")
