"""Things that grow or crumble: one parametric solid that becomes a fruit, a leaf, a chip or a bean."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from klip.shop.paint import Colour, edge, grid, layer, mix, noise, paste, turned

PATTERNS = ("plain", "fade", "blush", "stripes", "mottle", "net", "slice", "rings")


@dataclass(frozen=True)
class Form:
    """Shape and surface of one kind of thing; lengths are relative to its own half length."""

    width: float = 1.0
    taper: float = 0.0
    bend: float = 0.0
    lobes: int = 3
    lobe: float = 0.03
    spike: float = 0.0
    rough: float = 0.05
    bump: float = 0.05
    gloss: float = 0.3
    flat: float = 0.0
    pattern: str = "plain"
    speckle: float = 0.0
    crown: str = ""


FORMS: dict[str, Form] = {
    "apple": Form(
        0.97, 0.1, lobes=2, lobe=0.04, gloss=0.5, pattern="blush", speckle=0.3, crown="stem"
    ),
    "plum": Form(0.9, 0.05, gloss=0.35, pattern="mottle", crown="stem"),
    "potato": Form(
        0.75, 0.1, 0.1, rough=0.12, bump=0.12, gloss=0.08, pattern="mottle", speckle=0.4
    ),
    "beetroot": Form(
        0.95, -0.1, rough=0.1, bump=0.25, gloss=0.05, pattern="rings", speckle=0.3, crown="root"
    ),
    "orange": Form(1.0, bump=0.12, gloss=0.4, speckle=0.5, crown="dot"),
    "melon": Form(0.85, gloss=0.2, pattern="stripes", bump=0.1),
    "pear": Form(0.72, 0.45, gloss=0.3, pattern="fade", speckle=0.6, crown="stem"),
    "onion": Form(0.95, -0.25, gloss=0.5, pattern="stripes", crown="root"),
    "berries": Form(0.95, -0.15, gloss=0.6, bump=0.2, pattern="fade", speckle=0.5, crown="leaf"),
    "mushroom": Form(1.0, 0.3, lobes=2, lobe=0.18, gloss=0.15, bump=0.08, pattern="mottle"),
    "pepper": Form(0.8, -0.15, lobes=4, lobe=0.1, gloss=0.9, pattern="fade", crown="stem"),
    "cucumber": Form(0.24, 0.0, 0.1, rough=0.03, bump=0.12, gloss=0.5, pattern="stripes"),
    "carrot": Form(
        0.24, -0.6, 0.08, rough=0.05, bump=0.1, gloss=0.25, pattern="rings", crown="leaf"
    ),
    "banana": Form(0.26, 0.1, 0.38, gloss=0.25, pattern="fade", speckle=0.3),
    "pineapple": Form(0.62, bump=0.3, gloss=0.2, pattern="net", crown="spikes"),
    "lettuce": Form(0.95, lobes=9, lobe=0.07, rough=0.15, bump=0.9, gloss=0.15, pattern="mottle"),
    "ginger": Form(
        0.6, 0.1, 0.2, lobes=5, lobe=0.28, rough=0.12, bump=0.15, gloss=0.05, pattern="rings"
    ),
    "avocado": Form(0.68, 0.3, bump=0.45, gloss=0.25, pattern="mottle"),
    "cauliflower": Form(1.0, lobes=11, lobe=0.06, rough=0.06, bump=1.2, gloss=0.05),
    "leek": Form(0.16, -0.1, 0.03, rough=0.02, gloss=0.2, pattern="fade", crown="spikes"),
    "leaf": Form(0.42, -0.2, 0.15, bump=0.15, gloss=0.2, flat=0.7, pattern="fade"),
    "chip": Form(
        0.85, 0.05, rough=0.1, bump=0.25, gloss=0.2, flat=0.6, pattern="mottle", speckle=0.5
    ),
    "disc": Form(1.0, rough=0.02, bump=0.2, gloss=0.1, flat=0.8, pattern="mottle", speckle=1.0),
    "citrus": Form(1.0, gloss=0.2, flat=1.0, pattern="slice"),
    "bean": Form(0.55, 0.0, 0.25, gloss=0.5, pattern="plain"),
    "crumb": Form(0.7, rough=0.3, bump=0.5, gloss=0.1, pattern="mottle"),
    "flower": Form(1.0, lobes=6, lobe=0.35, flat=0.7, bump=0.1, gloss=0.1, pattern="rings"),
    "star": Form(1.0, lobes=5, spike=0.5, flat=0.6, gloss=0.3),
    "stick": Form(0.13, 0.05, 0.05, gloss=0.2, pattern="fade"),
    "cube": Form(0.95, lobes=4, lobe=0.09, flat=0.5, gloss=0.3, pattern="mottle"),
}


def individual(form: Form, rng: np.random.Generator, spread: float = 1.0) -> Form:
    """A relative of `form`: every measure moved a little (`spread` 1) or a lot."""

    def move(value: float, amount: float, least: float = 0.0) -> float:
        return max(float(value + amount * spread * rng.normal()), least)

    return replace(
        form,
        width=move(form.width, 0.04, 0.1),
        taper=move(form.taper, 0.05, -np.inf),
        bend=move(form.bend, 0.04, -np.inf),
        lobe=move(form.lobe, 0.015),
        rough=move(form.rough, 0.02),
        bump=move(form.bump, 0.04),
        gloss=move(form.gloss, 0.1),
        speckle=move(form.speckle, 0.15),
    )


def sprite(
    form: Form,
    size: int,
    colours: tuple[Colour, Colour, Colour],
    rng: np.random.Generator,
    crown_colour: Colour = (0.25, 0.4, 0.12),
) -> np.ndarray:
    """One lit thing as RGBA (size, size, 4): colours are skin, second colour and marks."""
    x, y = grid(size, size)
    fit = 0.62 if form.crown in ("spikes", "leaf") else 0.92
    x, y = x / fit, (y - (0.3 if fit < 0.9 else 0.0)) / fit
    x = (x - form.bend * (1 - 2 * y * y) * 0.7) / (form.width * (1.0 + form.taper * y))
    angle, radius = np.arctan2(x, -y), np.hypot(x, y)
    outline = 1.0 + form.lobe * np.cos(form.lobes * angle + rng.uniform(0, 6.28))
    if form.spike:
        outline = outline - form.spike * np.abs(((angle * form.lobes / 6.283) % 1.0) * 2 - 1)
    if form.rough:
        for k in (2, 3, 5, 7):
            outline = outline + form.rough * rng.normal() / k**0.7 * np.cos(
                k * angle + rng.uniform(0, 6.28)
            )
    outline = outline / (1.0 + form.lobe + 1.2 * form.rough)
    depth = (radius / np.maximum(outline, 0.05)).astype(np.float32)
    alpha = edge((depth - 1.0) * min(form.width, 1.0), 3.0 / size)
    grain = noise(rng, size, size, rng.uniform(0.3, 1.0) * size / 64)
    albedo = _albedo(form, depth, angle, y, grain, colours, rng, size)
    height = (
        np.sqrt(np.clip(1.0 - depth * depth, 0.0, 1.0)) * (1.0 - 0.8 * form.flat)
        + 0.35 * form.bump * grain
    )
    nx, ny = (cv2.Sobel(height, cv2.CV_32F, dx, 1 - dx) * np.float32(size / 18) for dx in (1, 0))
    inverse = 1.0 / np.sqrt(nx * nx + ny * ny + 1.0)
    lx, ly = rng.uniform(-0.5, 0.5), rng.uniform(-0.8, -0.2)
    lz = np.sqrt(max(1.2 - lx * lx - ly * ly, 0.1))
    lambert = np.clip((-nx * lx - ny * ly + lz) * inverse, 0.0, 1.3)
    shine = np.clip(
        (-nx * lx * 0.6 - ny * ly * 0.6 + 1.0) * inverse / np.hypot(np.hypot(lx, ly) * 0.6, 1), 0, 1
    )
    light = rng.uniform(0.3, 0.65) + 0.65 * lambert
    rgb = albedo * light[..., None] + (form.gloss * shine ** (12 + 30 * form.gloss))[..., None]
    out = layer(rgb, alpha)
    return _crowned(out, form, size, fit, crown_colour, rng) if form.crown else out


def _albedo(
    form: Form,
    depth: np.ndarray,
    angle: np.ndarray,
    y: np.ndarray,
    grain: np.ndarray,
    colours: tuple[Colour, Colour, Colour],
    rng: np.random.Generator,
    size: int,
) -> np.ndarray:
    skin, second, marks = (np.asarray(c, np.float32) for c in colours)
    if form.pattern == "fade":
        share = np.clip(0.5 + 0.9 * y + 0.5 * (grain - 0.5), 0, 1)
    elif form.pattern == "blush":
        turn = rng.uniform(0, 6.28)
        share = np.clip(0.4 + depth * np.cos(angle - turn) + 1.5 * (grain - 0.5), 0, 1)
    elif form.pattern == "stripes":
        bands = np.sin(np.arcsin(np.clip(depth * np.sin(angle), -1, 1)) * rng.integers(7, 16))
        share = np.clip(0.5 + 0.8 * bands + 2 * (grain - 0.5), 0, 1) * 0.6
    elif form.pattern == "mottle":
        share = np.clip(3.0 * (grain - 0.5), 0, 1)
    elif form.pattern == "net":
        a, b = np.sin(8 * (depth * np.sin(angle) + y)), np.sin(8 * (depth * np.sin(angle) - y))
        share = np.clip(1.4 - 2.5 * np.minimum(np.abs(a), np.abs(b)), 0, 1)
    elif form.pattern == "slice":
        spokes, rind = (
            np.abs(np.sin(angle * rng.integers(4, 7))),
            np.clip(1 - np.abs(depth - 0.83) * 16, 0, 1),
        )
        share = np.clip(np.clip((0.2 - spokes * depth) * 5, 0, 1) + rind, 0, 1)
    elif form.pattern == "rings":
        share = np.clip(0.4 + 0.5 * np.sin(y * rng.uniform(6, 16) + 5 * grain), 0, 1) * 0.6
    else:
        share = np.clip(grain - 0.4, 0, 0.3)
    albedo = skin + share[..., None] * (second - skin)
    if form.speckle > 0.05:
        spots = np.clip((noise(rng, size, size, size / 110) - 0.66) * 9, 0, 1) * np.float32(
            min(form.speckle, 1.0)
        )
        albedo += spots[..., None] * (marks - albedo)
    return albedo * (0.85 + 0.3 * grain[..., None])


def _crowned(
    out: np.ndarray, form: Form, size: int, fit: float, colour: Colour, rng: np.random.Generator
) -> np.ndarray:
    top = size * (0.5 - 0.5 * fit * 0.85 + (0.15 if fit < 0.9 else 0.0))
    if form.crown in ("spikes", "leaf"):
        blade = Form(0.2 if form.crown == "spikes" else 0.4, flat=0.3, gloss=0.2, pattern="fade")
        leaf = sprite(
            blade, max(int(size * 0.5), 6), (colour, mix(colour, (1, 1, 0.6), 0.4), colour), rng
        )
        for lean in rng.permutation(np.linspace(-55, 55, 7)) + rng.normal(0, 6, 7):
            reach, angle = size * 0.16, np.radians(lean)
            paste(
                out,
                turned(leaf, -lean, rng.uniform(0.6, 1.0)),
                size / 2 + reach * np.sin(angle),
                top - reach * np.cos(angle) * 0.8,
            )
        return out
    end = top if form.crown != "root" else size - top
    tip = end + size * (
        rng.uniform(-0.14, -0.02) if form.crown == "stem" else rng.uniform(0.02, 0.1)
    )
    tip = end + 1 if form.crown == "dot" else tip
    drawn = np.zeros((size, size), np.uint8)
    bow = size * rng.uniform(-0.06, 0.06)
    start = (round(size / 2), round(end + (size * 0.05 if form.crown == "stem" else 0)))
    cv2.line(
        drawn,
        start,
        (round(size / 2 + bow), round(tip)),
        255,
        max(round(size * 0.03), 1),
        cv2.LINE_AA,
    )
    paste(
        out, layer(mix(colour, (0.2, 0.12, 0.05), 0.6), drawn / np.float32(255)), size / 2, size / 2
    )
    return out


def heap(
    canvas: np.ndarray,
    things: list[np.ndarray],
    count: int,
    rng: np.random.Generator,
    box: tuple[float, float, float, float],
    scale: tuple[float, float],
) -> None:
    """Pile `count` turned and relit copies of sprites into a box (x0, y0, x1, y1 in pixels)
    of a canvas.
    """
    x0, y0, x1, y1 = box
    for y in np.sort(rng.uniform(y0, y1, count)):
        thing = turned(
            things[int(rng.integers(len(things)))], rng.uniform(0, 360), rng.uniform(*scale)
        )
        thing[..., :3] *= rng.uniform(0.65, 1.1)
        paste(canvas, thing, rng.uniform(x0, x1), y)
    np.clip(canvas, 0.0, 1.0, out=canvas)
