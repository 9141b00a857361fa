"""What RetailKLIP is compared with and what has to be trained (paper §2, Tables 1 and 2): one recipe a row.

All rows learn the very products that they are asked about, from the packshots of the gallery: none is zero-shot.  Each
is trained for its budget (`budgets`): whole networks by `loop.finetune`, a linear layer on features that the frozen
tower makes once.  Axes: N views of all packshots, D numbers of a feature, P products.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from klip.finetuning import loop
from klip.finetuning.finished import Run
from klip.model import encoder, heads
from klip.model.encoder import Encoder
from klip.recognise import evaluation, outcomes
from klip.settings.config import FinetuneConfig
from klip.stats import metrics

WHOLE = {"rates": "common", "loss": "softmax", "top_lr": 3e-4, "head_lr": 3e-4}
"""Full fine-tuning: every layer at one rate, chosen among 1e-4, 3e-4 and 1e-3 (head: also 5e-3) for `imagenet`, by 8
images of each product that `budgets.validation` takes: a higher one spoils what ImageNet taught."""
FROZEN = {"rates": "frozen", "loss": "softmax", "head_lr": 1e-3}
"""A linear layer on a frozen tower."""
MAXENT = WHOLE | {"entropy": 1.0}
"""With the MaxEnt loss (A: gamma)."""
VIEWS = 8
"""Views of a packshot that a linear layer on a frozen tower learns from; the strength is that of all training."""
BARE = {
    "resnext": "frozen ResNeXt",
    "semi": "frozen semi-supervised ResNeXt",
    "clip": "frozen encoder",
}
"""The row of each tower as it came, nearest packshot: what its trained rows have to be better than."""
UNDER = "under its frozen backbone"


@dataclass(frozen=True)
class Recipe:
    """A row that is trained: on which tower (`resnext`, `semi` or `clip`), with which settings, judged how."""

    row: str
    tower: str
    changes: dict[str, Any] = field(default_factory=lambda: dict(WHOLE))
    """Fields of FinetuneConfig; they are the typed recipe."""
    lca: bool = False
    by_head: bool = True
    """Answered by the trained classifier; else by the nearest packshot (k = 1)."""
    split: str = "packshots"
    """Trained on one packshot per product; or on `train`, all training images of the set."""
    source: str = ""


RECIPES = (
    Recipe("ResNeXt, full fine-tuning", "resnext", source="paper, Tables 1 and 2"),
    Recipe("ResNeXt + LCA", "resnext", lca=True, source="our reading of Srivastava 2020"),
    Recipe("ResNeXt + MaxEnt", "resnext", MAXENT, source="Dubey et al. 2018"),
    Recipe(
        "ResNeXt + LCA + MaxEnt",
        "resnext",
        MAXENT,
        lca=True,
        source="paper, Tables 1 and 2; our reading",
    ),
    Recipe(
        "semi-supervised ResNeXt + linear layer", "semi", FROZEN, source="paper, Tables 1 and 2"
    ),
    Recipe("frozen CLIP tower + linear layer", "clip", FROZEN),
    Recipe(
        "hierarchical triplets, store-like augmentation",
        "clip",
        {"rates": "blockwise", "loss": "triplet", "top_lr": 2e-4},
        by_head=False,
        source="in the spirit of Tonioni & Di Stefano 2019, without their GAN",
    ),
    Recipe(
        "ResNet on the full training split",
        "resnext",
        split="train",
        source="RP2K's own protocol, Peng et al. 2020",
    ),
)
"""Rows by the names of the claims (`published`); `label` says what they stand on in a run."""


def recipes(backbone: Mapping[str, Encoder]) -> list[Recipe]:
    """RECIPES without the rows that would be another's double, where one tower stands for two of them."""
    marks, kept = (
        {tower: encoder.fingerprint(one) for tower, one in backbone.items()},
        dict[tuple, Recipe](),
    )
    for one in RECIPES:
        kept.setdefault((marks[one.tower], str(one.changes), one.lca, one.split), one)
    return list(kept.values())


def bare(backbone: Mapping[str, Encoder]) -> dict[str, str]:
    """Tower -> the row that it has as it came; `semi` has that of `clip` where it is the same tower."""
    same = encoder.fingerprint(backbone["semi"]) == encoder.fingerprint(backbone["clip"])
    return BARE | ({"semi": BARE["clip"]} if same else {})


def place(set_name: str, row: str, backbone: Mapping[str, Encoder]) -> str:
    """A set for `claims.evidence`, with the tower behind it where that is no ResNeXt: "capg-like on imagenet"."""
    tower = _stand_in(row, backbone)
    return f"{set_name} on {tower}" if tower else set_name


def _stand_in(row: str, backbone: Mapping[str, Encoder]) -> str:
    """The tower that stands for the ResNeXt which a row names, or "" where it is one (or the row names none)."""
    tower = backbone["semi" if "semi-supervised" in row else "resnext"]
    return "" if "ResNe" not in row or "resnext" in tower.arch else tower.name


def label(row: str, backbone: Mapping[str, Encoder]) -> str:
    """A row's name in the tables: "ResNeXt + LCA" is "ImageNet + LCA" where the tower is `imagenet`."""
    name = {"imagenet": "ImageNet"}.get(tower := _stand_in(row, backbone), tower)
    if not name:
        return row
    if "semi-supervised" in row:
        return "frozen " + row.removeprefix("frozen ").replace("semi-supervised ResNeXt", name)
    return row.replace("ResNeXt", name).replace("ResNet", name)


def under_frozen(own: Mapping[str, Sequence[pd.DataFrame]], bare: Mapping[str, str]) -> list[str]:
    """Trained rows that ended under their tower's row `bare`, by mean top-1 over the seeds' frames of one set.
    No interval is asked: a row that did not get above where it began is no rival, even by little."""
    level = {row: metrics.over_seeds(frames).value for row, frames in own.items()}
    return [
        one.row
        for one in RECIPES
        if one.row in own and level[one.row] < level.get(bare[one.tower], 0)
    ]


def missing(recipe: Recipe, catalogue: pd.DataFrame) -> str:
    """Why a row cannot be filled for a set; empty if it can."""
    lacks = recipe.split == "train" and not catalogue["split"].eq("train").any()
    return "the set has no training images" if lacks else ""


def training_images(
    recipe: Recipe, catalogue: pd.DataFrame, rule: str = "first", seed: int = 0
) -> pd.DataFrame:
    """The catalogue that a row is trained on, all of it split `train`: the packshots picked, or the training split with
    all candidates of the gallery, since a product may have no other image."""
    whole = catalogue[catalogue["split"].isin(["train", "gallery"])]
    rows = whole if recipe.split == "train" else evaluation.pick(catalogue, rule, seed)[0]
    rows = rows.assign(split="train").reset_index(drop=True)
    rows.attrs = catalogue.attrs
    return rows


def fit(
    recipe: Recipe,
    tower: Encoder,
    catalogue: pd.DataFrame,
    budget: int,
    rule: str = "first",
    progress: bool = True,
    cache: bool = True,
    features: Tensor | None = None,
    **given: Any,
) -> Run:
    """Train a row for one set, from `tower`, on `budget` images of each product.  given: further fields of
    FinetuneConfig.  features: those of `embed` for these very packshots, if there are any."""
    rows = training_images(recipe, catalogue, rule, given.get("seed", 0))
    images = budget * rows["product"].nunique()
    task = FinetuneConfig(
        **{"model": tower.name, "depth": budget, "images": images} | given | recipe.changes
    )
    if task.rates == "frozen":
        return _fit_head(
            task, tower, rows, embed(tower, rows, task) if features is None else features
        )
    return loop.finetune(
        task, rows, progress=progress, cache=cache, base=with_lca(tower) if recipe.lca else tower
    )


def embed(tower: Encoder, rows: pd.DataFrame, how: FinetuneConfig) -> Tensor:
    """VIEWS augmented views of each image, as the tower gives them, (N, D); the first of an image is the plain one."""
    return encoder.embed(
        tower,
        rows,
        workers=how.workers,
        precision=how.precision,
        views=VIEWS,
        seed=how.seed,
        unit=False,
    )


def _fit_head(config: FinetuneConfig, tower: Encoder, rows: pd.DataFrame, features: Tensor) -> Run:
    """A linear layer on features (N, D); its seconds are those of training alone, the features being there."""
    labels, products = pd.factorize(rows["product"].astype(str), sort=True)
    labels, rng = torch.from_numpy(np.repeat(labels, VIEWS)), np.random.default_rng(config.seed)
    with torch.random.fork_rng([]):
        torch.manual_seed(config.seed)
        head = heads.Head("softmax", len(products), tower.dim)
    unit = torch.nn.functional.normalize(features, dim=1)
    heads.initialise(head, torch.zeros(len(products), tower.dim).index_add_(0, labels, unit))
    optimiser = torch.optim.AdamW([head.parameter_group(config.head_lr)])
    passes = [rng.permutation(len(labels)) for _ in range(-(-config.images // len(labels)))]
    batches = torch.from_numpy(np.concatenate(passes)[: config.images]).split(config.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: loop.rate_factor(step, len(batches), config.warmup)
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


def answer(
    recipe: Recipe,
    run: Run,
    catalogue: pd.DataFrame,
    rule: str = "first",
    views: int = 8,
    seed: int = 0,
    precision: str = "auto",
    **options: Any,
) -> pd.DataFrame:
    """Outcome frame of a trained row on the queries of its set (see `evaluation.evaluate`)."""
    if not recipe.by_head:
        return evaluation.evaluate(
            run.encoder, catalogue, rule, views, seed, precision=precision, **options
        )
    return classify(run, evaluation.pick(catalogue, rule, seed)[1], precision=precision, **options)


@torch.no_grad()
def classify(run: Run, queries: pd.DataFrame, **options: Any) -> pd.DataFrame:
    """Outcome frame of a linear head: its most probable products; `similarity` is the probability of the first."""
    if run.head.loss != "softmax":
        raise ValueError(
            f"baselines: only a softmax head classifies by itself, got {run.head.loss}; "
            "use evaluation.evaluate"
        )
    rows = encoder.embed(run.encoder, queries, unit=False, **options)  # (Q, D)
    best = run.head.body(rows).softmax(dim=1).topk(min(5, len(run.products)), dim=1)
    found = [[run.products[label] for label in labels] for labels in best.indices.tolist()]
    frame = outcomes.frame(queries, found, similarity=best.values[:, 0].numpy())
    frame.attrs = dict(queries.attrs)
    return frame


def with_lca(tower: Encoder) -> Encoder:
    """The same convolutional tower with an LCA layer in the place of its average pooling."""
    if "timm" not in tower.config:
        raise ValueError(
            f"LCA: wants the last map of a timm tower, got {tower.name} ({tower.arch}); use a ResNeXt"
        )
    made = encoder.build(
        tower.config | {"lca": True}, tower.preprocess, f"{tower.name} + LCA", tower.arch
    )
    made.tower.trunk.load_state_dict(tower.tower.trunk.state_dict())
    return made
