"""klip's own fine-tuning step under a stop watch.

Nothing of the step is copied: `finetuning.loop.Loop` runs on synthetic JPEGs, watched by
hooks.  Times in seconds.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from PIL import Image
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from klip.data.catalogue import Catalogue
from klip.finetuning.loop import Loop
from klip.model import encoder as encoders
from klip.model.device import default_device
from klip.scale import activations
from klip.settings.checked import Checked
from klip.settings.config import Count, CountOrNone, FinetuneConfig, Precision, Text

SIZE = (400, 400)
"""Sides of the synthetic photographs (A): about those of the paper's sets."""


class Asked(Checked):
    """What is to be measured; what says nothing here is as in `FinetuneConfig`."""

    called: ClassVar[str] = "bench"
    model: Text = "ViT-L-14"
    device: Annotated[str, Field(validate_default=True)] = "auto"
    steps: Annotated[int, Field(ge=2)] = 10
    """Optimiser steps of each series; the first warms up."""
    batch: Annotated[int, Field(validate_default=True)] = 0
    """Images of a step; 0: 64 on a GPU, 4 on a CPU."""
    accumulate: Count = 1
    checkpointing: bool = False
    precision: Precision = "auto"
    products: Annotated[int, Field(ge=2)] = 256
    workers: CountOrNone = 2
    rounds: Count = 3
    """Turns of klip and of PML's trainer."""

    @field_validator("device")
    @classmethod
    def _here(cls, value: str) -> str:
        value = default_device() if value == "auto" else value
        if value not in ("cpu", default_device()):
            raise ValueError("must be auto, cpu, or cuda where there is a GPU")
        return value

    @field_validator("batch")
    @classmethod
    def _whole_batch(cls, value: int, info: ValidationInfo) -> int:
        value = value or (64 if info.data.get("device") == "cuda" else 4)
        if value < 2:
            raise ValueError("must be at least 2")
        return value


class Watched(Loop):
    """klip's loop, with the time at the end of each step.  idle: steps do nothing."""

    idle = False
    ends: list[float]

    def train_step(self, images: Tensor, labels: Tensor) -> float:
        loss = 0.0 if self.idle else super().train_step(images, labels)
        self.ends.append(now(self.device))
        return loss


@contextmanager
def watched(asked: Asked) -> Iterator[Watched]:
    """klip's loop with random weights on a folder of synthetic JPEGs, which goes with the
    context."""
    images = asked.steps * asked.batch
    shared = {"model", "accumulate", "checkpointing", "precision", "workers"}
    settings = FinetuneConfig(
        images=images,
        batch_size=asked.batch,
        depth=max(1, math.ceil(images / asked.products)),
        **asked.model_dump(include=shared),
    )
    config, preprocess = activations.described(asked.model)
    with tempfile.TemporaryDirectory(prefix="klip-bench-") as folder, torch.random.fork_rng([]):
        catalogue = photographs(Path(folder), asked.products)
        encoder = encoders.build(config, preprocess, name=asked.model)
        loop = Watched(settings, catalogue, base=encoder)
        loop.encoder.to(asked.device)
        loop.begin()
        loop.ends = []
        yield loop


def photographs(root: Path, products: int, *, size: tuple[int, int] = SIZE) -> Catalogue:
    """A catalogue of one JPEG per product, smooth colours under noise, so that they are as
    large as photographs.  size: width and height, pixels."""
    rng, rows = np.random.default_rng(0), []
    for number in range(products):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(size), np.int16)  # (height, width, 3)
        pixels = smooth + rng.integers(-12, 13, (*smooth.shape[:2], 1))
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(root / f"{number}.jpg", quality=90)
        rows.append((f"{number}.jpg", f"product {number:05}", "train"))
    frame = pd.DataFrame(rows, columns=["image", "product", "split"])
    return Catalogue(frame, root, "bench")


def step_alone(loop: Watched, steps: int) -> dict[str, Any]:
    """klip's step on one batch of random numbers: a series for the rate, another for the
    parts."""
    size, device = loop.encoder.preprocess.size, loop.device
    images = torch.randn(loop.config.batch_size, 3, size, size)
    labels = torch.arange(len(images)) % loop.head.products
    if device.type == "cuda":
        images = images.pin_memory()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    loop.encoder.checkpointing(loop.config.checkpointing)
    loop.encoder.train()

    def one() -> float:
        return seconds(device, lambda: loop.train_step(images, labels))

    step_s = statistics.median([one() for _ in range(steps)][1:])
    found = {"images_per_s": len(images) / step_s, "step_s": step_s}
    found["parts_s"] = step_parts(loop, one, steps=steps)
    if device.type == "cuda":
        found["peak_allocated_bytes"] = torch.cuda.max_memory_allocated()
        found["peak_reserved_bytes"] = torch.cuda.max_memory_reserved()
    return found


def step_parts(loop: Loop, one: Callable[[], object], *, steps: int) -> dict[str, float]:
    """Medians of the parts of a step `one`: copy to the device, forward with loss, backward,
    optimiser.

    Hooks tell where one passes to the next.  Clipping counts to backward, as do the copies
    of later micro-batches; averaging counts to the optimiser.
    """
    marks = list[tuple[str, float]]()

    def mark(part: str) -> None:
        marks.append((part, now(loop.device)))

    with (
        loop.encoder.register_forward_pre_hook(lambda *_: mark("forward")),
        loop.head.register_forward_hook(lambda *_: mark("backward")),
        loop.optimiser.register_step_pre_hook(lambda *_: mark("optimiser")),
    ):
        for _ in range(steps):
            mark("copy")
            one()
            mark("end")
    table = pd.DataFrame(marks, columns=["part", "at"])
    table = table.assign(seconds=-table["at"].diff(-1), step=table["part"].eq("copy").cumsum())
    sums = table[table["part"] != "end"].groupby(["part", "step"], sort=False)["seconds"].sum()
    return sums.groupby("part", sort=False).median().to_dict()


def loop_rate(loop: Watched, *, idle: bool = False) -> float:
    """Images/s of klip's whole loop, fed with JPEGs, from the end of the first step to the
    end of the last.  idle: the step does nothing, which is what the loader can give."""
    loop.done, loop.seconds, loop.history = 0, 0.0, []
    loop.idle, loop.ends = idle, []
    loop.run()
    loop.idle = False
    return rate(loop, loop.ends)


def rate(loop: Loop, ends: list[float]) -> float:
    """Images/s, from the times at which steps ended."""
    return loop.config.batch_size * (len(ends) - 1) / (ends[-1] - ends[0])


def seconds(device: torch.device, work: Callable[[], object]) -> float:
    """How long the work takes, on the device too."""
    started = now(device)
    work()
    return now(device) - started


def now(device: torch.device) -> float:
    """The time, when a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()
