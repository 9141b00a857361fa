"""What a run starts from: the encoder, the loss on top of it, and the images.

Axes: b images, S pixels a side, C products, D numbers per embedding.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from klip.data import balance
from klip.data.images import read as read_image
from klip.finetuning import run_cache
from klip.finetuning.validation import Held, held_out, validate
from klip.model import augment, blocks, encoder as encoders, heads, towers, triplet
from klip.model.device import resolve_precision
from klip.model.encoder import Encoder
from klip.settings.config import FinetuneConfig

HARDER = 1.5
"""Strength of the augmentation of an image that comes back within an epoch, a factor (A)."""
CENTRE_IMAGES = 4
"""Images per product whose mean embedding is the first centre of the product (A)."""
NEUTRAL = {"workers", "save_every"}
"""Settings that change nothing in the result."""


@dataclass(frozen=True)
class Start:
    """What a run starts from; encoder and head are trained in place.

    batches: of each step the draws (B, 4), items of `images`.
    precision: of the steps.  What is only embedded, for centres and validation, takes
    `config.precision` as it is.
    held: gallery and queries of the validation, if there are any.
    facts: all that tells the frozen encoder and how it computes (JSON); None: no cache.
    """

    config: FinetuneConfig
    encoder: Encoder
    head: heads.Head
    plan: balance.Plan
    images: Draws
    batches: tuple[Tensor, ...]
    held: Held | None
    precision: str
    facts: list | None = None

    def folder(self, *more: object) -> Path:
        """Where the run is kept.  more: what else decides its weights (JSON)."""
        settings = self.config.model_dump(mode="json", exclude=NEUTRAL)
        hierarchy = [hashlib.sha256(b.numpy().tobytes()).hexdigest() for b in self.head.buffers()]
        facts = [settings, *self.facts, *hierarchy, *more]
        return run_cache.folder(facts, [self.plan.rows, *(self.held or ())])


def encoder_of(config: FinetuneConfig, base: Encoder | None = None) -> Encoder:
    """The encoder that is to be trained: `config.model`, or a copy of `base`."""
    if base is None:
        encoder = encoders.load(config.model, resize=config.resize, pixels=config.pixels)
    else:
        encoder = copy.deepcopy(base)
    if config.proj == "drop":
        encoders.drop_projection(encoder)
    if config.train_pixels and towers.sees_one_size(encoder.tower):
        raise ValueError(
            f"fine-tuning: {encoder.name} has a table of positions and is trained at the size "
            f"it has, {encoder.preprocess.size} pixels; take train_pixels 0, or another size "
            "by pixels"
        )
    return encoder


def start(
    config: FinetuneConfig, catalogue: pd.DataFrame, *, encoder: Encoder, cache: bool = False
) -> Start:
    """All that a run needs, but that the centres are not on their places yet."""
    even = config.depth % 2 == 0 and config.batch_size % 2 == 0
    if config.loss == "triplet" and not (even and config.balanced):
        raise ValueError(
            "fine-tuning: the triplet loss wants pairs, so balanced draws, an even depth and an "
            f"even batch_size, got balanced {config.balanced}, {config.depth} and "
            f"{config.batch_size}"
        )
    how = {"breadth": config.breadth, "seed": config.seed, "balanced": config.balanced}
    plan = balance.plan(catalogue, config.depth, **how)
    plan.rows.attrs["root"] = catalogue.attrs["root"]
    kin = None
    if config.loss == "triplet" and "group" in catalogue:  # the hierarchy of the products
        groups = catalogue.drop_duplicates("product").set_index("product")["group"]
        kin = torch.from_numpy(triplet.kinship(groups.loc[plan.products].tolist()))
    trained = None if config.rates == "frozen" else encoder.tower
    precision = resolve_precision(config.precision, encoder.device, trained=trained)
    facts = None
    if cache:
        numbers = [precision, config.precision, encoder.device.type]
        facts = [encoders.fingerprint(encoder), *numbers]
    head = head_of(config, plan.products, dim=encoder.dim, kin=kin)
    images = Draws(plan, catalogue, preprocess=encoder.preprocess, config=config)
    draws = torch.tensor(list(plan.draws(config.images, together=head.wants_pairs)))
    batches, held = draws.split(config.batch_size), held_out(catalogue)
    return Start(config, encoder, head, plan, images, batches, held, precision, facts)


def head_of(
    config: FinetuneConfig, products: list[str], *, dim: int, kin: Tensor | None = None
) -> heads.Head:
    """The loss.  kin: hierarchy of the triplet loss, (C, C), see `triplet.kinship`."""
    margin = {"margin_deg": config.margin_deg, "scale": config.scale}
    with torch.random.fork_rng([]):  # its first weights are drawn, and then replaced
        return heads.Head(
            config.loss, len(products), dim=dim, entropy=config.entropy, kin=kin, **margin
        )


def optimiser_of(start: Start) -> torch.optim.Optimizer:
    """AdamW on the blocks of the tower, each at its rate, and on the weights of the loss."""
    config, groups = start.config, []
    if config.rates != "frozen":
        ladder = {"top_lr": config.top_lr, "decay": config.decay}
        ladder |= {"reading": config.rates, "weight_decay": config.weight_decay}
        groups = blocks.parameter_groups(start.encoder.tower, **ladder)
    own = start.head.parameter_group(config.head_lr)
    if own["params"]:
        groups.append(own)
    return blocks.optimiser(groups, config.optimiser)


def put_centres(start: Start) -> None:
    """Put the first centres on the mean embeddings of the products by the frozen encoder."""
    encoder, plan = start.encoder, start.plan
    if start.head.wants_pairs:  # a triplet loss has none
        return
    few = plan.rows.groupby("product").head(CENTRE_IMAGES)
    how = {"workers": start.config.workers, "precision": start.config.precision}
    rows = run_cache.once(
        "centres", start.facts, used=[few], compute=lambda: encoders.embed(encoder, few, **how)
    )
    labels = torch.as_tensor(pd.factorize(few["product"])[0])
    sums = torch.zeros(len(plan.products), encoder.dim).index_add_(0, labels, rows)  # (C, D)
    heads.initialise(start.head, sums)  # which takes their directions only


def frozen_top1(start: Start) -> float:
    """Top-1 accuracy of the frozen encoder on the validation, a fraction."""

    def top1() -> Tensor:
        return torch.tensor(validate(start.encoder, start.held, config=start.config)).double()

    return run_cache.once("frozen", start.facts, used=start.held, compute=top1).item()


class Draws(Dataset):
    """Item (epoch, index, row, repeat): the augmented image (3, S, S), its product's label."""

    def __init__(
        self,
        plan: balance.Plan,
        catalogue: pd.DataFrame,
        *,
        preprocess: augment.Preprocess,
        config: FinetuneConfig,
    ) -> None:
        self.seed, self.strength = plan.seed, config.strength
        self.preprocess = replace(preprocess, size=config.train_pixels or preprocess.size)
        self.at_least = self.preprocess.size if config.decode == "scaled" else 0
        self.root, self.names = Path(catalogue.attrs["root"]), catalogue["image"].tolist()
        labels = pd.factorize(plan.rows["product"])[0].tolist()
        self.labels = dict(zip(plan.rows["row"], labels, strict=True))

    def __getitem__(self, draw: list[int]) -> tuple[Tensor, int]:
        epoch, index, row, repeat = draw
        # numbers of its own for each draw: the same image whichever worker reads it, and when
        rng = np.random.default_rng((self.seed, epoch, index))
        pixels = read_image(self.root / self.names[row], self.at_least)
        strength = self.strength
        if repeat:
            strength = min(2.0, HARDER * strength)
        image = augment.training(pixels, self.preprocess, rng, strength)
        return torch.from_numpy(image), self.labels[row]
