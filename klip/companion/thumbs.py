"""Small photographs on a map: one for each product, beside the middle of its points."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from PIL import Image, ImageOps

from klip.companion.canvas import SMALL
from klip.data.images import read

SIDE, PIXELS = 0.35, 64
"""Inches of a thumbnail, and what it is made of."""
APART = 0.115
"""How far thumbnails keep from each other, in parts of an axis of four inches."""


def medoid(points: np.ndarray) -> int:
    """The row of points (N, 2) whose distances to all others are least in sum."""
    between = np.linalg.norm(points[:, None] - points[None], axis=2)  # (N, N)
    return int(between.sum(axis=1).argmin())


def thumbnails(
    ax: Axes,
    place: np.ndarray,
    files: Sequence[Path],
    *,
    owned: Sequence[tuple[str, str, np.ndarray]],
) -> None:
    """A framed photograph per product, tied to the medoid of its points.

    place (N, 2), and a file each; owned: a product's colour, its marker, which stands in
    a corner, and the rows that are its.
    """
    low, high = place.min(axis=0), place.max(axis=0)
    taken: list[np.ndarray] = []
    for shade, marker, rows in owned:
        row = rows[medoid(place[rows])]
        taken.append(free((place[row] - low) / (high - low), taken))
        at = low + taken[-1] * (high - low)
        # Lines run under the pictures of others, corners lie above.
        ax.plot(*np.stack([place[row], at]).T, color=shade, linewidth=1, zorder=2.5)
        ax.add_artist(_framed(files[row], at, shade))
        corner = at + np.array([-1, 1]) * 0.4 * APART * (high - low)
        ax.plot(*corner, marker, color=shade, markeredgecolor="white", markersize=7, zorder=4)


def _framed(file: Path, at: np.ndarray, shade: str) -> AnnotationBbox:
    """A picture, whole, on a white square around `at`."""
    picture = ImageOps.pad(Image.fromarray(read(file)), (PIXELS, PIXELS), color="white")
    frame = {"edgecolor": shade, "linewidth": 1.5}
    image = OffsetImage(np.asarray(picture), zoom=72 * SIDE / PIXELS)
    return AnnotationBbox(image, at, pad=0.08, fontsize=SMALL, bboxprops=frame, zorder=3)


def free(start: np.ndarray, taken: Sequence[np.ndarray]) -> np.ndarray:
    """The first place (2,) inside the unit square, on rings around `start`, that is clear of
    those taken; the start itself where there is none.  Off the start: it is to be seen."""
    for ring in range(1, 9):
        for turn in np.arange(12) * np.pi / 6 + np.pi / 2:
            at = start + 0.75 * APART * ring * np.array([np.cos(turn), np.sin(turn)])
            inside = bool(((at >= 0) & (at <= 1)).all())
            if inside and all(np.abs(at - other).max() >= APART for other in taken):
                return at
    return start
