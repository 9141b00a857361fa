"""Fine-tuning as users write it without klip: loops and trainers by their documentation.

Axes: B images of a step, D numbers per embedding.
"""

from __future__ import annotations

import contextlib
import io
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import RandomSampler

from klip.scale.contender import Round, now
from klip.scale.plain import Photographs, autocast, dim, of_open_clip, shuffled
from klip.settings.config import FinetuneConfig

USUAL = {name: field.default for name, field in FinetuneConfig.model_fields.items()}
MARGIN, SCALE = USUAL["margin_deg"], USUAL["scale"]
"""Of ArcFace, the margin in degrees."""
RATES = {"lr": USUAL["top_lr"], "weight_decay": USUAL["weight_decay"]}
"""Of AdamW; klip has a rate for each block."""


@dataclass(frozen=True)
class Training:
    """What a contestant is given.  folder: of `same_start.write`; labels: of the files, from
    0; steps: of a round, of which the first is not counted."""

    folder: str
    files: list[str]
    labels: list[int]
    batch: int
    steps: int
    workers: int = 2
    precision: str = "fp32"
    device: str = "cpu"

    @property
    def products(self) -> int:
        return max(self.labels) + 1

    @property
    def loading(self) -> dict[str, int]:
        """What a loader is told."""
        return {"batch": self.batch, "steps": self.steps, "num_workers": self.workers}

    def counted(self, ends: list[float]) -> dict[str, Any]:
        """What a round tells; ends: when its steps ended, of which the first is not counted."""
        work, done = self.batch * (len(ends) - 1), self.batch * len(ends)
        return {"work": work, "seconds": ends[-1] - ends[0], "done": done}


def plain(given: dict[str, Any]) -> Round:
    """The loop that a user of open_clip writes, with PML's ArcFace."""
    from pytorch_metric_learning.losses import ArcFaceLoss

    asked = Training(**given)
    tower, transform, _ = of_open_clip(asked.folder, asked.device)
    criterion = ArcFaceLoss(asked.products, dim(asked.folder), margin=MARGIN, scale=SCALE)
    criterion.to(asked.device)
    weights = [*tower.parameters(), *criterion.parameters()]
    optimiser = torch.optim.AdamW(weights, **RATES)
    files = Photographs(asked.files, transform, asked.labels)

    def work() -> dict[str, Any]:
        ends = list[float]()
        tower.train()
        for images, labels in shuffled(files, **asked.loading):
            images, labels = images.to(asked.device), labels.to(asked.device)
            with autocast(asked.precision, asked.device):
                embeddings = tower(images)
            loss = criterion(embeddings.float(), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss.item()  # everybody watches it
            ends.append(now(asked.device))
        return asked.counted(ends)

    return work


def pml(given: dict[str, Any]) -> Round:
    """The trainer `MetricLossOnly` of pytorch-metric-learning."""
    from pytorch_metric_learning.losses import ArcFaceLoss
    from pytorch_metric_learning.trainers import MetricLossOnly

    asked = Training(**given)
    tower, transform, _ = of_open_clip(asked.folder, asked.device)
    # it has no switch for the precision
    tower.forward = autocast(asked.precision, asked.device)(tower.forward)
    loss = ArcFaceLoss(asked.products, dim(asked.folder), margin=MARGIN, scale=SCALE).to(
        asked.device
    )
    optimizers = {
        "trunk_optimizer": torch.optim.AdamW(tower.parameters(), **RATES),
        "metric_loss_optimizer": torch.optim.AdamW(loss.parameters(), **RATES),
    }
    files = Photographs(asked.files, transform, asked.labels)

    def work() -> dict[str, Any]:
        ends = list[float]()
        trainer = MetricLossOnly(
            models={"trunk": tower},
            optimizers=optimizers,
            batch_size=asked.batch,
            loss_funcs={"metric_loss": loss},
            dataset=files,
            sampler=RandomSampler(files, num_samples=asked.batch * asked.steps),
            data_device=torch.device(asked.device),
            dataloader_num_workers=asked.workers,
            end_of_iteration_hook=lambda _: ends.append(now(asked.device)),
        )
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar without a switch
            trainer.train(num_epochs=1)
        return asked.counted(ends)

    return work


def oml(given: dict[str, Any]) -> Round:
    """The loop of the README of open-metric-learning, with its ArcFace and its extractor.

    Its datasets want albumentations, so batches of its form come from another.
    """
    from oml.interfaces.models import IExtractor
    from oml.losses import ArcFaceLoss

    asked = Training(**given)
    tower, transform, _ = of_open_clip(asked.folder, asked.device)

    class Extractor(IExtractor):
        """The tower under OML's interface."""

        def __init__(self) -> None:
            super().__init__()
            self.tower = tower

        @property
        def feat_dim(self) -> int:
            return dim(asked.folder)

        def forward(self, images: Tensor) -> Tensor:
            return self.tower(images)

    model = Extractor().train()
    criterion = ArcFaceLoss(model.feat_dim, asked.products, m=math.radians(MARGIN), s=SCALE).to(
        asked.device
    )
    optimizer = torch.optim.AdamW([*model.parameters(), *criterion.parameters()], **RATES)
    files = Named(asked.files, transform, asked.labels)

    def work() -> dict[str, Any]:
        ends = list[float]()
        for batch in shuffled(files, **asked.loading):
            with autocast(asked.precision, asked.device):
                embeddings = model(batch["input_tensors"].to(asked.device))
            loss = criterion(embeddings.float(), batch["labels"].to(asked.device))
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            ends.append(now(asked.device))
        return asked.counted(ends)

    return work


class Named(Photographs):
    """Items as OML's datasets name their parts."""

    def __getitem__(self, item: int) -> dict[str, Any]:
        image, label = super().__getitem__(item)
        return {"input_tensors": image, "labels": label, "idx": item}
