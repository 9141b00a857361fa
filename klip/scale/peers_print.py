"""Contenders that compare the print of photographs with packshots: klip's votes and OpenCV.

All get the same SIFT keypoints (`keypoints.sift`), on one core.  A round compares each
query with all packshots.  Peers count what is left of two neighbours by Lowe's ratio.
Axes: Q queries, P packshots, N descriptors of an image.
Run as a program it is one contestant (`contender.serve`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np

from klip.data.images import read
from klip.recognise import keypoints
from klip.scale import contender, contest
from klip.scale.contender import Round
from klip.settings.cores import one_core

RATIO = 0.75
"""A match is nearer than this times the second neighbour (Lowe 2004 has 0.8, OpenCV's
tutorials 0.7 to 0.75)."""
TREES, CHECKS = 5, 50
"""Of FLANN's k-d trees, as in OpenCV's tutorials."""


@dataclass(frozen=True)
class Prints:
    """What a contestant is given: files."""

    queries: list[str]
    packshots: list[str]

    def seen(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Rows of `keypoints.sift` of each query and each packshot."""
        queries = [keypoints.sift(read(file)) for file in self.queries]
        return queries, [keypoints.sift(read(file), keypoints.PACKSHOT) for file in self.packshots]

    def round(self, votes: Callable[[int], Sequence[float]]) -> Round:
        """A round of a function from the place of a query to its votes (P,); it tells who won."""

        def work() -> dict[str, Any]:
            places = range(len(self.queries))
            with one_core():
                started = time.perf_counter()
                found = [votes(place) for place in places]
                seconds = time.perf_counter() - started
            winners = [int(np.argmax(own)) for own in found]
            return {"work": len(found), "seconds": seconds, "first": winners}

        return work


def contenders(given: Prints, names: Sequence[str] = ()) -> list[contest.Contender]:
    """Contenders of these names; without names all."""
    how = {"notes": NOTES, "names": names or list(CONTESTANTS)}
    return contest.entered("klip.scale.peers_print", asdict(given), **how)


def klip(given: dict[str, Any]) -> Round:
    """klip's votes."""
    asked = Prints(**given)
    seen, packshots = ([keypoints.prepared(own) for own in rows] for rows in asked.seen())
    return asked.round(lambda place: keypoints.sift_votes(seen[place], packshots))


def brute_force(given: dict[str, Any]) -> Round:
    """OpenCV's BFMatcher, packshot by packshot."""
    asked = Prints(**given)
    seen, packshots = map(_descriptors, asked.seen())
    matcher = cv2.BFMatcher(cv2.NORM_L2)

    def votes(place: int) -> list[int]:
        return [_kept(matcher.knnMatch(seen[place], own, k=2)) for own in packshots]

    return asked.round(votes)


def flann(given: dict[str, Any]) -> Round:
    """OpenCV's FLANN, with an index of each packshot that is made once."""
    asked = Prints(**given)
    seen, packshots = map(_descriptors, asked.seen())
    matchers = []
    for own in packshots:
        matcher = cv2.FlannBasedMatcher({"algorithm": 1, "trees": TREES}, {"checks": CHECKS})
        matcher.add([own])
        matcher.train()
        matchers.append(matcher)

    def votes(place: int) -> list[int]:
        return [_kept(matcher.knnMatch(seen[place], k=2)) for matcher in matchers]

    return asked.round(votes)


def only_keypoints(given: dict[str, Any]) -> Round:
    """OpenCV's SIFT of each query, which all of them need before."""
    asked = Prints(**given)
    pixels = [read(file) for file in asked.queries]
    return asked.round(lambda place: [len(keypoints.sift(pixels[place]))])


def _descriptors(images: list[np.ndarray]) -> list[np.ndarray]:
    """What OpenCV matches of `keypoints.sift`: (N, 128) float32; at least two rows, for it
    wants two neighbours."""
    floats = [own[:, :128].astype(np.float32) for own in images]
    return [own if len(own) > 1 else np.zeros((2, 128), np.float32) for own in floats]


def _kept(pairs: Sequence) -> int:
    """How many nearest neighbours are much nearer than the second ones."""
    return sum(near.distance < RATIO * second.distance for near, second in pairs)


CONTESTANTS = {
    "klip": klip,
    "opencv BFMatcher": brute_force,
    "opencv FLANN": flann,
    "floor: keypoints": only_keypoints,
}
NOTES = {
    "opencv BFMatcher": "knnMatch and Lowe's ratio, packshot by packshot",
    "opencv FLANN": "the same with k-d trees, made before",
    "floor: keypoints": "finding those of the query, which all of them need",
}

if __name__ == "__main__":
    contender.serve(CONTESTANTS)
