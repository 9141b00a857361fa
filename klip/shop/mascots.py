"""Emblems, mascots and people on packs, drawn from blobs and mirrored polygons."""

from __future__ import annotations

import numpy as np
from numpy import ndarray
from numpy.random import Generator

from klip.shop.paint import Colour, blend, edge, grid, hsv, layer, mix, paste, polygon

_PUPIL, _MOUTH = (0.05, 0.05, 0.05), (0.6, 0.1, 0.15)


def emblem(canvas: ndarray, rng: Generator, *, main: Colour, inner: Colour) -> ndarray:
    """A mirrored shape on an RGBA canvas, mostly with a smaller one inside."""
    shape = canvas.shape[:2]
    angles = np.sort(rng.uniform(-1.57, 1.57, int(rng.integers(4, 11))))
    radii = rng.uniform(0.25, 1.0, len(angles))
    right = np.stack((radii * np.cos(angles), radii * np.sin(angles)), 1)
    points = np.vstack((right, right[::-1] * (-1, 1)))  # back along the left half
    canvas[..., :3], canvas[..., 3] = main, polygon(shape, points)
    if rng.random() < 0.7:
        smaller = points * rng.uniform(0.4, 0.8)
        blend(canvas[..., :3], inner, where=polygon(shape, smaller))
    return canvas


def creature(canvas: ndarray, rng: Generator, *, main: Colour, ears: Colour) -> ndarray:
    """An animal that looks at the viewer, on an RGBA canvas."""
    r = rng.uniform
    for side in (-1, 1):
        ear = side * r(0.3, 0.5)
        _blob(canvas, ears, at=(ear, -0.75), radii=(r(0.1, 0.25), r(0.15, 0.3)))
        _blob(canvas, main, at=(side * 0.45, 0.35), radii=(r(0.1, 0.3), r(0.1, 0.35)))
    _blob(canvas, main, at=(0, 0.45), radii=(r(0.35, 0.6), r(0.4, 0.55)))
    _blob(canvas, mix(main, (1, 1, 1), share=0.5), at=(0, 0.5), radii=(0.3, 0.35))
    _blob(canvas, main, at=(0, -0.3), radii=(r(0.4, 0.6), r(0.35, 0.5)))
    gap = r(0.12, 0.22)
    for side in (-1, 1):
        _blob(canvas, (1, 1, 1), at=(side * gap, -0.35), radii=(0.12, 0.14))
        _blob(canvas, _PUPIL, at=(side * gap, -0.33), radii=(0.055, 0.07))
    _blob(canvas, _MOUTH, at=(0, -0.08), radii=(r(0.05, 0.2), r(0.03, 0.09)))
    return canvas


def portrait(canvas: ndarray, rng: Generator, *, main: Colour, hair: Colour) -> ndarray:
    """The bust of a person dressed in the main colour, on an RGBA canvas."""
    r = rng.uniform
    skin = hsv(r(0.03, 0.1), r(0.2, 0.6), value=r(0.35, 0.98))
    _blob(canvas, hair, at=(0, -0.3), radii=(r(0.4, 0.65), r(0.45, 0.65)))
    _blob(canvas, main, at=(0, 0.95), radii=(r(0.6, 0.9), 0.55))
    _blob(canvas, skin, at=(0, -0.15), radii=(r(0.28, 0.4), r(0.4, 0.5)))
    gap = r(0.12, 0.22)
    for side in (-1, 1):
        _blob(canvas, _PUPIL, at=(side * gap, -0.2), radii=(0.055, 0.07))
    _blob(canvas, _MOUTH, at=(0, 0.08), radii=(r(0.05, 0.2), r(0.03, 0.09)))
    return canvas


def _blob(
    canvas: ndarray, colour: Colour, *, at: tuple[float, float], radii: tuple[float, float]
) -> None:
    """An ellipse lit from its middle; the canvas reaches from -1 to 1."""
    height, width = canvas.shape[:2]
    x, y = grid(height, width)
    distance = np.hypot((x - at[0]) / radii[0], (y - at[1]) / radii[1])
    lit = np.float32(colour) * (1.1 - 0.35 * distance)[..., None]
    # The distance counts in radii: times the radius, the rim is as soft at every size.
    mask = edge((distance - 1) * min(radii), 4 / min(height, width))
    paste(canvas, layer(lit, mask))
