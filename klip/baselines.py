"""What RetailKLIP is compared with and what has to be trained (paper §2, Tables 1 and 2): one recipe a row.

All rows train by `train.finetune`: one loop, one augmentation, one number of images seen.  They learn the very
products that they are asked about, from the packshots of the gallery: none of them is zero-shot.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch

from klip import encoder, train, zeroshot
from klip.config import FinetuneConfig
from klip.encoder import Encoder

WHOLE = {"rates": "common", "loss": "softmax", "top_lr": 1e-3, "head_lr": 5e-3}
"""Full fine-tuning: every layer at one rate."""
FROZEN = {"rates": "frozen", "loss": "softmax", "head_lr": 1e-3}
"""A linear layer on a frozen tower."""
MAXENT = WHOLE | {"entropy": 1.0}
"""With the MaxEnt loss.  Its gamma and all rates here were chosen on a third of the validation products of the
rendered range, with one packshot of each, as the evaluation has it (A)."""


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
    Recipe("ResNeXt + LCA + MaxEnt", "resnext", MAXENT, lca=True, source="paper, Tables 1 and 2; our reading"),
    Recipe("semi-supervised ResNeXt + linear layer", "semi", FROZEN, source="paper, Tables 1 and 2"),
    Recipe("frozen CLIP tower + linear layer", "clip", FROZEN),
    Recipe("hierarchical triplets, store-like augmentation", "clip",
           {"rates": "blockwise", "loss": "triplet", "top_lr": 2e-4}, by_head=False,
           source="in the spirit of Tonioni & Di Stefano 2019, without their GAN"),
    Recipe("ResNet on the full training split", "resnext", split="train",
           source="RP2K's own protocol, Peng et al. 2020"),
)


def missing(recipe: Recipe, catalogue: pd.DataFrame) -> str:
    """Why a row cannot be filled for a set; empty if it can."""
    if recipe.split == "train" and not catalogue["split"].eq("train").any():
        return "the set has no training images"
    return ""


def training_images(recipe: Recipe, catalogue: pd.DataFrame, rule: str = "first", seed: int = 0) -> pd.DataFrame:
    """The catalogue that a row is trained on, all of it split `train`: the packshots picked, or the training split.

    With the training split go the candidates of the gallery: a product without any other image has those.
    """
    if recipe.split == "train":
        rows = catalogue[catalogue["split"].isin(["train", "gallery"])]
    else:
        rows, _ = zeroshot.pick(catalogue, rule, seed)
    rows = rows.assign(split="train").reset_index(drop=True)
    rows.attrs = catalogue.attrs
    return rows


def config(recipe: Recipe, products: int, images: int, **given: Any) -> FinetuneConfig:
    """The settings of a row: as many draws of every product as the budget of `images` gives, an even number."""
    depth = max(2, 2 * round(images / products / 2))
    return FinetuneConfig(**{"depth": depth, "images": images} | given | recipe.changes)


def fit(recipe: Recipe, tower: Encoder, catalogue: pd.DataFrame, images: int, rule: str = "first",
        progress: bool = True, cache: bool = True, **given: Any) -> train.Run:
    """Train a row for one set, from `tower`, seeing `images` images; `given` are further fields of FinetuneConfig."""
    rows = training_images(recipe, catalogue, rule, given.get("seed", 0))
    base = with_lca(tower) if recipe.lca else tower
    task = config(recipe, rows["product"].nunique(), images, model=tower.name, **given)
    return train.finetune(task, rows, progress=progress, cache=cache, base=base)


def answer(recipe: Recipe, run: train.Run, catalogue: pd.DataFrame, rule: str = "first", views: int = 8, seed: int = 0,
           precision: str = "auto", **options: Any) -> pd.DataFrame:
    """Outcome frame of a trained row on the queries of its set (see `zeroshot.evaluate`)."""
    if not recipe.by_head:
        return zeroshot.evaluate(run.encoder, catalogue, rule, views, seed, precision=precision, **options)
    return classify(run, zeroshot.pick(catalogue, rule, seed)[1], precision=precision, **options)


@torch.no_grad()
def classify(run: train.Run, queries: pd.DataFrame, **options: Any) -> pd.DataFrame:
    """Outcome frame of a linear head: its most probable products; `similarity` is the probability of the first."""
    if run.head.loss != "softmax":
        raise ValueError(f"baselines: only a softmax head classifies by itself, got {run.head.loss}; "
                         "use zeroshot.evaluate")
    rows = encoder.embed(run.encoder, queries, unit=False, **options)                           # (Q, D)
    best = run.head.body(rows).softmax(dim=1).topk(min(5, len(run.products)), dim=1)
    found = [[run.products[label] for label in labels] for labels in best.indices.tolist()]
    truth = list(zip(found, queries["product"], strict=True))
    frame = queries[["image", "product"]].assign(
        predicted=[names[0] for names in found], top1=[names[0] == product for names, product in truth],
        top5=[product in names for names, product in truth], similarity=best.values[:, 0].numpy())
    frame.attrs = dict(queries.attrs)
    return frame


def with_lca(tower: Encoder) -> Encoder:
    """The same convolutional tower with an LCA layer in the place of its average pooling."""
    if "timm" not in tower.config:
        raise ValueError(f"LCA: wants the last map of a timm tower, got {tower.name} ({tower.arch}); use a ResNeXt")
    made = encoder.build(tower.config | {"lca": True}, tower.preprocess, f"{tower.name} + LCA", tower.arch)
    made.tower.trunk.load_state_dict(tower.tower.trunk.state_dict())
    return made
