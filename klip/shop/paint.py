"""Drawing on float canvases: every picture of the shop is made from these few operations.

A canvas is float32 RGB of shape (height, width, 3) with values 0..1; a sprite is float32
RGBA of shape (height, width, 4) with straight (not premultiplied) alpha.  Colours are RGB
triples 0..1.
"""

from __future__ import annotations

import colorsys
import hashlib
from functools import lru_cache

import cv2
import numpy as np

Colour = tuple[float, float, float]


def stream(*keys: object) -> np.random.Generator:
    """A random generator that depends on nothing but `keys`."""
    digest = hashlib.blake2b("|".join(map(str, keys)).encode(), digest_size=8).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """RGB of a hue in turns (any real number), saturation and value (clipped to 0..1)."""
    return colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))


def luma(colour: Colour) -> float:
    """Perceived brightness 0..1."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`share` of the second colour, the rest of the first."""
    return tuple(a * (1.0 - share) + b * share for a, b in zip(first, second, strict=True))


@lru_cache(maxsize=256)
def grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (x, y) of the pixel centres, each (height, width), running from -1 to 1.
    Do not write.
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return (x + 0.5) * (2.0 / width) - 1.0, (y + 0.5) * (2.0 / height) - 1.0


@lru_cache(maxsize=1)
def _noise_bank() -> np.ndarray:
    """(24, 256, 256) fractal noise tiles 0..1 with spectra from cloudy to rough; they wrap around."""
    rng = stream("noise bank")
    frequency = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None]) * 256
    tiles = []
    for index in range(24):
        spectrum = np.fft.fft2(rng.standard_normal((256, 256))) / np.maximum(frequency, 1.0) ** (
            0.7 + index / 14
        )
        tile = np.fft.ifft2(spectrum * (frequency > 1.5)).real
        tiles.append(np.clip(0.5 + 0.19 * tile / tile.std(), 0.0, 1.0))
    return np.asarray(tiles, np.float32)


def noise(
    rng: np.random.Generator, height: int, width: int, zoom: float = 1.0, stretch: float = 1.0
) -> np.ndarray:
    """(height, width) fractal noise 0..1; `zoom` enlarges the grain, `stretch` lengthens it
    vertically.
    """
    tile = _noise_bank()[int(rng.integers(24))]
    turn, (u, v) = rng.uniform(0, 6.28) if stretch == 1.0 else 0.0, rng.uniform(0, 256, 2)
    c, s = np.cos(turn) / zoom, np.sin(turn) / zoom
    matrix = np.float32([[c, -s / stretch, u], [s, c / stretch, v]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(tile, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_WRAP)


def blend(
    canvas: np.ndarray, mask: np.ndarray, colour: Colour | np.ndarray, opacity: float = 1.0
) -> None:
    """Lay a colour (or a canvas) over `canvas` in place where `mask` (height, width) 0..1 says so."""
    weight = (mask * np.float32(opacity))[..., None]
    canvas += weight * (np.asarray(colour, np.float32) - canvas)


def layer(colour: Colour | np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A sprite: a colour, or colours (height, width, 3), clipped to 0..1, seen where `mask`
    (height, width) says so.
    """
    sprite = np.empty((*mask.shape, 4), np.float32)
    sprite[..., :3], sprite[..., 3] = np.clip(colour, 0, 1), mask
    return sprite


def paste(canvas: np.ndarray, sprite: np.ndarray, x: float, y: float, degrees: float = 0.0) -> None:
    """Lay a sprite, turned, with its centre at pixel (x, y) over a canvas or another
    sprite, in place; clips.
    """
    if degrees:
        sprite = turned(sprite, degrees)
    height, width = sprite.shape[:2]
    left, top = round(x - width / 2), round(y - height / 2)
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + width, canvas.shape[1]), min(top + height, canvas.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    part = sprite[y0 - top : y1 - top, x0 - left : x1 - left]
    target = canvas[y0:y1, x0:x1]
    alpha = part[..., 3:]
    if canvas.shape[2] == 3:
        target += alpha * (part[..., :3] - target)
        return
    total = alpha + target[..., 3:] * (1 - alpha)
    share = alpha / np.maximum(total, 1e-4)
    target[..., :3] += share * (part[..., :3] - target[..., :3])
    target[..., 3:] = total


def turned(sprite: np.ndarray, degrees: float, scale: float = 1.0) -> np.ndarray:
    """The sprite rotated and scaled, on a frame just large enough."""
    height, width = sprite.shape[:2]
    c, s = np.cos(np.radians(degrees)) * scale, np.sin(np.radians(degrees)) * scale
    new_w = max(int(abs(c) * width + abs(s) * height + 1.5), 2)
    new_h = max(int(abs(s) * width + abs(c) * height + 1.5), 2)
    matrix = np.float32(
        [
            [c, s, new_w / 2 - c * width / 2 - s * height / 2],
            [-s, c, new_h / 2 + s * width / 2 - c * height / 2],
        ]
    )
    if scale < 0.6:
        sprite = cv2.resize(sprite, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        matrix[:, :2] *= np.float32([[width / sprite.shape[1], height / sprite.shape[0]]])
    return cv2.warpAffine(sprite, matrix, (new_w, new_h), flags=cv2.INTER_LINEAR)


def polygon(height: int, width: int, points: np.ndarray) -> np.ndarray:
    """(height, width) anti-aliased mask of a polygon whose points (n, 2) run from -1 to 1."""
    mask = np.zeros((height, width), np.uint8)
    pixels = (np.asarray(points, np.float32) + 1.0) * np.float32([width / 2, height / 2])
    cv2.fillPoly(mask, [np.round(pixels * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return mask.astype(np.float32) * np.float32(1 / 255)


def edge(distance: np.ndarray, soft: float) -> np.ndarray:
    """Mask 0..1 that is 1 where `distance` is negative, with an edge `soft` wide."""
    return np.clip(0.5 - distance / np.float32(soft), 0.0, 1.0)
