"""Pictures of products: clean packshots from the web, and photographs taken in a shop.

Both take a cut-out product, RGBA uint8 (h, w, 4) as `klip.shop.packshot.packshot` returns it, and give RGB uint8
(size, size, 3).  All chance comes from the generator passed in.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from klip.shop.paint import blend, edge, grid, hsv, noise, paste, stream, turned

STYLES = ("tight", "scene", "pile")
"""What a photograph shows: the product filling the frame, the product in front of a shelf, or a heap of it."""


def _box(rgba: np.ndarray) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of what is not clear."""
    seen = rgba[..., 3] > 20
    columns, rows = np.flatnonzero(seen.any(0)), np.flatnonzero(seen.any(1))
    if not len(rows):
        return 0, 0, rgba.shape[1], rgba.shape[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _lay(canvas: np.ndarray, rgba: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Warp the product onto the canvas (0..255), its box to four corners (4, 2) in pixels; returns its mask 0..1."""
    left, top, right, bottom = _box(rgba)
    part = rgba[top:bottom, left:right]
    sides = np.hypot(*(corners - np.roll(corners, 1, 0)).T)
    wanted_w, wanted_h = max(sides[1], sides[3], 2.0), max(sides[0], sides[2], 2.0)
    if wanted_w < 0.7 * part.shape[1] or wanted_h < 0.7 * part.shape[0]:
        target = int(min(wanted_w, part.shape[1])) + 1, int(min(wanted_h, part.shape[0])) + 1
        part = cv2.resize(part, target, interpolation=cv2.INTER_AREA)
    height, width = part.shape[:2]
    source = np.float32([(0, 0), (width, 0), (width, height), (0, height)])
    matrix = cv2.getPerspectiveTransform(source, corners.astype(np.float32))
    target = (canvas.shape[1], canvas.shape[0])
    rgb = cv2.warpPerspective(part[..., :3], matrix, target, borderMode=cv2.BORDER_REPLICATE)
    mask = cv2.warpPerspective(part[..., 3], matrix, target).astype(np.float32) * np.float32(1 / 255)
    blend(canvas, mask, rgb)
    return mask


def _corners(centre: tuple[float, float], width: float, height: float, degrees: float, warp: float,
             rng: np.random.Generator) -> np.ndarray:
    """Corners of a rectangle turned and bent by perspective; `warp` is the size of the bend, 0..0.3."""
    points = np.float32([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * np.float32([width / 2, height / 2])
    points *= 1 + rng.uniform(-warp, warp, (4, 2)).astype(np.float32)
    if rng.random() < 0.5:
        points[:, int(rng.integers(2))] *= 1 + warp * rng.uniform(-1, 1) * np.float32([-1, 1, 1, -1])
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    points[:, 0] += points[:, 1] * rng.uniform(-warp, warp)
    return points @ np.float32([[c, s], [-s, c]]) + np.float32(centre)


def _compressed(image: np.ndarray, quality: int) -> np.ndarray:
    coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
    return cv2.imdecode(coded, cv2.IMREAD_COLOR)


def on_white(rgba: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """A clean packshot as a web shop shows it, RGB uint8 (size, size, 3)."""
    canvas = np.full((size, size, 3), 255.0, np.float32)
    if rng.random() < 0.12:
        canvas[:] = np.float32(hsv(rng.random(), rng.uniform(0, 0.3), rng.uniform(0.75, 1))) * 255
        canvas += grid(size, size)[1][..., None] * np.float32(rng.uniform(-15, 15))
    left, top, right, bottom = _box(rgba)
    scale = size * (rng.uniform(0.96, 1.04) if rng.random() < 0.5 else rng.uniform(0.5, 0.97))
    scale /= max(right - left, bottom - top)
    wide, high = (right - left) * scale, (bottom - top) * scale
    if rng.random() < 0.25:
        stretch = np.sqrt(wide / high) if rng.random() < 0.6 else rng.uniform(0.85, 1.15)
        wide, high = min(wide / stretch, size), min(high * stretch, size)
    slack_x, slack_y = max(size - wide, 0) / 2, max(size - high, 0) / 2
    centre = (size / 2 + slack_x * rng.uniform(-0.5, 0.5), size / 2 + slack_y * rng.uniform(-0.5, 0.5))
    degrees = rng.normal(0, 12) if rng.random() < 0.12 else 0.0
    corners = _corners(centre, wide, high, degrees, 0.03 if rng.random() < 0.3 else 0.0, rng)
    if rng.random() < 0.3:
        shadow = edge(np.hypot(grid(size, size)[0] / max(wide / size, 0.1) / 1.05,
                               (grid(size, size)[1] - (corners[:, 1].max() / size * 2 - 1)) / 0.08) - 1, 1.0)
        blend(canvas, shadow, np.float32((90, 90, 95)), rng.uniform(0.2, 0.7))
    _lay(canvas, rgba, corners)
    if rng.random() < 0.6:
        canvas = (canvas - 255) * np.float32(rng.uniform(0.85, 1.1)) + 255
        canvas *= rng.uniform(0.96, 1.03, 3).astype(np.float32)
    if rng.random() < 0.35:
        canvas = _coarse(canvas, int(np.exp(rng.uniform(np.log(36), np.log(size)))), rng)
    out = np.clip(canvas, 0, 255).astype(np.uint8)
    return _compressed(out, int(rng.integers(35, 96))) if rng.random() < 0.7 else out


def photograph(rgba: np.ndarray, rng: np.random.Generator, size: int, others: Sequence[np.ndarray] = (),
               style: str | None = None, strength: float = 1.0) -> np.ndarray:
    """A photograph of the product in a shop, RGB uint8 (size, size, 3).

    `others` are cut-outs of other products, for the shelf behind; `style` is one of STYLES or None for chance;
    `strength` 0..1 scales how far light, blur, geometry and covering go (1 is what pre-training uses).
    """
    if style is None:
        style = str(rng.choice(STYLES, p=(0.47, 0.43, 0.1)))
    if style not in STYLES:
        raise ValueError(f"shop photograph: style must be one of {', '.join(STYLES)} or None, got {style!r}")
    if not 0.0 <= strength <= 1.0:
        raise ValueError(f"shop photograph: strength must lie in 0..1, got {strength!r}")
    canvas = np.empty((size, size, 3), np.float32)
    if style == "pile":
        _pile(canvas, rgba, rng)
    else:
        covered = style == "tight" and rng.random() < 0.5
        _shelf(canvas, rgba, rng, () if covered else others)
        if style == "scene" and rng.random() < 0.4:
            canvas = cv2.GaussianBlur(canvas, (0, 0), size * rng.uniform(0.005, 0.025))
        corners = _tight(rgba, rng, size, strength) if style == "tight" else _held(rgba, rng, size, strength)
        _copies(canvas, rgba, corners, rng, style)
        if rng.random() < 0.6:
            _shade_behind(canvas, corners, rng)
        mask = _lay(canvas, rgba, corners)
        if rng.random() < 0.5:
            _relief(canvas, mask, rng, strength)
        if rng.random() < (0.6 if style == "scene" else 0.12) * (0.3 + 0.7 * strength):
            _hand(canvas, corners, rng)
        if rng.random() < 0.25 * strength:
            _strip(canvas, rng)
    return _exposed(canvas, rng, strength, style)


def _tight(rgba: np.ndarray, rng: np.random.Generator, size: int, strength: float) -> np.ndarray:
    """Where the product lies in a close crop: squashed or not, cut off by up to 35 % on a side or two."""
    left, top, right, bottom = _box(rgba)
    aspect = (right - left) / (bottom - top)
    fill = rng.uniform(0.85, 1.1)
    wide, high = size * fill * min(aspect, 1.0), size * fill * min(1 / aspect, 1.0)
    if rng.random() < 0.5:
        wide, high = size * rng.uniform(0.85, 1.15), size * rng.uniform(0.85, 1.15)
    x, y = size / 2 + rng.normal(0, 0.03) * size, size / 2 + rng.normal(0, 0.03) * size
    if rng.random() < 0.45 * strength:
        cut = rng.uniform(0.05, 0.38, 2) * (rng.random(2) < (0.6, 0.5))
        wide, high = wide * (1 + cut[0] * 1.3), high * (1 + cut[1] * 1.3)
        x += cut[0] * wide * 0.5 * rng.choice((-1, 1))
        y += cut[1] * high * 0.5 * rng.choice((-1, 1))
    degrees = rng.normal(0, 5) if rng.random() < 0.8 else rng.uniform(-40, 40) * strength
    if rng.random() < 0.03 * strength:
        degrees += rng.choice((90, 180, 270))
    return _corners((x, y), wide, high, degrees, 0.12 * strength, rng)


def _held(rgba: np.ndarray, rng: np.random.Generator, size: int, strength: float) -> np.ndarray:
    """Where the product lies in a scene: 35 to 95 % of the frame, leaning up to 40 degrees."""
    left, top, right, bottom = _box(rgba)
    scale = size * rng.uniform(0.35 if strength > 0.5 else 0.5, 0.95) / max(right - left, bottom - top)
    degrees = float(np.clip(rng.normal(0, 16), -42, 42)) * strength
    if rng.random() < 0.06 * strength:
        degrees += rng.choice((90, 180, 270))
    reach = 0.14 * size
    centre = (size / 2 + rng.normal(0, reach) * strength, size / 2 + rng.normal(0, reach) * strength)
    wide = (right - left) * scale * rng.uniform(0.8, 1.15)
    return _corners(centre, wide, (bottom - top) * scale, degrees, 0.16 * strength, rng)


def _shelf(canvas: np.ndarray, rgba: np.ndarray, rng: np.random.Generator, others: Sequence[np.ndarray]) -> None:
    """Fill the canvas with what is behind a product: darkness, walls, or rows of goods with price rails."""
    size = canvas.shape[0]
    x, y = grid(size, size)
    canvas[:] = np.float32(hsv(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.02, 0.95))) * 255
    canvas *= (1 + rng.uniform(-.5, .5) * x + rng.uniform(-.5, .5) * y)[..., None]
    if rng.random() < 0.4:
        canvas *= (0.5 + noise(rng, size, size, rng.uniform(0.3, 2.0)))[..., None]
    if not others and rng.random() < 0.5:
        return
    rows = int(rng.integers(1, 5))
    high = size / rows * rng.uniform(0.8, 1.1)
    rail = np.float32(hsv(rng.random(), rng.uniform(0, 0.7), rng.uniform(0.15, 1))) * 255
    for row in range(rows + 1):
        floor, at = (row + rng.uniform(0.6, 0.9)) * high, rng.uniform(-0.2, 0.1) * size
        while at < size:
            if others and rng.random() < 0.92:
                other = others[int(rng.integers(len(others)))]
                side = max(int(high * rng.uniform(0.7, 1.0)), 6)
                small = cv2.resize(other, (side, side), interpolation=cv2.INTER_AREA)
                for _ in range(int(rng.integers(1, 3))):
                    paste_bytes(canvas, small, at + side / 2, floor - side / 2)
                    at += side * rng.uniform(0.55, 0.95)
            else:
                wide = int(high * rng.uniform(0.2, 0.9)) + 2
                x0, y0 = max(int(at), 0), max(int(floor - high * rng.uniform(0.4, 0.9)), 0)
                canvas[y0 : max(int(floor), 0), x0 : max(int(at) + wide, 0)] = rng.uniform(0, 255, 3)
                at += wide + 1
        y0, y1 = max(int(floor), 0), max(int(floor + high * 0.12), 1)
        canvas[y0:y1] = rail
        for tag in rng.uniform(0, size, int(rng.integers(0, 4))):
            canvas[y0:y1, int(tag) : int(tag + high * 0.25)] = (235, 235, 225) if rng.random() < 0.6 else (240, 210, 40)


def paste_bytes(canvas: np.ndarray, sprite: np.ndarray, x: float, y: float) -> None:
    """Lay an RGBA uint8 sprite with its centre at (x, y) on a canvas of values 0..255, in place."""
    layer = sprite.astype(np.float32)
    layer[..., 3] *= np.float32(1 / 255)
    paste(canvas, layer, x, y)


def _copies(canvas: np.ndarray, rgba: np.ndarray, corners: np.ndarray, rng: np.random.Generator, style: str) -> None:
    """More of the same beside the product, as on a shelf."""
    if rng.random() > (0.5 if style == "tight" else 0.3):
        return
    step = (corners[1] - corners[0] + corners[2] - corners[3]) / 2 * rng.uniform(0.95, 1.15)
    for side in (-1, 1):
        if rng.random() < 0.75:
            _lay(canvas, rgba, corners + side * step + rng.normal(0, 0.02, 2) * canvas.shape[0])


def _shade_behind(canvas: np.ndarray, corners: np.ndarray, rng: np.random.Generator) -> None:
    """The shadow a product throws on what is behind it."""
    mask = np.zeros(canvas.shape[:2], np.uint8)
    cv2.fillConvexPoly(mask, (corners + rng.uniform(-0.05, 0.08, 2) * canvas.shape[0]).astype(np.int32), 255)
    soft = cv2.blur(mask, (max(canvas.shape[0] // 10, 1),) * 2).astype(np.float32) * np.float32(1 / 255)
    canvas *= 1 - (soft * np.float32(rng.uniform(0.2, 0.8)))[..., None]


def _relief(canvas: np.ndarray, mask: np.ndarray, rng: np.random.Generator, strength: float) -> None:
    """Light that falls unevenly on the product itself: a gradient and glare."""
    size = canvas.shape[0]
    x, y = grid(size, size)
    turn = rng.uniform(0, 6.28)
    along = x * np.cos(turn) + y * np.sin(turn)
    canvas *= 1 + (mask * along * np.float32(rng.uniform(0, 0.6) * strength))[..., None]
    if rng.random() < 0.5 * strength:
        glare = np.exp(-(((along - rng.uniform(-0.8, 0.8)) / rng.uniform(0.05, 0.3)) ** 2))
        if rng.random() < 0.5:
            glare *= np.clip(noise(rng, size, size, size / 60) * 4 - 1.6, 0, 1)
        canvas += (mask * glare * np.float32(rng.uniform(40, 220)))[..., None]


def _hand(canvas: np.ndarray, corners: np.ndarray, rng: np.random.Generator) -> None:
    """Fingers that reach over one edge of the product, with the arm going out of the frame."""
    size = canvas.shape[0]
    length = float(np.hypot(*(corners[2] - corners[0])))
    side = int(rng.choice((1, 3, 2), p=(0.4, 0.4, 0.2)))
    a, b = corners[side], corners[(side + 1) % 4]
    inward = corners.mean(0) - (a + b) / 2
    inward = inward / (np.hypot(*inward) + 1e-6)
    thick = max(length * rng.uniform(0.06, 0.11), 3.0)
    skin = np.float32(hsv(rng.uniform(0.02, 0.09), rng.uniform(0.25, 0.6), rng.uniform(0.3, 1.0))) * 255
    middle = rng.uniform(0.3, 0.8)
    mask = np.zeros((size, size), np.uint8)
    palm = a + (b - a) * middle - inward * thick * 2.5
    shapes = [(palm - inward * size + rng.normal(0, 0.3, 2) * size, palm, thick * 4.5)]
    for finger in range(int(rng.integers(1, 5))):
        root = a + (b - a) * (middle + (finger - 1.5) * 1.15 * thick / max(np.hypot(*(b - a)), 1)) - inward * thick * 1.5
        shapes.append((root, root + inward * thick * rng.uniform(2.0, 5.0) + rng.normal(0, 0.3, 2) * thick, thick))
    for start, end, across in shapes:
        mask[:] = 0
        cv2.line(mask, start.astype(int).tolist(), end.astype(int).tolist(), 255, max(int(across), 1), cv2.LINE_AA)
        share = mask.astype(np.float32) * np.float32(1 / 255)
        inner = cv2.blur(share, (max(int(across * 0.7), 1),) * 2)
        blend(canvas, share, skin * (0.35 + 0.7 * inner)[..., None])


def _strip(canvas: np.ndarray, rng: np.random.Generator) -> None:
    """Something across the picture: a rail, a price tag, a neighbour's edge."""
    size = canvas.shape[0]
    wide, high = (size, int(size * rng.uniform(0.05, 0.2))) if rng.random() < 0.5 else (
        int(size * rng.uniform(0.1, 0.4)), int(size * rng.uniform(0.1, 0.35)))
    bar = np.ones((high + 1, wide + 1, 4), np.float32)
    bar[..., :3] = np.float32(hsv(rng.random(), rng.uniform(0, 0.8), rng.uniform(0.05, 1))) * 255
    bar[::3, ::2, :3] *= 0.7
    edge_at = rng.choice((0.02, 0.98)) * size
    place = (edge_at, rng.uniform(0, size)) if rng.random() < 0.5 else (rng.uniform(0, size), edge_at)
    paste(canvas, turned(bar, rng.choice((0.0, 90.0)) + rng.normal(0, 6)), *place)


def _pile(canvas: np.ndarray, rgba: np.ndarray, rng: np.random.Generator) -> None:
    """Many turned, scaled and relit copies of the product over the whole frame."""
    size = canvas.shape[0]
    canvas[:] = np.float32(hsv(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.0, 0.5))) * 255
    left, top, right, bottom = _box(rgba)
    part = rgba[top:bottom, left:right].astype(np.float32)
    part[..., 3] *= np.float32(1 / 255)
    share = float(np.exp(rng.uniform(np.log(0.14), np.log(0.6))))
    scale = share * size / max(part.shape[:2])
    part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    swing = rng.choice((20.0, 180.0))
    stamps = []
    for _ in range(6):
        stamp = turned(part, rng.uniform(-swing, swing), rng.uniform(0.8, 1.1))
        stamp[..., :3] *= rng.uniform(0.6, 1.1)
        stamps.append(stamp)
    across = int(np.clip(1.5 / share, 2, 8))
    low = rng.uniform(0, 0.35) if rng.random() < 0.3 else 0.0
    for row in range(across + 1):
        for column in range(across + 1):
            x, y = (np.array((column, row)) + rng.normal(0, 0.25, 2)) * size / across
            paste(canvas, stamps[int(rng.integers(6))], x, low * size + y * (1 - low))


def _coarse(canvas: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """The picture as if taken `side` pixels wide."""
    size = canvas.shape[0]
    if side >= size:
        return canvas
    small = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC)


def _exposed(canvas: np.ndarray, rng: np.random.Generator, strength: float, style: str) -> np.ndarray:
    """Light, colour, optics, sensor and file format."""
    size = canvas.shape[0]
    canvas *= np.float32(1 / 255)
    field = 1 + rng.uniform(-0.6, 0.6, (3, 3)).astype(np.float32) * np.float32(strength * rng.uniform(0, 1))
    canvas *= cv2.resize(field, (size, size), interpolation=cv2.INTER_CUBIC)[..., None]
    warm = rng.normal(0, 0.16)
    cast = np.array((warm, rng.normal(0.02, 0.08), -1.3 * warm)) * strength
    if rng.random() < 0.3 * strength:
        cast += rng.normal(0, 0.2, 3)
    if style == "tight" and rng.random() < 0.5 * strength:
        cast += np.array((0.1, 0.05, -0.35)) * rng.uniform(0.3, 1.5)
    dim = rng.random() < (0.6 if style == "tight" else 0.3)
    gain = np.exp(rng.uniform(np.log(0.12), 0.0) * strength) if dim else np.exp(rng.normal(0.05, 0.2 * strength))
    canvas *= (gain * np.exp(cast)).astype(np.float32)
    np.clip(canvas, 0.0, 1.0, out=canvas)
    if rng.random() < 0.6:
        gamma = np.exp(rng.normal(0, 0.3 * strength)) if not dim else np.exp(rng.uniform(-0.5, 0.2) * strength)
        cv2.pow(canvas, float(gamma), canvas)
    if rng.random() < 0.5:
        grey = canvas.mean(2, keepdims=True)
        canvas = grey + (canvas - grey) * np.float32(1 + rng.uniform(-0.75, 0.35) * strength)
    if rng.random() < 0.3:
        lift = rng.uniform(0, 0.2) * strength
        canvas = canvas * np.float32(1 - lift) + np.float32(lift)
    blur = rng.random()
    if blur < 0.3:
        canvas = cv2.GaussianBlur(canvas, (0, 0), max(size * rng.uniform(0.002, 0.028) * strength, 0.1))
    elif blur < 0.5 * strength + 0.3 * (1 - strength):
        canvas = _shaken(canvas, rng, size * rng.uniform(0.02, 0.11))
    if rng.random() < 0.55:
        coarsest = np.log(14 if style == "tight" else 40) * strength + np.log(size) * (1 - strength)
        canvas = _coarse(canvas, int(np.exp(rng.uniform(coarsest, np.log(size * 1.1)))), rng)
    if rng.random() < 0.6:
        amount = np.float32(rng.uniform(0.004, 0.05) * strength)
        at = int(rng.integers(_GRAINS.size - canvas.size))
        canvas = canvas + amount * _GRAINS[at : at + canvas.size].reshape(canvas.shape)
    out = (np.clip(canvas, 0, 1) * 255).astype(np.uint8)
    return _compressed(out, int(rng.integers(15, 91))) if rng.random() < 0.75 else out


_GRAINS = stream("sensor").standard_normal(1 << 20).astype(np.float32)


def _shaken(canvas: np.ndarray, rng: np.random.Generator, length: float) -> np.ndarray:
    """Motion blur along a random line `length` pixels long."""
    side = int(length) | 1
    if side < 3:
        return canvas
    kernel = np.zeros((side, side), np.float32)
    turn = rng.uniform(0, np.pi)
    dx, dy = np.cos(turn) * side / 2, np.sin(turn) * side / 2
    middle = side // 2
    cv2.line(kernel, (round(middle - dx), round(middle - dy)), (round(middle + dx), round(middle + dy)), 1.0, 1)
    return cv2.filter2D(canvas, -1, kernel / max(kernel.sum(), 1e-6))
