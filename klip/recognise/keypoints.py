"""Recognition without learning, one packshot per product: keypoints that vote (SIFT, BRISK), colour histograms.

These are the floors of the tables (related work in the paper's §2).  Axes: N descriptors of a query, G of all
packshots, D numbers of a descriptor, P products in the order of the gallery.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from klip.data import catalogue as data
from klip.data.images import read
from klip.recognise import outcomes

METHODS = ("sift", "brisk", "hsv")
QUERY, PACKSHOT = 400, 200
"""Most keypoints of an image, the strongest first; fewer of a packshot, lest a product win by mere number."""
SIFT_SIDE, BRISK_SIDE = 160, 256
"""Pixels of the longer side that a photograph is brought to, so that thumbnails and large photographs meet in scale.

Like the numbers above, SIFT_CONTRAST, BRISK_THRESHOLD and HSV_BINS they were chosen on ten seeded crops of each of
the first 20 products of GroZi-120 (200 of its queries) and three training photographs of each of GroceryStore's.
On eight crops of each of the products 1 to 60 and the same photographs nothing was better for SIFT on both: 256
pixels, as many keypoints of packshots, equalised contrast (CLAHE), no enlarging, half the contrast.
"""
SIFT_CONTRAST = 0.02
"""Half of OpenCV's default: shop video is dark."""
BRISK_THRESHOLD = 20
HSV_BINS = (12, 4, 2)
"""Bins of hue, saturation and value in each quarter of the image."""
SIFT_FARTHEST, BRISK_FARTHEST = 2**0.5, 512.0
"""Largest distance of two descriptors: right angle, all bits; that of a packshot without keypoints."""
TIE = 2e-5
"""Squared distances this close count as equal."""
TURN, GROWTH = 21, 12
"""Matches agree up to 30 degrees and three quarters of an octave (A)."""


def evaluate(
    catalogue: pd.DataFrame,
    method: str = "sift",
    rule: str = "first",
    seed: int = 0,
    workers: int = 2,
    progress: bool = False,
) -> pd.DataFrame:
    """Classify a set's queries against one packshot per product without learning; one row per query (an outcome frame).

    Queries and packshots are those of `evaluation.evaluate`.  similarity: of `sift` and `brisk` the winner's votes
    (no upper bound), of `hsv` the intersection in 0..1.  Equal scores go to the earlier product of the gallery: an
    image without keypoints has similarity 0 and gets the first product.  `workers` threads, the answers of one.
    """
    if method not in METHODS:
        raise ValueError(f"keypoints: method must be one of {', '.join(METHODS)}, got {method!r}")
    picked = data.pick_gallery(catalogue, rule, seed)
    packshots, asked = (
        picked[picked["split"] == split].reset_index(drop=True) for split in ("gallery", "query")
    )
    products, root = packshots["product"].to_numpy(object), Path(catalogue.attrs["root"])
    look_at_packshot, look, compare = {
        "sift": (partial(sift, most=PACKSHOT), sift, sift_scores),
        "brisk": (partial(brisk, most=PACKSHOT), brisk, brisk_scores),
        "hsv": (hsv_histogram, hsv_histogram, intersections),
    }[method]

    def answer(image: str) -> tuple[list[str], float]:
        scores = compared(look(read(root / image)))
        best = np.argsort(-scores, kind="stable")[:5]
        return products[best].tolist(), float(scores[best[0]])

    with threads(workers) as pool:
        compared = compare(
            list(pool.map(lambda image: look_at_packshot(read(root / image)), packshots["image"]))
        )
        found = list(
            tqdm(pool.map(answer, asked["image"]), method, len(asked), disable=not progress)
        )
    frame = outcomes.frame(
        asked, [best for best, _ in found], similarity=[score for _, score in found]
    )
    frame.attrs = {**catalogue.attrs, "gallery": rule, "seed": seed, "method": method}
    return frame


def describe(images: Iterable[str | Path], workers: int = 2) -> list[np.ndarray]:
    """Keypoints of packshots, (N, 130) uint8 each: as `sift` gives them, at most PACKSHOT of an image."""
    with threads(workers) as pool:
        return list(pool.map(lambda image: sift(read(image), PACKSHOT), images))


@contextmanager
def threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """A pool in which OpenCV and BLAS keep to one thread each: two pools of them would get in each other's way."""
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
    """An RGB image as grey uint8 whose longer side has `side` pixels, the shorter in proportion but at least 8."""
    height, width = image.shape[:2]
    factor = side / max(height, width)
    size = (
        max(round(width * factor), 8),
        max(round(height * factor), 8),
    )  # BRISK's pyramid fails below 6
    small = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.resize(small, size, interpolation=cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA)


def sift(image: np.ndarray, most: int = QUERY) -> np.ndarray:
    """An RGB image's strongest keypoints (Lowe 2004), (N, 130) uint8, N from 0 to most: descriptor, angle, size.

    OpenCV rounds every number of a descriptor to 0..255 before it returns it, so a byte each loses nothing.  Angles
    are in 256ths of a circle, sizes in sixteenths of an octave.
    """
    detector = cv2.SIFT_create(most, contrastThreshold=SIFT_CONTRAST)
    points, found = detector.detectAndCompute(grey(image, SIFT_SIDE), None)
    if found is None:
        return np.zeros((0, 130), np.uint8)
    pose = [
        (round(point.angle / 360 * 256) % 256, round(16 * np.log2(max(point.size, 1))))
        for point in points
    ]
    return np.column_stack([found, pose])[:most].astype(np.uint8)  # equals may exceed most


def root_sift(descriptors: np.ndarray) -> np.ndarray:
    """Square roots of the rows scaled to sum 1 (Arandjelovic & Zisserman 2012): float32 of length 1, or all 0."""
    total = descriptors.sum(axis=1, keepdims=True, dtype=np.float32)
    return np.sqrt(descriptors / np.where(total > 0, total, 1))


def brisk(image: np.ndarray, most: int = QUERY) -> np.ndarray:
    """BRISK descriptors of an RGB image's strongest keypoints (Leutenegger et al. 2011): (N, 64) uint8, 512 bits each.

    N goes from 0 to most.  OpenCV 5 keeps BRISK among its extra modules: ImportError without them.
    """
    detector, small = _brisk(), grey(image, BRISK_SIDE)
    strongest = sorted(detector.detect(small, None), key=lambda point: -point.response)[:most]
    found = detector.compute(small, strongest)[1] if strongest else None
    return np.zeros((0, 64), np.uint8) if found is None else found


def hsv_histogram(image: np.ndarray) -> np.ndarray:
    """Shares of an RGB image's pixels by quarter (row by row), hue, saturation and value: (4 * bins,), sum 1."""
    height, width = image.shape[:2]
    hue, saturation, value = cv2.split(
        cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.intp)
    )  # below 180, 256, 256
    cell = (2 * np.arange(height) // height)[:, None] * 2 + 2 * np.arange(width) // width
    for channel, bins, below in zip(
        (hue, saturation, value), HSV_BINS, (180, 256, 256), strict=True
    ):
        cell = cell * bins + channel * bins // below
    return np.bincount(cell.ravel(), minlength=4 * int(np.prod(HSV_BINS))) / cell.size


def vote(
    distances: np.ndarray,
    farthest: float,
    turns: np.ndarray | None = None,
    growths: np.ndarray | None = None,
) -> np.ndarray:
    """Weight of each product (P,): every descriptor votes for its nearest product with its margin to the second.

    distances (N, P) are those to each product's nearest descriptor; with one product the second is `farthest`
    away.  No descriptor, or only equal distances: all 0.  turns and growths (N, P), in the units of `sift`, are those
    of the same matches: then only matches that agree in both are counted, those with one of them as the middle that
    are worth most (weak geometric consistency, Jegou et al. 2008): a package is seen from one side, at one distance.
    """
    two = np.column_stack([distances, np.full(len(distances), farthest)])
    near, second = np.partition(two, 1, axis=1)[:, :2].T
    # A matrix product rounds equal columns differently, and equal packshots must have no margin.
    margin, winner = np.where(second**2 - near**2 < TIE, 0, second - near), distances.argmin(axis=1)
    if turns is None or growths is None:
        return np.bincount(winner, margin, distances.shape[1])
    votes = np.zeros(distances.shape[1])
    for product in np.unique(winner):
        own = winner == product
        turn, growth = turns[own, product], growths[own, product]
        agree = np.abs((turn[:, None] - turn + 128) % 256 - 128) <= TURN  # a circle has 256
        votes[product] = (
            (agree & (np.abs(growth[:, None] - growth) <= GROWTH)) @ margin[own]
        ).max()
    return votes


class Print(NamedTuple):
    """The keypoints of an image, ready to be compared: RootSIFT (N, 128) float32, angles and sizes (N,) int16."""

    roots: np.ndarray
    angles: np.ndarray
    sizes: np.ndarray


def prepared(rows: np.ndarray) -> Print:
    """Rows of `sift` as a Print."""
    return Print(root_sift(rows[:, :-2]), *rows[:, -2:].T.astype(np.int16))


def match(query: Print, packshot: Print) -> np.ndarray:
    """For each of a query's N keypoints the nearest one of a packshot, (3, N): how far it is, turns and grows.

    Distances are those of RootSIFT; a packshot without keypoints is SIFT_FARTHEST away.
    """
    if not len(packshot.roots):
        return np.stack(
            [np.full(len(query.roots), SIFT_FARTHEST), *np.zeros((2, len(query.roots)))]
        )
    cosine = query.roots @ packshot.roots.T  # (N, G)
    best = cosine.argmax(axis=1)
    distance = np.sqrt(2 - 2 * cosine[np.arange(len(best)), best].clip(0, 1))
    return np.stack(
        [distance, query.angles - packshot.angles[best], query.sizes - packshot.sizes[best]]
    )


def agreed(matches: Sequence[np.ndarray]) -> np.ndarray:
    """Votes (P,) of the matches (3, N) of one query with each of P products."""
    distances, turns, growths = np.stack(matches, axis=2)
    return vote(distances, SIFT_FARTHEST, turns, growths)


def sift_scores(gallery: Sequence[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Function from a query's rows of `sift` to the votes (P,); `gallery` has such rows per product."""
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
                nearest, _ = cv2.batchDistance(
                    query, rows, cv2.CV_32S, normType=cv2.NORM_HAMMING, K=1
                )
                distances[:, product] = nearest[:, 0]
        return vote(distances, BRISK_FARTHEST)

    return scores


def intersections(gallery: Sequence[np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """Function from a histogram to its intersection with each packshot's (P,): Swain & Ballard 1991."""
    every = np.stack(gallery)
    return lambda query: np.minimum(every, query).sum(axis=1)


@lru_cache(maxsize=1)
def _brisk() -> cv2.Feature2D:
    """The detector, made once: its table of sampling patterns takes longer than an image."""
    extra = getattr(cv2, "xfeatures2d", cv2)
    if not hasattr(extra, "BRISK_create"):
        raise ImportError(
            f"keypoints: this OpenCV {cv2.__version__} has no BRISK (since 5.0 among the extra modules); "
            "install opencv-contrib-python-headless in place of opencv-python-headless"
        )
    return extra.BRISK_create(BRISK_THRESHOLD)
