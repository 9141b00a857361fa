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
            f"evaluate: set {catalogue.attrs.get('name', '')!r} has no queries of its own; "
            "which they are depends on the gallery"
        )
    return _part(data.pick_gallery(catalogue), "query")


def packshots(catalogue: pd.DataFrame) -> pd.DataFrame:
    """What a gallery can be built of: images of split gallery, or of train if there are none."""
    return _part(catalogue, "gallery" if catalogue["split"].eq("gallery").any() else "train")


def pick(
    catalogue: pd.DataFrame, rule: str = "first", *, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One packshot per product by `rule`, and the queries (`data.pick_gallery`)."""
    picked = data.pick_gallery(catalogue, rule, seed)
    return _part(picked, "gallery"), _part(picked, "query")


def evaluate(
    encoder: Encoder,
    catalogue: pd.DataFrame,
    *,
    rule: str = "first",
    seed: int = 0,
    embeddings: Tensor | None = None,
    keep: int = 0,
    **build: Any,
) -> pd.DataFrame:
    """Classify a set's queries against one packshot per product (§4.2), as `outcome` does.

    `embeddings` (Q, D) of `queries(catalogue)` in the same precision spare embedding
    them anew for another rule or seed.  `build`: views, precision, workers ... of
    `Gallery.build`.
    """
    chosen, asked = pick(catalogue, rule, seed=seed)
    gallery = Gallery.build(encoder, chosen, seed=seed, **build)
    return outcome(gallery, asked, embeddings=embeddings, keep=keep)


def outcome(
    gallery: Gallery, asked: pd.DataFrame, *, embeddings: Tensor | None = None, keep: int = 0
) -> pd.DataFrame:
    """What the gallery answers to the queries `asked`, embedded here if they are not yet.

    An outcome frame: top5 is among five distinct products, similarity a cosine.
    keep = T > 0, for `rerank`: also products, cosines and packshots, lists of the first
    T (at least 5) of every query, the best first.  attrs: keep, the encoder's fingerprint.
    """
    if embeddings is None:
        embeddings = gallery.embed(asked)
    if len(embeddings) != len(asked):
        raise ValueError(
            f"evaluate: one embedding per query is needed, got {len(embeddings)} for "
            f"{len(asked)} queries"
        )
    rows, cosines = gallery.search(embeddings, max(5, keep))  # (Q, T) each
    products, shown = gallery.named(rows)
    frame = outcomes.frame(asked, products, scores=cosines, packshots=shown)
    frame.attrs |= {"keep": keep, "fingerprint": gallery.meta.get("fingerprint")}
    if not keep:
        return frame
    return frame.assign(
        products=products.tolist(), cosines=cosines.astype(float).tolist(), packshots=shown.tolist()
    )


def _part(catalogue: pd.DataFrame, split: str) -> pd.DataFrame:
    return catalogue[catalogue["split"] == split].reset_index(drop=True)
