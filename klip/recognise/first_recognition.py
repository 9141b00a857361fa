"""A new product arrives: how long until it is recognised (claim C9, the "blind spot")?"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd

from klip.data.catalogue import Catalogue
from klip.model.device import at_work
from klip.model.encoder import Encoder
from klip.recognise.gallery import Gallery
from klip.settings.cores import one_core


def arrivals(
    encoder: Encoder,
    catalogue: Catalogue,
    *,
    number: int = 20,
    rule: str = "first",
    seed: int = 0,
    **build: Any,
) -> pd.DataFrame:
    """Seconds from a packshot to the first right answer, for `number` seeded products of a set,
    on one core, as rivals are trained on one each (`rows.fit`).

    The gallery holds all others.  Columns: product, added (seconds to add its packshot
    with all views), asked (queries until one is right, one at a time), seconds (both;
    NaN: none).
    """
    packshots, queries = catalogue.pick(rule, seed)
    shown = packshots.assign(file=packshots.files).frame
    asked_for = queries.assign(file=queries.files).frame
    known = shown["product"].isin(asked_for["product"])
    order = np.random.default_rng(seed).permutation(shown.index[known])[:number]
    rows = []
    # What is timed is embedded, whatever is kept of it.
    full = Gallery.build(encoder, packshots, seed=seed, **(build | {"remember": False}))
    with at_work(encoder), one_core():  # the way to a GPU is no part of an arrival
        for product, packshot in shown.loc[order, ["product", "file"]].itertuples(index=False):
            gallery = full.without({product})
            started = time.perf_counter()
            gallery.add(product, [packshot])
            added, asked, seconds = time.perf_counter() - started, 0, np.nan
            for query in asked_for.loc[asked_for["product"] == product, "file"]:
                asked += 1
                if gallery.classify([query], top=1)["product"][0] == product:
                    seconds = time.perf_counter() - started
                    break
            rows.append((product, added, asked, seconds))
    return pd.DataFrame(rows, columns=["product", "added", "asked", "seconds"])
