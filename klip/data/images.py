"""Images on disk, and reading one: the pixels that everything else works on.

An image is a file, or a part of a tar file, FILE.tar@OFFSET+SIZE (`shards`).
"""

import io
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
INSIDE = re.compile(r"(?P<tar>.+\.tar)@(?P<offset>\d+)\+(?P<size>\d+)")


def file_of(path: str | Path) -> Path:
    """The file that holds an image."""
    inside = INSIDE.fullmatch(str(path))
    return Path(inside["tar"] if inside else path)


def files_in(folder: str | Path) -> set[str]:
    """Names of the files in a folder, by one look at it; none if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def missing(root: Path, images: Iterable[str]) -> list[str]:
    """Those of the images below `root` that are no file, in order."""
    files = [str(file_of(image)) if ".tar@" in image else image for image in images]
    of_folder = defaultdict[str, list[str]](list)
    for file in files:
        head, slash, _ = file.rpartition("/")
        of_folder[head + slash].append(file)
    lost = set()
    for folder, own in of_folder.items():
        # To list a folder is quicker than to ask for more than eight files in it.
        listed = files_in(root / folder) if len(own) > 8 else set()
        unlisted = [file for file in own if file.removeprefix(folder) not in listed]
        # Asked all the same: a file system may be lax about how a name is written.
        lost.update(file for file in unlisted if not Path(root, file).is_file())
    return [image for image, file in zip(images, files, strict=True) if file in lost]


def content(path: str | Path) -> bytes:
    """The bytes of an image, as they are stored; OSError if they cannot be had."""
    inside = INSIDE.fullmatch(str(path))
    if not inside:
        return Path(path).read_bytes()
    with open(inside["tar"], "rb") as file:
        file.seek(int(inside["offset"]))
        return file.read(int(inside["size"]))


def opened(path: str | Path) -> Image.Image:
    """An image whose pixels are not decoded yet, to be used in `with`."""
    return Image.open(io.BytesIO(content(path)) if INSIDE.fullmatch(str(path)) else path)


def read(path: str | Path, at_least: int = 0) -> np.ndarray:
    """An image as RGB, uint8 (H, W, 3): turned as its EXIF says, what is transparent on white.

    at_least: S > 0 lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its sides, the smallest
    whose short side still has 2 * S pixels: quick, but other pixels than those of the
    whole image.  0, and every other format: the whole image.
    """
    if not file_of(path).is_file():
        raise FileNotFoundError(f"image {path}: there is no such file")
    try:
        with opened(path) as image:
            if at_least > 0:  # twice: what is left to shrink still averages over the pixels
                image.draft(None, (2 * at_least, 2 * at_least))
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode.startswith("I"):  # 16 bits
                image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).split("'")[0].split("<")[0].strip() or type(error).__name__
        raise ValueError(f"image {path}: cannot be read ({reason})") from None


def area(path: Path) -> int:
    """Pixels of an image, from its header; 0 if it cannot be read."""
    try:
        with opened(path) as image:
            return image.width * image.height
    except OSError:
        return 0
