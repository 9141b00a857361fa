"""klip reproduce, report, finetune, evaluate, plan, bench."""

import json
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from klip.cli import options, scores
from klip.cli.options import app, catalogue_of, pairs_of, rerank_of, writable

PRETRAINED = "For --model ARCH: TAG of open_clip, FILE (.safetensors, .pt), none: random."
JSON = "Also write the figures there."
RULE = "Packshot taken: web1 (= first), largest, random, index."
TOWER = "ARCH of open_clip, ARCH:TAG, nano, nano-vit, nano-tuned or a FILE of klip."
HALF = "Write the weights in half precision, as those that klip ships."
FROZEN = "Low blocks that are not trained, the stem with them."


@app.command()
def reproduce(
    profile: options.Profile = "nano",
    only: Annotated[list[str] | None, Option(help="A notebook's number; repeatable.")] = None,
    appendix: Annotated[bool, Option(help="Also the appendix notebooks (long).")] = False,
    values: options.Values = None,
) -> None:
    """Run the notebooks of a profile in order; those up to date are skipped."""
    from klip.companion import reproduce as runner

    runner.run(profile, pairs_of(values), only=only or None, appendix=appendix)


@app.command()
def report(
    profile: options.Profile = "nano",
    html: Annotated[bool, Option("--html", help="Also report.html, for a telephone.")] = False,
) -> None:
    """Judge the paper's claims by stored results: claims.csv, claims.md, report.md."""
    from klip.companion import overview, page, report as writer

    typer.echo(f"{writer.save_claims(profile)}\n{overview.write_report(profile)}")
    if html:
        typer.echo(page.write_page(profile))


@app.command()
def finetune(
    source: options.Source,
    out: Annotated[Path, Option(callback=writable, help="Checkpoint to write, FILE.safetensors.")],
    model: options.Model = "nano",
    pretrained: Annotated[str, Option(help=PRETRAINED)] = "",
    images: Annotated[int, Option(help="Images seen in all.")] = 6000,
    depth: Annotated[int, Option(help="Images per product and epoch (paper 4.1.3).")] = 16,
    pixels: options.Pixels = 0,
    root: options.Root = "",
    seed: options.Seed = 0,
    bad_images: options.BadImages = "stop",
    load: options.Load = None,
    half: Annotated[bool, Option("--half", help=HALF)] = False,
    values: options.Values = None,
) -> None:
    """Fine-tune with ArcFace, block-wise rates (4.1); --set: fields of FinetuneConfig.

    On several GPUs: torchrun --standalone --nproc-per-node N -m klip finetune ...
    """
    from klip.settings.config import FinetuneConfig

    name = f"{model}:{pretrained}" if pretrained else model
    given = {"model": name, "images": images, "depth": depth, "pixels": pixels, "seed": seed}
    config = FinetuneConfig(**given | pairs_of(values))
    catalogue = catalogue_of(source, root, seed=seed, bad_images=bad_images, load=load)
    from klip.finetuning import loop
    from klip.model import weights
    from klip.scale import distributed

    with distributed.joined() as kind:
        first = distributed.first()
        run = loop.finetune(config, catalogue, progress=first, loop=kind)
    if not first:  # one of the processes writes and speaks
        return
    how = {"config": config.model_dump(), "set": source}
    weights.save(run.average or run.encoder, out, half=half, **how)
    loss = run.history["loss"]
    seen = f"{config.images} images of {catalogue['product'].nunique()} products"
    fell = f"loss {loss.iloc[0]:.3f} -> {loss.iloc[-1]:.3f}"
    typer.echo(f"{out}: {seen} in {run.seconds:.0f} s, {fell}")


@app.command()
def evaluate(
    set_name: Annotated[str, Option("--set", help="Name of a set.")],
    root: options.Root = "",
    model: options.Model = "nano",
    gallery: Annotated[str, Option(help=RULE)] = "web1",
    resize: options.Resize = "",
    pixels: options.Pixels = 0,
    also: options.Also = 0,
    views: options.Views = 8,
    seed: options.Seed = 0,
    workers: options.Workers = 0,
    bad_images: options.BadImages = "stop",
    load: options.Load = None,
    rerank: options.Method = None,
    weight: options.Weight = None,
    first: options.First = None,
    json_file: Annotated[Path | None, Option("--json", callback=writable, help=JSON)] = None,
) -> None:
    """Zero-shot accuracy on a set: one packshot a product, nearest neighbour (paper 4.2)."""
    how = rerank_of(rerank, {}, weight=weight, first=first)
    catalogue = catalogue_of(set_name, root, seed=seed, bad_images=bad_images, load=load)
    from klip.model import encoder
    from klip.recognise import evaluation
    from klip.settings.files import atomic

    tower = encoder.load(model, resize, pixels=pixels, also=also)
    asked = {"rule": gallery, "views": views, "seed": seed, "keep": how.first if how else 0}
    frame = evaluation.evaluate(tower, catalogue, workers=workers, progress=True, **asked)
    figures = scores.figures_of(frame, seed)
    figures |= {"set": set_name, "gallery": gallery, "views": views, "seed": seed, "model": model}
    figures["model_fingerprint"] = encoder.fingerprint(tower)
    figures["preprocess"] = tower.preprocess.to_dict()
    if also:
        figures["also"] = also
    if catalogue.lost():
        figures["left_out"] = catalogue.lost()
    if how:
        more = {"root": catalogue.root, "workers": workers, "seed": seed}
        figures["rerank"] = scores.reranked(tower, frame, how=how, **more)
    if json_file:
        atomic(
            json_file,
            lambda part: part.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8"),
        )
    scores.tell(figures)


@app.command()
def plan(
    ctx: typer.Context,
    model: Annotated[str, Option(help=TOWER)],
    gpu_gb: Annotated[float, Option(help="Memory of the GPU, GiB.")] = 11.0,
    images: Annotated[int, Option(help="Images seen in all.")] = 325_000,
    batch: Annotated[int, Option(help="Images of an optimiser step.")] = 64,
    precision: options.Precision = "auto",
    products: Annotated[int, Option(help="Products of the ArcFace head (paper: 6,500).")] = 6500,
    frozen_blocks: Annotated[int, Option(help=FROZEN)] = 0,
    ema: Annotated[bool, Option(help="Keep averaged weights too.")] = False,
    reserve_gb: Annotated[float, Option(help="Kept free for CUDA and fragments, GiB.")] = 0.75,
) -> None:
    """Peak memory of fine-tuning by parts, settings that fit a GPU, hours if one is here."""
    import torch

    from klip.scale import bench, memory

    made = memory.plan(**ctx.params)  # all options above, by their names
    typer.echo(memory.text(made))
    typer.echo(memory.speed_text(made, bench.probe(made) if torch.cuda.is_available() else None))


@app.command()
def bench(
    ctx: typer.Context,
    model: options.Model = "ViT-L-14",
    device: Annotated[str, Option(help="auto, cpu or cuda.")] = "auto",
    steps: Annotated[int, Option(help="Optimiser steps of each series.")] = 10,
    batch: Annotated[int, Option(help="Images of a step; 0: 64 on a GPU, 4 on a CPU.")] = 0,
    accumulate: Annotated[int, Option(help="Parts that a batch is cut into.")] = 1,
    checkpointing: Annotated[bool, Option(help="Keep only what lies between blocks.")] = False,
    precision: options.Precision = "auto",
    products: Annotated[int, Option(help="Products of the head, a synthetic JPEG each.")] = 256,
    workers: options.Workers = 2,
    rounds: Annotated[int, Option(help="Turns of klip and of PML's trainer.")] = 3,
    save: Annotated[str, Option(help="Also write results/gpu/NAME.json.")] = "",
    as_json: options.Json = False,
) -> None:
    """Measure klip's training step here, with random weights, beside PML's own trainer."""
    from klip.companion import report as writer
    from klip.scale import bench as measure
    from klip.scale.watch import Asked

    # The settings are the options above of the same names.
    found = measure.bench(Asked(**{name: ctx.params[name] for name in Asked.model_fields}))
    if save:
        writer.save_gpu(save, found)
    typer.echo(json.dumps(found, indent=1) if as_json else measure.text(found))
