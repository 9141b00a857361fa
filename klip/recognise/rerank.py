"""Re-ranking by print (beyond the paper): cosine plus a weight times the share of SIFT votes.

An encoder sees what a package looks like, keypoints see what is printed on it.  The descriptors of a query vote among
its first products by cosine only (`keypoints.agreed`).  Similarity of a product = cosine of its nearest row + weight x
its share of all votes, 0 without a vote and for all products behind the first.  Equal similarities: the better cosine,
then the order of the gallery.  Frames are those of `evaluation.evaluate` with `keep`, whose columns products, cosines
and packshots hold each query's first products; `Gallery.classify(rerank=...)` does the same.
Axes: Q queries, T products kept of each, F first ones of them, N descriptors of a query.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from klip.data.images import read
from klip.recognise import keypoints, outcomes
from klip.stats import metrics

WEIGHTS, FIRSTS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0), (5, 10, 20)
"""What is tried where weight and number are chosen; weight 0 is cosine alone."""


@dataclass(frozen=True)
class Rerank:
    """Settings, to be chosen on validation products only (`sensitivity`, `choose`).

    The defaults were chosen on the rendered validation products of profile `nano`: results/nano/tables/04_weights.
    """

    weight: float = 0.5
    """What all votes together are worth, in units of cosine."""
    first: int = 20
    """Products, the best by cosine, among which the keypoints vote; of fewer, all."""

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf"):
            raise ValueError(
                f"rerank: weight must be a number of at least 0 (0 is cosine alone), got {self.weight!r}"
            )
        if isinstance(self.first, bool) or not isinstance(self.first, int) or self.first < 1:
            raise ValueError(
                f"rerank: first must be a whole number of products, at least 1, got {self.first!r}"
            )


class Votes(NamedTuple):
    """What keypoints say to the queries of some frames, and what asking them takes on one core."""

    shares: list[dict[int, np.ndarray]]
    """For each frame and number of first products, (Q, F) in 0..1."""
    keypoints_ms: float
    """Milliseconds per query (median), its image being read already: finding and describing its keypoints."""
    votes_ms: float
    """The same of the votes, among the most products that were asked for, of one frame."""


def share(votes: np.ndarray) -> np.ndarray:
    """Votes (F,) over their sum; all 0 where there are none."""
    total = votes.sum()
    return votes / total if total > 0 else np.zeros_like(votes)


def order(cosine: np.ndarray, shares: np.ndarray, weight: float) -> tuple[np.ndarray, np.ndarray]:
    """Places of the products by similarity, the best first, and these similarities: (Q, T) int, (Q, T) float.

    cosine (Q, T) falls from left to right; shares (Q, F), F <= T, are those of the left-most.
    """
    bonus = np.zeros(cosine.shape)
    bonus[:, : shares.shape[1]] = weight * shares
    # The search takes cosines that differ by rounding for equal, the first row wins: so it shall be here.
    places = np.argsort(-(np.minimum.accumulate(cosine, axis=1) + bonus), axis=1, kind="stable")
    return places, np.take_along_axis(cosine + bonus, places, axis=1)


def votes(
    frames: Sequence[pd.DataFrame],
    firsts: Iterable[int] = (Rerank.first,),
    workers: int = 2,
    progress: bool = False,
) -> Votes:
    """Shares of the votes for several frames (one per encoder or seed) that ask the same queries.

    Every query and every packshot is described once, whatever the number of frames and `firsts`.
    """
    firsts = sorted(set(firsts), reverse=True)
    if not len(frames) or not firsts or firsts[-1] < 1:
        raise ValueError(
            "rerank: wants at least one frame and numbers of first products of at least 1, got "
            f"{len(frames)} frames and {firsts}"
        )
    wanted = frames[0]
    for frame in frames:
        if (kept := frame.attrs.get("keep", 0)) < firsts[0]:
            raise ValueError(
                f"rerank: the frames must keep the first {firsts[0]} products of every query, they keep "
                f"{kept}; make them by evaluation.evaluate(..., keep={firsts[0]})"
            )
        if frame["image"].tolist() != wanted["image"].tolist():
            raise ValueError("rerank: the frames must ask the same queries in the same order")
    root = Path(wanted.attrs["root"])
    names = sorted({name for frame in frames for own in frame["packshots"] for name in own})
    found = keypoints.describe([root / name for name in names], workers)
    prints = dict(zip(names, map(keypoints.prepared, found), strict=True))
    rankings = list(zip(*(frame["packshots"] for frame in frames), strict=True))

    def ask(image: str, ranked: tuple[list[str], ...]) -> tuple[list[np.ndarray], float, float]:
        pixels, began = read(root / image), time.thread_time()
        rows, found, near, shares, ended = keypoints.sift(pixels), time.thread_time(), {}, [], 0.0
        query = keypoints.prepared(rows)
        for own in (packshots[:first] for packshots in ranked for first in firsts):
            near |= {name: keypoints.match(query, prints[name]) for name in own if name not in near}
            shares.append(share(keypoints.agreed([near[name] for name in own])))
            ended = ended or time.thread_time()
        return shares, found - began, ended - found

    with keypoints.threads(workers) as pool:
        asked = list(
            tqdm(
                pool.map(ask, wanted["image"], rankings),
                "keypoints",
                len(wanted),
                disable=not progress,
            )
        )
    columns = [np.array(column) for column in zip(*(shares for shares, _, _ in asked), strict=True)]
    shares = [
        dict(zip(firsts, columns[place : place + len(firsts)], strict=True))
        for place in range(0, len(columns), len(firsts))
    ]
    keypoints_ms, votes_ms = (
        1000 * float(np.median(own)) for own in list(zip(*asked, strict=True))[1:]
    )
    return Votes(shares, keypoints_ms, votes_ms)


def outcome(frame: pd.DataFrame, shares: np.ndarray, weight: float) -> pd.DataFrame:
    """The frame re-ranked by the shares (Q, F) of the votes; columns as in `evaluation.outcome`, new scores."""
    places, scores = order(np.array(frame["cosines"].tolist()), shares, weight)
    products, packshots = (
        np.take_along_axis(np.array(frame[column].tolist(), object), places, axis=1).tolist()
        for column in ("products", "packshots")
    )
    second = scores[:, 1] if scores.shape[1] > 1 else -1
    result = outcomes.frame(
        frame,
        products,
        similarity=scores[:, 0],
        margin=scores[:, 0] - second,
        packshot=[own[0] for own in packshots],
    )
    result.attrs = {**frame.attrs, "weight": weight, "first": shares.shape[1]}
    return result


def evaluate(
    frames: Sequence[pd.DataFrame],
    how: Rerank = Rerank(),
    workers: int = 2,  # noqa: B008 (frozen)
    progress: bool = False,
) -> list[pd.DataFrame]:
    """Each frame re-ranked, one keypoint pass for all; attrs have weight, first, keypoints_ms and votes_ms."""
    voted = votes(frames, [how.first], workers, progress)
    found = [
        outcome(frame, own[how.first], how.weight)
        for frame, own in zip(frames, voted.shares, strict=True)
    ]
    for frame in found:
        frame.attrs |= {"keypoints_ms": voted.keypoints_ms, "votes_ms": voted.votes_ms}
    return found


def sensitivity(
    frames: Sequence[pd.DataFrame], voted: Votes, weights: Iterable[float] = WEIGHTS
) -> pd.DataFrame:
    """weight, first, top1 (fraction, the frames pooled), low, high (95 %, bootstrap over products); a row each.

    To choose by, frames of validation products; of other sets to be shown only.
    """
    rows = []
    for how in [
        Rerank(weight, first)
        for weight in sorted(set(weights))
        for first in sorted(voted.shares[0])
    ]:
        pooled = pd.concat(
            [
                outcome(frame, own[how.first], how.weight)
                for frame, own in zip(frames, voted.shares, strict=True)
            ]
        )
        rows.append(
            (how.weight, how.first, metrics.score(pooled).top1, *metrics.bootstrap_products(pooled))
        )
    return pd.DataFrame(rows, columns=["weight", "first", "top1", "low", "high"])


def choose(curve: pd.DataFrame) -> Rerank:
    """The settings with the highest top1 of a `sensitivity` curve; of equal ones the lowest weight, then first."""
    best = curve.sort_values(["top1", "weight", "first"], ascending=[False, True, True]).iloc[0]
    return Rerank(float(best["weight"]), int(best["first"]))
