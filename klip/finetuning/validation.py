"""Validation while training (paper §4.1.3): see `Catalogue.held_out`."""

from __future__ import annotations

from torch import Tensor

from klip.data.catalogue import Catalogue

Held = tuple[Catalogue, Catalogue]


def top1(rows: Tensor, held: Held) -> float:
    """Top-1 accuracy, a fraction: is a query's nearest gallery image (k = 1, no views) one
    of its product?  rows: unit embeddings (N, D), those of the gallery come first."""
    gallery, queries = held
    packshots, asked = rows[: len(gallery)], rows[len(gallery) :]
    nearest = (asked @ packshots.T).argmax(dim=1).numpy()  # (queries,)
    found = gallery["product"].to_numpy()[nearest]
    return float((found == queries["product"].to_numpy()).mean())
