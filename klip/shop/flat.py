"""Packages that are flat or soft: bags, pouches, wrappers, tubes, blister cards, trays, and
thin tools.
"""

from __future__ import annotations

import cv2
import numpy as np

from klip.shop.artwork import printed
from klip.shop.design import Product
from klip.shop.paint import edge, grid, hsv, layer, mix, noise, paste, turned
from klip.shop.pictures import food_colour, picture, thing


def _creases(
    rgb: np.ndarray, height_map: np.ndarray, strength: float, gloss: float, rng: np.random.Generator
) -> None:
    """Light a soft surface from its height map (height, width), in place."""
    turn = rng.uniform(0, 6.28)
    across, down = cv2.Sobel(height_map, cv2.CV_32F, 1, 0), cv2.Sobel(height_map, cv2.CV_32F, 0, 1)
    slope = across * np.cos(turn) + down * np.sin(turn)
    slope *= np.float32(strength)
    rgb *= np.clip(1.0 + slope, 0.35, 1.5)[..., None]
    rgb += (np.clip(slope - 0.25, 0, 1) * np.float32(gloss))[..., None]


def bag(
    product: Product, size: int, form: np.random.Generator, chance: np.random.Generator
) -> np.ndarray:
    """A filled bag or pouch with crimped ends, wrinkles and shine."""
    wrapper = product.shape == "wrapper"
    aspect = form.uniform(1.5, 3.2) if wrapper else form.uniform(0.55, 0.95)
    height, width = (size, round(size * aspect)) if aspect <= 1 else (round(size / aspect), size)
    rgb = printed(product, width, height)
    x, y = grid(*rgb.shape[:2])
    ends, across = (x, y) if wrapper else (y, x)
    crimp = form.uniform(0.04, 0.12)
    waist = (
        0.95
        - form.uniform(0.0, 0.1) * np.abs(ends) ** 3
        + 0.02 * np.sin(ends * 7 + chance.uniform(0, 6))
    )
    teeth = 0.985 - 0.015 * np.sign(np.sin(across * 60)) * (form.random() < 0.5)
    alpha = edge((np.abs(across) - waist) * 0.5, 3 / size) * edge(
        (np.abs(ends) - teeth) * 0.5, 3 / size
    )
    folds = noise(chance, *rgb.shape[:2], form.uniform(1.0, 3.0), 2.0)
    folds = cv2.GaussianBlur(folds, (0, 0), size / form.uniform(30, 90))
    pillow = np.sqrt(np.clip(1 - across**2 * 0.9, 0, 1)) * np.clip((1 - np.abs(ends)) * 4, 0, 1)
    crinkle = np.abs(folds - 0.5) * 2.0 * (np.abs(ends) ** 2 + 0.3)
    _creases(
        rgb,
        (pillow * 2 + crinkle * form.uniform(0.4, 2.5)).astype(np.float32),
        form.uniform(0.15, 0.75),
        form.uniform(0.0, 0.9),
        chance,
    )
    if product.shape != "pouch" or form.random() < 0.5:
        seam = np.abs(ends) > 1 - crimp
        rgb[seam] = rgb[seam] * 0.8 + 0.12 * (np.sin((ends * 90)[seam]) > 0)[:, None] + 0.05
    return layer(rgb, alpha)


def tube(
    product: Product, size: int, form: np.random.Generator, chance: np.random.Generator
) -> np.ndarray:
    """A squeezed tube with a cap at its narrow end, standing or lying."""
    long, wide = size, round(size * form.uniform(0.22, 0.42))
    lying = form.random() < 0.6
    rgb = printed(product, long, wide) if lying else np.rot90(printed(product, wide, long)).copy()
    x, y = grid(wide, long)
    cap = form.uniform(0.7, 0.86)
    half = np.interp(
        x,
        (-1, cap - 0.12, cap - 0.02, cap, 1),
        (0.98, 0.85, form.uniform(0.4, 0.7)) + (form.uniform(0.5, 0.9),) * 2,
    )
    alpha = edge((np.abs(y) - half) * wide / long, 4 / long) * edge(np.abs(x) - 0.985, 4 / long)
    rgb[x > cap] = (product.palette[1], (0.95, 0.95, 0.95), product.accent)[int(form.integers(3))]
    across = y / half
    light = (
        0.65
        + 0.45 * np.sqrt(np.clip(1 - across**2, 0, 1))
        + 0.3 * np.exp(-(((across + 0.45) / 0.12) ** 2))
    )
    grooves = np.where((x > cap) & (np.sin(x * 200) > 0.5), 0.85, 1)
    out = layer(rgb * np.where(x < -0.9, 0.9, light)[..., None] * grooves[..., None], alpha)
    return out if lying else np.ascontiguousarray(np.rot90(out, -1))


def blister(
    product: Product, size: int, form: np.random.Generator, chance: np.random.Generator
) -> np.ndarray:
    """A card with a hanging hole and its goods under a clear bubble."""
    aspect = form.uniform(0.4, 1.1)
    height, width = size, round(size * aspect)
    rgb = printed(product, width, height)
    x, y = grid(height, width)
    corner = np.hypot(
        np.maximum(np.abs(x) * aspect - aspect + 0.12, 0), np.maximum(np.abs(y) - 0.88, 0)
    )
    alpha = edge(corner - 0.115, 3 / size)
    hole = np.hypot(np.maximum(np.abs(x * aspect) - 0.08, 0), y + 0.9) - 0.035
    alpha = alpha * edge(-hole, 3 / size) if form.random() < 0.7 else alpha
    goods_w = max(round(width * form.uniform(0.3, 0.85)), 10)
    goods_h = max(round(height * form.uniform(0.25, 0.6)), 10)
    cx, cy = width * form.uniform(0.4, 0.6), height * form.uniform(0.5, 0.68)
    if form.random() < 0.6:
        goods = tool(product, max(goods_w, goods_h), form, chance)
        goods = turned(
            goods, form.choice((0, 90, 0)), min(goods_w, goods_h) / max(goods.shape[:2]) * 1.3
        )
    else:
        goods = thing(form, min(goods_w, goods_h), product.accent)
    x, y = grid(goods_h, goods_w)
    bubble = edge(
        np.hypot(np.maximum(np.abs(x) - 0.7, 0), np.maximum(np.abs(y) - 0.7, 0)) - 0.28, 0.06
    )
    paste(rgb, layer(form.uniform(0.6, 1.0), bubble * form.uniform(0.1, 0.7)), cx, cy)
    paste(rgb, goods, cx, cy)
    glint = np.exp(-(((x + 0.7 + 0.2 * y) / 0.08) ** 2)) * 0.8 + 0.1 * noise(
        chance, goods_h, goods_w
    )
    paste(rgb, layer((1.0, 1.0, 1.0), bubble * glint), cx, cy)
    return layer(rgb, alpha)


def tray(
    product: Product, size: int, form: np.random.Generator, chance: np.random.Generator
) -> np.ndarray:
    """Food seen through film on a tray, with a printed sticker or sleeve."""
    aspect = form.uniform(0.6, 1.7)
    height, width = (round(size / aspect), size) if aspect > 1 else (size, round(size * aspect))
    x, y = grid(height, width)
    plain = form.random() < 0.4
    base = (
        (0.95, 0.95, 0.95)
        if plain
        else hsv(form.random(), form.uniform(0, 0.8), form.uniform(0.1, 0.9))
    )
    corner = np.hypot(np.maximum(np.abs(x) - 0.85, 0), np.maximum(np.abs(y) - 0.85, 0))
    out = layer(base, edge(corner - 0.13, 4 / size))
    colour = mix(food_colour(form), product.accent, 0.4)
    food = picture(
        str(form.choice(("heap", "texture", "row", "cluster"))),
        chance,
        int(height * 0.84),
        int(width * 0.84),
        [colour, food_colour(form), product.accent],
        colour,
    )
    paste(out, food, width / 2, height / 2)
    sleeve = form.random() < 0.6
    band_w, band_h = (
        (width, int(height * form.uniform(0.25, 0.6)))
        if sleeve
        else (int(width * 0.5), int(height * 0.6))
    )
    shown = out[(height - band_h) // 2 :][:band_h, (width - band_w) // 2 :][:, :band_w, 3]
    paste(
        out,
        layer(printed(product, band_w, band_h), shown),
        width / 2,
        height * form.uniform(0.35, 0.65),
    )
    film = np.clip(np.abs(noise(chance, height, width, 2.0) - 0.5) * 8 - 1.0, 0, 1)
    out[..., :3] += (film * np.float32(form.uniform(0, 0.5)))[..., None]
    return np.clip(out, 0, 1)


def tool(
    product: Product, size: int, form: np.random.Generator, chance: np.random.Generator
) -> np.ndarray:
    """A thin thing sold bare: comb, brush, pen, razor, lollipop; upright."""
    width = max(round(size * form.uniform(0.14, 0.3)), 8)
    x, y = grid(size, width)
    kind = str(form.choice(("comb", "brush", "pen", "razor", "pop")))
    body, second = np.float32(product.palette[0]), np.float32(product.accent)
    bend = form.uniform(-0.25, 0.25) * (1 - y * y)
    if kind == "comb":
        teeth = np.sin((y + 1) * form.uniform(60, 110)) > form.uniform(-0.3, 0.5)
        alpha = edge(np.maximum(np.abs(x + bend) - 0.7, np.abs(y) - 0.98), 0.06)
        alpha = alpha * np.where(
            (x + bend > form.uniform(-0.3, 0.1)) & (np.abs(y) < 0.92), teeth, 1.0
        )
    else:
        knots = (-1, -0.6, -0.55, 0, 0.6, 1)
        head = {
            "brush": (0.6, 0.65, 0.25, 0.3, 0.4, 0.3),
            "pen": (0.1, 0.5, 0.5, 0.5, 0.5, 0.45),
            "razor": (0.95, 0.9, 0.2, 0.35, 0.5, 0.3),
            "pop": (0.5, 0.7, 0.1, 0.1, 0.1, 0.1),
        }[kind]
        half = np.interp(y, knots, head * form.uniform(0.7, 1.1, 6)) + form.uniform(
            0, 0.1
        ) * np.sin(7 * y)
        alpha = edge(np.maximum(np.abs(x + bend) - half, np.abs(y) - 0.98), 0.08)
    split = form.uniform(-0.6, 0.4)
    share = (
        (y < split) * 1.0
        if form.random() < 0.7
        else np.clip(noise(form, size, width, 1.0) * 6 - 3, 0, 1)
    )
    rgb = body + share[..., None] * (second - body)
    if kind in ("brush", "razor") and form.random() < 0.7:
        rgb[y < -0.6] *= 0.7 + 0.5 * np.sin((y * 90)[y < -0.6])[:, None]
    rgb = rgb * (0.6 + 0.5 * np.sqrt(np.clip(1 - x * x, 0, 1)))[..., None]
    rgb += (form.uniform(0, 0.6) * np.exp(-(((x + bend + 0.2) / 0.1) ** 2)))[..., None]
    if form.random() < 0.5:
        room = rgb[size // 3 :, width // 4 :]
        part = np.rot90(printed(product, size // 2, width // 2))[: room.shape[0], : room.shape[1]]
        room[: part.shape[0], : part.shape[1]] = part
    out = layer(rgb, alpha)
    lean = form.choice((0.0, 0.0, 90.0, 90.0, form.uniform(-80, 80)))
    return turned(out, lean) if lean else out


FLAT = {
    "bag": bag,
    "pouch": bag,
    "wrapper": bag,
    "tube": tube,
    "blister": blister,
    "tray": tray,
    "tool": tool,
}
"""Package shape -> what draws it, as RGBA of any size near the one asked for."""
