"""What is pictured on packs: heaps of food, bowls, splashes, scenery, mascots, emblems,
abstract shapes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from klip.shop.items import FORMS, PATTERNS, heap, individual, sprite
from klip.shop.lettering import plate_mask, text_mask
from klip.shop.mascots import emblem, figure
from klip.shop.paint import Colour, blend, edge, grid, hsv, layer, mix, noise, paste, polygon

_ICONS = "☀☁☂★☎☕☘♛♞♣♥♠♫⚓⚘✈✂✎✶✿❀❁❄❖❤☾♨⚡⚙⛄✪❋♘♚♜♟☃⚖⚔♆♈♉♊♌♏♐⚽⛵✌☮☯☠☢♻"
KINDS = """heap cluster cluster scatter bowl glass splash scene creature icon emblem texture swirl
abstract portrait row window""".split()


def food_colour(rng: np.random.Generator) -> Colour:
    """A colour food tends to have: browns, yellows, reds and greens, sometimes anything."""
    if rng.random() < 0.75:
        return hsv(
            rng.choice((0.0, 0.03, 0.07, 0.09, 0.11, 0.14, 0.25, 0.33, 0.95)) + rng.normal(0, 0.02),
            rng.uniform(0.3, 0.95),
            rng.uniform(0.35, 1),
        )
    return hsv(rng.random(), rng.uniform(0, 1), rng.uniform(0.1, 1))


def thing(rng: np.random.Generator, size: int, colour: Colour | None = None) -> np.ndarray:
    """A random edible-looking thing as RGBA (size, size, 4)."""
    form = individual(FORMS[str(rng.choice(list(FORMS)))], rng, 1.5)
    if rng.random() < 0.4:
        form = replace(
            form,
            lobes=int(rng.integers(2, 12)),
            lobe=abs(rng.normal(0, 0.12)),
            bump=abs(rng.normal(0, 0.4)),
            gloss=rng.uniform(0, 0.9),
            pattern=str(rng.choice(PATTERNS)),
        )
    skin = colour or food_colour(rng)
    return sprite(
        form,
        size,
        (skin, food_colour(rng), mix(skin, (0.1, 0.05, 0.0), 0.7)),
        rng,
        hsv(rng.uniform(0.2, 0.4), 0.7, 0.5),
    )


@dataclass(frozen=True)
class _Sheet:
    """What a picture is drawn on and with: coordinates -1..1, colours, and all chance."""

    rng: np.random.Generator
    height: int
    width: int
    size: int  # pixels of the shorter side, at least 8
    x: np.ndarray
    y: np.ndarray
    main: Colour
    a: Colour
    b: Colour
    c: Colour

    @property
    def empty(self) -> np.ndarray:
        return np.zeros((self.height, self.width, 4), np.float32)


def picture(
    kind: str,
    rng: np.random.Generator,
    height: int,
    width: int,
    colours: list[Colour],
    main: Colour | None = None,
) -> np.ndarray:
    """A picture as RGBA (height, width, 4); `main` colours its main thing, `colours` the rest."""
    x, y = grid(height, width)
    a, b, c = (colours[int(i)] for i in rng.integers(len(colours), size=3))
    main = main or (food_colour(rng) if rng.random() < 0.6 else a)
    sheet = _Sheet(rng, height, width, max(min(height, width), 8), x, y, main, a, b, c)
    if kind in _DRAWN:
        return _DRAWN[kind](sheet)
    if kind in ("cluster", "scatter"):
        return _group(sheet, close=kind == "cluster")
    canvas = sheet.empty
    if kind == "emblem":
        emblem(canvas, rng, main, a)
    else:
        figure(kind, canvas, rng, (main, a, b))
    return canvas


def _heap(s: _Sheet) -> np.ndarray:
    canvas, things = s.empty, []
    for i in range(2):
        same = i == 0 or s.rng.random() < 0.6
        things.append(thing(s.rng, max(s.size // 3, 8), s.main if same else None))
    count = int(s.rng.integers(14, 40))
    place = (0, s.height * s.rng.uniform(0.15, 0.6), s.width, s.height * 1.05)
    heap(canvas, things, count, s.rng, place, (0.6, 1.5))
    return canvas


def _things(s: _Sheet, share: float) -> list[np.ndarray]:
    things = [thing(s.rng, int(s.size * share) + 6, s.main)]
    if s.rng.random() < 0.5:
        things.append(thing(s.rng, int(s.size * 0.4) + 6))
    return things


def _row(s: _Sheet) -> np.ndarray:
    canvas, things = s.empty, _things(s, 0.4)
    for at in np.linspace(0.15, 0.85, int(s.rng.integers(3, 6))):
        paste(canvas, things[0], at * s.width, s.height / 2)
    return canvas


def _group(s: _Sheet, close: bool) -> np.ndarray:
    """A few things close together, or more of them all over the sheet."""
    canvas, things = s.empty, _things(s, 0.6 if close else 0.4)
    low, high = (0.3, 0.75) if close else (0.0, 1.0)
    count = int(s.rng.integers(2, 6) if close else s.rng.integers(5, 16))
    place = (low * s.width, low * s.height, high * s.width, high * s.height)
    heap(canvas, things, count, s.rng, place, (0.6, 1.1))
    return canvas


def _bowl(s: _Sheet) -> np.ndarray:
    rng, x, y, soft = s.rng, s.x, s.y, 4 / s.size
    mouth, rim = rng.uniform(0.15, 0.35), -0.05
    inside = edge(np.hypot(x / 0.9, (y - rim) / mouth) - 1, soft)
    body = edge(np.hypot(x / 0.93, (y - rim) / rng.uniform(0.7, 0.95)) - 1, soft)
    body = body * edge(rim - y, soft)
    rgb = np.float32(s.b) * (0.8 + 0.5 * x + 0.15 * np.sin(rng.uniform(0, 20) * y))[..., None]
    canvas = layer(rgb, np.maximum(body, inside))
    food = layer(s.main, inside)
    things = [thing(rng, max(s.size // 4, 8), s.main), thing(rng, max(s.size // 5, 8))]
    place = (0.15 * s.width, s.height * 0.28, 0.85 * s.width, s.height * 0.55)
    heap(food, things, int(rng.integers(8, 26)), rng, place, (0.5, 1.3))
    food[..., 3] *= np.maximum(inside, y < rim)
    paste(canvas, food, s.width / 2, s.height / 2)
    return canvas


def _window(s: _Sheet) -> np.ndarray:
    canvas, rng = s.empty, s.rng
    canvas[:] = (*mix(s.main, (0.1, 0.05, 0.0), 0.5), 1)
    things = [thing(rng, max(s.size // 4, 8), s.main)]
    heap(canvas, things, 45, rng, (0, 0, s.width, s.height), (0.5, 1.2))
    pane = str(rng.choice(("oval", "box", "pill", "shield", "lens", "slab")))
    canvas[..., 3] = plate_mask(pane, s.height, s.width)
    shine = np.clip(noise(rng, s.height, s.width, 1.5) - 0.6, 0, 1) * rng.uniform(0, 2)
    canvas[..., :3] += shine[..., None]
    return canvas


def _glass(s: _Sheet) -> np.ndarray:
    x, y = s.x, s.y
    side, level = np.abs(x) - (0.45 - 0.12 * y), s.rng.uniform(-0.7, 0.1)
    liquid = np.where((y > level)[..., None], np.float32(s.main), np.float32((0.92, 0.95, 0.97)))
    shine = np.exp(-(((x + 0.25) / 0.07) ** 2)) * 0.6 + 0.25 * y * (y > level)
    rgb = liquid * (1 - 0.5 * np.abs(x))[..., None] + shine[..., None]
    return layer(rgb, edge(np.maximum(side, np.abs(y) - 0.93), 4 / s.size))


def _splash(s: _Sheet) -> np.ndarray:
    rng, wave = s.rng, 0
    for k in (1, 2, 4):
        wave = wave + rng.uniform(0.05, 0.25) * np.sin(k * 2.2 * s.x + rng.uniform(0, 6.28))
    depth = s.y - rng.uniform(-0.3, 0.4) + wave
    light = 0.75 + 0.25 * np.sin(9 * depth + 4 * s.x)
    light = light + 0.5 * np.exp(-(((depth - 0.07) / 0.05) ** 2))
    return layer(np.float32(s.main) * light[..., None], edge(-depth, 4 / s.size))


def _scene(s: _Sheet) -> np.ndarray:
    canvas, rng, x, y = s.empty, s.rng, s.x, s.y
    canvas[..., 3] = 1
    sky = (0.5 + 0.5 * y)[..., None] * (np.float32(s.b) - np.float32(s.a))
    canvas[..., :3] = np.float32(s.a) + sky
    sun = np.hypot(x - rng.uniform(-0.7, 0.7), y + 0.4) - rng.uniform(0.1, 0.4)
    blend(canvas[..., :3], edge(sun, 0.05), (1, 0.95, 0.7))
    for step in range(int(rng.integers(2, 5))):
        rough = noise(rng, 1, s.width, rng.uniform(0.5, 2) * s.size / 40)
        ridge = rough * 1.1 - 0.7 + 0.3 * step
        blend(canvas[..., :3], edge(ridge - y, 4 / s.size), mix(s.c, s.main, step / 4 + 0.1))
    return canvas


def _between(s: _Sheet, share: np.ndarray) -> np.ndarray:
    """The main colour turning into the second by `share`, 0..1, on a canvas still transparent."""
    canvas = s.empty
    change = np.float32(s.b) - np.float32(s.main)
    canvas[..., :3] = np.float32(s.main) + share[..., None] * change
    return canvas


def _texture(s: _Sheet) -> np.ndarray:
    grain = noise(s.rng, s.height, s.width, s.rng.uniform(0.2, 1.5), s.rng.choice((1.0, 1.0, 4.0)))
    canvas = _between(s, np.clip((grain - 0.5) * s.rng.uniform(1.5, 8) + 0.5, 0, 1))
    round_ = s.rng.random() < 0.5
    canvas[..., 3] = edge(np.hypot(s.x, s.y) - 0.97, 0.05) if round_ else 1.0
    return canvas


def _swirl(s: _Sheet) -> np.ndarray:
    radius, angle = np.hypot(s.x, s.y), np.arctan2(s.y, s.x)
    turned = angle * s.rng.integers(1, 9) + radius * s.rng.uniform(-12, 12)
    canvas = _between(s, np.clip(0.5 + 3 * np.sin(turned), 0, 1))
    canvas[..., 3] = edge(radius - 0.95, 4 / s.size)
    return canvas


def _abstract(s: _Sheet) -> np.ndarray:
    canvas, rng = s.empty, s.rng
    for index in range(int(rng.integers(3, 9))):
        points = rng.uniform(-1, 1, (int(rng.integers(3, 6)), 2))
        if rng.random() < 0.4:
            away = np.hypot(s.x - points[0, 0], s.y - points[0, 1])
            mask = edge(away - rng.uniform(0.1, 0.5), 4 / s.size)
        else:
            mask = polygon(s.height, s.width, points)
        colour = (s.main, s.a, s.b, s.c)[index % 4]
        paste(canvas, layer(colour, mask), s.width / 2, s.height / 2)
    return canvas


def _icon(s: _Sheet) -> np.ndarray:
    canvas = s.empty
    mask = text_mask(str(s.rng.choice(list(_ICONS))), "DejaVuSans", int(s.size * 0.9) + 4)
    scale = min(s.width / mask.shape[1], s.height / mask.shape[0])
    mask = cv2.resize(mask, None, fx=scale, fy=scale)[: s.height, : s.width]
    canvas[: mask.shape[0], : mask.shape[1], 3] = mask
    canvas[..., :3] = s.main
    return canvas


_DRAWN = {
    "heap": _heap, "row": _row, "bowl": _bowl, "window": _window, "glass": _glass,
    "splash": _splash, "scene": _scene, "texture": _texture, "swirl": _swirl,
    "abstract": _abstract, "icon": _icon,
}  # fmt: skip
