"""klip gallery build, add, remove, classify, calibrate."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from klip.cli import options
from klip.cli.options import (
    app,
    catalogue_of,
    encoder_of,
    gallery_of,
    group,
    images_of,
    rerank_of,
    writable,
)

if TYPE_CHECKING:
    from klip.recognise.gallery import Gallery

gallery_app = group()
app.add_typer(gallery_app, name="gallery", help="Build and use a gallery of packshots (paper 4.2).")


@gallery_app.command()
def build(
    file: options.File,
    source: options.Source,
    model: options.Model = "nano",
    resize: options.Resize = "",
    pixels: options.Pixels = 0,
    also: options.Also = 0,
    views: options.Views = 8,
    seed: options.Seed = 0,
    unreadable: options.Unreadable = "fail",
    keypoints: Annotated[
        bool, typer.Option("--keypoints", help="Keep what --rerank keypoints needs.")
    ] = False,
) -> None:
    """Embed the packshots of a folder, each with its views, and write the gallery."""
    writable(file)
    catalogue = catalogue_of(source, "", seed, unreadable)
    from klip.recognise.evaluation import packshots
    from klip.recognise.gallery import Gallery
    from klip.recognise.rerank import Rerank

    gallery = Gallery.build(
        encoder_of(model, resize, pixels, also),
        packshots(catalogue),
        views,
        seed,
        keypoints=keypoints,
    )
    file_or_name = str(Path(model).resolve()) if Path(model).is_file() else model
    gallery.meta |= {"model": file_or_name, "resize": resize, "pixels": pixels, "also": also}
    gallery.meta |= {"rerank": asdict(Rerank())} if keypoints else {}
    _report(gallery, gallery.save(file))


@gallery_app.command()
def add(
    file: options.File,
    product: Annotated[str, typer.Argument(help="Its name; a known product gets more packshots.")],
    images: Annotated[list[Path], typer.Argument(help="Packshots, or folders of them.")],
    model: options.Moved = "",
) -> None:
    """Add a product; the other rows are not touched."""
    gallery = gallery_of(file, model)
    gallery.add(product, images_of(images, "fail"))
    _report(gallery, gallery.save(file))


@gallery_app.command()
def remove(file: options.File, product: Annotated[str, typer.Argument(help="Its name.")]) -> None:
    """Remove a product; the other rows are not touched."""
    from klip.recognise.gallery import Gallery

    gallery = Gallery.load(file)
    gallery.remove(product)
    _report(gallery, gallery.save(file))


@gallery_app.command()
def classify(
    file: options.File,
    images: Annotated[list[Path], typer.Argument(help="Photographs, or folders of them.")],
    k: Annotated[int, typer.Option(help="Neighbours that vote (paper: 1).")] = 1,
    top: Annotated[int, typer.Option(help="Products shown per photograph.")] = 1,
    unknown_below: Annotated[
        float | None,
        typer.Option(
            help="Score under which a product counts as unknown; default: the gallery's own, -2: none."
        ),
    ] = None,
    score: options.Score = "",
    rerank: options.Print = "",
    weight: options.Weight = None,
    first: options.First = None,
    model: options.Moved = "",
    unreadable: options.Unreadable = "fail",
    as_json: options.Json = False,
) -> None:
    """Name the product on each photograph; one that is not in the gallery is unknown, if there is a threshold."""
    gallery = gallery_of(file, model)
    how = rerank_of(rerank, weight, first, gallery.meta.get("rerank", {}))
    frame = gallery.classify(images_of(images, unreadable), k, top, unknown_below, score, how)
    if as_json:
        typer.echo(frame.to_json(orient="records", force_ascii=False, indent=2))
    else:
        unknown = frame.pop("unknown") & frame["rank"].eq(1)
        frame["product"] = frame["product"].mask(
            unknown, "unknown (nearest: " + frame["product"] + ")"
        )
        typer.echo(frame.to_string(index=False, float_format="{:.3f}".format))


@gallery_app.command()
def calibrate(
    file: options.File,
    source: options.Source,
    accepts: Annotated[
        float, typer.Option(help="Share of the photographs of known products to accept.")
    ] = 0.95,
    score: options.Score = "similarity",
    root: options.Root = "",
    model: options.Moved = "",
    unreadable: options.Unreadable = "fail",
) -> None:
    """Choose the threshold under which a product counts as unknown, and store it in the gallery.

    SOURCE holds at least 4 validation products with several images each: of a plain folder the first is taken as
    packshot.  Half of them join the gallery's own products, the others are unknown, in five draws.
    """
    gallery = gallery_of(file, model)
    catalogue = catalogue_of(source, root, 0, unreadable)
    from klip.recognise import open_set

    chosen = open_set.calibrate(gallery, catalogue, score, accepts, progress=True) | {"set": source}
    gallery.meta["unknown"] = chosen
    gallery.save(file)
    typer.echo(
        f"{file}: unknown below {chosen['below']:.4f} ({score}), chosen on {chosen['products']} products "
        f"({chosen['draws']} draws, half of them beside {chosen['beside']} of the gallery)"
    )
    typer.echo(
        f"  correct accepts {chosen['correct_accepts']:7.1%}   ({chosen['accepted']} of {chosen['known']})\n"
        f"  false accepts   {chosen['false_accepts']:7.1%}   "
        f"({chosen['accepted_unknown']} of {chosen['unknown']})\n"
        f"  AUROC           {chosen['auroc']:7.3f}"
    )


def _report(gallery: Gallery, file: Path) -> None:
    size, own = file.stat().st_size, sum(rows.nbytes for rows in gallery.descriptors or ())
    part = (
        f", {100 * own / size:.0f} % of it descriptors" if gallery.descriptors is not None else ""
    )
    typer.echo(
        f"{file}: {len(gallery.products)} products, {len(gallery)} rows, {size / 1e6:.2f} MB{part}"
    )
