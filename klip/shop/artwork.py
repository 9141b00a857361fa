"""The printed label of a product: ground, shapes, pictures, wordmark, flavour field,
badges, small print.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from klip.shop.design import Product
from klip.shop.grounds import cover, field_mask
from klip.shop.lettering import plate_mask, small_print, wordmark, words
from klip.shop.paint import Colour, blend, hsv, layer, luma, mix, noise, paste, polygon, stream
from klip.shop.pictures import KINDS, picture, thing

DIFFERENCES = ("band", "band", "corner", "picture", "picture", "spot", "shape")
"""What, beside the flavour word, tells the flavours of a line apart."""


def _ink(ground: Colour, *wanted: Colour) -> Colour:
    """The first wanted colour that can be read on a ground, else black or white."""
    for colour in wanted:
        if abs(luma(colour) - luma(ground)) > 0.3:
            return colour
    return (1.0, 1.0, 1.0) if luma(ground) < 0.55 else (0.04, 0.04, 0.06)


@lru_cache(maxsize=32)
def label(product: Product, width: int, height: int) -> np.ndarray:
    """The print of a product as RGB uint8 (height, width, 3).

    Everything is drawn from the line's seed, in the same order for every flavour; a flavour
    changes the accent colour of one field, shape or picture and the flavour word, nothing
    else.  The array is shared and cannot be written.
    """
    rng = stream("label", product.line_seed)
    a, b, c, ink = product.palette
    canvas = np.full((height, width, 3), a, np.float32)
    differs = str(rng.choice(DIFFERENCES))
    cover(canvas, stream("ground", product.line_seed), a, b, c)
    split = float(rng.uniform(0.3, 0.6))
    flipped = rng.random() < 0.25
    for _ in range(int(rng.choice((0, 1, 2, 3), p=(0.3, 0.35, 0.25, 0.1)))):
        low = rng.uniform(-0.1, 0.8)
        colour = (b, c, ink, mix(a, (0, 0, 0), 0.5), mix(a, (1, 1, 1), 0.7))[int(rng.integers(5))]
        field = field_mask(rng, height, width, low, low + rng.uniform(0.08, 0.55))
        blend(canvas, field, colour, rng.choice((1.0, 1.0, 0.5)))
    if differs == "shape":
        low = rng.uniform(0, 0.7)
        blend(
            canvas,
            field_mask(rng, height, width, low, low + rng.uniform(0.1, 0.35)),
            product.accent,
        )
    _art(canvas, product, rng, split, flipped, product.accent if differs == "picture" else None)
    behind = _wordmark(canvas, product, rng, split, flipped)
    _extras(canvas, product, rng, behind, ink)
    _flavour(canvas, product, rng, differs, split, flipped)
    grain = stream("print", product.line_seed)
    if rng.random() < 0.5:
        canvas += (noise(grain, height, width, 0.6)[..., None] - 0.5) * np.float32(
            rng.uniform(0.02, 0.15)
        )
    out = (np.clip(canvas, 0.0, 1.0) * 255).astype(np.uint8)
    out.flags.writeable = False
    return out


def printed(product: Product, width: int, height: int) -> np.ndarray:
    """The label as float32 0..1, at least 8 pixels wide and high; a copy."""
    return label(product, max(width, 8), max(height, 8)) / np.float32(255)


def _art(
    canvas: np.ndarray,
    product: Product,
    rng: np.random.Generator,
    split: float,
    flipped: bool,
    main: Colour | None,
) -> None:
    """The pictures: one large one in the half the wordmark leaves free, and sometimes small ones."""
    height, width = canvas.shape[:2]
    colours = [*product.palette[:3], hsv(rng.random(), rng.uniform(0, 1), rng.uniform(0.2, 1))]
    y0, y1 = (0.0, 1.0 - split) if flipped else (split, 1.0)
    art_rng = stream("art", product.line_seed)
    if rng.random() < 0.85 or main:
        tall = (y1 - y0) * height * rng.uniform(0.7, 1.15)
        wide = width * rng.uniform(0.5, 1.15)
        art = picture(
            str(rng.choice(KINDS)), art_rng, max(int(tall), 8), max(int(wide), 8), colours, main
        )
        degrees = rng.normal(0, 15) if rng.random() < 0.4 else 0.0
        paste(canvas, art, width * rng.uniform(0.3, 0.7), height * (y0 + y1) / 2, degrees)
    for _ in range(int(rng.choice((0, 1, 2, 4), p=(0.55, 0.2, 0.15, 0.1)))):
        size = max(int(min(height, width) * rng.uniform(0.12, 0.4)), 8)
        small = picture(str(rng.choice(KINDS)), art_rng, size, size, colours)
        paste(
            canvas,
            small,
            width * rng.uniform(0, 1),
            height * rng.uniform(0, 1),
            rng.uniform(-40, 40),
        )


def _wordmark(
    canvas: np.ndarray, product: Product, rng: np.random.Generator, split: float, flipped: bool
) -> Colour:
    """Set the brand; returns the mean colour behind it."""
    height, width = canvas.shape[:2]
    middle = (1 - split / 2 if flipped else split / 2) + rng.normal(0, 0.03)
    wide, high = width * rng.uniform(0.72, 1.04), height * split * rng.uniform(0.45, 0.95)
    vertical = rng.random() < (0.3 if height > 1.6 * width else 0.06)
    if vertical:
        wide, high = height * rng.uniform(0.5, 0.9), width * rng.uniform(0.25, 0.6)
        middle = rng.uniform(0.4, 0.6)
    high = min(high, wide * 0.8)
    degrees = 90.0 if vertical else (rng.uniform(-25, 25) if rng.random() < 0.15 else 0.0)
    top = int(np.clip((middle - 0.1) * height, 0, height - 2))
    behind = tuple(float(v) for v in canvas[top : top + max(height // 5, 2)].mean((0, 1)))
    inks = [*product.palette, (1.0, 1.0, 1.0), (0.05, 0.05, 0.07)]
    mark = wordmark(product.brand, max(int(wide), 12), max(int(high), 8), inks, behind)
    shift = rng.normal(0, 0.06) if rng.random() < 0.4 else 0
    paste(canvas, mark, width * (0.5 + shift), height * middle, degrees)
    return behind


def _flavour(
    canvas: np.ndarray,
    product: Product,
    rng: np.random.Generator,
    differs: str,
    split: float,
    flipped: bool,
) -> None:
    """The field with the flavour word, in the accent colour where that is what differs."""
    height, width = canvas.shape[:2]
    at = (1 - split if flipped else split) + rng.uniform(-0.05, 0.05)
    at = at if rng.random() < 0.6 else rng.uniform(0.75, 0.95)
    half = rng.uniform(0.035, 0.09)
    y0, y1 = (at - half) * height, (at + half) * height
    left, right = sorted(rng.choice((0.0, 0.0, 0.08, 0.3, 0.7, 0.92, 1.0), 2, replace=False))
    if right - left < 0.35:
        left, right = 0.05, 0.95
    field = product.accent if differs == "band" else product.palette[1]
    top, bottom, x0, x1 = (
        max(int(y0), 0),
        int(y1) + 2,
        int(left * width),
        max(int(right * width), 4),
    )
    part = canvas[top:bottom, x0:x1]
    plate = str(rng.choice(("box", "box", "pill", "ribbon", "slab", "oval")))
    if part.shape[0] > 2 and (differs == "band" or rng.random() < 0.5):
        blend(part, plate_mask(plate, *part.shape[:2]), field)
    elif part.size:
        field = tuple(float(v) for v in part.mean((0, 1)))
    text = (
        product.flavour,
        product.flavour.upper(),
        f"{product.line} {product.flavour}",
        f"{product.flavour} {product.noun}",
    )[int(rng.choice(4, p=(0.35, 0.35, 0.15, 0.15)))]
    inset, ink = 0.12 * (x1 - x0), _ink(field, product.palette[3], (1, 1, 1))
    words(
        canvas,
        text,
        (x0 + inset, y0 + 1, x1 - inset, y1 - 1),
        ink,
        stream("face", product.line_seed),
    )
    cx, cy = width * rng.choice((0.15, 0.85)), height * rng.uniform(0.1, 0.9)
    size = max(int(min(height, width) * rng.uniform(0.2, 0.4)), 8)
    if differs == "corner":
        reach = rng.uniform(0.5, 1.2)
        sx, sy = rng.choice((-1, 1)), rng.choice((-1, 1))
        corner = np.array(
            [(sx, sy), (sx * (1 - reach), sy), (sx, sy * (1 - reach * width / height))]
        )
        blend(canvas, polygon(height, width, corner), product.accent)
    elif differs == "spot":
        own = stream("flavour", product.seed)
        paste(canvas, thing(own, size, product.accent), cx, cy, own.uniform(-40, 40))


def _extras(
    canvas: np.ndarray, product: Product, rng: np.random.Generator, behind: Colour, ink: Colour
) -> None:
    """Badges, bursts, product kind, small print and bar codes."""
    height, width = canvas.shape[:2]
    face = stream("kind", product.line_seed)
    ink = _ink(behind, ink)
    if rng.random() < 0.5:
        y = rng.uniform(0.05, 0.9) * height
        words(
            canvas,
            product.noun if rng.random() < 0.5 else product.line.upper(),
            (width * 0.15, y, width * 0.85, y + height * rng.uniform(0.03, 0.08)),
            ink,
            face,
        )
    for _ in range(int(rng.choice((0, 1, 2, 3), p=(0.4, 0.3, 0.2, 0.1)))):
        size = max(int(min(width, height) * rng.uniform(0.13, 0.34)), 7)
        colour = (
            product.palette[2],
            product.palette[1],
            (0.95, 0.85, 0.1),
            (0.85, 0.1, 0.1),
            (1, 1, 1),
        )[int(rng.integers(5))]
        badge = layer(
            colour,
            plate_mask(str(rng.choice("burst oval oval shield box ribbon".split())), size, size),
        )
        text = str(rng.choice("NEW BIO 25% 0% XL +20 ECO 1L 500g №1 ♻".split()))
        words(
            badge[..., :3],
            text,
            (size * 0.18, size * 0.3, size * 0.82, size * 0.7),
            _ink(colour),
            face,
            "DejaVuSans-Bold",
        )
        paste(
            canvas,
            badge,
            width * rng.uniform(0.1, 0.9),
            height * rng.uniform(0.05, 0.95),
            rng.uniform(-20, 20),
        )
    for _ in range(int(rng.integers(0, 4))):
        x, y = rng.uniform(0, 0.8) * width, rng.uniform(0.1, 0.97) * height
        right, bottom = x + rng.uniform(0.15, 0.6) * width, y + rng.uniform(0.03, 0.15) * height
        small_print(canvas, (x, y, right, bottom), ink, rng)
