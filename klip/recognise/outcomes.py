"""Outcome frames: what a method answered to a set's Q queries, one row each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from klip.data.catalogue import Catalogue


def frame(
    asked: Catalogue | pd.DataFrame,
    products: Sequence[Sequence[str]],
    scores: np.ndarray,
    packshots: Sequence[Sequence[str]] | None = None,
) -> pd.DataFrame:
    """image, product (the true one), predicted, top1, top5 (bool), similarity.

    asked: the queries, or an outcome frame of them; products and scores (Q, T): distinct
    products for each, the best first.  With their packshots also margin, packshot (of
    the predicted product).
    """
    truth = list(zip(products, asked["product"], strict=True))
    columns = {"image": asked["image"], "product": asked["product"]}
    table = pd.DataFrame(columns).assign(
        predicted=[names[0] for names in products],
        top1=[names[0] == product for names, product in truth],
        top5=[product in names[:5] for names, product in truth],
        similarity=scores[:, 0],
    )
    if packshots is None:
        return table
    return table.assign(margin=margin(scores), packshot=[shown[0] for shown in packshots])


def margin(scores: np.ndarray) -> np.ndarray:
    """Best minus second score, (Q,) float64; of one product as if a second lay opposite."""
    scores = scores.astype(float)
    second = scores[:, 1] if scores.shape[1] > 1 else -1
    return scores[:, 0] - second
