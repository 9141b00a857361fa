"""Boxes of shelf photographs, cut out once and kept: a catalogue is a list of files."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from klip.data.images import read
from klip.data.lists import ListFile
from klip.settings import paths
from klip.settings.files import whole_folder

SIDES = ["x1", "y1", "x2", "y2"]
BOX = "has box {x1}, {y1}, {x2}, {y2}, "
VERSION = b"1"
"""Another number cuts anew: for a change of what is cut out of the same photograph."""


def cut(boxes: ListFile) -> list[str]:
    """Absolute paths of the crops, one a row of the list (image, x1, y1, x2, y2).

    A box is in pixels of the photograph turned as its EXIF says, x2 and y2 not
    included, broken numbers rounded; what lies outside is cut off, no pixel left is an
    error.  The folder, named by a SHA-256 over boxes and photographs, is there whole or
    not at all.
    """
    table = boxes.table
    images = sorted(set(table["image"]))
    lost = [image for image in images if not (boxes.root / image).is_file()]
    corners = table[SIDES].apply(pd.to_numeric, errors="coerce").to_numpy(float)  # (boxes, 4)
    numbers = np.isfinite(corners).all(axis=1)
    turned = (corners[:, 2:] <= corners[:, :2]).any(axis=1)
    boxes.refuse(
        {
            "has image {image!r}, accepted are photographs below {root}": table["image"].isin(lost),
            BOX + "accepted are numbers with x1 < x2 and y1 < y2": ~numbers | turned,
        }
    )
    digest = hashlib.sha256(VERSION + np.ascontiguousarray(corners).tobytes())
    digest.update("".join(image + "\0" for image in table["image"]).encode())
    for image in images:
        with (boxes.root / image).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    folder = paths.CACHE / "crops" / digest.hexdigest()[:16]
    if not folder.is_dir():
        _write(folder, boxes, corners=corners.round().clip(0, 2**31).astype(int))
    return [(folder / f"{row:07}.png").as_posix() for row in range(1, len(table) + 1)]


def _write(folder: Path, boxes: ListFile, *, corners: np.ndarray) -> None:
    """Fill a folder beside the place, and put it there when it is whole."""
    with whole_folder(folder) as whole:
        for image, rows in boxes.table.groupby("image").indices.items():
            photograph = read(boxes.root / image)
            height, width = photograph.shape[:2]
            for row in rows:
                left, top, right, bottom = corners[row]
                crop = photograph[top:bottom, left:right]
                if not crop.size:
                    problem = f"which has no pixel of {{image}} ({width} x {height})"
                    raise boxes.complaint(row, BOX + problem)
                Image.fromarray(crop).save(whole / f"{row + 1:07}.png", compress_level=1)
