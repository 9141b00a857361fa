"""What lies under the print of a label: its ground, and large shapes across it."""

from __future__ import annotations

import cv2
import numpy as np

from klip.shop.paint import Colour, blend, edge, grid, mix, noise, paste
from klip.shop.pictures import KINDS, picture

_GROUNDS = """plain plain plain gradient gradient radial stripes checks dots cloud marble rays split wave
chevron pattern grain terrazzo fibres photo""".split()
_GRAIN = {"cloud": 2.0, "marble": 1.5, "grain": 0.4, "fibres": 0.5}
"""How coarse the noise of a ground is."""


def cover(canvas: np.ndarray, rng: np.random.Generator, a: Colour, b: Colour, c: Colour) -> None:
    """Cover a canvas of colour `a` in place."""
    height, width = canvas.shape[:2]
    kind, turn, n = str(rng.choice(_GROUNDS)), rng.uniform(0, 3.15), int(rng.integers(3, 14))
    if rng.random() < 0.4:
        b = mix(a, b, rng.uniform(0.15, 0.6))
    if kind == "pattern":
        _tiled(canvas, rng, [b, c, b])
    elif kind == "photo":
        shown = str(rng.choice(("heap", "scene", "texture", "splash", "cluster", "abstract")))
        paste(canvas, picture(shown, rng, height, width, [a, b, c]), width / 2, height / 2)
    elif kind in _GRAIN:
        blend(canvas, _noisy(kind, rng, height, width), b)
    elif kind in ("split", "wave", "terrazzo"):
        blend(canvas, _parted(kind, canvas, rng, turn, n, c), b)
    elif kind != "plain":
        blend(canvas, _drawn(kind, rng, height, width, turn, n).astype(np.float32), b)


def _axes(height: int, width: int, turn: float) -> tuple[np.ndarray, ...]:
    """x, y, and both turned: along and across; 1 is half the height."""
    x, y = grid(height, width)
    x = x * (width / height)
    return x, y, x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)


def _noisy(kind: str, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    grain = noise(rng, height, width, _GRAIN[kind], 8.0 if kind == "fibres" else 1.0)
    share = 0.5 + 0.5 * np.sin(25 * grain) if kind == "marble" else np.clip(grain * 2 - 0.5, 0, 1)
    return share.astype(np.float32)


def _parted(
    kind: str, canvas: np.ndarray, rng: np.random.Generator, turn: float, n: int, c: Colour
) -> np.ndarray:
    """Two parts, or chips of stone, with some of the third colour, which is painted at once."""
    height, width = canvas.shape[:2]
    if kind == "terrazzo":
        cells = rng.random((2 * n, 2 * n)).astype(np.float32)
        cells = cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)
        blend(canvas, np.clip((0.25 - cells) * 14, 0, 1), c)
        return np.clip((cells - 0.6) * 14, 0, 1).astype(np.float32)
    _, _, along, across = _axes(height, width, turn)
    if kind == "wave":
        along = along + rng.uniform(0.1, 0.4) * np.sin(across * rng.uniform(2, 6) + turn)
    share = edge(along + rng.uniform(-0.5, 0.5), 0.03)
    rim = np.abs(along - rng.uniform(-0.4, 0.4)) - rng.uniform(0, 0.12)
    blend(canvas, edge(rim, 0.03), c)
    return share.astype(np.float32)


def _drawn(
    kind: str, rng: np.random.Generator, height: int, width: int, turn: float, n: int
) -> np.ndarray:
    """Share of the second colour, 0..1."""
    x, y, along, across = _axes(height, width, turn)
    if kind == "gradient":
        return np.clip(0.5 + along * rng.uniform(0.3, 1), 0, 1)
    if kind == "radial":
        distance = np.hypot(x - rng.uniform(-0.4, 0.4), y - rng.uniform(-0.6, 0.6))
        return np.clip(distance * rng.uniform(0.6, 1.2), 0, 1)
    if kind == "stripes":
        along = _axes(height, width, rng.choice((0.0, 1.57, 0.785, turn)))[2]
        level = rng.uniform(-0.6, 0.6)
        bent = np.sin(along * n * 2 + rng.uniform(-1, 1) * np.sin(along * 5))
        return edge(level - bent, 0.25 * n / 8)
    if kind == "checks":
        return (edge(np.sin(along * n * 2), 0.3) + edge(np.sin(across * n * 2), 0.3)) * 0.5
    if kind == "dots":
        return edge(rng.uniform(-0.2, 0.9) - np.cos(along * n * 2) * np.cos(across * n * 2), 0.4)
    if kind == "rays":
        cx, cy = rng.uniform(-0.4, 0.4), rng.uniform(-0.8, 0.8)
        return edge(np.sin(np.arctan2(y - cy, x - cx) * 2 * n), 0.3)
    return edge(np.sin((y + rng.uniform(0.5, 1.5) * np.abs(x)) * n * 1.5), 0.3)  # chevron


def _tiled(canvas: np.ndarray, rng: np.random.Generator, colours: list[Colour]) -> None:
    """A small picture, over and over."""
    height, width = canvas.shape[:2]
    tile = np.zeros((height // 4 + 4, width // 3 + 4, 4), np.float32)
    kind = str(rng.choice(KINDS))
    sprite = picture(kind, rng, max(height // 5, 8), max(width // 4, 8), colours)
    paste(tile, sprite, tile.shape[1] / 2, tile.shape[0] / 2, rng.uniform(-40, 40))
    tiled = np.tile(tile, (5, 4, 1))[:height, :width]
    blend(canvas, tiled[..., 3] * rng.uniform(0.3, 1), tiled[..., :3])


def field_mask(
    rng: np.random.Generator, height: int, width: int, low: float, high: float
) -> np.ndarray:
    """Mask of a large shape across the label, between heights `low` and `high` (0 top .. 1 bottom)."""
    x, y = grid(height, width)
    kind = str(rng.choice("band band swoosh arc ellipse slant frame side zigzag drip".split()))
    top, bottom = low * 2 - 1, high * 2 - 1
    soft = 3.0 / height
    if kind == "ellipse":
        distance = np.hypot(
            x / rng.uniform(0.6, 1.1), (y - (top + bottom) / 2) / (bottom - top) * 2
        )
        return edge((distance - 1) * 0.3, soft)
    if kind == "frame":
        inset = rng.uniform(0.03, 0.15)
        return edge(
            np.abs(np.maximum(np.abs(x), np.abs(y)) - 1 + inset) - inset * rng.uniform(0.2, 1), soft
        )
    if kind == "side":
        return edge(np.abs(x - rng.choice((-0.75, 0.75, 0.0))) - rng.uniform(0.1, 0.3), soft)
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
