"""Packages with flat sides: boxes and gable-top cartons."""

from __future__ import annotations

import cv2
import numpy as np
from numpy import ndarray

from klip.shop.artwork import Pack
from klip.shop.lettering import small_print, words
from klip.shop.paint import blend, edge, filled, grid, hsv, layer, luma, paste, pick, stream

Face = tuple[ndarray, list[tuple[float, float, float]], float]
"""One side of a box: its picture (h, w, 3), its corners in space, and the light on it."""


def _projected(points: ndarray, pack: Pack) -> ndarray:
    """(n, 3) points, y down, z to the viewer -> (n, 2) picture positions."""
    a, b = np.radians(pack.yaw), np.radians(pack.pitch)
    x, y, z = points.T
    x, z = x * np.cos(a) + z * np.sin(a), z * np.cos(a) - x * np.sin(a)
    y, z = y * np.cos(b) + z * np.sin(b), z * np.cos(b) - y * np.sin(b)
    return np.stack((x, y), 1) * (1.0 / (1.0 - 0.12 * z))[:, None]  # mild perspective


def _side(pack: Pack, *, height: int, width: int) -> ndarray:
    """The less decorated side of a box, float RGB (height, width, 3)."""
    product = pack.product
    rng = stream("side", product.line_seed)
    canvas = np.full((height, width, 3), pick(rng, product.palette[:3]), np.float32)
    ink = (1.0, 1.0, 1.0) if luma(tuple(canvas[0, 0])) < 0.5 else (0.1, 0.1, 0.1)
    if rng.random() < 0.35:
        return pack.printed(height, width)
    if rng.random() < 0.6:
        box = (width * 0.15, height * 0.05, width * 0.85, height * 0.25)
        words(canvas, product.brand, box=box, ink=ink, face=rng)
    for at in rng.uniform(0.25, 0.85, int(rng.integers(1, 4))):
        box = (width * 0.12, height * at, width * 0.88, height * (at + 0.14))
        small_print(canvas, rng, box=box, ink=ink)
    if rng.random() < 0.5:
        foot = canvas[int(height * 0.8) :]
        blend(foot, product.accent, where=np.ones(foot.shape[:2], np.float32))
    return canvas


def cuboid(pack: Pack) -> ndarray:
    """A box or a gable-top carton as RGBA."""
    product, size, form = pack.product, pack.size, pack.form
    carton = product.shape == "carton"
    gable = carton and form.random() < 0.75
    if carton:
        width = form.uniform(0.32, 0.55)
    else:
        widths = form.uniform(0.45, 0.95), form.uniform(0.9, 1.1), form.uniform(1.1, 3.0)
        width = float(form.choice(widths))
    depth = width * (form.uniform(0.8, 1.0) if gable else form.uniform(0.15, 0.8))
    w, h, d = np.float32((width, 1.0, depth)) / max(width, 1.0)
    roof = 0.55 * d if gable else 0.0
    top = -h + roof * 1.2
    front = pack.printed(round(size * (h - top) / 2), round(size * w))
    side = _side(pack, height=len(front), width=max(round(size * d), 8))
    lid = np.full((8, 8, 3), pick(form, product.palette[:2]), np.float32)
    if form.random() < 0.4:  # the print goes on over the edge
        lid = front[: max(len(front) // 5, 4)]
    side_light, lid_light, _ = form.uniform(0.55, 0.95, 3)
    ridge = top - roof if gable else None
    # Half the sizes, signed: a box turned to the right shows its left side.
    edges = (-w, -d) if pack.yaw > 0 else (w, d)
    pictures, lit = (side, front, lid), (side_light, 1.0, lid_light)
    faces = _faces(pictures, (w, h, d), turned=edges, heights=(top, ridge), lit=lit)
    flat = _projected(np.concatenate([np.float32(corners) for _, corners, _ in faces]), pack)
    low = flat.min(0)
    scale = (size - 3) / (flat.max(0) - low).max()
    extent = np.ceil((flat.max(0) - low) * scale).astype(int) + 3
    out = _folded(faces, (flat - low) * scale + 1.5, extent=extent)
    if carton and form.random() < 0.7:
        middle = _projected(np.float32([(0, top - roof / 2, d / 2)]), pack)[0]
        paste(out, _cap(pack, scale * w), at=(middle - low) * scale + 1.5)
    return np.clip(out, 0, 1)


def _faces(
    pictures: tuple, half: tuple, *, turned: tuple, heights: tuple, lit: tuple
) -> list[Face]:
    """The faces that can be seen, from back to front.

    pictures: of side, front and lid; half: half the width, height and depth; turned: x and
    z of the edge between side and front; heights: of the upper edge and, for a gable, of
    its ridge, else None; lit: light on side, front and top.
    """
    (side, front, lid), (w, h, d), (sx, sz), (top, ridge) = pictures, half, turned, heights
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
    roof = [(side[:6], end, lit[0] * 0.8), (lid, slope, 0.6 + 0.45 * lit[2])]
    return [*shown, *roof, (lid[:3], seam, 0.95)]


def _folded(faces: list[Face], corners: ndarray, *, extent: ndarray) -> ndarray:
    """The faces on their corners (4 n, 2) in pixels, as RGBA, but for those turned away."""
    out = np.zeros((*extent[::-1], 4), np.float32)
    for (picture, _, light), quad in zip(faces, np.split(corners, len(faces)), strict=True):
        a, b = quad[1] - quad[0], quad[3] - quad[0]
        # The cross product of two edges: below 0, the corners run the other way round and
        # one would look at the face from within; near 0 it is a line.
        if a[0] * b[1] - a[1] * b[0] < 2.0:
            continue
        ph, pw = picture.shape[:2]
        whole = np.float32([(0, 0), (pw, 0), (pw, ph), (0, ph)])
        matrix = cv2.getPerspectiveTransform(whole, quad.astype(np.float32))
        lit = picture * np.float32(light)
        rgb = cv2.warpPerspective(lit, matrix, extent, borderMode=cv2.BORDER_REPLICATE)
        mask = filled(out.shape[:2], quad).astype(np.float32) / 255
        paste(out, np.dstack((rgb, mask)))
    return out


def _cap(pack: Pack, width: float) -> ndarray:
    """The screw cap on the roof of a carton `width` pixels wide, as RGBA."""
    product, form = pack.product, pack.form
    side = max(int(width * form.uniform(0.55, 0.85)), 6)
    x, y = grid(side, side)
    any_colour = hsv(form.random(), 0.8, value=0.8)
    colour = pick(form, (product.accent, (0.97, 0.97, 0.97), product.palette[1], any_colour))
    shade = 0.75 + 0.3 * np.cos(2.5 * (x + 0.2)) + 0.08 * np.sin(x * 40) * (y > -0.2)  # ribs
    lid = np.hypot(x, (y + 0.35) / 0.5)
    inside = np.minimum(lid - 0.95, np.maximum(np.abs(x) - 0.93, np.abs(y - 0.2) - 0.5))
    rgb = np.float32(colour) * np.where(lid < 0.9, 1.08, shade)[..., None]
    return layer(rgb, edge(inside, 3.0 / side))
