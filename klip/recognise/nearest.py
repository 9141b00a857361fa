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
FEW = 256
"""The same where all rows are compared closely, which a larger chunk would not speed up."""
PANEL = 2**24
"""Cosines held at a time, 64 MB: chunk x rows of a panel."""
BLOCK = 32
SMALL = 2048
"""Rows of a gallery up to which blocks spare nothing."""
TIE = 1e-6
"""Cosines this close are computed again, in 64 bits: a matrix product may round equal rows
differently, and a first row that is a little worse must not win."""


def check(queries: Tensor, embeddings: Tensor) -> None:
    """Refuse queries (Q, D) that cannot be compared with embeddings (G, D)."""
    if queries.shape[1] != embeddings.shape[1]:
        raise ValueError(
            f"gallery: queries must have {embeddings.shape[1]} columns, got the shape "
            f"{tuple(queries.shape)}"
        )
    if not torch.isfinite(queries).all():
        raise ValueError(
            "gallery: the queries hold values that are not finite; the encoder is broken"
        )
    if not len(embeddings):
        raise ValueError("gallery: it holds no product to compare with; add one")


def search(
    queries: Tensor, embeddings: Tensor, *, owners: Tensor, top: int
) -> tuple[Tensor, Tensor]:
    """Best row of each of the `top` best products, and its cosine: (Q, top) each.

    queries (Q, D), embeddings (G, D), owners (G,) the number of each row's product, top at
    most the number of products.
    """
    facts = {"embeddings": embeddings, "owners": owners, "top": top}
    if len(embeddings) <= SMALL:
        return _among_all(queries, **facts)
    if len(queries) == 1:  # of two, MKL's product reads a large gallery in half the time
        found = search(queries.repeat(2, 1), **facts)
        return found[0][:1], found[1][:1]
    rows = torch.empty(len(queries), top, dtype=torch.int64)
    cosines = torch.empty(len(queries), top)
    for first in range(0, len(queries), CHUNK):
        asked = slice(first, first + CHUNK)
        candidates, values, left_out = _candidates(queries[asked], embeddings, keep=2 * top + 2)
        found = best(values, candidates, queries=queries[asked], left_out=left_out, **facts)
        rows[asked], cosines[asked], sure = found
        again = first + torch.nonzero(~sure).flatten()
        if len(again):
            rows[again], cosines[again] = _among_all(queries[again], **facts)
    return rows, cosines


def _among_all(
    queries: Tensor, *, embeddings: Tensor, owners: Tensor, top: int
) -> tuple[Tensor, Tensor]:
    """`search`, each query compared closely with all rows."""
    every = torch.arange(len(embeddings))[None]
    found = [(torch.empty(0, top, dtype=torch.int64), torch.empty(0, top))]
    for chunk in queries.split(max(1, min(FEW, PANEL // len(embeddings)))):
        values = chunk @ embeddings.T  # (q, G)
        none = torch.full((len(chunk),), -torch.inf)
        facts = {"embeddings": embeddings, "owners": owners, "top": top}
        found.append(best(values, every, queries=chunk, left_out=none, **facts)[:2])
    rows, cosines = zip(*found, strict=True)
    return torch.cat(rows), torch.cat(cosines)


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
    that was left out could change it (q,).

    `left`, the cosines (q, C) of some rows in rising order, is used up.  rows: (q, C), or
    (1, C) if they are the same for all.  left_out (q,): no other row has a higher cosine.
    """
    owner = owners[rows]  # (q, C)
    rows, found, values = rows.expand(len(queries), -1), [], []
    for _ in range(top):
        highest = left.amax(dim=1, keepdim=True)
        close = left >= highest - TIE
        sure = highest[:, 0] - TIE > left_out  # of the last product, then of all
        place = close.to(torch.uint8).argmax(dim=1, keepdim=True)  # the first such row
        for asked in torch.nonzero(sure & (close.sum(dim=1) > 1)).flatten().tolist():
            places = torch.nonzero(close[asked]).flatten()
            near = embeddings[rows[asked, places]].double()
            exact = (near * queries[asked].double()).sum(dim=1)
            place[asked] = places[exact.argmax()]  # of equal ones the first
        found.append(rows.gather(1, place))
        values.append(left.gather(1, place))
        left.masked_fill_(owner == owners[found[-1]], -torch.inf)  # the product is taken
    return torch.cat(found, dim=1), torch.cat(values, dim=1), sure
