"""What the commands share: the app, the options' words, and how a word becomes a set, an encoder or a gallery."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    import pandas as pd

    from klip.model.encoder import Encoder
    from klip.recognise.gallery import Gallery
    from klip.recognise.rerank import Rerank


class OneSentence(TyperGroup):
    """What the user got wrong (ValueError, OSError) is one sentence and exit code 2; other errors stay tracebacks."""

    def invoke(self, ctx: Any) -> Any:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: say(f"note: {message}")
            try:
                return super().invoke(ctx)
            except (typer.BadParameter, ValueError, OSError) as error:
                say(error.format_message() if isinstance(error, typer.BadParameter) else str(error))
                raise typer.Exit(2) from None


def say(text: str) -> None:
    typer.echo("klip: " + " ".join(text.split()), err=True)


def group(**options: Any) -> typer.Typer:
    return typer.Typer(
        rich_markup_mode=None,
        add_completion=False,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        **options,
    )


app = group(
    cls=OneSentence, help="RetailKLIP: fine-tune an image tower, recognise products zero-shot."
)

Model = Annotated[
    str,
    typer.Option(
        help="nano, nano-vit, imagenet, a FILE of klip, timm:NAME, ARCH:TAG, ARCH:FILE, "
        "hf-hub:ORG/NAME, local-dir:PATH."
    ),
]
Resize = Annotated[str, typer.Option(help="squash, pad or crop; empty: as stored with the model.")]
Pixels = Annotated[
    int, typer.Option(help="Sides of the images the model sees; 0: as stored with the model.")
]
Also = Annotated[
    int, typer.Option(help="Sides of a second view whose embedding is averaged with it; 0: none.")
]
Views = Annotated[
    int, typer.Option(help="Augmented views kept of each packshot, the plain one included.")
]
Seed = Annotated[int, typer.Option(help="Seed of everything drawn at random.")]
Root = Annotated[str, typer.Option(help="Folder of the set; empty: KLIP_DATA/<set>.")]
Workers = Annotated[int, typer.Option(help="Processes that read images; 0: none beside this one.")]
Values = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other setting.")
]
Unreadable = Annotated[
    str, typer.Option(help="Damaged images, empty products: fail, or skip with a note.")
]
Moved = Annotated[
    str, typer.Option(help="Needed only when the model file has moved since the build.")
]
Source = Annotated[
    str,
    typer.Argument(
        help="Folder with a folder per product, manifest .csv or .parquet, or set name."
    ),
]
Load = Annotated[
    list[str] | None,
    typer.Option(
        "--load",
        metavar="NAME=VALUE",
        help="How to load a set: test_only=drop, others=true, boxes=FILE.",
    ),
]
File = Annotated[Path, typer.Argument(help="The gallery file.")]
Print = Annotated[
    str, typer.Option("--rerank", help="keypoints: re-rank the first products by what is printed.")
]
Weight = Annotated[
    float | None, typer.Option(help="With --rerank: what all votes are worth, in units of cosine.")
]
First = Annotated[
    int | None,
    typer.Option(help="With --rerank: products, the best by cosine, that are re-ranked."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")]
Profile = Annotated[str, typer.Option(help="nano, real, shelf or paper.")]
Score = Annotated[str, typer.Option(help="similarity, or margin between first and second product.")]


def pairs_of(values: list[str] | None, option: str = "--set") -> dict[str, str]:
    """{"depth": "8"} of ["depth=8"]; the types are checked by the settings they go to."""
    pairs = dict(value.partition("=")[::2] for value in values or [])
    if wrong := [value for value in values or [] if "=" not in value or value.startswith("=")]:
        raise ValueError(f"{option} takes NAME=VALUE, got {wrong[0]!r}")
    return pairs


def catalogue_of(
    source: str,
    root: str = "",
    seed: int = 0,
    unreadable: str = "fail",
    options: list[str] | None = None,
) -> pd.DataFrame:
    """Catalogue of a set known by name, else of a folder or a manifest."""
    from klip.data import catalogue as data

    known = source.partition(":")[0] in {*data.SHOPS, *data.WHERE}
    if not root and source.endswith((".csv", ".parquet")):
        source, root = "manifest", source
    elif not root and not known and (Path(source).is_dir() or "/" in source):
        source, root = "shards" if any(Path(source).glob("*.tar")) else "folder", source
    given, truth = pairs_of(options, "--load"), {"true": True, "false": False}
    return data.load(
        source, root, seed, unreadable=unreadable, **{k: truth.get(v, v) for k, v in given.items()}
    )


def encoder_of(model: str, resize: str, pixels: int = 0, also: int = 0) -> Encoder:
    from klip.model import encoder

    if min(pixels, also) < 0:
        raise ValueError(
            "--pixels and --also must be at least 1, or 0 for the size stored with the model and for no "
            f"second view, got {pixels} and {also}"
        )
    return encoder.load(model, resize or None, pixels, also)


def gallery_of(file: Path, model: str) -> Gallery:
    """A gallery with the encoder that made it; another encoder is refused."""
    from klip.recognise.gallery import Gallery

    meta = Gallery.load(file).meta
    return Gallery.load(
        file,
        encoder_of(
            model or meta["model"], meta["resize"], meta.get("pixels", 0), meta.get("also", 0)
        ),
    )


def rerank_of(
    word: str, weight: float | None, first: int | None, stored: dict[str, Any]
) -> Rerank | None:
    """The settings of --rerank: those given, else the stored ones, else the defaults; None without --rerank."""
    given = {
        name: value for name, value in (("weight", weight), ("first", first)) if value is not None
    }
    if word not in ("", "keypoints") or (given and not word):
        raise ValueError(
            f"--rerank must be keypoints, and --weight and --first want it, got {word!r}"
        )
    from klip.recognise.rerank import Rerank

    return Rerank(**stored | given) if word else None


def images_of(paths: list[Path], unreadable: str) -> list[str]:
    """The files given, and the images of the folders given, sorted; `skip` leaves out damaged ones."""
    import pandas as pd

    from klip.data import catalogue as data
    from klip.data.images import IMAGES

    if unreadable not in ("fail", "skip"):
        raise ValueError(f"--unreadable must be fail or skip, got {unreadable!r}")
    found: list[str] = []
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"image {path} is missing")
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        images = [str(item) for item in inside if item == path or item.suffix.lower() in IMAGES]
        if not images:
            raise ValueError(f"folder {path} holds no image ({', '.join(sorted(IMAGES))})")
        found += images
    if unreadable == "skip":
        frame = pd.DataFrame({"image": found, "product": ""})
        frame.attrs["root"] = ""
        if damaged := data.check(frame)["image"].tolist():
            warnings.warn(f"{len(damaged)} images left out: {', '.join(damaged)}", stacklevel=2)
            found = [image for image in found if image not in damaged]
    return found


def writable(path: Path) -> None:
    """Complain before the work, not after it."""
    if path.is_dir():
        raise ValueError(f"cannot write {path}: it is a folder")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"cannot write {path}: its folder is missing")
