"""The one store in which all photographs of the shop's sets are taken: its lamps, freezer
doors and stickers.

Pre-training never sees this store, fine-tuning and evaluation always do: the gap between a
general corpus and retail that fine-tuning is there to close.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator

from klip.shop.paint import as_mask, axes, between, blend, edge, in_bytes, lighten, noise, row_of

LAMPS = (0.86, 1.0, 0.82)
"""What the store's green-white lamps leave of red, green and blue."""


def in_store(image: ndarray, rng: Generator, *, strength: float) -> ndarray:
    """A photograph, RGB uint8 (S, S, 3), behind the store's glass; 0 changes nothing."""
    canvas = as_mask(image)
    lamps = np.float32(LAMPS) * np.float32(between(rng, 0.9, 1.1))
    size = len(canvas)
    canvas *= row_of(1 + (lamps - 1) * np.float32(strength), size)
    x, y = axes(size, size)
    if rng.random() < 0.7:  # mist on the pane
        grain = noise(rng, (size, size), zoom=between(rng, 0.7, 2.0))
        mist, dense = np.clip(grain * 1.6 - 0.5, 0, 1), between(rng, 0.2, 0.7)
        blend(canvas, (0.72, 0.78, 0.8), where=mist, opacity=dense * strength)
    for _ in range(int(rng.integers(0, 4))):  # lamps mirrored in the pane
        turn, offset = rng.normal(1.2, 0.25), between(rng, -0.9, 0.9)
        width = between(rng, 0.03, 0.14)
        across = x * np.sin(turn) - y * np.cos(turn)
        across -= offset
        bright = np.float32(between(rng, 0.2, 0.7) * strength)
        _mirrored(canvas, np.abs(across, out=across) - width, bright=bright)
    if rng.random() < 0.4:  # wires of the rack
        period, phase = between(rng, 0.25, 0.6), between(rng, 0, 1)
        along = x if rng.random() < 0.5 else y
        # A saw-tooth that is 0 in the middle of each wire.
        wire = np.abs(((along / period + phase) % 1.0) - 0.5) * period
        mask = edge(wire - between(rng, 0.015, 0.04), 0.02)
        opacity = 0.9 * min(1.0, 1.3 * strength)
        where = mask + np.zeros((size, size), np.float32)
        blend(canvas, (0.75, 0.76, 0.78), where=where, opacity=opacity)
    if rng.random() < 0.7 * strength:
        _sticker(canvas, rng)
    return in_bytes(canvas)


def _mirrored(canvas: ndarray, distance: ndarray, *, bright: np.float32) -> None:
    """Add the light of a lamp to a canvas (S, S, 3), in place; distance (S, S): from its rim,
    below 0 within.
    """
    # The edge is 0.1 wide, so beyond 0.05 there is none.
    left, top, wide, high = cv2.boundingRect((distance < 0.06).view(np.uint8))
    seen = slice(top, top + high), slice(left, left + wide)
    lighten(canvas[seen], edge(distance[seen], 0.1) * bright)


def _sticker(canvas: ndarray, rng: Generator) -> None:
    """A sticker with a bar code somewhere on the pane, in place."""
    size = len(canvas)
    height, width = int(size * between(rng, 0.14, 0.3)), int(size * between(rng, 0.2, 0.42))
    top, left = rng.integers(0, size - height), rng.integers(0, size - width)
    yellow, red = (250, 217, 25), (242, 64, 38)
    paper = yellow if rng.random() < 0.6 else red
    sticker = np.full((height, width, 3), paper, np.uint8)
    bars = np.repeat(rng.random(width // 2 + 1) < 0.5, 2)[: width - 4]
    sticker[height // 3 : -2, 2 : width - 2][:, bars] = 12
    canvas[top : top + height, left : left + width] = sticker / np.float32(255)
