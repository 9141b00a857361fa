"""A new product arrives: how long until it is recognised (claim C9, the "blind spot")?"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd

from klip.model import encoder as encoders
from klip.model.device import at_work
from klip.model.encoder import Encoder
from klip.recognise.evaluation import pick
from klip.recognise.gallery import Gallery


def arrivals(
    encoder: Encoder,
    catalogue: pd.DataFrame,
    *,
    number: int = 20,
    rule: str = "first",
    seed: int = 0,
    **build: Any,
) -> pd.DataFrame:
    """Seconds from a packshot to the first right answer, for `number` seeded products of a set.

    The gallery holds all others.  Columns: product, added (seconds to add its packshot
    with all views), asked (queries until one is right, one at a time), seconds (both;
    NaN: none).
    """
    packshots, queries = pick(catalogue, rule, seed=seed)
    packshots = packshots.assign(file=encoders.image_files(packshots))
    queries = queries.assign(file=encoders.image_files(queries))
    known = packshots["product"].isin(queries["product"])
    order = np.random.default_rng(seed).permutation(packshots.index[known])[:number]
    rows = []
    with at_work(encoder):  # it stays there: the way to a GPU is no part of an arrival
        full = Gallery.build(encoder, packshots, seed=seed, **build)
        for product, packshot in packshots.loc[order, ["product", "file"]].itertuples(index=False):
            gallery = full.without({product})
            started = time.perf_counter()
            gallery.add(product, [packshot])
            added, asked, seconds = time.perf_counter() - started, 0, np.nan
            for query in queries.loc[queries["product"] == product, "file"]:
                asked += 1
                if gallery.classify([query], top=1)["product"][0] == product:
                    seconds = time.perf_counter() - started
                    break
            rows.append((product, added, asked, seconds))
    return pd.DataFrame(rows, columns=["product", "added", "asked", "seconds"])
