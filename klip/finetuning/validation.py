"""Validation while training (paper §4.1.3): as many queries of each product, one gallery
image of each."""

from __future__ import annotations

import numpy as np
import pandas as pd
from torch import Tensor

from klip.data import catalogue as data

Held = tuple[pd.DataFrame, pd.DataFrame]


def held_out(catalogue: pd.DataFrame) -> Held | None:
    """Gallery and queries of the validation (paper §4.1.3); None if there is no query.

    Queries: of each product in split `val` as many as the poorest has.  Gallery: their
    first images in training.
    """
    queries = catalogue[catalogue["split"] == "val"]
    if queries.empty:
        return None
    queries = queries.groupby("product").head(queries["product"].value_counts().min())
    training = catalogue[catalogue["split"] == "train"]
    asked = training["product"].isin(queries["product"])
    gallery = training[asked].drop_duplicates("product")
    lost = sorted(set(queries["product"]) - set(gallery["product"]))
    if lost:
        raise ValueError(
            f"validation: {len(lost)} products have no image to be compared with, first "
            f"{lost[0]!r}; each needs one in split train"
        )
    return gallery, queries


def validation_set(finetuning: pd.DataFrame, products: int = 300, *, seed: int = 0) -> pd.DataFrame:
    """An evaluation set of `products` seeded validation products, or all if they are fewer:
    of each a packshot (split gallery) and its held-out photographs (query).

    finetuning: the fine-tuning set, loaded with `validation`.
    """
    held = held_out(finetuning)
    if held is None:
        raise ValueError(
            "validation: the fine-tuning set has no image of split val; load it with validation=2"
        )
    gallery, queries = held
    rng = np.random.default_rng(seed)
    names = rng.permutation(sorted(gallery["product"]))[:products]
    frame = pd.concat([gallery.assign(split="gallery"), queries.assign(split="query")])
    frame = frame[frame["product"].isin(names)]
    frame.attrs = finetuning.attrs
    return frame


def few_queries(catalogue: pd.DataFrame, most: int, *, seed: int = 0) -> pd.DataFrame:
    """A set with one packshot per product (`data.pick_gallery`) and at most `most` seeded
    queries of each; 0: all."""
    picked = data.pick_gallery(catalogue)
    asked = picked[picked["split"] == "query"]
    if most:
        asked = asked.sample(frac=1, random_state=seed).groupby("product").head(most)
    kept = (picked["split"] == "gallery") | picked.index.isin(asked.index)
    return picked[kept].reset_index(drop=True)


def top1(rows: Tensor, held: Held) -> float:
    """Top-1 accuracy, a fraction: is a query's nearest gallery image (k = 1, no views) one
    of its product?  rows: unit embeddings (N, D), those of the gallery come first."""
    gallery, queries = held
    packshots, asked = rows[: len(gallery)], rows[len(gallery) :]
    nearest = (asked @ packshots.T).argmax(dim=1).numpy()  # (queries,)
    found = gallery["product"].to_numpy()[nearest]
    return float((found == queries["product"].to_numpy()).mean())
