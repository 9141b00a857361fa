"""klip data and klip shop: sets of images."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from klip.cli import options
from klip.cli.options import app, catalogue_of, encoder_of, group, pairs_of

data_app, shop_app = group(), group()
app.add_typer(data_app, name="data", help="Fetch, check and list image sets.")
app.add_typer(shop_app, name="shop", help="The rendered shop.")


@data_app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Name of the set, e.g. grocery-store.")],
    root: options.Root = "",
) -> None:
    """Download a set that may be downloaded, and check its fingerprint; else say what to put where."""
    from klip.data import fetch as fetcher

    typer.echo(str(fetcher.fetch(name, root)))


@data_app.command()
def check(source: options.Source, root: options.Root = "", load: options.Load = None) -> None:
    """Count a set, read every image and list the damage; exit code 1 if there is any.

    Says images and products per split, what the loader left out, and products that are only in training or test.
    """
    catalogue = catalogue_of(source, root, 0, "keep", load)
    from klip.data import catalogue as data

    for split, images, products in data.summary(catalogue).itertuples(index=False):
        typer.echo(f"{split:<8}{images:>9} images of {products:>6} products")
    for note in catalogue.attrs.get("notes", ()):
        typer.echo(f"note: {note}")
    for products, what in zip(
        data.one_sided(catalogue),
        ("never asked for (no query)", "only in test (no packshot)"),
        strict=True,
    ):
        if products:
            typer.echo(f"{len(products)} products {what}: {', '.join(products)}")
    damage = data.check(catalogue)
    if len(damage):
        typer.echo(damage.to_string(index=False))
    missing = int(damage["problem"].eq("missing").sum())
    typer.echo(
        f"{source}: {len(catalogue)} images of {catalogue['product'].nunique()} products, "
        f"{len(damage)} damaged" + (f" ({missing} missing)" if missing else "")
    )
    raise typer.Exit(1 if len(damage) else 0)


@data_app.command()
def leaks(
    tuned: Annotated[
        str, typer.Argument(help="The set fine-tuned on: folder, manifest .csv, or set name.")
    ],
    evaluated: Annotated[str, typer.Argument(help="The set evaluated on.")],
    model: Annotated[
        str, typer.Option(help="Encoder whose neighbours are suspected too; none: no encoder.")
    ] = "nano",
    images: Annotated[int, typer.Option(help="Images of each product that take part; 0: all.")] = 2,
    workers: options.Workers = 2,
) -> None:
    """Products that two sets seem to share, by perceptual hash and by embedding; exit code 1 if there are any."""
    from klip.data import longtail

    few = [catalogue_of(source) for source in (tuned, evaluated)]
    few = [rows.groupby("product", sort=False).head(images) if images else rows for rows in few]
    places: list[Any] = [None, None]
    if model != "none":
        from klip.model import encoder

        tower = encoder_of(model, "")
        places = [
            encoder.embed(tower, rows, workers=workers, progress=True).numpy() for rows in few
        ]
    found = longtail.suspects(longtail.leak_audit(*few, *places, workers=workers))
    names = sorted({*few[0]["product"]} & {*few[1]["product"]})
    if len(found):
        typer.echo(found.to_string(index=False, float_format="{:.3f}".format))
    typer.echo(
        f"{tuned} and {evaluated}: {len(found)} pairs of products suspected, {len(names)} names in common"
        + (f": {', '.join(names[:5])}" if names else "")
    )
    raise typer.Exit(1 if len(found) or names else 0)


@data_app.command()
def pack(
    source: options.Source,
    out: Annotated[Path, typer.Argument(help="An empty folder for the tar files.")],
    per_shard: Annotated[int, typer.Option(help="Images of a tar file.")] = 1000,
    root: options.Root = "",
    seed: options.Seed = 0,
    load: options.Load = None,
) -> None:
    """Pack a set into tar files (WebDataset's convention), which klip reads like a folder."""
    from klip.data import shards

    catalogue = catalogue_of(source, root, seed, "fail", load)
    shards.pack(catalogue, out, per_shard, seed, progress=True)
    typer.echo(
        f"{out}: {len(catalogue)} images of {catalogue['product'].nunique()} products in "
        f"{len(list(out.glob('*.tar')))} tar files"
    )


@data_app.command(name="list")
def list_sets() -> None:
    """Every set of real photographs: what it holds, where to put it, licence and citation."""
    from klip.data.sources import SOURCES
    from klip.settings import paths

    for name, source in SOURCES.items():
        typer.echo(
            f"{name}: {source.holds}\n  folder    {paths.data_root() / name}\n  put there {source.place}\n"
            f"  source    {source.url or 'not public'}\n  licence   {source.licence}\n"
            f"  cite      {source.citation}"
        )


@data_app.command(name="measure")
def measure_scale(
    rows: Annotated[int, typer.Option(help="Images of the generated manifest.")] = 1_000_000,
    products: Annotated[int, typer.Option(help="Its products.")] = 6_500,
    folder: Annotated[
        Path | None, typer.Option(help="Where it is generated and kept; default: klip's cache.")
    ] = None,
) -> None:
    """Seconds and peak memory of loading a large manifest, planning and drawing the first batch."""
    from klip.scale import measure
    from klip.settings import paths

    file = measure.generate(folder or paths.CACHE / "scale" / f"{rows}-{products}", rows, products)
    typer.echo(json.dumps(measure.fresh(file), indent=2))


@shop_app.command()
def render(
    root: Annotated[
        Path | None, typer.Option(help="Folder to fill; default: klip's cache.")
    ] = None,
    workers: options.Workers = 2,
    values: options.Values = None,
) -> None:
    """Draw the shop: a fine-tuning range and three evaluation sets; --set takes fields of ShopPlan."""
    from klip.settings import paths
    from klip.shop import sets

    kinds = {field.name: type(field.default) for field in fields(sets.ShopPlan)}
    plan = dict[str, Any]()
    for name, value in pairs_of(values).items():
        if name not in kinds:
            raise ValueError(
                f"shop plan: no field is called {name!r}; there are {', '.join(kinds)}"
            )
        try:
            plan[name] = kinds[name](value)
        except ValueError:
            raise ValueError(
                f"shop plan: {name} must be of type {kinds[name].__name__}, got {value!r}"
            ) from None
    made = sets.render(
        sets.ShopPlan(**plan), root or paths.CACHE / "shop", workers=workers, progress=True
    )
    for name, catalogue in made.items():
        typer.echo(
            f"{name:<14}{len(catalogue):>7} images of {catalogue['product'].nunique():>5} products"
        )
