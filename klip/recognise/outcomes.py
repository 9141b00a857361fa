"""Outcome frames: what a method answered to a set's Q queries, one row each."""

import numpy as np
import pandas as pd

from klip.data.catalogue import Catalogue

SCORES = ("similarity", "margin")
"""By what a query is found to be of no product of the gallery."""


def frame(
    asked: Catalogue | pd.DataFrame,
    products: np.ndarray,
    *,
    scores: np.ndarray,
    packshots: np.ndarray | None = None,
) -> pd.DataFrame:
    """image, product (the true one), predicted, top1, top5 (bool), similarity.

    asked: the queries, or an outcome frame of them; products (Q, T) names of distinct
    products for each, the best first; scores (Q, T).  With their packshots (Q, T) also
    margin, packshot (of the predicted product).
    """
    truth = asked["product"].to_numpy(object)
    right = products[:, :5] == truth[:, None]  # (Q, up to 5)
    columns = {"image": asked["image"], "product": asked["product"], "predicted": products[:, 0]}
    columns |= {"top1": right[:, 0], "top5": right.any(axis=1), "similarity": scores[:, 0]}
    table = pd.DataFrame(columns)
    if packshots is None:
        return table
    return table.assign(margin=margin(scores), packshot=packshots[:, 0])


def margin(scores: np.ndarray) -> np.ndarray:
    """Best minus second score, (Q,) float64; of one product as if a second lay opposite."""
    scores = scores.astype(float)
    second = scores[:, 1] if scores.shape[1] > 1 else -1
    return scores[:, 0] - second


def threshold(own: dict | None, below: float | None, *, score: str) -> tuple[float, str]:
    """Under which score a query is unknown (minus infinity: none is), and which score.

    own: the threshold that a gallery was given by `open_set.calibrate`; below and score:
    what is asked for in its place, None and "" if nothing.
    """
    own = own or {}
    chosen = score or own.get("score", SCORES[0])
    if below is None and own.get("score") == chosen:
        below = own["below"]
    if chosen not in SCORES or (score and below is None):
        raise ValueError(
            f"gallery: score must be {' or '.join(SCORES)}, with a threshold unknown_below unless "
            f"the gallery has one of that score, got score={score!r} and no threshold for it"
        )
    if below is None:
        return -np.inf, chosen
    if not -2 <= below <= 2:
        raise ValueError(
            "gallery: unknown_below is a cosine or a difference of two, between -2 and 2, "
            f"got {below!r}"
        )
    return below, chosen
