"""What stands round a product in a shop: shelves of other goods, its own copies, hands,
price strips, piles.

Canvases here are float32 RGB (size, size, 3) with values 0..255, changed in place; a
product is cut out and trimmed, RGBA uint8.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator

from klip.shop.paint import (
    Colour,
    any_colour,
    as_mask,
    axes,
    between,
    blend,
    for_each_channel,
    hsv,
    noise,
    parted,
    paste,
    pick,
    pick_weighted,
    row_of,
    stamp,
    turned,
)


def lay(canvas: ndarray, part: ndarray, *, corners: ndarray) -> ndarray:
    """Warp a product to corners (4, 2) in pixels; returns its mask 0..1."""
    sides = np.hypot(*(corners - corners[[3, 0, 1, 2]]).T)
    wanted_w, wanted_h = max(sides[1], sides[3], 2.0), max(sides[0], sides[2], 2.0)
    # A warp looks at four pixels only: what gets much smaller is averaged first.
    if wanted_w < 0.7 * part.shape[1] or wanted_h < 0.7 * part.shape[0]:
        target = int(min(wanted_w, part.shape[1])) + 1, int(min(wanted_h, part.shape[0])) + 1
        part = cv2.resize(part, target, interpolation=cv2.INTER_AREA)
    height, width = part.shape[:2]
    source = np.float32([(0, 0), (width, 0), (width, height), (0, height)])
    matrix = cv2.getPerspectiveTransform(source, corners.astype(np.float32))
    target = (canvas.shape[1], canvas.shape[0])
    alpha = cv2.warpPerspective(cv2.extractChannel(part, 3), matrix, target)
    mask = as_mask(alpha)
    left, top, wide, high = cv2.boundingRect(alpha)  # of what is not 0
    if wide:
        # The colours go on beyond the rim, so that it is not mixed with black.  That is slow
        # far outside, so it ends soon after the product.  It ends at a multiple of 32, for
        # OpenCV rounds the last pixels of a row that fill no register differently.
        right, bottom = left + wide, top + high
        end = min(-(-right // 32) * 32, target[0]), bottom
        # Four channels, one of them not used, are warped in two thirds of the time of three.
        rgba = cv2.warpPerspective(part, matrix, end, borderMode=cv2.BORDER_REPLICATE)
        seen = slice(top, bottom), slice(left, right)
        blend(canvas[seen], cv2.cvtColor(rgba[seen], cv2.COLOR_RGBA2RGB), where=mask[seen])
    return mask


def shelf(canvas: ndarray, rng: Generator, *, others: Sequence[ndarray]) -> None:
    """Fill the canvas with what is behind a product: a wall, or rows of goods with rails."""
    size = len(canvas)
    x, y = axes(size, size)
    wall = row_of(np.float32(any_colour(rng, (0, 0.5), value=(0.02, 0.95))) * 255, size)
    light = 1 + between(rng, -0.5, 0.5) * x + between(rng, -0.5, 0.5) * y
    np.multiply(wall, for_each_channel(light), out=canvas)
    if rng.random() < 0.4:
        rough = noise(rng, (size, size), zoom=between(rng, 0.3, 2.0))
        canvas *= for_each_channel(0.5 + rough)
    if not others and rng.random() < 0.5:
        return
    rows = pick_weighted(rng, (1, 2, 3, 4), p=(0.3, 0.35, 0.25, 0.1))
    high = size / rows * between(rng, 0.8, 1.1)
    goods = []
    for other in others[:4]:
        side = max(int(high * between(rng, 0.6, 1.0)), 6)
        goods.append(_reduced(other, rng, side=side))
    rail = row_of(np.float32(any_colour(rng, (0, 0.7), value=(0.15, 1))) * 255, size)
    for row in range(rows + 1):
        floor = (row + between(rng, 0.6, 0.9)) * high
        _row(canvas, goods, floor=floor, high=high, rng=rng)
        y0, y1 = max(int(floor), 0), max(int(floor + high * 0.12), 1)
        canvas[y0:y1] = rail
        for tag in rng.uniform(0, size, int(rng.integers(0, 4))):
            paper = (235, 235, 225) if rng.random() < 0.6 else (240, 210, 40)
            canvas[y0:y1, int(tag) : int(tag + high * 0.25)] = paper


def _row(
    canvas: ndarray,
    goods: list[tuple[ndarray, ndarray]],
    *,
    floor: float,
    high: float,
    rng: Generator,
) -> None:
    """One shelf from left to right: goods in groups of up to three, or plain boxes."""
    size = len(canvas)
    at = between(rng, -0.2, 0.1) * size
    while at < size:
        if goods and rng.random() < 0.92:
            good = pick(rng, goods)
            tall, wide = good[0].shape[:2]
            for _ in range(int(rng.integers(1, 4))):
                stamp(canvas, *good, at=(at + wide / 2, floor - tall / 2))
                at += wide * between(rng, 0.9, 1.1)
        else:
            wide = int(high * between(rng, 0.2, 0.9)) + 2
            x0, y0 = max(int(at), 0), max(int(floor - high * between(rng, 0.4, 0.9)), 0)
            box = canvas[y0 : max(int(floor), 0), x0 : max(int(at) + wide, 0)]
            box[:] = row_of(rng.uniform(0, 255, 3), box.shape[1])
            at += wide + 1


def _reduced(part: ndarray, rng: Generator, *, side: int) -> tuple[ndarray, ndarray]:
    """A product `side` pixels long and a little relit, parted: colours 0..255, cover 0..1."""
    high, wide = part.shape[:2]
    scale = side / max(wide, high)
    target = max(round(wide * scale), 2), max(round(high * scale), 2)
    small = cv2.resize(part, target, interpolation=cv2.INTER_AREA)
    colours = cv2.cvtColor(small, cv2.COLOR_RGBA2RGB) * np.float32(between(rng, 0.7, 1.0))
    return colours, for_each_channel(as_mask(cv2.extractChannel(small, 3)))


def copies(canvas: ndarray, part: ndarray, *, corners: ndarray, rng: Generator) -> None:
    """More of the same left and right of the product, as on a shelf."""
    step = (corners[1] - corners[0] + corners[2] - corners[3]) / 2 * between(rng, 0.95, 1.15)
    for side in (-1, 1):
        if rng.random() < 0.75:
            jitter = rng.normal(0, 0.02, 2) * len(canvas)
            lay(canvas, part, corners=corners + side * step + jitter)


def shade_behind(canvas: ndarray, rng: Generator, *, corners: ndarray) -> None:
    """The shadow a product throws on what is behind it."""
    size = len(canvas)
    mask = np.zeros(canvas.shape[:2], np.uint8)
    moved = corners + rng.uniform(-0.05, 0.08, 2) * size
    cv2.fillConvexPoly(mask, moved.astype(np.int32), 255)
    side = max(size // 10, 1)
    soft = as_mask(cv2.blur(mask, (side, side)))
    canvas *= for_each_channel(1 - soft * np.float32(between(rng, 0.2, 0.8)))


def hand(canvas: ndarray, rng: Generator, *, corners: ndarray) -> None:
    """Fingers that reach over one edge of the product, with the arm going out of the frame."""
    size = len(canvas)
    length = float(np.hypot(*(corners[2] - corners[0])))
    side = pick_weighted(rng, (1, 3, 2), p=(0.4, 0.4, 0.2))  # right, left or lower edge
    a, b = corners[side], corners[(side + 1) % 4]
    inward = corners.mean(0) - (a + b) / 2
    inward = inward / (np.hypot(*inward) + 1e-6)
    thick = max(length * between(rng, 0.06, 0.11), 3.0)
    hue, saturation = between(rng, 0.02, 0.09), between(rng, 0.25, 0.6)
    skin = np.float32(hsv(hue, saturation, value=between(rng, 0.3, 1.0))) * 255
    middle = between(rng, 0.3, 0.8)
    palm = a + (b - a) * middle - inward * thick * 2.5
    elbow = palm - inward * size + rng.normal(0, 0.3, 2) * size
    _limb(canvas, skin, start=elbow, end=palm, across=thick * 4.5)
    for finger in range(int(rng.integers(1, 5))):
        share = middle + (finger - 1.5) * 1.15 * thick / max(np.hypot(*(b - a)), 1)
        root = a + (b - a) * share - inward * thick * 1.5
        tip = root + inward * thick * between(rng, 2.0, 5.0) + rng.normal(0, 0.3, 2) * thick
        _limb(canvas, skin, start=root, end=tip, across=thick)


def _limb(canvas: ndarray, skin: Colour, *, start: ndarray, end: ndarray, across: float) -> None:
    """An arm or a finger: a line `across` pixels wide, darker towards its rim."""
    # Only the part of the canvas that it lies on is touched.
    size = len(canvas)
    low = np.clip(np.minimum(start, end) - across, 0, size - 1).astype(int)
    high = np.clip(np.maximum(start, end) + across + 1, 1, size).astype(int)
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    if not mask.size:
        return
    ends = [(point - low).astype(int).tolist() for point in (start, end)]
    cv2.line(mask, *ends, 255, max(int(across), 1), cv2.LINE_AA)
    share = as_mask(mask)
    side = max(int(across * 0.7), 1)
    light = 0.35 + 0.7 * cv2.blur(share, (side, side))
    lit = row_of(skin, light.shape[1]) * for_each_channel(light)
    blend(canvas[low[1] : high[1], low[0] : high[0]], lit, where=share)


def strip(canvas: ndarray, rng: Generator) -> None:
    """Something across the picture: a rail, a price tag, a neighbour's edge."""
    size = len(canvas)
    if rng.random() < 0.5:
        wide, high = size, int(size * between(rng, 0.05, 0.2))
    else:
        wide, high = int(size * between(rng, 0.1, 0.4)), int(size * between(rng, 0.1, 0.35))
    bar = np.ones((high + 1, wide + 1, 4), np.float32)
    bar[..., :3] = np.float32(any_colour(rng, (0, 0.8), value=(0.05, 1))) * 255
    bar[::3, ::2, :3] *= 0.7  # as if printed on
    border = rng.choice((0.02, 0.98)) * size
    if rng.random() < 0.5:
        at = (border, between(rng, 0, size))
    else:
        at = (between(rng, 0, size), border)
    paste(canvas, turned(bar, rng.choice((0.0, 90.0)) + rng.normal(0, 6)), at=at)


def pile(canvas: ndarray, part: ndarray, *, rng: Generator) -> None:
    """Many turned, scaled and relit copies of the product over the whole frame."""
    size = len(canvas)
    canvas[:] = row_of(np.float32(any_colour(rng, (0, 0.5), value=(0.0, 0.5))) * 255, size)
    part = part.astype(np.float32)
    part[..., 3] *= np.float32(1 / 255)
    share = float(np.exp(rng.uniform(np.log(0.14), np.log(0.6))))
    scale = share * size / max(part.shape[:2])
    part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    swing = rng.choice((20.0, 180.0))  # laid in order, or thrown in
    stamps = []
    for _ in range(6):
        one = turned(part, between(rng, -swing, swing), scale=between(rng, 0.8, 1.1))
        one[..., :3] *= between(rng, 0.6, 1.1)
        stamps.append(parted(one))
    across = int(np.clip(1.5 / share, 2, 8))
    low = between(rng, 0, 0.35) if rng.random() < 0.3 else 0.0  # the pile may end below the top
    for row in range(across + 1):
        for column in range(across + 1):
            x, y = (np.array((column, row)) + rng.normal(0, 0.25, 2)) * size / across
            stamp(canvas, *pick(rng, stamps), at=(x, low * size + y * (1 - low)))
