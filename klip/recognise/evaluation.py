"""Zero-shot recognition (paper §4.2): the product of a photograph is that of its nearest packshot embedding.

Axes: Q queries, D numbers per embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
from torch import Tensor

from klip.data import catalogue as data
from klip.recognise import nearest, outcomes
from klip.recognise.gallery import SCORES, Gallery

if TYPE_CHECKING:
    from klip.model.encoder import Encoder

__all__ = ["SCORES", "Gallery", "evaluate", "outcome", "packshots", "pick", "queries"]


def queries(catalogue: pd.DataFrame) -> pd.DataFrame:
    """The query images of a set, the same for every gallery rule; a set without its own (a plain folder): an error."""
    if not catalogue["split"].eq("query").any():
        raise ValueError(
            f"evaluate: set {catalogue.attrs.get('name', '')!r} has no queries of its own; which they are "
            "depends on the gallery"
        )
    return _part(data.pick_gallery(catalogue), "query")


def packshots(catalogue: pd.DataFrame) -> pd.DataFrame:
    """What a gallery can be built of: the images of split gallery, or of train where there are none."""
    return _part(catalogue, "gallery" if catalogue["split"].eq("gallery").any() else "train")


def pick(
    catalogue: pd.DataFrame, rule: str = "first", seed: int = 0, embeddings: Tensor | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One packshot per product by `rule`, and the queries (`data.pick_gallery`).

    `embeddings` (Q, D), if there are any already, must be those of `queries(catalogue)`: as many.
    """
    if embeddings is not None and len(embeddings) != (count := len(queries(catalogue))):
        raise ValueError(
            f"evaluate: one embedding per query is needed, got {len(embeddings)} for {count} queries"
        )
    picked = data.pick_gallery(catalogue, rule, seed)
    return _part(picked, "gallery"), _part(picked, "query")


def outcome(
    gallery: Gallery, asked: pd.DataFrame, embeddings: Tensor, k: int = 1, keep: int = 0
) -> pd.DataFrame:
    """What the gallery answers to the queries `asked` with these embeddings (Q, D); one row per query.

    Columns: image, product, predicted, top1, top5 (among five distinct products), similarity (cosine of the best
    product), margin (that minus the cosine of the second; below 0 only where k > 1 votes; see `nearest.margin`),
    packshot (of the predicted product).  keep = T > 0, for `rerank`: also products, cosines and packshots, lists of
    the first T (at least 5, of fewer products all) of every query, the best first.
    """
    rows, similarity = gallery.search(embeddings, k, top=max(5, keep))
    found = [[gallery.owners[row] for row in own] for own in rows.tolist()]
    shown = [[gallery.images[row] for row in own] for own in rows.tolist()]
    lists = (
        {"products": found, "cosines": similarity.double().tolist(), "packshots": shown}
        if keep
        else {}
    )
    return outcomes.frame(
        asked,
        found,
        similarity=similarity[:, 0].numpy(),
        margin=nearest.margin(similarity).numpy(),
        packshot=[own[0] for own in shown],
        **lists,
    )


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
    """Classify a set's queries against one packshot per product (§4.2); the columns are those of `outcome`.

    `rule` and queries without a packshot: see `data.pick_gallery`.  `embeddings` (Q, D) of `queries(catalogue)` in the
    same precision spare embedding them anew for another rule or seed.
    """
    chosen, asked = pick(catalogue, rule, seed, embeddings)
    gallery = Gallery.build(encoder, chosen, views, seed, precision, **options)
    if embeddings is None:
        embeddings = gallery.embed(asked, **options)
    frame = outcome(gallery, asked, embeddings, k, keep)
    frame.attrs = {
        **catalogue.attrs,
        "gallery": rule,
        "views": views,
        "seed": seed,
        "k": k,
        "keep": keep,
        "fingerprint": gallery.meta["fingerprint"],
    }
    return frame


def _part(catalogue: pd.DataFrame, split: str) -> pd.DataFrame:
    return catalogue[catalogue["split"] == split].reset_index(drop=True)
