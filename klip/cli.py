"""The command line `klip`: every command is a few calls of the package; heavy imports wait until one is run.

What the user got wrong (ValueError, OSError) becomes one sentence on stderr and exit code 2.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    import pandas as pd

    from klip.encoder import Encoder
    from klip.zeroshot import Gallery

SHARES = ("top1", "top1_per_product", "top5")


class OneSentence(TyperGroup):
    """Turns a mistake in the input into one sentence and exit code 2; other errors stay tracebacks."""

    def invoke(self, ctx: Any) -> Any:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: _say(f"note: {message}")
            try:
                return super().invoke(ctx)
            except typer.BadParameter as error:
                _say(error.format_message())
                raise typer.Exit(2) from None
            except (ValueError, OSError) as error:
                _say(str(error))
                raise typer.Exit(2) from None


def _say(text: str) -> None:
    typer.echo("klip: " + " ".join(text.split()), err=True)


def _group(**options: Any) -> typer.Typer:
    return typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False,
                       no_args_is_help=True, **options)


app = _group(cls=OneSentence, help="RetailKLIP: fine-tune an image tower, recognise products zero-shot.")
gallery_app, data_app, shop_app = _group(), _group(), _group()
app.add_typer(gallery_app, name="gallery", help="Build and use a gallery of packshots (paper 4.2).")
app.add_typer(data_app, name="data", help="Fetch, check and list image sets.")
app.add_typer(shop_app, name="shop", help="The rendered shop.")

Model = Annotated[str, typer.Option(help="nano, nano-vit, a FILE written by klip, or ARCH:TAG of open_clip.")]
Resize = Annotated[str, typer.Option(help="squash, pad or crop; empty: as stored with the model.")]
Views = Annotated[int, typer.Option(help="Augmented views kept of each packshot, the plain one included.")]
Seed = Annotated[int, typer.Option(help="Seed of everything drawn at random.")]
Root = Annotated[str, typer.Option(help="Folder of the set; empty: KLIP_DATA/<set>.")]
Workers = Annotated[int, typer.Option(help="Processes that read images; 0: none beside this one.")]
Values = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other setting.")]
Unreadable = Annotated[str, typer.Option(help="Damaged images, empty products: fail, or skip with a note.")]
Moved = Annotated[str, typer.Option(help="Needed only when the model file has moved since the build.")]
Source = Annotated[str, typer.Argument(
    help="Folder with a folder per product, manifest .csv or .parquet, or set name.")]
File = Annotated[Path, typer.Argument(help="The gallery file.")]
Score = Annotated[str, typer.Option(help="similarity, or margin between first and second product.")]


@app.command()
def reproduce(
    profile: Annotated[str, typer.Option(help="nano, real, shelf or paper.")] = "nano",
    only: Annotated[list[str] | None, typer.Option(help="A notebook's number, e.g. 02; repeatable.")] = None,
    appendix: Annotated[bool, typer.Option(help="Also the appendix notebooks (long).")] = False,
    values: Values = None,
) -> None:
    """Run the notebooks of a profile in order; those up to date are skipped."""
    from klip import reproduce as runner

    runner.run(profile, _pairs(values), only=only or None, appendix=appendix)


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
    pretrained: Annotated[str, typer.Option(help="TAG of open_clip for --model ARCH; none: random.")] = "",
    images: Annotated[int, typer.Option(help="Images seen in all.")] = 6000,
    depth: Annotated[int, typer.Option(help="Images per product and epoch (paper 4.1.3).")] = 16,
    root: Root = "",
    seed: Seed = 0,
    unreadable: Unreadable = "fail",
    values: Values = None,
) -> None:
    """Fine-tune with ArcFace and block-wise rates (paper 4.1); --set takes fields of FinetuneConfig.

    On several GPUs: torchrun --nproc-per-node N -m klip finetune ...
    """
    _writable(out)
    from klip.config import FinetuneConfig

    name = f"{model}:{pretrained}" if pretrained else model
    given = {"model": name, "images": images, "depth": depth, "seed": seed}
    config = FinetuneConfig(**given | _pairs(values))
    catalogue = _catalogue(source, root, seed, unreadable)
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
    views: Views = 8,
    seed: Seed = 0,
    workers: Workers = 0,
    unreadable: Unreadable = "fail",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures there.")] = None,
) -> None:
    """Zero-shot accuracy on a set: one packshot per product, nearest neighbour (paper 4.2)."""
    if json_file:
        _writable(json_file)
    catalogue = _catalogue(set_name, root, seed, unreadable)
    encoder = _encoder(model, resize)
    from klip import zeroshot
    from klip.checkpoint import atomic

    frame = zeroshot.evaluate(encoder, catalogue, gallery, views, seed, workers=workers, progress=True)
    figures = _figures(frame, seed) | {
        "set": set_name, "gallery": gallery, "views": views, "seed": seed, "model": model,
        "model_fingerprint": frame.attrs["fingerprint"], "preprocess": encoder.preprocess.to_dict()}
    if json_file:
        atomic(json_file, lambda part: part.write_text(json.dumps(figures, indent=2) + "\n"))
    typer.echo(f"{set_name}: {figures['queries']} queries, {figures['products']} products, "
               f"gallery {gallery}, model {model}")
    for name in SHARES:
        low, high = figures[f"{name}_interval"]
        typer.echo(f"  {name:<17}{100 * figures[name]:6.1f} %   [{100 * low:.1f}, {100 * high:.1f}]")


# ------------------------------------------------------------------------------------------- memory and speed

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


@gallery_app.command()
def build(
    file: File,
    source: Source,
    model: Model = "nano",
    resize: Resize = "",
    views: Views = 8,
    seed: Seed = 0,
    unreadable: Unreadable = "fail",
) -> None:
    """Embed the packshots of a folder, each with its views, and write the gallery."""
    _writable(file)
    catalogue = _catalogue(source, "", seed, unreadable)
    from klip.zeroshot import Gallery, packshots

    gallery = Gallery.build(_encoder(model, resize), packshots(catalogue), views, seed)
    file_or_name = str(Path(model).resolve()) if Path(model).is_file() else model
    gallery.meta |= {"model": file_or_name, "resize": resize}
    _report(gallery, gallery.save(file))


@gallery_app.command()
def add(
    file: File,
    product: Annotated[str, typer.Argument(help="Its name; a known product gets more packshots.")],
    images: Annotated[list[Path], typer.Argument(help="Packshots, or folders of them.")],
    model: Moved = "",
) -> None:
    """Add a product; the other rows are not touched."""
    gallery = _gallery(file, model)
    gallery.add(product, _images(images, "fail"))
    _report(gallery, gallery.save(file))


@gallery_app.command()
def remove(file: File, product: Annotated[str, typer.Argument(help="Its name.")]) -> None:
    """Remove a product; the other rows are not touched."""
    from klip.zeroshot import Gallery

    gallery = Gallery.load(file)
    gallery.remove(product)
    _report(gallery, gallery.save(file))


@gallery_app.command()
def classify(
    file: File,
    images: Annotated[list[Path], typer.Argument(help="Photographs, or folders of them.")],
    k: Annotated[int, typer.Option(help="Neighbours that vote (paper: 1).")] = 1,
    top: Annotated[int, typer.Option(help="Products shown per photograph.")] = 1,
    unknown_below: Annotated[float | None, typer.Option(
        help="Score under which a product counts as unknown; default: the gallery's own, -2: none.")] = None,
    score: Score = "",
    model: Moved = "",
    unreadable: Unreadable = "fail",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Name the product on each photograph; one that is not in the gallery is unknown, if there is a threshold."""
    frame = _gallery(file, model).classify(_images(images, unreadable), k, top, unknown_below, score)
    if as_json:
        typer.echo(frame.to_json(orient="records", force_ascii=False, indent=2))
    else:
        unknown = frame.pop("unknown") & frame["rank"].eq(1)
        frame["product"] = frame["product"].mask(unknown, "unknown (nearest: " + frame["product"] + ")")
        typer.echo(frame.to_string(index=False, float_format="{:.3f}".format))


@gallery_app.command()
def calibrate(
    file: File,
    source: Source,
    accepts: Annotated[float, typer.Option(help="Share of the photographs of known products to accept.")] = 0.95,
    score: Score = "similarity",
    root: Root = "",
    model: Moved = "",
    unreadable: Unreadable = "fail",
) -> None:
    """Choose the threshold under which a product counts as unknown, and store it in the gallery.

    SOURCE holds at least 4 validation products with several images each: of a plain folder the first is taken as
    packshot.  Half of them join the gallery's own products, the others are unknown, in five draws.
    """
    gallery = _gallery(file, model)
    catalogue = _catalogue(source, root, 0, unreadable)
    from klip import openset

    chosen = openset.calibrate(gallery, catalogue, score, accepts, progress=True) | {"set": source}
    gallery.meta["unknown"] = chosen
    gallery.save(file)
    typer.echo(f"{file}: unknown below {chosen['below']:.4f} ({score}), chosen on {chosen['products']} products "
               f"({chosen['draws']} draws, half of them beside {chosen['beside']} of the gallery)")
    typer.echo(f"  correct accepts {chosen['correct_accepts']:7.1%}   ({chosen['accepted']} of {chosen['known']})\n"
               f"  false accepts   {chosen['false_accepts']:7.1%}   "
               f"({chosen['accepted_unknown']} of {chosen['unknown']})\n"
               f"  AUROC           {chosen['auroc']:7.3f}")


@data_app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Name of the set, e.g. grocery-store.")],
    root: Root = "",
) -> None:
    """Download a set that may be downloaded, and check its fingerprint; else say what to put where."""
    from klip import fetch as fetcher

    typer.echo(str(fetcher.fetch(name, root)))


@data_app.command()
def check(
    source: Source,
    root: Root = "",
) -> None:
    """Count a set, read every image and list the damage; exit code 1 if there is any.

    Says images and products per split, what the loader left out, and products that are only in training or test.
    """
    catalogue = _catalogue(source, root, 0, "keep")
    from klip import data

    for split, images, products in data.summary(catalogue).itertuples(index=False):
        typer.echo(f"{split:<8}{images:>9} images of {products:>6} products")
    for note in catalogue.attrs.get("notes", ()):
        typer.echo(f"note: {note}")
    for products, what in zip(data.one_sided(catalogue), ("never asked for (no query)", "only in test (no packshot)"),
                              strict=True):
        if products:
            typer.echo(f"{len(products)} products {what}: {', '.join(products)}")
    damage = data.check(catalogue)
    if len(damage):
        typer.echo(damage.to_string(index=False))
    missing = int(damage["problem"].eq("missing").sum())
    typer.echo(f"{source}: {len(catalogue)} images of {catalogue['product'].nunique()} products, "
               f"{len(damage)} damaged" + (f" ({missing} missing)" if missing else ""))
    raise typer.Exit(1 if len(damage) else 0)


@data_app.command()
def leaks(
    tuned: Annotated[str, typer.Argument(help="The set fine-tuned on: folder, manifest .csv, or set name.")],
    evaluated: Annotated[str, typer.Argument(help="The set evaluated on.")],
    model: Annotated[str, typer.Option(help="Encoder whose neighbours are suspected too; none: no encoder.")] = "nano",
    images: Annotated[int, typer.Option(help="Images of each product that take part; 0: all.")] = 2,
    workers: Workers = 2,
) -> None:
    """Products that two sets seem to share, by perceptual hash and by embedding; exit code 1 if there are any."""
    from klip import longtail

    few = [_catalogue(source, "", 0, "fail") for source in (tuned, evaluated)]
    few = [rows.groupby("product", sort=False).head(images) if images else rows for rows in few]
    places: list[Any] = [None, None]
    if model != "none":
        from klip import encoder

        tower = _encoder(model, "")
        places = [encoder.embed(tower, rows, workers=workers, progress=True).numpy() for rows in few]
    found = longtail.suspects(longtail.leak_audit(*few, *places, workers=workers))
    names = sorted({*few[0]["product"]} & {*few[1]["product"]})
    if len(found):
        typer.echo(found.to_string(index=False, float_format="{:.3f}".format))
    typer.echo(f"{tuned} and {evaluated}: {len(found)} pairs of products suspected, {len(names)} names in common"
               + (f": {', '.join(names[:5])}" if names else ""))
    raise typer.Exit(1 if len(found) or names else 0)


@data_app.command(name="list")
def list_sets() -> None:
    """Every set of real photographs: what it holds, where to put it, licence and citation."""
    from klip import paths
    from klip.sources import SOURCES

    for name, source in SOURCES.items():
        typer.echo(f"{name}: {source.holds}\n  folder    {paths.data_root() / name}\n  put there {source.place}\n"
                   f"  source    {source.url or 'not public'}\n  licence   {source.licence}\n"
                   f"  cite      {source.citation}")


@data_app.command(name="measure")
def measure_scale(
    rows: Annotated[int, typer.Option(help="Images of the generated manifest.")] = 1_000_000,
    products: Annotated[int, typer.Option(help="Its products.")] = 6_500,
    folder: Annotated[Path | None, typer.Option(help="Where it is generated and kept; default: klip's cache.")] = None,
) -> None:
    """Seconds and peak memory of loading a large manifest, planning and drawing the first batch."""
    from klip import measure, paths

    file = measure.generate(folder or paths.CACHE / "scale" / f"{rows}-{products}", rows, products)
    typer.echo(json.dumps(measure.fresh(file), indent=2))


@shop_app.command()
def render(
    root: Annotated[Path | None, typer.Option(help="Folder to fill; default: klip's cache.")] = None,
    workers: Workers = 2,
    values: Values = None,
) -> None:
    """Draw the shop: a fine-tuning range and three evaluation sets; --set takes fields of ShopPlan."""
    from klip import paths
    from klip.shop import sets

    kinds = {field.name: type(field.default) for field in fields(sets.ShopPlan)}
    pairs = _pairs(values)
    if unknown := [name for name in pairs if name not in kinds]:
        raise ValueError(f"shop plan: no field is called {unknown[0]!r}; there are {', '.join(kinds)}")
    plan = sets.ShopPlan(**{name: _number(name, value, kinds[name]) for name, value in pairs.items()})
    made = sets.render(plan, root or paths.CACHE / "shop", workers=workers, progress=True)
    for name, catalogue in made.items():
        typer.echo(f"{name:<14}{len(catalogue):>7} images of {catalogue['product'].nunique():>5} products")


def _figures(frame: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Counts, fractions and their 95 % intervals by bootstrap over products."""
    from klip import metrics

    score = metrics.score(frame)
    figures: dict[str, Any] = {"queries": score.total, "products": score.products, "correct": score.correct}
    for name in SHARES:
        figures[name] = getattr(score, name)
        figures[f"{name}_interval"] = list(metrics.bootstrap_products(frame, name, seed=seed))
    return figures


def _pairs(values: list[str] | None) -> dict[str, str]:
    """{"depth": "8"} of ["depth=8"]; the types are checked by the settings they go to."""
    pairs = dict(value.partition("=")[::2] for value in values or [])
    if wrong := [value for value in values or [] if "=" not in value or value.startswith("=")]:
        raise ValueError(f"--set takes NAME=VALUE, got {wrong[0]!r}")
    return pairs


def _number(name: str, value: str, kind: type) -> Any:
    try:
        return kind(value)
    except ValueError:
        raise ValueError(f"shop plan: {name} must be of type {kind.__name__}, got {value!r}") from None


def _catalogue(source: str, root: str, seed: int, unreadable: str) -> pd.DataFrame:
    """Catalogue of a set known by name, else of a folder or a manifest."""
    from klip import data

    known = source.partition(":")[0] in {*data.SHOPS, *data.WHERE}
    if not root and source.endswith((".csv", ".parquet")):
        source, root = "manifest", source
    elif not root and not known and (Path(source).is_dir() or "/" in source):
        source, root = "folder", source
    return data.load(source, root, seed, unreadable=unreadable)


def _encoder(model: str, resize: str) -> Encoder:
    from klip import encoder

    return encoder.load(model, resize or None)


def _gallery(file: Path, model: str) -> Gallery:
    """A gallery with the encoder that made it; another encoder is refused."""
    from klip.zeroshot import Gallery

    meta = Gallery.load(file).meta
    return Gallery.load(file, _encoder(model or meta["model"], meta["resize"]))


def _images(paths: list[Path], unreadable: str) -> list[str]:
    """The files given, and the images of the folders given, sorted; `skip` leaves out damaged ones."""
    import pandas as pd

    from klip import data

    found: list[str] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"image {path} is missing")
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        images = [str(item) for item in inside if item == path or item.suffix.lower() in data.IMAGES]
        if not images:
            raise ValueError(f"folder {path} holds no image ({', '.join(sorted(data.IMAGES))})")
        found += images
    if unreadable not in ("fail", "skip"):
        raise ValueError(f"--unreadable must be fail or skip, got {unreadable!r}")
    if unreadable == "skip":
        frame = pd.DataFrame({"image": found, "product": ""})
        frame.attrs["root"] = ""
        if damaged := data.check(frame)["image"].tolist():
            warnings.warn(f"{len(damaged)} images left out: {', '.join(damaged)}", stacklevel=2)
            found = [image for image in found if image not in damaged]
    return found


def _writable(path: Path) -> None:
    """Complain before the work, not after it."""
    if path.is_dir() or not path.absolute().parent.is_dir():
        reason = "it is a folder" if path.is_dir() else "its folder is missing"
        raise ValueError(f"cannot write {path}: {reason}")


def _report(gallery: Gallery, file: Path) -> None:
    typer.echo(f"{file}: {len(gallery.products)} products, {len(gallery)} rows")


def main() -> None:
    """The console script."""
    app(prog_name="klip")


if __name__ == "__main__":
    main()
