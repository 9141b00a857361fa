"""Zero-shot recognition (paper §4.2): a photograph shows the product of its nearest packshot.

Axes: Q queries, D numbers per embedding.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from torch import Tensor

from klip.data import catalogue as data
from klip.model.encoder import Encoder
from klip.recognise import outcomes
from klip.recognise.gallery import Gallery


def queries(catalogue: pd.DataFrame) -> pd.DataFrame:
    """The query images of a set, the same for every gallery rule."""
    if not catalogue["split"].eq("query").any():
        raise ValueError(
            f"evaluate: set {catalogue.attrs.get('name', '')!r} has no queries of its own; which they are "
            "depends on the gallery"
        )
    return _part(data.pick_gallery(catalogue), "query")


def packshots(catalogue: pd.DataFrame) -> pd.DataFrame:
    """What a gallery can be built of: images of split gallery, or of train if there are none."""
    return _part(catalogue, "gallery" if catalogue["split"].eq("gallery").any() else "train")


def pick(
    catalogue: pd.DataFrame, rule: str = "first", seed: int = 0, embeddings: Tensor | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One packshot per product by `rule`, and the queries (`data.pick_gallery`).

    `embeddings` (Q, D), if there are any already, are those of `queries(catalogue)`.
    """
    if embeddings is not None:
        count = len(queries(catalogue))
        if len(embeddings) != count:
            raise ValueError(
                f"evaluate: one embedding per query is needed, got {len(embeddings)} for {count} queries"
            )
    picked = data.pick_gallery(catalogue, rule, seed)
    return _part(picked, "gallery"), _part(picked, "query")


def outcome(
    gallery: Gallery, asked: pd.DataFrame, embeddings: Tensor, k: int = 1, keep: int = 0
) -> pd.DataFrame:
    """What the gallery answers to the queries `asked` with these embeddings (Q, D).

    An outcome frame: top5 is among five distinct products, similarity a cosine, and
    margin below 0 only where k > 1 votes.  keep = T > 0, for `rerank`: also products,
    cosines and packshots, lists of the first T (at least 5) of every query, the best
    first.
    """
    rows, cosines = gallery.search(embeddings, k, top=max(5, keep))
    products = [[gallery.owners[row] for row in own] for own in rows.tolist()]
    shown = [[gallery.images[row] for row in own] for own in rows.tolist()]
    frame = outcomes.frame(asked, products, cosines.numpy(), shown)
    if not keep:
        return frame
    return frame.assign(products=products, cosines=cosines.double().tolist(), packshots=shown)


def evaluate(
    encoder: Encoder,
    catalogue: pd.DataFrame,
    rule: str = "first",
    views: int = 8,
    seed: int = 0,
    k: int = 1,
    embeddings: Tensor | None = None,
    precision: str = "fp32",
    keep: int = 0,
    **options: Any,
) -> pd.DataFrame:
    """Classify a set's queries against one packshot per product (§4.2), as `outcome` does.

    `embeddings` (Q, D) of `queries(catalogue)` in the same precision spare embedding
    them anew for another rule or seed.
    """
    chosen, asked = pick(catalogue, rule, seed, embeddings)
    gallery = Gallery.build(encoder, chosen, views, seed, precision, **options)
    frame = answers(gallery, asked, embeddings, k, keep, **options)
    frame.attrs |= {"gallery": rule, "k": k, "keep": keep}
    return frame


def answers(
    gallery: Gallery,
    asked: pd.DataFrame,
    embeddings: Tensor | None = None,
    k: int = 1,
    keep: int = 0,
    **options: Any,
) -> pd.DataFrame:
    """`outcome` of queries that are embedded first, if they are not; attrs tell the gallery."""
    if embeddings is None:
        embeddings = gallery.embed(asked, **options)
    frame = outcome(gallery, asked, embeddings, k, keep)
    frame.attrs |= {key: gallery.meta[key] for key in ("views", "seed", "fingerprint")}
    return frame


def _part(catalogue: pd.DataFrame, split: str) -> pd.DataFrame:
    return catalogue[catalogue["split"] == split].reset_index(drop=True)
