"""Nearest rows: for each query the best row of each of its best products, exactly.

Rows stand in blocks of BLOCK neighbours.  Only the blocks whose best cosine is highest are
looked at closely; a query is asked of all rows where the others could matter.
Axes: Q queries (q of a chunk), G gallery rows, D numbers per row, K blocks, C candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 1024
"""Queries compared at a time: the more, the better a matrix product uses the caches."""
PANEL = 2**24
"""Cosines held at a time, 64 MB: chunk x rows of a panel."""
BLOCK = 32
TIE = 1e-6
"""Cosines this close are computed again, in 64 bits: a matrix product may round equal rows
differently, and a first row that is a little worse must not win."""


def search(
    queries: Tensor, embeddings: Tensor, *, owners: Tensor, top: int
) -> tuple[Tensor, Tensor]:
    """Best row of each of the `top` best products, and its cosine: (Q, top) each.

    queries (Q, D), embeddings (G, D), owners (G,) the number of each row's product, top at
    most the number of products.
    """
    rows = torch.empty(len(queries), top, dtype=torch.int64)
    cosines = torch.empty(len(queries), top)
    few = max(1, PANEL // len(embeddings))
    everything = torch.arange(len(embeddings))
    for asked in torch.arange(len(queries)).split(CHUNK):
        chunk = queries[asked]
        candidates, values, left_out = _candidates(chunk, embeddings, keep=2 * top + 2)
        facts = {"embeddings": embeddings, "owners": owners, "top": top}
        found = best(values, candidates, queries=chunk, left_out=left_out, **facts)
        rows[asked], cosines[asked], sure = found
        for again in asked[~sure].split(few):
            chunk = queries[again]
            values = (embeddings @ chunk.T).T.contiguous()  # (q, G)
            none = torch.full((len(again),), -torch.inf)
            whole = everything.expand(len(again), -1)
            rows[again], cosines[again], _ = best(
                values, whole, queries=chunk, left_out=none, **facts
            )
    return rows, cosines


def _candidates(queries: Tensor, embeddings: Tensor, *, keep: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (q, C) in rising order, their cosines (q, C), and a cosine (q,) that no other row
    exceeds; behind the last row of the gallery they are minus infinity."""
    height = max(1, PANEL // max(1, len(queries)) // BLOCK)  # blocks of a panel
    panel = torch.empty(min(height, -(-len(embeddings) // BLOCK)) * BLOCK, len(queries))
    kept = None
    for first in range(0, len(embeddings), height * BLOCK):
        rows = embeddings[first : first + height * BLOCK]
        cosines = panel[: -(-len(rows) // BLOCK) * BLOCK]
        torch.mm(rows, queries.T, out=cosines[: len(rows)])
        cosines[len(rows) :] = -torch.inf
        blocks = cosines.unflatten(0, (-1, BLOCK))  # (blocks, BLOCK, q)
        numbers = torch.arange(len(blocks))[:, None].expand(-1, len(queries))
        found = _highest(blocks.amax(dim=1), numbers + first // BLOCK, blocks, keep=keep)
        if kept is not None:
            found = _highest(*map(torch.cat, zip(kept, found, strict=True)), keep=keep)
        kept = found
    highest, numbers, blocks = kept
    complete = keep * BLOCK >= len(embeddings)
    left_out = torch.full_like(highest[0], -torch.inf) if complete else highest.amin(dim=0)
    numbers, order = numbers.sort(dim=0)
    blocks = blocks.gather(0, order[:, None].expand_as(blocks))
    rows = numbers[:, None] * BLOCK + torch.arange(BLOCK)[:, None]  # (K, BLOCK, q)
    flat = (rows.flatten(0, 1).T, blocks.flatten(0, 1).T.contiguous())
    return flat[0].clamp(max=len(embeddings) - 1), flat[1], left_out


def _highest(
    highest: Tensor, numbers: Tensor, blocks: Tensor, *, keep: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The `keep` blocks whose best cosine is highest: their best cosine and number (K, q), and
    their cosines (K, BLOCK, q)."""
    highest, chosen = highest.topk(min(keep, len(highest)), dim=0)
    places = chosen[:, None].expand(-1, BLOCK, -1)
    return highest, numbers.gather(0, chosen), blocks.gather(0, places)


def best(
    left: Tensor,
    rows: Tensor,
    *,
    queries: Tensor,
    left_out: Tensor,
    embeddings: Tensor,
    owners: Tensor,
    top: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Best row of each of the `top` best products, its cosine (q, top), and whether no row
    that was left out could change it (q,).  `left`, the cosines (q, C) of some rows (q, C) in
    rising order, is used up.  left_out (q,): no other row has a higher cosine."""
    found, values, sure = [], [], torch.ones(len(queries), dtype=torch.bool)
    owner = owners[rows]  # (q, C)
    for _ in range(top):
        highest = left.amax(dim=1, keepdim=True)
        close = left >= highest - TIE
        sure &= highest[:, 0] - TIE > left_out
        place = close.to(torch.uint8).argmax(dim=1, keepdim=True)  # the first such row
        for asked in torch.nonzero(sure & (close.sum(dim=1) > 1)).flatten().tolist():
            places = torch.nonzero(close[asked]).flatten()
            near = embeddings[rows[asked, places]].double()
            exact = (near * queries[asked].double()).sum(dim=1)
            place[asked] = places[exact.argmax()]  # of equal ones the first
        found.append(rows.gather(1, place))
        values.append(left.gather(1, place))
        left.masked_fill_(owner == owner.gather(1, place), -torch.inf)  # the product is taken
    return torch.cat(found, dim=1), torch.cat(values, dim=1), sure
