"""The search of a gallery: nearest rows of distinct products, by cosine.

Axes: Q queries (q at a time), G gallery rows, D numbers per row, of length 1.
"""

from collections import Counter

import torch
from torch import Tensor

CHUNK = 256
"""Queries compared at a time: memory is CHUNK x G numbers."""
TIE = 1e-6
"""Cosines this close are equal: a matrix product rounds equal rows differently elsewhere."""


def search(
    queries: Tensor, rows: Tensor, *, owners: Tensor, k: int, top: int
) -> tuple[Tensor, Tensor]:
    """Best row of each of the `top` best products, and its cosine: see `Gallery.search`.

    queries (Q, D), rows (G, D), owners (G,) the numbers of at least `top` products.
    """
    found, similarities = [], []
    each = torch.arange(len(rows))  # every row as a product of its own
    for chunk in queries.split(CHUNK):
        similarity = chunk @ rows.T  # (q, G)
        best = _nearest(similarity, owners, count=top)
        if k > 1:
            voters = _nearest(similarity, each, count=k)
            best = _vote(voters, best, owners=owners.tolist())
        found.append(best)
        similarities.append(similarity.gather(1, best))
    return torch.cat(found), torch.cat(similarities)


def _nearest(similarity: Tensor, owners: Tensor, *, count: int) -> Tensor:
    """Nearest rows of `count` owners (q, count), nearest first, ties to the lowest row."""
    similarity, found = similarity.clone(), []
    for _ in range(count):
        best = similarity.amax(dim=1, keepdim=True)
        close = (similarity >= best - TIE).to(torch.uint8)
        row = close.argmax(dim=1, keepdim=True)  # the first such row
        found.append(row)
        same_owner = owners == owners[row]
        similarity.masked_fill_(same_owner, -torch.inf)
    return torch.cat(found, dim=1)


def _vote(voters: Tensor, ranked: Tensor, *, owners: list[int]) -> Tensor:
    """`ranked` (q, top), a row per product, by the votes of `voters` (q, k); nearest first."""
    result = []
    for near, best in zip(voters.tolist(), ranked.tolist(), strict=True):
        first: dict[int, int] = {}  # product -> its nearest row, the nearest product first
        for row in [*near, *best]:
            first.setdefault(owners[row], row)
        votes = Counter(owners[row] for row in near)
        # The sort is stable: of equal votes the nearer product stays first.
        order = sorted(first, key=lambda product: -votes[product])
        result.append([first[product] for product in order[: ranked.shape[1]]])
    return torch.tensor(result, dtype=torch.long).view_as(ranked)
