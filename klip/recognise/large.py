"""Galleries of over a million rows, through an index of faiss (optional: klip[faiss]).

The index proposes rows; the gallery's own cosines and rule for ties decide among them.
Axes: Q queries, G gallery rows, D numbers per row, N rows that the index proposes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from klip.recognise import nearest
from klip.recognise.gallery import Gallery

KINDS = ("flat", "ivf")
LEARNT = 64
"""Rows per list from which the centres of lists are learnt."""
CHUNK = 64
"""Queries whose proposed rows are compared again at a time."""


@dataclass(eq=False)
class Large:
    """A gallery and an index of its rows; after a change of the gallery, build it anew."""

    gallery: Gallery
    index: Any

    @classmethod
    def build(
        cls, gallery: Gallery, kind: str = "flat", *, lists: int = 0, probes: int = 16
    ) -> Large:
        """Index a gallery: flat compares with every row, ivf with those of the `probes` of
        `lists` lists (0: the square root of G) whose centres are nearest."""
        if kind not in KINDS:
            raise ValueError(f"large: kind must be {' or '.join(KINDS)}, got {kind!r}")
        faiss, rows = _faiss(), gallery.embeddings.numpy()
        count, numbers = rows.shape
        if not count:
            raise ValueError("large: the gallery holds no product to compare with; add one")
        index = faiss.IndexFlatIP(numbers)
        if kind == "ivf":
            lists = min(lists or max(1, round(count**0.5)), count)
            index = faiss.IndexIVFFlat(index, numbers, lists, faiss.METRIC_INNER_PRODUCT)
            index.cp.min_points_per_centroid = 1  # a small gallery is no reason to warn
            index.nprobe = min(probes, lists)
            chosen = np.random.default_rng(0).permutation(count)[: LEARNT * lists]
            index.train(rows[np.sort(chosen)])
        index.add(rows)
        return cls(gallery, index)

    def search(self, queries: Tensor, top: int = 5) -> tuple[np.ndarray, np.ndarray]:
        """As `Gallery.search`; of ivf the best among the rows of the lists that are looked at.

        A query for which the index proposes too few products is asked of all rows.
        """
        owners, embeddings = self.gallery.numbered(), self.gallery.embeddings
        nearest.check(queries, embeddings)
        top = min(top, int(owners.max()) + 1)
        rows = torch.empty(len(queries), top, dtype=torch.int64)
        cosines = torch.empty(len(queries), top)
        for asked in torch.arange(len(queries)).split(CHUNK):
            found = self._among(queries[asked], owners, top=top)
            rows[asked], cosines[asked], sure = found
            again = asked[~sure]
            if len(again):
                rows[again], cosines[again] = nearest.search(
                    queries[again], embeddings, owners=owners, top=top
                )
        return rows.numpy(), cosines.numpy()

    def _among(self, queries: Tensor, owners: Tensor, *, top: int) -> tuple[Tensor, Tensor, Tensor]:
        """Best rows and cosines (q, top) of a few queries among those proposed, and whether
        rows that were not proposed cannot change them (q,)."""
        embeddings = self.gallery.embeddings
        wanted = min(32 * top, len(embeddings))
        scores, proposed = map(torch.from_numpy, self.index.search(queries.numpy(), wanted))
        complete = (proposed[:, -1] < 0) | (wanted == len(embeddings))
        # The index rounds otherwise than the gallery.
        left_out = torch.where(complete, -torch.inf, scores[:, -1] + nearest.TIE)
        proposed = proposed.sort(dim=1).values  # -1: no more rows were looked at
        rows = proposed.clamp(min=0)
        near = embeddings[rows]  # (q, N, D)
        cosines = torch.bmm(near, queries[:, :, None])[:, :, 0]
        cosines = cosines.masked_fill(proposed < 0, -torch.inf)
        facts = {"embeddings": embeddings, "owners": owners, "top": top}
        return nearest.best(cosines, rows, queries=queries, left_out=left_out, **facts)


def recall(large: Large, queries: Tensor, *, top: int = 5) -> float:
    """Share of the exact search's rows (Q, top) that the index finds, in 0..1."""
    found, _ = large.search(queries, top)
    exact, _ = large.gallery.search(queries, top)
    return float((found[:, :, None] == exact[:, None, :]).any(axis=1).mean())


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise ImportError(
            "large: faiss is not installed; pip install 'klip[faiss]' (faiss-cpu==1.15.1)"
        ) from None
    return faiss
