"""Packages with flat sides: boxes and gable-top cartons."""

from __future__ import annotations

import cv2
import numpy as np

from klip.shop.artwork import printed
from klip.shop.design import Product
from klip.shop.lettering import small_print, words
from klip.shop.paint import blend, edge, grid, hsv, layer, luma, paste, stream


def _projected(points: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
    """(n, 3) points with y down and z towards the viewer -> (n, 2) picture positions, in
    mild perspective.
    """
    a, b = np.radians(yaw), np.radians(pitch)
    x, y, z = points.T
    x, z = x * np.cos(a) + z * np.sin(a), z * np.cos(a) - x * np.sin(a)
    y, z = y * np.cos(b) + z * np.sin(b), z * np.cos(b) - y * np.sin(b)
    return np.stack((x, y), 1) * (1.0 / (1.0 - 0.12 * z))[:, None]


def _side(product: Product, width: int, height: int) -> np.ndarray:
    """The less decorated side of a box, float RGB (height, width, 3)."""
    rng = stream("side", product.line_seed)
    canvas = np.full((height, width, 3), product.palette[int(rng.integers(3))], np.float32)
    ink = (1.0, 1.0, 1.0) if luma(tuple(canvas[0, 0])) < 0.5 else (0.1, 0.1, 0.1)
    if rng.random() < 0.35:
        return printed(product, width, height)
    if rng.random() < 0.6:
        words(
            canvas,
            product.brand,
            (width * 0.15, height * 0.05, width * 0.85, height * 0.25),
            ink,
            rng,
        )
    for at in rng.uniform(0.25, 0.85, int(rng.integers(1, 4))):
        small_print(
            canvas, (width * 0.12, height * at, width * 0.88, height * (at + 0.14)), ink, rng
        )
    if rng.random() < 0.5:
        foot = canvas[int(height * 0.8) :]
        blend(foot, np.ones(foot.shape[:2], np.float32), product.accent)
    return canvas


def cuboid(
    product: Product, size: int, yaw: float, pitch: float, form: np.random.Generator
) -> np.ndarray:
    """A box or a gable-top carton as RGBA, turned by yaw and pitch (degrees)."""
    gable = product.shape == "carton" and form.random() < 0.75
    if product.shape == "carton":
        width = form.uniform(0.32, 0.55)
    else:
        width = float(
            form.choice((form.uniform(0.45, 0.95), form.uniform(0.9, 1.1), form.uniform(1.1, 3.0)))
        )
    depth = width * (form.uniform(0.8, 1.0) if gable else form.uniform(0.15, 0.8))
    w, h, d = np.float32((width, 1.0, depth)) / max(width, 1.0)
    roof = 0.55 * d if gable else 0.0
    top = -h + roof * 1.2
    front = printed(product, round(size * w), round(size * (h - top) / 2))
    side = _side(product, max(round(size * d), 8), front.shape[0])
    sx, sz = (-w, -d) if yaw > 0 else (w, d)
    lid = np.full((8, 8, 3), product.palette[int(form.integers(2))], np.float32)
    lid = front[: max(front.shape[0] // 5, 4)] if form.random() < 0.4 else lid
    light = form.uniform(0.55, 0.95, 3)
    lit = (light[0], 1.0, light[1])
    faces = _faces(side, front, lid, (w, h, d), (sx, sz), (top, top - roof if gable else None), lit)
    flat = _projected(np.concatenate([np.float32(corners) for _, corners, _ in faces]), yaw, pitch)
    low = flat.min(0)
    scale = (size - 3) / (flat.max(0) - low).max()
    extent = np.ceil((flat.max(0) - low) * scale).astype(int) + 3
    out = _folded(faces, (flat - low) * scale + 1.5, extent)
    if product.shape == "carton" and form.random() < 0.7:
        middle = _projected(np.float32([(0, top - roof / 2, d / 2)]), yaw, pitch)[0]
        paste(out, _cap(product, form, scale * w), *((middle - low) * scale + 1.5))
    return np.clip(out, 0, 1)


def _faces(
    side: np.ndarray,
    front: np.ndarray,
    lid: np.ndarray,
    half: tuple[float, float, float],
    turned: tuple[float, float],
    heights: tuple[float, float | None],
    lit: tuple[float, float, float],
) -> list[tuple[np.ndarray, list[tuple[float, float, float]], float]]:
    """(picture, corners, light) of the faces that can be seen, from back to front.

    half: half the width, height and depth; turned: x and z of the edge between side and front;
    heights: of the upper edge and, for a gable, of its ridge; lit: light on side, front and top.
    """
    (w, h, d), (sx, sz), (top, ridge) = half, turned, heights
    shown = [
        (side, [(sx, top, sz), (sx, top, -sz), (sx, h, -sz), (sx, h, sz)], lit[0]),
        (front, [(-w, top, d), (w, top, d), (w, h, d), (-w, h, d)], lit[1]),
    ]
    if ridge is None:
        cover = [(-w, top, -d), (w, top, -d), (w, top, d), (-w, top, d)]
        return [(lid, cover, 0.6 + 0.5 * lit[2]), *shown]
    end = [(sx, top, sz), (sx, top, -sz), (sx, ridge, -sz * 0.05), (sx, ridge, sz * 0.05)]
    slope = [(-w, ridge, 0), (w, ridge, 0), (w, top, d), (-w, top, d)]
    seam = [(-w, ridge - 0.09, 0), (w, ridge - 0.09, 0), (w, ridge, 0), (-w, ridge, 0)]
    roof = [(side[:6], end, lit[0] * 0.8), (lid, slope, 0.6 + 0.45 * lit[2]), (lid[:3], seam, 0.95)]
    return [*shown, *roof]


def _folded(faces: list[tuple], corners: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """The faces, each on its four corners (4 n, 2) in pixels, as RGBA; those turned away
    are left out.
    """
    out = np.zeros((*extent[::-1], 4), np.float32)
    for index, (picture, _, shade) in enumerate(faces):
        quad = corners[4 * index : 4 * index + 4]
        a, b = quad[1] - quad[0], quad[3] - quad[0]
        if a[0] * b[1] - a[1] * b[0] < 2.0:
            continue
        ph, pw = picture.shape[:2]
        whole = np.float32([(0, 0), (pw, 0), (pw, ph), (0, ph)])
        matrix = cv2.getPerspectiveTransform(whole, quad.astype(np.float32))
        lit = picture * np.float32(shade)
        rgb = cv2.warpPerspective(lit, matrix, extent, borderMode=cv2.BORDER_REPLICATE)
        mask = np.zeros(out.shape[:2], np.uint8)
        cv2.fillPoly(mask, [np.round(quad * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        laid = np.dstack((rgb, mask.astype(np.float32) / 255))
        paste(out, laid, out.shape[1] / 2, out.shape[0] / 2)
    return out


def _cap(product: Product, form: np.random.Generator, width: float) -> np.ndarray:
    """The screw cap on the roof of a carton `width` pixels wide, as RGBA."""
    side = max(int(width * form.uniform(0.55, 0.85)), 6)
    x, y = grid(side, side)
    colours = (product.accent, (0.97, 0.97, 0.97), product.palette[1], hsv(form.random(), 0.8, 0.8))
    colour = colours[int(form.integers(4))]
    shade = 0.75 + 0.3 * np.cos(2.5 * (x + 0.2)) + 0.08 * np.sin(x * 40) * (y > -0.2)
    lid = np.hypot(x, (y + 0.35) / 0.5)
    inside = np.minimum(lid - 0.95, np.maximum(np.abs(x) - 0.93, np.abs(y - 0.2) - 0.5))
    return layer(
        np.float32(colour) * np.where(lid < 0.9, 1.08, shade)[..., None], edge(inside, 3.0 / side)
    )
