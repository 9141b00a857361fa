"""What a run starts from: the encoder, the loss on top of it, and the images.

Axes: S pixels a side, C products, D numbers per embedding.
"""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from klip.data import balance
from klip.data.images import read as read_image
from klip.finetuning import distributed, run_cache
from klip.finetuning.validation import Held, validate
from klip.model import augment, blocks, encoder as encoders, heads, towers, triplet
from klip.model.device import default_device, resolve_precision
from klip.model.encoder import Encoder
from klip.settings.config import FinetuneConfig

HARDER = 1.5
"""Strength of the augmentation of an image that comes back within an epoch, a factor (A)."""
CENTRE_IMAGES = 4
"""Images per product whose mean embedding is the first centre of the product (A)."""
NEUTRAL = {"workers", "save_every"}
"""Settings that change nothing in the result."""


def encoder_of(config: FinetuneConfig, base: Encoder | None) -> Encoder:
    """The encoder that is to be trained: `config.model`, or a copy of `base`."""
    if base is None:
        encoder = encoders.load(config.model, config.resize, pixels=config.pixels)
    else:
        encoder = copy.deepcopy(base)
    if config.proj == "drop":
        encoders.drop_projection(encoder)
    if config.train_pixels and towers.sees_one_size(encoder.tower):
        raise ValueError(
            f"fine-tuning: {encoder.name} has a table of positions and is trained at the size it has, "
            f"{encoder.preprocess.size} pixels; take train_pixels 0, or another size by pixels"
        )
    return encoder


def plan_of(config: FinetuneConfig, catalogue: pd.DataFrame) -> balance.Plan:
    """Which images are drawn when."""
    even = config.depth % 2 == 0 and config.batch_size % 2 == 0
    if config.loss == "triplet" and not (even and config.balanced):
        raise ValueError(
            "fine-tuning: the triplet loss wants pairs, so balanced draws, an even depth and an even "
            f"batch_size, got balanced {config.balanced}, {config.depth} and {config.batch_size}"
        )
    plan = balance.plan(catalogue, config.depth, config.breadth, config.seed, config.balanced)
    plan.rows.attrs["root"] = catalogue.attrs["root"]
    return plan


def head_of(
    config: FinetuneConfig, products: list[str], dim: int, catalogue: pd.DataFrame | None = None
) -> heads.Head:
    """The loss.  A column `group` of the catalogue is the hierarchy of the triplet loss."""
    kin = None
    if config.loss == "triplet" and catalogue is not None and "group" in catalogue:
        groups = catalogue.drop_duplicates("product").set_index("product")["group"]
        kin = torch.from_numpy(triplet.kinship(groups.loc[products].tolist()))
    with torch.random.fork_rng([]):  # its first weights are drawn, and then replaced
        return heads.Head(config, len(products), dim=dim, kin=kin)


def place(
    config: FinetuneConfig, base: Encoder, head: heads.Head, used: list[pd.DataFrame]
) -> tuple[list, Path]:
    """What tells the frozen encoder and how it computes, and the folder of the run."""
    device = default_device()
    precision = step_precision(config, base, device)
    start = [encoders.fingerprint(base), precision, config.precision, device]
    settings = config.model_dump(mode="json", exclude=NEUTRAL)
    hierarchy = [hashlib.sha256(value.numpy().tobytes()).hexdigest() for value in head.buffers()]
    facts = [settings, *start, distributed.count(), *hierarchy]
    return start, run_cache.folder(facts, used)


def step_precision(config: FinetuneConfig, encoder: Encoder, device: str | torch.device) -> str:
    """That of the steps; what is only embedded, centres and validation, takes
    `config.precision` as it is."""
    trained = None if config.rates == "frozen" else encoder.tower
    return resolve_precision(config.precision, device, trained=trained)


def optimiser_of(
    config: FinetuneConfig, tower: nn.Module, head: heads.Head
) -> torch.optim.Optimizer:
    """AdamW on the blocks of the tower, each at its rate, and on the weights of the loss."""
    groups = []
    if config.rates != "frozen":
        ladder = {"top_lr": config.top_lr, "decay": config.decay}
        how = {"weight_decay": config.weight_decay, **ladder}
        groups = blocks.parameter_groups(tower, config.rates, **how)
    own = head.parameter_group(config.head_lr)
    if own["params"]:
        groups.append(own)
    return blocks.optimiser(groups, config.optimiser)


def put_centres(
    head: heads.Head,
    encoder: Encoder,
    plan: balance.Plan,
    config: FinetuneConfig,
    start: list | None = None,
) -> None:
    """Put the first centres on the mean embeddings of the products by the frozen encoder.

    start: see `run_cache.once`.
    """
    if head.wants_pairs:  # a triplet loss has none
        return
    few = plan.rows.groupby("product").head(CENTRE_IMAGES)
    how = {"workers": config.workers, "precision": config.precision}
    rows = run_cache.once("centres", start, [few], lambda: encoders.embed(encoder, few, **how))
    labels = torch.as_tensor(pd.factorize(few["product"])[0])
    sums = torch.zeros(len(plan.products), encoder.dim).index_add_(0, labels, rows)  # (C, D)
    heads.initialise(head, sums)


def frozen_top1(
    config: FinetuneConfig, encoder: Encoder, held: Held, start: list | None = None
) -> float:
    """Top-1 accuracy of the frozen encoder on the validation.  start: see `run_cache.once`."""

    def top1() -> Tensor:
        value = validate(encoder, held, config.precision, config.workers)
        return torch.tensor(value, dtype=torch.float64)

    return run_cache.once("frozen", start, held, top1).item()


class Draws(Dataset):
    """Item (epoch, index, row, repeat): the augmented image (3, S, S), its product's label."""

    def __init__(
        self,
        plan: balance.Plan,
        catalogue: pd.DataFrame,
        preprocess: augment.Preprocess,
        config: FinetuneConfig,
    ) -> None:
        self.seed, self.strength = plan.seed, config.strength
        self.preprocess = preprocess.changed(size=config.train_pixels or preprocess.size)
        self.at_least = self.preprocess.size if config.decode == "scaled" else 0
        self.root, self.names = Path(catalogue.attrs["root"]), catalogue["image"].tolist()
        labels = pd.factorize(plan.rows["product"])[0].tolist()
        self.labels = dict(zip(plan.rows["row"], labels, strict=True))

    def __getitem__(self, draw: list[int]) -> tuple[Tensor, int]:
        epoch, index, row, repeat = draw
        rng = np.random.default_rng((self.seed, epoch, index))
        pixels = read_image(self.root / self.names[row], self.at_least)
        strength = self.strength
        if repeat:
            strength = min(2.0, HARDER * strength)
        image = augment.training(pixels, self.preprocess, rng=rng, strength=strength)
        return torch.from_numpy(image), self.labels[row]
