"""From an image (uint8 RGB) to what the encoder sees: the plain view, or a random one.

Assumption (A): the paper says that it augments (§4.1.3, §4.2), not how; these
transforms imitate what a shop does to a packshot.  No mirror images: packages carry
text.  A training sample's generator is `np.random.default_rng((seed, epoch, index))`,
so the number of workers changes nothing.  S = preprocess.size.
"""

from typing import Any, ClassVar

import cv2
import numpy as np
from PIL import Image
from torchvision.transforms.functional import InterpolationMode, center_crop, resize

from klip.settings.checked import Checked
from klip.settings.config import Count, Interpolation, Positive, Resize

# images are small: threads cost more than they give, and fork badly into loader workers
cv2.setNumThreads(0)

VIEW_STRENGTH = 0.5
"""Gallery views are this fraction as strong as training views (A)."""


class Preprocess(Checked):
    """How a tower wants its pixels; stored with its weights.  An oblong image becomes by

    squash: all of it, stretched to S x S; pad: all of it, true to shape, on the mean
    colour; crop: short side to S, then the centre (CLIP's default: cuts tall bottles).
    """

    called: ClassVar[str] = "preprocess"
    size: Count
    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]
    resize: Resize = "squash"
    interpolation: Interpolation = "bicubic"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; `bicubic` is left out, as in files older than that word.
        `Preprocess(**facts)` is the way back."""
        old = {"interpolation"} if self.interpolation == "bicubic" else None
        return self.model_dump(mode="json", exclude=old)

    @property
    def fill(self) -> tuple[int, int, int]:
        """The mean colour, 0 to 255, on which `pad` puts an image."""
        return tuple(round(255 * value) for value in self.mean)


def evaluation(image: np.ndarray | Image.Image, preprocess: Preprocess) -> np.ndarray:
    """The plain view, float32 (3, S, S), antialiased: that of open_clip's transform."""
    return normalised(plain(image, preprocess), preprocess)


def plain(image: np.ndarray | Image.Image, preprocess: Preprocess) -> np.ndarray:
    """The plain view in its colours, uint8 (S, S, 3)."""
    size, picture = preprocess.size, image
    if not isinstance(image, Image.Image):
        picture = Image.fromarray(_checked(image))
    how = InterpolationMode(preprocess.interpolation)
    if preprocess.resize == "squash":
        return np.asarray(resize(picture, [size, size], how))
    if preprocess.resize == "crop":
        return np.asarray(center_crop(resize(picture, [size], how), [size]))
    # open_clip's own cannot pad an image that would be less than a pixel wide
    ratio = max(picture.size) / size
    width, height = (max(1, round(side / ratio)) for side in picture.size)
    return padded(np.asarray(resize(picture, [height, width], how)), preprocess)


def training(
    image: np.ndarray, preprocess: Preprocess, *, rng: np.random.Generator, strength: float = 1.0
) -> np.ndarray:
    """A randomly changed view, float32 (3, S, S); strength 0: the plain view, 2: the most."""
    if strength == 0:
        return evaluation(image, preprocess)
    view = _geometry(_checked(image), preprocess, rng=rng, strength=strength)
    view = _camera(_light(view, rng, strength=strength), rng, strength=strength)
    return normalised(padded(view, preprocess), preprocess)


def views(
    image: np.ndarray | Image.Image, preprocess: Preprocess, *, k: int, seed: int
) -> np.ndarray:
    """K gallery views (§4.2), float32 (K, 3, S, S): the plain one, then mild random ones.
    The first views do not depend on K, nor on other images."""
    made = [evaluation(image, preprocess)]
    pixels = np.array(image) if k > 1 else None
    for view in range(1, k):
        rng = np.random.default_rng((seed, view))
        made.append(training(pixels, preprocess, rng=rng, strength=VIEW_STRENGTH))
    return np.stack(made)


def _geometry(
    image: np.ndarray, preprocess: Preprocess, *, rng: np.random.Generator, strength: float
) -> np.ndarray:
    """Crop, turn and perspective as one warp: uint8 (S, S, 3), for `pad` the part inside."""
    size, (height, width) = preprocess.size, image.shape[:2]
    # of the image: the share of its area, and the shape of the cut
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
    return _warped(image, quad, sides=sides, inner=inner)


def _warped(
    image: np.ndarray, quad: np.ndarray, *, sides: np.ndarray, inner: tuple[int, int]
) -> np.ndarray:
    """What lies in the corners `quad` (4, 2), about `sides` large, as (inner[1], inner[0], 3)."""
    height, width = image.shape[:2]
    low = np.clip(np.floor(quad.min(axis=0)), 0, (width - 1, height - 1)).astype(int)
    high = np.clip(np.ceil(quad.max(axis=0)), low + 1, (width, height)).astype(int)
    patch, small = image[low[1] : high[1], low[0] : high[0]], high - low
    shrink = np.minimum(1, np.array(inner) / sides)
    if shrink.min() < 0.8:  # by averaging first: a warp alone would alias
        small = np.maximum(1, np.round((high - low) * shrink)).astype(int)
        patch = cv2.resize(patch, small.tolist(), interpolation=cv2.INTER_AREA)
    shrink = small / (high - low)
    right, bottom = inner
    target = np.array([[0, 0], [right, 0], [right, bottom], [0, bottom]], np.float32) - 0.5
    source = ((quad - low) * shrink - 0.5).astype(np.float32)
    warp = cv2.getPerspectiveTransform(source, target)
    return cv2.warpPerspective(patch, warp, inner, None, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)


def _light(view: np.ndarray, rng: np.random.Generator, *, strength: float) -> np.ndarray:
    """Light, its colour, faded print: one table per channel; then saturation."""
    gain = np.exp(rng.uniform(-0.9, 0.25) * strength) * np.exp(rng.normal(0, 0.08, 3) * strength)
    gamma, lift = np.exp(rng.uniform(-0.35, 0.35) * strength), rng.uniform(0, 0.15) * strength
    level = (np.linspace(0, 1, 256)[:, None] ** gamma * (1 - lift) + lift) * gain
    view = cv2.LUT(view, (level.clip(0, 1) * 255).round().astype(np.uint8)[None])
    grey = cv2.cvtColor(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    colour = 1 + rng.uniform(-0.4, 0.25) * strength
    return cv2.addWeighted(view, colour, grey, 1 - colour, 0)


def _camera(view: np.ndarray, rng: np.random.Generator, *, strength: float) -> np.ndarray:
    """What is before the lens, the lens, the distance, the sensor, the file: each at times."""
    frame = np.array(view.shape[1::-1])
    likely = np.array([0.5, 0.4, 0.4, 0.3, 0.3]) * strength - [0.25, 0, 0, 0, 0]
    erase, blur, far, noise, jpeg = rng.random(5) < likely
    if erase:  # never in gallery views, for these have at most strength 0.5
        share, stretch = rng.uniform(0.02, 0.2), rng.uniform(-1, 1)
        width, height = np.sqrt(share * np.exp(stretch * np.array([1, -1]))) * frame
        left, top = (rng.random(2) * frame - np.array([width, height]) / 2).astype(int)
        bottom, right = top + int(height) + 1, left + int(width) + 1
        view[max(0, top) : bottom, max(0, left) : right] = rng.integers(0, 256, 3)
    if blur:
        spread = rng.uniform(0.3, 2.0) * strength * frame.max() / 96
        if rng.random() < 0.3:  # a moving camera
            length = max(3, int(3 * spread) | 1)
            line = np.zeros((length, length), np.float32)
            start, end = int(rng.integers(length)), int(rng.integers(length))
            cv2.line(line, (0, start), (length - 1, end), 1.0)
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
    """A view (h, w, 3) in the middle of a square (S, S, 3) of the mean colour."""
    size, (height, width) = preprocess.size, view.shape[:2]
    top, left = (size - height) // 2, (size - width) // 2
    edges = top, size - height - top, left, size - width - left
    return cv2.copyMakeBorder(view, *edges, cv2.BORDER_CONSTANT, value=preprocess.fill)


def normalised(view: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """A view as a network wants it: uint8 (S, S, 3) to float32 (3, S, S)."""
    pixels = np.ascontiguousarray(view.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)
    mean, std = np.float32(preprocess.mean), np.float32(preprocess.std)
    return (pixels - mean[:, None, None]) / std[:, None, None]


def _checked(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"image: wants uint8 (height, width, 3), got {image.dtype} {image.shape}")
    return image
