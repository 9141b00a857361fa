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


def no_question(gallery: Catalogue, queries: Catalogue) -> np.ndarray:
    """Of each query (Q,) why its answer proves nothing; "" for the others."""
    found = digests([*gallery.files, *queries.files])
    products = pd.concat([gallery["product"], queries["product"]])
    several = products.groupby(found).transform("nunique").to_numpy() > 1
    packshots, asked = found[: len(gallery)], found[len(gallery) :]
    told_apart = gallery["product"][~several[: len(gallery)]]
    reasons = {
        "the very file of a packshot": np.isin(asked, packshots),
        "the very file of another product's query": several[len(gallery) :],
        "of a product whose packshot is the very file of another's": queries["product"].isin(
            set(gallery["product"]) - set(told_apart)
        ),
    }
    return np.select(list(reasons.values()), list(reasons), "")


def _size(file: Path) -> int:
    inside = INSIDE.fullmatch(str(file))
    if inside:
        return int(inside["size"])
    try:
        return file.stat().st_size
    except OSError:
        return -1
