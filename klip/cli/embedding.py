"""klip embed, klip export: embeddings of a whole set, and an encoder for other programs."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from klip.cli import options
from klip.cli.options import app, catalogue_of, writable

PART = "I/N: only part I, from 0, of N; each may be a process or a job of its own."


@app.command()
def embed(
    source: options.Source,
    out: Annotated[Path, Argument(help="Folder for embeddings.npy and images.csv.")],
    part: Annotated[str, Option(help=PART)] = "",
    model: options.Model = "nano",
    root: options.Root = "",
    resize: options.Resize = "",
    pixels: options.Pixels = 0,
    also: options.Also = 0,
    workers: options.Workers = 0,
    precision: options.Precision = "auto",
    bad_images: options.BadImages = "stop",
    load: options.Load = None,
) -> None:
    """Embed all images of a set; parts that are there are kept, and joined when all are."""
    number, slash, parts = (part or "0/0").partition("/")
    if not (slash and number.isdecimal() and parts.isdecimal()):
        raise ValueError(f"--part takes I/N, as in 0/4, got {part!r}")
    catalogue = catalogue_of(source, root, bad_images=bad_images, load=load)
    from klip.model import encoder
    from klip.scale import parts as pieces

    tower = encoder.load(model, resize, pixels=pixels, also=also)
    asked = [part] if part else pieces.missing(out)
    for one in asked:
        own, all_of_them = map(int, one.split("/"))
        how = {"workers": workers, "precision": precision, "progress": True}
        typer.echo(pieces.embed(tower, catalogue, out, part=own, parts=all_of_them, **how))
    lacking = pieces.missing(out)
    if lacking:
        typer.echo(f"still to come: parts {', '.join(lacking)}")
    else:
        rows = pieces.joined(catalogue, out)
        typer.echo(f"{out / 'embeddings.npy'}: {len(rows)} rows of {rows.shape[1]} numbers")


@app.command()
def export(
    onnx: Annotated[Path, Option(callback=writable, help="ONNX file to write, FILE.onnx.")],
    model: options.Model = "nano",
    resize: options.Resize = "",
    pixels: options.Pixels = 0,
    also: options.Also = 0,
) -> None:
    """Write an encoder as an ONNX file, for programs without torch (extra: klip[onnx])."""
    from klip.model import encoder, export as exporter

    tower = encoder.load(model, resize, pixels=pixels, also=also)
    file = exporter.to_onnx(tower, onnx)
    size, dim = tower.preprocess.size, tower.dim
    told = f"images (B, 3, {size}, {size}) -> unit embeddings (B, {dim})"
    typer.echo(f"{file}: {told}, equal to the encoder's in ONNX Runtime up to {exporter.CLOSE:g}")
