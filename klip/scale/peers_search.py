"""Contenders that look for the nearest of many rows: klip's gallery and what a user would take.

A round asks Q queries in a gallery of G rows of D numbers, `repeats` times, and wants the
`top` nearest; every row is a product of its own, so that all are asked the same.
Run as a program it is one contestant (`contender.serve`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from klip.scale import contender
from klip.scale.contender import Round

# All else is imported by the contestant that needs it: none shall carry what another imports.
if TYPE_CHECKING:
    from klip.scale.contest import Contender


@dataclass(frozen=True)
class Search:
    """What a contestant is given; the rows are random, of length 1, the same for all."""

    queries: int = 256
    gallery: int = 20_000
    dim: int = 1280
    top: int = 5
    repeats: int = 1
    seed: int = 0

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Queries (Q, D) and gallery (G, D), float32; a query is a gallery row with noise."""
        rng = np.random.default_rng(self.seed)
        gallery = rng.standard_normal((self.gallery, self.dim), np.float32)
        # Without `norm`'s second array: gigabytes that are given back slow all down for a while.
        gallery /= np.sqrt(np.einsum("gd,gd->g", gallery, gallery))[:, None]
        chosen = rng.integers(self.gallery, size=self.queries)
        noise = rng.standard_normal((self.queries, self.dim), np.float32) / self.dim**0.5
        queries = gallery[chosen] + noise
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        return queries, gallery

    def round(self, search: Callable[[], np.ndarray]) -> Round:
        """A round of a search that returns the places (Q, top) of the nearest rows; it tells
        how they begin, so that contestants can be compared."""

        def work() -> dict[str, Any]:
            started = time.perf_counter()
            for _ in range(self.repeats):
                found = search()
            seconds = time.perf_counter() - started
            first = [int(place) for place in np.asarray(found)[:, 0][:100]]
            return {"work": self.queries * self.repeats, "seconds": seconds, "first": first}

        return work


def contenders(given: Search, names: Sequence[str] = ()) -> list[Contender]:
    """Contenders of these names; without names all."""
    from klip.scale import contest

    how = {"notes": NOTES, "names": names or list(CONTESTANTS)}
    return contest.entered("klip.scale.peers_search", asdict(given), **how)


def klip(given: dict[str, Any]) -> Round:
    """klip's `Gallery.search`."""
    import torch

    from klip.recognise.gallery import Gallery

    asked = Search(**given)
    queries, gallery = map(torch.from_numpy, asked.rows())
    names = [f"product {place}" for place in range(len(gallery))]
    shop = Gallery(gallery, names, names, meta={"views": 1})
    return asked.round(lambda: shop.search(queries, asked.top)[0])


def sklearn(given: dict[str, Any]) -> Round:
    """scikit-learn's NearestNeighbors; the nearest of unit rows have the largest cosine."""
    from sklearn.neighbors import NearestNeighbors

    asked = Search(**given)
    queries, gallery = asked.rows()
    index = NearestNeighbors(n_neighbors=asked.top, algorithm="brute").fit(gallery)
    return asked.round(lambda: index.kneighbors(queries, return_distance=False))


def faiss(given: dict[str, Any]) -> Round:
    """faiss, its exact index of inner products."""
    import faiss

    asked = Search(**given)
    queries, gallery = asked.rows()
    index = faiss.IndexFlatIP(asked.dim)
    index.add(gallery)
    del gallery  # the index keeps its own
    return asked.round(lambda: index.search(queries, asked.top)[1])


def pml(given: dict[str, Any]) -> Round:
    """pytorch-metric-learning's CustomKNN, which needs no faiss."""
    import torch
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.inference import CustomKNN

    asked = Search(**given)
    queries, gallery = map(torch.from_numpy, asked.rows())
    search = CustomKNN(CosineSimilarity(), batch_size=256)
    return asked.round(lambda: search(queries, asked.top, gallery)[1].numpy())


def usearch(given: dict[str, Any]) -> Round:
    """usearch, its exact search."""
    from usearch.index import MetricKind, search

    asked = Search(**given)
    queries, gallery = asked.rows()

    def found() -> np.ndarray:
        matches = search(gallery, queries, asked.top, MetricKind.IP, exact=True)
        return matches.keys.reshape(asked.queries, -1)

    return asked.round(found)


def torch_topk(given: dict[str, Any]) -> Round:
    """A matrix product and torch.topk, the two lines that a user writes."""
    import torch

    asked = Search(**given)
    queries, gallery = map(torch.from_numpy, asked.rows())
    return asked.round(lambda: (queries @ gallery.T).topk(asked.top, dim=1).indices.numpy())


def read_once(given: dict[str, Any]) -> Round:
    """The gallery read once from memory by all threads, for all queries at once."""
    import torch

    asked = Search(**given)
    gallery = torch.from_numpy(asked.rows()[1])

    def found() -> np.ndarray:
        gallery.sum()
        return np.zeros((asked.queries, 1))

    return asked.round(found)


def matrix_product(given: dict[str, Any]) -> Round:
    """All cosines computed and none kept, the queries shared out as klip does."""
    import torch

    from klip.recognise import nearest
    from klip.settings.cores import threads

    asked = Search(**given)
    queries, gallery = asked.rows()
    cores, chunks = nearest.shared_out(torch.from_numpy(queries))
    height = nearest.PANEL // nearest.CHUNK

    def product(chunk: torch.Tensor) -> None:
        panel = np.empty((len(chunk), height), np.float32)
        for first in range(0, len(gallery), height):
            rows = gallery[first : first + height]
            np.matmul(chunk.numpy(), rows.T, out=panel[:, : len(rows)])

    def found() -> np.ndarray:
        with threads(cores) as pool:
            list(pool.map(product, chunks))
        return np.zeros((asked.queries, 1))

    return asked.round(found)


CONTESTANTS = {
    "klip": klip,
    "sklearn": sklearn,
    "faiss": faiss,
    "pml": pml,
    "usearch": usearch,
    "torch": torch_topk,
    "floor: read once": read_once,
    "floor: matrix product": matrix_product,
}
NOTES = {
    "sklearn": "NearestNeighbors(algorithm='brute')",
    "faiss": "IndexFlatIP",
    "pml": "CustomKNN(CosineSimilarity())",
    "usearch": "search(exact=True)",
    "torch": "matrix product and topk",
    "floor: matrix product": "no row looked for",
    "floor: read once": "the gallery summed up, no query asked",
}

if __name__ == "__main__":
    contender.serve(CONTESTANTS)
