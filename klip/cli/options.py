"""What the commands share: the app, the options' words, and how a word becomes a set, an
encoder or a gallery.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option
from typer.core import TyperGroup

if TYPE_CHECKING:
    from klip.data.catalogue import Catalogue
    from klip.model.encoder import Encoder
    from klip.recognise.gallery import Gallery
    from klip.recognise.rerank import Rerank


class OneSentence(TyperGroup):
    """What the user got wrong is one sentence and exit code 2; other errors stay tracebacks."""

    def invoke(self, ctx: Any) -> Any:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: say(f"note: {message}")
            try:
                return super().invoke(ctx)
            except typer.BadParameter as error:
                say(error.format_message())
            except (ValueError, OSError) as error:
                say(str(error))
            raise typer.Exit(2)


def say(text: str) -> None:
    typer.echo("klip: " + " ".join(text.split()), err=True)


def group(**options: Any) -> typer.Typer:
    plain = {"rich_markup_mode": None, "add_completion": False, "pretty_exceptions_enable": False}
    return typer.Typer(no_args_is_help=True, **plain, **options)


ABOUT = "RetailKLIP: fine-tune an image tower, recognise products zero-shot."
app = group(cls=OneSentence, help=ABOUT)

Source = Annotated[
    str, Argument(help="Folder with a folder per product, manifest .csv or .parquet, or set name.")
]
File = Annotated[Path, Argument(help="The gallery file.")]
MODELS = (
    "nano, nano-vit, imagenet, a FILE of klip, timm:NAME, ARCH:TAG, ARCH:FILE, "
    "hf-hub:ORG/NAME, local-dir:PATH."
)
Model = Annotated[str, Option(help=MODELS)]
Moved = Annotated[str, Option(help="Needed only when the model file has moved since the build.")]
Resize = Annotated[str, Option(help="squash, pad or crop; empty: as stored with the model.")]
Pixels = Annotated[
    int, Option(help="Sides of the images the model sees; 0: as stored with the model.")
]
Also = Annotated[
    int, Option(help="Sides of a second view whose embedding is averaged with it; 0: none.")
]
Views = Annotated[
    int, Option(help="Augmented views kept of each packshot, the plain one included.")
]
Seed = Annotated[int, Option(help="Seed of everything drawn at random.")]
Root = Annotated[str, Option(help="Folder of the set; empty: KLIP_DATA/<set>.")]
Workers = Annotated[int, Option(help="Processes that read images; 0: none beside this one.")]
Unreadable = Annotated[
    str, Option(help="Damaged images, empty products: fail, or skip with a note.")
]
Pairs = list[str] | None
Values = Annotated[Pairs, Option("--set", metavar="NAME=VALUE", help="Any other setting.")]
HOW = "How to load a set: test_only=drop, others=true, boxes=FILE."
Load = Annotated[Pairs, Option("--load", metavar="NAME=VALUE", help=HOW)]
Print = Annotated[
    str, Option("--rerank", help="keypoints: re-rank the first products by what is printed.")
]
Weight = Annotated[
    float | None, Option(help="With --rerank: what all votes are worth, in units of cosine.")
]
First = Annotated[
    int | None, Option(help="With --rerank: products, the best by cosine, that are re-ranked.")
]
Score = Annotated[str, Option(help="similarity, or margin between first and second product.")]
Json = Annotated[bool, Option("--json", help="Print JSON, for programs.")]
Precision = Annotated[str, Option(help="auto, fp32, bf16 or fp16.")]
Profile = Annotated[str, Option(help="nano, real, shelf or paper.")]


def pairs_of(values: Pairs, option: str = "--set") -> dict[str, str]:
    """{"depth": "8"} of ["depth=8"]; the types are checked by the settings they go to."""
    pairs = {}
    for given in values or []:
        name, equals, value = given.partition("=")
        if not name or not equals:
            raise ValueError(f"{option} takes NAME=VALUE, got {given!r}")
        pairs[name] = value
    return pairs


def catalogue_of(
    source: str, root: str = "", seed: int = 0, unreadable: str = "fail", options: Pairs = None
) -> Catalogue:
    """Catalogue of a set known by name, else of a folder or a manifest."""
    from klip.data.catalogue import SHOPS
    from klip.data.loading import load_catalogue
    from klip.data.sources import SOURCES

    known = source.partition(":")[0] in {*SHOPS, *SOURCES}
    if not root and source.endswith((".csv", ".parquet")):
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
    given = {name: truth.get(value, value) for name, value in pairs_of(options, "--load").items()}
    return load_catalogue(source, root, seed=seed, unreadable=unreadable, **given)


def encoder_of(model: str, resize: str, pixels: int = 0, also: int = 0) -> Encoder:
    from klip.model import encoder

    if min(pixels, also) < 0:
        raise ValueError(
            "--pixels and --also must be at least 1, or 0 for the size stored with the model and "
            f"for no second view, got {pixels} and {also}"
        )
    return encoder.load(model, resize or None, pixels=pixels, also=also)


def gallery_of(file: Path, model: str) -> Gallery:
    """A gallery with the encoder that made it; another encoder is refused."""
    from klip.recognise.gallery import Gallery

    meta = Gallery.load(file).meta
    sizes = meta.get("pixels", 0), meta.get("also", 0)
    return Gallery.load(file, encoder_of(model or meta["model"], meta["resize"], *sizes))


def rerank_of(
    word: str, weight: float | None, first: int | None, stored: dict[str, Any]
) -> Rerank | None:
    """The settings of --rerank: those given, else the stored, else the defaults; None without it."""
    given = {"weight": weight, "first": first}
    given = {name: value for name, value in given.items() if value is not None}
    if word not in ("", "keypoints") or (given and not word):
        raise ValueError(
            f"--rerank must be keypoints, and --weight and --first want it, got {word!r}"
        )
    from klip.recognise.rerank import Rerank

    return Rerank(**stored | given) if word else None


def images_of(paths: list[Path], unreadable: str) -> list[str]:
    """The files given, and the images of the folders given, sorted; `skip` leaves out damaged ones."""
    from klip.data.images import IMAGES

    if unreadable not in ("fail", "skip"):
        raise ValueError(f"--unreadable must be fail or skip, got {unreadable!r}")
    found: list[str] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"image {path} is missing")
        images = [path]
        if path.is_dir():
            images = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGES)
        if not images:
            raise ValueError(f"folder {path} holds no image ({', '.join(sorted(IMAGES))})")
        found += map(str, images)
    return _sound(found) if unreadable == "skip" else found


def _sound(images: list[str]) -> list[str]:
    """Those that can be read, with a note on the others."""
    import pandas as pd

    from klip.data import damage
    from klip.data.catalogue import Catalogue

    frame = pd.DataFrame({"image": images, "product": ""})
    damaged = damage.check(Catalogue(frame))["image"].tolist()
    if damaged:
        warnings.warn(f"{len(damaged)} images left out: {', '.join(damaged)}", stacklevel=2)
    return [image for image in images if image not in damaged]


def writable(path: Path) -> None:
    """Complain before the work, not after it."""
    if path.is_dir():
        raise ValueError(f"cannot write {path}: it is a folder")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"cannot write {path}: its folder is missing")
