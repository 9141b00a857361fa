"""Frames of an open set (see `open_set`): made, refused, pooled, split, resampled.

Axes: P products, K and U queries of known and of unknown ones, N resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from klip.data.catalogue import Catalogue

FEWEST = 4
"""Products needed: half of them known, and a margin needs two."""


def check_share(accepts: float) -> None:
    if not 0 < accepts <= 1:
        raise ValueError(f"open set: accepts is a share above 0 and at most 1, got {accepts!r}")


def kept_out(chosen: Catalogue, asked: Catalogue, seed: int) -> tuple[set[str], pd.Series]:
    """A seeded half of the products shown and asked for, and which queries stay known."""
    shown = set(chosen["product"])
    products = sorted(shown & set(asked["product"]))
    if len(products) < FEWEST:
        raise ValueError(
            f"open set: half of the products is kept out of the gallery, which wants at least {FEWEST} "
            f"products with a packshot and queries, got {len(products)}"
        )
    out = set(np.random.default_rng(seed).permutation(products)[: len(products) // 2].tolist())
    return out, asked["product"].isin(shown - out)


def pooled(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The frames, one per seed, as one."""
    if not len(frames):
        raise ValueError("open set: wants at least one frame, one for each seed, got none")
    return pd.concat(frames, ignore_index=True)


def sides(
    frame: pd.DataFrame, score: str, unknown: bool = True
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of known and of unknown products; a frame that cannot be judged is refused."""
    missing = {"product", "known", "top1", score} - set(frame.columns)
    if missing:
        raise ValueError(
            "open set: a frame has product, known, top1 and the scores similarity and margin; missing: "
            f"{', '.join(sorted(missing))}"
        )
    if frame[["product", "known", score]].isna().any(axis=None):
        raise ValueError(f"open set: wants no missing value in product, known and {score}")
    known = frame["known"].astype(bool)
    if not known.any() or (unknown and known.all()):
        raise ValueError(
            "open set: wants queries of products in the gallery and of products that are not, got "
            f"{known.sum()} and {(~known).sum()}"
        )
    return frame[known], frame[~known]


class Resamples(NamedTuple):
    """Scores of the known and of the unknown queries, falling; the products as numbers."""

    known: np.ndarray  # (K,)
    unknown: np.ndarray  # (U,)
    mine: np.ndarray  # (K,) the products of the known queries
    theirs: np.ndarray  # (U,)
    times: np.ndarray  # (N, P) how often each product is drawn


def resampled(frame: pd.DataFrame, score: str, n: int, seed: int) -> Resamples | None:
    """Whole products drawn with replacement; None where one side has a single product.

    Products only known, only unknown, and (over several seeds) both are drawn among
    their kind: no side is ever empty.
    """
    known, unknown = (side.sort_values(score, ascending=False) for side in sides(frame, score))
    roles = frame["known"].astype(bool).groupby(frame["product"]).agg(["any", "all"])
    if roles["any"].sum() < 2 or (~roles["all"]).sum() < 2:
        return None
    number, rng = roles.index.get_indexer, np.random.default_rng(seed)
    times = np.zeros((n, len(roles)))
    for _, own in roles.groupby(["any", "all"]):
        chance = np.full(len(own), 1 / len(own))
        times[:, number(own.index)] = rng.multinomial(len(own), chance, size=n)
    scores = known[score].to_numpy(), unknown[score].to_numpy()
    return Resamples(*scores, number(known["product"]), number(unknown["product"]), times)
