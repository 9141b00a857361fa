"""Which settings fit a GPU: the peak memory of a fine-tuning step, before there is a GPU.

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
"""Kept free for the CUDA context, the workspaces of its libraries and what the allocator
cannot use (A19).
"""


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
    """The largest micro-batch that fits without (False) and with (True) checkpointing; 0:
    none does.
    """
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
        names = ["batch_size", "accumulate", "checkpointing", "precision"]
        if self.frozen_blocks:
            names.append("frozen_blocks")
        return {name: getattr(self, name) for name in names}


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
    """The fewest micro-batches that give `batch` images a step; checkpointing only if needed.
    ValueError: an unknown model, a number out of range, a GPU too small for one image."""
    if not 0 < gpu_gb < math.inf:
        raise ValueError(f"plan: gpu_gb must be above 0, got {gpu_gb!r}")
    _at_least(1, images=images, batch=batch)
    _at_least(2, products=products)
    _at_least(0, frozen_blocks=frozen_blocks, reserve_gb=reserve_gb)
    found = need(model, precision, products, frozen_blocks)
    largest = _largest(found, batch, ema, (gpu_gb - reserve_gb) * GIB)
    checkpointing = not largest[False]
    if not largest[checkpointing]:
        least = sum(found.parts(1, batch, True, ema).values()) / GIB + reserve_gb
        raise ValueError(
            f"plan: {model} needs {least:.1f} GiB for one image at a time even with checkpointing, "
            f"got a GPU of {gpu_gb:g} GiB; take a smaller model, or freeze low blocks"
        )
    accumulate = math.ceil(batch / largest[checkpointing])
    micro = math.ceil(batch / accumulate)  # as `loop` cuts a batch
    return Plan(
        model=model,
        precision=precision,
        gpu_bytes=gpu_gb * GIB,
        reserve=reserve_gb * GIB,
        batch_size=batch,
        accumulate=accumulate,
        checkpointing=checkpointing,
        micro=micro,
        parts=found.parts(micro, accumulate, checkpointing, ema),
        largest=largest,
        need=found,
        images=images,
        products=products,
        frozen_blocks=frozen_blocks,
    )


def _largest(found: Need, batch: int, ema: bool, budget: float) -> dict[bool, int]:
    """The largest micro-batch within the budget, by checkpointing or not; 0: none."""
    largest = {False: 0, True: 0}
    for checkpointing in largest:
        for micro in range(1, batch + 1):
            parts = found.parts(micro, math.ceil(batch / micro), checkpointing, ema)
            if sum(parts.values()) <= budget:
                largest[checkpointing] = micro
    return largest


def _at_least(least: int, **numbers: float) -> None:
    for name, value in numbers.items():
        if not least <= value < math.inf:
            raise ValueError(f"plan: {name} must be at least {least}, got {value!r}")


def text(plan: Plan) -> str:
    """The plan for people: parts in GiB, what fits, and the settings to give."""
    need, largest = plan.need, plan.largest
    how = "with" if plan.checkpointing else "without"
    asked = f" (of the {plan.batch_size} asked)" if largest[True] == plan.batch_size else ""
    sizes = plan.parts | {"peak": plan.peak, "reserve": plan.reserve, "GPU": plan.gpu_bytes}
    given = {name: str(value).lower() for name, value in plan.settings.items()}
    in_profiles = [name for name in given if name in Settings.model_fields]
    lines = [
        f"{plan.model}: {need.parameters:,} parameters, {need.trained:,} of them trained, "
        f"{plan.products:,} products, {plan.micro} images at a time {how} checkpointing (predicted)",
        *(f"  {name:<28}{size / GIB:7.2f} GiB" for name, size in sizes.items()),
        f"an image keeps {need.kept.per_image / 1e6:.0f} MB for its backward pass, "
        f"{need.between.per_image / 1e6:.0f} MB with checkpointing",
        f"largest micro-batch: {largest[False]} without checkpointing, {largest[True]} with it{asked}",
        f"checkpointing is {'needed' if plan.checkpointing else 'not needed'}",
        "settings: " + " ".join(f"--set {name}={value}" for name, value in given.items()),
        "papermill: " + " ".join(f"-p {name} {given[name]}" for name in in_profiles),
    ]
    return "\n".join(lines)


def speed_text(plan: Plan, images_per_s: float | None) -> str:
    """Images a second and hours of the whole run; None: there is no GPU to probe."""
    if images_per_s is None:
        return "speed: no GPU is here, so none was probed; run this command on the machine that will train"
    hours = plan.images / images_per_s / 3600
    return f"speed: {images_per_s:.1f} images/s by a short probe here, {hours:.1f} h for {plan.images:,} images"
