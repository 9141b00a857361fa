"""What lies under the print of a label: its ground, and large shapes across it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator

from klip.shop.paint import Colour, Shape, blend, edge, grid, mix, noise, paste
from klip.shop.pictures import KINDS, picture

_GROUNDS = """plain plain plain gradient gradient radial stripes checks dots cloud marble
rays split wave chevron pattern grain terrazzo fibres photo""".split()
_FIELDS = "band band swoosh arc ellipse slant frame side zigzag drip".split()
_GRAIN = {"cloud": 2.0, "marble": 1.5, "grain": 0.4, "fibres": 0.5}
"""How coarse the noise of a ground is."""


def cover(canvas: ndarray, rng: Generator, *, colours: tuple[Colour, ...]) -> None:
    """Cover a canvas, which has the first of three colours, in place."""
    shape = canvas.shape[:2]
    a, b, c = colours
    kind, turn, n = str(rng.choice(_GROUNDS)), rng.uniform(0, 3.15), int(rng.integers(3, 14))
    if rng.random() < 0.4:
        b = mix(a, b, share=rng.uniform(0.15, 0.6))
    if kind == "pattern":
        _tiled(canvas, rng, colours=[b, c, b])
    elif kind == "photo":
        shown = str(rng.choice(("heap", "scene", "texture", "splash", "cluster", "abstract")))
        paste(canvas, picture(shown, rng, shape=shape, colours=[a, b, c]))
    elif kind in _GRAIN:
        blend(canvas, b, where=_noisy(kind, rng, shape=shape))
    elif kind == "terrazzo":
        blend(canvas, b, where=_chips(canvas, rng, n=n, colour=c))
    elif kind in ("split", "wave"):
        share = _parted(canvas, rng, wavy=kind == "wave", turn=turn, colour=c)
        blend(canvas, b, where=share)
    elif kind != "plain":
        share = _drawn(kind, rng, shape=shape, turn=turn, n=n)
        blend(canvas, b, where=share.astype(np.float32))


def _axes(shape: Shape, turn: float) -> tuple[ndarray, ...]:
    """x, y, and both turned: along and across; 1 is half the height."""
    x, y = grid(*shape)
    x = x * (shape[1] / shape[0])
    return x, y, x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)


def _noisy(kind: str, rng: Generator, *, shape: Shape) -> ndarray:
    stretch = 8.0 if kind == "fibres" else 1.0
    grain = noise(rng, shape, zoom=_GRAIN[kind], stretch=stretch)
    if kind == "marble":  # veins: many waves within one step of the noise
        return (0.5 + 0.5 * np.sin(25 * grain)).astype(np.float32)
    return np.clip(grain * 2 - 0.5, 0, 1).astype(np.float32)


def _chips(canvas: ndarray, rng: Generator, *, n: int, colour: Colour) -> ndarray:
    """Chips of stone: those of `colour` are painted at once, the mask is of the others."""
    height, width = canvas.shape[:2]
    cells = rng.random((2 * n, 2 * n)).astype(np.float32)
    cells = cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)
    # High ground is one colour, low ground the other: their chips cannot touch.
    blend(canvas, colour, where=np.clip((0.25 - cells) * 14, 0, 1))
    return np.clip((cells - 0.6) * 14, 0, 1).astype(np.float32)


def _parted(canvas: ndarray, rng: Generator, *, wavy: bool, turn: float, colour: Colour) -> ndarray:
    """Mask of one of two parts; a rim between them is painted in `colour` at once."""
    _, _, along, across = _axes(canvas.shape[:2], turn)
    if wavy:
        along = along + rng.uniform(0.1, 0.4) * np.sin(across * rng.uniform(2, 6) + turn)
    share = edge(along + rng.uniform(-0.5, 0.5), 0.03)
    rim = np.abs(along - rng.uniform(-0.4, 0.4)) - rng.uniform(0, 0.12)
    blend(canvas, colour, where=edge(rim, 0.03))
    return share.astype(np.float32)


def _drawn(kind: str, rng: Generator, *, shape: Shape, turn: float, n: int) -> ndarray:
    """Share of the second colour, 0..1; `n` says how many stripes, rays or dots."""
    x, y, along, across = _axes(shape, turn)
    if kind == "gradient":
        return np.clip(0.5 + along * rng.uniform(0.3, 1), 0, 1)
    if kind == "radial":
        distance = np.hypot(x - rng.uniform(-0.4, 0.4), y - rng.uniform(-0.6, 0.6))
        return np.clip(distance * rng.uniform(0.6, 1.2), 0, 1)
    if kind == "stripes":
        along = _axes(shape, rng.choice((0.0, 1.57, 0.785, turn)))[2]
        level = rng.uniform(-0.6, 0.6)
        bent = np.sin(along * n * 2 + rng.uniform(-1, 1) * np.sin(along * 5))
        return edge(level - bent, 0.25 * n / 8)
    if kind == "checks":
        return (edge(np.sin(along * n * 2), 0.3) + edge(np.sin(across * n * 2), 0.3)) * 0.5
    if kind == "dots":
        waves = np.cos(along * n * 2) * np.cos(across * n * 2)
        return edge(rng.uniform(-0.2, 0.9) - waves, 0.4)
    if kind == "rays":
        cx, cy = rng.uniform(-0.4, 0.4), rng.uniform(-0.8, 0.8)
        return edge(np.sin(np.arctan2(y - cy, x - cx) * 2 * n), 0.3)
    return edge(np.sin((y + rng.uniform(0.5, 1.5) * np.abs(x)) * n * 1.5), 0.3)  # chevron


def _tiled(canvas: ndarray, rng: Generator, *, colours: list[Colour]) -> None:
    """A small picture, over and over."""
    height, width = canvas.shape[:2]
    tile = np.zeros((height // 4 + 4, width // 3 + 4, 4), np.float32)
    kind, shape = str(rng.choice(KINDS)), (max(height // 5, 8), max(width // 4, 8))
    one = picture(kind, rng, shape=shape, colours=colours)
    paste(tile, one, degrees=rng.uniform(-40, 40))
    tiled = np.tile(tile, (5, 4, 1))[:height, :width]
    blend(canvas, tiled[..., :3], where=tiled[..., 3] * rng.uniform(0.3, 1))


def field_mask(rng: Generator, shape: Shape, *, low: float, high: float) -> ndarray:
    """Mask of a large shape across the label, between two heights (0 top .. 1 bottom)."""
    x, y = grid(*shape)
    kind = str(rng.choice(_FIELDS))
    top, bottom = low * 2 - 1, high * 2 - 1
    soft = 3.0 / shape[0]
    if kind == "ellipse":
        rise = (y - (top + bottom) / 2) / (bottom - top) * 2
        return edge((np.hypot(x / rng.uniform(0.6, 1.1), rise) - 1) * 0.3, soft)
    if kind == "frame":
        inset = rng.uniform(0.03, 0.15)
        within = np.abs(np.maximum(np.abs(x), np.abs(y)) - 1 + inset)
        return edge(within - inset * rng.uniform(0.2, 1), soft)
    if kind == "side":
        return edge(np.abs(x - rng.choice((-0.75, 0.75, 0.0))) - rng.uniform(0.1, 0.3), soft)
    # A band that is bent.  All bends draw their chance, whichever is taken.
    bend = {
        "band": 0 * x,
        "swoosh": rng.uniform(-0.3, 0.3) * np.sin(2.5 * x),
        "arc": rng.uniform(-0.4, 0.4) * (x * x - 0.5),
        "slant": rng.uniform(-0.4, 0.4) * x,
        "zigzag": 0.06 * np.sign(np.sin(x * 20)) * (x * 20 % 3.14 - 1.5),
        "drip": 0.12 * np.sin(x * rng.uniform(5, 12)) + 0.06 * np.sin(x * 17),
    }[kind]
    thinner = rng.uniform(-0.3, 0.3) * x * (bottom - top) if kind == "swoosh" else 0.0
    return edge(np.abs(y + bend - (top + bottom) / 2) - (bottom - top) / 2 + thinner, soft)
