"""Zero-shot recognition (paper §4.2): a photograph shows the product of its nearest packshot.

Axes: Q queries, D numbers per embedding.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from torch import Tensor

from klip.data.catalogue import Catalogue
from klip.model.encoder import Encoder
from klip.recognise import outcomes
from klip.recognise.gallery import Gallery


def outcome(
    gallery: Gallery, asked: Catalogue, embeddings: Tensor, k: int = 1, keep: int = 0
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
    catalogue: Catalogue,
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

    `embeddings` (Q, D) of `catalogue.queries()` in the same precision spare embedding
    them anew for another rule or seed.
    """
    chosen, asked = catalogue.pick(rule, seed)
    check_rows(embeddings, asked)
    gallery = Gallery.build(encoder, chosen, views, seed, precision, **options)
    if embeddings is None:
        embeddings = gallery.embed(asked, **options)
    return outcome(gallery, asked, embeddings, k, keep)


def check_rows(embeddings: Tensor | None, asked: Catalogue) -> None:
    """Embeddings that were made before are those of these queries, as far as one can tell."""
    if embeddings is not None and len(embeddings) != len(asked):
        raise ValueError(
            "evaluate: one embedding per query is needed, got "
            f"{len(embeddings)} for {len(asked)} queries"
        )
