"""Zero-shot recognition (paper §4.2): a photograph shows the product of its nearest packshot.

Axes: Q queries, D numbers per embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from torch import Tensor

from klip.data.catalogue import Catalogue
from klip.model.encoder import Encoder
from klip.recognise import outcomes
from klip.recognise.gallery import Gallery


def evaluate(
    encoder: Encoder,
    catalogue: Catalogue,
    *,
    rule: str = "first",
    seed: int = 0,
    embeddings: Tensor | None = None,
    keep: int = 0,
    **build: Any,
) -> pd.DataFrame:
    """Classify a set's queries against one packshot per product (§4.2), as `outcome` does.

    `embeddings` (Q, D) of `catalogue.queries()` in the same precision spare embedding
    them anew for another rule or seed.  `build`: views, precision, workers ... of
    `Gallery.build`.
    """
    chosen, asked = catalogue.pick(rule, seed)
    gallery = Gallery.build(encoder, chosen, seed=seed, **build)
    return outcome(gallery, asked, embeddings=embeddings, keep=keep)


def by_rule(
    encoders: Sequence[Encoder], catalogue: Catalogue, *, embeddings: Sequence[Tensor], **how: Any
) -> dict[str, list[pd.DataFrame]]:
    """Outcome frames of `evaluate` under each of `Catalogue.rules`: of each encoder one for
    every seed of the rule.  embeddings: of each encoder (Q, D) of `catalogue.queries()`."""
    found = {rule: [] for rule in catalogue.rules()}
    for encoder, rows in zip(encoders, embeddings, strict=True):
        for rule, seeds in catalogue.rules().items():
            asked = {"rule": rule, "embeddings": rows, **how}
            found[rule] += [evaluate(encoder, catalogue, seed=seed, **asked) for seed in seeds]
    return found


def outcome(
    gallery: Gallery, asked: Catalogue, *, embeddings: Tensor | None = None, keep: int = 0
) -> pd.DataFrame:
    """What the gallery answers to the queries `asked`, embedded here if they are not yet.

    An outcome frame: top5 is among five distinct products, similarity a cosine.
    keep = T > 0, for `rerank`: also products, cosines and packshots, lists of the first
    T (at least 5) of every query, the best first.
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
    if not keep:
        return frame
    return frame.assign(
        products=products.tolist(), cosines=cosines.astype(float).tolist(), packshots=shown.tolist()
    )
