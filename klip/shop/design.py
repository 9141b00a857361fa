"""Products that do not exist: brands, lines and flavours, and what people would call them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from klip.shop.paint import Colour, hsv, luma, mix, stream

RANGES = ("pretrain", "finetune", "grozi_like", "capg_like", "rp2k_like", "spare")
"""Every range of products.  A brand name belongs to exactly one of them, see `range_of`."""

_ONSETS = "b c d f g h j k l m n p r s t v w z br cr dr fl gr kl pl pr sh sl st tr ch qu".split()
_VOWELS = "a e i o u a e i o ai ea ou io ia y".split()
_CODAS = ["", "", "", "", "n", "r", "l", "s", "x", "m", "nd", "tt", "ck", "rt", "sch", "ll"]

CATEGORIES: dict[str, tuple[str, str]] = {
    # category: package shapes it is sold in, names people give it
    "juice": ("carton bottle carton can multipack pouch", "juice|fruit drink|nectar"),
    "milk": ("carton bottle carton", "milk|oat drink|soy drink"),
    "yoghurt": ("cup tub carton multipack", "yoghurt|sour milk|kefir"),
    "soda": ("can bottle can multipack", "soda|soft drink|lemonade"),
    "tea": ("box tin carton bag", "tea|ice tea|herbal tea"),
    "coffee": ("bag jar tin canister", "coffee|espresso|cocoa"),
    "crisps": ("bag bag canister", "crisps|potato chips|tortilla chips"),
    "snack mix": ("bag pouch canister", "snack mix|pretzels|nuts"),
    "cereal": ("box box bag", "cereal|muesli|oats"),
    "biscuits": ("box wrapper tin", "biscuits|cookies|crackers"),
    "chocolate": ("wrapper box bag", "chocolate|candy bar|pralines"),
    "sweets": ("bag box wrapper tin blister", "sweets|gummies|mints|chewing gum"),
    "noodles": ("cup box bag", "noodles|instant soup|pasta"),
    "rice": ("box bag", "rice|lentils|couscous"),
    "sauce": ("jar bottle pouch", "sauce|ketchup|dressing|mustard"),
    "jam": ("jar tub", "jam|honey|spread"),
    "tinned food": ("can tin can", "soup|beans|tuna|tinned fruit"),
    "spice": ("canister jar pouch", "salt|spice|seasoning"),
    "frozen": ("box bag tray", "frozen vegetables|pizza|ice cream"),
    "meat": ("tray pouch tray", "ham|sausages|cheese"),
    "medicine": ("bottle box blister tube", "cough syrup|tablets|vitamins"),
    "cosmetics": ("bottle tube jar canister", "shampoo|lotion|deodorant|cream"),
    "oral care": ("tube box blister bottle", "toothpaste|mouthwash|lip balm"),
    "cleaning": ("bottle box pouch canister", "detergent|cleaner|bleach"),
    "paper": ("box bag", "tissues|napkins|playing cards"),
    "hardware": ("blister tool tool blister", "comb|toothbrush|pen|razor|batteries"),
    "pet food": ("can pouch bag tin", "cat food|dog food"),
}

FRUIT: dict[str, tuple[float, float, float, float]] = {
    # fruit or vegetable: hue, saturation and brightness of its skin, hue of its second colour
    "apple": (0.98, 0.8, 0.75, 0.18),
    "plum": (0.86, 0.6, 0.35, 0.95),
    "potato": (0.11, 0.45, 0.75, 0.08),
    "beetroot": (0.97, 0.35, 0.35, 0.07),
    "orange": (0.08, 0.9, 0.95, 0.1),
    "melon": (0.22, 0.5, 0.7, 0.15),
    "pear": (0.17, 0.6, 0.75, 0.1),
    "onion": (0.08, 0.65, 0.7, 0.95),
    "berries": (0.98, 0.85, 0.7, 0.65),
    "mushroom": (0.09, 0.2, 0.85, 0.07),
    "pepper": (0.0, 0.95, 0.75, 0.3),
    "cucumber": (0.3, 0.65, 0.4, 0.25),
    "carrot": (0.07, 0.85, 0.92, 0.3),
    "banana": (0.145, 0.8, 0.92, 0.22),
    "pineapple": (0.12, 0.7, 0.7, 0.25),
    "lettuce": (0.25, 0.55, 0.75, 0.2),
    "ginger": (0.1, 0.35, 0.75, 0.07),
    "avocado": (0.28, 0.45, 0.3, 0.08),
    "cauliflower": (0.13, 0.12, 0.93, 0.25),
    "leek": (0.28, 0.5, 0.6, 0.15),
}

_FLAVOURS = {
    # flavour: the hue it is usually printed in
    "mango": 0.11,
    "strawberry": 0.98,
    "lime": 0.24,
    "blueberry": 0.66,
    "vanilla": 0.13,
    "orange": 0.08,
    "cherry": 0.95,
    "mint": 0.42,
    "apple": 0.28,
    "lemon": 0.16,
    "peach": 0.06,
    "grape": 0.77,
    "coconut": 0.52,
    "caramel": 0.09,
    "paprika": 0.02,
    "onion": 0.31,
    "cheese": 0.14,
    "pepper": 0,
    "garlic": 0.18,
    "tomato": 0.01,
    "chicken": 0.12,
    "chili": 0.99,
    "hazelnut": 0.07,
    "raspberry": 0.93,
    "pear": 0.21,
    "banana": 0.15,
    "original": 0.6,
    "classic": 0,
    "light": 0.55,
    "zero": 0.7,
    "strong": 0.83,
    "sensitive": 0.5,
    "fresh": 0.45,
    "sport": 0.58,
    "night": 0.68,
    "kids": 0.88,
    "organic": 0.34,
    "spicy": 0.03,
    "mild": 0.36,
    "sea salt": 0.57,
}
_LINES = """Gold Family Bio Select Farm Extra Daily Pure Royal Nature Crunch Dream Tradition Active Premium
Little Sun Harvest Mountain Ocean Power Soft Rapid Nordic Bella Grand Velvet Magic Simple Garden""".split()
_NAMED = {
    "black": (0.06, 0.06, 0.07),
    "white": (0.95, 0.95, 0.95),
    "grey": (0.5, 0.5, 0.5),
    "red": (0.82, 0.08, 0.1),
    "dark red": (0.42, 0.05, 0.08),
    "orange": (0.96, 0.52, 0.08),
    "yellow": (0.97, 0.86, 0.15),
    "gold": (0.75, 0.6, 0.25),
    "brown": (0.42, 0.26, 0.13),
    "beige": (0.87, 0.78, 0.62),
    "green": (0.15, 0.6, 0.2),
    "dark green": (0.05, 0.28, 0.12),
    "light green": (0.6, 0.85, 0.4),
    "turquoise": (0.2, 0.75, 0.72),
    "blue": (0.12, 0.3, 0.8),
    "navy": (0.06, 0.1, 0.35),
    "light blue": (0.55, 0.78, 0.95),
    "purple": (0.45, 0.18, 0.6),
    "lilac": (0.75, 0.6, 0.88),
    "pink": (0.95, 0.5, 0.68),
    "magenta": (0.82, 0.1, 0.5),
}


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
    palette: tuple[Colour, Colour, Colour, Colour]  # ground, second, third colour and ink
    accent: Colour  # tells this flavour from its neighbours


def range_of(brand: str) -> str:
    """The one range a brand name belongs to: its hash, modulo the number of ranges."""
    digest = hashlib.blake2b(brand.casefold().encode(), digest_size=8).digest()
    return RANGES[int.from_bytes(digest, "big") % len(RANGES)]


def colour_name(colour: Colour) -> str:
    """The everyday name nearest to an RGB colour."""

    def distance(name: str) -> float:
        return sum(
            w * (a - b) ** 2 for w, a, b in zip((2, 4, 3), _NAMED[name], colour, strict=True)
        )

    return min(_NAMED, key=distance)


def _word(rng: np.random.Generator) -> str:
    syllables = int(rng.choice((1, 2, 3, 4), p=(0.08, 0.5, 0.34, 0.08)))
    text = ""
    for left in reversed(range(syllables)):
        text += str(rng.choice(_ONSETS)) + str(rng.choice(_VOWELS))
        text += str(rng.choice(_CODAS)) if rng.random() < 0.5 or not left else ""
    return text.capitalize() if len(text) > 2 else text.capitalize() + "co"


def _hue(rng: np.random.Generator) -> float:
    """A hue in turns, mostly one of those that packs are printed in."""
    if rng.random() < 0.35:
        return float(rng.random())
    common = (
        0.0,
        0.0,
        0.98,
        0.02,
        0.06,
        0.1,
        0.13,
        0.15,
        0.27,
        0.35,
        0.4,
        0.53,
        0.58,
        0.61,
        0.64,
        0.78,
        0.92,
    )
    return float(rng.choice(common) + rng.normal(0, 0.02))


def _palette(
    rng: np.random.Generator, hue: float, scheme: str
) -> tuple[Colour, Colour, Colour, Colour]:
    """Ground, second, third colour and ink of a line of a brand with the given hue and scheme."""

    def any_colour() -> Colour:
        return hsv(_hue(rng), rng.uniform(0, 1), rng.uniform(0.2, 1))

    strong = hsv(hue, rng.uniform(0.5, 1), rng.uniform(0.35, 1))
    if scheme == "white":
        ground, second, third = (
            hsv(hue, rng.uniform(0, 0.08), rng.uniform(0.9, 1)),
            strong,
            any_colour(),
        )
    elif scheme == "dark":
        ground, second, third = (
            hsv(hue, rng.uniform(0, 0.8), rng.uniform(0.03, 0.25)),
            any_colour(),
            strong,
        )
    elif scheme == "pastel":
        ground, second = (
            hsv(hue, rng.uniform(0.1, 0.4), 0.97),
            hsv(hue + rng.uniform(-0.3, 0.3), 0.35, 0.9),
        )
        third = strong
    elif scheme == "mono":
        ground, second = strong, hsv(hue, rng.uniform(0.5, 1), rng.uniform(0.15, 0.6))
        third = hsv(hue, rng.uniform(0, 0.4), 1)
    elif scheme == "kraft":
        ground, second = (
            hsv(rng.uniform(0.06, 0.12), rng.uniform(0.2, 0.6), rng.uniform(0.4, 0.85)),
            strong,
        )
        third = any_colour()
    else:
        other = hue + rng.choice((0.5, 0.33, 0.1, -0.1, -0.33))
        ground, second, third = strong, hsv(other, rng.uniform(0.5, 1), 0.9), any_colour()
    if rng.random() < 0.25:
        ground, second = second, ground
    inks = sorted(
        ((1.0, 1.0, 1.0), (0.03, 0.03, 0.04), second, third, mix(ground, (0, 0, 0), 0.7)),
        key=lambda ink: -abs(luma(ink) - luma(ground)),
    )
    return ground, second, third, inks[int(rng.choice(5, p=(0.5, 0.25, 0.15, 0.07, 0.03)))]


def design(range_name: str, lines: int, flavours: tuple[int, int], seed: int) -> list[Product]:
    """`lines` product lines of one range, each with a number of flavours from `flavours` (low, high)."""
    if range_name not in RANGES:
        raise ValueError(
            f"shop design: range must be one of {', '.join(RANGES)}, got {range_name!r}"
        )
    if lines < 1:
        raise ValueError(f"shop design: lines must be at least 1, got {lines!r}")
    if not 1 <= flavours[0] <= flavours[1] <= len(_FLAVOURS):
        raise ValueError(
            f"shop design: flavours must be (low, high) with 1 <= low <= high <= {len(_FLAVOURS)}, "
            f"got {flavours!r}"
        )
    rng = stream("design", range_name, seed)
    products: list[Product] = []
    brands: set[str] = set()
    made = 0
    while made < lines:
        brand = _word(rng)
        if brand in brands or range_of(brand) != range_name:
            continue
        brands.add(brand)
        hue = _hue(rng)
        scheme = str(rng.choice(("white", "dark", "pastel", "mono", "kraft", "loud", "loud")))
        for number in range(min(int(rng.choice((1, 2, 3), p=(0.65, 0.25, 0.1))), lines - made)):
            made += 1
            products += _line(
                stream("line", brand, number, seed), brand, number, hue, scheme, flavours
            )
    return products


def _line(
    rng: np.random.Generator,
    brand: str,
    number: int,
    hue: float,
    scheme: str,
    flavours: tuple[int, int],
) -> list[Product]:
    """The products of one line of a brand: one for each of its flavours."""
    line_seed = int(rng.integers(2**62))
    palette = _palette(rng, hue + rng.normal(0, 0.04), scheme if rng.random() < 0.75 else "loud")
    count = int(rng.integers(flavours[0], flavours[1] + 1))
    if rng.random() < 0.14:
        category, shape, line, noun = "produce", "produce", "variety", str(rng.choice(list(FRUIT)))
        skin, grey, bright, second = FRUIT[noun]
        skin = skin + rng.normal(0, 0.025) if rng.random() < 0.7 else rng.random()
        body = hsv(skin, grey * rng.uniform(0.6, 1.2), bright * rng.uniform(0.7, 1.15))
        palette = (
            body,
            hsv(second + rng.normal(0, 0.04), rng.uniform(0.4, 0.9), rng.uniform(0.4, 0.95)),
            mix(body, (0.2, 0.12, 0.05), rng.uniform(0.3, 0.8)),
            hsv(rng.uniform(0.2, 0.36), 0.6, 0.5),
        )
    else:
        category = str(rng.choice(list(CATEGORIES)))
        shapes, nouns = CATEGORIES[category]
        shape, noun = str(rng.choice(shapes.split())), str(rng.choice(nouns.split("|")))
        line = str(rng.choice(_LINES))
    words = rng.choice(list(_FLAVOURS), count, replace=False)
    natural = rng.random() < 0.7
    made: list[Product] = []
    for index, word in enumerate(map(str, words)):
        for _ in range(12):
            turn = _FLAVOURS[word] + rng.normal(0, 0.03) if natural else rng.random()
            accent = hsv(turn, rng.uniform(0.45, 1), rng.uniform(0.35, 1))
            nearest = min(
                (np.abs(np.subtract(accent, other.accent)).sum() for other in made), default=1.0
            )
            if nearest > 0.35:
                break
        name = f"{brand}-{number}-{line}-{noun}-{word}-{index}".lower().replace(" ", "_")
        made.append(
            Product(
                name,
                brand,
                line,
                word,
                category,
                noun,
                shape,
                int(rng.integers(2**62)),
                line_seed,
                palette,
                accent,
            )
        )
    return made


def caption(product: Product, rng: np.random.Generator) -> str:
    """One of many ways to say what the product is: brand, flavour, kind, package and colours, in words."""
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
            f"{product.brand} {product.noun} with {product.flavour}, {ground} {product.shape} with {accent}",
            f"a {ground} {product.shape} of {product.flavour} {product.noun}",
        )
        heads = (
            "a packshot of {}",
            "a photo of {}",
            "{}",
            "{} on a shelf",
            "a product picture of {}",
            "{} in a shop",
        )
    return str(rng.choice(heads)).format(kinds[int(rng.integers(len(kinds)))])
