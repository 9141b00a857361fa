"""What RetailKLIP is compared with and what has to be trained (paper §2, Tables 1 and 2).

One recipe a row.  All learn the very products that they are asked about, from packshots
of the gallery: none is zero-shot.  Each is trained for its budget (`budgets`): whole
networks by `loop.finetune`, a linear layer on features that are made once.
Axes: N views of all packshots, D numbers of a feature, P products.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from klip.data.catalogue import Catalogue
from klip.finetuning import loop
from klip.finetuning.finished import Run
from klip.model import encoder, heads
from klip.model.encoder import Encoder
from klip.recognise import evaluation, outcomes
from klip.settings.config import FinetuneConfig
from klip.stats import metrics

WHOLE = {"rates": "common", "loss": "softmax", "top_lr": 3e-4, "head_lr": 3e-4}
"""Full fine-tuning: every layer at one rate, chosen among 1e-4, 3e-4 and 1e-3 (head:
also 5e-3) for `imagenet`, by 8 images of each product that `budgets.validation` takes:
a higher one spoils what ImageNet taught."""
FROZEN = {"rates": "frozen", "loss": "softmax", "head_lr": 1e-3}
"""A linear layer on a frozen tower."""
MAXENT = WHOLE | {"entropy": 1.0}
"""With the MaxEnt loss (A: gamma)."""
TRIPLETS = {"rates": "blockwise", "loss": "triplet", "top_lr": 2e-4}
"""Answered by the nearest packshot; all others by the trained classifier."""
VIEWS = 8
"""Views of a packshot that a linear layer learns from, as strong as in all training."""
BARE = {
    "resnext": "frozen ResNeXt",
    "semi": "frozen semi-supervised ResNeXt",
    "clip": "frozen encoder",
}
"""The row of each tower as it came, nearest packshot: its trained rows have to be better."""
UNDER = "under its frozen backbone"


@dataclass(frozen=True)
class Recipe:
    """A row that is trained: on which tower, with which settings, on which images."""

    row: str
    tower: str  # resnext, semi or clip
    changes: dict[str, Any]
    """Fields of FinetuneConfig; they are the typed recipe."""
    lca: bool = False
    split: str = "packshots"
    """Trained on one packshot per product; or on `train`, all training images of the set."""
    source: str = ""


TABLES = "paper, Tables 1 and 2"
OURS = "our reading of Srivastava 2020"
TONIONI = "in the spirit of Tonioni & Di Stefano 2019, without their GAN"
WHOLE_SPLIT = "ResNet on the full training split"
RP2K = "RP2K's own protocol, Peng et al. 2020"
RECIPES = (
    Recipe("ResNeXt, full fine-tuning", "resnext", WHOLE, source=TABLES),
    Recipe("ResNeXt + LCA", "resnext", WHOLE, lca=True, source=OURS),
    Recipe("ResNeXt + MaxEnt", "resnext", MAXENT, source="Dubey et al. 2018"),
    Recipe("ResNeXt + LCA + MaxEnt", "resnext", MAXENT, lca=True, source=f"{TABLES}; our reading"),
    Recipe("semi-supervised ResNeXt + linear layer", "semi", FROZEN, source=TABLES),
    Recipe("frozen CLIP tower + linear layer", "clip", FROZEN),
    Recipe("hierarchical triplets, store-like augmentation", "clip", TRIPLETS, source=TONIONI),
    Recipe(WHOLE_SPLIT, "resnext", WHOLE, split="train", source=RP2K),
)
"""Rows by the names of the claims (`published`); `label` says what they stand on in a run."""


def recipes(backbone: Mapping[str, Encoder]) -> list[Recipe]:
    """RECIPES without those that would be another's double, as one tower stands for two."""
    marks = {tower: encoder.fingerprint(one) for tower, one in backbone.items()}
    kept: dict[tuple, Recipe] = {}
    for one in RECIPES:
        kept.setdefault((marks[one.tower], str(one.changes), one.lca, one.split), one)
    return list(kept.values())


def bare(backbone: Mapping[str, Encoder]) -> dict[str, str]:
    """Tower -> its row as it came; `semi` has that of `clip` where it is the same tower."""
    same = encoder.fingerprint(backbone["semi"]) == encoder.fingerprint(backbone["clip"])
    return BARE | {"semi": BARE["clip"]} if same else dict(BARE)


def place(set_name: str, row: str, *, backbone: Mapping[str, Encoder]) -> str:
    """A set for `claims.evidence`: "capg-like on imagenet" where that stands for a ResNeXt."""
    tower = _stand_in(row, backbone)
    return f"{set_name} on {tower}" if tower else set_name


def _stand_in(row: str, backbone: Mapping[str, Encoder]) -> str:
    """The tower that stands for the ResNeXt which a row names; "": it is one, or none is named."""
    tower = backbone["semi" if "semi-supervised" in row else "resnext"]
    return "" if "ResNe" not in row or "resnext" in tower.arch else tower.name


def label(row: str, backbone: Mapping[str, Encoder]) -> str:
    """A row's name in the tables: "ResNeXt + LCA" is "ImageNet + LCA" on tower `imagenet`."""
    tower = _stand_in(row, backbone)
    if not tower:
        return row
    name = "ImageNet" if tower == "imagenet" else tower
    row = row.removeprefix("frozen ") if "semi-supervised" in row else row
    row = row.replace("semi-supervised", "frozen")  # all of them are frozen
    return row.replace("ResNeXt", name).replace("ResNet", name)


def under_frozen(own: Mapping[str, Sequence[pd.DataFrame]], bare: Mapping[str, str]) -> list[str]:
    """Trained rows that ended under their tower's row `bare`, even by little (mean top-1 of seeds)."""
    level = {row: metrics.over_seeds(frames).value for row, frames in own.items()}
    trained = [one for one in RECIPES if one.row in own]
    return [one.row for one in trained if level[one.row] < level.get(bare[one.tower], 0)]


def missing(recipe: Recipe, catalogue: Catalogue) -> str:
    """Why a row cannot be filled for a set; empty if it can."""
    lacks = recipe.split == "train" and not catalogue["split"].eq("train").any()
    return "the set has no training images" if lacks else ""


def training_images(
    recipe: Recipe, catalogue: Catalogue, *, rule: str = "first", seed: int = 0
) -> Catalogue:
    """The catalogue that a row is trained on, all of it split `train`.

    The packshots picked, or the training split with all candidates of the gallery,
    since a product may have no other image.
    """
    if recipe.split == "train":
        rows = catalogue.split("train", "gallery")
    else:
        rows, _ = catalogue.pick(rule, seed)
    return rows.assign(split="train")


def fit(
    recipe: Recipe,
    tower: Encoder,
    *,
    catalogue: Catalogue,
    budget: int,
    rule: str = "first",
    features: Tensor | None = None,
    **given: Any,
) -> Run:
    """Train a row for one set, from `tower`, on `budget` images of each product.

    given: fields of FinetuneConfig.  features: those of `embed`, if they are there
    already.
    """
    rows = training_images(recipe, catalogue, rule=rule, seed=given.get("seed", 0))
    images = budget * rows["product"].nunique()
    fields = {"model": tower.name, "depth": budget, "images": images} | given | recipe.changes
    task = FinetuneConfig(**fields)
    if task.rates != "frozen":
        base = with_lca(tower) if recipe.lca else tower
        return loop.finetune(task, rows, progress=False, base=base)
    if features is None:
        features = embed(tower, rows, how=task)
    return _fit_head(task, tower, rows=rows, features=features)


def embed(tower: Encoder, rows: Catalogue, *, how: FinetuneConfig) -> Tensor:
    """VIEWS augmented views of each image as the tower gives them, (N, D); its first is plain."""
    options = how.model_dump(include={"workers", "precision", "seed"})
    return encoder.embed(tower, rows, views=VIEWS, unit=False, **options)


def _fit_head(config: FinetuneConfig, tower: Encoder, *, rows: Catalogue, features: Tensor) -> Run:
    """A linear layer on features (N, D); its seconds are those of training alone."""
    labels, products = pd.factorize(rows["product"].astype(str), sort=True)
    labels = torch.from_numpy(np.repeat(labels, VIEWS))  # (N,)
    unit = torch.nn.functional.normalize(features, dim=1)
    sums = torch.zeros(len(products), tower.dim).index_add_(0, labels, unit)
    with torch.random.fork_rng([]):  # its first weights are random, and replaced
        head = heads.Head(config, len(products), dim=tower.dim)
    heads.initialise(head, sums)
    optimiser = torch.optim.AdamW([head.parameter_group(config.head_lr)])
    rng = np.random.default_rng(config.seed)
    count = math.ceil(config.images / len(labels))
    passes = [rng.permutation(len(labels)) for _ in range(count)]
    batches = torch.from_numpy(np.concatenate(passes)[: config.images]).split(config.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: loop.rate_factor(step, len(batches), warmup=config.warmup)
    )
    losses, started = [], time.perf_counter()
    for batch in batches:
        loss = head(features[batch], labels[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    seconds, seen = time.perf_counter() - started, np.cumsum([len(batch) for batch in batches])
    history = pd.DataFrame({"step": range(1, len(batches) + 1), "images": seen, "loss": losses})
    return Run(tower, head, list(products), history, config, seconds, None)


@torch.no_grad()
def answer(
    run: Run,
    catalogue: Catalogue,
    *,
    rule: str = "first",
    views: int = 8,
    seed: int = 0,
    **reading: Any,
) -> pd.DataFrame:
    """Outcome frame of a trained row on the queries of its set (see `evaluation.evaluate`).

    A classifier answers with its most probable products; `similarity` is a probability.
    """
    if run.head.wants_pairs:  # it learned to compare, not to classify
        how = {"rule": rule, "views": views, "seed": seed, **reading}
        return evaluation.evaluate(run.encoder, catalogue, **how)
    _, asked = catalogue.pick(rule, seed)
    rows = encoder.embed(run.encoder, asked, unit=False, **reading)  # (Q, D)
    best = run.head.body(rows).softmax(dim=1).topk(min(5, len(run.products)), dim=1)
    found = np.array(run.products, object)[best.indices.numpy()]
    return outcomes.frame(asked, found, scores=best.values.numpy())


def with_lca(tower: Encoder) -> Encoder:
    """The same convolutional tower with an LCA layer in the place of its average pooling."""
    if "timm" not in tower.config:
        raise ValueError(
            f"LCA: wants the last map of a timm tower, got {tower.name} ({tower.arch}); use a ResNeXt"
        )
    config, name = tower.config | {"lca": True}, f"{tower.name} + LCA"
    made = encoder.build(config, tower.preprocess, name=name, arch=tower.arch)
    made.tower.trunk.load_state_dict(tower.tower.trunk.state_dict())
    return made
