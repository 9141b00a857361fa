"""The search of a gallery: nearest rows of distinct products, by cosine.

Axes: Q queries, G gallery rows, D numbers per embedding; all rows have length 1, so that a dot product is the cosine.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

CHUNK = 256
"""Queries compared at a time: memory is CHUNK x G numbers."""
TIE = 1e-6
"""Cosines this close count as equal: a matrix product rounds equal rows differently in different places."""


def search(
    queries: Tensor, rows: Tensor, owners: Tensor, k: int, top: int
) -> tuple[Tensor, Tensor]:
    """Best row of each of the `top` best products, and its cosine: see `Gallery.search`.

    queries (Q, D), rows (G, D), owners (G,) the numbers of the products; top is at most their count.
    """
    found, similarities = [], []
    for chunk in queries.float().split(CHUNK):
        similarity = chunk @ rows.T  # (q, G)
        row = _nearest(similarity.clone(), top, owners)
        if k > 1:
            row = _vote(_nearest(similarity.clone(), k), row, owners)
        found.append(row)
        similarities.append(similarity.gather(1, row))
    return torch.cat(found), torch.cat(similarities)


def margin(similarity: Tensor) -> Tensor:
    """Best minus second product, (Q,) in float64, of (Q, top); of a single product as if a second lay opposite."""
    similarity = similarity.double()
    return similarity[:, 0] - (similarity[:, 1] if similarity.shape[1] > 1 else -1)


def _nearest(similarity: Tensor, count: int, owners: Tensor | None = None) -> Tensor:
    """The `count` nearest rows (q, count), nearest first, ties to the lowest; `similarity` (q, G) is used up.

    With `owners` (G,) each row found closes its whole product, so that the rows belong to distinct products.
    """
    own, found = torch.arange(similarity.shape[1]) if owners is None else owners, []
    for _ in range(count):
        best = similarity.amax(dim=1, keepdim=True)
        row = (
            (similarity >= best - TIE).to(torch.uint8).argmax(dim=1, keepdim=True)
        )  # the first such row
        found.append(row)
        similarity.masked_fill_(own == own[row], -torch.inf)
    return torch.cat(found, dim=1)


def _vote(voters: Tensor, ranked: Tensor, owners: Tensor) -> Tensor:
    """`ranked` (q, top), a row per product, ordered by the votes of `voters` (q, k); both nearest first."""
    result = []
    for near, best in zip(voters.tolist(), ranked.tolist(), strict=True):
        first: dict[int, int] = {}
        for row in [*near, *best]:
            first.setdefault(int(owners[row]), row)
        votes = Counter(int(owners[row]) for row in near)
        order = sorted(
            first, key=lambda product: -votes[product]
        )  # stable: the nearer one stays first
        result.append([first[product] for product in order[: ranked.shape[1]]])
    return torch.tensor(result, dtype=torch.long).view_as(ranked)
