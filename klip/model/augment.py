"""From an image (uint8 RGB) to what the encoder sees: the plain view of evaluation, training views, gallery views.

Assumption (A): the paper says that it augments (§4.1.3, §4.2), not how; these transforms imitate what a shop does to a
packshot.  No mirror images: packages carry text.  A training sample's generator is
`np.random.default_rng((seed, epoch, index))`, so the number of workers changes nothing.  S = preprocess.size.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, get_args

import cv2
import numpy as np
from PIL import Image

from klip.settings.config import Interpolation, Resize

cv2.setNumThreads(
    0
)  # images are small: threads cost more than they give, and fork badly into loader workers

VIEW_STRENGTH = 0.5
"""Gallery views are this fraction as strong as training views (A)."""


@dataclass(frozen=True)
class Preprocess:
    """How a tower wants its pixels; stored with its weights.  `resize` decides what an oblong image becomes:

    squash: the whole image, stretched to S x S; pad: the whole image, true to shape, on the mean colour;
    crop: short side to S, then the centre (CLIP's default: cuts tall bottles).
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: Resize = "squash"
    interpolation: Interpolation = "bicubic"

    def __post_init__(self) -> None:
        if (
            self.size < 1
            or self.resize not in get_args(Resize)
            or len(self.mean) != 3
            or min(self.std) <= 0
            or self.interpolation not in get_args(Interpolation)
        ):
            raise ValueError(
                f"preprocess: wants a size of at least 1, 3 means, 3 positive deviations, resize "
                f"{', '.join(get_args(Resize))} and interpolation {', '.join(get_args(Interpolation))}, "
                f"got {asdict(self)}"
            )
        object.__setattr__(self, "mean", tuple(map(float, self.mean)))
        object.__setattr__(self, "std", tuple(map(float, self.std)))

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, strings and numbers, ready for JSON; `bicubic` is left out, as in files older than that word."""
        facts = {**asdict(self), "mean": list(self.mean), "std": list(self.std)}
        return {
            name: value
            for name, value in facts.items()
            if (name, value) != ("interpolation", "bicubic")
        }

    @property
    def fill(self) -> tuple[int, int, int]:
        """The mean colour, 0 to 255, on which `pad` puts an image."""
        return tuple(round(255 * value) for value in self.mean)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocess:
        """The inverse of `to_dict`."""
        return cls(**values)


def evaluation(image: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """The plain view, float32 (3, S, S): antialiased, that of open_clip's own transform, the same bits every time."""
    size, picture = preprocess.size, Image.fromarray(_checked(image))
    width, height = picture.size
    how = Image.Resampling[preprocess.interpolation.upper()]
    if preprocess.resize == "squash":
        view = picture.resize((size, size), how)
    elif preprocess.resize == "crop":
        short = min(
            width, height
        )  # sizes and offsets rounded as torchvision's Resize and CenterCrop do
        width, height = size * width // short, size * height // short
        left, top = round((width - size) / 2), round((height - size) / 2)
        view = picture.resize((width, height), how).crop((left, top, left + size, top + size))
    else:
        ratio = max(width, height) / size
        inner = max(1, round(width / ratio)), max(1, round(height / ratio))
        view = padded(np.asarray(picture.resize(inner, how)), preprocess)
    return _normalised(np.asarray(view), preprocess)


def training(
    image: np.ndarray, preprocess: Preprocess, rng: np.random.Generator, strength: float = 1.0
) -> np.ndarray:
    """A randomly changed view, float32 (3, S, S).  Strength 0 is the plain view, 2 the most."""
    if not 0 <= strength <= 2:
        raise ValueError(f"augmentation: strength must lie between 0 and 2, got {strength!r}")
    if strength == 0:
        return evaluation(image, preprocess)
    view = _light(_geometry(_checked(image), preprocess, rng, strength), rng, strength)
    return _normalised(padded(_camera(view, rng, strength), preprocess), preprocess)


def views(image: np.ndarray, preprocess: Preprocess, k: int, seed: int) -> np.ndarray:
    """K gallery views, float32 (K, 3, S, S): the plain one, then mild training views (paper §4.2).

    The first views do not depend on K, nor on other images: a product added later is treated like the rest.
    """
    if k < 1:
        raise ValueError(f"gallery views: at least 1 per packshot, got {k!r}")
    mild = [
        training(image, preprocess, np.random.default_rng((seed, view)), VIEW_STRENGTH)
        for view in range(1, k)
    ]
    return np.stack([evaluation(image, preprocess), *mild])


def _geometry(
    image: np.ndarray, preprocess: Preprocess, rng: np.random.Generator, strength: float
) -> np.ndarray:
    """Crop, rotation and perspective as one warp: uint8 (S, S, 3), or for `pad` the part inside."""
    size, (height, width) = preprocess.size, image.shape[:2]
    scale, stretch = rng.uniform(0.4**strength, 1), np.exp(rng.uniform(-0.2, 0.2) * strength)
    if preprocess.resize == "crop":
        sides = np.sqrt(scale * width * height) * np.array([stretch, 1 / stretch]) ** 0.5
        sides = np.minimum(sides, min(width, height))
    else:
        sides = np.minimum(np.sqrt(scale * np.array([stretch, 1 / stretch])), 1) * (width, height)
    centre = sides / 2 + rng.random(2) * ((width, height) - sides)
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    corners = (corners + rng.uniform(-0.06, 0.06, (4, 2)) * strength) * sides
    turn = np.radians(np.clip(rng.normal(0, 4), -12, 12) * strength)
    quad = corners @ [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]] + centre
    inner, aspect = (size, size), sides[0] / sides[1]
    if preprocess.resize == "pad":
        inner = max(1, round(size * min(1, aspect))), max(1, round(size * min(1, 1 / aspect)))

    low = np.clip(np.floor(quad.min(axis=0)), 0, (width - 1, height - 1)).astype(int)
    high = np.clip(np.ceil(quad.max(axis=0)), low + 1, (width, height)).astype(int)
    patch = image[low[1] : high[1], low[0] : high[0]]
    shrink = np.minimum(
        1, np.array(inner) / sides
    )  # shrink by averaging first: a warp alone would alias
    if shrink.min() < 0.8:
        small = np.maximum(1, np.round((high - low) * shrink)).astype(int)
        shrink, patch = (
            small / (high - low),
            cv2.resize(patch, small.tolist(), interpolation=cv2.INTER_AREA),
        )
    else:
        shrink = np.ones(2)
    target = (
        np.array([[0, 0], [inner[0], 0], [inner[0], inner[1]], [0, inner[1]]], np.float32) - 0.5
    )
    source = ((quad - low) * shrink - 0.5).astype(np.float32)
    warp = cv2.getPerspectiveTransform(source, target)
    return cv2.warpPerspective(
        patch, warp, inner, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )


def _light(view: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Dim or harsh light, its colour, faded print: one table per channel, then saturation."""
    gain = np.exp(rng.uniform(-0.9, 0.25) * strength) * np.exp(rng.normal(0, 0.08, 3) * strength)
    gamma, lift = np.exp(rng.uniform(-0.35, 0.35) * strength), rng.uniform(0, 0.15) * strength
    level = (np.linspace(0, 1, 256)[:, None] ** gamma * (1 - lift) + lift) * gain
    view = cv2.LUT(view, (level.clip(0, 1) * 255).round().astype(np.uint8)[None])
    grey = cv2.cvtColor(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    colour = 1 + rng.uniform(-0.4, 0.25) * strength
    return cv2.addWeighted(view, colour, grey, 1 - colour, 0)


def _camera(view: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """What stands before the lens, the lens, the distance, the sensor, the file: each at times."""
    frame = np.array(view.shape[1::-1])
    likely = np.array([0.5, 0.4, 0.4, 0.3, 0.3]) * strength - [0.25, 0, 0, 0, 0]
    erase, blur, far, noise, jpeg = rng.random(5) < likely
    if erase:  # never in gallery views, for these have at most strength 0.5
        sides = (
            np.sqrt(rng.uniform(0.02, 0.2) * np.exp(rng.uniform(-1, 1) * np.array([1, -1]))) * frame
        )
        left, top = (rng.random(2) * frame - sides / 2).astype(int)
        box = (
            slice(max(0, top), top + int(sides[1]) + 1),
            slice(max(0, left), left + int(sides[0]) + 1),
        )
        view[box] = rng.integers(0, 256, 3)
    if blur:
        spread = rng.uniform(0.3, 2.0) * strength * frame.max() / 96
        if rng.random() < 0.3:  # a moving camera
            length = max(3, int(3 * spread) | 1)
            line = np.zeros((length, length), np.float32)
            cv2.line(
                line, (0, int(rng.integers(length))), (length - 1, int(rng.integers(length))), 1.0
            )
            view = cv2.filter2D(view, -1, line / line.sum())
        else:
            view = cv2.GaussianBlur(view, (0, 0), spread)
    if far:
        small = np.maximum(1, np.round(frame * rng.uniform(0.25, 0.9) ** strength)).astype(int)
        view = cv2.resize(view, small.tolist(), interpolation=cv2.INTER_AREA)
        again = (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[rng.integers(2)]
        view = cv2.resize(view, frame.tolist(), interpolation=again)
    if noise:
        grain = rng.standard_normal(view.shape, np.float32) * (rng.uniform(2, 12) * strength)
        view = (view + grain).clip(0, 255).astype(np.uint8)
    if jpeg:
        quality = int(100 - rng.uniform(10, 40 + 20 * strength))
        file = cv2.imencode(".jpg", view, (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
        view = cv2.imdecode(file, cv2.IMREAD_COLOR)
    return view


def padded(view: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """A view (h, w, 3) in the middle of a square (S, S, 3) of the mean colour, 0 after normalisation."""
    size, (height, width) = preprocess.size, view.shape[:2]
    top, left = (size - height) // 2, (size - width) // 2
    edges = top, size - height - top, left, size - width - left
    return cv2.copyMakeBorder(view, *edges, cv2.BORDER_CONSTANT, value=preprocess.fill)


def _normalised(view: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    pixels = np.ascontiguousarray(view.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
    return (pixels - np.float32(preprocess.mean)[:, None, None]) / np.float32(preprocess.std)[
        :, None, None
    ]


def _checked(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image: wants uint8 (height, width, 3), got {image.dtype} {image.shape}")
    return image
