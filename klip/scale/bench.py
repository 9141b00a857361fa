"""Speed and memory of fine-tuning on this machine: klip's own step, and
pytorch-metric-learning's trainer beside it.

Nothing of the step is copied: `finetuning.loop.Loop` runs on synthetic JPEGs, watched by
hooks.  B images of an optimiser step, S pixels a side.  Rates are medians; the first step
of every series warms up and does not count.
"""

from __future__ import annotations

import contextlib
import copy
import io
import math
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Subset
from torch.utils.flop_counter import FlopCounterMode

from klip.finetuning import prepare
from klip.finetuning.loop import Loop
from klip.model import blocks, encoder as encoders
from klip.model.device import autocast, default_device, resolve_precision
from klip.scale import activations, memory
from klip.settings.config import FinetuneConfig

PIXELS = 400
"""Sides of the synthetic photographs (A): about those of the paper's sets."""


def bench(
    model: str = "ViT-L-14",
    device: str = "auto",
    steps: int = 10,
    batch: int = 0,
    accumulate: int = 1,
    checkpointing: bool = False,
    precision: str = "auto",
    products: int = 256,
    workers: int = 2,
    rounds: int = 3,
) -> dict[str, Any]:
    """All figures of this machine as plain data; batch 0 means 64 on a GPU and 4 on a CPU.

    ValueError: an unknown model or device, a number out of range.
    """
    device = default_device() if device == "auto" else device
    if device not in ("cpu", "cuda") or device == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"bench: device must be auto, cpu, or cuda where there is a GPU, got {device!r}"
        )
    batch = batch or (64 if device == "cuda" else 4)
    settings = {"steps": steps, "batch_size": batch, "accumulate": accumulate}
    settings |= {"checkpointing": checkpointing, "precision": precision}
    settings |= {"products": products, "workers": workers, "rounds": rounds}
    _check(settings)
    resolve_precision(precision, device)  # a wrong word is told before the work
    flops = step_flops(model)
    rest = accumulate, checkpointing, precision, products, workers
    with watched(model, device, steps, batch, *rest) as loop:
        settings["precision"] = loop.precision
        rate = matrix_rate(device, loop.precision)
        synthetic = step_alone(loop, steps)
        fed, loader = _loop(loop), _loop(loop, idle=True)
        beside = _beside(loop, rounds)
    made = synthetic["images_per_s"]
    return {
        "model": model,
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
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
            "load_wait_s": max(0.0, batch / fed - batch / made),
            "loader_bound": loader < made,
        },
        "beside_metric_loss_only": beside,
    }


def _check(settings: dict[str, Any]) -> None:
    least = {"steps": 2, "batch_size": 2, "accumulate": 1, "products": 2, "workers": 0, "rounds": 1}
    for name, lowest in least.items():
        if settings[name] < lowest:
            word = name.removesuffix("_size")
            raise ValueError(f"bench: {word} must be at least {lowest}, got {settings[name]}")


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
    rest = plan.accumulate, plan.checkpointing, plan.precision, min(plan.products, 64), 0
    with watched(plan.model, "cuda", steps, plan.batch_size, *rest) as loop:
        return step_alone(loop, steps)["images_per_s"]


def matrix_rate(device: str, precision: str, side: int = 0, repeats: int = 9) -> float:
    """FLOP/s of a square matrix product in the type of the precision, counted by PyTorch,
    median of `repeats`.
    """
    side = side or (8192 if device == "cuda" else 768)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    left, right = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    with FlopCounterMode(display=False) as counter:
        left @ right
    seconds = [_seconds(left.device, lambda: left @ right) for _ in range(repeats)]
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


class Watched(Loop):
    """klip's loop, with the time at the end of each step.  idle: steps do nothing."""

    idle = False
    ends: list[float]

    def train_step(self, images: Tensor, labels: Tensor) -> float:
        loss = 0.0 if self.idle else super().train_step(images, labels)
        _wait(self.device)
        self.ends.append(time.perf_counter())
        return loss


@contextlib.contextmanager
def watched(
    model: str,
    device: str,
    steps: int,
    batch: int,
    accumulate: int,
    checkpointing: bool,
    precision: str,
    products: int,
    workers: int,
) -> Iterator[Watched]:
    """klip's loop with random weights on a folder of synthetic JPEGs, which goes with the
    context."""
    config, preprocess = activations.described(model)
    settings = FinetuneConfig(
        model=model,
        images=steps * batch,
        batch_size=batch,
        accumulate=accumulate,
        depth=max(1, math.ceil(steps * batch / products)),
        checkpointing=checkpointing,
        precision=precision,
        workers=workers,
    )
    with tempfile.TemporaryDirectory(prefix="klip-bench-") as folder, torch.random.fork_rng([]):
        torch.manual_seed(0)
        catalogue = photographs(Path(folder), products)
        encoder = encoders.build(config, preprocess, name=model).to(device)
        plan = prepare.plan_of(settings, catalogue)
        head = prepare.head_of(settings, plan.products, encoder.dim)
        prepare.put_centres(head, encoder, plan, settings)
        loop = Watched(settings, encoder, head, plan, catalogue)
        loop.ends = []
        yield loop


def photographs(root: Path, products: int) -> pd.DataFrame:
    """A catalogue of one JPEG per product, smooth colours under noise, so that they are as
    large as photographs.
    """
    rng = np.random.default_rng(0)
    for number in range(products):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(
            (PIXELS, PIXELS)
        )
        pixels = np.asarray(coarse, np.int16) + rng.integers(-12, 13, (PIXELS, PIXELS, 1))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
            root / f"{number}.jpg", quality=90
        )
    frame = pd.DataFrame(
        {
            "image": [f"{number}.jpg" for number in range(products)],
            "product": [f"product {number:05}" for number in range(products)],
            "split": "train",
        }
    )
    frame.attrs.update(root=str(root), name="bench")
    return frame


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
        return _seconds(device, lambda: loop.train_step(images, labels))

    step_s = statistics.median([one() for _ in range(steps)][1:])
    found = {"images_per_s": len(images) / step_s, "step_s": step_s}
    found["parts_s"] = _parts(loop, one, steps)
    if device.type == "cuda":
        found["peak_allocated_bytes"] = torch.cuda.max_memory_allocated()
        found["peak_reserved_bytes"] = torch.cuda.max_memory_reserved()
    return found


def _parts(loop: Loop, one: Callable[[], float], steps: int) -> dict[str, float]:
    """Seconds (medians) of the parts of a step `one`: copy to the device, forward with loss,
    backward, optimiser.

    Hooks tell where one passes to the next.  Clipping counts to backward, as do the copies
    of later micro-batches; averaging counts to the optimiser.
    """
    marks = list[tuple[str, float]]()

    def mark(part: str) -> None:
        _wait(loop.device)
        marks.append((part, time.perf_counter()))

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


def _loop(loop: Watched, idle: bool = False) -> float:
    """Images/s of klip's whole loop, fed with JPEGs, from the end of the first step to the
    end of the last.

    idle: the step does nothing, which is what the loader can give.
    """
    loop.done, loop.seconds, loop.history = 0, 0.0, []
    loop.idle, loop.ends = idle, []
    loop.run()
    loop.idle = False
    return _rate(loop, loop.ends)


def _rate(loop: Loop, ends: list[float]) -> float:
    return loop.config.batch_size * (len(ends) - 1) / (ends[-1] - ends[0])


def _beside(loop: Watched, rounds: int) -> dict[str, Any]:
    """klip's loop and PML's `MetricLossOnly` by turns: same weights, images, batch, AdamW
    groups, precision and loader.

    PML takes the batch whole, so accumulation and checkpointing, which it has not, are left
    out on its side.
    """
    rates: dict[str, list[float]] = {"klip": [], "metric_loss_only": []}
    for _ in range(rounds):
        rates["klip"].append(_loop(loop))
        try:
            rates["metric_loss_only"].append(_metric_loss_only(loop))
        except torch.OutOfMemoryError:  # a second model, and the batch in one piece
            return {"out_of_memory": True, "images_per_s": rates, "medians": None, "ratio": None}
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "out_of_memory": False,
        "images_per_s": rates,
        "medians": medians,
        "ratio": medians["klip"] / medians["metric_loss_only"],
    }


def _metric_loss_only(loop: Watched) -> float:
    from pytorch_metric_learning.losses import ArcFaceLoss
    from pytorch_metric_learning.trainers import MetricLossOnly

    config, device, ends = loop.config, loop.device, list[float]()
    encoder = copy.deepcopy(loop.encoder)
    # PML has no switch for the precision
    encoder.forward = autocast(loop.precision, device)(encoder.forward)
    settings = {"margin": config.margin_deg, "scale": config.scale}
    loss = ArcFaceLoss(loop.head.products, encoder.dim, **settings).to(device)
    ladder = {"top_lr": config.top_lr, "decay": config.decay}
    how = {"weight_decay": config.weight_decay, **ladder}
    groups = blocks.parameter_groups(encoder.tower, config.rates, **how)
    trunk = torch.optim.AdamW(groups, fused=True)
    top = torch.optim.AdamW(loss.parameters(), lr=config.head_lr, fused=True)
    everything = [*encoder.parameters(), *loss.parameters()]
    images = Subset(loop.images, torch.cat(loop.batches).tolist())  # as klip's loop draws them

    def end(_: Any) -> None:
        _wait(device)
        ends.append(time.perf_counter())

    def clip() -> None:
        nn.utils.clip_grad_norm_(everything, config.clip)

    quiet = contextlib.redirect_stderr(io.StringIO())  # a progress bar without a switch
    with quiet, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Converting a tensor with requires_grad=True to a scalar")
        MetricLossOnly(
            models={"trunk": encoder},
            optimizers={"trunk_optimizer": trunk, "metric_loss_optimizer": top},
            batch_size=config.batch_size,
            loss_funcs={"metric_loss": loss},
            dataset=images,
            data_device=device,
            dataloader_num_workers=config.workers,
            end_of_iteration_hook=end,
            gradient_clippers={"trunk_grad_clipper": clip},
        ).train(num_epochs=1)
    return _rate(loop, ends)


def _seconds(device: torch.device, work: Callable[[], object]) -> float:
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    """Until the GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
