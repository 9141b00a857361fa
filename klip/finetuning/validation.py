"""Validation while training (paper §4.1.3): as many queries of each product, one gallery image of each."""

from __future__ import annotations

import numpy as np
import pandas as pd

from klip.data import catalogue as data
from klip.model import encoder as encoders
from klip.model.encoder import Encoder

Held = tuple[pd.DataFrame, pd.DataFrame]


def held_out(catalogue: pd.DataFrame, validation: pd.DataFrame | None = None) -> Held | None:
    """Gallery and queries of the validation, as many queries of each product (paper §4.1.3); None if none.

    Queries: `validation` but for its split `gallery`, or else the catalogue's split `val`; of each product as
    many as the poorest has.  Gallery: split `gallery` of `validation`, or else training images; the first.
    """
    source = catalogue[catalogue["split"] == "val"] if validation is None else validation
    queries, packshots = source[source["split"] != "gallery"], source[source["split"] == "gallery"]
    if queries.empty:
        return None
    if packshots.empty:
        packshots = catalogue[catalogue["split"] == "train"]
    queries = queries.groupby("product").head(queries["product"].value_counts().min())
    gallery = packshots[packshots["product"].isin(queries["product"])].drop_duplicates("product")
    if lost := sorted(set(queries["product"]) - set(gallery["product"])):
        raise ValueError(
            f"validation: {len(lost)} products have no image to be compared with, first "
            f"{lost[0]!r}; each needs one in split train (or gallery)"
        )
    return gallery, queries


def validation_set(finetuning: pd.DataFrame, products: int = 300, seed: int = 0) -> pd.DataFrame:
    """A set of `products` seeded validation products of the fine-tuning set (loaded with `validation`), or all if they
    are fewer: of each a packshot (split gallery) and its held-out photographs (query), as an evaluation set has them.
    """
    held = held_out(finetuning)
    if held is None:
        raise ValueError(
            "validation: the fine-tuning set has no image of split val; load it with validation=2"
        )
    gallery, queries = held
    names = np.random.default_rng(seed).permutation(sorted(gallery["product"]))[:products]
    frame = pd.concat([gallery.assign(split="gallery"), queries.assign(split="query")])
    frame = frame[frame["product"].isin(names)]
    frame.attrs = finetuning.attrs
    return frame


def few_queries(catalogue: pd.DataFrame, most: int, seed: int = 0) -> pd.DataFrame:
    """A set with one packshot per product (`data.pick_gallery`) and at most `most` seeded queries of each; 0: all."""
    picked = data.pick_gallery(catalogue)
    asked = picked[picked["split"] == "query"]
    if most:
        asked = asked.sample(frac=1, random_state=seed).groupby("product").head(most)
    return picked[(picked["split"] == "gallery") | picked.index.isin(asked.index)].reset_index(
        drop=True
    )


def validate(encoder: Encoder, held: Held, precision: str = "auto", workers: int = 0) -> float:
    """Top-1 accuracy, a fraction: is a query's nearest gallery image (k = 1, no views) one of its product?"""
    gallery, queries = held
    files = [*encoders.image_files(gallery), *encoders.image_files(queries)]
    rows = encoders.embed(encoder, files, precision=precision, workers=workers)
    nearest = (rows[len(gallery) :] @ rows[: len(gallery)].T).argmax(dim=1).numpy()  # (queries,)
    return float((gallery["product"].to_numpy()[nearest] == queries["product"].to_numpy()).mean())
