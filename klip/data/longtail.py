"""How many images a product has, which products are the tail, and whether two sets share
pictures (paper §3).
"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from klip.data import images
from klip.data.catalogue import PARTS, Catalogue

BLOCK = 256
"""Images of the first catalogue compared at a time: memory is BLOCK x the second's images."""


def summary(catalogue: Catalogue) -> pd.DataFrame:
    """Products, images, fewest and most images of a product in each part; 0 in an empty one."""
    table = (
        catalogue.counts()
        .groupby(catalogue.parts())
        .agg(products="size", images="sum", fewest="min", most="max")
    )
    return table.reindex(list(PARTS), fill_value=0).astype(int).rename_axis("part").reset_index()


def zipf_exponent(sizes: pd.Series) -> float:
    """s of n(rank) ~ rank^-s: the least-squares line of log count over log rank."""
    if len(sizes) < 2:
        raise ValueError(f"zipf exponent: needs at least 2 products, got {len(sizes)}")
    ordered = np.sort(sizes.to_numpy(float))[::-1]
    return float(-np.polyfit(np.log(np.arange(1, len(ordered) + 1)), np.log(ordered), 1)[0])


def leak_audit(
    a: Catalogue,
    b: Catalogue,
    *,
    embeddings: tuple[np.ndarray, np.ndarray] | None = None,
    max_distance: int = 6,
    min_cosine: float = 0.97,
    workers: int = 0,
) -> pd.DataFrame:
    """Pairs of images of two catalogues that look like one picture, most suspicious first.

    Suspected by pHash (at most `max_distance` of 64 bits differ: finds resized copies,
    misses 10 % crops) or, with embeddings (len(a), D) and (len(b), D) of unit rows, by
    a cosine of at least `min_cosine`.  Columns: image_a, product_a, image_b, product_b,
    distance (bits), cosine (NaN without embeddings), reason (pHash | embedding | both).
    """
    if embeddings and [len(rows) for rows in embeddings] != [len(a), len(b)]:
        raise ValueError(
            "leak audit: embeddings must have one row per image, got "
            f"{len(embeddings[0])} and {len(embeddings[1])} rows for {len(a)} and {len(b)} images"
        )
    hashes, others = phashes(a, workers), phashes(b, workers)
    names, found = ["image", "product"], []
    for start in range(0, max(1, len(a)), BLOCK):  # of no image, an empty table
        part = slice(start, start + BLOCK)
        distance = np.bitwise_count(hashes[part, None] ^ others)  # (BLOCK, len(b))
        cosine = np.full(distance.shape, np.nan)
        if embeddings:
            cosine = embeddings[0][part] @ embeddings[1].T
        i, j = np.nonzero((distance <= max_distance) | (cosine >= min_cosine))
        left = a.frame[names].iloc[start + i].add_suffix("_a").reset_index(drop=True)
        right = b.frame[names].iloc[j].add_suffix("_b").reset_index(drop=True)
        pairs = pd.concat([left, right], axis=1)
        found.append(pairs.assign(distance=distance[i, j], cosine=cosine[i, j]))
    pairs = pd.concat(found, ignore_index=True)
    near, alike = pairs["distance"] <= max_distance, pairs["cosine"] >= min_cosine
    pairs["reason"] = np.select([near & alike, near], ["both", "pHash"], "embedding")
    return _sorted(pairs.astype({"distance": int, "cosine": float}), "image_a", "image_b")


def suspects(pairs: pd.DataFrame) -> pd.DataFrame:
    """The products behind the pairs of `leak_audit`: product_a, product_b, pairs, the
    least distance and the largest cosine among them; the most suspicious first."""
    found = pairs.groupby(["product_a", "product_b"], sort=False).agg(
        pairs=("distance", "size"), distance=("distance", "min"), cosine=("cosine", "max")
    )
    return _sorted(found.reset_index(), "product_a", "product_b")


def _sorted(found: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The most suspicious first, ties by name."""
    order = {"distance": True, "cosine": False, **dict.fromkeys(names, True)}
    return found.sort_values(list(order), ascending=list(order.values()), ignore_index=True)


def phashes(catalogue: Catalogue, workers: int = 0) -> np.ndarray:
    """64-bit perceptual hash of every image, (N,) uint64; workers: processes beside this."""
    files = catalogue.files
    if not workers:
        return np.array([_phash(file) for file in files], np.uint64)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return np.array(list(pool.map(_phash, files, chunksize=64)), np.uint64)


def _phash(path: Path) -> np.uint64:
    from imagehash import phash

    try:
        bits = phash(Image.fromarray(images.read(path))).hash
    except (OSError, ValueError) as error:
        raise ValueError(f"leak audit: {error}; `klip data check` lists such files") from None
    return np.packbits(bits.ravel()).view(np.uint64)[0]
