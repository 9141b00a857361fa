"""Recognition without learning: keypoints that vote (SIFT, BRISK), colour histograms.

These are the floors of the tables (related work in the paper's §2).
Axes: N descriptors of a query, G of a packshot, P products in the order of the gallery.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from klip.data.catalogue import Catalogue
from klip.data.images import read
from klip.recognise import outcomes

QUERY, PACKSHOT = 400, 200
"""Most keypoints of an image, the strongest first; fewer of a packshot, lest a product
win by mere number."""
SIFT_SIDE, BRISK_SIDE = 160, 256
"""Pixels of the longer side, so that thumbnails and large photographs meet in scale.

Like the numbers above, SIFT_CONTRAST, BRISK_THRESHOLD and HSV_BINS they were chosen on
ten seeded crops of the first 20 products of GroZi-120 each (200 of its queries) and
three training photographs of each of GroceryStore's.  On eight crops of its products 1
to 60 each and the same photographs nothing was better for SIFT on both: 256 pixels, as
many keypoints of packshots, equalised contrast (CLAHE), no enlarging, half the
contrast."""
SIFT_CONTRAST = 0.02
"""Half of OpenCV's default: shop video is dark."""
BRISK_THRESHOLD = 20
HSV_BINS = (12, 4, 2)
"""Bins of hue, saturation and value in each quarter of the image."""
SIFT_FARTHEST, BRISK_FARTHEST = 2**0.5, 512.0
"""Largest distance of two descriptors (right angle, all bits), also to a packshot without."""
TIE = 2e-5
"""Squared distances this close count as equal."""
TURN, GROWTH = 21, 12
"""Matches agree up to 30 degrees and three quarters of an octave (A)."""


def evaluate(
    catalogue: Catalogue,
    method: str = "sift",
    rule: str = "first",
    seed: int = 0,
    workers: int = 2,
    progress: bool = False,
) -> pd.DataFrame:
    """Classify a set's queries against one packshot per product; an outcome frame.

    Queries and packshots are those of `evaluation.evaluate`.  similarity: the winner's
    votes (no upper bound), or of `hsv` the intersection in 0..1.  Equal scores go to
    the earlier product: an image without keypoints has similarity 0 and gets the
    gallery's first.
    """
    methods = {
        "sift": (partial(sift, most=PACKSHOT), sift, sift_scores),
        "brisk": (partial(brisk, most=PACKSHOT), brisk, brisk_scores),
        "hsv": (hsv_histogram, hsv_histogram, intersections),
    }
    if method not in methods:
        raise ValueError(f"keypoints: method must be one of {', '.join(methods)}, got {method!r}")
    look_at_packshot, look, compare = methods[method]
    packshots, asked = catalogue.pick(rule, seed)
    names = packshots["product"].to_numpy(object)
    with threads(workers) as pool:
        seen = pool.map(lambda file: look_at_packshot(read(file)), packshots.files)
        scores_of = compare(list(seen))

        def answer(file: Path) -> tuple[list[str], np.ndarray]:
            scores = scores_of(look(read(file)))
            best = np.argsort(-scores, kind="stable")[:5]
            return names[best].tolist(), scores[best]

        found = pool.map(answer, asked.files)
        found = list(tqdm(found, method, len(asked), disable=not progress))
    products, scores = zip(*found, strict=True)
    return outcomes.frame(asked, products, np.array(scores))


def describe(images: Iterable[str | Path], workers: int = 2) -> list[np.ndarray]:
    """Keypoints of packshots as `sift` gives them, at most PACKSHOT of an image."""
    with threads(workers) as pool:
        return list(pool.map(lambda image: sift(read(image), PACKSHOT), images))


@contextmanager
def threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """A pool in which OpenCV and BLAS keep to one thread each, lest pools compete."""
    if not isinstance(workers, int) or workers < 1:
        raise ValueError(
            f"keypoints: workers must be a whole number of at least 1, got {workers!r}"
        )
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(workers) as pool:
            yield pool
    finally:
        cv2.setNumThreads(before)


def grey(image: np.ndarray, side: int) -> np.ndarray:
    """An RGB image as grey uint8, its longer side `side` pixels, the other at least 8."""
    height, width = image.shape[:2]
    factor = side / max(height, width)
    # BRISK's pyramid fails below 6
    size = max(round(width * factor), 8), max(round(height * factor), 8)
    small = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.resize(small, size, interpolation=cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA)


def sift(image: np.ndarray, most: int = QUERY) -> np.ndarray:
    """An RGB image's strongest keypoints (Lowe 2004): (N, 130) uint8, N up to `most`.

    A row has descriptor (a byte each, to which OpenCV rounds before it returns them),
    angle (256ths of a circle) and size (sixteenths of an octave).
    """
    detector = cv2.SIFT_create(most, contrastThreshold=SIFT_CONTRAST)
    points, found = detector.detectAndCompute(grey(image, SIFT_SIDE), None)
    if found is None:
        return np.zeros((0, 130), np.uint8)
    angles = [round(point.angle / 360 * 256) % 256 for point in points]
    sizes = [round(16 * np.log2(max(point.size, 1))) for point in points]
    rows = np.column_stack([found, angles, sizes])
    return rows[:most].astype(np.uint8)  # equals may exceed most


def root_sift(descriptors: np.ndarray) -> np.ndarray:
    """RootSIFT (Arandjelovic & Zisserman 2012): float32 rows of length 1, or all 0."""
    total = descriptors.sum(axis=1, keepdims=True, dtype=np.float32)
    return np.sqrt(descriptors / np.where(total > 0, total, 1))


def brisk(image: np.ndarray, most: int = QUERY) -> np.ndarray:
    """BRISK (Leutenegger et al. 2011) of an RGB image's strongest keypoints: (N, 64) uint8."""
    detector, small = _brisk(), grey(image, BRISK_SIDE)
    strongest = sorted(detector.detect(small, None), key=lambda point: -point.response)[:most]
    found = detector.compute(small, strongest)[1] if strongest else None
    return np.zeros((0, 64), np.uint8) if found is None else found


def hsv_histogram(image: np.ndarray) -> np.ndarray:
    """Shares of an RGB image's pixels by quarter, hue, saturation and value: (4 * bins,)."""
    height, width = image.shape[:2]
    cell = (2 * np.arange(height) // height)[:, None] * 2 + 2 * np.arange(width) // width
    channels = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.intp))
    for channel, bins, below in zip(channels, HSV_BINS, (180, 256, 256), strict=True):
        cell = cell * bins + channel * bins // below
    return np.bincount(cell.ravel(), minlength=4 * int(np.prod(HSV_BINS))) / cell.size


def vote(
    distances: np.ndarray,
    farthest: float,
    turns: np.ndarray | None = None,
    growths: np.ndarray | None = None,
) -> np.ndarray:
    """Weight of each product (P,): every descriptor votes for its nearest product.

    A vote weighs its margin to the second, which is `farthest` away if there is one
    product.  distances, turns and growths (N, P) are those of each product's nearest
    descriptor.  With the last two only matches that agree in both count, those with one
    of them as the middle that are worth most (weak geometric consistency, Jegou et al.
    2008): a package is seen from one side, at one distance.
    """
    two = np.column_stack([distances, np.full(len(distances), farthest)])
    near, second = np.partition(two, 1, axis=1)[:, :2].T
    # A matrix product rounds equal columns differently; equal packshots have no margin.
    margin = np.where(second**2 - near**2 < TIE, 0, second - near)
    winner = distances.argmin(axis=1)
    if turns is None or growths is None:
        return np.bincount(winner, margin, distances.shape[1])
    votes = np.zeros(distances.shape[1])
    for product in np.unique(winner):
        own = winner == product
        turn, growth = turns[own, product], growths[own, product]
        turned = np.abs((turn[:, None] - turn + 128) % 256 - 128)  # a circle has 256
        grown = np.abs(growth[:, None] - growth)
        agree = (turned <= TURN) & (grown <= GROWTH)  # row by row, with each as the middle
        votes[product] = (agree @ margin[own]).max()
    return votes


class Print(NamedTuple):
    """The keypoints of an image, ready to be compared."""

    roots: np.ndarray  # RootSIFT, (N, 128) float32
    angles: np.ndarray  # (N,) int16
    sizes: np.ndarray


def prepared(rows: np.ndarray) -> Print:
    """Rows of `sift` as a Print."""
    return Print(root_sift(rows[:, :-2]), *rows[:, -2:].T.astype(np.int16))


def match(query: Print, packshot: Print) -> np.ndarray:
    """How far the nearest of a packshot is from each of N keypoints, turns and grows: (3, N)."""
    count = len(query.roots)
    if not len(packshot.roots):
        return np.stack([np.full(count, SIFT_FARTHEST), np.zeros(count), np.zeros(count)])
    cosine = query.roots @ packshot.roots.T  # (N, G)
    best = cosine.argmax(axis=1)
    distance = np.sqrt(2 - 2 * cosine[np.arange(count), best].clip(0, 1))
    turns, growths = query.angles - packshot.angles[best], query.sizes - packshot.sizes[best]
    return np.stack([distance, turns, growths])


def agreed(matches: Sequence[np.ndarray]) -> np.ndarray:
    """Votes (P,) of the matches (3, N) of one query with each of P products."""
    distances, turns, growths = np.stack(matches, axis=2)
    return vote(distances, SIFT_FARTHEST, turns, growths)


def sift_scores(gallery: Sequence[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Function from a query's rows of `sift` to the votes (P,); gallery: rows per product."""
    prints = [prepared(rows) for rows in gallery]

    def scores(rows: np.ndarray) -> np.ndarray:
        query = prepared(rows)
        return agreed([match(query, own) for own in prints])

    return scores


def brisk_scores(gallery: Sequence[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Function from a query's descriptors (N, 64) to the votes (P,), by Hamming distance."""

    def scores(query: np.ndarray) -> np.ndarray:
        distances = np.full((len(query), len(gallery)), BRISK_FARTHEST)
        for product, rows in enumerate(gallery):
            if len(query) and len(rows):
                hamming = {"normType": cv2.NORM_HAMMING, "K": 1}
                nearest, _ = cv2.batchDistance(query, rows, cv2.CV_32S, **hamming)
                distances[:, product] = nearest[:, 0]
        return vote(distances, BRISK_FARTHEST)

    return scores


def intersections(gallery: Sequence[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Function from a histogram to its intersection with each packshot's (P,): Swain &
    Ballard 1991.
    """
    every = np.stack(gallery)
    return lambda query: np.minimum(every, query).sum(axis=1)


@cache
def _brisk() -> cv2.Feature2D:
    """The detector, made once: its table of sampling patterns takes longer than an image."""
    extra = getattr(cv2, "xfeatures2d", cv2)
    if not hasattr(extra, "BRISK_create"):
        raise ImportError(
            f"keypoints: this OpenCV {cv2.__version__} has no BRISK (since 5.0 among the extra modules); "
            "install opencv-contrib-python-headless in place of opencv-python-headless"
        )
    return extra.BRISK_create(BRISK_THRESHOLD)
