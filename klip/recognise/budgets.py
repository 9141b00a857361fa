"""How many images per product a trained baseline gets: as many as raise its accuracy on validation products.

The paper says nothing of it (A), and too few images make a rival weak.  Chosen on products of the fine-tuning set that
are held out, as the evaluation has it: trained on one packshot of each, judged on photographs that were not seen.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from klip.finetuning.validation import validation_set
from klip.model.encoder import Encoder
from klip.recognise import baselines
from klip.recognise.baselines import Recipe
from klip.settings.config import FinetuneConfig
from klip.stats import metrics

LEAST, LONGEST = 2, 512
"""Images of a product to begin with; the most of one for a linear layer, whose features are there already."""


def validation(finetuning: pd.DataFrame, products: int = 60, seed: int = 0) -> pd.DataFrame:
    """A set to choose budgets on: `products` seeded validation products of the fine-tuning set (loaded with
    `validation`), each with a packshot (split gallery), held-out photographs (query) and its other images (train)."""
    judged = validation_set(finetuning, products, seed)
    others = finetuning[(finetuning["split"] == "train") & ~finetuning.index.isin(judged.index)]
    frame = pd.concat(
        [judged, others[others["product"].isin(judged["product"])]], ignore_index=True
    )
    frame.attrs = finetuning.attrs
    return frame


def curve(
    recipe: Recipe, tower: Encoder, held: pd.DataFrame, most: int, **given: Any
) -> pd.DataFrame:
    """Held-out top-1 of a row against its budget, on `validation` products: 2, 4, 8 ... images per product, each a run.

    It ends when two doublings in a row have brought no rise, or before a run would see more than `most` images; for a
    linear layer, whose features are embedded once, at LONGEST images per product.  Columns: row, budget, images, mean
    (top-1, a fraction), low, high, chosen (the smallest of the best) and rising (was it the last one tried?).
    """
    products, found, features = held.loc[held["split"] == "gallery", "product"].nunique(), [], None
    if recipe.changes["rates"] == "frozen":
        how = FinetuneConfig(**{"depth": LEAST} | given)
        most, features = (
            LONGEST * products,
            baselines.embed(tower, baselines.training_images(recipe, held), how),
        )
    budget, options = (
        LEAST,
        {name: given[name] for name in ("precision", "workers") if name in given},
    )
    while budget == LEAST or budget * products <= most:
        run = baselines.fit(recipe, tower, held, budget, progress=False, features=features, **given)
        frame = baselines.answer(recipe, run, held, **options)
        low, high = metrics.bootstrap_products(frame)
        found.append(
            {
                "row": recipe.row,
                "budget": budget,
                "images": budget * products,
                "mean": metrics.score(frame).top1,
                "low": low,
                "high": high,
            }
        )
        means, budget = [row["mean"] for row in found], 2 * budget
        if len(means) > 2 and max(means[-2:]) <= max(means[:-2]):
            break
    table = pd.DataFrame(found)
    best = table["mean"].idxmax()  # the first of the best
    return table.assign(chosen=table.index == best, rising=best == len(table) - 1)
