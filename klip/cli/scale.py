"""klip plan, bench: what fits a GPU, and how fast it is."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from klip.cli.options import (
    Model,
    Workers,
    app,
)


@app.command()
def plan(
    model: Annotated[str, typer.Option(help="ARCH of open_clip, ARCH:TAG, nano, nano-vit or a FILE of klip.")],
    gpu_gb: Annotated[float, typer.Option(help="Memory of the GPU, GiB.")] = 11.0,
    images: Annotated[int, typer.Option(help="Images seen in all.")] = 325_000,
    batch: Annotated[int, typer.Option(help="Images of an optimiser step.")] = 64,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    products: Annotated[int, typer.Option(help="Products of the ArcFace head (paper: 6,500).")] = 6500,
    frozen_blocks: Annotated[int, typer.Option(help="Low blocks that are not trained, the stem with them.")] = 0,
    ema: Annotated[bool, typer.Option(help="Keep averaged weights too.")] = False,
    reserve_gb: Annotated[float, typer.Option(help="Kept free for CUDA itself and fragments, GiB.")] = 0.75,
) -> None:
    """Peak memory of fine-tuning by parts, the settings that fit a GPU, and hours where there is one."""
    from klip import memory

    made = memory.plan(model, gpu_gb, images, batch, precision, products, frozen_blocks, ema, reserve_gb)
    typer.echo(memory.text(made))
    import torch

    speed = None
    if torch.cuda.is_available():
        from klip import bench

        speed = bench.probe(made)
    typer.echo(memory.speed_text(made, speed))


@app.command()
def bench(
    model: Model = "ViT-L-14",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    steps: Annotated[int, typer.Option(help="Optimiser steps of each series.")] = 10,
    batch: Annotated[int, typer.Option(help="Images of a step; 0: 64 on a GPU, 4 on a CPU.")] = 0,
    accumulate: Annotated[int, typer.Option(help="Parts that a batch is cut into.")] = 1,
    checkpointing: Annotated[bool, typer.Option(help="Keep only what lies between blocks.")] = False,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    products: Annotated[int, typer.Option(help="Products of the head, a synthetic JPEG each.")] = 256,
    workers: Workers = 2,
    rounds: Annotated[int, typer.Option(help="Turns of klip and of PML's trainer.")] = 3,
    save: Annotated[str, typer.Option(help="Also write results/gpu/NAME.json.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Measure klip's training step here, with random weights, and PML's own trainer beside it."""
    from klip import bench as measure
    from klip import report as writer

    found = measure.bench(model, device, steps, batch, accumulate, checkpointing, precision, products, workers, rounds)
    if save:
        writer.save_gpu(save, found)
    typer.echo(json.dumps(found, indent=1) if as_json else measure.text(found))
