"""Recognition without learning: keypoints that vote (SIFT, BRISK), colour histograms.

These are the floors of the tables (related work in the paper's §2).
Axes: N descriptors of a query, G of a packshot, P products in the order of the gallery.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd

from klip.data.catalogue import Catalogue
from klip.data.images import read
from klip.recognise import outcomes
from klip.settings.cores import threads

QUERY, PACKSHOT = 400, 200
"""Most keypoints of an image, the strongest first; fewer of a packshot, lest a product
win by mere number."""
SIFT_SIDE, BRISK_SIDE = 160, 256
"""Pixels of the longer side, so that thumbnails and large photographs meet in scale.

All of these numbers were chosen on ten seeded crops of the first 20 products of
GroZi-120 each (200 of its queries) and three training photographs of each of
GroceryStore's.  On eight crops of its products 1 to 60 each and the same photographs
nothing was better for SIFT on both: 256 pixels, as many keypoints of packshots,
equalised contrast (CLAHE), no enlarging, half the contrast."""
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


def describe(images: Iterable[str | Path], workers: int = 2) -> list[np.ndarray]:
    """Keypoints of packshots as `sift` gives them, at most PACKSHOT of an image."""
    with threads(workers) as pool:
        return list(pool.map(lambda image: sift(read(image), PACKSHOT), images))


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


def brisk(image: np.ndarray, most: int = QUERY) -> np.ndarray:
    """BRISK (Leutenegger et al. 2011) of an RGB image's strongest keypoints: (N, 64) uint8."""
    detector, small = _brisk(), grey(image, BRISK_SIDE)
    strongest = sorted(detector.detect(small, None), key=lambda point: -point.response)[:most]
    found = detector.compute(small, strongest)[1] if strongest else None
    return np.zeros((0, 64), np.uint8) if found is None else found


def hsv_histogram(image: np.ndarray) -> np.ndarray:
    """Shares of an RGB image's pixels by quarter, hue, saturation and value: (4 * bins,)."""
    pixels, counts = cv2.cvtColor(image, cv2.COLOR_RGB2HSV), []
    for half in np.array_split(pixels, 2):
        for quarter in np.array_split(half, 2, axis=1):
            rows = quarter.reshape(-1, 3)
            counts.append(np.histogramdd(rows, HSV_BINS, ((0, 180), (0, 256), (0, 256)))[0])
    return np.ravel(counts) / (pixels.size // 3)


class Print(NamedTuple):
    """The keypoints of an image, ready to be compared."""

    roots: np.ndarray  # (N, 128) float32
    angles: np.ndarray  # (N,) int16
    sizes: np.ndarray


def prepared(rows: np.ndarray) -> Print:
    """Rows of `sift` as a Print; RootSIFT (Arandjelovic & Zisserman 2012): of length 1, or all 0."""
    descriptors = rows[:, :-2]
    total = descriptors.sum(axis=1, keepdims=True, dtype=np.float32)
    roots = np.sqrt(descriptors / np.where(total > 0, total, 1))
    return Print(roots, *rows[:, -2:].T.astype(np.int16))


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


def vote(matches: np.ndarray, farthest: float = SIFT_FARTHEST) -> np.ndarray:
    """Weight of each product (P,): every descriptor votes for its nearest product.

    matches (3, N, P): distance, turn and growth to each product's nearest descriptor.
    A vote weighs its margin to the second product, which is `farthest` away if there is
    one product.  Only matches that agree in turn and growth count, those with one of
    them as the middle that are worth most (weak geometric consistency, Jegou et al.
    2008): a package is seen from one side, at one distance.
    """
    distances, turns, growths = matches
    two = np.column_stack([distances, np.full(len(distances), farthest)])
    near, second = np.partition(two, 1, axis=1)[:, :2].T
    # A matrix product rounds equal columns differently; equal packshots have no margin.
    margin = np.where(second**2 - near**2 < TIE, 0, second - near)
    winner = distances.argmin(axis=1)
    votes = np.zeros(distances.shape[1])
    for product in np.unique(winner):
        own = winner == product
        turn, growth = turns[own, product], growths[own, product]
        turned = np.abs((turn[:, None] - turn + 128) % 256 - 128)  # a circle has 256
        grown = np.abs(growth[:, None] - growth)
        agree = (turned <= TURN) & (grown <= GROWTH)  # row by row, with each as the middle
        votes[product] = (agree @ margin[own]).max()
    return votes


def sift_votes(query: Print, packshots: Sequence[Print]) -> np.ndarray:
    """Votes (P,) of a query's keypoints among P packshots."""
    return vote(np.stack([match(query, own) for own in packshots], axis=2))


def brisk_votes(query: np.ndarray, packshots: Sequence[np.ndarray]) -> np.ndarray:
    """Votes (P,) of a query's descriptors (N, 64), by Hamming distance."""
    matches = np.zeros((3, len(query), len(packshots)))  # nothing is known of turns
    matches[0] = BRISK_FARTHEST
    for product, rows in enumerate(packshots):
        if len(query) and len(rows):
            nearest, _ = cv2.batchDistance(query, rows, cv2.CV_32S, normType=cv2.NORM_HAMMING, K=1)
            matches[0, :, product] = nearest[:, 0]
    return vote(matches, BRISK_FARTHEST)


def intersections(query: np.ndarray, packshots: Sequence[np.ndarray]) -> np.ndarray:
    """Common shares (P,) of a histogram and each packshot's (Swain & Ballard 1991)."""
    return np.minimum(packshots, query).sum(axis=1)


METHODS = {
    "sift": (lambda image, most: prepared(sift(image, most)), sift_votes),
    "brisk": (brisk, brisk_votes),
    "hsv": (lambda image, _most: hsv_histogram(image), intersections),
}
"""What is seen of an image, and how a query is compared with the packshots."""


def evaluate(
    catalogue: Catalogue,
    method: str = "sift",
    *,
    rule: str = "first",
    seed: int = 0,
    workers: int = 2,
) -> pd.DataFrame:
    """Classify a set's queries against one packshot per product; an outcome frame.

    Queries and packshots are those of `evaluation.evaluate`.  similarity: the winner's
    votes (no upper bound), or of `hsv` the intersection in 0..1.  Equal scores go to
    the earlier product: an image without keypoints has similarity 0 and gets the
    gallery's first.
    """
    if method not in METHODS:
        raise ValueError(f"keypoints: method must be one of {', '.join(METHODS)}, got {method!r}")
    look, compare = METHODS[method]
    packshots, asked = catalogue.pick(rule, seed)
    with threads(workers) as pool:
        seen = list(pool.map(lambda file: look(read(file), PACKSHOT), packshots.files))

        def best_of(file: Path) -> tuple[np.ndarray, np.ndarray]:
            """Places of the first five packshots, and their scores."""
            scores = compare(look(read(file), QUERY), seen)
            best = np.argsort(-scores, kind="stable")[:5]
            return best, scores[best]

        places, scores = map(np.array, zip(*pool.map(best_of, asked.files), strict=True))
    products = packshots["product"].to_numpy(object)[places]  # (Q, up to 5)
    return outcomes.frame(asked, products, scores=scores)
