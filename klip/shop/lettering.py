"""Words on packs: wordmarks that are arched, slanted, outlined and shadowed, and plain or
small print.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from klip.shop.paint import Colour, blend, edge, grid, layer, luma, noise, paste, stream

_FACES = """DejaVuSans DejaVuSans-Bold DejaVuSans-Bold DejaVuSans-BoldOblique DejaVuSans-Oblique DejaVuSerif
DejaVuSerif-Bold DejaVuSerif-BoldItalic DejaVuSerif-Italic DejaVuSansMono-Bold STIXGeneral STIXGeneralBol
STIXGeneralBolIta STIXGeneralItalic cmb10 cmmi10 cmr10 cmss10 cmti10 cmtt10""".split()
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
_WARPS = ("none", "none", "none", "arch", "sag", "wave", "bulge", "pinch", "rise", "fan", "flag")
_OUTLINES = {
    # plate: how far the point (x, y), both -1..1, lies outside a plate that is `ratio`
    # times as wide as high
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


@lru_cache(maxsize=256)
def _font(face: str, size: int) -> ImageFont.FreeTypeFont:
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "shop lettering: the fonts that come with matplotlib are needed; install matplotlib"
        )
    file = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / f"{face}.ttf"
    return ImageFont.truetype(str(file), size, layout_engine=ImageFont.Layout.BASIC)


def text_mask(text: str, face: str, size: int) -> np.ndarray:
    """(height, width) mask 0..1 of a text of one or more lines, `size` pixels high, tightly
    cropped.
    """
    font = _font(face, size)
    measure = ImageDraw.Draw(Image.new("L", (1, 1)))
    x0, y0, x1, y1 = measure.multiline_textbbox((0, 0), text, font, spacing=1)
    image = Image.new("L", (max(int(x1 - x0) + 2, 2), max(int(y1 - y0) + 2, 2)))
    ImageDraw.Draw(image).multiline_text(
        (1 - x0, 1 - y0), text, 255, font, spacing=1, align="center"
    )
    return np.asarray(image, np.float32) / np.float32(255)


def _dressed(text: str, rng: np.random.Generator) -> tuple[str, str]:
    """The text in the letters of a face, and that face."""
    face = str(rng.choice(_FACES))
    case = rng.random()
    text = text.upper() if case < 0.45 else text.lower() if case < 0.6 else text
    if rng.random() < 0.24:
        upper, lower, face = _SCRIPTS[str(rng.choice(list(_SCRIPTS)))]
        text = "".join(
            chr((upper if c.isupper() else lower) + ord(c.lower()) - 97)
            if c.isascii() and c.isalpha()
            else c
            for c in text
        )
    if rng.random() < (0.45 if len(text) > 8 else 0.1) and len(text) > 4:
        text = text[: len(text) // 2] + "\n" + text[len(text) // 2 :]
    return text, face


def _warped(mask: np.ndarray, rng: np.random.Generator, aspect: float, height: int) -> np.ndarray:
    """A text mask bent, slanted and stretched onto (height, height * aspect); room is left
    around it.
    """
    width = max(round(height * aspect), 4)
    x, y = grid(height, width)
    kind, amount = str(rng.choice(_WARPS)), rng.uniform(0.2, 0.55)
    slant = rng.normal(0, 0.12) if rng.random() < 0.4 else 0.0
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


def _thick(mask: np.ndarray, radius: float) -> np.ndarray:
    """The mask grown (radius > 0) or thinned by a number of pixels."""
    step = round(abs(radius))
    if step < 1:
        return mask
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * step + 1, 2 * step + 1))
    return cv2.dilate(mask, kernel) if radius > 0 else cv2.erode(mask, kernel)


def plate_mask(kind: str, height: int, width: int) -> np.ndarray:
    """(height, width) mask of the field behind a text, `kind` being one of _OUTLINES."""
    return edge(_OUTLINES[kind](*grid(height, width), width / height), 3.0 / height)


def wordmark(brand: str, width: int, height: int, inks: list[Colour], ground: Colour) -> np.ndarray:
    """A brand's lettering as RGBA (height, width, 4); the same brand always has the same style."""
    rng = stream("wordmark", brand)
    text, face = _dressed(brand, rng)
    mask = text_mask(text, face, int(np.clip(height * 0.9 / (1 + text.count("\n")), 14, 60)))
    plate, bold = str(rng.choice(_PLATES)), rng.choice((0, 0, 0, 1, 2, -0.6))
    room = 1.0 if plate == "none" else 0.74
    box_h, box_w = max(round(height * room), 6), max(round(width * room), 6)
    natural = mask.shape[1] / mask.shape[0] * rng.uniform(0.75, 1.3)
    if natural < box_w / box_h:
        box_w = max(round(box_h * natural), 6)
    else:
        box_h = min(max(round(box_w / natural * rng.uniform(1.0, 1.6)), 6), box_h)
    stroke = min(box_h / 22 / (1 + text.count("\n")), box_w / 6 / max(map(len, text.split("\n"))))
    mask = _thick(_warped(mask, rng, box_w / box_h, box_h), bold * stroke / 2)
    full = np.zeros((height, width), np.float32)
    top, left = (height - mask.shape[0]) // 2, max((width - mask.shape[1]) // 2, 0)
    full[top : top + mask.shape[0], left : left + mask.shape[1]] = mask[:, : width - left]
    plate_colour, fill, line = (inks[int(i)] for i in rng.permutation(len(inks))[:3])
    out_rgb = np.full((height, width, 3), plate_colour, np.float32)
    alpha = np.zeros_like(full)
    if plate != "none":
        ph, pw = min(round(box_h / room * 1.05), height), min(round(box_w / room * 1.05), width)
        top, left = (height - ph) // 2, (width - pw) // 2
        alpha[top : top + ph, left : left + pw] = plate_mask(plate, ph, pw)
        if rng.random() < 0.5:
            blend(out_rgb, alpha - _thick(alpha, -max(height / 25, 1)), line)
        ground = plate_colour
    if abs(luma(fill) - luma(ground)) < 0.25 and rng.random() < 0.92:
        fill = (1.0, 1.0, 1.0) if luma(ground) < 0.55 else (0.05, 0.05, 0.08)
    layers: list[tuple[np.ndarray, Colour]] = []
    if rng.random() < 0.35:
        dx, dy = rng.uniform(-0.06, 0.06) * height, rng.uniform(0.02, 0.09) * height
        shadow = cv2.warpAffine(
            _thick(full, stroke / 2), np.float32([[1, 0, dx], [0, 1, dy]]), (width, height)
        )
        shadow = cv2.GaussianBlur(shadow, (0, 0), 1.2) if rng.random() < 0.5 else shadow
        layers.append((shadow, (0.0, 0.0, 0.0)))
    for grow in (1.9, 1.0)[int(rng.choice((0, 1, 2), p=(0.15, 0.4, 0.45))) :]:
        layers.append((_thick(full, grow * stroke), line if grow == 1.0 else plate_colour))
    for mask, colour in layers:
        blend(out_rgb, mask, colour)
        alpha = np.maximum(alpha, mask)
    blend(out_rgb, full, _fill(fill, line, height, width, rng))
    return np.dstack((out_rgb, np.maximum(alpha, full)))


def _fill(
    first: Colour, second: Colour, height: int, width: int, rng: np.random.Generator
) -> np.ndarray:
    """What letters are filled with (height, width, 3): flat, a gradient, a split, stripes
    or chrome.
    """
    kind = str(
        rng.choice(
            ("flat", "gradient", "split", "stripes", "chrome", "grain"),
            p=(0.66, 0.12, 0.06, 0.05, 0.06, 0.05),
        )
    )
    _, y = grid(height, width)
    if kind == "grain":
        share = noise(rng, height, width)
    else:
        share = {
            "flat": 0 * y,
            "gradient": 0.5 + 0.5 * y,
            "split": (y > 0) * 1.0,
            "stripes": (np.sin(24 * y) > 0.3) * 1.0,
            "chrome": 0.5 + 0.5 * np.sin(7 * y),
        }[kind]
    return np.float32(first) + share[..., None].astype(np.float32) * (
        np.float32(second) - np.float32(first)
    )


def words(
    canvas: np.ndarray,
    text: str,
    box: tuple[float, float, float, float],
    colour: Colour,
    rng: np.random.Generator,
    face: str | None = None,
) -> None:
    """Set a text into a box (x0, y0, x1, y1 in pixels) of a canvas, as large as fits, in place."""
    wide, high = box[2] - box[0], box[3] - box[1]
    if wide < 3 or high < 2:
        return
    mask = text_mask(
        text, face or str(rng.choice(_FACES)), int(np.clip(high / (1 + text.count("\n")), 7, 40))
    )
    scale = min(wide / mask.shape[1], high / mask.shape[0])
    size = max(round(mask.shape[1] * scale), 1), max(round(mask.shape[0] * scale), 1)
    mask = cv2.resize(mask, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    paste(canvas, layer(colour, mask), (box[0] + box[2]) / 2, (box[1] + box[3]) / 2)


def small_print(
    canvas: np.ndarray,
    box: tuple[float, float, float, float],
    colour: Colour,
    rng: np.random.Generator,
) -> None:
    """Lines of text too small to read: rows of dashes broken like words, in place."""
    x0, y0, x1, y1 = (round(v) for v in box)
    part = canvas[max(y0, 0) : y1, max(x0, 0) : x1]
    if part.shape[0] < 3 or part.shape[1] < 6:
        return
    rows = max(part.shape[0] // int(rng.integers(3, 6)), 1)
    lines = np.zeros((rows * 2, max(part.shape[1] // 2, 2)), np.float32)
    lines[::2] = rng.random((rows, lines.shape[1])) < 0.75
    mask = cv2.resize(lines, (part.shape[1], part.shape[0]), interpolation=cv2.INTER_LINEAR)
    blend(part, mask, colour, float(rng.uniform(0.4, 0.9)))
