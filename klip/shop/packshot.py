"""Products cut out: the printed label wrapped on a box, can, bottle, bag ... seen from a
chosen side.
"""

from __future__ import annotations

import cv2
import numpy as np

from klip.shop.artwork import label
from klip.shop.boxes import cuboid
from klip.shop.design import Product
from klip.shop.flat import FLAT
from klip.shop.items import FORMS, individual, sprite
from klip.shop.paint import mix, paste, stream, turned
from klip.shop.turned import lathe

SOLID = ("box", "carton")
TURNED = {
    "can": (0.45, 0.75),
    "bottle": (0.28, 0.5),
    "jar": (0.6, 0.95),
    "tub": (0.9, 1.6),
    "cup": (0.8, 1.2),
    "tin": (0.9, 2.2),
    "canister": (0.3, 0.75),
}
SHAPES = (*SOLID, *TURNED, *FLAT, "multipack", "produce")
"""Every package shape `packshot` can draw."""


def packshot(
    product: Product, size: int = 160, view: tuple[float, float] | None = None, variant: int = 0
) -> np.ndarray:
    """A product cut out, as RGBA uint8 (size, size, 4); its longest side nearly fills the frame.

    `view` is (yaw, pitch) in degrees, the side it is seen from; None is the product's own
    best side.  `variant` numbers the individuals of a kind: another apple, another crease.
    The same arguments always give the same pixels.
    """
    if product.shape not in SHAPES:
        raise ValueError(
            f"shop packshot: shape must be one of {', '.join(SHAPES)}, got {product.shape!r}"
        )
    form = stream("form", product.line_seed)
    frontal = form.random() < 0.45
    own = (
        (0.0, 0.0)
        if frontal
        else (form.uniform(15, 40) * form.choice((-1, 1)), form.uniform(3, 16))
    )
    if product.shape in TURNED and product.shape != "tin":
        own = (own[0] * 0.6, max(own[1], 4.0))
    yaw, pitch = own if view is None else view
    chance = stream("variant", product.line_seed, variant)
    if product.shape == "produce":
        drawn = _produce(product, size, form, chance, variant)
    elif product.shape in SOLID:
        drawn = cuboid(product, size, yaw, pitch, form)
    elif product.shape in TURNED:
        drawn = lathe(product, size, yaw, pitch, form, TURNED[product.shape])
    elif product.shape == "multipack":
        drawn = _multipack(product, size, yaw, pitch, form)
    else:
        drawn = FLAT[product.shape](product, size, form, chance)
        drawn = _tilted(drawn, yaw, pitch) if view is not None else drawn
    return _framed(drawn, size)


def _framed(drawn: np.ndarray, size: int) -> np.ndarray:
    """A sprite trimmed and centred in a square frame, uint8."""
    out = np.zeros((size, size, 4), np.uint8)
    rows, columns = (np.flatnonzero(drawn[..., 3].max(axis) > 0.02) for axis in (1, 0))
    if not len(rows):
        return out
    part = drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = (size - 2) / max(part.shape[:2])
    if not 0.99 < scale < 1.001:
        smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        target = max(round(part.shape[1] * scale), 1), max(round(part.shape[0] * scale), 1)
        part = cv2.resize(part, target, interpolation=smooth)
    top, left = (size - part.shape[0]) // 2, (size - part.shape[1]) // 2
    out[top : top + part.shape[0], left : left + part.shape[1]] = np.clip(part, 0, 1) * 255
    return out


def _tilted(flat: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
    """A flat thing turned in space: a perspective warp of its picture."""
    height, width = flat.shape[:2]
    sy, cy = np.sin(np.radians(yaw)), np.cos(np.radians(yaw))
    sp, cp = np.sin(np.radians(pitch)), np.cos(np.radians(pitch))
    corners = (
        np.float32([(-width, -height), (width, -height), (width, height), (-width, height)]) / 2
    )
    depth = 1.0 + 0.35 * (corners[:, 0] * sy + corners[:, 1] * sp) / max(width, height)
    target = corners * np.float32([cy, cp]) / depth[:, None] * 0.9
    middle = np.float32([width / 2, height / 2])
    matrix = cv2.getPerspectiveTransform(corners + middle, target.astype(np.float32) + middle)
    return cv2.warpPerspective(flat, matrix, (width, height), flags=cv2.INTER_LINEAR)


def _multipack(
    product: Product, size: int, yaw: float, pitch: float, form: np.random.Generator
) -> np.ndarray:
    """A row of small cans, bottles or cups held by a printed sleeve or film."""
    count, kind = int(form.integers(2, 5)), str(form.choice(("can", "bottle", "cup")))
    one = lathe(
        product,
        int(size * (0.62 if kind == "cup" else 0.85)),
        yaw / 3,
        max(pitch, 5),
        form,
        TURNED[kind],
    )
    height, width = one.shape[:2]
    out = np.zeros((height + 6, width * count + 6, 4), np.float32)
    for index in range(count):
        paste(out, one, 3 + width * (index + 0.5), height / 2 + 3)
    if form.random() < 0.6:
        low, high = sorted(form.uniform(0.1, 0.95, 2))
        top, bottom = int(low * height), int(max(high, low + 0.25) * height)
        sleeve = np.ones((min(bottom, height) - top, out.shape[1], 4), np.float32)
        sleeve[..., :3] = label(product, sleeve.shape[1], sleeve.shape[0]) / np.float32(255)
        paste(out, sleeve, out.shape[1] / 2, top + sleeve.shape[0] / 2)
    return out


def _produce(
    product: Product,
    size: int,
    form: np.random.Generator,
    chance: np.random.Generator,
    variant: int,
) -> np.ndarray:
    """One fruit or vegetable of the variety, or a small group of them."""
    kind = individual(FORMS[product.noun], stream("variety", product.line_seed), 1.5)
    body, second, marks, leaf = product.palette
    second = mix(second, product.accent, 0.7)
    count = int(form.choice((1, 2, 3, 4), p=(0.4, 0.15, 0.25, 0.2)))
    count = count if variant % 3 == 0 else 1
    lean = form.choice((0.0, 0.0, 45.0, 90.0)) if kind.width < 0.45 else 0.0
    side = size if count == 1 else int(size * 0.62)
    one = sprite(individual(kind, chance, 0.6), side, (body, second, marks), chance, leaf)
    if count == 1:
        return turned(one, lean + chance.normal(0, 8))
    kind = individual(kind, chance, 0.6)
    body = tuple(float(np.clip(v * chance.uniform(0.85, 1.15), 0, 1)) for v in body)
    other = sprite(kind, side, (body, second, marks), chance, leaf)
    out = np.zeros((size, size, 4), np.float32)
    spread = {
        2: ((-1, -0.3), (1, 0.3)),
        3: ((0, -0.9), (-1, 0.6), (1, 0.7)),
        4: ((-0.5, -0.9), (0.8, -0.7), (-1, 0.6), (0.7, 0.8)),
    }[count]
    for index, (x, y) in enumerate(spread):
        piece = turned(
            (one, other)[index % 2], lean + chance.normal(0, 25), chance.uniform(0.85, 1.05)
        )
        paste(out, piece, size * (0.5 + 0.19 * x), size * (0.5 + 0.19 * y))
    return out
