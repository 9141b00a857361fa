"""The printed label of a product: ground, shapes, pictures, wordmark, flavour field,
badges, small print.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy import ndarray
from numpy.random import Generator

from klip.shop.design import Product
from klip.shop.grounds import cover, field_mask
from klip.shop.lettering import plate_mask, small_print, wordmark, words
from klip.shop.paint import (
    Colour,
    blend,
    hsv,
    in_bytes,
    layer,
    luma,
    mix,
    noise,
    paste,
    pick,
    polygon,
    stream,
)
from klip.shop.pictures import KINDS, picture, thing

DIFFERENCES = ("band", "band", "corner", "picture", "picture", "spot", "shape")
"""What, beside the flavour word, tells the flavours of a line apart."""


@dataclass(frozen=True)
class _Sheet:
    """A label while it is drawn: the canvas, and what its parts agree upon."""

    canvas: ndarray
    height: int
    width: int
    product: Product
    rng: Generator  # the line's: all flavours draw the same from it
    differs: str  # one of DIFFERENCES
    split: float  # share of the height that the wordmark has, the pictures have the rest
    flipped: bool  # the wordmark is below


def _ink(ground: Colour, *wanted: Colour) -> Colour:
    """The first wanted colour that can be read on a ground, else black or white."""
    for colour in wanted:
        if abs(luma(colour) - luma(ground)) > 0.3:
            return colour
    return (1.0, 1.0, 1.0) if luma(ground) < 0.55 else (0.04, 0.04, 0.06)


def _mean(part: ndarray) -> Colour:
    return tuple(float(v) for v in part.mean((0, 1)))


@lru_cache(maxsize=32)
def label(product: Product, shape: tuple[int, int]) -> ndarray:
    """The print of a product as RGB uint8 (*shape, 3).

    Everything is drawn from the line's seed, in the same order for every flavour; a flavour
    changes the accent colour of one field, shape or picture and the flavour word, nothing
    else.  The array is shared and cannot be written.
    """
    rng = stream("label", product.line_seed)
    a, b, c, ink = product.palette
    canvas = np.full((*shape, 3), a, np.float32)
    differs = str(rng.choice(DIFFERENCES))
    cover(canvas, stream("ground", product.line_seed), colours=(a, b, c))
    split, flipped = float(rng.uniform(0.3, 0.6)), rng.random() < 0.25
    dark, light = mix(a, (0, 0, 0), share=0.5), mix(a, (1, 1, 1), share=0.7)
    for _ in range(int(rng.choice((0, 1, 2, 3), p=(0.3, 0.35, 0.25, 0.1)))):
        low = rng.uniform(-0.1, 0.8)
        colour = pick(rng, (b, c, ink, dark, light))
        field = field_mask(rng, shape, low=low, high=low + rng.uniform(0.08, 0.55))
        blend(canvas, colour, where=field, opacity=rng.choice((1.0, 1.0, 0.5)))
    if differs == "shape":
        low = rng.uniform(0, 0.7)
        field = field_mask(rng, shape, low=low, high=low + rng.uniform(0.1, 0.35))
        blend(canvas, product.accent, where=field)
    sheet = _Sheet(canvas, *shape, product, rng, differs, split, flipped)
    _art(sheet)
    ground = _wordmark(sheet)
    _extras(sheet, _ink(ground, ink))
    _flavour(sheet)
    if rng.random() < 0.5:  # coarse paper
        grain = noise(stream("print", product.line_seed), shape, zoom=0.6)
        canvas += (grain[..., None] - 0.5) * np.float32(rng.uniform(0.02, 0.15))
    out = in_bytes(canvas)
    out.flags.writeable = False
    return out


@dataclass(frozen=True)
class Pack:
    """A package to be drawn: what, how large, seen from where, and all chance in it."""

    product: Product
    size: int  # pixels of its longer side, about
    yaw: float  # degrees that it is turned to the right
    pitch: float  # degrees from which it is seen from above
    form: Generator  # what all packages of the line share
    chance: Generator  # what only this individual has

    def printed(self, height: int, width: int) -> ndarray:
        """The label as float32 0..1, at least 8 pixels wide and high; a copy."""
        return label(self.product, (max(height, 8), max(width, 8))) / np.float32(255)


def _art(s: _Sheet) -> None:
    """One large picture in the half the wordmark leaves free, and sometimes small ones."""
    rng, art = s.rng, stream("art", s.product.line_seed)
    other = hsv(rng.random(), rng.uniform(0, 1), value=rng.uniform(0.2, 1))
    colours = [*s.product.palette[:3], other]
    main = s.product.accent if s.differs == "picture" else None
    y0, y1 = (0.0, 1.0 - s.split) if s.flipped else (s.split, 1.0)
    if rng.random() < 0.85 or main:
        tall = (y1 - y0) * s.height * rng.uniform(0.7, 1.15)
        shape = max(int(tall), 8), max(int(s.width * rng.uniform(0.5, 1.15)), 8)
        large = picture(str(rng.choice(KINDS)), art, shape=shape, colours=colours, main=main)
        degrees = rng.normal(0, 15) if rng.random() < 0.4 else 0.0
        at = s.width * rng.uniform(0.3, 0.7), s.height * (y0 + y1) / 2
        paste(s.canvas, large, at=at, degrees=degrees)
    for _ in range(int(rng.choice((0, 1, 2, 4), p=(0.55, 0.2, 0.15, 0.1)))):
        size = max(int(min(s.height, s.width) * rng.uniform(0.12, 0.4)), 8)
        small = picture(str(rng.choice(KINDS)), art, shape=(size, size), colours=colours)
        at = s.width * rng.uniform(0, 1), s.height * rng.uniform(0, 1)
        paste(s.canvas, small, at=at, degrees=rng.uniform(-40, 40))


def _wordmark(s: _Sheet) -> Colour:
    """Set the brand; returns the mean colour behind it."""
    rng, height, width = s.rng, s.height, s.width
    middle = (1 - s.split / 2 if s.flipped else s.split / 2) + rng.normal(0, 0.03)
    wide, high = width * rng.uniform(0.72, 1.04), height * s.split * rng.uniform(0.45, 0.95)
    vertical = rng.random() < (0.3 if height > 1.6 * width else 0.06)
    if vertical:
        wide, high = height * rng.uniform(0.5, 0.9), width * rng.uniform(0.25, 0.6)
        middle = rng.uniform(0.4, 0.6)
    high = min(high, wide * 0.8)
    degrees = 90.0 if vertical else 0.0
    if not vertical and rng.random() < 0.15:
        degrees = rng.uniform(-25, 25)
    top = int(np.clip((middle - 0.1) * height, 0, height - 2))
    behind = _mean(s.canvas[top : top + max(height // 5, 2)])
    inks = [*s.product.palette, (1.0, 1.0, 1.0), (0.05, 0.05, 0.07)]
    shape = max(int(high), 8), max(int(wide), 12)
    mark = wordmark(s.product.brand, shape, inks=inks, ground=behind)
    shift = rng.normal(0, 0.06) if rng.random() < 0.4 else 0
    paste(s.canvas, mark, at=(width * (0.5 + shift), height * middle), degrees=degrees)
    return behind


def _flavour(s: _Sheet) -> None:
    """The field with the flavour word, in the accent colour where that is what differs."""
    rng, height, width, product = s.rng, s.height, s.width, s.product
    at = (1 - s.split if s.flipped else s.split) + rng.uniform(-0.05, 0.05)
    if rng.random() >= 0.6:
        at = rng.uniform(0.75, 0.95)
    half = rng.uniform(0.035, 0.09)
    y0, y1 = (at - half) * height, (at + half) * height
    ends = (0.0, 0.0, 0.08, 0.3, 0.7, 0.92, 1.0)
    left, right = sorted(rng.choice(ends, 2, replace=False))
    if right - left < 0.35:
        left, right = 0.05, 0.95
    x0, x1 = int(left * width), max(int(right * width), 4)
    part = s.canvas[max(int(y0), 0) : int(y1) + 2, x0:x1]
    field = product.accent if s.differs == "band" else product.palette[1]
    plate = str(rng.choice(("box", "box", "pill", "ribbon", "slab", "oval")))
    if len(part) > 2 and (s.differs == "band" or rng.random() < 0.5):
        blend(part, field, where=plate_mask(plate, part.shape[:2]))
    elif part.size:
        field = _mean(part)
    word = product.flavour
    texts = (word, word.upper(), f"{product.line} {word}", f"{word} {product.noun}")
    text = texts[int(rng.choice(4, p=(0.35, 0.35, 0.15, 0.15)))]
    inset = 0.12 * (x1 - x0)
    box = (x0 + inset, y0 + 1, x1 - inset, y1 - 1)
    ink, face = _ink(field, product.palette[3], (1, 1, 1)), stream("face", product.line_seed)
    words(s.canvas, text, box=box, ink=ink, face=face)
    _mark(s)


def _mark(s: _Sheet) -> None:
    """The corner or the small thing in the accent colour, where that is what differs."""
    rng, height, width = s.rng, s.height, s.width
    at = width * rng.choice((0.15, 0.85)), height * rng.uniform(0.1, 0.9)
    size = max(int(min(height, width) * rng.uniform(0.2, 0.4)), 8)
    if s.differs == "corner":
        reach = rng.uniform(0.5, 1.2)
        x, y = rng.choice((-1, 1)), rng.choice((-1, 1))
        # As long in pixels along both edges, though both run from -1 to 1.
        inner = x * (1 - reach), y * (1 - reach * width / height)
        corner = np.array([(x, y), (inner[0], y), (x, inner[1])])
        blend(s.canvas, s.product.accent, where=polygon((height, width), corner))
    elif s.differs == "spot":
        own = stream("flavour", s.product.seed)
        spot = thing(own, size, colour=s.product.accent)
        paste(s.canvas, spot, at=at, degrees=own.uniform(-40, 40))


def _extras(s: _Sheet, ink: Colour) -> None:
    """Badges, bursts, product kind, small print and bar codes."""
    rng, height, width, product = s.rng, s.height, s.width, s.product
    face = stream("kind", product.line_seed)
    if rng.random() < 0.5:
        y = rng.uniform(0.05, 0.9) * height
        text = product.noun if rng.random() < 0.5 else product.line.upper()
        box = (width * 0.15, y, width * 0.85, y + height * rng.uniform(0.03, 0.08))
        words(s.canvas, text, box=box, ink=ink, face=face)
    for _ in range(int(rng.choice((0, 1, 2, 3), p=(0.4, 0.3, 0.2, 0.1)))):
        badge = _badge(s)
        at = width * rng.uniform(0.1, 0.9), height * rng.uniform(0.05, 0.95)
        paste(s.canvas, badge, at=at, degrees=rng.uniform(-20, 20))
    for _ in range(int(rng.integers(0, 4))):
        x, y = rng.uniform(0, 0.8) * width, rng.uniform(0.1, 0.97) * height
        right, bottom = x + rng.uniform(0.15, 0.6) * width, y + rng.uniform(0.03, 0.15) * height
        small_print(s.canvas, rng, box=(x, y, right, bottom), ink=ink)


def _badge(s: _Sheet) -> ndarray:
    """A badge with a word as one finds it on any pack, as RGBA."""
    rng, palette = s.rng, s.product.palette
    size = max(int(min(s.width, s.height) * rng.uniform(0.13, 0.34)), 7)
    yellow, red, white = (0.95, 0.85, 0.1), (0.85, 0.1, 0.1), (1, 1, 1)
    colour = pick(rng, (palette[2], palette[1], yellow, red, white))
    plate = str(rng.choice("burst oval oval shield box ribbon".split()))
    badge = layer(colour, plate_mask(plate, (size, size)))
    text = str(rng.choice("NEW BIO 25% 0% XL +20 ECO 1L 500g №1 ♻".split()))
    box = (size * 0.18, size * 0.3, size * 0.82, size * 0.7)
    # One face that has all of these signs.
    words(badge[..., :3], text, box=box, ink=_ink(colour), face="DejaVuSans-Bold")
    return badge
