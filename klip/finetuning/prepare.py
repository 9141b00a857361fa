"""What a run starts from: the encoder, the loss on top of it, and the images.

Axes: B images of a step, S pixels a side, C products, D numbers per embedding.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from klip.data import balance
from klip.data.catalogue import Catalogue
from klip.data.images import read as read_image
from klip.finetuning import run_cache
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


class Start:
    """What a run starts from; encoder and head are trained in place.

    batches: of each step the draws (B, 4), items of `images`.
    held: gallery and queries of the validation, or None.
    cache: is the run to be kept under CACHE/runs?  left_out: files that the catalogue lacks.
    """

    def __init__(
        self,
        config: FinetuneConfig,
        catalogue: Catalogue,
        *,
        base: Encoder | None = None,
        cache: bool = False,
    ) -> None:
        self.config, self.cache, self.left_out = config, cache, catalogue.lost()
        self.encoder = encoder_of(config, base)
        self.plan = plan_of(config, catalogue)
        kin = None
        if config.loss == "triplet" and "group" in catalogue.frame:  # the hierarchy of the products
            groups = catalogue.frame.drop_duplicates("product").set_index("product")["group"]
            kin = torch.from_numpy(triplet.kinship(groups.loc[self.plan.products].tolist()))
        self.head = head_of(config, self.plan.products, dim=self.encoder.dim, kin=kin)
        self.held = catalogue.held_out()
        self.images = Draws(self, catalogue)
        how = {"size": config.batch_size, "together": self.head.wants_pairs}
        self.batches = Batches(self.plan, config.images, **how)

    @property
    def device(self) -> torch.device:
        return self.encoder.device

    @cached_property
    def precision(self) -> str:
        """That of the steps; what is only embedded takes `config.precision` as it is."""
        trained = None if self.config.rates == "frozen" else self.encoder.tower
        return resolve_precision(self.config.precision, self.device, trained=trained)

    @cached_property
    def facts(self) -> list:
        """All that tells the frozen encoder and how it computes (JSON)."""
        how = [self.precision, self.config.precision, self.device.type]
        return [encoders.fingerprint(self.encoder), *how]

    @cached_property
    def folder(self) -> Path | None:
        """Where the run is kept, by all that decides its weights; None: nowhere."""
        if not self.cache:
            return None
        settings = self.config.model_dump(mode="json", exclude=NEUTRAL)
        kin = [hashlib.sha256(value.numpy().tobytes()).hexdigest() for value in self.head.buffers()]
        return run_cache.folder([settings, *self.facts, *kin], [self.plan.rows, *(self.held or ())])

    def embedded(self, shown: Sequence[Catalogue], *, remember: bool = False) -> Tensor:
        """Unit embeddings (N, D) of some images, one catalogue after the other.

        remember: for all runs from this encoder, as long as no step is made.
        """
        files = [file for catalogue in shown for file in catalogue.files]
        how = {"workers": self.config.workers, "precision": self.config.precision}
        return encoders.embed(self.encoder, files, alike=True, again=True, remember=remember, **how)

    def put_centres(self) -> None:
        """Put the first centres on the mean embeddings of the products by the frozen encoder."""
        if self.head.wants_pairs:  # a triplet loss has none
            return
        few = self.plan.rows.first(CENTRE_IMAGES)
        labels = torch.as_tensor(pd.factorize(few["product"])[0])
        sums = torch.zeros(len(self.plan.products), self.encoder.dim)  # (C, D)
        sums.index_add_(0, labels, self.embedded([few], remember=self.cache))
        heads.initialise(self.head, sums)  # which takes their directions

    def adamw(self) -> torch.optim.Optimizer:
        """AdamW on the blocks of the tower, each at its rate, and on the weights of the loss."""
        config, groups = self.config, []
        if config.rates != "frozen":
            ladder = {"reading": config.rates, "top_lr": config.top_lr, "decay": config.decay}
            ladder["weight_decay"] = config.weight_decay
            groups = blocks.parameter_groups(self.encoder.tower, **ladder)
        own = self.head.parameter_group(config.head_lr)
        if own["params"]:
            groups.append(own)
        return blocks.optimiser(groups, config.optimiser)


def encoder_of(config: FinetuneConfig, base: Encoder | None = None) -> Encoder:
    """The encoder that is to be trained: `config.model`, or a copy of `base`."""
    if base is None:
        encoder = encoders.load(config.model, config.resize, pixels=config.pixels)
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


def plan_of(config: FinetuneConfig, catalogue: Catalogue) -> balance.Plan:
    """Which images are drawn when."""
    even = config.depth % 2 == 0 and config.batch_size % 2 == 0
    if config.loss == "triplet" and not (even and config.balanced):
        raise ValueError(
            "fine-tuning: the triplet loss wants pairs, so balanced draws, an even depth and an "
            f"even batch_size, got balanced {config.balanced}, {config.depth} and "
            f"{config.batch_size}"
        )
    how = {"breadth": config.breadth, "seed": config.seed, "balanced": config.balanced}
    return balance.plan(catalogue, config.depth, **how)


def head_of(
    config: FinetuneConfig, products: list[str], *, dim: int, kin: Tensor | None = None
) -> heads.Head:
    """The loss.  kin: hierarchy of the triplet loss, (C, C), see `triplet.kinship`."""
    with torch.random.fork_rng([]):  # its first weights are drawn, and then replaced
        return heads.Head(config, len(products), dim=dim, kin=kin)


class Batches(Sequence):
    """The draws (B, 4) of each step, as `Plan.draws` gives them one by one; of a million
    images none are kept but those of two epochs."""

    def __init__(self, plan: balance.Plan, images: int, *, size: int, together: bool) -> None:
        self.plan, self.images, self.size = plan, images, size
        self._epoch = lru_cache(2)(partial(plan.epoch, together=together))

    def __len__(self) -> int:
        return math.ceil(self.images / self.size)

    def __getitem__(self, step: int) -> Tensor:
        if not 0 <= step < len(self):
            raise IndexError(step)
        at, end, found = step * self.size, min((step + 1) * self.size, self.images), []
        while at < end:
            epoch, first = divmod(at, len(self.plan))
            drawn = self._epoch(epoch)[first : first + end - at]
            index = np.arange(first, first + len(drawn))
            found.append(np.column_stack([np.full_like(index, epoch), index, drawn]))
            at += len(drawn)
        return torch.from_numpy(np.concatenate(found))


class Draws(Dataset):
    """Item (epoch, index, row, repeat): the augmented image (3, S, S), its product's label."""

    def __init__(self, start: Start, catalogue: Catalogue) -> None:
        config, plan, preprocess = start.config, start.plan, start.encoder.preprocess
        self.seed, self.strength = plan.seed, config.strength
        self.preprocess = preprocess.changed(size=config.train_pixels or preprocess.size)
        self.at_least = 2 * self.preprocess.size if config.decode == "scaled" else 0
        self.files = catalogue.files
        labels = pd.factorize(plan.rows["product"])[0].tolist()
        self.labels = dict(zip(plan.rows["row"], labels, strict=True))

    def __getitem__(self, draw: list[int]) -> tuple[Tensor, int]:
        epoch, index, row, repeat = draw
        # numbers of its own for each draw: one image whichever worker reads it, and when
        rng = np.random.default_rng((self.seed, epoch, index))
        pixels = read_image(self.files[row], self.at_least)
        strength = min(2.0, HARDER * self.strength) if repeat else self.strength
        image = augment.training(pixels, self.preprocess, rng=rng, strength=strength)
        return torch.from_numpy(image), self.labels[row]
