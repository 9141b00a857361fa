"""Validation while training (paper §4.1.3): as many queries of each product, one gallery
image of each."""

from __future__ import annotations

import numpy as np
import pandas as pd

from klip.data.catalogue import Catalogue
from klip.model import encoder as encoders
from klip.model.encoder import Encoder

Held = tuple[Catalogue, Catalogue]


def held_out(catalogue: Catalogue, validation: Catalogue | None = None) -> Held | None:
    """Gallery and queries of the validation (paper §4.1.3); None if there is no query.

    Queries: `validation` but for its split `gallery`, or else the catalogue's split `val`;
    of each product as many as the poorest has.  Gallery: the first image of a product in
    split `gallery` of `validation`, or else in training.
    """
    source = catalogue.split("val") if validation is None else validation
    packshots, queries = source.split("gallery"), source.where(source["split"] != "gallery")
    if not len(queries):
        return None
    if not len(packshots):
        packshots = catalogue.split("train")
    poorest = queries["product"].value_counts().min()
    queries = queries.of(queries.frame.groupby("product").head(poorest))
    asked = packshots["product"].isin(queries["product"])
    gallery = packshots.of(packshots.frame[asked].drop_duplicates("product"))
    lost = sorted(set(queries["product"]) - set(gallery["product"]))
    if lost:
        raise ValueError(
            f"validation: {len(lost)} products have no image to be compared with, first "
            f"{lost[0]!r}; each needs one in split train (or gallery)"
        )
    return gallery, queries


def validation_set(finetuning: Catalogue, products: int = 300, seed: int = 0) -> Catalogue:
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
    shown, asked = gallery.frame.assign(split="gallery"), queries.frame.assign(split="query")
    frame = pd.concat([shown, asked])
    return finetuning.of(frame[frame["product"].isin(names)])


def few_queries(catalogue: Catalogue, most: int, seed: int = 0) -> Catalogue:
    """A set with one packshot per product (`Catalogue.pick`) and at most `most` seeded
    queries of each; 0: all."""
    gallery, queries = catalogue.pick()
    asked = queries.frame
    if most:
        asked = asked.sample(frac=1, random_state=seed).groupby("product").head(most).sort_index()
    return catalogue.of(pd.concat([gallery.frame, asked]))


def validate(encoder: Encoder, held: Held, precision: str = "auto", workers: int = 0) -> float:
    """Top-1 accuracy, a fraction: is a query's nearest gallery image (k = 1, no views) one
    of its product?"""
    gallery, queries = held
    files = [*gallery.files, *queries.files]
    rows = encoders.embed(encoder, files, precision=precision, workers=workers)
    packshots, asked = rows[: len(gallery)], rows[len(gallery) :]
    nearest = (asked @ packshots.T).argmax(dim=1).numpy()  # (queries,)
    found = gallery["product"].to_numpy()[nearest]
    return float((found == queries["product"].to_numpy()).mean())
