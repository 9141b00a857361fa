"""Re-ranking by print (beyond the paper): cosine plus weighted shares of SIFT votes.

An encoder sees what a package looks like, keypoints see what is printed on it.  The
descriptors of a query vote among its first products by cosine only (`keypoints.vote`).
Similarity of a product = cosine of its nearest row + weight x its share of all votes, 0
behind the first.  Equal similarities: the better cosine, then the order of the gallery.
Axes: Q queries, T products kept of each, F first ones of them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field
from tqdm.auto import tqdm

from klip.data.images import read
from klip.recognise import keypoints, outcomes
from klip.settings.checked import Checked
from klip.settings.cores import threads
from klip.stats import metrics

if TYPE_CHECKING:
    from klip.recognise.gallery import Gallery

WEIGHTS, FIRSTS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0), (5, 10, 20)
"""What is tried where weight and number are chosen; weight 0 is cosine alone."""


Prints = Mapping[str | int, keypoints.Print]


class Rerank(Checked):
    """Settings, to be chosen on validation products only (`sensitivity`, `choose`).

    The defaults are those of the rendered ones of profile nano:
    results/nano/tables/05_weights.
    """

    called: ClassVar[str] = "rerank"
    weight: float = Field(0.5, ge=0, allow_inf_nan=False)
    """What all votes together are worth, in units of cosine; 0 is cosine alone."""
    first: int = Field(20, ge=1)
    """Products, the best by cosine, among which the keypoints vote; of fewer, all."""


class Votes(NamedTuple):
    """What keypoints say to the queries of some frames, and their cost on one core."""

    shares: dict[tuple[int, int], np.ndarray]
    """(place of a frame, number of first products) -> shares (Q, F) in 0..1."""
    keypoints_ms: float
    """Milliseconds per query (median) to find its keypoints, the image being read."""
    votes_ms: float
    """The same of the votes among the most products asked for, of one frame."""


def votes(
    frames: Sequence[pd.DataFrame], firsts: Sequence[int], *, root: Path, workers: int = 2
) -> Votes:
    """Votes for several frames (of encoders or seeds) that ask the same queries.

    frames: of `evaluation.evaluate` with `keep` of at least the largest of `firsts`.
    root: the folder of their images, `Catalogue.root`.
    """
    most = max(firsts)
    for frame in frames:
        ranked = frame["products"].tolist() if "products" in frame else [[]]
        kept, seen = min(map(len, ranked)), {name for own in ranked for name in own}
        if kept < min(most, len(seen) or 1):  # of fewer products, all are kept
            raise ValueError(
                f"rerank: the frames must keep the first {most} products of every query, they "
                f"keep {kept}; make them by evaluation.evaluate(..., keep={most})"
            )
        if frame["image"].tolist() != frames[0]["image"].tolist():
            raise ValueError("rerank: the frames must ask the same queries in the same order")
    rankings = [frame["packshots"] for frame in frames]
    names = sorted({name for ranked in rankings for own in ranked for name in own[:most]})
    described = keypoints.describe([root / name for name in names], workers)  # each once
    prints = dict(zip(names, map(keypoints.prepared, described), strict=True))
    images = [root / image for image in frames[0]["image"]]
    return _vote(images, rankings, prints=prints, firsts=firsts, workers=workers)


def _vote(
    images: Sequence, rankings: Sequence, *, prints: Prints, firsts: Sequence[int], workers: int
) -> Votes:
    """Votes of Q images; rankings: of each the names of prints, the best first."""
    firsts = sorted(set(firsts), reverse=True)  # the votes of the most are timed
    ask = partial(_ask, prints=prints, firsts=firsts)
    with threads(workers) as pool:
        found = pool.map(ask, images, *rankings)
        none = len(images) == 1 or None  # nor where nobody looks on
        found = list(tqdm(found, "keypoints", len(images), disable=none))
    each, *seconds = zip(*found, strict=True)
    keys = [(number, first) for number in range(len(rankings)) for first in firsts]
    shares = dict(zip(keys, map(np.array, zip(*each, strict=True)), strict=True))
    return Votes(shares, *(1000 * float(np.median(own)) for own in seconds))


def _ask(image: str | Path, *rankings: list[str], prints: Prints, firsts: list[int]) -> tuple:
    """Shares of one query, seconds of its keypoints and of the first votes."""
    pixels = read(image)
    times = [time.thread_time()]
    rows = keypoints.sift(pixels)
    times.append(time.thread_time())
    query, shares = keypoints.prepared(rows), []
    match = cache(lambda name: keypoints.match(query, prints[name]))  # each print once
    for names in rankings:
        for first in firsts:
            won = keypoints.vote(np.stack([match(name) for name in names[:first]], axis=2))
            shares.append(won / won.sum() if won.any() else won)
            times.append(time.thread_time())
    return shares, times[1] - times[0], times[2] - times[1]


def order(cosine: np.ndarray, shares: np.ndarray, *, weight: float) -> tuple[np.ndarray, ...]:
    """Places of the products, the best first, and their similarities: (Q, T) each.

    cosine (Q, T) falls from left to right; shares (Q, F), F <= T, are of the left-most.
    """
    bonus = np.zeros(cosine.shape)
    bonus[:, : shares.shape[1]] = weight * shares
    # As in the search, of cosines that differ by rounding the first wins.
    falling = np.minimum.accumulate(cosine, axis=1)
    places = np.argsort(-(falling + bonus), axis=1, kind="stable")
    return places, np.take_along_axis(cosine + bonus, places, axis=1)


def reranked(frames: Sequence[pd.DataFrame], voted: Votes, *, how: Rerank) -> list[pd.DataFrame]:
    """Each of the frames that voted, ordered anew; as of `evaluation.outcome`."""
    result = []
    for number, frame in enumerate(frames):
        cosines = np.array(frame["cosines"].tolist())  # (Q, T)
        places, scores = order(cosines, voted.shares[number, how.first], weight=how.weight)
        names, shown = (
            np.take_along_axis(np.array(frame[column].tolist(), object), places, axis=1)
            for column in ("products", "packshots")
        )
        result.append(outcomes.frame(frame, names, scores=scores, packshots=shown))
    return result


def sensitivity(
    frames: Sequence[pd.DataFrame], voted: Votes, *, weights: Sequence[float] = WEIGHTS
) -> pd.DataFrame:
    """weight, first, top1 (fraction, frames pooled), low, high (95 %, of products).

    frames: those that voted, or the first of them.  To choose by, frames of validation
    products; of other sets to be shown only.
    """
    rows, firsts = [], sorted({first for _, first in voted.shares})
    for weight in sorted(set(weights)):
        for first in firsts:
            how = Rerank(weight=weight, first=first)
            pooled = pd.concat(reranked(frames, voted, how=how))
            interval = metrics.bootstrap_products(pooled)
            rows.append((weight, first, metrics.score(pooled).top1, *interval))
    return pd.DataFrame(rows, columns=["weight", "first", "top1", "low", "high"])


def choose(curve: pd.DataFrame) -> Rerank:
    """Settings of the highest top1 of a `sensitivity` curve; of equals the smallest."""
    best = curve.sort_values(["top1", "weight", "first"], ascending=[False, True, True]).iloc[0]
    return Rerank(weight=float(best["weight"]), first=int(best["first"]))


def check(gallery: Gallery, *, embedded: bool) -> None:
    """Refuse a gallery without descriptors, and queries that are embeddings."""
    if gallery.descriptors is None:
        raise ValueError(
            "gallery: it keeps no keypoints to re-rank by; build it anew with keypoints "
            "(`klip gallery build FILE SOURCE --keypoints`)"
        )
    if embedded:
        raise ValueError("gallery: re-ranking wants the images themselves, got embeddings")


def of_gallery(
    gallery: Gallery, images: list[str], *, rows: np.ndarray, cosines: np.ndarray, how: Rerank
) -> tuple[np.ndarray, np.ndarray]:
    """A gallery's nearest rows (Q, T) ordered by print, with their similarities."""
    ranked = gallery.numbered().numpy()[rows[:, : how.first]].tolist()  # products by number
    printed = gallery.printed()
    prints = {product: printed.of(product) for product in {one for own in ranked for one in own}}
    workers = max(1, gallery.reading.get("workers", 0))
    voted = _vote(images, [ranked], prints=prints, firsts=[how.first], workers=workers)
    places, scores = order(cosines, voted.shares[0, how.first], weight=how.weight)
    return np.take_along_axis(rows, places, axis=1), scores
