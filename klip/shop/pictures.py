"""What is pictured on packs: heaps of food, bowls, splashes, scenery, mascots, emblems,
abstract shapes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator

from klip.shop.forms import FORMS, PATTERNS, individual
from klip.shop.items import heap, sprite
from klip.shop.lettering import plate_mask, text_mask
from klip.shop.mascots import creature, emblem, portrait
from klip.shop.paint import Colour, blend, edge, grid, hsv, layer, mix, noise, paste, polygon

_ICONS = "☀☁☂★☎☕☘♛♞♣♥♠♫⚓⚘✈✂✎✶✿❀❁❄❖❤☾♨⚡⚙⛄✪❋♘♚♜♟☃⚖⚔♆♈♉♊♌♏♐⚽⛵✌☮☯☠☢♻"
KINDS = """heap cluster cluster scatter bowl glass splash scene creature icon emblem texture
swirl abstract portrait row window""".split()
_FOOD_HUES = (0.0, 0.03, 0.07, 0.09, 0.11, 0.14, 0.25, 0.33, 0.95)


def food_colour(rng: Generator) -> Colour:
    """A colour food tends to have: browns, yellows, reds and greens, sometimes anything."""
    if rng.random() < 0.75:
        hue = rng.choice(_FOOD_HUES) + rng.normal(0, 0.02)
        return hsv(hue, rng.uniform(0.3, 0.95), value=rng.uniform(0.35, 1))
    return hsv(rng.random(), rng.uniform(0, 1), value=rng.uniform(0.1, 1))


def thing(rng: Generator, size: int, *, colour: Colour | None = None) -> ndarray:
    """A random edible-looking thing as RGBA (size, size, 4)."""
    form = individual(FORMS[str(rng.choice(list(FORMS)))], rng, spread=1.5)
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
    colours = skin, food_colour(rng), mix(skin, (0.1, 0.05, 0.0), share=0.7)
    leaf = hsv(rng.uniform(0.2, 0.4), 0.7, value=0.5)
    return sprite(form, rng, size=size, colours=colours, leaf=leaf)


@dataclass(frozen=True)
class _Sheet:
    """What a picture is drawn on and with: coordinates -1..1, colours, and all chance."""

    rng: Generator
    height: int
    width: int
    size: int  # pixels of the shorter side, at least 8
    x: ndarray
    y: ndarray
    main: Colour
    a: Colour
    b: Colour
    c: Colour

    @property
    def empty(self) -> ndarray:
        return np.zeros((self.height, self.width, 4), np.float32)


def picture(
    kind: str, rng: Generator, *, shape: tuple[int, int], colours: list, main: Colour | None = None
) -> ndarray:
    """A picture as RGBA (*shape, 4); `main` colours its main thing, `colours` the rest."""
    a, b, c = (colours[int(i)] for i in rng.integers(len(colours), size=3))
    if not main:
        main = food_colour(rng) if rng.random() < 0.6 else a
    size, (x, y) = max(min(shape), 8), grid(*shape)
    return _DRAWN[kind](_Sheet(rng, *shape, size, x, y, main, a, b, c))


def _heap(s: _Sheet) -> ndarray:
    things = [thing(s.rng, max(s.size // 3, 8), colour=s.main)]
    same = s.rng.random() < 0.6
    things.append(thing(s.rng, max(s.size // 3, 8), colour=s.main if same else None))
    count = int(s.rng.integers(14, 40))
    box = (0, s.height * s.rng.uniform(0.15, 0.6), s.width, s.height * 1.05)
    return heap(s.empty, things, count=count, rng=s.rng, box=box, scale=(0.6, 1.5))


def _things(s: _Sheet, share: float) -> list[ndarray]:
    """One kind of thing, `share` of the sheet in size, or two."""
    things = [thing(s.rng, int(s.size * share) + 6, colour=s.main)]
    if s.rng.random() < 0.5:
        things.append(thing(s.rng, int(s.size * 0.4) + 6))
    return things


def _row(s: _Sheet) -> ndarray:
    canvas, things = s.empty, _things(s, 0.4)
    for at in np.linspace(0.15, 0.85, int(s.rng.integers(3, 6))):
        paste(canvas, things[0], at=(at * s.width, s.height / 2))
    return canvas


def _cluster(s: _Sheet) -> ndarray:
    """A few things close together."""
    things, count = _things(s, 0.6), int(s.rng.integers(2, 6))
    box = (0.3 * s.width, 0.3 * s.height, 0.75 * s.width, 0.75 * s.height)
    return heap(s.empty, things, count=count, rng=s.rng, box=box, scale=(0.6, 1.1))


def _scatter(s: _Sheet) -> ndarray:
    """More things, all over the sheet."""
    things, count = _things(s, 0.4), int(s.rng.integers(5, 16))
    box = (0, 0, s.width, s.height)
    return heap(s.empty, things, count=count, rng=s.rng, box=box, scale=(0.6, 1.1))


def _bowl(s: _Sheet) -> ndarray:
    rng, x, y, soft = s.rng, s.x, s.y, 4 / s.size
    mouth, rim = rng.uniform(0.15, 0.35), -0.05
    inside = edge(np.hypot(x / 0.9, (y - rim) / mouth) - 1, soft)
    body = edge(np.hypot(x / 0.93, (y - rim) / rng.uniform(0.7, 0.95)) - 1, soft)
    body = body * edge(rim - y, soft)
    rgb = np.float32(s.b) * (0.8 + 0.5 * x + 0.15 * np.sin(rng.uniform(0, 20) * y))[..., None]
    canvas = layer(rgb, np.maximum(body, inside))
    food = layer(s.main, inside)
    things = [thing(rng, max(s.size // 4, 8), colour=s.main), thing(rng, max(s.size // 5, 8))]
    box = (0.15 * s.width, s.height * 0.28, 0.85 * s.width, s.height * 0.55)
    heap(food, things, count=int(rng.integers(8, 26)), rng=rng, box=box, scale=(0.5, 1.3))
    food[..., 3] *= np.maximum(inside, y < rim)  # food may stand over the rim, not hang below
    paste(canvas, food)
    return canvas


def _window(s: _Sheet) -> ndarray:
    """A pane in the pack through which its contents are seen."""
    canvas, rng = s.empty, s.rng
    canvas[:] = (*mix(s.main, (0.1, 0.05, 0.0), share=0.5), 1)
    things = [thing(rng, max(s.size // 4, 8), colour=s.main)]
    box = (0, 0, s.width, s.height)
    heap(canvas, things, count=45, rng=rng, box=box, scale=(0.5, 1.2))
    pane = str(rng.choice(("oval", "box", "pill", "shield", "lens", "slab")))
    canvas[..., 3] = plate_mask(pane, s.x.shape)
    shine = np.clip(noise(rng, s.x.shape, zoom=1.5) - 0.6, 0, 1) * rng.uniform(0, 2)
    canvas[..., :3] += shine[..., None]
    return canvas


def _glass(s: _Sheet) -> ndarray:
    x, y = s.x, s.y
    side, level = np.abs(x) - (0.45 - 0.12 * y), s.rng.uniform(-0.7, 0.1)
    liquid = np.where((y > level)[..., None], np.float32(s.main), np.float32((0.92, 0.95, 0.97)))
    shine = np.exp(-(((x + 0.25) / 0.07) ** 2)) * 0.6 + 0.25 * y * (y > level)
    rgb = liquid * (1 - 0.5 * np.abs(x))[..., None] + shine[..., None]
    return layer(rgb, edge(np.maximum(side, np.abs(y) - 0.93), 4 / s.size))


def _splash(s: _Sheet) -> ndarray:
    rng, wave = s.rng, 0
    for k in (1, 2, 4):
        wave = wave + rng.uniform(0.05, 0.25) * np.sin(k * 2.2 * s.x + rng.uniform(0, 6.28))
    depth = s.y - rng.uniform(-0.3, 0.4) + wave
    light = 0.75 + 0.25 * np.sin(9 * depth + 4 * s.x)
    light = light + 0.5 * np.exp(-(((depth - 0.07) / 0.05) ** 2))  # a bright rim of foam
    return layer(np.float32(s.main) * light[..., None], edge(-depth, 4 / s.size))


def _scene(s: _Sheet) -> ndarray:
    """Sky, sun, and ridges one behind the other."""
    rng, x, y = s.rng, s.x, s.y
    sky = (0.5 + 0.5 * y)[..., None] * (np.float32(s.b) - np.float32(s.a))
    rgb = np.float32(s.a) + sky
    sun = np.hypot(x - rng.uniform(-0.7, 0.7), y + 0.4) - rng.uniform(0.1, 0.4)
    blend(rgb, (1, 0.95, 0.7), where=edge(sun, 0.05))
    for step in range(int(rng.integers(2, 5))):
        rough = noise(rng, (1, s.width), zoom=rng.uniform(0.5, 2) * s.size / 40)
        ridge = rough * 1.1 - 0.7 + 0.3 * step
        hill = mix(s.c, s.main, share=step / 4 + 0.1)
        blend(rgb, hill, where=edge(ridge - y, 4 / s.size))
    return np.dstack((rgb, np.ones_like(x)))


def _between(s: _Sheet, share: ndarray) -> ndarray:
    """The main colour turning into the second by `share`, 0..1, on a canvas still transparent."""
    canvas = s.empty
    change = np.float32(s.b) - np.float32(s.main)
    canvas[..., :3] = np.float32(s.main) + share[..., None] * change
    return canvas


def _texture(s: _Sheet) -> ndarray:
    zoom, stretch = s.rng.uniform(0.2, 1.5), s.rng.choice((1.0, 1.0, 4.0))
    grain = noise(s.rng, s.x.shape, zoom=zoom, stretch=stretch)
    canvas = _between(s, np.clip((grain - 0.5) * s.rng.uniform(1.5, 8) + 0.5, 0, 1))
    round_ = s.rng.random() < 0.5
    canvas[..., 3] = edge(np.hypot(s.x, s.y) - 0.97, 0.05) if round_ else 1.0
    return canvas


def _swirl(s: _Sheet) -> ndarray:
    radius, angle = np.hypot(s.x, s.y), np.arctan2(s.y, s.x)
    turned = angle * s.rng.integers(1, 9) + radius * s.rng.uniform(-12, 12)
    canvas = _between(s, np.clip(0.5 + 3 * np.sin(turned), 0, 1))
    canvas[..., 3] = edge(radius - 0.95, 4 / s.size)
    return canvas


def _abstract(s: _Sheet) -> ndarray:
    canvas, rng = s.empty, s.rng
    for index in range(int(rng.integers(3, 9))):
        points = rng.uniform(-1, 1, (int(rng.integers(3, 6)), 2))
        if rng.random() < 0.4:
            away = np.hypot(s.x - points[0, 0], s.y - points[0, 1])
            mask = edge(away - rng.uniform(0.1, 0.5), 4 / s.size)
        else:
            mask = polygon(s.x.shape, points)
        paste(canvas, layer((s.main, s.a, s.b, s.c)[index % 4], mask))
    return canvas


def _icon(s: _Sheet) -> ndarray:
    canvas = s.empty
    mask = text_mask(str(s.rng.choice(list(_ICONS))), "DejaVuSans", size=int(s.size * 0.9) + 4)
    scale = min(s.width / mask.shape[1], s.height / mask.shape[0])
    mask = cv2.resize(mask, None, fx=scale, fy=scale)[: s.height, : s.width]
    canvas[: mask.shape[0], : mask.shape[1], 3] = mask
    canvas[..., :3] = s.main
    return canvas


_DRAWN = {
    "heap": _heap, "row": _row, "cluster": _cluster, "scatter": _scatter, "bowl": _bowl,
    "window": _window, "glass": _glass, "splash": _splash, "scene": _scene,
    "texture": _texture, "swirl": _swirl, "abstract": _abstract, "icon": _icon,
    "emblem": lambda s: emblem(s.empty, s.rng, main=s.main, inner=s.a),
    "creature": lambda s: creature(s.empty, s.rng, main=s.main, ears=s.a),
    "portrait": lambda s: portrait(s.empty, s.rng, main=s.main, hair=s.b),
}  # fmt: skip
