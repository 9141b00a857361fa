"""Drawing on float canvases: every picture of the shop is made from these few operations.

A canvas is float32 RGB of shape (height, width, 3) with values 0..1; a sprite is float32
RGBA of shape (height, width, 4) with straight (not premultiplied) alpha.  Colours are RGB
triples 0..1.  A mask is float32 (height, width), 0..1; a `shape` is (height, width),
a point (x, y) and a box (x0, y0, x1, y1), in pixels.
"""

from __future__ import annotations

import colorsys
import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator

Colour = tuple[float, float, float]
Shape = tuple[int, int]
Box = tuple[float, float, float, float]
Point = tuple[float, float]


def stream(*keys: object) -> Generator:
    """A random generator that depends on nothing but `keys`."""
    digest = hashlib.blake2b("|".join(map(str, keys)).encode(), digest_size=8).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


def between(rng: Generator, low: float, high: float) -> float:
    """A number between two others: the one `rng.uniform` gives, but sooner."""
    return low + (high - low) * rng.random()


def pick(rng: Generator, options: Sequence) -> Any:
    """One of the options, as it is; `rng.choice` would make an array of them."""
    return options[int(rng.integers(len(options)))]


def pick_weighted(rng: Generator, options: Sequence, *, p: tuple[float, ...]) -> Any:
    """One of the options, with probabilities p: the one `rng.choice` gives, but sooner."""
    return options[bisect_right(_cumulated(p), rng.random())]


@lru_cache(maxsize=64)
def _cumulated(p: tuple[float, ...]) -> list[float]:
    """The sums of p up to each place, as `rng.choice` makes them."""
    sums = np.cumsum(p)
    return (sums / sums[-1]).tolist()


def hsv(hue: float, saturation: float, *, value: float) -> Colour:
    """RGB of a hue in turns (any real number), saturation and value (clipped to 0..1)."""
    saturation, value = min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0)
    return colorsys.hsv_to_rgb(hue % 1.0, saturation, value)


def any_colour(
    rng: Generator, saturation: tuple[float, float], *, value: tuple[float, float]
) -> Colour:
    """A colour of any hue whose saturation and value lie between two bounds."""
    hue, saturated = rng.random(), between(rng, *saturation)
    return hsv(hue, saturated, value=between(rng, *value))


def luma(colour: Colour) -> float:
    """Perceived brightness 0..1: the weights of ITU-R BT.601, on the stored RGB values."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def mix(first: Colour, second: Colour, *, share: float) -> Colour:
    """`share` of the second colour, the rest of the first."""
    pairs = zip(first, second, strict=True)
    return tuple(a * (1.0 - share) + b * share for a, b in pairs)


@lru_cache(maxsize=256)
def grid(height: int, width: int) -> tuple[ndarray, ndarray]:
    """(x, y) of the pixel centres, (height, width) each, -1 to 1.  Do not write."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return (x + 0.5) * (2.0 / width) - 1.0, (y + 0.5) * (2.0 / height) - 1.0


@lru_cache(maxsize=256)
def axes(height: int, width: int) -> tuple[ndarray, ndarray]:
    """`grid` as one row x (1, width) and one column y (height, 1), which broadcast to it: what
    hangs on x or on y alone need not be computed for every pixel.  Do not write.
    """
    x, y = grid(height, width)
    return x[:1], y[:, :1]


@lru_cache(maxsize=1)
def _noise_bank() -> ndarray:
    """(24, 512, 512) fractal noise 0..1, from cloudy to rough: 256 x 256 tiles, two by two.

    They wrap around, so one tile would do; but OpenCV is slow where it has to wrap.
    """
    rng = stream("noise bank")
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None]) * 256
    tiles = []
    for index in range(24):
        # White noise whose spectrum falls as a power of the frequency: the steeper, the
        # cloudier.  Its lowest frequencies go, else a tile would be bright at one end.
        white = np.fft.fft2(rng.standard_normal((256, 256)))
        spectrum = white / np.maximum(frequency, 1.0) ** (0.7 + index / 14)
        tile = np.fft.ifft2(spectrum * (frequency > 1.5)).real
        tiles.append(np.clip(0.5 + 0.19 * tile / tile.std(), 0.0, 1.0))
    return np.tile(np.asarray(tiles, np.float32), (1, 2, 2))


def noise(rng: Generator, shape: Shape, *, zoom: float = 1.0, stretch: float = 1.0) -> ndarray:
    """Fractal noise 0..1; `zoom` enlarges the grain, `stretch` lengthens it vertically."""
    tile = _noise_bank()[int(rng.integers(24))]
    turn = rng.uniform(0, 6.28) if stretch == 1.0 else 0.0
    u, v = rng.uniform(0, 256, 2)
    c, s = np.cos(turn) / zoom, np.sin(turn) / zoom
    # From the picture back to the tile: turned, scaled, and begun anywhere in it.
    matrix = np.float32([[c, -s / stretch, u], [s, c / stretch, v]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(tile, matrix, shape[::-1], flags=flags, borderMode=cv2.BORDER_WRAP)


def row_of(colour: Colour | ndarray, width: int) -> ndarray:
    """A row of pixels of one colour, RGB or RGBA, float32 (width, channels).

    NumPy takes a row and a canvas ten times as fast as a colour and a canvas: its inner loop
    is then a row long, not three numbers.
    """
    return np.full((width, len(colour)), colour, np.float32)


def for_each_channel(mask: ndarray) -> ndarray:
    """A mask once for red, green and blue, (height, width, 3): faster than mask[..., None]."""
    mask = np.ascontiguousarray(mask)  # OpenCV takes ten times as long for a part of an array
    return cv2.merge((mask, mask, mask))


def blend(
    canvas: ndarray, colour: Colour | ndarray, *, where: ndarray, opacity: float = 1.0
) -> None:
    """Lay a colour (or a canvas) over `canvas`, in place, as the mask `where` says."""
    if np.ndim(colour) == 1:
        colour = row_of(colour, canvas.shape[1])
    colour, weight = np.asarray(colour, np.float32), where
    if opacity != 1.0:
        weight = weight * np.float32(opacity)
    if weight.dtype == np.float32:
        change = colour - canvas
        change *= for_each_channel(weight)
        canvas += change
        return
    # Three channels of float64 would not stay in the processor's cache, one does.
    for channel in range(3):
        below = canvas[..., channel]
        below += weight * (colour[..., channel] - below)


def lighten(canvas: ndarray, light: ndarray) -> None:
    """Add light, float64 (height, width), to each channel of a canvas, in place."""
    for channel in range(3):  # one stays in the processor's cache, three would not
        below = canvas[..., channel]
        below += light


def layer(colour: float | Colour | ndarray, mask: ndarray) -> ndarray:
    """A sprite: a colour, or colours (height, width, 3), seen where the mask says so."""
    colours = np.clip(colour, 0, 1).astype(np.float32)
    if colours.ndim == 3:
        planes = cv2.split(colours)
    else:
        planes = [np.full(mask.shape, one) for one in np.broadcast_to(colours, 3)]
    return cv2.merge((*planes, mask.astype(np.float32)))


def paste(
    canvas: ndarray, sprite: ndarray, *, at: Point | None = None, degrees: float = 0.0
) -> None:
    """Lay a sprite, turned, over a canvas or another sprite, in place; what hangs over is
    cut off.  `at` is where its centre goes, (x, y) in pixels; None is the middle.
    """
    if degrees:
        sprite = turned(sprite, degrees)
    if at is None:
        at = canvas.shape[1] / 2, canvas.shape[0] / 2
    if canvas.shape[2] == 3:
        stamp(canvas, *parted(sprite), at=at)
        return
    here, there = _overlap(canvas, sprite, at=at)
    target = canvas[here]
    *colours, alpha = cv2.split(sprite[there])
    # "Over" of Porter and Duff (1984) for straight alpha: the colours are weighted by how
    # much of the total cover is the sprite's, so clear pixels below do not darken it.
    total = alpha + target[..., 3] * (1 - alpha)
    share = alpha / np.maximum(total, 1e-4)
    for channel, colour in enumerate(colours):
        below = target[..., channel]
        below += share * (colour - below)
    target[..., 3] = total


def parted(sprite: ndarray) -> tuple[ndarray, ndarray]:
    """Colours of a sprite and, for each of them, its cover, (height, width, 3) each: what is
    stamped often is parted once.
    """
    *colours, alpha = cv2.split(sprite)
    return cv2.merge(colours), for_each_channel(alpha)


def stamp(canvas: ndarray, colours: ndarray, cover: ndarray, *, at: Point) -> None:
    """Lay a sprite that was parted over an RGB canvas, as `paste` does."""
    here, there = _overlap(canvas, colours, at=at)
    target = canvas[here]
    change = colours[there] - target
    change *= cover[there]
    target += change


def _overlap(canvas: ndarray, sprite: ndarray, *, at: Point) -> tuple[tuple, tuple]:
    """The part of a canvas that a sprite about `at` covers, and the part of it that does."""
    height, width = sprite.shape[:2]
    left, top = round(at[0] - width / 2), round(at[1] - height / 2)
    x0, y0 = max(left, 0), max(top, 0)
    x1 = max(min(left + width, canvas.shape[1]), x0)
    y1 = max(min(top + height, canvas.shape[0]), y0)
    there = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
    return (slice(y0, y1), slice(x0, x1)), there


def turned(sprite: ndarray, degrees: float, *, scale: float = 1.0) -> ndarray:
    """The sprite rotated and scaled, on a frame just large enough."""
    height, width = sprite.shape[:2]
    c, s = np.cos(np.radians(degrees)) * scale, np.sin(np.radians(degrees)) * scale
    new_w = max(int(abs(c) * width + abs(s) * height + 1.5), 2)
    new_h = max(int(abs(s) * width + abs(c) * height + 1.5), 2)
    dx = new_w / 2 - c * width / 2 - s * height / 2  # the middle stays the middle
    dy = new_h / 2 + s * width / 2 - c * height / 2
    matrix = np.float32([[c, s, dx], [-s, c, dy]])
    if scale < 0.6:
        # A warp looks at four pixels only: what gets much smaller is averaged first.
        sprite = cv2.resize(sprite, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        matrix[:, :2] *= np.float32([[width / sprite.shape[1], height / sprite.shape[0]]])
    return cv2.warpAffine(sprite, matrix, (new_w, new_h), flags=cv2.INTER_LINEAR)


def polygon(shape: Shape, points: ndarray) -> ndarray:
    """Anti-aliased mask of a polygon whose points (n, 2) run from -1 to 1."""
    height, width = shape
    pixels = (np.asarray(points, np.float32) + 1.0) * np.float32([width / 2, height / 2])
    return as_mask(filled(shape, pixels))


def filled(shape: Shape, pixels: ndarray) -> ndarray:
    """Anti-aliased mask, uint8, of a polygon whose points (n, 2) are in pixels."""
    mask = np.zeros(shape, np.uint8)
    # OpenCV takes fractions of a pixel as whole numbers: here sixteenths, 4 binary places.
    cv2.fillPoly(mask, [np.round(pixels * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return mask


def as_mask(drawn: ndarray) -> ndarray:
    """Mask of a drawing in uint8; or colours 0..1 of a picture."""
    mask = drawn.astype(np.float32)
    mask *= np.float32(1 / 255)
    return mask


def in_bytes(canvas: ndarray) -> ndarray:
    """A canvas 0..1 as a picture in uint8; what lies beyond is clipped."""
    clipped = np.clip(canvas, 0, 1)
    clipped *= 255
    return clipped.astype(np.uint8)


def edge(distance: ndarray, soft: float) -> ndarray:
    """Mask 0..1 that is 1 where `distance` is negative, with an edge `soft` wide."""
    return np.clip(0.5 - distance / np.float32(soft), 0.0, 1.0)
