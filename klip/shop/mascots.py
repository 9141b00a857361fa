"""Emblems, mascots and people on packs, drawn from blobs and mirrored polygons."""

from __future__ import annotations

import numpy as np

from klip.shop.paint import Colour, blend, edge, grid, hsv, layer, mix, paste, polygon


def emblem(canvas: np.ndarray, rng: np.random.Generator, main: Colour, inner: Colour) -> None:
    """A mirrored shape on an RGBA canvas, mostly with a smaller one inside."""
    height, width = canvas.shape[:2]
    angles = np.sort(rng.uniform(-1.57, 1.57, int(rng.integers(4, 11))))
    radii = rng.uniform(0.25, 1.0, len(angles))
    right = np.stack((radii * np.cos(angles), radii * np.sin(angles)), 1)
    points = np.vstack((right, right[::-1] * (-1, 1)))
    canvas[..., :3], canvas[..., 3] = main, polygon(height, width, points)
    if rng.random() < 0.7:
        smaller = points * rng.uniform(0.4, 0.8)
        blend(canvas[..., :3], polygon(height, width, smaller), inner)


def figure(
    kind: str, canvas: np.ndarray, rng: np.random.Generator, colours: tuple[Colour, ...]
) -> None:
    """A creature, or else the bust of a person."""
    main, a, b = colours
    animal = kind == "creature"
    if animal:
        for side in (-1, 1):
            ear = rng.uniform(0.3, 0.5)
            _blob(canvas, side * ear, -0.75, rng.uniform(0.1, 0.25), rng.uniform(0.15, 0.3), a)
            wide, high = rng.uniform(0.1, 0.3), rng.uniform(0.1, 0.35)
            _blob(canvas, side * 0.45, 0.35, wide, high, main)
        _blob(canvas, 0, 0.45, rng.uniform(0.35, 0.6), rng.uniform(0.4, 0.55), main)
        _blob(canvas, 0, 0.5, 0.3, 0.35, mix(main, (1, 1, 1), 0.5))
        _blob(canvas, 0, -0.3, rng.uniform(0.4, 0.6), rng.uniform(0.35, 0.5), main)
    else:
        skin = hsv(rng.uniform(0.03, 0.1), rng.uniform(0.2, 0.6), rng.uniform(0.35, 0.98))
        _blob(canvas, 0, -0.3, rng.uniform(0.4, 0.65), rng.uniform(0.45, 0.65), b)
        _blob(canvas, 0, 0.95, rng.uniform(0.6, 0.9), 0.55, main)
        _blob(canvas, 0, -0.15, rng.uniform(0.28, 0.4), rng.uniform(0.4, 0.5), skin)
    gap = rng.uniform(0.12, 0.22)
    for side in (-1, 1):
        if animal:
            _blob(canvas, side * gap, -0.35, 0.12, 0.14, (1, 1, 1))
        _blob(canvas, side * gap, -0.33 if animal else -0.2, 0.055, 0.07, (0.05, 0.05, 0.05))
    mouth = rng.uniform(0.05, 0.2), rng.uniform(0.03, 0.09)
    _blob(canvas, 0, -0.08 if animal else 0.08, *mouth, (0.6, 0.1, 0.15))


def _blob(canvas: np.ndarray, cx: float, cy: float, rx: float, ry: float, colour: Colour) -> None:
    """An ellipse lit from its middle; the canvas reaches from -1 to 1."""
    height, width = canvas.shape[:2]
    x, y = grid(height, width)
    distance = np.hypot((x - cx) / rx, (y - cy) / ry)
    lit = np.float32(colour) * (1.1 - 0.35 * distance)[..., None]
    mask = edge((distance - 1) * min(rx, ry), 4 / min(height, width))
    paste(canvas, layer(lit, mask), width / 2, height / 2)
