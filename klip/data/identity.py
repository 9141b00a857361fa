"""Images that are one picture under two names: of one size, and then of one SHA-256."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from klip.data.images import INSIDE, content

if TYPE_CHECKING:
    from klip.data.catalogue import Catalogue


def digests(files: Sequence[Path]) -> np.ndarray:
    """Of each file something that equal files have in common, and no others, (N,) of str;
    what cannot be read is equal to nothing."""
    sizes = [_size(file) for file in files]
    often = Counter(sizes)
    found = []
    for place, (file, size) in enumerate(zip(files, sizes, strict=True)):
        if size < 0 or often[size] == 1:
            found.append(str(place))
            continue
        try:
            found.append(hashlib.sha256(content(file)).hexdigest())
        except OSError:
            found.append(str(place))
    return np.array(found, object)


def copies(catalogue: Catalogue) -> pd.DataFrame:
    """Images with an earlier twin of another product: image, product, twin, twin_product."""
    frame = catalogue.frame[["image", "product"]].assign(digest=digests(catalogue.files))
    first = frame.drop_duplicates("digest").set_index("digest")
    frame["twin"] = frame["digest"].map(first["image"])
    frame["twin_product"] = frame["digest"].map(first["product"])
    wrong = frame["product"] != frame["twin_product"]
    return frame[wrong].drop(columns="digest").reset_index(drop=True)


def shown(gallery: Catalogue, queries: Catalogue) -> np.ndarray:
    """Which queries (Q,) are the very file of a packshot: to recognise them proves nothing."""
    found = digests([*gallery.files, *queries.files])
    return np.isin(found[len(gallery) :], found[: len(gallery)])


def _size(file: Path) -> int:
    inside = INSIDE.fullmatch(str(file))
    if inside:
        return int(inside["size"])
    try:
        return file.stat().st_size
    except OSError:
        return -1
