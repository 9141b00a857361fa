"""klip data and klip shop: sets of images."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Annotated, ClassVar

import typer
from typer import Argument, Option

from klip.cli import options
from klip.cli.options import app, catalogue_of, group, pairs_of, size_of

data_app, shop_app = group(), group()
app.add_typer(data_app, name="data", help="Fetch, check and list image sets.")
app.add_typer(shop_app, name="shop", help="The rendered shop.")

TUNED = "The set fine-tuned on: folder, manifest .csv, or set name."
NEIGHBOURS = "Encoder whose neighbours are suspected too; none: no encoder."
KEPT = "Where it is generated and kept; default: klip's cache."


@data_app.command()
def fetch(
    name: Annotated[str, Argument(help="Name of the set, e.g. grocery-store.")],
    root: options.Root = "",
) -> None:
    """Download a set that may be, and check its fingerprint; else say what to put where."""
    from klip.data import fetch as fetcher

    typer.echo(str(fetcher.fetch(name, root)))


@data_app.command()
def check(source: options.Source, root: options.Root = "", load: options.Load = None) -> None:
    """Count a set, read every image and list the damage; exit code 1 if there is any.

    Says images and products per split, what the loader left out, and products that are
    only in training or test.
    """
    catalogue = catalogue_of(source, root, bad_images="keep", load=load)
    from klip.data import damage
    from klip.data.loading import summary

    for split, images, products in summary(catalogue).itertuples(index=False):
        typer.echo(f"{split:<8}{images:>9} images of {products:>6} products")
    for note in catalogue.notes:
        typer.echo(f"note: {note}")
    if catalogue.left_out:
        from klip.data.scan import told

        files, gone = len(catalogue), len(catalogue.left_out)
        typer.echo(f"{files + gone} files: {files} images, {gone} left out")
        for sentence in told(catalogue.left_out):
            typer.echo(f"note: {sentence}")
    what = ("never asked for (no query)", "only in test (no packshot)")
    for reason, products in zip(what, damage.one_sided(catalogue), strict=True):
        if products:
            typer.echo(f"{len(products)} products {reason}: {', '.join(products)}")
    problems = damage.check(catalogue)
    if len(problems):
        typer.echo(problems.to_string(index=False))
    missing = int(problems["problem"].eq("missing").sum())
    told = f"{len(problems)} damaged" + (f" ({missing} missing)" if missing else "")
    typer.echo(f"{source}: {size_of(catalogue)}, {told}")
    raise typer.Exit(1 if len(problems) else 0)


@data_app.command()
def leaks(
    tuned: Annotated[str, Argument(help=TUNED)],
    evaluated: Annotated[str, Argument(help="The set evaluated on.")],
    model: Annotated[str, Option(help=NEIGHBOURS)] = "nano",
    images: Annotated[int, Option(help="Images of each product that take part; 0: all.")] = 2,
    workers: options.Workers = 2,
    bad_images: options.BadImages = "stop",
) -> None:
    """Products two sets seem to share, by perceptual hash and embedding; exit code 1 if any."""
    few = [catalogue_of(source, bad_images=bad_images) for source in (tuned, evaluated)]
    from klip.data import longtail

    if images:
        few = [rows.first(images) for rows in few]
    places = None
    if model != "none":
        from klip.model import encoder

        tower, how = encoder.load(model), {"workers": workers, "progress": True}
        places = tuple(encoder.embed(tower, rows, **how).numpy() for rows in few)
    found = longtail.suspects(longtail.leak_audit(*few, embeddings=places, workers=workers))
    if len(found):
        typer.echo(found.to_string(index=False, float_format="{:.3f}".format))
    names = sorted({*few[0]["product"]} & {*few[1]["product"]})
    common = f"{len(names)} names in common" + (f": {', '.join(names[:5])}" if names else "")
    typer.echo(f"{tuned} and {evaluated}: {len(found)} pairs of products suspected, {common}")
    raise typer.Exit(1 if len(found) or names else 0)


@data_app.command()
def pack(
    source: options.Source,
    out: Annotated[Path, Argument(help="An empty folder for the tar files.")],
    per_shard: Annotated[int, Option(help="Images of a tar file.")] = 1000,
    root: options.Root = "",
    seed: options.Seed = 0,
    bad_images: options.BadImages = "stop",
    load: options.Load = None,
) -> None:
    """Pack a set into tar files (as WebDataset), which klip reads like a folder."""
    from klip.scale import shards

    catalogue = catalogue_of(source, root, seed=seed, bad_images=bad_images, load=load)
    shards.pack(catalogue, out, per_shard=per_shard, seed=seed, progress=True)
    typer.echo(f"{out}: {size_of(catalogue)} in {len(list(out.glob('*.tar')))} tar files")


@data_app.command()
def index(folder: Annotated[Path, Argument(help="A folder of tar files.")]) -> None:
    """Write the manifest.csv of tar files that others packed (as WebDataset)."""
    from klip.scale import shards

    typer.echo(str(shards.index(folder)))


@data_app.command(name="list")
def list_sets() -> None:
    """Every set of photographs: what it holds, where to put it, licence and citation."""
    from klip.data.sources import SOURCES
    from klip.settings import paths

    for name, source in SOURCES.items():
        typer.echo(f"{name}: {source.holds}")
        typer.echo(f"  folder    {paths.data_root() / name}")
        typer.echo(f"  put there {source.place}")
        typer.echo(f"  source    {source.url or 'not public'}")
        typer.echo(f"  licence   {source.licence}")
        typer.echo(f"  cite      {source.citation}")


@data_app.command(name="measure")
def measure_scale(
    rows: Annotated[int, Option(help="Images of the generated manifest.")] = 1_000_000,
    products: Annotated[int, Option(help="Its products.")] = 6_500,
    folder: Annotated[Path | None, Option(help=KEPT)] = None,
) -> None:
    """Seconds and peak memory of loading a large manifest, planning, a first batch."""
    from klip.scale import measure
    from klip.settings import paths

    folder = folder or paths.CACHE / "scale" / f"{rows}-{products}"
    file = measure.generate(folder, rows=rows, products=products)
    typer.echo(json.dumps(measure.fresh(file), indent=2))


@shop_app.command()
def render(
    root: Annotated[Path | None, Option(help="Folder to fill; default: klip's cache.")] = None,
    workers: options.Workers = 2,
    values: options.Values = None,
) -> None:
    """Draw the shop: fine-tuning range, three evaluation sets; --set: fields of ShopPlan."""
    from pydantic import create_model

    from klip.settings import checked, paths
    from klip.shop import sets
    from klip.shop.plan import ShopPlan

    # Names and types are checked like other settings; ShopPlan checks the values.
    kinds = {field.name: (type(field.default), field.default) for field in fields(ShopPlan)}
    called = (ClassVar[str], "shop plan")
    given = create_model("Asked", __base__=checked.Checked, called=called, **kinds)
    plan = ShopPlan(**given(**pairs_of(values)).model_dump())
    made = sets.render(plan, root or paths.CACHE / "shop", workers=workers, progress=True)
    for name, catalogue in made.items():
        products = catalogue["product"].nunique()
        typer.echo(f"{name:<14}{len(catalogue):>7} images of {products:>5} products")
