"""Products that do not exist: brands, lines and flavours, and what people would call them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from klip.shop.goods import CATEGORIES, COLOURS, FLAVOURS, FRUIT, LINES
from klip.shop.paint import Colour, hsv, luma, mix, pick, pick_weighted, stream

RANGES = ("pretrain", "finetune", "grozi_like", "capg_like", "rp2k_like", "spare")
"""Every range of products.  A brand name belongs to exactly one of them, see `range_of`."""

_ONSETS = "b c d f g h j k l m n p r s t v w z br cr dr fl gr kl pl pr sh sl st tr ch qu".split()
_VOWELS = "a e i o u a e i o ai ea ou io ia y".split()
_CODAS = ["", "", "", "", "n", "r", "l", "s", "x", "m", "nd", "tt", "ck", "rt", "sch", "ll"]
_SCHEMES = ("white", "dark", "pastel", "mono", "kraft", "loud", "loud")
Palette = tuple[Colour, Colour, Colour, Colour]
"""Ground, second, third colour and ink."""


@dataclass(frozen=True)
class Product:
    """One product: everything its pictures and its words are drawn from."""

    name: str  # unique slug, fit for a folder name
    brand: str
    line: str
    flavour: str
    category: str
    noun: str  # what people call it: "ice tea", "apple"
    shape: str  # of the package, one of `klip.shop.packshot.SHAPES`
    seed: int  # of this flavour's own marks
    line_seed: int  # of all that the flavours of a line share: layout, artwork, package
    palette: Palette
    accent: Colour  # tells this flavour from its neighbours


def range_of(brand: str) -> str:
    """The one range a brand name belongs to: its hash, modulo the number of ranges."""
    digest = hashlib.blake2b(brand.casefold().encode(), digest_size=8).digest()
    return RANGES[int.from_bytes(digest, "big") % len(RANGES)]


def colour_name(colour: Colour) -> str:
    """The everyday name nearest to an RGB colour."""

    def distance(name: str) -> float:
        # Squares weighted as the eye does: green counts most, red least.
        parts = zip((2, 4, 3), COLOURS[name], colour, strict=True)
        return sum(weight * (a - b) ** 2 for weight, a, b in parts)

    return min(COLOURS, key=distance)


def _word(rng: Generator) -> str:
    syllables = pick_weighted(rng, (1, 2, 3, 4), p=(0.08, 0.5, 0.34, 0.08))
    text = ""
    for left in reversed(range(syllables)):
        text += pick(rng, _ONSETS) + pick(rng, _VOWELS)
        text += pick(rng, _CODAS) if rng.random() < 0.5 or not left else ""
    return text.capitalize() if len(text) > 2 else text.capitalize() + "co"


def _hue(rng: Generator) -> float:
    """A hue in turns, mostly one of those that packs are printed in."""
    if rng.random() < 0.35:
        return float(rng.random())
    reds, yellows, greens = (0.0, 0.0, 0.98, 0.02, 0.06), (0.1, 0.13, 0.15), (0.27, 0.35, 0.4)
    common = (*reds, *yellows, *greens, 0.53, 0.58, 0.61, 0.64, 0.78, 0.92)
    return float(rng.choice(common) + rng.normal(0, 0.02))


def _palette(rng: Generator, hue: float, *, scheme: str) -> Palette:
    """Ground, second, third colour and ink of a line of a brand with the given hue and scheme."""
    r = rng.uniform

    def any_colour() -> Colour:
        return hsv(_hue(rng), r(0, 1), value=r(0.2, 1))

    strong = hsv(hue, r(0.5, 1), value=r(0.35, 1))
    if scheme == "white":
        ground = hsv(hue, r(0, 0.08), value=r(0.9, 1))
        second, third = strong, any_colour()
    elif scheme == "dark":
        ground = hsv(hue, r(0, 0.8), value=r(0.03, 0.25))
        second, third = any_colour(), strong
    elif scheme == "pastel":
        ground = hsv(hue, r(0.1, 0.4), value=0.97)
        second, third = hsv(hue + r(-0.3, 0.3), 0.35, value=0.9), strong
    elif scheme == "mono":
        ground, second = strong, hsv(hue, r(0.5, 1), value=r(0.15, 0.6))
        third = hsv(hue, r(0, 0.4), value=1)
    elif scheme == "kraft":
        ground = hsv(r(0.06, 0.12), r(0.2, 0.6), value=r(0.4, 0.85))
        second, third = strong, any_colour()
    else:
        other = hue + rng.choice((0.5, 0.33, 0.1, -0.1, -0.33))
        ground, second, third = strong, hsv(other, r(0.5, 1), value=0.9), any_colour()
    if rng.random() < 0.25:
        ground, second = second, ground
    dark = mix(ground, (0, 0, 0), share=0.7)
    inks = [(1.0, 1.0, 1.0), (0.03, 0.03, 0.04), second, third, dark]
    inks.sort(key=lambda ink: -abs(luma(ink) - luma(ground)))  # the most legible first
    return ground, second, third, inks[int(rng.choice(5, p=(0.5, 0.25, 0.15, 0.07, 0.03)))]


def design(
    range_name: str, lines: int, *, flavours: tuple[int, int] = (1, 3), seed: int = 0
) -> list[Product]:
    """`lines` product lines of a range, each with low to high `flavours`."""
    if range_name not in RANGES:
        known = ", ".join(RANGES)
        raise ValueError(f"shop design: range must be one of {known}, got {range_name!r}")
    rng = stream("design", range_name, seed)
    products: list[Product] = []
    brands: set[str] = set()
    made = 0
    while made < lines:
        brand = _word(rng)
        if brand in brands or range_of(brand) != range_name:
            continue
        brands.add(brand)
        hue, scheme = _hue(rng), str(rng.choice(_SCHEMES))
        several = int(rng.choice((1, 2, 3), p=(0.65, 0.25, 0.1)))
        for number in range(min(several, lines - made)):
            made += 1
            products += _line(brand, number, hue=hue, scheme=scheme, flavours=flavours, seed=seed)
    return products


def _line(
    brand: str, number: int, *, hue: float, scheme: str, flavours: tuple[int, int], seed: int
) -> list[Product]:
    """The products of one line of a brand: one for each of its flavours."""
    # A stream of its own: what a line is does not hang on how many lines there are.
    rng = stream("line", brand, number, seed)
    line_seed = int(rng.integers(2**62))
    hue = hue + rng.normal(0, 0.04)
    palette = _palette(rng, hue, scheme=scheme if rng.random() < 0.75 else "loud")
    count = int(rng.integers(flavours[0], flavours[1] + 1))
    if rng.random() < 0.14:
        category, shape, line = "produce", "produce", "variety"
        noun = str(rng.choice(list(FRUIT)))
        palette = _skin(rng, noun)
    else:
        category = str(rng.choice(list(CATEGORIES)))
        shapes, nouns = CATEGORIES[category]
        shape, noun = str(rng.choice(shapes.split())), str(rng.choice(nouns.split("|")))
        line = str(rng.choice(LINES))
    words = rng.choice(list(FLAVOURS), count, replace=False)
    natural = rng.random() < 0.7
    made: list[Product] = []
    for index, word in enumerate(map(str, words)):
        accent = _accent(rng, FLAVOURS[word] if natural else None, others=made)
        name = f"{brand}-{number}-{line}-{noun}-{word}-{index}".lower().replace(" ", "_")
        what = (brand, line, word, category, noun, shape)
        own = int(rng.integers(2**62))
        made.append(Product(name, *what, own, line_seed, palette, accent))
    return made


def _accent(rng: Generator, hue: float | None, *, others: list[Product]) -> Colour:
    """A colour of about that hue (None: any) that can be told from the other flavours', if
    one of twelve tries gives it.
    """
    for _ in range(12):
        turn = rng.random() if hue is None else hue + rng.normal(0, 0.03)
        accent = hsv(turn, rng.uniform(0.45, 1), value=rng.uniform(0.35, 1))
        apart = [np.abs(np.subtract(accent, other.accent)).sum() for other in others]
        if min(apart, default=1.0) > 0.35:
            break
    return accent


def _skin(rng: Generator, noun: str) -> Palette:
    """The colours of a fruit: skin, second colour, shade, leaf."""
    r, (skin, grey, bright, second) = rng.uniform, FRUIT[noun]
    skin = skin + rng.normal(0, 0.025) if rng.random() < 0.7 else rng.random()
    body = hsv(skin, grey * r(0.6, 1.2), value=bright * r(0.7, 1.15))
    patch = hsv(second + rng.normal(0, 0.04), r(0.4, 0.9), value=r(0.4, 0.95))
    shade = mix(body, (0.2, 0.12, 0.05), share=r(0.3, 0.8))
    return body, patch, shade, hsv(r(0.2, 0.36), 0.6, value=0.5)


def caption(product: Product, rng: Generator) -> str:
    """One of many ways to say what the product is, and what it looks like."""
    ground, second, accent = map(colour_name, (*product.palette[:2], product.accent))
    if product.shape == "produce":
        kinds = (
            f"{ground} {product.noun}",
            f"{product.brand} {product.noun}, {ground} and {second}",
            f"fresh {ground} {product.noun} of the variety {product.brand} {product.flavour}",
            f"{product.noun} with a {ground} skin",
        )
        heads = ("a photo of {}", "a packshot of {}", "{}", "a pile of {} in a shop", "{} on white")
    else:
        pair = ground if ground == second else f"{ground} and {second}"
        kinds = (
            f"{product.brand} {product.flavour} {product.noun}, {pair} {product.shape}",
            f"{product.brand} {product.line} {product.noun} {product.flavour}",
            f"a {pair} {product.shape} of {product.noun} by {product.brand}",
            f"{product.brand} {product.noun} with {product.flavour}, "
            f"{ground} {product.shape} with {accent}",
            f"a {ground} {product.shape} of {product.flavour} {product.noun}",
        )
        heads = ("a packshot of {}", "a photo of {}", "{}", "{} on a shelf")
        heads += ("a product picture of {}", "{} in a shop")
    return str(rng.choice(heads)).format(kinds[int(rng.integers(len(kinds)))])
