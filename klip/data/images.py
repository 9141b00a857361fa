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
from PIL import Image

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM")
"""Pillow's names of what is read: pictures, and nothing that another program would draw."""
IMAGES = set(
    ".apng .avif .avifs .bmp .dib .gif .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .mpo "
    ".pbm .pfm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)
"""Their suffixes; a file without one of these is looked into (`kind`)."""
MOST = 256_000_000
"""Pixels of the largest image that is read: a telephone's 200 megapixels, but no bomb."""
STARTS = {
    b"\xff\xd8\xff": "",
    b"\x89PNG\r\n": "",
    b"GIF8": "",
    b"II*\0": "",
    b"MM\0*": "",
    b"version https://git-lfs": "a Git LFS pointer in place of an image; run `git lfs pull`",
    b"<!": "a web page in place of an image: a download that went wrong",
    b"<h": "a web page in place of an image: a download that went wrong",
    b"<s": "a drawing (SVG), no photograph; save it as PNG",
}
"""First bytes -> why a file cannot be read as an image; "": it is one."""
BRANDS = {
    b"avif": "",
    b"avis": "",
    b"heic": "a HEIC file, which Pillow cannot read; save it as JPEG",
    b"heix": "a HEIC file, which Pillow cannot read; save it as JPEG",
    b"mif1": "a HEIF file, which Pillow cannot read; save it as JPEG",
}
"""Of files that say `ftyp` in their bytes 4 to 8 the brand behind it, in the same way."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Orientation of EXIF -> what puts an image upright."""
ORIENTATION = 0x0112
INSIDE = re.compile(r"(?P<tar>.+\.tar)@(?P<offset>\d+)\+(?P<size>\d+)")

if Image.MAX_IMAGE_PIXELS:  # Pillow warns from there on, and refuses twice as many; `read` is first
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, 2 * MOST)


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


def kind(start: bytes) -> str | None:
    """What the first bytes of a file say: "" an image, None nothing that is known, else
    why it cannot be read."""
    if start[4:8] == b"ftyp":
        return BRANDS.get(start[8:12])
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP" or start[4:8] == b"jP  ":
        return ""
    found = [why for first, why in STARTS.items() if start.lower().startswith(first.lower())]
    return found[0] if found else None


def opened(path: str | Path) -> Image.Image:
    """An image whose pixels are not decoded yet, to be used in `with`; one of FORMATS."""
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    inside = INSIDE.fullmatch(str(path))
    return Image.open(io.BytesIO(content(path)) if inside else path, formats=formats)


def read(path: str | Path, at_least: int = 0) -> np.ndarray:
    """The pixels of a `picture`, uint8 (H, W, 3)."""
    return np.array(picture(path, at_least))


def picture(path: str | Path, at_least: int = 0) -> Image.Image:
    """An image as RGB of 8 bits: turned as its EXIF says, what is transparent on white, the
    first of several pictures, the upper 8 of 16 bits.

    at_least: P > 0 lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its sides, the smallest
    whose short side still has P pixels: quick, but other pixels than those of the whole
    image.  0, and every other format: the whole image.
    FileNotFoundError: there is none.  ValueError: it cannot be read, and why.
    """
    if not file_of(path).is_file():
        raise FileNotFoundError(f"image {path}: there is no such file")
    try:
        with opened(path) as image:
            if image.width * image.height > MOST:
                sides = f"{image.width} x {image.height} pixels"
                raise ValueError(f"{sides}, more than {MOST // 10**6} million")
            if at_least > 0:
                image.draft(None, (at_least, at_least))
            shown = _rgb(_upright(image))
            shown.load()  # before its file is closed
            return shown
    except Exception as error:  # a damaged file leads Pillow's decoders into any of them
        raise ValueError(f"image {path}: {_why(path, error)}") from None


def _why(path: str | Path, error: Exception) -> str:
    """The end of a sentence on what cannot be read."""
    try:
        start = content(path)[:32]
    except (OSError, MemoryError) as gone:
        return f"cannot be read ({gone.strerror if isinstance(gone, OSError) else 'too large'})"
    if not start:
        return "cannot be read (it is empty)"
    known = kind(start)
    reason = known or str(error).split("'")[0].split("<")[0].strip() or type(error).__name__
    return f"cannot be read ({reason})"


def _upright(image: Image.Image) -> Image.Image:
    """Turned as the EXIF says; as it is where the EXIF is damaged, for its pixels are not."""
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION))
    except Exception:  # any, see `read`
        turn = None
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    """In 8 bits, of three colours, on white."""
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_in_bytes(np.asarray(image), wide=image.format != "TIFF"))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _in_bytes(values: np.ndarray, *, wide: bool) -> np.ndarray:
    """Grey values (H, W) as uint8: 16 bits by their upper half, fractions from 0 to 1 times
    255.  wide: do whole numbers up to 255 stand for 16 dark bits?  ValueError: others."""
    low, high = values.min(), values.max()
    if values.dtype.kind == "u":  # 16 bits, in either order of bytes
        return (values >> 8).astype(np.uint8)
    if np.issubdtype(values.dtype, np.floating):
        if 0 <= low and high <= 255:  # also false for nan
            return (values * (255 if high <= 1 else 1)).round().astype(np.uint8)
        accepted = "fractions from 0 to 1, or 0 to 255"
    else:
        if low >= 0 and high <= 65535:
            return (values >> 8 if wide or high > 255 else values).astype(np.uint8)
        accepted = "8 or 16 bits, 0 to 65535"
    raise ValueError(f"grey values from {low:g} to {high:g}; accepted are {accepted}")


def area(path: Path) -> int:
    """Pixels of an image, from its header; 0 if it cannot be read."""
    try:
        with opened(path) as image:
            return image.width * image.height
    except Exception:  # any, see `read`
        return 0
