"""Words on packs: wordmarks that are arched, slanted, outlined and shadowed, and plain or
small print.
"""

from __future__ import annotations

import importlib.util
import string
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFont

from klip.shop.paint import Box, Colour, Shape, blend, edge, grid, layer, luma, noise, paste, stream

_FACES = """DejaVuSans DejaVuSans-Bold DejaVuSans-Bold DejaVuSans-BoldOblique
DejaVuSans-Oblique DejaVuSerif DejaVuSerif-Bold DejaVuSerif-BoldItalic DejaVuSerif-Italic
DejaVuSansMono-Bold STIXGeneral STIXGeneralBol STIXGeneralBolIta STIXGeneralItalic
cmb10 cmmi10 cmr10 cmss10 cmti10 cmtt10""".split()
# first code points of a-z drawn in another alphabet, and the one face that has it
_SCRIPTS = {
    "fraktur": (0x1D504, 0x1D51E, "STIXGeneral"),
    "script": (0x1D4D0, 0x1D4EA, "STIXGeneralBolIta"),
    "double": (0x1D538, 0x1D552, "STIXGeneral"),
    "cyrillic": (0x0410, 0x0430, "DejaVuSans-Bold"),
    "georgian": (0x10D0, 0x10D0, "DejaVuSans-Bold"),
    "armenian": (0x0531, 0x0561, "DejaVuSerif-Bold"),
    "syllabic": (0x140A, 0x1455, "DejaVuSans-Bold"),
    "greek": (0x0391, 0x03B1, "DejaVuSans-Bold"),
}
_WARPS = "none none none arch sag wave bulge pinch rise fan flag".split()
_OUTLINES = {
    # plate: how far the point (x, y), both -1..1, lies outside a plate that is `ratio`
    # times as wide as high (a signed distance, below 0 inside)
    "oval": lambda x, y, ratio: np.hypot(x, y) - 0.97,
    "box": lambda x, y, ratio: np.maximum(np.abs(x), np.abs(y)) - 0.97,
    "pill": lambda x, y, ratio: np.hypot(np.maximum(np.abs(x * ratio) - ratio + 1, 0), y) - 0.97,
    "ribbon": lambda x, y, ratio: np.maximum(
        np.abs(y + 0.25 * (1 - x * x)) - 0.72, np.abs(x) - 0.97 + 0.1 * np.abs(y)
    ),
    "shield": lambda x, y, ratio: np.maximum(
        np.abs(x) - 0.97 + 0.35 * np.maximum(y, 0) ** 2, np.abs(y) - 0.97
    ),
    "burst": lambda x, y, ratio: np.hypot(x, y) - 0.87 - 0.1 * np.sin(18 * np.arctan2(y, x)),
    "lens": lambda x, y, ratio: np.abs(y) - 0.98 * (1 - x * x),
    "slab": lambda x, y, ratio: np.maximum(np.abs(x + 0.15 * y) - 0.84, np.abs(y) - 0.95),
}
_PLATES = ("none", "none", "none", "none", *_OUTLINES)
_ROOM = 0.74  # share of a plate that its text fills, across and down


@lru_cache(maxsize=256)
def _font(face: str, size: int) -> ImageFont.FreeTypeFont:
    """A font that comes with matplotlib (found, not imported): the same on every machine."""
    package = Path(importlib.util.find_spec("matplotlib").origin).parent
    file = package / "mpl-data" / "fonts" / "ttf" / f"{face}.ttf"
    return ImageFont.truetype(str(file), size, layout_engine=ImageFont.Layout.BASIC)


def text_mask(text: str, face: str, *, size: int) -> ndarray:
    """Mask of a text of one or more lines, `size` pixels high, tightly cropped."""
    font = _font(face, size)
    measure = ImageDraw.Draw(Image.new("L", (1, 1)))
    x0, y0, x1, y1 = measure.multiline_textbbox((0, 0), text, font, spacing=1)
    image = Image.new("L", (max(int(x1 - x0) + 2, 2), max(int(y1 - y0) + 2, 2)))
    draw = ImageDraw.Draw(image)
    draw.multiline_text((1 - x0, 1 - y0), text, 255, font, spacing=1, align="center")
    return np.asarray(image, np.float32) / np.float32(255)


def _dressed(text: str, rng: Generator) -> tuple[str, str]:
    """The text in the letters of a face, and that face."""
    face = str(rng.choice(_FACES))
    case = rng.random()
    if case < 0.45:
        text = text.upper()
    elif case < 0.6:
        text = text.lower()
    if rng.random() < 0.24:
        upper, lower, face = _SCRIPTS[str(rng.choice(list(_SCRIPTS)))]
        latin = string.ascii_uppercase + string.ascii_lowercase
        other = [chr(first + k) for first in (upper, lower) for k in range(26)]
        text = text.translate(dict(zip(map(ord, latin), other, strict=True)))
    if rng.random() < (0.45 if len(text) > 8 else 0.1) and len(text) > 4:
        text = text[: len(text) // 2] + "\n" + text[len(text) // 2 :]
    return text, face


def _warped(mask: ndarray, rng: Generator, *, shape: Shape) -> ndarray:
    """A text mask bent, slanted and stretched onto another shape; room is left around it."""
    height, width = shape
    aspect = width / height
    x, y = grid(height, max(width, 4))
    kind, amount = str(rng.choice(_WARPS)), rng.uniform(0.2, 0.55)
    slant = rng.normal(0, 0.12) if rng.random() < 0.4 else 0.0
    # (u, v) is where in the text the point (x, y) looks; `grow` makes room for the bend.
    v, grow = y, 1.0
    if kind in ("arch", "sag"):
        v, grow = y - (1 if kind == "arch" else -1) * amount * (x * x - 0.5), 1 - amount * 0.5
    elif kind in ("wave", "flag"):
        v, grow = y - amount * 0.6 * np.sin((3.1 if kind == "wave" else 5.0) * x), 1 - amount * 0.6
    elif kind == "rise":
        v, grow = y + amount * 0.7 * x, 1 - amount * 0.7
    elif kind in ("bulge", "pinch"):
        v = y / (1 - amount * (x * x if kind == "bulge" else 1 - x * x))
    elif kind == "fan":
        v = y / (1 - amount * (0.5 + 0.5 * x))
    u = x + slant * v * 2 / aspect
    span = 0.94 - min(abs(slant) * 2 / aspect, 0.3)
    map_x = ((u / span + 1) * 0.5 * mask.shape[1] - 0.5).astype(np.float32)
    map_y = ((v / (grow * 0.9) + 1) * 0.5 * mask.shape[0] - 0.5).astype(np.float32)
    return cv2.remap(mask, map_x, map_y, cv2.INTER_LINEAR)


def _thick(mask: ndarray, radius: float) -> ndarray:
    """The mask grown (radius > 0) or thinned by a number of pixels."""
    step = round(abs(radius))
    if step < 1:
        return mask
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * step + 1, 2 * step + 1))
    return cv2.dilate(mask, kernel) if radius > 0 else cv2.erode(mask, kernel)


def plate_mask(kind: str, shape: Shape) -> ndarray:
    """Mask of the field behind a text, `kind` being one of _OUTLINES."""
    height, width = shape
    return edge(_OUTLINES[kind](*grid(height, width), width / height), 3.0 / height)


def _centred(mask: ndarray, shape: Shape) -> ndarray:
    """The mask in the middle of a larger, empty one; what is too wide is cut off right."""
    full = np.zeros(shape, np.float32)
    height, width = mask.shape
    top, left = (shape[0] - height) // 2, max((shape[1] - width) // 2, 0)
    full[top : top + height, left : left + width] = mask[:, : shape[1] - left]
    return full


def wordmark(brand: str, shape: Shape, *, inks: list[Colour], ground: Colour) -> ndarray:
    """A brand's lettering as RGBA (*shape, 4); the same brand always has the same style."""
    rng = stream("wordmark", brand)
    height, width = shape
    plate, letters, box, stroke = _lettered(brand, rng, shape=shape)
    plate_colour, fill, line = (inks[int(i)] for i in rng.permutation(len(inks))[:3])
    rgb = np.full((*shape, 3), plate_colour, np.float32)
    alpha = np.zeros(shape, np.float32)
    if plate != "none":
        box = min(round(box[0] / _ROOM * 1.05), height), min(round(box[1] / _ROOM * 1.05), width)
        alpha = _centred(plate_mask(plate, box), shape)
        if rng.random() < 0.5:
            rim = alpha - _thick(alpha, -max(height / 25, 1))
            blend(rgb, line, where=rim)
        ground = plate_colour
    if abs(luma(fill) - luma(ground)) < 0.25 and rng.random() < 0.92:
        fill = (1.0, 1.0, 1.0) if luma(ground) < 0.55 else (0.05, 0.05, 0.08)
    below: list[tuple[ndarray, Colour]] = []
    if rng.random() < 0.35:
        dx, dy = rng.uniform(-0.06, 0.06) * height, rng.uniform(0.02, 0.09) * height
        move = np.float32([[1, 0, dx], [0, 1, dy]])
        shadow = cv2.warpAffine(_thick(letters, stroke / 2), move, (width, height))
        if rng.random() < 0.5:
            shadow = cv2.GaussianBlur(shadow, (0, 0), 1.2)
        below.append((shadow, (0.0, 0.0, 0.0)))
    outlines = [(1.9, plate_colour), (1.0, line)]
    for grow, colour in outlines[int(rng.choice((0, 1, 2), p=(0.15, 0.4, 0.45))) :]:
        below.append((_thick(letters, grow * stroke), colour))
    for mask, colour in below:
        blend(rgb, colour, where=mask)
        alpha = np.maximum(alpha, mask)
    blend(rgb, _fill(fill, line, shape=shape, rng=rng), where=letters)
    return np.dstack((rgb, np.maximum(alpha, letters)))


def _lettered(brand: str, rng: Generator, *, shape: Shape) -> tuple[str, ndarray, Shape, float]:
    """The plate behind a wordmark, the mask of its letters, the shape of the box they are
    set in, and the width of their strokes, about, in pixels.
    """
    height, width = shape
    text, face = _dressed(brand, rng)
    lines = text.split("\n")
    mask = text_mask(text, face, size=int(np.clip(height * 0.9 / len(lines), 14, 60)))
    plate, bold = str(rng.choice(_PLATES)), rng.choice((0, 0, 0, 1, 2, -0.6))
    room = 1.0 if plate == "none" else _ROOM
    box_h, box_w = max(round(height * room), 6), max(round(width * room), 6)
    natural = mask.shape[1] / mask.shape[0] * rng.uniform(0.75, 1.3)
    if natural < box_w / box_h:
        box_w = max(round(box_h * natural), 6)
    else:
        box_h = min(max(round(box_w / natural * rng.uniform(1.0, 1.6)), 6), box_h)
    stroke = min(box_h / 22 / len(lines), box_w / 6 / max(map(len, lines)))
    mask = _thick(_warped(mask, rng, shape=(box_h, box_w)), bold * stroke / 2)
    return plate, _centred(mask, shape), (box_h, box_w), stroke


def _fill(first: Colour, second: Colour, *, shape: Shape, rng: Generator) -> ndarray:
    """What letters are filled with (*shape, 3): flat, a gradient, a split, stripes or chrome."""
    kinds = ("flat", "gradient", "split", "stripes", "chrome", "grain")
    kind = str(rng.choice(kinds, p=(0.66, 0.12, 0.06, 0.05, 0.06, 0.05)))
    _, y = grid(*shape)
    if kind == "grain":
        share = noise(rng, shape)
    else:
        share = {
            "flat": 0 * y,
            "gradient": 0.5 + 0.5 * y,
            "split": (y > 0) * 1.0,
            "stripes": (np.sin(24 * y) > 0.3) * 1.0,
            "chrome": 0.5 + 0.5 * np.sin(7 * y),
        }[kind]
    change = np.float32(second) - np.float32(first)
    return np.float32(first) + share[..., None].astype(np.float32) * change


def words(canvas: ndarray, text: str, *, box: Box, ink: Colour, face: str | Generator) -> None:
    """Set a text into a box of a canvas, as large as fits, in place; face: or its chance."""
    x0, y0, x1, y1 = box
    if x1 - x0 < 3 or y1 - y0 < 2:
        return
    face = face if isinstance(face, str) else str(face.choice(_FACES))
    mask = text_mask(text, face, size=int(np.clip(y1 - y0, 7, 40)))
    scale = min((x1 - x0) / mask.shape[1], (y1 - y0) / mask.shape[0])
    size = max(round(mask.shape[1] * scale), 1), max(round(mask.shape[0] * scale), 1)
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    mask = cv2.resize(mask, size, interpolation=smooth)
    paste(canvas, layer(ink, mask), at=((x0 + x1) / 2, (y0 + y1) / 2))


def small_print(canvas: ndarray, rng: Generator, *, box: Box, ink: Colour) -> None:
    """Lines of text too small to read: rows of dashes broken like words, in place."""
    x0, y0, x1, y1 = (round(v) for v in box)
    part = canvas[max(y0, 0) : y1, max(x0, 0) : x1]
    height, width = part.shape[:2]
    if height < 3 or width < 6:
        return
    rows = max(height // int(rng.integers(3, 6)), 1)
    lines = np.zeros((rows * 2, max(width // 2, 2)), np.float32)
    lines[::2] = rng.random((rows, lines.shape[1])) < 0.75
    mask = cv2.resize(lines, (width, height), interpolation=cv2.INTER_LINEAR)
    blend(part, ink, where=mask, opacity=float(rng.uniform(0.4, 0.9)))
