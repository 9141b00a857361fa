"""Which settings fit a GPU: the peak memory of a fine-tuning step part by part, told before there is a GPU.

The parts are counted by `activations`; sizes are in bytes, and in GiB where people read them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from klip.scale.activations import Need, need
from klip.settings.config import Settings

GIB = 2**30
RESERVE_GIB = 0.75
"""Kept free for the CUDA context, the workspaces of its libraries and what the allocator cannot use (A19)."""


@dataclass(frozen=True)
class Plan:
    """Settings that fit.  micro: images at a time; parts: bytes at the peak, without the reserve."""

    model: str
    precision: str
    gpu_bytes: float
    reserve: float
    batch_size: int
    accumulate: int
    checkpointing: bool
    micro: int
    parts: dict[str, float]
    largest: dict[bool, int]
    """The largest micro-batch that fits without (False) and with (True) checkpointing; 0: none does."""
    need: Need
    images: int
    products: int
    frozen_blocks: int

    @property
    def peak(self) -> float:
        return sum(self.parts.values())

    @property
    def settings(self) -> dict[str, Any]:
        """By the names of FinetuneConfig, to be given with --set or papermill's -p."""
        found = {
            "batch_size": self.batch_size,
            "accumulate": self.accumulate,
            "checkpointing": self.checkpointing,
            "precision": self.precision,
        }
        return found | ({"frozen_blocks": self.frozen_blocks} if self.frozen_blocks else {})


def plan(
    model: str,
    gpu_gb: float = 11.0,
    images: int = 325_000,
    batch: int = 64,
    precision: str = "auto",
    products: int = 6500,
    frozen_blocks: int = 0,
    ema: bool = False,
    reserve_gb: float = RESERVE_GIB,
) -> Plan:
    """The fewest micro-batches that give `batch` images a step on a GPU of `gpu_gb` GiB; checkpointing only if needed.
    ValueError: an unknown model, a number out of range, a GPU too small for one image at a time."""
    if not 0 < gpu_gb < math.inf:
        raise ValueError(f"plan: gpu_gb must be above 0, got {gpu_gb!r}")
    for name, value, least in (
        ("images", images, 1),
        ("batch", batch, 1),
        ("products", products, 2),
        ("frozen_blocks", frozen_blocks, 0),
        ("reserve_gb", reserve_gb, 0),
    ):
        if not least <= value < math.inf:
            raise ValueError(f"plan: {name} must be at least {least}, got {value!r}")
    found = need(model, precision, products, frozen_blocks)
    budget = (gpu_gb - reserve_gb) * GIB

    def peak(micro: int, checkpointing: bool) -> float:
        return sum(found.parts(micro, math.ceil(batch / micro), checkpointing, ema).values())

    largest = {
        on: max((micro for micro in range(1, batch + 1) if peak(micro, on) <= budget), default=0)
        for on in (False, True)
    }
    checkpointing = not largest[False]
    if not largest[checkpointing]:
        least = peak(1, True) / GIB + reserve_gb
        raise ValueError(
            f"plan: {model} needs {least:.1f} GiB for one image at a time even with checkpointing, got a "
            f"GPU of {gpu_gb:g} GiB; take a smaller model, or freeze low blocks"
        )
    accumulate = math.ceil(batch / largest[checkpointing])
    micro = math.ceil(batch / accumulate)  # as `loop` cuts a batch
    return Plan(
        model,
        precision,
        gpu_gb * GIB,
        reserve_gb * GIB,
        batch,
        accumulate,
        checkpointing,
        micro,
        found.parts(micro, accumulate, checkpointing, ema),
        largest,
        found,
        images,
        products,
        frozen_blocks,
    )


def text(plan: Plan) -> str:
    """The plan for people: parts in GiB, what fits, and the settings to give."""
    rows = [
        *plan.parts.items(),
        ("peak", plan.peak),
        ("reserve", plan.reserve),
        ("GPU", plan.gpu_bytes),
    ]
    how, model = "with" if plan.checkpointing else "without", plan.need
    lines = [
        f"{plan.model}: {model.parameters:,} parameters, {model.trained:,} of them trained, "
        f"{plan.products:,} products, {plan.micro} images at a time {how} checkpointing (predicted)"
    ]
    lines += [f"  {name:<28}{size / GIB:7.2f} GiB" for name, size in rows]
    lines += [
        f"an image keeps {model.kept.per_image / 1e6:.0f} MB for its backward pass, "
        f"{model.between.per_image / 1e6:.0f} MB with checkpointing",
        f"largest micro-batch: {plan.largest[False]} without checkpointing, {plan.largest[True]} with it"
        + (f" (of the {plan.batch_size} asked)" if plan.largest[True] == plan.batch_size else ""),
        "checkpointing is " + ("needed" if plan.checkpointing else "not needed"),
        "settings: "
        + " ".join(f"--set {name}={value}".lower() for name, value in plan.settings.items()),
        "papermill: "
        + " ".join(
            f"-p {name} {value}".lower()
            for name, value in plan.settings.items()
            if name in Settings.model_fields
        ),
    ]
    return "\n".join(lines)


def speed_text(plan: Plan, images_per_s: float | None) -> str:
    """Images a second and hours of the whole run; None: there is no GPU to probe."""
    if images_per_s is None:
        return "speed: no GPU is here, so none was probed; run this command on the machine that will train"
    hours = plan.images / images_per_s / 3600
    return f"speed: {images_per_s:.1f} images/s by a short probe here, {hours:.1f} h for {plan.images:,} images"
