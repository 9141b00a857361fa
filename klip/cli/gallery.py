"""klip gallery build, add, remove, classify, calibrate."""

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from klip.cli import options
from klip.cli.options import app, catalogue_of, encoder_of, images_of, rerank_of, tell

gallery_app = options.group()
app.add_typer(gallery_app, name="gallery", help="Build and use a gallery of packshots (paper 4.2).")

UNKNOWN = "Score under which a product counts as unknown; default: the gallery's own, -2: none."
CHOSEN = (
    "unknown below {below:.4f} ({score}), chosen on {products} products "
    "({draws} draws, half of them beside {beside} of the gallery)\n"
    "  correct accepts {correct_accepts:7.1%}   ({accepted} of {known})\n"
    "  false accepts   {false_accepts:7.1%}   ({accepted_unknown} of {unknown})\n"
    "  AUROC           {auroc:7.3f}"
)


@gallery_app.command()
def build(
    file: Annotated[Path, Argument(callback=options.writable, help="The gallery file.")],
    source: options.Source,
    model: options.Model = "nano",
    resize: options.Resize = "",
    pixels: options.Pixels = 0,
    also: options.Also = 0,
    views: options.Views = 8,
    seed: options.Seed = 0,
    bad_images: options.BadImages = "stop",
    keypoints: Annotated[bool, Option("--keypoints", help="Keep what --rerank wants.")] = False,
) -> None:
    """Embed the packshots of a folder, each with its views, and write the gallery."""
    catalogue = catalogue_of(source, seed=seed, bad_images=bad_images)
    from klip.model import encoder
    from klip.recognise.gallery import Gallery
    from klip.recognise.rerank import Rerank

    tower = encoder.load(model, resize, pixels=pixels, also=also)
    how = {"views": views, "seed": seed, "keypoints": keypoints}
    gallery = Gallery.build(tower, catalogue.packshots(), **how)
    if Path(model).is_file():  # to be found from another folder too
        model = str(Path(model).resolve())
    gallery.meta |= {"model": model, "resize": resize, "pixels": pixels, "also": also}
    if keypoints:
        gallery.meta["rerank"] = Rerank().model_dump()
    gallery.save(file)
    tell(gallery, file)


@gallery_app.command()
def add(
    file: options.File,
    product: Annotated[str, Argument(help="Its name; a known product gets more packshots.")],
    images: Annotated[list[Path], Argument(help="Packshots, or folders of them.")],
    model: options.Moved = "",
    bad_images: options.BadImages = "stop",
) -> None:
    """Add a product; the other rows are not touched."""
    from klip.recognise.gallery import Gallery

    with Gallery.edited(file, encoder_of(file, model)) as gallery:
        gallery.add(product, images_of(images, bad_images))
    tell(gallery, file)


@gallery_app.command()
def remove(file: options.File, product: Annotated[str, Argument(help="Its name.")]) -> None:
    """Remove a product; the other rows are not touched."""
    from klip.recognise.gallery import Gallery

    with Gallery.edited(file) as gallery:
        gallery.remove(product)
    tell(gallery, file)


@gallery_app.command()
def classify(
    file: options.File,
    images: Annotated[list[Path], Argument(help="Photographs, or folders of them.")],
    top: Annotated[int, Option(min=1, help="Products shown per photograph.")] = 1,
    unknown_below: Annotated[float | None, Option(help=UNKNOWN)] = None,
    score: options.Score = "",
    rerank: options.Method = None,
    weight: options.Weight = None,
    first: options.First = None,
    model: options.Moved = "",
    bad_images: options.BadImages = "stop",
    as_json: options.Json = False,
) -> None:
    """Name the product on each photograph; unknown if it scores under a threshold."""
    from klip.recognise.gallery import Gallery

    gallery = Gallery.load(file, encoder_of(file, model))
    how = rerank_of(rerank, gallery.meta.get("rerank", {}), weight=weight, first=first)
    asked = images_of(images, bad_images)
    frame = gallery.classify(asked, top=top, unknown_below=unknown_below, score=score, rerank=how)
    if as_json:
        typer.echo(frame.to_json(orient="records", force_ascii=False, indent=2))
        return
    # For people: an unknown product says so in its first row.
    unknown = frame.pop("unknown") & frame["rank"].eq(1)
    told = "unknown (nearest: " + frame["product"] + ")"
    frame["product"] = frame["product"].mask(unknown, told)
    typer.echo(frame.to_string(index=False, float_format="{:.3f}".format))


@gallery_app.command()
def calibrate(
    file: options.File,
    source: options.Source,
    accepts: Annotated[float, Option(help="Share to accept of known products' photos.")] = 0.95,
    score: options.Score = "similarity",
    root: options.Root = "",
    model: options.Moved = "",
    bad_images: options.BadImages = "stop",
) -> None:
    """Choose the threshold under which a product is unknown; the gallery keeps it.

    SOURCE holds at least 4 validation products with several images each: of a plain
    folder the first is taken as packshot.  Half of them join the gallery's own products,
    the others are unknown, in five draws.
    """
    catalogue = catalogue_of(source, root, bad_images=bad_images)
    from klip.recognise import open_set
    from klip.recognise.gallery import Gallery

    with Gallery.edited(file, encoder_of(file, model)) as gallery:
        gallery.reading["progress"] = True
        chosen = open_set.calibrate(gallery, catalogue, score=score, accepts=accepts)
        gallery.meta["unknown"] = chosen | {"set": source}
    typer.echo(f"{file}: {CHOSEN.format(**chosen)}")
