"""Turned packages: cans, bottles, jars, cups."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator

from klip.shop.artwork import Pack
from klip.shop.paint import (
    any_colour,
    blend,
    edge,
    for_each_channel,
    grid,
    layer,
    mix,
    noise,
    paste,
    pick,
)

TURNED = {
    # shape: the least and the most width of one that is 1 high
    "can": (0.45, 0.75), "bottle": (0.28, 0.5), "jar": (0.6, 0.95), "tub": (0.9, 1.6),
    "cup": (0.8, 1.2), "tin": (0.9, 2.2), "canister": (0.3, 0.75),
}  # fmt: skip


@dataclass(frozen=True)
class _Profile:
    """A silhouette: radius 0..1 at heights 0 (top) .. 1, and where lid and label end."""

    heights: tuple[float, ...]
    radii: tuple[float, ...]
    lid: float  # height where it ends
    top: float  # of the label
    bottom: float


def _profile(shape: str, form: Generator) -> _Profile:
    """The silhouette of one kind of package."""
    r = form.uniform
    if shape == "can":
        neck = r(0.8, 0.95)
        heights, radii = (0, 0.03, 0.1, 0.9, 0.97, 1), (neck, neck, 1, 1, 0.9, 0.85)
        return _Profile(heights, radii, 0.03, 0.05, 0.96)
    if shape == "bottle":
        neck, cap = r(0.25, 0.5), r(0.08, 0.2)
        shoulder, low, waist = r(0.28, 0.5), r(0.75, 0.95), r(0.8, 1.0)
        neck_end = cap + 0.06
        heights = (0, cap, cap + 0.01, neck_end, shoulder, (shoulder + low) / 2, low, 0.97, 1)
        radii = (neck * 1.1, neck * 1.1, neck, neck * r(1, 1.3), 1, waist, r(0.9, 1), 1, 0.92)
        top = r(shoulder - 0.05, shoulder + 0.08)
        return _Profile(heights, radii, cap, top, r(low - 0.03, 0.96))
    if shape == "jar":
        lid, wide = r(0.12, 0.25), r(0.75, 1.0)
        heights, radii = (
            (0, lid, lid + 0.01, lid + 0.1, 0.95, 1),
            (wide, wide, wide * 0.92, 1, 1, 0.93),
        )
        return _Profile(heights, radii, lid, r(lid + 0.05, lid + 0.15), r(0.8, 0.97))
    if shape in ("tub", "cup"):
        rim, base = r(0.04, 0.15), r(0.6, 0.95)
        return _Profile((0, rim, rim + 0.01, 1), (1, 1, 0.95, base), rim, rim + 0.01, r(0.9, 1.0))
    if shape == "tin":
        heights, radii = (0, 0.05, 0.06, 0.94, 0.95, 1), (1, 1, 0.97, 0.97, 1, 1)
        return _Profile(heights, radii, 0.05, 0.07, 0.94)
    lid, wide = r(0.04, 0.3), r(0.7, 1.02)
    heights, radii = (0, lid, lid + 0.01, 0.99, 1), (wide, wide, 1, 1, 0.97)
    return _Profile(heights, radii, lid, lid + 0.01, r(0.93, 1.0))


def _sheen(xn: ndarray, rng: Generator, *, material: str) -> tuple[ndarray, ndarray]:
    """(factor, added light) over the turned surface; `xn` runs from -1 (left rim) to 1."""
    lean = rng.uniform(-0.5, 0.5)
    body = np.sqrt(np.clip(1 - (xn - lean * 0.5) ** 2 / 1.6, 0, 1))
    light = np.zeros_like(xn)
    for _ in range(int(rng.integers(1, 4))):  # windows and lamps mirrored in it
        bright, at, wide = rng.uniform(0.1, 0.6), rng.uniform(-0.85, 0.85), rng.uniform(0.03, 0.2)
        light += bright * np.exp(-(((xn - at) / wide) ** 2))
    if material == "metal":
        return 0.45 + 0.6 * body + 0.2 * np.cos(xn * rng.uniform(4, 9) + lean), light * 0.8
    if material == "gloss":
        return 0.55 + 0.5 * body, light * 0.6
    return 0.6 + 0.45 * body, light * 0.08


def lathe(pack: Pack, aspects: tuple[float, float]) -> ndarray:
    """A turned package as RGBA, whose width to height lies between two ratios."""
    size, form = pack.size, pack.form
    aspect = form.uniform(*aspects)
    shape = pack.product.shape if pack.product.shape in TURNED else "canister"
    profile = _profile(shape, form)
    mouth, foot = profile.radii[0], profile.radii[-1]
    # Seen from above, the height shrinks and circles become ellipses; `rise` is half the
    # short axis of the widest, in pixels.
    sine = np.sin(np.radians(max(pack.pitch, 0)))
    tall = 1.0 / (1.0 + aspect * sine)
    fit = (size - 3) / max(1.0, aspect * tall)
    width, length = max(round(fit * aspect * tall), 8), fit * tall
    rise = max(0.5 * width * sine, 0.0)
    height = round(length + 2 * rise * max(mouth, foot)) + 3
    x, _ = grid(height, width + 3)
    x = x * ((width + 3) / width)
    y = np.arange(height, dtype=np.float32)[:, None] - 1.5 - rise * np.float32(mouth)
    radius = np.interp(y / length, profile.heights, profile.radii).astype(np.float32)
    xn = x / radius
    # The near half of a ring hangs below its ends, so height 0..1 on the surface is that
    # of the pixel less the sag.
    v = (y - rise * radius * np.sqrt(np.clip(1 - xn * xn, 0, 1))) / np.float32(length)
    sides = edge((np.abs(x) - radius) * width / 2, 1.4)
    alpha = sides * edge(-v * length, 1.5) * edge((v - 1) * length, 1.5)
    span = form.uniform(2.2, 3.6)  # radians that the label reaches round
    rgb, material = _body(pack, shape, v=v, lid_end=profile.lid)
    label = _wrapped(pack, profile, xn=xn, v=v, span=span, aspect=aspect)
    top, bottom = profile.top, profile.bottom
    inside = np.abs(v - (top + bottom) / 2) - (bottom - top) / 2
    blend(rgb, label, where=edge(inside, 2.0 / length))
    factor, light = _sheen(np.clip(xn, -1, 1), form, material=material)
    factor, light = (for_each_channel(part.astype(np.float32)) for part in (factor, light))
    rgb = rgb * factor + light
    out = layer(rgb, alpha)
    if rise > 1:
        top = _lid_top(pack, shape, across=width * mouth, rise=rise * mouth)
        paste(out, top, at=(out.shape[1] / 2, 1.5 + rise * mouth))
    return out


def _wrapped(
    pack: Pack, profile: _Profile, *, xn: ndarray, v: ndarray, span: float, aspect: float
) -> ndarray:
    """The label laid round, so that the yaw brings other parts in view; `xn` runs -1..1
    across the package, `v` 0..1 down it.
    """
    part = profile.bottom - profile.top
    print_h = max(round(part * pack.size * min(1 / aspect, 1.0)), 8)
    print_w = max(round(pack.size * min(aspect, 1.0) * span / 2), 10)
    # What is seen at the rims is a quarter turn away, hence the arcsine.
    around = np.clip(np.arcsin(np.clip(xn, -1, 1)), -1.57, 1.57) + np.radians(pack.yaw)
    map_x = ((around / span + 0.5) * print_w).astype(np.float32)
    map_y = ((v - profile.top) / part * print_h - 0.5).astype(np.float32)
    label, wrap = pack.printed(print_h, print_w), cv2.BORDER_WRAP
    return cv2.remap(label, map_x, map_y, cv2.INTER_LINEAR, borderMode=wrap)


def _body(pack: Pack, shape: str, *, v: ndarray, lid_end: float) -> tuple[ndarray, str]:
    """What shows above and below the label, glass or metal or plastic, and its material."""
    product, form = pack.product, pack.form
    palette, accent = product.palette, product.accent
    other = str(form.choice(("paper", "gloss", "metal"), p=(0.5, 0.35, 0.15)))
    material = {"can": "metal", "tin": "metal", "bottle": "gloss", "jar": "gloss"}.get(shape, other)
    body = cap = (0.72, 0.72, 0.74)
    if material != "metal":
        plastic = any_colour(form, (0, 0.9), value=(0.1, 0.95))
        contents = mix(accent, (0.3, 0.1, 0.0), share=0.3)
        body = pick(form, (palette[0], palette[1], plastic, (0.93, 0.93, 0.92), contents))
    if material != "metal" or form.random() >= 0.8:
        white, black, gold = (0.95, 0.95, 0.95), (0.06, 0.06, 0.07), (0.8, 0.65, 0.25)
        cap = pick(form, (palette[1], palette[2], white, black, gold, accent))
    rgb = np.full((*v.shape, 3), body, np.float32)
    if material == "gloss" and form.random() < 0.5:
        rgb *= for_each_channel(0.6 + 0.8 * noise(form, v.shape, zoom=0.5))
    waves = np.sin(np.arange(v.shape[1]) * form.uniform(0.8, 1.6))[:, None]
    ribs = 1.0 + 0.12 * waves if form.random() < 0.5 else np.ones_like(waves)
    lid = np.float32(cap) * ribs.astype(np.float32)
    blend(rgb, np.broadcast_to(lid, rgb.shape), where=edge(v - lid_end, 0.012))
    return rgb, material


def _lid_top(pack: Pack, shape: str, *, across: float, rise: float) -> ndarray:
    """The lid seen from above, as RGBA about `across` pixels wide and twice `rise` high."""
    palette, form = pack.product.palette, pack.form
    high, wide = max(round(2 * rise), 3), max(round(across), 4)
    x, y = grid(high, wide)
    distance = np.hypot(x, y)
    if shape in ("can", "tin") and form.random() < 0.7:
        colour = (0.78, 0.78, 0.8)
    else:
        colour = pick(form, (palette[1], (0.95, 0.95, 0.95), palette[0]))
    shade = 0.8 + 0.25 * y + 0.15 * np.cos(distance * 9) + 0.1 * x
    return layer(np.float32(colour) * shade[..., None], edge(distance - 0.97, 3.0 / wide))
