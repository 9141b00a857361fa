"""What is pictured on packs: heaps of food, bowls, splashes, scenery, mascots, emblems, abstract shapes."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from klip.shop.items import FORMS, PATTERNS, heap, individual, sprite
from klip.shop.lettering import plate_mask, text_mask
from klip.shop.paint import Colour, blend, edge, grid, hsv, layer, mix, noise, paste, polygon

_ICONS = "☀☁☂★☎☕☘♛♞♣♥♠♫⚓⚘✈✂✎✶✿❀❁❄❖❤☾♨⚡⚙⛄✪❋♘♚♜♟☃⚖⚔♆♈♉♊♌♏♐⚽⛵✌☮☯☠☢♻"
KINDS = (
    "heap",
    "cluster",
    "cluster",
    "scatter",
    "bowl",
    "glass",
    "splash",
    "scene",
    "creature",
    "icon",
    "emblem",
    "texture",
    "swirl",
    "abstract",
    "portrait",
    "row",
    "window",
)


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


def picture(
    kind: str,
    rng: np.random.Generator,
    height: int,
    width: int,
    colours: list[Colour],
    main: Colour | None = None,
) -> np.ndarray:
    """A picture as RGBA (height, width, 4); `main` colours its main thing, `colours` the rest."""
    canvas = np.zeros((height, width, 4), np.float32)
    size = max(min(height, width), 8)
    x, y = grid(height, width)
    a, b, c = (colours[int(i)] for i in rng.integers(len(colours), size=3))
    main = main or (food_colour(rng) if rng.random() < 0.6 else a)
    if kind == "heap":
        things = [
            thing(rng, max(size // 3, 8), main if i == 0 or rng.random() < 0.6 else None)
            for i in range(2)
        ]
        heap(
            canvas,
            things,
            int(rng.integers(14, 40)),
            rng,
            (0, height * rng.uniform(0.15, 0.6), width, height * 1.05),
            (0.6, 1.5),
        )
    elif kind in ("cluster", "scatter", "row"):
        things = [thing(rng, int(size * (0.6 if kind == "cluster" else 0.4)) + 6, main)]
        if rng.random() < 0.5:
            things.append(thing(rng, int(size * 0.4) + 6))
        if kind == "row":
            for at in np.linspace(0.15, 0.85, int(rng.integers(3, 6))):
                paste(canvas, things[0], at * width, height / 2)
        else:
            low, high = (0.3, 0.75) if kind == "cluster" else (0.0, 1.0)
            heap(
                canvas,
                things,
                int(rng.integers(2, 6) if kind == "cluster" else rng.integers(5, 16)),
                rng,
                (low * width, low * height, high * width, high * height),
                (0.6, 1.1),
            )
    elif kind == "bowl":
        mouth, rim = rng.uniform(0.15, 0.35), -0.05
        inside = edge(np.hypot(x / 0.9, (y - rim) / mouth) - 1, 4 / size)
        body = edge(np.hypot(x / 0.93, (y - rim) / rng.uniform(0.7, 0.95)) - 1, 4 / size) * edge(
            rim - y, 4 / size
        )
        rgb = np.float32(b) * (0.8 + 0.5 * x + 0.15 * np.sin(rng.uniform(0, 20) * y))[..., None]
        canvas = layer(rgb, np.maximum(body, inside))
        food = layer(main, inside)
        heap(
            food,
            [thing(rng, max(size // 4, 8), main), thing(rng, max(size // 5, 8))],
            int(rng.integers(8, 26)),
            rng,
            (0.15 * width, height * 0.28, 0.85 * width, height * 0.55),
            (0.5, 1.3),
        )
        food[..., 3] *= np.maximum(inside, y < rim)
        paste(canvas, food, width / 2, height / 2)
    elif kind == "window":
        canvas[:] = (*mix(main, (0.1, 0.05, 0.0), 0.5), 1)
        heap(
            canvas,
            [thing(rng, max(size // 4, 8), main)],
            45,
            rng,
            (0, 0, width, height),
            (0.5, 1.2),
        )
        pane = str(rng.choice(("oval", "box", "pill", "shield", "lens", "slab")))
        canvas[..., 3] = plate_mask(pane, height, width)
        canvas[..., :3] += (
            np.clip(noise(rng, height, width, 1.5) - 0.6, 0, 1) * rng.uniform(0, 2)
        )[..., None]
    elif kind == "glass":
        side, level = np.abs(x) - (0.45 - 0.12 * y), rng.uniform(-0.7, 0.1)
        liquid = np.where((y > level)[..., None], np.float32(main), np.float32((0.92, 0.95, 0.97)))
        shine = np.exp(-(((x + 0.25) / 0.07) ** 2)) * 0.6 + 0.25 * y * (y > level)
        canvas = layer(
            liquid * (1 - 0.5 * np.abs(x))[..., None] + shine[..., None],
            edge(np.maximum(side, np.abs(y) - 0.93), 4 / size),
        )
    elif kind == "splash":
        wave = sum(
            rng.uniform(0.05, 0.25) * np.sin(k * 2.2 * x + rng.uniform(0, 6.28)) for k in (1, 2, 4)
        )
        depth = y - rng.uniform(-0.3, 0.4) + wave
        light = (
            0.75 + 0.25 * np.sin(9 * depth + 4 * x) + 0.5 * np.exp(-(((depth - 0.07) / 0.05) ** 2))
        )
        canvas = layer(np.float32(main) * light[..., None], edge(-depth, 4 / size))
    elif kind == "scene":
        canvas[..., 3] = 1
        canvas[..., :3] = np.float32(a) + (0.5 + 0.5 * y)[..., None] * (
            np.float32(b) - np.float32(a)
        )
        sun = np.hypot(x - rng.uniform(-0.7, 0.7), y + 0.4) - rng.uniform(0.1, 0.4)
        blend(canvas[..., :3], edge(sun, 0.05), (1, 0.95, 0.7))
        for step in range(int(rng.integers(2, 5))):
            ridge = noise(rng, 1, width, rng.uniform(0.5, 2) * size / 40) * 1.1 - 0.7 + 0.3 * step
            blend(canvas[..., :3], edge(ridge - y, 4 / size), mix(c, main, step / 4 + 0.1))
    elif kind == "texture":
        grain = noise(rng, height, width, rng.uniform(0.2, 1.5), rng.choice((1.0, 1.0, 4.0)))
        hard = np.clip((grain - 0.5) * rng.uniform(1.5, 8) + 0.5, 0, 1)
        canvas[..., :3] = np.float32(main) + hard[..., None] * (np.float32(b) - np.float32(main))
        canvas[..., 3] = edge(np.hypot(x, y) - 0.97, 0.05) if rng.random() < 0.5 else 1.0
    elif kind == "swirl":
        radius, angle = np.hypot(x, y), np.arctan2(y, x)
        hard = np.clip(
            0.5 + 3 * np.sin(angle * rng.integers(1, 9) + radius * rng.uniform(-12, 12)), 0, 1
        )
        canvas[..., :3] = np.float32(main) + hard[..., None] * (np.float32(b) - np.float32(main))
        canvas[..., 3] = edge(radius - 0.95, 4 / size)
    elif kind == "abstract":
        for index in range(int(rng.integers(3, 9))):
            points = rng.uniform(-1, 1, (int(rng.integers(3, 6)), 2))
            if rng.random() < 0.4:
                mask = edge(
                    np.hypot(x - points[0, 0], y - points[0, 1]) - rng.uniform(0.1, 0.5), 4 / size
                )
            else:
                mask = polygon(height, width, points)
            paste(canvas, layer((main, a, b, c)[index % 4], mask), width / 2, height / 2)
    elif kind == "icon":
        mask = text_mask(str(rng.choice(list(_ICONS))), "DejaVuSans", int(size * 0.9) + 4)
        scale = min(width / mask.shape[1], height / mask.shape[0])
        mask = cv2.resize(mask, None, fx=scale, fy=scale)[:height, :width]
        canvas[: mask.shape[0], : mask.shape[1], 3] = mask
        canvas[..., :3] = main
    else:
        _figure(kind, canvas, rng, (main, a, b))
    return canvas


def _figure(
    kind: str, canvas: np.ndarray, rng: np.random.Generator, colours: tuple[Colour, ...]
) -> None:
    """A mirrored emblem, a mascot or a person, drawn from blobs."""
    height, width = canvas.shape[:2]
    x, y = grid(height, width)
    soft = 4 / min(height, width)
    main, a, b = colours

    def blob(cx: float, cy: float, rx: float, ry: float, colour: Colour) -> None:
        distance = np.hypot((x - cx) / rx, (y - cy) / ry)
        lit = np.float32(colour) * (1.1 - 0.35 * distance)[..., None]
        paste(canvas, layer(lit, edge((distance - 1) * min(rx, ry), soft)), width / 2, height / 2)

    if kind == "emblem":
        angles = np.sort(rng.uniform(-1.57, 1.57, int(rng.integers(4, 11))))
        radii = rng.uniform(0.25, 1.0, len(angles))
        right = np.stack((radii * np.cos(angles), radii * np.sin(angles)), 1)
        points = np.vstack((right, right[::-1] * (-1, 1)))
        canvas[..., :3], canvas[..., 3] = main, polygon(height, width, points)
        if rng.random() < 0.7:
            blend(canvas[..., :3], polygon(height, width, points * rng.uniform(0.4, 0.8)), a)
        return
    if kind == "creature":
        fur, belly = main, mix(main, (1, 1, 1), 0.5)
        for side in (-1, 1):
            blob(
                side * rng.uniform(0.3, 0.5),
                -0.75,
                rng.uniform(0.1, 0.25),
                rng.uniform(0.15, 0.3),
                a,
            )
            blob(side * 0.45, 0.35, rng.uniform(0.1, 0.3), rng.uniform(0.1, 0.35), fur)
        blob(0, 0.45, rng.uniform(0.35, 0.6), rng.uniform(0.4, 0.55), fur)
        blob(0, 0.5, 0.3, 0.35, belly)
        blob(0, -0.3, rng.uniform(0.4, 0.6), rng.uniform(0.35, 0.5), fur)
    else:
        skin = hsv(rng.uniform(0.03, 0.1), rng.uniform(0.2, 0.6), rng.uniform(0.35, 0.98))
        blob(0, -0.3, rng.uniform(0.4, 0.65), rng.uniform(0.45, 0.65), b)
        blob(0, 0.95, rng.uniform(0.6, 0.9), 0.55, main)
        blob(0, -0.15, rng.uniform(0.28, 0.4), rng.uniform(0.4, 0.5), skin)
    gap = rng.uniform(0.12, 0.22)
    for side in (-1, 1):
        if kind == "creature":
            blob(side * gap, -0.35, 0.12, 0.14, (1, 1, 1))
        blob(side * gap, -0.33 if kind == "creature" else -0.2, 0.055, 0.07, (0.05, 0.05, 0.05))
    blob(
        0,
        -0.08 if kind == "creature" else 0.08,
        rng.uniform(0.05, 0.2),
        rng.uniform(0.03, 0.09),
        (0.6, 0.1, 0.15),
    )
