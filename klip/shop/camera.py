"""The camera of the shop: light, colour, blur, sensors and file formats, on any picture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator

from klip.shop.paint import between, for_each_channel, in_bytes, row_of, stream

_SUM = np.ones((1, 3), np.float32)
"""What OpenCV multiplies red, green and blue with to add them up."""
_GRAINS = stream("sensor").standard_normal(1 << 20).astype(np.float32)


def exposed(canvas: ndarray, rng: Generator, *, strength: float, style: str) -> ndarray:
    """A canvas 0..255 as a camera takes it, RGB uint8: light, optics, sensor, file."""
    tight = style == "tight"
    dim = _lit(canvas, rng, strength=strength, tight=tight)
    canvas = _developed(canvas, rng, strength=strength, dim=dim)
    size, blur = len(canvas), rng.random()
    if blur < 0.3:
        sigma = max(size * between(rng, 0.002, 0.028) * strength, 0.1)
        canvas = cv2.GaussianBlur(canvas, (0, 0), sigma)
    elif blur < 0.5 * strength + 0.3 * (1 - strength):
        canvas = shaken(canvas, rng, length=size * between(rng, 0.02, 0.11))
    if rng.random() < 0.55:
        # Sides are drawn on a log scale: from 20 to 40 pixels is as far as from 40 to 80.
        coarsest = np.log(14 if tight else 40) * strength + np.log(size) * (1 - strength)
        side = int(np.exp(rng.uniform(coarsest, np.log(size * 1.1))))
        canvas = coarse(canvas, rng, side=side)
    if rng.random() < 0.6:
        amount = np.float32(between(rng, 0.004, 0.05) * strength)
        # A stretch of numbers drawn once: fresh ones for each picture take far longer.
        at = int(rng.integers(_GRAINS.size - canvas.size))
        grains = amount * _GRAINS[at : at + canvas.size].reshape(canvas.shape)
        canvas = np.add(grains, canvas, out=grains)
    out = in_bytes(canvas)
    return compressed(out, int(rng.integers(15, 91))) if rng.random() < 0.75 else out


def _lit(canvas: ndarray, rng: Generator, *, strength: float, tight: bool) -> bool:
    """Lamps and exposure, in place, from 0..255 to 0..1; is the picture dark?"""
    size = len(canvas)
    canvas *= np.float32(1 / 255)
    # Light that falls unevenly: a field of 3 x 3, smoothed over the picture.
    field = rng.uniform(-0.6, 0.6, (3, 3)).astype(np.float32)
    field = 1 + field * np.float32(strength * between(rng, 0, 1))
    light = cv2.resize(field, (size, size), interpolation=cv2.INTER_CUBIC)
    canvas *= for_each_channel(light)
    # Colour casts are gains on a log scale, so that they multiply and stay above 0.
    warm = rng.normal(0, 0.13)
    cast = np.array((warm, rng.normal(0.02, 0.08), -1.3 * warm)) * strength
    if rng.random() < 0.25 * strength:
        cast += rng.normal(0, 0.15, 3)
    if tight and rng.random() < 0.5 * strength:  # the yellow lamps of close crops
        cast += np.array((0.1, 0.05, -0.35)) * between(rng, 0.3, 1.5)
    dim = rng.random() < (0.6 if tight else 0.3)
    gain = rng.uniform(np.log(0.12), 0.0) * strength if dim else rng.normal(0.05, 0.2 * strength)
    canvas *= row_of(np.exp(gain) * np.exp(cast), size)
    mean = float(canvas.sum() / canvas.size) + 1e-4
    if mean < 0.05:  # never black
        canvas *= np.float32(0.05 / mean)
    np.clip(canvas, 0.0, 1.0, out=canvas)
    return dim


def _developed(canvas: ndarray, rng: Generator, *, strength: float, dim: bool) -> ndarray:
    """Gamma, saturation and contrast, each by chance, of a canvas 0..1."""
    if rng.random() < 0.6:
        gamma = between(rng, -0.5, 0.2) * strength if dim else rng.normal(0, 0.3 * strength)
        cv2.pow(canvas, float(np.exp(gamma)), canvas)
    if rng.random() < 0.5:
        grey = for_each_channel(cv2.transform(canvas, _SUM) / np.float32(3))
        canvas = canvas - grey
        canvas *= np.float32(1 + between(rng, -0.75, 0.35) * strength)
        canvas += grey
    if rng.random() < 0.3:  # haze: black becomes grey
        lift = between(rng, 0, 0.2) * strength
        canvas = canvas * np.float32(1 - lift) + np.float32(lift)
    return canvas


def shaken(canvas: ndarray, rng: Generator, *, length: float) -> ndarray:
    """Motion blur along a random line `length` pixels long."""
    side = int(length) | 1  # a kernel with a middle
    if side < 3:
        return canvas
    kernel = np.zeros((side, side), np.float32)
    turn, middle = between(rng, 0, np.pi), side // 2
    dx, dy = np.cos(turn) * side / 2, np.sin(turn) * side / 2
    start = round(middle - dx), round(middle - dy)
    cv2.line(kernel, start, (round(middle + dx), round(middle + dy)), 1.0, 1)
    return cv2.filter2D(canvas, -1, kernel / max(kernel.sum(), 1e-6))


def coarse(canvas: ndarray, rng: Generator, *, side: int) -> ndarray:
    """The picture as if taken `side` pixels wide."""
    size = len(canvas)
    if side >= size:
        return canvas
    small = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)
    smooth = cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC
    return cv2.resize(small, (size, size), interpolation=smooth)


def compressed(image: ndarray, quality: int) -> ndarray:
    """The picture, RGB uint8, as it comes back from a JPEG file."""
    # OpenCV takes red for blue and back again: the channels come back in order, only their
    # weights in the luminance are swapped.
    coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(coded, cv2.IMREAD_COLOR)
