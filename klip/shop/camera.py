"""The camera of the shop: light, colour, blur, coarse sensors and file formats, on any picture."""

from __future__ import annotations

import cv2
import numpy as np

from klip.shop.paint import stream

_GRAINS = stream("sensor").standard_normal(1 << 20).astype(np.float32)


def exposed(
    canvas: np.ndarray, rng: np.random.Generator, strength: float, style: str
) -> np.ndarray:
    """Light, colour, optics, sensor and file format."""
    size = canvas.shape[0]
    canvas *= np.float32(1 / 255)
    field = 1 + rng.uniform(-0.6, 0.6, (3, 3)).astype(np.float32) * np.float32(
        strength * rng.uniform(0, 1)
    )
    canvas *= cv2.resize(field, (size, size), interpolation=cv2.INTER_CUBIC)[..., None]
    warm = rng.normal(0, 0.13)
    cast = np.array((warm, rng.normal(0.02, 0.08), -1.3 * warm)) * strength
    if rng.random() < 0.25 * strength:
        cast += rng.normal(0, 0.15, 3)
    if style == "tight" and rng.random() < 0.5 * strength:
        cast += np.array((0.1, 0.05, -0.35)) * rng.uniform(0.3, 1.5)
    dim = rng.random() < (0.6 if style == "tight" else 0.3)
    gain = rng.uniform(np.log(0.12), 0.0) * strength if dim else rng.normal(0.05, 0.2 * strength)
    canvas *= (np.exp(gain) * np.exp(cast)).astype(np.float32)
    canvas *= np.float32(max(0.05 / (float(canvas.mean()) + 1e-4), 1.0))
    np.clip(canvas, 0.0, 1.0, out=canvas)
    if rng.random() < 0.6:
        gamma = rng.uniform(-0.5, 0.2) * strength if dim else rng.normal(0, 0.3 * strength)
        cv2.pow(canvas, float(np.exp(gamma)), canvas)
    if rng.random() < 0.5:
        grey = canvas.mean(2, keepdims=True)
        canvas = grey + (canvas - grey) * np.float32(1 + rng.uniform(-0.75, 0.35) * strength)
    if rng.random() < 0.3:
        lift = rng.uniform(0, 0.2) * strength
        canvas = canvas * np.float32(1 - lift) + np.float32(lift)
    blur = rng.random()
    if blur < 0.3:
        canvas = cv2.GaussianBlur(
            canvas, (0, 0), max(size * rng.uniform(0.002, 0.028) * strength, 0.1)
        )
    elif blur < 0.5 * strength + 0.3 * (1 - strength):
        canvas = shaken(canvas, rng, size * rng.uniform(0.02, 0.11))
    if rng.random() < 0.55:
        coarsest = np.log(14 if style == "tight" else 40) * strength + np.log(size) * (1 - strength)
        canvas = coarse(canvas, int(np.exp(rng.uniform(coarsest, np.log(size * 1.1)))), rng)
    if rng.random() < 0.6:
        amount = np.float32(rng.uniform(0.004, 0.05) * strength)
        at = int(rng.integers(_GRAINS.size - canvas.size))
        canvas = canvas + amount * _GRAINS[at : at + canvas.size].reshape(canvas.shape)
    out = (np.clip(canvas, 0, 1) * 255).astype(np.uint8)
    return compressed(out, int(rng.integers(15, 91))) if rng.random() < 0.75 else out


def shaken(canvas: np.ndarray, rng: np.random.Generator, length: float) -> np.ndarray:
    """Motion blur along a random line `length` pixels long."""
    side = int(length) | 1
    if side < 3:
        return canvas
    kernel = np.zeros((side, side), np.float32)
    turn = rng.uniform(0, np.pi)
    dx, dy = np.cos(turn) * side / 2, np.sin(turn) * side / 2
    middle = side // 2
    cv2.line(
        kernel,
        (round(middle - dx), round(middle - dy)),
        (round(middle + dx), round(middle + dy)),
        1.0,
        1,
    )
    return cv2.filter2D(canvas, -1, kernel / max(kernel.sum(), 1e-6))


def coarse(canvas: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """The picture as if taken `side` pixels wide."""
    size = canvas.shape[0]
    if side >= size:
        return canvas
    small = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)
    smooth = cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC
    return cv2.resize(small, (size, size), interpolation=smooth)


def compressed(image: np.ndarray, quality: int) -> np.ndarray:
    coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
    return cv2.imdecode(coded, cv2.IMREAD_COLOR)
