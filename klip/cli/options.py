"""What the commands share: the app, the options, and how their words become a set or a
gallery.
"""

from __future__ import annotations

import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Argument, Option
from typer.core import TyperGroup

if TYPE_CHECKING:
    from klip.data.catalogue import Catalogue
    from klip.model.encoder import Encoder
    from klip.recognise.gallery import Gallery
    from klip.recognise.rerank import Rerank


class OneSentence(TyperGroup):
    """A user's mistake is one sentence and exit code 2; other errors stay tracebacks."""

    def invoke(self, ctx: Any) -> Any:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: say(f"note: {message}")
            try:
                return super().invoke(ctx)
            except typer.BadParameter as error:
                say(error.format_message().replace("Value error, ", ""))  # pydantic's
            except (ValueError, OSError, MemoryError) as error:
                say(str(error) or "out of memory")
            except KeyboardInterrupt as error:
                say(str(error) or "interrupted")
                say(f"to go on: {shlex.join(['klip', *sys.argv[1:]])}")
                raise typer.Exit(130) from None
            raise typer.Exit(2)


def say(text: str) -> None:
    typer.echo("klip: " + " ".join(text.split()), err=True)


def group(**options: Any) -> typer.Typer:
    plain = {"rich_markup_mode": None, "add_completion": False, "pretty_exceptions_enable": False}
    return typer.Typer(no_args_is_help=True, **plain, **options)


def writable(path: Path | None) -> Path | None:
    """The file to write: complain before the work, not after it."""
    if path and path.is_dir():
        raise ValueError(f"cannot write {path}: it is a folder")
    if path and not path.absolute().parent.is_dir():
        raise ValueError(f"cannot write {path}: its folder is missing")
    return path


ABOUT = "RetailKLIP: fine-tune an image tower, recognise products zero-shot."
app = group(cls=OneSentence, help=ABOUT)

SOURCE = "Folder with a folder per product, manifest .csv or .parquet, or set name."
MODELS = (
    "nano, nano-vit, nano-tuned, imagenet, a FILE of klip, timm:NAME, ARCH:TAG, ARCH:FILE, "
    "hf-hub:ORG/NAME, local-dir:PATH."
)
LOAD = "How to load a set: test_only=drop, others=true, boxes=FILE."
BAD = "Damaged images, empty products; skip: left out with a note, if they are few."
WEIGHT = "With --rerank: what all votes are worth, in units of cosine."
FIRST = "With --rerank: products, the best by cosine, that are re-ranked."
PRINT = "keypoints: re-rank the first products by what is printed."

Source = Annotated[str, Argument(help=SOURCE)]
Root = Annotated[str, Option(help="Folder of the set; empty: KLIP_DATA/<set>.")]
Pairs = list[str] | None
Load = Annotated[Pairs, Option("--load", metavar="NAME=VALUE", help=LOAD)]
Broken = Literal["stop", "skip"]
BadImages = Annotated[Broken, Option(help=BAD)]
Model = Annotated[str, Option(help=MODELS)]
Resize = Annotated[str, Option(help="squash, pad or crop; empty: as stored with the model.")]
Pixels = Annotated[
    int, Option(min=0, help="Sides of the images seen; 0: as stored with the model.")
]
Also = Annotated[int, Option(min=0, help="Sides of a second view, averaged with it; 0: none.")]
File = Annotated[Path, Argument(help="The gallery file.")]
Moved = Annotated[str, Option(help="Needed only when the model file has moved.")]
Views = Annotated[int, Option(help="Views kept of each packshot: the plain one, augmented ones.")]
Score = Annotated[str, Option(help="similarity, or margin between first and second product.")]
Method = Annotated[Literal["keypoints"] | None, Option(help=PRINT)]
Weight = Annotated[float | None, Option(help=WEIGHT)]
First = Annotated[int | None, Option(help=FIRST)]
Seed = Annotated[int, Option(help="Seed of everything drawn at random.")]
Workers = Annotated[int, Option(help="Processes that read images; 0: none beside this one.")]
Values = Annotated[Pairs, Option("--set", metavar="NAME=VALUE", help="Any other setting.")]
Precision = Annotated[str, Option(help="auto, fp32, bf16 or fp16.")]
Profile = Annotated[str, Option(help="nano, real, shelf or paper.")]
Json = Annotated[bool, Option("--json", help="Print JSON, for programs.")]


def pairs_of(values: Pairs, option: str = "--set") -> dict[str, str]:
    """{"depth": "8"} of ["depth=8"]; the settings they go to check the types."""
    pairs = {}
    for given in values or []:
        name, equals, value = given.partition("=")
        if not name or not equals:
            raise ValueError(f"{option} takes NAME=VALUE, got {given!r}")
        pairs[name] = value
    return pairs


def catalogue_of(source: str, root: str = "", *, load: Pairs = None, **how: Any) -> Catalogue:
    """Catalogue of a set by name, else of a folder or manifest; how: seed, bad_images."""
    from klip.data.catalogue import SHOPS
    from klip.data.loading import load_catalogue
    from klip.data.sources import SOURCES

    known = source.partition(":")[0] in {*SHOPS, *SOURCES}
    if not root and source.lower().endswith((".csv", ".tsv", ".parquet")):
        source, root = "manifest", source
    elif not root and not known and (Path(source).is_dir() or "/" in source):
        listed = Path(source, "manifest.csv").is_file()
        if not listed and any(Path(source).glob("*.tar")):
            raise ValueError(
                f"{source} holds tar files and no manifest.csv of their images; run `klip data "
                f"index {source}`"
            )
        source, root = "manifest" if listed else "folder", source
    truth = {"true": True, "false": False}
    given = {name: truth.get(value, value) for name, value in pairs_of(load, "--load").items()}
    return load_catalogue(source, root, **how, **given)


def size_of(catalogue: Catalogue) -> str:
    return f"{len(catalogue)} images of {catalogue['product'].nunique()} products"


def encoder_of(file: Path, model: str) -> Encoder:
    """The encoder that made a gallery; `Gallery.load` refuses another."""
    from klip.model import encoder
    from klip.recognise import gallery_file

    meta = gallery_file.told(file)
    if not model and not meta.get("model"):
        raise ValueError(
            f"gallery: {file} does not say its model, only that it was made by {meta['encoder']!r}; "
            "name it with --model"
        )
    sizes = {name: meta.get(name, 0) for name in ("pixels", "also")}
    return encoder.load(model or meta["model"], meta.get("resize"), **sizes)


def tell(gallery: Gallery, file: Path) -> None:
    """The size of a gallery that was saved."""
    size, part = file.stat().st_size, ""
    if gallery.descriptors is not None:
        own = sum(rows.nbytes for rows in gallery.descriptors)
        part = f", {100 * own / size:.0f} % of it descriptors"
    rows = f"{len(gallery.products)} products, {len(gallery)} rows"
    typer.echo(f"{file}: {rows}, {size / 1e6:.2f} MB{part}")


def rerank_of(method: str | None, stored: dict[str, Any], **given: float | None) -> Rerank | None:
    """The settings given, else the stored, else the defaults; None without --rerank."""
    given = {name: value for name, value in given.items() if value is not None}
    if given and not method:
        raise ValueError(f"--weight and --first want --rerank keypoints, got {given} alone")
    from klip.recognise.rerank import Rerank

    return Rerank(**stored | given) if method else None


def images_of(paths: list[Path], bad_images: Broken) -> list[str]:
    """The files given, and the folders' images, in natural order; skip: those that can be read."""
    import pandas as pd

    from klip.data import damage, scan
    from klip.data.catalogue import Catalogue

    found: list[str] = []
    for path in paths:
        if path.is_dir():
            seen = scan.scan(path)
            for sentence in scan.told(seen.left_out):
                say(f"note: {path}: {sentence}")
            if not seen.images:
                raise ValueError(f"folder {path} holds no image that klip can read")
            found += [str(path / image) for image in seen.images]
        elif path.exists():
            found.append(str(path))
        else:
            raise FileNotFoundError(f"image {path} is missing")
    if bad_images == "stop":  # a damaged one is named when it is read
        return found
    listed = Catalogue(pd.DataFrame({"image": found, "product": ""}), name="images")
    return damage.left_out(listed)["image"].tolist()
