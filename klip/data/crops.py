"""Boxes of shelf photographs, cut out once and kept: a catalogue is a list of files."""

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from klip.data.images import read
from klip.settings import paths

SIDES = ["x1", "y1", "x2", "y2"]
VERSION = b"1"
"""Another number cuts anew: for a change of what is cut out of the same photograph."""


def cut(name: str, root: Path, path: Path, table: pd.DataFrame) -> list[str]:
    """Absolute paths of the crops, one a row of `table` (image below `root`, x1, y1, x2, y2
    as text).

    A box is in pixels of the photograph turned as its EXIF says, x2 and y2 not
    included, broken numbers rounded; what lies outside is cut off, no pixel left is an
    error.  The folder, named by a SHA-256 over boxes and photographs, is there whole or
    not at all.
    """
    for row, image in enumerate(table["image"], 1):
        if not (root / image).is_file():
            raise ValueError(
                f"{name}: row {row} of {path} has image {image!r}, accepted are photographs "
                f"below {root}"
            )
    corners = table[SIDES].apply(pd.to_numeric, errors="coerce").to_numpy(float)  # (boxes, 4)
    wrong = ~np.isfinite(corners).all(axis=1) | (corners[:, 2:] <= corners[:, :2]).any(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"{name}: row {row + 1} of {path} has box {_shown(table, row)}, accepted are "
            "numbers with x1 < x2 and y1 < y2"
        )
    digest = hashlib.sha256(VERSION + np.ascontiguousarray(corners).tobytes())
    digest.update("".join(image + "\0" for image in table["image"]).encode())
    for image in sorted(set(table["image"])):
        with (root / image).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    folder = paths.CACHE / "crops" / digest.hexdigest()[:16]
    if not folder.is_dir():
        table = table.reset_index(drop=True)
        pixels = corners.round().clip(-(2**31), 2**31).astype(int)
        _write(name, root, path, table, pixels, folder)
    return [(folder / f"{row:07}.png").as_posix() for row in range(1, len(table) + 1)]


def _write(
    name: str, root: Path, path: Path, table: pd.DataFrame, corners: np.ndarray, folder: Path
) -> None:
    """Fill a folder beside the place, and put it there when it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as work:
        whole = Path(work, "whole")
        whole.mkdir()
        for image, rows in table.groupby("image").groups.items():
            photograph = read(root / image)
            for row in rows:
                left, top, right, bottom = corners[row].clip(0)
                crop = photograph[top:bottom, left:right]
                if not crop.size:
                    height, width = photograph.shape[:2]
                    raise ValueError(
                        f"{name}: row {row + 1} of {path} has box {_shown(table, row)}, "
                        f"which has no pixel of {image} ({width} x {height})"
                    )
                Image.fromarray(crop).save(whole / f"{row + 1:07}.png", compress_level=1)
        try:
            os.replace(whole, folder)
        except OSError:
            if not folder.is_dir():  # else another process was quicker
                raise


def _shown(table: pd.DataFrame, row: int) -> str:
    return ", ".join(table[side].iat[row] for side in SIDES)
