"""Packages that are flat or soft: bags, pouches, wrappers, tubes, blister cards, trays, and
thin tools.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator

from klip.shop.artwork import Pack
from klip.shop.paint import (
    any_colour,
    edge,
    for_each_channel,
    grid,
    layer,
    mix,
    noise,
    paste,
    pick,
    turned,
)
from klip.shop.pictures import food_colour, picture, thing


def _creases(
    rgb: ndarray, height_map: ndarray, *, strength: float, gloss: float, rng: Generator
) -> None:
    """Light a soft surface from its height map (height, width), in place."""
    turn = rng.uniform(0, 6.28)  # where the lamp is
    across, down = cv2.Sobel(height_map, cv2.CV_32F, 1, 0), cv2.Sobel(height_map, cv2.CV_32F, 0, 1)
    slope = across * np.cos(turn) + down * np.sin(turn)
    slope *= np.float32(strength)
    rgb *= for_each_channel(np.clip(1.0 + slope, 0.35, 1.5))
    rgb += for_each_channel(np.clip(slope - 0.25, 0, 1) * np.float32(gloss))


def _shape(size: int, aspect: float) -> tuple[int, int]:
    """(height, width) of a thing `aspect` times as wide as high, its longer side being `size`."""
    return (size, round(size * aspect)) if aspect <= 1 else (round(size / aspect), size)


def _outside(x: ndarray, y: ndarray, *, inner: tuple[float, float]) -> ndarray:
    """Distance of each point from a rectangle of half sizes `inner`: its edge is round."""
    return np.hypot(np.maximum(np.abs(x) - inner[0], 0), np.maximum(np.abs(y) - inner[1], 0))


def bag(pack: Pack) -> ndarray:
    """A filled bag or pouch with crimped ends, wrinkles and shine."""
    size, form, chance = pack.size, pack.form, pack.chance
    wrapper = pack.product.shape == "wrapper"
    aspect = form.uniform(1.5, 3.2) if wrapper else form.uniform(0.55, 0.95)
    rgb = pack.printed(*_shape(size, aspect))
    shape = rgb.shape[:2]
    x, y = grid(*shape)
    ends, across = (x, y) if wrapper else (y, x)
    crimp = form.uniform(0.04, 0.12)
    bulge = 0.95 - form.uniform(0.0, 0.1) * np.abs(ends) ** 3
    waist = bulge + 0.02 * np.sin(ends * 7 + chance.uniform(0, 6))
    teeth = 0.985 - 0.015 * np.sign(np.sin(across * 60)) * (form.random() < 0.5)
    sides = edge((np.abs(across) - waist) * 0.5, 3 / size)
    alpha = sides * edge((np.abs(ends) - teeth) * 0.5, 3 / size)
    folds = noise(chance, shape, zoom=form.uniform(1.0, 3.0), stretch=2.0)
    folds = cv2.GaussianBlur(folds, (0, 0), size / form.uniform(30, 90))
    pillow = np.sqrt(np.clip(1 - across**2 * 0.9, 0, 1)) * np.clip((1 - np.abs(ends)) * 4, 0, 1)
    crinkle = np.abs(folds - 0.5) * 2.0 * (np.abs(ends) ** 2 + 0.3)  # most at the ends
    surface = (pillow * 2 + crinkle * form.uniform(0.4, 2.5)).astype(np.float32)
    strength, gloss = form.uniform(0.15, 0.75), form.uniform(0.0, 0.9)
    _creases(rgb, surface, strength=strength, gloss=gloss, rng=chance)
    if pack.product.shape != "pouch" or form.random() < 0.5:
        seam = np.abs(ends) > 1 - crimp
        ribs = (np.sin((ends * 90)[seam]) > 0)[:, None]
        rgb[seam] = rgb[seam] * 0.8 + 0.12 * ribs + 0.05
    return layer(rgb, alpha)


def tube(pack: Pack) -> ndarray:
    """A squeezed tube with a cap at its narrow end, standing or lying."""
    size, form, product = pack.size, pack.form, pack.product
    wide = round(size * form.uniform(0.22, 0.42))
    lying = form.random() < 0.6  # drawn lying, its cap on the right
    rgb = pack.printed(wide, size) if lying else np.rot90(pack.printed(size, wide)).copy()
    x, y = grid(wide, size)
    cap = form.uniform(0.7, 0.86)
    neck, lid = form.uniform(0.4, 0.7), form.uniform(0.5, 0.9)
    along = (-1, cap - 0.12, cap - 0.02, cap, 1)
    half = np.interp(x, along, (0.98, 0.85, neck, lid, lid))
    sides = edge((np.abs(y) - half) * wide / size, 4 / size)
    alpha = sides * edge(np.abs(x) - 0.985, 4 / size)
    rgb[x > cap] = pick(form, (product.palette[1], (0.95, 0.95, 0.95), product.accent))
    across = y / half
    round_ = 0.65 + 0.45 * np.sqrt(np.clip(1 - across**2, 0, 1))
    light = round_ + 0.3 * np.exp(-(((across + 0.45) / 0.12) ** 2))
    grooves = np.where((x > cap) & (np.sin(x * 200) > 0.5), 0.85, 1)
    shade = np.where(x < -0.9, 0.9, light)[..., None]  # the crimped end is flat
    out = layer(rgb * shade * grooves[..., None], alpha)
    return out if lying else np.ascontiguousarray(np.rot90(out, -1))


def blister(pack: Pack) -> ndarray:
    """A card with a hanging hole and its goods under a clear bubble."""
    size, form, chance = pack.size, pack.form, pack.chance
    aspect = form.uniform(0.4, 1.1)
    height, width = size, round(size * aspect)
    rgb = pack.printed(height, width)
    x, y = grid(height, width)
    alpha = edge(_outside(x * aspect, y, inner=(aspect - 0.12, 0.88)) - 0.115, 3 / size)
    hole = np.hypot(np.maximum(np.abs(x * aspect) - 0.08, 0), y + 0.9) - 0.035
    if form.random() < 0.7:
        alpha = alpha * edge(-hole, 3 / size)
    goods_w = max(round(width * form.uniform(0.3, 0.85)), 10)
    goods_h = max(round(height * form.uniform(0.25, 0.6)), 10)
    at = width * form.uniform(0.4, 0.6), height * form.uniform(0.5, 0.68)
    short = min(goods_w, goods_h)
    if form.random() < 0.6:
        goods = tool(replace(pack, size=max(goods_w, goods_h)))
        lean = form.choice((0, 90, 0))
        goods = turned(goods, lean, scale=short / max(goods.shape[:2]) * 1.3)
    else:
        goods = thing(form, short, colour=pack.product.accent)
    x, y = grid(goods_h, goods_w)
    bubble = edge(_outside(x, y, inner=(0.7, 0.7)) - 0.28, 0.06)
    inside = layer(form.uniform(0.6, 1.0), bubble * form.uniform(0.1, 0.7))
    shine = np.exp(-(((x + 0.7 + 0.2 * y) / 0.08) ** 2)) * 0.8
    glint = shine + 0.1 * noise(chance, (goods_h, goods_w))
    for sprite in (inside, goods, layer((1.0, 1.0, 1.0), bubble * glint)):
        paste(rgb, sprite, at=at)
    return layer(rgb, alpha)


def tray(pack: Pack) -> ndarray:
    """Food seen through film on a tray, with a printed sticker or sleeve."""
    size, form, chance, accent = pack.size, pack.form, pack.chance, pack.product.accent
    height, width = shape = _shape(size, form.uniform(0.6, 1.7))
    x, y = grid(height, width)
    base = (0.95, 0.95, 0.95)
    if form.random() >= 0.4:
        base = any_colour(form, (0, 0.8), value=(0.1, 0.9))
    out = layer(base, edge(_outside(x, y, inner=(0.85, 0.85)) - 0.13, 4 / size))
    colour = mix(food_colour(form), accent, share=0.4)
    kind = str(form.choice(("heap", "texture", "row", "cluster")))
    inner, colours = (int(height * 0.84), int(width * 0.84)), [colour, food_colour(form), accent]
    paste(out, picture(kind, chance, shape=inner, colours=colours, main=colour))
    if form.random() < 0.6:  # a sleeve
        band_w, band_h = width, int(height * form.uniform(0.25, 0.6))
    else:
        band_w, band_h = int(width * 0.5), int(height * 0.6)
    # The print shows where the tray is, with the tray's round corners.
    shown = out[(height - band_h) // 2 :][:band_h, (width - band_w) // 2 :][:, :band_w, 3]
    band = layer(pack.printed(band_h, band_w), shown)
    paste(out, band, at=(width / 2, height * form.uniform(0.35, 0.65)))
    film = np.clip(np.abs(noise(chance, shape, zoom=2.0) - 0.5) * 8 - 1.0, 0, 1)
    out[..., :3] += (film * np.float32(form.uniform(0, 0.5)))[..., None]
    return np.clip(out, 0, 1)


_HEADS = {
    # half the width of a tool at heights -1, -0.6, -0.55, 0, 0.6 and 1
    "brush": (0.6, 0.65, 0.25, 0.3, 0.4, 0.3),
    "pen": (0.1, 0.5, 0.5, 0.5, 0.5, 0.45),
    "razor": (0.95, 0.9, 0.2, 0.35, 0.5, 0.3),
    "pop": (0.5, 0.7, 0.1, 0.1, 0.1, 0.1),
}


def tool(pack: Pack) -> ndarray:
    """A thin thing sold bare: comb, brush, pen, razor, lollipop; upright, or leaning."""
    size, form, product = pack.size, pack.form, pack.product
    shape = size, max(round(size * form.uniform(0.14, 0.3)), 8)
    x, y = grid(*shape)
    kind = str(form.choice(("comb", "brush", "pen", "razor", "pop")))
    bent = x + form.uniform(-0.25, 0.25) * (1 - y * y)
    alpha = _tool_mask(kind, form, bent=bent, y=y)
    split = form.uniform(-0.6, 0.4)
    if form.random() < 0.7:
        share = (y < split) * 1.0
    else:
        share = np.clip(noise(form, shape, zoom=1.0) * 6 - 3, 0, 1)
    body, second = np.float32(product.palette[0]), np.float32(product.accent)
    rgb = body + share[..., None] * (second - body)
    if kind in ("brush", "razor") and form.random() < 0.7:  # bristles or blades
        rgb[y < -0.6] *= 0.7 + 0.5 * np.sin((y * 90)[y < -0.6])[:, None]
    rgb = rgb * (0.6 + 0.5 * np.sqrt(np.clip(1 - x * x, 0, 1)))[..., None]
    rgb += (form.uniform(0, 0.6) * np.exp(-(((bent + 0.2) / 0.1) ** 2)))[..., None]
    if form.random() < 0.5:
        room = rgb[size // 3 :, shape[1] // 4 :]
        part = np.rot90(pack.printed(shape[1] // 2, size // 2))
        part = part[: room.shape[0], : room.shape[1]]
        room[: part.shape[0], : part.shape[1]] = part
    lean = form.choice((0.0, 0.0, 90.0, 90.0, form.uniform(-80, 80)))
    out = layer(rgb, alpha)
    return turned(out, lean) if lean else out


def _tool_mask(kind: str, form: Generator, *, bent: ndarray, y: ndarray) -> ndarray:
    """The outline of a tool, at positions `bent` across and `y` along it, -1..1."""
    if kind == "comb":
        teeth = np.sin((y + 1) * form.uniform(60, 110)) > form.uniform(-0.3, 0.5)
        whole = edge(np.maximum(np.abs(bent) - 0.7, np.abs(y) - 0.98), 0.06)
        toothed = (bent > form.uniform(-0.3, 0.1)) & (np.abs(y) < 0.92)
        return whole * np.where(toothed, teeth, 1.0)
    heads = _HEADS[kind] * form.uniform(0.7, 1.1, 6)
    half = np.interp(y, (-1, -0.6, -0.55, 0, 0.6, 1), heads)
    half = half + form.uniform(0, 0.1) * np.sin(7 * y)
    return edge(np.maximum(np.abs(bent) - half, np.abs(y) - 0.98), 0.08)


FLAT = dict(bag=bag, pouch=bag, wrapper=bag, tube=tube, blister=blister, tray=tray, tool=tool)
"""Package shape -> what draws it, as RGBA of any size near the one asked for."""
