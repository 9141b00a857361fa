"""Pictures of products: clean packshots from the web, and photographs taken in a shop.

Both take a product cut out and trimmed (`klip.shop.packshot`), RGBA uint8 (h, w, 4), and
give RGB uint8 (size, size, 3).  All chance comes from the generator passed in.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator

from klip.shop.camera import coarse, compressed, exposed
from klip.shop.paint import (
    any_colour,
    axes,
    between,
    blend,
    edge,
    for_each_channel,
    lighten,
    noise,
    row_of,
)
from klip.shop.shelf import copies, hand, lay, pile, shade_behind, shelf, strip

STYLES = ("tight", "scene", "pile")
"""What a photograph shows: the product close, before a shelf, or a heap of it."""


def _corners(
    rng: Generator, centre: Sequence[float], *, sides: tuple, degrees: float, warp: float
) -> ndarray:
    """Corners (4, 2) of a rectangle with sides (width, height), turned, and bent by up to
    `warp`, 0..0.3, as by perspective.
    """
    points = np.float32([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * np.float32(sides) / 2
    points *= 1 + rng.uniform(-warp, warp, (4, 2)).astype(np.float32)
    if rng.random() < 0.5:  # two opposite sides differ in length
        axis = int(rng.integers(2))
        points[:, axis] *= 1 + warp * between(rng, -1, 1) * np.float32([-1, 1, 1, -1])
    points[:, 0] += points[:, 1] * between(rng, -warp, warp)  # slanted
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return points @ np.float32([[c, s], [-s, c]]) + np.float32(centre)


def on_white(part: ndarray, rng: Generator, *, size: int) -> ndarray:
    """A clean packshot as a web shop shows it, RGB uint8 (size, size, 3)."""
    canvas = np.full((size, size, 3), 255.0, np.float32)
    if rng.random() < 0.12:
        canvas[:] = row_of(np.float32(any_colour(rng, (0, 0.3), value=(0.75, 1))) * 255, size)
        slope = axes(size, size)[1] * np.float32(between(rng, -15, 15))
        canvas += for_each_channel(np.broadcast_to(slope, (size, size)))
    high, wide = part.shape[:2]
    fill = between(rng, 0.96, 1.04) if rng.random() < 0.5 else between(rng, 0.5, 0.97)
    scale = size * fill / max(wide, high)
    wide, high = wide * scale, high * scale
    if rng.random() < 0.25:
        # Square, as some shops squash their pictures, or a little out of shape.
        stretch = np.sqrt(wide / high) if rng.random() < 0.6 else between(rng, 0.85, 1.15)
        wide, high = min(wide / stretch, size), min(high * stretch, size)
    centre = [size / 2 + max(size - side, 0) / 2 * between(rng, -0.5, 0.5) for side in (wide, high)]
    degrees = rng.normal(0, 12) if rng.random() < 0.12 else 0.0
    warp = 0.03 if rng.random() < 0.3 else 0.0
    corners = _corners(rng, centre, sides=(wide, high), degrees=degrees, warp=warp)
    if rng.random() < 0.3:
        x, y = axes(size, size)
        floor = corners[:, 1].max() / size * 2 - 1
        shadow = edge(np.hypot(x / max(wide / size, 0.1) / 1.05, (y - floor) / 0.08) - 1, 1.0)
        blend(canvas, (90, 90, 95), where=shadow, opacity=between(rng, 0.2, 0.7))
    lay(canvas, part, corners=corners)
    if rng.random() < 0.6:  # contrast, with white kept, and a light cast
        canvas = (canvas - 255) * np.float32(between(rng, 0.85, 1.1)) + 255
        canvas *= row_of(rng.uniform(0.96, 1.03, 3), size)
    if rng.random() < 0.35:
        canvas = coarse(canvas, rng, side=int(np.exp(rng.uniform(np.log(36), np.log(size)))))
    out = np.clip(canvas, 0, 255).astype(np.uint8)
    return compressed(out, int(rng.integers(35, 96))) if rng.random() < 0.7 else out


def photograph(
    part: ndarray,
    rng: Generator,
    *,
    size: int,
    others: Sequence[ndarray] = (),
    style: str | None = None,
    strength: float = 1.0,
    squashed: float = 0.5,
) -> ndarray:
    """A photograph of the product in a shop, RGB uint8 (size, size, 3).

    `others` are other products, cut out and trimmed, for the shelf behind; `style` is one of STYLES,
    None for chance; `strength` 0..1 scales how far light, blur, geometry and covering go;
    `squashed` is the share of the tight ones whose product fills the square without its
    aspect ratio.
    """
    if style is None:
        style = str(rng.choice(STYLES, p=(0.47, 0.43, 0.1)))
    if style not in STYLES:
        known = ", ".join(STYLES)
        raise ValueError(f"shop photograph: style must be one of {known} or None, got {style!r}")
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"shop photograph: strength must lie in 0..1, got {strength!r}")
    canvas = np.empty((size, size, 3), np.float32)
    if style == "pile":
        pile(canvas, part, rng=rng)
    elif style == "tight":
        covered = rng.random() < 0.5  # there is little to see behind the product
        shelf(canvas, rng, others=() if covered else others)
        corners = _tight(part, rng, size=size, strength=strength, squashed=squashed)
    else:
        shelf(canvas, rng, others=others)
        if rng.random() < 0.4:  # out of focus
            canvas = cv2.GaussianBlur(canvas, (0, 0), size * between(rng, 0.005, 0.025))
        corners = _held(part, rng, size=size, strength=strength)
    if style != "pile":
        chances = (0.5, 0.12) if style == "tight" else (0.3, 0.6)
        _stand(canvas, part, corners=corners, rng=rng, chances=chances, strength=strength)
    return exposed(canvas, rng, strength=strength, style=style)


def _stand(
    canvas: ndarray,
    part: ndarray,
    *,
    corners: ndarray,
    rng: Generator,
    chances: tuple,
    strength: float,
) -> None:
    """Put the product where its corners are, in place, with what stands beside, behind and
    before it; chances: of its copies, and of a hand.
    """
    if rng.random() <= chances[0]:
        copies(canvas, part, corners=corners, rng=rng)
    if rng.random() < 0.6:
        shade_behind(canvas, rng, corners=corners)
    mask = lay(canvas, part, corners=corners)
    if rng.random() < 0.5:
        _relief(canvas, mask, rng=rng, strength=strength)
    if rng.random() < chances[1] * (0.3 + 0.7 * strength):
        hand(canvas, rng, corners=corners)
    if rng.random() < 0.25 * strength:
        strip(canvas, rng)


def cut_out(image: ndarray, part: ndarray, *, rng: Generator) -> ndarray:
    """The middle of a square picture in about its product's shape, as a detector crops it:
    (h, w, 3), one side S.
    """
    high, wide = part.shape[:2]
    size, aspect = len(image), wide / high * np.exp(rng.normal(0, 0.12))
    width = max(8, round(size * min(1, aspect)))
    height = max(8, round(size * min(1, 1 / aspect)))
    x, y = (size - width) // 2, (size - height) // 2
    return image[y : y + height, x : x + width]


def _tight(
    part: ndarray, rng: Generator, *, size: int, strength: float, squashed: float
) -> ndarray:
    """Where the product lies in a close crop: perhaps squashed, perhaps cut off."""
    high, wide = part.shape[:2]
    aspect, fill = wide / high, between(rng, 0.85, 1.1)
    wide, high = size * fill * min(aspect, 1.0), size * fill * min(1 / aspect, 1.0)
    if rng.random() < squashed:
        wide, high = size * between(rng, 0.85, 1.15), size * between(rng, 0.85, 1.15)
    x, y = size / 2 + rng.normal(0, 0.03, 2) * size
    if rng.random() < 0.45 * strength:
        # Larger, and moved towards one side, over which it hangs out.
        cut = rng.uniform(0.05, 0.38, 2) * (rng.random(2) < (0.6, 0.5))
        wide, high = wide * (1 + cut[0] * 1.3), high * (1 + cut[1] * 1.3)
        x += cut[0] * wide * 0.5 * rng.choice((-1, 1))
        y += cut[1] * high * 0.5 * rng.choice((-1, 1))
    degrees = rng.normal(0, 5) if rng.random() < 0.8 else between(rng, -40, 40) * strength
    if rng.random() < 0.03 * strength:
        degrees += rng.choice((90, 180, 270))
    return _corners(rng, (x, y), sides=(wide, high), degrees=degrees, warp=0.12 * strength)


def _held(part: ndarray, rng: Generator, *, size: int, strength: float) -> ndarray:
    """Where the product lies in a scene: 35 to 95 % of the frame, leaning."""
    high, wide = part.shape[:2]
    scale = size * between(rng, 0.35 if strength > 0.5 else 0.5, 0.95) / max(wide, high)
    degrees = float(np.clip(rng.normal(0, 16), -42, 42)) * strength
    if rng.random() < 0.06 * strength:
        degrees += rng.choice((90, 180, 270))
    centre = size / 2 + rng.normal(0, 0.14 * size, 2) * strength
    sides = wide * scale * between(rng, 0.8, 1.15), high * scale
    return _corners(rng, centre, sides=sides, degrees=degrees, warp=0.16 * strength)


def _relief(canvas: ndarray, mask: ndarray, *, rng: Generator, strength: float) -> None:
    """Light that falls unevenly on the product itself: a gradient and glare."""
    size = len(canvas)
    x, y = axes(size, size)
    turn = between(rng, 0, 6.28)
    along = x * np.cos(turn) + y * np.sin(turn)
    light = 1 + mask * along * np.float32(between(rng, 0, 0.6) * strength)
    for channel in range(3):
        canvas[..., channel] *= light
    if rng.random() < 0.5 * strength:
        glare = np.exp(-(((along - between(rng, -0.8, 0.8)) / between(rng, 0.05, 0.3)) ** 2))
        if rng.random() < 0.5:
            glare *= np.clip(noise(rng, (size, size), zoom=size / 60) * 4 - 1.6, 0, 1)
        lighten(canvas, mask * glare * np.float32(between(rng, 40, 220)))
