"""Nearest rows: for each query the best row of each of its best products, exactly.

Rows stand in blocks of BLOCK neighbours.  Only the blocks whose best cosine is highest are
looked at closely; a query is asked of all rows where the others could matter.
Axes: Q queries (q of a chunk), G gallery rows, D numbers per row, K blocks, C candidates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from klip.settings.cores import threads

CHUNK = 2048
"""Queries compared at a time: the more, the better a matrix product uses the caches."""
FEW = 256
"""The same where all rows are compared closely, which a larger chunk would not speed up."""
READING = 16
"""Queries up to which a large gallery is read by all cores for one chunk; of more, each core
has chunks of its own."""
PANEL = 2**24
"""Cosines held at a time by a core, 64 MB: chunk x rows of a panel."""
STREAM = 2**30
"""Bytes of a gallery from which one query is compared by each core with a part of the rows.  In
smaller ones threads of Python lose what they would save: torch's spin for milliseconds."""
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
    cores, chunks = shared_out(queries)
    if cores == 1:
        found = [_among_blocks(chunk, **facts) for chunk in chunks]
    else:
        with threads(cores) as pool:
            found = list(pool.map(partial(_among_blocks, **facts), chunks))
    rows, cosines = zip(*found, strict=True)
    return torch.cat(rows), torch.cat(cosines)


def shared_out(queries: Tensor) -> tuple[int, tuple[Tensor, ...]]:
    """How many cores are asked side by side, and their chunks of queries (Q, D)."""
    cores = torch.get_num_threads() if len(queries) > READING else 1
    turns = max(1, math.ceil(len(queries) / cores / CHUNK))  # of each core, all alike
    # Of a few queries each, many cores would all read the whole gallery.
    return cores, queries.split(max(1, READING, math.ceil(len(queries) / cores / turns)))


def _among_blocks(
    queries: Tensor, *, embeddings: Tensor, owners: Tensor, top: int
) -> tuple[Tensor, Tensor]:
    """`search` of a chunk, by the blocks that can matter."""
    facts = {"embeddings": embeddings, "owners": owners, "top": top}
    candidates, values, left_out = _candidates(queries, embeddings, keep=2 * top + 2)
    rows, cosines, sure = best(values, candidates, queries=queries, left_out=left_out, **facts)
    again = torch.nonzero(~sure).flatten()
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
    kept = None
    for found in _of_panels(queries, embeddings, keep=keep):
        if kept is not None:
            both = [torch.cat(parts, dim=1) for parts in zip(kept, found, strict=True)]
            found = _highest(*both, keep=keep)
        kept = found
    highest, numbers, blocks = kept
    complete = keep * BLOCK >= len(embeddings)
    left_out = torch.full_like(highest[:, 0], -torch.inf) if complete else highest.amin(dim=1)
    numbers, order = numbers.sort(dim=1)
    blocks = _of_each(blocks, order)
    rows = numbers[:, :, None] * BLOCK + torch.arange(BLOCK)  # (q, K, BLOCK)
    return rows.flatten(1).clamp(max=len(embeddings) - 1), blocks.flatten(1), left_out


def _of_panels(
    queries: Tensor, embeddings: Tensor, *, keep: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """`_highest` of each panel of rows, one after the other; for one query in a gallery of
    gigabytes side by side, a panel to a core."""
    alone = len(queries) == 1 and embeddings.nbytes > STREAM
    cores = torch.get_num_threads() if alone else 1
    most = math.ceil(len(embeddings) / cores / BLOCK) * BLOCK
    height = min(most, max(1, PANEL // max(1, len(queries)) // BLOCK) * BLOCK)  # of a panel
    firsts = range(0, len(embeddings), height)

    def highest(first: int, panel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        blocks = _blocks(queries, embeddings[first : first + height], panel)
        numbers = torch.arange(blocks.shape[1]).expand(len(queries), -1) + first // BLOCK
        return _highest(blocks.amax(dim=2), numbers, blocks, keep=keep)

    if cores == 1:
        panel = torch.empty(len(queries), height)
        for first in firsts:
            yield highest(first, panel)
        return
    with threads(cores) as pool:
        found = list(pool.map(lambda first: highest(first, torch.empty(1, height)), firsts))
    yield from found


def _blocks(queries: Tensor, rows: Tensor, panel: Tensor) -> Tensor:
    """Cosines with the rows of a panel, by blocks: (q, blocks, BLOCK), written into `panel`."""
    cosines = panel[:, : math.ceil(len(rows) / BLOCK) * BLOCK]
    cosines[:, len(rows) :] = -torch.inf
    found = cosines[:, : len(rows)]
    if len(queries) > READING:  # OpenBLAS: on processors of AMD faster than MKL, which torch has
        np.matmul(queries.numpy(), rows.numpy().T, out=found.numpy())
    elif len(queries) == 1 and torch.get_num_threads() == 1:
        # Row by row a core reads as fast as it can, which it does in no matrix product.
        np.vecdot(rows.numpy(), queries[0].numpy(), out=found[0].numpy())
    else:  # MKL reads faster, but not for one query
        twice = queries if len(queries) > 1 else queries.repeat(2, 1)
        found[:] = torch.mm(rows, twice.T)[:, : len(queries)].T
    return cosines.unflatten(1, (-1, BLOCK))


def _highest(
    highest: Tensor, numbers: Tensor, blocks: Tensor, *, keep: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The `keep` blocks whose best cosine is highest: their best cosine and number (q, K), and
    their cosines (q, K, BLOCK)."""
    highest, chosen = highest.topk(min(keep, highest.shape[1]), dim=1)
    return highest, numbers.gather(1, chosen), _of_each(blocks, chosen)


def _of_each(blocks: Tensor, chosen: Tensor) -> Tensor:
    """Of each query its chosen blocks (q, K, BLOCK)."""
    # Whole rows of a table: three times as fast as an index of two axes.
    step = blocks.stride(0) // BLOCK  # a panel may be wider than its blocks
    table = blocks.as_strided(((len(blocks) - 1) * step + blocks.shape[1], BLOCK), (BLOCK, 1))
    places = torch.arange(len(blocks))[:, None] * step + chosen
    return table.index_select(0, places.flatten()).unflatten(0, chosen.shape)


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
