"""Outcome frames: what a method answered to a set's queries, one row per query; `metrics` makes figures of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd


def frame(asked: pd.DataFrame, answers: Sequence[Sequence[str]], **columns: Any) -> pd.DataFrame:
    """image, product (the true one), predicted, top1, top5 (among the first five), and the method's own columns.

    asked: a catalogue's queries; answers: distinct products for each of them, the best first, at least one.
    """
    truth = list(zip(answers, asked["product"], strict=True))
    return asked[["image", "product"]].assign(
        predicted=[names[0] for names in answers],
        top1=[names[0] == product for names, product in truth],
        top5=[product in names[:5] for names, product in truth],
        **columns,
    )
