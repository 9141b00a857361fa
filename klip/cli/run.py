"""klip reproduce, report, finetune, evaluate."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from klip.cli.options import (
    Also,
    First,
    Load,
    Model,
    Pixels,
    Print,
    Resize,
    Root,
    Seed,
    Source,
    Unreadable,
    Values,
    Views,
    Weight,
    Workers,
    app,
    catalogue_of,
    encoder_of,
    pairs_of,
    rerank_of,
    writable,
)

if TYPE_CHECKING:
    import pandas as pd

    from klip.encoder import Encoder
    from klip.rerank import Rerank

SHARES = ("top1", "top1_per_product", "top5")


@app.command()
def reproduce(
    profile: Annotated[str, typer.Option(help="nano, real, shelf or paper.")] = "nano",
    only: Annotated[list[str] | None, typer.Option(help="A notebook's number, e.g. 02; repeatable.")] = None,
    appendix: Annotated[bool, typer.Option(help="Also the appendix notebooks (long).")] = False,
    values: Values = None,
) -> None:
    """Run the notebooks of a profile in order; those up to date are skipped."""
    from klip import reproduce as runner

    runner.run(profile, pairs_of(values), only=only or None, appendix=appendix)


@app.command()
def report(profile: Annotated[str, typer.Option(help="nano, real, shelf or paper.")] = "nano") -> None:
    """Judge the paper's claims by the stored results; writes claims.csv, claims.md and report.md."""
    from klip import report as writer

    typer.echo(f"{writer.save_claims(profile)}\n{writer.write_report(profile)}")


@app.command()
def finetune(
    source: Source,
    out: Annotated[Path, typer.Option(help="The checkpoint to write, FILE.safetensors.")],
    model: Model = "nano",
    pretrained: Annotated[str, typer.Option(
        help="For --model ARCH: a TAG of open_clip, its checkpoint FILE (.safetensors, .pt), or none: random.")] = "",
    images: Annotated[int, typer.Option(help="Images seen in all.")] = 6000,
    depth: Annotated[int, typer.Option(help="Images per product and epoch (paper 4.1.3).")] = 16,
    pixels: Pixels = 0,
    root: Root = "",
    seed: Seed = 0,
    unreadable: Unreadable = "fail",
    load: Load = None,
    values: Values = None,
) -> None:
    """Fine-tune with ArcFace and block-wise rates (paper 4.1); --set takes fields of FinetuneConfig.

    On several GPUs: torchrun --standalone --nproc-per-node N -m klip finetune ...
    """
    writable(out)
    from klip.config import FinetuneConfig

    name = f"{model}:{pretrained}" if pretrained else model
    given = {"model": name, "images": images, "depth": depth, "pixels": pixels, "seed": seed}
    config = FinetuneConfig(**given | pairs_of(values))
    catalogue = catalogue_of(source, root, seed, unreadable, load)
    from klip import encoder, ranks, train

    val = catalogue[catalogue["split"] == "val"]
    with ranks.joined():
        run, first = train.finetune(config, catalogue, validation=val if len(val) else None), ranks.first()
    if not first:
        return
    encoder.save(run.average or run.encoder, out, config=config.model_dump(), set=source)
    loss = run.history["loss"]
    typer.echo(f"{out}: {config.images} images of {catalogue['product'].nunique()} products in "
               f"{run.seconds:.0f} s, loss {loss.iloc[0]:.3f} -> {loss.iloc[-1]:.3f}")


@app.command()
def evaluate(
    set_name: Annotated[str, typer.Option("--set", help="Name of a set.")],
    root: Root = "",
    model: Model = "nano",
    gallery: Annotated[str, typer.Option(help="Packshot taken: web1 (= first), largest, random, index.")] = "web1",
    resize: Resize = "",
    pixels: Pixels = 0,
    also: Also = 0,
    views: Views = 8,
    seed: Seed = 0,
    workers: Workers = 0,
    unreadable: Unreadable = "fail",
    load: Load = None,
    rerank: Print = "",
    weight: Weight = None,
    first: First = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures there.")] = None,
) -> None:
    """Zero-shot accuracy on a set: one packshot per product, nearest neighbour (paper 4.2)."""
    if json_file:
        writable(json_file)
    how = rerank_of(rerank, weight, first, {})
    catalogue = catalogue_of(set_name, root, seed, unreadable, load)
    encoder = encoder_of(model, resize, pixels, also)
    from klip import zeroshot
    from klip.files import atomic

    frame = zeroshot.evaluate(encoder, catalogue, gallery, views, seed, keep=how.first if how else 0,
                              workers=workers, progress=True)
    figures = _figures(frame, seed) | {
        "set": set_name, "gallery": gallery, "views": views, "seed": seed, "model": model,
        "model_fingerprint": frame.attrs["fingerprint"], "preprocess": encoder.preprocess.to_dict(),
        "also": also}
    if how:
        figures["rerank"] = _reranked(encoder, frame, how, workers, seed)
    if json_file:
        atomic(json_file, lambda part: part.write_text(json.dumps(figures, indent=2) + "\n"))
    typer.echo(f"{set_name}: {figures['queries']} queries, {figures['products']} products, "
               f"gallery {gallery}, model {model}")
    _print(figures)
    if how:
        told = figures["rerank"]
        typer.echo(f"re-ranked by keypoints (weight {how.weight:g}, first {how.first}); per query: "
                   + ", ".join(f"{name} {ms:.1f} ms" for name, ms in told["milliseconds"].items()))
        _print(told)
        low, high = told["difference_interval"]
        typer.echo(f"  {'difference':<17}{100 * told['difference']:+6.1f}     [{100 * low:+.1f}, {100 * high:+.1f}]")


def _print(figures: dict[str, Any]) -> None:
    for name in SHARES:
        low, high = figures[f"{name}_interval"]
        typer.echo(f"  {name:<17}{100 * figures[name]:6.1f} %   [{100 * low:.1f}, {100 * high:.1f}]")


def _reranked(encoder: Encoder, frame: pd.DataFrame, how: Rerank, workers: int, seed: int) -> dict[str, Any]:
    """Settings, figures, difference to cosine alone, and milliseconds per query (medians; embedding with reading)."""
    from klip import encoder as encoders
    from klip import metrics, rerank

    (found,) = rerank.evaluate([frame], how, max(1, workers), progress=True)
    took, files = [], [Path(frame.attrs["root"], image) for image in frame["image"].head(20)]
    with encoders.at_work(encoder):
        for file in files:
            began = time.perf_counter()
            encoders.embed(encoder, [file], precision="fp32")
            took.append(1000 * (time.perf_counter() - began))
    gain = metrics.paired_difference(found, frame, "top1", seed=seed)
    return {"method": "keypoints", **asdict(how), **_figures(found, seed), "difference": gain.value,
            "difference_interval": [gain.low, gain.high],
            "milliseconds": {"keypoints": found.attrs["keypoints_ms"], "votes": found.attrs["votes_ms"],
                             "embedding": statistics.median(took)}}


def _figures(frame: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Counts, fractions and their 95 % intervals by bootstrap over products."""
    from klip import metrics

    score = metrics.score(frame)
    figures: dict[str, Any] = {"queries": score.total, "products": score.products, "correct": score.correct}
    for name in SHARES:
        figures[name] = getattr(score, name)
        figures[f"{name}_interval"] = list(metrics.bootstrap_products(frame, name, seed=seed))
    return figures
