"""Odd image files: what each holds, and what klip says of it; "" where its pixels are fine."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (24, 32, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)


def saved(picture=PICTURE, kind="JPEG", **how):
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()


JPEG, PNG = saved(quality=90), saved(kind="PNG")


def with_exif(body):
    """A JPEG whose EXIF block is `body`."""
    block = b"Exif\0\0" + body
    return JPEG[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + JPEG[2:]


def tags(*entries, order="<"):
    """A TIFF directory of (tag, type, count, value of 4 bytes)."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    rows = b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries)
    return head + struct.pack(order + "H", len(entries)) + rows + bytes(4)


TURNED = (0x0112, 3, 1, struct.pack("<HH", 6, 0))
GREY = np.linspace(0, 1, 24 * 32, dtype=np.float32).reshape(24, 32)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


def promising(width, height):
    """A PNG of a few bytes whose header promises so many pixels."""
    head = b"IHDR" + struct.pack(">II", width, height) + PNG[24:29]
    return PNG[:12] + head + struct.pack(">I", zlib.crc32(head)) + PNG[33:]


FILES = {
    # whole ones of every kind
    "plain.jpg": (JPEG, ""),
    "plain.png": (PNG, ""),
    "plain.JPG": (JPEG, ""),
    "plain.jfif": (JPEG, ""),
    "plain.jpe": (JPEG, ""),
    "plain.pjpeg": (JPEG, ""),
    "no_suffix": (JPEG, ""),
    "plain.webp": (saved(kind="WEBP"), ""),
    "plain.bmp": (saved(kind="BMP"), ""),
    "plain.gif": (saved(kind="GIF"), ""),
    "plain.avif": (saved(kind="AVIF"), ""),
    "plain.jp2": (saved(kind="JPEG2000"), ""),
    "plain.ppm": (saved(kind="PPM"), ""),
    "png_named.jpg": (PNG, ""),
    "progressive.jpg": (saved(progressive=True), ""),
    "cmyk.jpg": (saved(PICTURE.convert("CMYK")), ""),
    "grey.jpg": (saved(PICTURE.convert("L")), ""),
    "palette.png": (saved(PICTURE.quantize(8), "PNG"), ""),
    "clear_palette.png": (saved(PICTURE.quantize(8), "PNG", transparency=0), ""),
    "bits.png": (saved(PICTURE.convert("1"), "PNG"), ""),
    "la.png": (saved(PICTURE.convert("LA"), "PNG"), ""),
    "rgba.png": (saved(PICTURE.convert("RGBA"), "PNG"), ""),
    "sixteen.png": (saved(Image.fromarray((GREY * 65535).astype(np.uint16)), "PNG"), ""),
    "float_1.tif": (saved(Image.fromarray(GREY), "TIFF"), ""),
    "float_255.tif": (saved(Image.fromarray(GREY * 255), "TIFF"), ""),
    "int32.tif": (saved(Image.fromarray((GREY * 60000).astype(np.int32)), "TIFF"), ""),
    "int32_of_bytes.tif": (saved(Image.fromarray((GREY * 255).astype(np.int32)), "TIFF"), ""),
    "animated.gif": (
        saved(kind="GIF", save_all=True, append_images=[PICTURE.rotate(90), PICTURE]),
        "",
    ),
    "animated.webp": (saved(kind="WEBP", save_all=True, append_images=[PICTURE.rotate(90)]), ""),
    "two.mpo": (saved(kind="MPO", save_all=True, append_images=[PICTURE.rotate(90)]), ""),
    "pages.tif": (saved(kind="TIFF", save_all=True, append_images=[PICTURE]), ""),
    "lab.tif": (saved(PICTURE.convert("LAB"), "TIFF"), ""),
    "one_pixel.png": (saved(PICTURE.crop((0, 0, 1, 1)), "PNG"), ""),
    "one_row.png": (saved(PICTURE.resize((3000, 1)), "PNG"), ""),
    "one_column.png": (saved(PICTURE.resize((1, 3000)), "PNG"), ""),
    "wide.png": (saved(PICTURE.resize((30_000, 2)), "PNG"), ""),
    "icc.jpg": (saved(icc_profile=b"no profile at all"), ""),
    "comment.jpg": (saved(comment=b"\xff" * 500), ""),
    "bytes_behind.jpg": (JPEG + b"and more" * 100, ""),
    # EXIF of every damage: the pixels are fine
    "exif.jpg": (with_exif(tags(TURNED)), ""),
    "exif_big_endian.jpg": (
        with_exif(tags((0x0112, 3, 1, struct.pack(">HH", 6, 0)), order=">")),
        "",
    ),
    "exif_empty.jpg": (with_exif(b""), ""),
    "exif_noise.jpg": (with_exif(RNG.bytes(200)), ""),
    "exif_cut.jpg": (with_exif(tags(TURNED)[:13]), ""),
    "exif_loop.jpg": (with_exif(tags(TURNED)[:-4] + struct.pack("<I", 8)), ""),
    "exif_far.jpg": (with_exif(tags(TURNED, (0x011A, 5, 1, struct.pack("<I", 2**31)))), ""),
    "exif_short_resolution.jpg": (with_exif(tags(TURNED, (0x011A, 7, 2, b"\1\2\0\0"))), ""),
    "exif_text_orientation.jpg": (with_exif(tags((0x0112, 2, 4, b"six\0"))), ""),
    "exif_orientation_9.jpg": (with_exif(tags((0x0112, 3, 1, struct.pack("<HH", 9, 0)))), ""),
    "exif_many_entries.jpg": (with_exif(b"II*\0\x08\0\0\0\xff\xff" + bytes(100)), ""),
    "exif_unknown_type.jpg": (with_exif(tags(TURNED, (0x9999, 99, 1, bytes(4)))), ""),
    "exif.png": (saved(kind="PNG", exif=b"Exif\0\0" + tags(TURNED)), ""),
    "exif.webp": (saved(kind="WEBP", exif=b"Exif\0\0" + tags(TURNED)), ""),
    # what cannot be read
    "empty.jpg": (b"", "it is empty"),
    "start_only.jpg": (JPEG[:3], "cannot be read"),
    "half.jpg": (JPEG[: len(JPEG) // 2], "truncated"),
    "half.png": (PNG[: len(PNG) // 2], "cannot be read"),
    "header_only.png": (PNG[:33], "cannot be read"),
    "zeros.jpg": (bytes(1000), "cannot identify"),
    "text.jpg": (b"this is no image", "cannot identify"),
    "page.jpg": (b"<!DOCTYPE html><html></html>", "a web page"),
    "page_2.jpg": (b"<html><body>404</body></html>", "a web page"),
    "pointer.jpg": (LFS, "git lfs pull"),
    "drawing.png": (SVG, "SVG"),
    "photo.heic.jpg": (b"\0\0\0\x18ftypheic" + bytes(12), "HEIC"),
    "bomb.png": (promising(60_000, 60_000), "could be decompression bomb"),
    "huge.png": (promising(20_000, 20_000), "more than 256 million"),
    "checksum.png": (PNG[:40] + bytes([PNG[40] ^ 255]) + PNG[41:], "cannot be read"),
    "float_huge.tif": (saved(Image.fromarray(GREY * 1e6), "TIFF"), "accepted are fractions"),
    "float_nan.tif": (saved(Image.fromarray(GREY * np.nan), "TIFF"), "accepted are fractions"),
    "int32_huge.tif": (
        saved(Image.fromarray((GREY * 2e9).astype(np.int32)), "TIFF"),
        "accepted are 8 or 16 bits",
    ),
    "int32_below.tif": (
        saved(Image.fromarray((GREY * -5).astype(np.int32)), "TIFF"),
        "accepted are 8 or 16 bits",
    ),
    "half.webp": (saved(kind="WEBP")[:60], "cannot be read"),
    "document.jpg": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "cannot identify"),
    "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot identify"),
}
"""Name -> its bytes, and words of the sentence."""
