"""klip gallery build, add, remove, classify, calibrate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from klip.cli import options
from klip.cli.options import app, catalogue_of, encoder_of, gallery_of, images_of, rerank_of

if TYPE_CHECKING:
    import pandas as pd

    from klip.recognise.gallery import Gallery

gallery_app = options.group()
app.add_typer(gallery_app, name="gallery", help="Build and use a gallery of packshots (paper 4.2).")

UNKNOWN = "Score under which a product counts as unknown; default: the gallery's own, -2: none."


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
        bool, Option("--keypoints", help="Keep what --rerank keypoints needs.")
    ] = False,
) -> None:
    """Embed the packshots of a folder, each with its views, and write the gallery."""
    options.writable(file)
    catalogue = catalogue_of(source, "", seed, unreadable)
    from klip.recognise.gallery import Gallery
    from klip.recognise.rerank import Rerank

    encoder = encoder_of(model, resize, pixels, also)
    packshots = catalogue.packshots()
    gallery = Gallery.build(encoder, packshots, views=views, seed=seed, keypoints=keypoints)
    if Path(model).is_file():  # to be found from another folder too
        model = str(Path(model).resolve())
    gallery.meta |= {"model": model, "resize": resize, "pixels": pixels, "also": also}
    if keypoints:
        gallery.meta["rerank"] = Rerank().model_dump()
    _save(gallery, file)


@gallery_app.command()
def add(
    file: options.File,
    product: Annotated[str, Argument(help="Its name; a known product gets more packshots.")],
    images: Annotated[list[Path], Argument(help="Packshots, or folders of them.")],
    model: options.Moved = "",
) -> None:
    """Add a product; the other rows are not touched."""
    gallery = gallery_of(file, model)
    gallery.add(product, images_of(images, "fail"))
    _save(gallery, file)


@gallery_app.command()
def remove(file: options.File, product: Annotated[str, Argument(help="Its name.")]) -> None:
    """Remove a product; the other rows are not touched."""
    from klip.recognise.gallery import Gallery

    gallery = Gallery.load(file)
    gallery.remove(product)
    _save(gallery, file)


@gallery_app.command()
def classify(
    file: options.File,
    images: Annotated[list[Path], Argument(help="Photographs, or folders of them.")],
    top: Annotated[int, Option(min=1, help="Products shown per photograph.")] = 1,
    unknown_below: Annotated[float | None, Option(help=UNKNOWN)] = None,
    score: options.Score = "",
    rerank: options.Print = "",
    weight: options.Weight = None,
    first: options.First = None,
    model: options.Moved = "",
    unreadable: options.Unreadable = "fail",
    as_json: options.Json = False,
) -> None:
    """Name the product on each photograph; one that is not in the gallery is unknown, if
    there is a threshold.
    """
    gallery = gallery_of(file, model)
    how = rerank_of(rerank, weight, first, gallery.meta.get("rerank", {}))
    asked = images_of(images, unreadable)
    frame = gallery.classify(asked, top=top, unknown_below=unknown_below, score=score, rerank=how)
    if as_json:
        typer.echo(frame.to_json(orient="records", force_ascii=False, indent=2))
    else:
        typer.echo(_table(frame))


@gallery_app.command()
def calibrate(
    file: options.File,
    source: options.Source,
    accepts: Annotated[
        float, Option(help="Share of the photographs of known products to accept.")
    ] = 0.95,
    score: options.Score = "similarity",
    root: options.Root = "",
    model: options.Moved = "",
    unreadable: options.Unreadable = "fail",
) -> None:
    """Choose the threshold under which a product counts as unknown, and store it in the gallery.

    SOURCE holds at least 4 validation products with several images each: of a plain folder
    the first is taken as packshot.  Half of them join the gallery's own products, the
    others are unknown, in five draws.
    """
    gallery = gallery_of(file, model)
    catalogue = catalogue_of(source, root, 0, unreadable)
    from klip.recognise import open_set

    gallery.reading["progress"] = True
    chosen = open_set.calibrate(gallery, catalogue, score=score, accepts=accepts)
    gallery.meta["unknown"] = chosen | {"set": source}
    gallery.save(file)
    typer.echo(f"{file}: {_told(chosen)}")


def _save(gallery: Gallery, file: Path) -> None:
    size, part = gallery.save(file).stat().st_size, ""
    if gallery.descriptors is not None:
        own = sum(rows.nbytes for rows in gallery.descriptors)
        part = f", {100 * own / size:.0f} % of it descriptors"
    rows = f"{len(gallery.products)} products, {len(gallery)} rows"
    typer.echo(f"{file}: {rows}, {size / 1e6:.2f} MB{part}")


def _table(frame: pd.DataFrame) -> str:
    """What was recognised, for people: an unknown product says so in its first row."""
    unknown = frame["unknown"] & frame["rank"].eq(1)
    told = "unknown (nearest: " + frame["product"] + ")"
    frame = frame.assign(product=frame["product"].mask(unknown, told))
    return frame.drop(columns="unknown").to_string(index=False, float_format="{:.3f}".format)


def _told(chosen: dict[str, Any]) -> str:
    """The threshold, whence it comes, and what it does."""
    return (
        "unknown below {below:.4f} ({score}), chosen on {products} products "
        "({draws} draws, half of them beside {beside} of the gallery)\n"
        "  correct accepts {correct_accepts:7.1%}   ({accepted} of {known})\n"
        "  false accepts   {false_accepts:7.1%}   ({accepted_unknown} of {unknown})\n"
        "  AUROC           {auroc:7.3f}"
    ).format(**chosen)
