"""Re-ranking by print (beyond the paper): cosine plus a weight times the share of SIFT votes.

An encoder sees what a package looks like, keypoints see what is printed on it.  The
descriptors of a query vote among its first products by cosine only
(`keypoints.agreed`).  Similarity of a product = cosine of its nearest row + weight x
its share of all votes, 0 behind the first.  Equal similarities: the better cosine, then
the order of the gallery.  Frames are those of `evaluation.evaluate` with `keep`;
`Gallery.classify` does the same.
Axes: Q queries, T products kept of each, F first ones of them.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from klip.data.images import read
from klip.recognise import keypoints, outcomes
from klip.stats import metrics

if TYPE_CHECKING:
    from klip.recognise.gallery import Gallery

WEIGHTS, FIRSTS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0), (5, 10, 20)
"""What is tried where weight and number are chosen; weight 0 is cosine alone."""


@dataclass(frozen=True)
class Rerank:
    """Settings, to be chosen on validation products only (`sensitivity`, `choose`).

    The defaults are those of the rendered ones of profile nano:
    results/nano/tables/04_weights.
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
    """Milliseconds per query (median) to find and describe its keypoints, the image being read."""
    votes_ms: float
    """The same of the votes, among the most products that were asked for, of one frame."""


def share(votes: np.ndarray) -> np.ndarray:
    """Votes (F,) over their sum; all 0 where there are none."""
    total = votes.sum()
    return votes / total if total > 0 else np.zeros_like(votes)


def order(cosine: np.ndarray, shares: np.ndarray, weight: float) -> tuple[np.ndarray, np.ndarray]:
    """Places of the products, the best first, and their similarities: (Q, T) each.

    cosine (Q, T) falls from left to right; shares (Q, F), F <= T, are of the left-most.
    """
    bonus = np.zeros(cosine.shape)
    bonus[:, : shares.shape[1]] = weight * shares
    # The search takes cosines that differ by rounding for equal, the first wins: so here.
    falling = np.minimum.accumulate(cosine, axis=1)
    places = np.argsort(-(falling + bonus), axis=1, kind="stable")
    return places, np.take_along_axis(cosine + bonus, places, axis=1)


def votes(
    root: Path,
    frames: Sequence[pd.DataFrame],
    firsts: Iterable[int] = (Rerank.first,),
    workers: int = 2,
    progress: bool = False,
) -> Votes:
    """Shares of the votes for several frames (of encoders or seeds) that ask the same queries.

    root: the folder of their images, `Catalogue.root`.
    """
    firsts = sorted(set(firsts), reverse=True)  # the most first
    _check(frames, firsts)
    asked = frames[0]["image"]
    names = sorted({name for frame in frames for own in frame["packshots"] for name in own})
    described = keypoints.describe([root / name for name in names], workers)  # each once
    prints = dict(zip(names, map(keypoints.prepared, described), strict=True))

    def ask(image: str, *ranked: list[str]) -> tuple[list[dict[int, np.ndarray]], float, float]:
        """Shares of one query in each frame, seconds of its keypoints and of the first votes."""
        pixels = read(root / image)
        began = time.thread_time()
        rows = keypoints.sift(pixels)
        found = time.thread_time()
        query, matches = keypoints.prepared(rows), {}
        shares, ended = [{} for _ in ranked], []
        for own, packshots in zip(shares, ranked, strict=True):
            for name in packshots[: firsts[0]]:
                if name not in matches:
                    matches[name] = keypoints.match(query, prints[name])
            for first in firsts:
                theirs = [matches[name] for name in packshots[:first]]
                own[first] = share(keypoints.agreed(theirs))
                ended.append(time.thread_time())
        return shares, found - began, ended[0] - found

    with keypoints.threads(workers) as pool:
        answers = pool.map(ask, asked, *(frame["packshots"] for frame in frames))
        answers = list(tqdm(answers, "keypoints", len(asked), disable=not progress))
    each, *seconds = zip(*answers, strict=True)
    shares = [
        {first: np.array([own[number][first] for own in each]) for first in firsts}
        for number in range(len(frames))
    ]
    return Votes(shares, *(1000 * float(np.median(own)) for own in seconds))


def outcome(frame: pd.DataFrame, shares: np.ndarray, weight: float) -> pd.DataFrame:
    """The frame re-ranked by the shares (Q, F) of the votes; columns as in `evaluation.outcome`."""
    places, scores = order(np.array(frame["cosines"].tolist()), shares, weight)
    products, packshots = (
        np.take_along_axis(np.array(frame[column].tolist(), object), places, axis=1).tolist()
        for column in ("products", "packshots")
    )
    return outcomes.frame(frame, products, scores, packshots)


def evaluate(
    root: Path,
    frames: Sequence[pd.DataFrame],
    how: Rerank = Rerank(),  # noqa: B008 (frozen)
    workers: int = 2,
    progress: bool = False,
) -> list[pd.DataFrame]:
    """Each frame re-ranked, one keypoint pass for all."""
    return reranked(frames, votes(root, frames, [how.first], workers, progress), how)


def sensitivity(
    frames: Sequence[pd.DataFrame], voted: Votes, weights: Iterable[float] = WEIGHTS
) -> pd.DataFrame:
    """weight, first, top1 (fraction, frames pooled), low, high (95 %, bootstrap over products).

    To choose by, frames of validation products; of other sets to be shown only.
    """
    rows = []
    for weight in sorted(set(weights)):
        for first in sorted(voted.shares[0]):
            pooled = pd.concat(reranked(frames, voted, Rerank(weight, first)))
            interval = metrics.bootstrap_products(pooled)
            rows.append((weight, first, metrics.score(pooled).top1, *interval))
    return pd.DataFrame(rows, columns=["weight", "first", "top1", "low", "high"])


def choose(curve: pd.DataFrame) -> Rerank:
    """The settings of the highest top1 of a `sensitivity` curve, then lowest weight, then first."""
    best = curve.sort_values(["top1", "weight", "first"], ascending=[False, True, True]).iloc[0]
    return Rerank(float(best["weight"]), int(best["first"]))


def check(gallery: Gallery, k: int, embedded: bool) -> None:
    """Refuse a gallery without descriptors, and queries that are embeddings or vote (k > 1)."""
    if gallery.descriptors is None:
        raise ValueError(
            "gallery: it keeps no keypoints to re-rank by; build it anew with keypoints "
            "(`klip gallery build FILE SOURCE --keypoints`)"
        )
    if k != 1 or embedded:
        raise ValueError(
            "gallery: re-ranking wants k = 1 and the images themselves, got "
            f"{'embeddings' if embedded else f'k={k!r}'}"
        )


def rows_of(
    gallery: Gallery,
    images: list[str],
    rows: np.ndarray,
    cosines: np.ndarray,
    how: Rerank,
    workers: int,
) -> tuple[np.ndarray, np.ndarray]:
    """A gallery's nearest rows (Q, T) and cosines ordered by print, with these similarities."""
    packshots = defaultdict(list)
    owners = gallery.owners[:: gallery.meta["views"]]
    for owner, own in zip(owners, gallery.descriptors, strict=True):
        packshots[owner].append(own)

    def shares(image: str, first: np.ndarray) -> np.ndarray:
        shown = [np.concatenate(packshots[gallery.owners[row]]) for row in first]
        return share(keypoints.sift_scores(shown)(keypoints.sift(read(image))))

    with keypoints.threads(workers) as pool:
        found = np.array(list(pool.map(shares, images, rows[:, : how.first])))
    places, scores = order(cosines, found, how.weight)
    return np.take_along_axis(rows, places, axis=1), scores


def reranked(frames: Sequence[pd.DataFrame], voted: Votes, how: Rerank) -> list[pd.DataFrame]:
    pairs = zip(frames, voted.shares, strict=True)
    return [outcome(frame, own[how.first], how.weight) for frame, own in pairs]


def _check(frames: Sequence[pd.DataFrame], firsts: list[int]) -> None:
    """Frames that keep the largest of `firsts` (falling) and ask the same queries."""
    if not len(frames) or not firsts or firsts[-1] < 1:
        raise ValueError(
            "rerank: wants at least one frame and numbers of first products of at least 1, got "
            f"{len(frames)} frames and {firsts}"
        )
    for frame in frames:
        ranked = frame["products"].tolist() if "products" in frame else [[]]
        kept = min(map(len, ranked))
        shown = {product for own in ranked for product in own}
        if kept < min(firsts[0], len(shown) or 1):  # of fewer products, all are kept
            raise ValueError(
                f"rerank: the frames must keep the first {firsts[0]} products of every query, they keep "
                f"{kept}; make them by evaluation.evaluate(..., keep={firsts[0]})"
            )
        if frame["image"].tolist() != frames[0]["image"].tolist():
            raise ValueError("rerank: the frames must ask the same queries in the same order")
