"""Products cut out: the printed label wrapped on a box, can, bottle, bag ... seen from a
chosen side.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator

from klip.shop.artwork import Pack
from klip.shop.boxes import cuboid
from klip.shop.design import Product
from klip.shop.flat import FLAT
from klip.shop.forms import FORMS, individual
from klip.shop.items import sprite
from klip.shop.paint import in_bytes, mix, paste, stream, turned
from klip.shop.turned import TURNED, lathe

SOLID = ("box", "carton")
SHAPES = (*SOLID, *TURNED, *FLAT, "multipack", "produce")
"""Every package shape that there is."""


def packshot(
    product: Product, size: int = 160, *, view: tuple[float, float] | None = None, variant: int = 0
) -> ndarray:
    """A product cut out, as RGBA uint8 (size, size, 4); its longest side nearly fills the frame.

    `view` is (yaw, pitch) in degrees, the side it is seen from; None is the product's own
    best side.  `variant` numbers the individuals of a kind: another apple, another crease.
    The same arguments always give the same pixels.
    """
    shape = product.shape
    form = stream("form", product.line_seed)
    own = _best_side(product, form)  # always drawn, so that a view changes nothing else
    chance = stream("variant", product.line_seed, variant)
    pack = Pack(product, size, *(own if view is None else view), form, chance)
    if shape == "produce":
        drawn = _produce(pack, variant)
    elif shape in SOLID:
        drawn = cuboid(pack)
    elif shape in TURNED:
        drawn = lathe(pack, TURNED[shape])
    elif shape == "multipack":
        drawn = _multipack(pack)
    else:
        drawn = FLAT[shape](pack)
        if view is not None:
            drawn = _tilted(drawn, view)
    return _framed(drawn, size)


def trimmed(rgba: ndarray) -> ndarray:
    """A product that was cut out, RGBA uint8, without its clear margins; a view."""
    alpha = cv2.extractChannel(rgba, 3)
    seen = cv2.threshold(alpha, 20, 255, cv2.THRESH_BINARY)[1]
    left, top, wide, high = cv2.boundingRect(seen)
    return rgba[top : top + high, left : left + wide] if wide else rgba


def _best_side(product: Product, form: Generator) -> tuple[float, float]:
    """(yaw, pitch): the front, or the front and a side from a little above."""
    yaw, pitch = 0.0, 0.0
    if form.random() >= 0.45:
        yaw, pitch = form.uniform(15, 40) * form.choice((-1, 1)), form.uniform(3, 16)
    if product.shape in TURNED and product.shape != "tin":
        return yaw * 0.6, max(pitch, 4.0)
    return yaw, pitch


def _framed(drawn: ndarray, size: int) -> ndarray:
    """A sprite trimmed and centred in a square frame, uint8."""
    out = np.zeros((size, size, 4), np.uint8)
    rows, columns = (np.flatnonzero(drawn[..., 3].max(axis) > 0.02) for axis in (1, 0))
    if not len(rows):
        return out
    part = drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    longest = max(part.shape[:2])
    scale = (size - 2) / longest
    # What nearly fits stays as sharp as it was drawn; but it must fit, and a thing turned
    # on its side may be a pixel longer than the frame.
    if not 0.99 < scale < 1.001 or longest > size:
        smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        target = max(round(part.shape[1] * scale), 1), max(round(part.shape[0] * scale), 1)
        part = cv2.resize(part, target, interpolation=smooth)
    top, left = (size - part.shape[0]) // 2, (size - part.shape[1]) // 2
    out[top : top + part.shape[0], left : left + part.shape[1]] = in_bytes(part)
    return out


def _tilted(flat: ndarray, view: tuple[float, float]) -> ndarray:
    """A flat thing turned in space: a perspective warp of its picture."""
    height, width = flat.shape[:2]
    (sy, sp), (cy, cp) = np.sin(np.radians(view)), np.cos(np.radians(view))
    signs = np.float32([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    corners = signs * np.float32([width, height]) / 2
    # The farther a corner is turned away, the nearer it moves to the middle.
    depth = 1.0 + 0.35 * (corners[:, 0] * sy + corners[:, 1] * sp) / max(width, height)
    target = corners * np.float32([cy, cp]) / depth[:, None] * 0.9
    middle = np.float32([width / 2, height / 2])
    matrix = cv2.getPerspectiveTransform(corners + middle, target.astype(np.float32) + middle)
    return cv2.warpPerspective(flat, matrix, (width, height), flags=cv2.INTER_LINEAR)


def _multipack(pack: Pack) -> ndarray:
    """A row of small cans, bottles or cups held by a printed sleeve or film."""
    form, pitch = pack.form, max(pack.pitch, 5)
    count, kind = int(form.integers(2, 5)), str(form.choice(("can", "bottle", "cup")))
    size = int(pack.size * (0.62 if kind == "cup" else 0.85))
    one = lathe(replace(pack, size=size, yaw=pack.yaw / 3, pitch=pitch), TURNED[kind])
    height, width = one.shape[:2]
    out = np.zeros((height + 6, width * count + 6, 4), np.float32)
    for index in range(count):
        paste(out, one, at=(3 + width * (index + 0.5), height / 2 + 3))
    if form.random() < 0.6:
        low, high = sorted(form.uniform(0.1, 0.95, 2))
        top, bottom = int(low * height), int(max(high, low + 0.25) * height)
        sleeve = np.ones((min(bottom, height) - top, out.shape[1], 4), np.float32)
        sleeve[..., :3] = pack.printed(*sleeve.shape[:2])
        paste(out, sleeve, at=(out.shape[1] / 2, top + sleeve.shape[0] / 2))
    return out


_PLACES = {
    # count: where the pieces of a group lie, in fifths of the frame from its middle, about
    2: ((-1, -0.3), (1, 0.3)),
    3: ((0, -0.9), (-1, 0.6), (1, 0.7)),
    4: ((-0.5, -0.9), (0.8, -0.7), (-1, 0.6), (0.7, 0.8)),
}


def _produce(pack: Pack, variant: int) -> ndarray:
    """One fruit or vegetable of the variety, or a small group of them."""
    product, size, form, chance = pack.product, pack.size, pack.form, pack.chance
    variety = stream("variety", product.line_seed)
    kind = individual(FORMS[product.noun], variety, spread=1.5)
    body, second, marks, leaf = product.palette
    second = mix(second, product.accent, share=0.7)
    count = int(form.choice((1, 2, 3, 4), p=(0.4, 0.15, 0.25, 0.2)))
    count = count if variant % 3 == 0 else 1
    lean = form.choice((0.0, 0.0, 45.0, 90.0)) if kind.width < 0.45 else 0.0
    side = size if count == 1 else int(size * 0.62)
    own = individual(kind, chance, spread=0.6)
    one = sprite(own, chance, size=side, colours=(body, second, marks), leaf=leaf)
    if count == 1:
        return turned(one, lean + chance.normal(0, 8))
    own = individual(kind, chance, spread=0.6)
    body = tuple(float(np.clip(v * chance.uniform(0.85, 1.15), 0, 1)) for v in body)
    other = sprite(own, chance, size=side, colours=(body, second, marks), leaf=leaf)
    out = np.zeros((size, size, 4), np.float32)
    for index, (x, y) in enumerate(_PLACES[count]):
        degrees, scale = lean + chance.normal(0, 25), chance.uniform(0.85, 1.05)
        piece = turned((one, other)[index % 2], degrees, scale=scale)
        paste(out, piece, at=(size * (0.5 + 0.19 * x), size * (0.5 + 0.19 * y)))
    return out
