"""Validation while training (paper §4.1.3): see `Catalogue.held_out`."""

from __future__ import annotations

from klip.data.catalogue import Catalogue
from klip.model import encoder as encoders
from klip.model.encoder import Encoder

Held = tuple[Catalogue, Catalogue]


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
