"""Things that grow or crumble: one parametric solid that becomes a fruit, a leaf, a chip or
a bean.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator

from klip.shop.forms import Form
from klip.shop.paint import (
    Box,
    Colour,
    edge,
    for_each_channel,
    grid,
    layer,
    mix,
    noise,
    paste,
    pick,
    row_of,
    turned,
)

_LEAVES = ("spikes", "leaf")  # crowns of leaves; the others are a stalk


def sprite(
    form: Form, rng: Generator, *, size: int, colours: tuple[Colour, Colour, Colour], leaf: Colour
) -> ndarray:
    """One lit thing as RGBA (size, size, 4): colours are skin, second colour and marks."""
    leafy = form.crown in _LEAVES
    fit, lower = (0.62, 0.3) if leafy else (0.92, 0.0)  # leaves need room above
    x, y = grid(size, size)
    x, y = x / fit, (y - lower) / fit
    # Coordinates in which the thing stands straight and is as wide as long; in them
    # `depth` is 0 in its middle and 1 on its outline.
    x = (x - form.bend * (1 - 2 * y * y) * 0.7) / (form.width * (1.0 + form.taper * y))
    angle, radius = np.arctan2(x, -y), np.hypot(x, y)
    outline = _outline(form, rng, angle=angle)
    depth = (radius / np.maximum(outline, 0.05)).astype(np.float32)
    alpha = edge((depth - 1.0) * min(form.width, 1.0), 3.0 / size)
    grain = noise(rng, (size, size), zoom=rng.uniform(0.3, 1.0) * size / 64)
    share = _share(form, rng, points=(depth, angle, y, grain))
    skin, second, marks = (row_of(colour, size) for colour in colours)
    albedo = skin + for_each_channel(share) * (second - skin)
    if form.speckle > 0.05:
        spots = np.clip((noise(rng, (size, size), zoom=size / 110) - 0.66) * 9, 0, 1)
        spots *= np.float32(min(form.speckle, 1.0))
        albedo += for_each_channel(spots) * (marks - albedo)
    albedo = albedo * for_each_channel(0.85 + 0.3 * grain)
    factor, added = _light(form, rng, depth=depth, grain=grain)
    out = layer(albedo * for_each_channel(factor) + for_each_channel(added), alpha)
    if form.crown:
        top = size * (0.5 - 0.5 * fit * 0.85 + lower / 2)
        grow = _leaves if leafy else _stalk
        grow(out, form.crown, top=top, colour=leaf, rng=rng)
    return out


def _outline(form: Form, rng: Generator, *, angle: ndarray) -> ndarray:
    """Radius of the outline in each direction, below about 1."""
    outline = 1.0 + form.lobe * np.cos(form.lobes * angle + rng.uniform(0, 6.28))
    if form.spike:
        notch = np.abs(((angle * form.lobes / 6.283) % 1.0) * 2 - 1)
        outline = outline - form.spike * notch
    if form.rough:
        for k in (2, 3, 5, 7):
            high = form.rough * rng.normal() / k**0.7
            outline = outline + high * np.cos(k * angle + rng.uniform(0, 6.28))
    return outline / (1.0 + form.lobe + 1.2 * form.rough)


def _share(form: Form, rng: Generator, *, points: tuple[ndarray, ...]) -> ndarray:
    """How much of the second colour each point has, 0..1, by the form's pattern."""
    depth, angle, y, grain = points
    across = depth * np.sin(angle)  # -1..1, along the shorter axis
    if form.pattern == "fade":
        return np.clip(0.5 + 0.9 * y + 0.5 * (grain - 0.5), 0, 1)
    if form.pattern == "blush":
        turn = rng.uniform(0, 6.28)
        return np.clip(0.4 + depth * np.cos(angle - turn) + 1.5 * (grain - 0.5), 0, 1)
    if form.pattern == "stripes":
        # The arcsine makes the stripes meridians of a ball: closer towards its rim.
        bands = np.sin(np.arcsin(np.clip(across, -1, 1)) * rng.integers(7, 16))
        return np.clip(0.5 + 0.8 * bands + 2 * (grain - 0.5), 0, 1) * 0.6
    if form.pattern == "mottle":
        return np.clip(3.0 * (grain - 0.5), 0, 1)
    if form.pattern == "net":
        a, b = np.abs(np.sin(8 * (across + y))), np.abs(np.sin(8 * (across - y)))
        return np.clip(1.4 - 2.5 * np.minimum(a, b), 0, 1)
    if form.pattern == "slice":
        spokes = np.abs(np.sin(angle * rng.integers(4, 7)))
        rind = np.clip(1 - np.abs(depth - 0.83) * 16, 0, 1)
        return np.clip(np.clip((0.2 - spokes * depth) * 5, 0, 1) + rind, 0, 1)
    if form.pattern == "rings":
        waves = np.sin(y * rng.uniform(6, 16) + 5 * grain)
        return np.clip(0.4 + 0.5 * waves, 0, 1) * 0.6
    return np.clip(grain - 0.4, 0, 0.3)


def _light(
    form: Form, rng: Generator, *, depth: ndarray, grain: ndarray
) -> tuple[ndarray, ndarray]:
    """(factor, added light) under a lamp from above: Lambert's law and a highlight."""
    dome = np.sqrt(np.clip(1.0 - depth * depth, 0.0, 1.0)) * (1.0 - 0.8 * form.flat)
    height = dome + 0.35 * form.bump * grain
    steep = np.float32(len(depth) / 18)  # slopes per pixel, whatever the size
    nx, ny = (cv2.Sobel(height, cv2.CV_32F, dx, 1 - dx) * steep for dx in (1, 0))
    inverse = 1.0 / np.sqrt(nx * nx + ny * ny + 1.0)
    lx, ly = rng.uniform(-0.5, 0.5), rng.uniform(-0.8, -0.2)
    lz = np.sqrt(max(1.2 - lx * lx - ly * ly, 0.1))
    lambert = np.clip((-nx * lx - ny * ly + lz) * inverse, 0.0, 1.3)
    # Half-way between lamp and eye, where a highlight is brightest (Blinn 1977), roughly.
    half = (-nx * lx * 0.6 - ny * ly * 0.6 + 1.0) * inverse
    shine = np.clip(half / np.hypot(np.hypot(lx, ly) * 0.6, 1), 0, 1)
    return rng.uniform(0.3, 0.65) + 0.65 * lambert, form.gloss * shine ** (12 + 30 * form.gloss)


def _leaves(out: ndarray, crown: str, *, top: float, colour: Colour, rng: Generator) -> None:
    """A fan of leaves at height `top` (pixels) of a sprite, in place."""
    size = len(out)
    blade = Form(0.2 if crown == "spikes" else 0.4, flat=0.3, gloss=0.2, pattern="fade")
    greens = colour, mix(colour, (1, 1, 0.6), share=0.4), colour
    leaf = sprite(blade, rng, size=max(int(size * 0.5), 6), colours=greens, leaf=colour)
    for lean in rng.permutation(np.linspace(-55, 55, 7)) + rng.normal(0, 6, 7):
        reach, angle = size * 0.16, np.radians(lean)
        x, y = size / 2 + reach * np.sin(angle), top - reach * np.cos(angle) * 0.8
        paste(out, turned(leaf, -lean, scale=rng.uniform(0.6, 1.0)), at=(x, y))


def _stalk(out: ndarray, crown: str, *, top: float, colour: Colour, rng: Generator) -> None:
    """A stem at height `top` (pixels) of a sprite, a root at its other end, or a dot, in place."""
    size = len(out)
    begin = end = size - top if crown == "root" else top
    if crown == "stem":
        begin = end + size * 0.05
        tip = end + size * rng.uniform(-0.14, -0.02)
    else:
        tip = end + size * rng.uniform(0.02, 0.1)
    if crown == "dot":
        tip = end + 1
    drawn = np.zeros((size, size), np.uint8)
    bow = size * rng.uniform(-0.06, 0.06)
    ends = (round(size / 2), round(begin)), (round(size / 2 + bow), round(tip))
    cv2.line(drawn, *ends, 255, max(round(size * 0.03), 1), cv2.LINE_AA)
    paste(out, layer(mix(colour, (0.2, 0.12, 0.05), share=0.6), drawn / np.float32(255)))


def heap(
    canvas: ndarray, things: list[ndarray], *, count: int, rng: Generator, box: Box, scale: tuple
) -> ndarray:
    """Pile turned and relit copies of sprites into a box of a canvas, which is returned."""
    x0, y0, x1, y1 = box
    for y in np.sort(rng.uniform(y0, y1, count)):  # lower things lie in front
        one = pick(rng, things)
        one = turned(one, rng.uniform(0, 360), scale=rng.uniform(*scale))
        one[..., :3] *= rng.uniform(0.65, 1.1)
        paste(canvas, one, at=(rng.uniform(x0, x1), y))
    return np.clip(canvas, 0.0, 1.0, out=canvas)
