"""Speed and memory of fine-tuning on this machine: klip's own step, and pytorch-metric-learning's trainer beside it.

Nothing of the step is copied: `loop._Trainer` runs on synthetic JPEGs, watched by hooks.  B images of an optimiser
step, S pixels a side.  Rates are medians; the first step of every series warms up and does not count.
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

from klip.data import balance
from klip.finetuning import loop
from klip.model import blocks, encoder as encoders, heads
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
    for name, value, least in (
        ("steps", steps, 2),
        ("batch", batch, 2),
        ("accumulate", accumulate, 1),
        ("products", products, 2),
        ("workers", workers, 0),
        ("rounds", rounds, 1),
    ):
        if value < least:
            raise ValueError(f"bench: {name} must be at least {least}, got {value}")
    resolve_precision(precision, device)  # a wrong word is told before the work
    flops = step_flops(model)
    with _trainer(
        model, device, steps, batch, accumulate, checkpointing, precision, products, workers
    ) as trainer:
        precision = trainer.precision
        rate = matrix_rate(device, precision)
        synthetic = _synthetic(trainer, steps)
        fed, loader = _loop(trainer), _loop(trainer, idle=True)
        beside = _beside(trainer, rounds)
    return {
        "model": model,
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "settings": {
            "steps": steps,
            "batch_size": batch,
            "accumulate": accumulate,
            "checkpointing": checkpointing,
            "precision": precision,
            "products": products,
            "workers": workers,
            "rounds": rounds,
        },
        "matrix_flops_per_s": rate,
        "tower_flops_per_image": flops,
        "share_of_matrix_rate": synthetic["images_per_s"] * flops / rate,
        "synthetic": synthetic,
        "jpeg_fed": {
            "images_per_s": fed,
            "loader_alone_images_per_s": loader,
            "load_wait_s": max(0.0, batch / fed - batch / synthetic["images_per_s"]),
            "loader_bound": loader < synthetic["images_per_s"],
        },
        "beside_metric_loss_only": beside,
    }


def text(found: dict[str, Any]) -> str:
    """The figures for people."""
    step, fed, beside = found["synthetic"], found["jpeg_fed"], found["beside_metric_loss_only"]
    most = found["matrix_flops_per_s"] / 1e12
    lines = [
        f"{found['model']} on {found['device']}, {', '.join(f'{k} {v}' for k, v in found['settings'].items())}",
        f"  synthetic tensors   {step['images_per_s']:9.1f} images/s, "
        f"{found['share_of_matrix_rate']:.1%} of the matrix rate, {most:.2f} TFLOP/s",
        "  of a step           "
        + ", ".join(f"{k} {1e3 * v:.1f} ms" for k, v in step["parts_s"].items()),
        f"  fed with JPEGs      {fed['images_per_s']:9.1f} images/s"
        + (", bound by the loader" if fed["loader_bound"] else "")
        + f"; the loader alone gives {fed['loader_alone_images_per_s']:.1f}",
        "  MetricLossOnly      "
        + (
            "ran out of memory"
            if beside["out_of_memory"]
            else f"{beside['medians']['metric_loss_only']:9.1f} images/s; klip's is "
            f"{beside['ratio']:.2f} times as fast"
        ),
    ]
    if "peak_reserved_bytes" in step:
        lines.append(
            f"  peak memory         {step['peak_allocated_bytes'] / 2**30:9.2f} GiB allocated, "
            f"{step['peak_reserved_bytes'] / 2**30:.2f} GiB reserved"
        )
    return "\n".join(lines)


def probe(plan: memory.Plan, steps: int = 4) -> float:
    """Images/s of a plan's settings on the GPU here, by a few steps with few products and synthetic tensors."""
    with _trainer(
        plan.model,
        "cuda",
        steps,
        plan.batch_size,
        plan.accumulate,
        plan.checkpointing,
        plan.precision,
        min(plan.products, 64),
        workers=0,
    ) as trainer:
        return _synthetic(trainer, steps)["images_per_s"]


def matrix_rate(device: str, precision: str, side: int = 0, repeats: int = 9) -> float:
    """FLOP/s of a square matrix product in the type of the precision, counted by PyTorch, median of `repeats`."""
    side = side or (8192 if device == "cuda" else 768)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    left, right = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    with FlopCounterMode(display=False) as counter:
        left @ right
    seconds = [_seconds(left.device, lambda: left @ right) for _ in range(repeats)]
    return counter.get_total_flops() / statistics.median(seconds)


def step_flops(model: str) -> int:
    """FLOPs of one image forward and backward through the tower, counted by PyTorch on tensors without numbers.

    The head and the work that checkpointing does again are left out, so that a share of the matrix rate is of use.
    """
    config, preprocess = activations.described(model)
    with torch.device("meta"):
        encoder = encoders.build(config, preprocess, model).train()
        with FlopCounterMode(display=False) as counter:
            encoder(torch.empty(2, 3, preprocess.size, preprocess.size)).sum().backward()
    return counter.get_total_flops() // 2


@contextlib.contextmanager
def _trainer(
    model: str,
    device: str,
    steps: int,
    batch: int,
    accumulate: int,
    checkpointing: bool,
    precision: str,
    products: int,
    workers: int,
) -> Iterator[loop._Trainer]:
    """klip's trainer with random weights on a folder of synthetic JPEGs, which goes with the context."""
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
        encoder = encoders.build(config, preprocess, model).to(device)
        plan = balance.plan(catalogue, settings.depth)
        plan.rows.attrs["root"] = catalogue.attrs["root"]
        head = heads.Head("arcface", products, encoder.dim, settings.margin_deg, settings.scale)
        yield loop._Trainer(settings, encoder, head, plan, catalogue, None)


def photographs(root: Path, products: int) -> pd.DataFrame:
    """A catalogue of one JPEG per product, smooth colours under noise, so that they are as large as photographs."""
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


def _synthetic(trainer: loop._Trainer, steps: int) -> dict[str, Any]:
    """klip's step on one batch of random numbers: a series for the rate, another for the parts."""
    size, device = trainer.encoder.preprocess.size, trainer.device
    images = torch.randn(trainer.config.batch_size, 3, size, size)
    labels = torch.arange(len(images)) % trainer.head.products
    if device.type == "cuda":
        images = images.pin_memory()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    trainer.encoder.checkpointing(trainer.config.checkpointing)
    trainer.encoder.train()

    def one() -> float:
        trainer.step = 0
        return _seconds(device, lambda: trainer._step(images, labels))

    seconds = [one() for _ in range(steps)][1:]
    parts = _parts(trainer, one, steps)
    peak = (
        {
            "peak_allocated_bytes": torch.cuda.max_memory_allocated(),
            "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
        }
        if device.type == "cuda"
        else {}
    )
    step_s = statistics.median(seconds)
    return {"images_per_s": len(images) / step_s, "step_s": step_s, "parts_s": parts, **peak}


def _parts(trainer: loop._Trainer, one: Callable[[], float], steps: int) -> dict[str, float]:
    """Seconds (medians) of the parts of a step `one`: copy to the device, forward with loss, backward, optimiser.

    Hooks tell where one passes to the next.  Clipping counts to backward, as do the copies of later micro-batches;
    averaging counts to the optimiser.
    """
    marks = list[tuple[str, float]]()

    def mark(part: str) -> None:
        _wait(trainer.device)
        marks.append((part, time.perf_counter()))

    with (
        trainer.encoder.register_forward_pre_hook(lambda *_: mark("forward")),
        trainer.head.register_forward_hook(lambda *_: mark("backward")),
        trainer.optimiser.register_step_pre_hook(lambda *_: mark("optimiser")),
    ):
        for _ in range(steps):
            mark("copy")
            one()
            mark("end")
    table = pd.DataFrame(marks, columns=["part", "at"])
    table = table.assign(seconds=-table["at"].diff(-1), step=table["part"].eq("copy").cumsum())
    sums = table[table["part"] != "end"].groupby(["part", "step"], sort=False)["seconds"].sum()
    return sums.groupby("part", sort=False).median().to_dict()


def _loop(trainer: loop._Trainer, idle: bool = False) -> float:
    """Images/s of klip's whole loop, fed with JPEGs, from the end of the first step to the end of the last.

    idle: the step does nothing, which is what the loader can give.
    """
    step, ends = trainer._step, list[float]()

    def watched(images: Tensor, labels: Tensor) -> float:
        if idle:
            trainer.step += 1
        loss = 0.0 if idle else step(images, labels)
        _wait(trainer.device)
        ends.append(time.perf_counter())
        return loss

    trainer.step, trainer.seconds = 0, 0.0
    trainer.history.clear()
    trainer._step = watched
    try:
        trainer.run(None, progress=False)
    finally:
        del trainer._step  # that of the class again
    return _rate(trainer, ends)


def _rate(trainer: loop._Trainer, ends: list[float]) -> float:
    return trainer.config.batch_size * (len(ends) - 1) / (ends[-1] - ends[0])


def _beside(trainer: loop._Trainer, rounds: int) -> dict[str, Any]:
    """klip's loop and PML's `MetricLossOnly` by turns: same weights, images, batch, AdamW groups, precision and loader.

    PML takes the batch whole, so accumulation and checkpointing, which it has not, are left out on its side.
    """
    rates: dict[str, list[float]] = {"klip": [], "metric_loss_only": []}
    for _ in range(rounds):
        rates["klip"].append(_loop(trainer))
        try:
            rates["metric_loss_only"].append(_metric_loss_only(trainer))
        except (
            torch.OutOfMemoryError
        ):  # a second model and optimiser beside klip's, and the batch in one piece
            return {"out_of_memory": True, "images_per_s": rates, "medians": None, "ratio": None}
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "out_of_memory": False,
        "images_per_s": rates,
        "medians": medians,
        "ratio": medians["klip"] / medians["metric_loss_only"],
    }


def _metric_loss_only(trainer: loop._Trainer) -> float:
    from pytorch_metric_learning.losses import ArcFaceLoss
    from pytorch_metric_learning.trainers import MetricLossOnly

    config, encoder, ends = trainer.config, copy.deepcopy(trainer.encoder), list[float]()
    encoder.forward = autocast(trainer.precision, trainer.device)(
        encoder.forward
    )  # PML has no switch for it
    loss = ArcFaceLoss(
        trainer.head.products, encoder.dim, margin=config.margin_deg, scale=config.scale
    )
    loss.to(trainer.device)
    groups = blocks.parameter_groups(
        encoder.tower, config.rates, config.top_lr, config.decay, config.weight_decay
    )
    optimisers = {
        "trunk_optimizer": torch.optim.AdamW(groups, fused=True),
        "metric_loss_optimizer": torch.optim.AdamW(
            loss.parameters(), lr=config.head_lr, fused=True
        ),
    }
    everything = [*encoder.parameters(), *loss.parameters()]
    images = Subset(
        trainer.draws, [draw for batch in trainer.batches for draw in batch]
    )  # as klip's loop draws them

    def end(_: Any) -> None:
        _wait(trainer.device)
        ends.append(time.perf_counter())

    with (
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):  # a progress bar without a switch
        warnings.filterwarnings("ignore", "Converting a tensor with requires_grad=True to a scalar")
        MetricLossOnly(
            models={"trunk": encoder},
            optimizers=optimisers,
            batch_size=config.batch_size,
            loss_funcs={"metric_loss": loss},
            dataset=images,
            data_device=trainer.device,
            dataloader_num_workers=config.workers,
            end_of_iteration_hook=end,
            gradient_clippers={
                "trunk_grad_clipper": lambda: nn.utils.clip_grad_norm_(everything, config.clip)
            },
        ).train(num_epochs=1)
    return _rate(trainer, ends)


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
