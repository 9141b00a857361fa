"""Turned packages: cans, bottles, jars, cups."""

from __future__ import annotations

import cv2
import numpy as np

from klip.shop.artwork import printed
from klip.shop.design import Product
from klip.shop.paint import blend, edge, grid, hsv, layer, mix, noise, paste


def _profile(shape: str, form: np.random.Generator) -> tuple[tuple, tuple, float, float, float]:
    """Knots (height 0..1, radius 0..1) of a silhouette, and where the lid ends, the label
    starts and ends.
    """
    r = form.uniform
    if shape == "can":
        neck = r(0.8, 0.95)
        return (0, 0.03, 0.1, 0.9, 0.97, 1), (neck, neck, 1, 1, 0.9, 0.85), 0.03, 0.05, 0.96
    if shape == "bottle":
        neck, cap = r(0.25, 0.5), r(0.08, 0.2)
        shoulder, low, waist = r(0.28, 0.5), r(0.75, 0.95), r(0.8, 1.0)
        knots = (0, cap, cap + 0.01, cap + 0.06, shoulder, (shoulder + low) / 2, low, 0.97, 1)
        radii = (neck * 1.1, neck * 1.1, neck, neck * r(1, 1.3), 1, waist, r(0.9, 1), 1, 0.92)
        return knots, radii, cap, r(shoulder - 0.05, shoulder + 0.08), r(low - 0.03, 0.96)
    if shape == "jar":
        lid, lid_r = r(0.12, 0.25), r(0.75, 1.0)
        return (
            (0, lid, lid + 0.01, lid + 0.1, 0.95, 1),
            (lid_r, lid_r, lid_r * 0.92, 1, 1, 0.93),
            lid,
            r(lid + 0.05, lid + 0.15),
            r(0.8, 0.97),
        )
    if shape in ("tub", "cup"):
        rim, base = r(0.04, 0.15), r(0.6, 0.95)
        return (0, rim, rim + 0.01, 1), (1, 1, 0.95, base), rim, rim + 0.01, r(0.9, 1.0)
    if shape == "tin":
        return (0, 0.05, 0.06, 0.94, 0.95, 1), (1, 1, 0.97, 0.97, 1, 1), 0.05, 0.07, 0.94
    lid, lid_r = r(0.04, 0.3), r(0.7, 1.02)
    return (0, lid, lid + 0.01, 0.99, 1), (lid_r, lid_r, 1, 1, 0.97), lid, lid + 0.01, r(0.93, 1.0)


def _sheen(
    xn: np.ndarray, material: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(factor, added light) over the turned surface; `xn` runs from -1 (left rim) to 1."""
    lean = rng.uniform(-0.5, 0.5)
    body = np.sqrt(np.clip(1 - (xn - lean * 0.5) ** 2 / 1.6, 0, 1))
    light = np.zeros_like(xn)
    for _ in range(int(rng.integers(1, 4))):
        bright, at, wide = rng.uniform(0.1, 0.6), rng.uniform(-0.85, 0.85), rng.uniform(0.03, 0.2)
        light += bright * np.exp(-(((xn - at) / wide) ** 2))
    if material == "metal":
        return 0.45 + 0.6 * body + 0.2 * np.cos(xn * rng.uniform(4, 9) + lean), light * 0.8
    if material == "gloss":
        return 0.55 + 0.5 * body, light * 0.6
    return 0.6 + 0.45 * body, light * 0.08


def lathe(
    product: Product,
    size: int,
    yaw: float,
    pitch: float,
    form: np.random.Generator,
    aspects: tuple[float, float],
) -> np.ndarray:
    """A turned package as RGBA; the label goes round it, so `yaw` (degrees) brings other
    parts in view.
    """
    shape = product.shape if product.shape != "multipack" else "canister"
    aspect = form.uniform(*aspects)
    knots, radii, lid_end, top, bottom = _profile(shape, form)
    tall = 1.0 / (1.0 + aspect * np.sin(np.radians(max(pitch, 0))))
    fit = (size - 3) / max(1.0, aspect * tall)
    width, length = max(round(fit * aspect * tall), 8), fit * tall
    rise = max(0.5 * width * np.sin(np.radians(max(pitch, 0))), 0.0)
    height = round(length + 2 * rise * max(radii[0], radii[-1])) + 3
    x, _ = grid(height, width + 3)
    x = x * ((width + 3) / width)
    y = np.arange(height, dtype=np.float32)[:, None] - 1.5 - rise * np.float32(radii[0])
    radius = np.interp(y / length, knots, radii).astype(np.float32)
    xn = x / radius
    inner = np.sqrt(np.clip(1 - xn * xn, 0, 1))
    v = (y - rise * radius * inner) / np.float32(length)
    alpha = (
        edge((np.abs(x) - radius) * width / 2, 1.4)
        * edge(-v * length, 1.5)
        * edge((v - 1) * length, 1.5)
    )
    span = form.uniform(2.2, 3.6)
    wrap = np.clip(np.arcsin(np.clip(xn, -1, 1)), -1.57, 1.57) + np.radians(yaw)
    print_w = max(round(size * min(aspect, 1.0) * span / 2), 10)
    print_h = max(round((bottom - top) * size * min(1 / aspect, 1.0)), 8)
    map_x = ((wrap / span + 0.5) * print_w).astype(np.float32)
    map_y = ((v - top) / (bottom - top) * print_h - 0.5).astype(np.float32)
    rgb, material = _body(product, shape, form, v, lid_end)
    wrapped = cv2.remap(
        printed(product, print_w, print_h),
        map_x,
        map_y,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )
    blend(rgb, edge(np.abs(v - (top + bottom) / 2) - (bottom - top) / 2, 2.0 / length), wrapped)
    factor, light = _sheen(np.clip(xn, -1, 1), material, form)
    rgb = rgb * factor[..., None].astype(np.float32) + light[..., None].astype(np.float32)
    out = layer(rgb, alpha)
    if rise > 1:
        top = _lid_top(product, shape, form, width * radii[0], rise * radii[0])
        paste(out, top, out.shape[1] / 2, 1.5 + rise * radii[0])
    return out


def _body(
    product: Product, shape: str, form: np.random.Generator, v: np.ndarray, lid_end: float
) -> tuple[np.ndarray, str]:
    """What shows above and below the label (glass and its contents, metal or plastic, the
    lid), and the material.
    """
    other = str(form.choice(("paper", "gloss", "metal"), p=(0.5, 0.35, 0.15)))
    material = {"can": "metal", "tin": "metal", "bottle": "gloss", "jar": "gloss"}.get(shape, other)
    body = cap = (0.72, 0.72, 0.74)
    if material != "metal":
        body = (
            product.palette[0],
            product.palette[1],
            hsv(form.random(), form.uniform(0, 0.9), form.uniform(0.1, 0.95)),
            (0.93, 0.93, 0.92),
            mix(product.accent, (0.3, 0.1, 0.0), 0.3),
        )[int(form.integers(5))]
    if material != "metal" or form.random() >= 0.8:
        cap = (
            product.palette[1],
            product.palette[2],
            (0.95, 0.95, 0.95),
            (0.06, 0.06, 0.07),
            (0.8, 0.65, 0.25),
            product.accent,
        )[int(form.integers(6))]
    rgb = np.full((*v.shape, 3), body, np.float32)
    if material == "gloss" and form.random() < 0.5:
        rgb *= 0.6 + 0.8 * noise(form, *v.shape, 0.5)[..., None]
    ribs = 1.0 + 0.12 * np.sin(np.arange(v.shape[1]) * form.uniform(0.8, 1.6))[:, None] * (
        form.random() < 0.5
    )
    lid = np.float32(cap) * ribs.astype(np.float32)
    blend(rgb, edge(v - lid_end, 0.012), np.broadcast_to(lid, rgb.shape))
    return rgb, material


def _lid_top(
    product: Product, shape: str, form: np.random.Generator, across: float, rise: float
) -> np.ndarray:
    """The ellipse of the lid seen from above, as RGBA about `across` pixels wide and twice
    `rise` high.
    """
    high, wide = max(round(2 * rise), 3), max(round(across), 4)
    x, y = grid(high, wide)
    distance = np.hypot(x, y)
    if shape in ("can", "tin") and form.random() < 0.7:
        colour = (0.78, 0.78, 0.8)
    else:
        colour = (product.palette[1], (0.95, 0.95, 0.95), product.palette[0])[int(form.integers(3))]
    shade = 0.8 + 0.25 * y + 0.15 * np.cos(distance * 9) + 0.1 * x
    return layer(np.float32(colour) * shade[..., None], edge(distance - 0.97, 3.0 / wide))
