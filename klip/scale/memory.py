"""Which settings fit a GPU: the peak memory of a fine-tuning step, before there is a GPU.

The parts are counted by `activations`; sizes are in bytes, and in GiB where people read them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from klip.scale.activations import Need, need
from klip.settings.checked import Checked
from klip.settings.config import Count, CountOrNone, Positive, Precision, Settings, Text

GIB = 2**30


class Asked(Checked):
    """What is to be planned; what says nothing here is as in `FinetuneConfig`."""

    called: ClassVar[str] = "plan"
    model: Text
    gpu_gb: Positive = 11.0
    """Memory of the GPU, GiB."""
    images: Count = 325_000
    batch: Count = 64
    """Images of an optimiser step."""
    precision: Precision = "auto"
    products: Annotated[int, Field(ge=2)] = 6500
    frozen_blocks: CountOrNone = 0
    ema: bool = False
    reserve_gb: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.75
    """Kept free for the CUDA context, the workspaces of its libraries and what the
    allocator cannot use, GiB (A19)."""


@dataclass(frozen=True)
class Plan:
    """Settings that fit.

    micro: images at a time.  parts: bytes at the peak, without the reserve.
    largest: the largest micro-batch that fits without (False) and with (True)
    checkpointing; 0: none does.
    """

    asked: Asked
    need: Need
    largest: dict[bool, int]
    checkpointing: bool
    accumulate: int
    micro: int
    parts: dict[str, float]

    @property
    def peak(self) -> float:
        return sum(self.parts.values())

    @property
    def settings(self) -> dict[str, Any]:
        """By the names of FinetuneConfig, to be given with --set or papermill's -p."""
        found = {"batch_size": self.asked.batch, "accumulate": self.accumulate}
        found |= {"checkpointing": self.checkpointing, "precision": self.asked.precision}
        if self.asked.frozen_blocks:
            found["frozen_blocks"] = self.asked.frozen_blocks
        return found


def plan(model: str, **asked: Any) -> Plan:
    """The fewest micro-batches that give `batch` images a step; checkpointing only if needed.

    asked: fields of `Asked`.  ValueError: an unknown model, a number out of range, a GPU
    too small for one image.
    """
    given = Asked(model=model, **asked)
    found = need(model, given.precision, products=given.products, frozen_blocks=given.frozen_blocks)
    largest = {on: _largest(found, given, checkpointing=on) for on in (False, True)}
    checkpointing = not largest[False]
    if not largest[checkpointing]:
        one = found.parts(1, accumulate=given.batch, checkpointing=True, ema=given.ema)
        least = sum(one.values()) / GIB + given.reserve_gb
        raise ValueError(
            f"plan: {model} needs {least:.1f} GiB for one image at a time even with "
            f"checkpointing, got a GPU of {given.gpu_gb:g} GiB; take a smaller model, or "
            "freeze low blocks"
        )
    accumulate = math.ceil(given.batch / largest[checkpointing])
    micro = math.ceil(given.batch / accumulate)  # as `loop` cuts a batch
    how = {"accumulate": accumulate, "checkpointing": checkpointing}
    parts = found.parts(micro, ema=given.ema, **how)
    return Plan(given, found, largest, micro=micro, parts=parts, **how)


def _largest(found: Need, asked: Asked, *, checkpointing: bool) -> int:
    """The largest micro-batch that fits; 0: none."""
    budget, largest = (asked.gpu_gb - asked.reserve_gb) * GIB, 0
    how = {"checkpointing": checkpointing, "ema": asked.ema}
    for micro in range(1, asked.batch + 1):
        parts = found.parts(micro, accumulate=math.ceil(asked.batch / micro), **how)
        if sum(parts.values()) <= budget:
            largest = micro
    return largest


def text(plan: Plan) -> str:
    """The plan for people: parts in GiB, what fits, and the settings to give."""
    asked, need, largest = plan.asked, plan.need, plan.largest
    how = "with" if plan.checkpointing else "without"
    most = f" (of the {asked.batch} asked)" if largest[True] == asked.batch else ""
    sizes = {name: size / GIB for name, size in plan.parts.items()}
    sizes |= {"peak": plan.peak / GIB, "reserve": asked.reserve_gb, "GPU": asked.gpu_gb}
    given = {name: str(value).lower() for name, value in plan.settings.items()}
    in_profiles = [name for name in given if name in Settings.model_fields]
    lines = [
        f"{asked.model}: {need.parameters:,} parameters, {need.trained:,} of them trained, "
        f"{asked.products:,} products, {plan.micro} images at a time {how} checkpointing "
        "(predicted)",
        *(f"  {name:<28}{size:7.2f} GiB" for name, size in sizes.items()),
        f"an image keeps {need.kept.per_image / 1e6:.0f} MB for its backward pass, "
        f"{need.between.per_image / 1e6:.0f} MB with checkpointing",
        f"largest micro-batch: {largest[False]} without checkpointing, {largest[True]} with it"
        f"{most}",
        f"checkpointing is {'needed' if plan.checkpointing else 'not needed'}",
        "settings: " + " ".join(f"--set {name}={value}" for name, value in given.items()),
        "papermill: " + " ".join(f"-p {name} {given[name]}" for name in in_profiles),
    ]
    return "\n".join(lines)


def speed_text(plan: Plan, images_per_s: float | None) -> str:
    """Images a second and hours of the whole run; None: there is no GPU to probe."""
    if images_per_s is None:
        return (
            "speed: no GPU is here, so none was probed; run this command on the machine that "
            "will train"
        )
    hours = plan.asked.images / images_per_s / 3600
    seen = f"{hours:.1f} h for {plan.asked.images:,} images"
    return f"speed: {images_per_s:.1f} images/s by a short probe here, {seen}"
