"""Speed and memory of fine-tuning on this machine: klip's own step, and
pytorch-metric-learning's trainer beside it.

B images of an optimiser step.  Rates are medians; the first step of every series warms
up and does not count.
"""

from __future__ import annotations

import contextlib
import copy
import io
import statistics
import warnings
from typing import Any

import torch
from torch import nn
from torch.utils.data import Subset
from torch.utils.flop_counter import FlopCounterMode

from klip.model import blocks, encoder as encoders
from klip.model.device import autocast
from klip.scale import activations, memory, watch
from klip.scale.watch import Asked, Watched


def bench(asked: Asked) -> dict[str, Any]:
    """All figures of this machine as plain data.  ValueError: an unknown model."""
    flops = step_flops(asked.model)
    with watch.watched(asked) as loop:
        rate = matrix_rate(asked.device, loop.precision)
        synthetic = watch.step_alone(loop, asked.steps)
        fed, loader = watch.loop_rate(loop), watch.loop_rate(loop, idle=True)
        others = beside(loop, asked.rounds)
        settings = asked.model_dump(exclude={"model", "device", "steps", "batch"})
        settings = {"steps": asked.steps, "batch_size": asked.batch} | settings
        settings["precision"] = loop.precision
    made = synthetic["images_per_s"]
    return {
        "model": asked.model,
        "device": torch.cuda.get_device_name() if asked.device == "cuda" else "CPU",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "settings": settings,
        "matrix_flops_per_s": rate,
        "tower_flops_per_image": flops,
        "share_of_matrix_rate": made * flops / rate,
        "synthetic": synthetic,
        "jpeg_fed": {
            "images_per_s": fed,
            "loader_alone_images_per_s": loader,
            "load_wait_s": max(0.0, asked.batch / fed - asked.batch / made),
            "loader_bound": loader < made,
        },
        "beside_metric_loss_only": others,
    }


def text(found: dict[str, Any]) -> str:
    """The figures for people."""
    step, fed, beside = found["synthetic"], found["jpeg_fed"], found["beside_metric_loss_only"]
    settings = ", ".join(f"{name} {value}" for name, value in found["settings"].items())
    share, most = found["share_of_matrix_rate"], found["matrix_flops_per_s"] / 1e12
    parts = ", ".join(f"{name} {1e3 * value:.1f} ms" for name, value in step["parts_s"].items())
    bound = ", bound by the loader" if fed["loader_bound"] else ""
    alone = fed["loader_alone_images_per_s"]
    if beside["out_of_memory"]:
        other = "ran out of memory"
    else:
        rate, ratio = beside["medians"]["metric_loss_only"], beside["ratio"]
        other = f"{rate:9.1f} images/s; klip's is {ratio:.2f} times as fast"
    lines = [
        f"{found['model']} on {found['device']}, {settings}",
        f"  synthetic tensors   {step['images_per_s']:9.1f} images/s, "
        f"{share:.1%} of the matrix rate, {most:.2f} TFLOP/s",
        f"  of a step           {parts}",
        f"  fed with JPEGs      {fed['images_per_s']:9.1f} images/s{bound}; "
        f"the loader alone gives {alone:.1f}",
        f"  MetricLossOnly      {other}",
    ]
    if "peak_reserved_bytes" in step:
        taken, kept = step["peak_allocated_bytes"] / 2**30, step["peak_reserved_bytes"] / 2**30
        lines.append(f"  peak memory         {taken:9.2f} GiB allocated, {kept:.2f} GiB reserved")
    return "\n".join(lines)


def probe(plan: memory.Plan, steps: int = 4) -> float:
    """Images/s of a plan's settings on the GPU here, by a few steps with few products and
    synthetic tensors."""
    asked = plan.asked.model_dump(include={"model", "batch", "precision"})
    asked |= {"accumulate": plan.accumulate, "checkpointing": plan.checkpointing}
    few = {"products": min(plan.asked.products, 64), "steps": steps, "workers": 0}
    with watch.watched(Asked(device="cuda", **asked, **few)) as loop:
        return watch.step_alone(loop, steps)["images_per_s"]


def matrix_rate(device: str, precision: str, *, side: int = 0, repeats: int = 9) -> float:
    """FLOP/s of a square matrix product in the type of the precision, counted by PyTorch,
    median of `repeats`."""
    side = side or (8192 if device == "cuda" else 768)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    left, right = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    with FlopCounterMode(display=False) as counter:
        left @ right
    seconds = [watch.seconds(left.device, lambda: left @ right) for _ in range(repeats)]
    return counter.get_total_flops() / statistics.median(seconds)


def step_flops(model: str) -> int:
    """FLOPs of one image forward and backward through the tower, counted by PyTorch on
    tensors without numbers.

    The head and the work that checkpointing does again are left out, so that a share of the
    matrix rate is of use.
    """
    config, preprocess = activations.described(model)
    with torch.device("meta"):
        encoder = encoders.build(config, preprocess, name=model).train()
        with FlopCounterMode(display=False) as counter:
            encoder(torch.empty(2, 3, preprocess.size, preprocess.size)).sum().backward()
    return counter.get_total_flops() // 2


def beside(loop: Watched, rounds: int) -> dict[str, Any]:
    """klip's loop and PML's `MetricLossOnly` by turns: same weights, images, batch, AdamW
    groups, precision and loader.

    PML takes the batch whole, so accumulation and checkpointing, which it has not, are left
    out on its side.
    """
    rates: dict[str, list[float]] = {"klip": [], "metric_loss_only": []}
    for _ in range(rounds):
        rates["klip"].append(watch.loop_rate(loop))
        try:
            rates["metric_loss_only"].append(metric_loss_only(loop))
        except torch.OutOfMemoryError:  # a second model, and the batch in one piece
            return {"out_of_memory": True, "images_per_s": rates, "medians": None, "ratio": None}
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratio = medians["klip"] / medians["metric_loss_only"]
    return {"out_of_memory": False, "images_per_s": rates, "medians": medians, "ratio": ratio}


def metric_loss_only(loop: Watched) -> float:
    """Images/s of PML's trainer, with what `loop` starts from."""
    from pytorch_metric_learning.losses import ArcFaceLoss
    from pytorch_metric_learning.trainers import MetricLossOnly

    config, device, ends = loop.config, loop.device, list[float]()
    encoder = copy.deepcopy(loop.encoder)
    # PML has no switch for the precision
    encoder.forward = autocast(loop.precision, device)(encoder.forward)
    how = {"margin": config.margin_deg, "scale": config.scale}
    loss = ArcFaceLoss(loop.head.products, encoder.dim, **how).to(device)
    ladder = {"top_lr": config.top_lr, "decay": config.decay, "weight_decay": config.weight_decay}
    groups = blocks.parameter_groups(encoder.tower, reading=config.rates, **ladder)
    everything = [*encoder.parameters(), *loss.parameters()]
    drawn = torch.cat(list(loop.batches)).tolist()  # as klip draws them

    def clip() -> None:
        nn.utils.clip_grad_norm_(everything, config.clip)

    quiet = contextlib.redirect_stderr(io.StringIO())  # a progress bar without a switch
    with quiet, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Converting a tensor with requires_grad=True to a scalar")
        MetricLossOnly(
            models={"trunk": encoder},
            optimizers={
                "trunk_optimizer": torch.optim.AdamW(groups, fused=True),
                "metric_loss_optimizer": torch.optim.AdamW(
                    loss.parameters(), lr=config.head_lr, fused=True
                ),
            },
            batch_size=config.batch_size,
            loss_funcs={"metric_loss": loss},
            dataset=Subset(loop.images, drawn),
            data_device=device,
            dataloader_num_workers=config.workers,
            end_of_iteration_hook=lambda _: ends.append(watch.now(device)),
            gradient_clippers={"trunk_grad_clipper": clip},
        ).train(num_epochs=1)
    return watch.rate(loop, ends)
