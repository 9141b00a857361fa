"""How many images per product a trained baseline gets: as many as raise its accuracy.

The paper says nothing of it (A), and too few make a rival weak.  Chosen on held-out
products of the fine-tuning set: trained on a packshot of each, judged on photographs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from klip.data.catalogue import Catalogue
from klip.finetuning import sweep
from klip.model.encoder import Encoder
from klip.recognise import baselines
from klip.recognise.baselines import Recipe
from klip.settings.config import Executor, FinetuneConfig
from klip.stats import metrics

LEAST, LONGEST = 2, 512
"""Images of a product to begin with; the most for a linear layer, whose features are there."""


def validation(finetuning: Catalogue, products: int = 60, *, seed: int = 0) -> Catalogue:
    """A set to choose budgets on: `products` seeded validation products of the fine-tuning set.

    Each has a packshot (split gallery), held-out photographs (query) and its other
    images (train); the fine-tuning set was loaded with `validation`.
    """
    judged, train = finetuning.validation_set(products, seed=seed), finetuning.split("train")
    others = train["product"].isin(judged["product"]) & ~train["image"].isin(judged["image"])
    return finetuning.of(pd.concat([judged.frame, train.frame[others]]))


def curves(
    recipes: Sequence[Recipe],
    backbone: Mapping[str, Encoder],
    *,
    held: Catalogue,
    most: int,
    executor: Executor = "here",
    **given: Any,
) -> pd.DataFrame:
    """The `curve` of each row, one below the other.  executor: cores makes them side by side."""
    how = {"held": held, "most": most, **given}
    jobs = [partial(curve, one, backbone[one.tower], **how) for one in recipes]
    return pd.concat(sweep.side_by_side(jobs, executor), ignore_index=True)


def curve(
    recipe: Recipe, tower: Encoder, *, held: Catalogue, most: int, **given: Any
) -> pd.DataFrame:
    """Held-out top-1 of a row against its budget: 2, 4, 8 ... images per product, each a run.

    It ends when two doublings in a row have brought no rise, or before a run would see
    more than `most` images; for a linear layer, whose features are embedded once, at
    LONGEST per product.  Columns: row, budget, images, mean (top-1, a fraction), low,
    high, chosen (the smallest of the best) and rising (was it the last one tried?).
    """
    products = held.split("gallery")["product"].nunique()
    features = None
    if recipe.changes["rates"] == "frozen":
        how = FinetuneConfig(**{"depth": LEAST} | given)
        features = baselines.embed(tower, baselines.training_images(recipe, held), how=how)
        most = LONGEST * products
    options = {name: given[name] for name in ("precision", "workers") if name in given}
    rows, means, budget = [], [], LEAST
    while budget == LEAST or budget * products <= most:
        run = baselines.fit(
            recipe, tower, catalogue=held, budget=budget, features=features, **given
        )
        frame = baselines.answer(run, held, **options)
        means.append(metrics.score(frame).top1)
        interval = metrics.bootstrap_products(frame)
        rows.append((recipe.row, budget, budget * products, means[-1], *interval))
        budget *= 2
        if len(means) > 2 and max(means[-2:]) <= max(means[:-2]):
            break
    table = pd.DataFrame(rows, columns=["row", "budget", "images", "mean", "low", "high"])
    best = table["mean"].idxmax()  # the first of the best
    return table.assign(chosen=table.index == best, rising=best == len(table) - 1)
