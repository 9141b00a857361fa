"""Sets with a folder per product: a range of one's own, and RP2K.

Every parser takes the set's name and its folder and returns a `Catalogue`.
"""

import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from klip.data import words
from klip.data.catalogue import Catalogue
from klip.data.scan import Scan, hidden, scan, told
from klip.data.words import named, natural

COLUMNS = ["image", "product", "split"]


def folders(
    name: str, root: Path, *, tops: Sequence[str] | None = None, products: str = ""
) -> Catalogue:
    """<root>/<product>/<image>, or <root>/<split>/<product>/<image> with a word of
    `words.SPLITS`; images that lie in folders of a product's folder are the product's; of a
    folder of images alone each file's name is a product.

    tops: the folders of splits, where others lie beside them.  products: which of two
    folders names the product where no image lies directly in the first: "outer"
    (product/part/image) or "inner" (category/product/image, which gives `group`).
    """
    found = scan(root)
    if tops is not None:
        others = [image for image in found.images if image.partition("/")[0] not in tops]
        found.leave_out(others, "beside the folders of splits")
    placed = _placed(name, root, found, products=products)
    table = pd.DataFrame(placed.rows, columns=[*COLUMNS, "group"], dtype=str)
    if table.empty:
        raise ValueError(
            f"{name}: {root} must hold one folder of images per product, found "
            f"{len(placed.empty)} product folders and no image in them"
            + "".join(f"; {sentence}" for sentence in told(found.left_out))
        )
    if table["group"].eq("").all():
        table = table.drop(columns="group")
    else:
        groups = table.groupby("product", sort=False)["group"].nunique()
        if groups.gt(1).any():
            raise ValueError(
                f"{name}: {named(groups.index[groups > 1])} lies in several categories of {root}; "
                "a product has one"
            )
    lacking = {words.name(Path(folder).name) for folder in placed.empty} - set(table["product"])
    notes = (*placed.notes, *_outside(found), *_several(table))
    more = {"empty": tuple(sorted(lacking, key=natural)), "notes": notes}
    return Catalogue(table, root, name, left_out=found.left_out, **more)


def _outside(found: Scan) -> list[str]:
    many = len(found.outside)
    return [f"{many} images are links out of the folder: {named(found.outside)}"] if many else []


def _several(table: pd.DataFrame) -> list[str]:
    """A note on products whose folders are called in several ways."""
    folder = (
        table["image"]
        .str.split("/")
        .map(lambda parts: next((part for part in parts[:-1] if not words.split(part)), ""))
    )
    names = folder.groupby(table["product"], sort=False).nunique()
    twice = names.index[names > 1]
    return (
        [f"{len(twice)} products have folders of several names: {named(twice)}"]
        if len(twice)
        else []
    )


@dataclass
class Placed:
    """Images in the folders of products: rows (image, product, split, group), in natural
    order of product and image; products without an image; notes."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _placed(name: str, root: Path, found: Scan, *, products: str = "") -> Placed:
    """What the folders say of the images of a scan; takes out of it what they say nothing of."""
    if products not in ("", "outer", "inner"):
        raise ValueError(f"data: products must be outer or inner, got {products!r}")
    parts = [image.split("/") for image in found.images]
    direct = {part[0] for part in parts if len(part) == 2}
    tops = {part[0] for part in parts if len(part) > 1}
    splits = {top for top in tops if words.split(top)}
    if splits and splits <= direct and splits == tops and len(splits) > 1:
        raise ValueError(
            f"{name}: {root} holds images directly in {named(sorted(splits))}; accepted are "
            "<split>/<product>/<image>, or a manifest.csv that names the products"
        )
    splits -= direct  # a product may be called like a split; its images lie in its folder
    if splits and splits != tops:
        raise ValueError(
            f"{name}: {root} holds folders of splits ({named(sorted(splits))}) and other folders "
            f"of images ({named(sorted(tops - splits))}); move the others away, or write a "
            "manifest.csv"
        )
    placed = Placed()
    for top in sorted(splits, key=natural) or [""]:
        _place(name, top, found, into=placed, products=products)
    placed.rows.sort(key=lambda row: (row[0].partition("/")[0] if splits else "", natural(row[1])))
    return placed


def _place(name: str, top: str, found: Scan, *, into: Placed, products: str) -> None:
    """Add the images below one folder of a split, or below the folder of a set itself ("")."""
    split, head = words.split(top) or "train", top + "/" if top else ""
    images = [image for image in found.images if image.startswith(head)]
    below = [image.removeprefix(head).split("/") for image in images]
    loose = [image for image, part in zip(images, below, strict=True) if len(part) == 1]
    if loose and len(loose) < len(images):
        found.leave_out(loose, "beside the folders of products")
    elif loose:  # nothing but images
        into.notes.append(f"no folders of products: each of {len(loose)} files names its own")
        into.rows += [(image, words.name(Path(image).stem), split, "") for image in loose]
        return
    direct = {part[0] for part in below if len(part) == 2}
    deeper = {part[0] for part in below if len(part) > 2}
    if deeper - direct and not products:
        far = next(
            image for image, part in zip(images, below, strict=True) if part[0] not in direct
        )
        raise ValueError(
            f"{name}: no image lies directly in {len(deeper - direct)} of the folders, as in "
            f"{far}; say which folder names a product: --load products=inner (category/product/"
            "image) or products=outer (product/part/image)"
        )
    if deeper & direct:
        many = sum(len(part) > 2 and part[0] in direct for part in below)
        into.notes.append(f"{many} images lie in folders of a product's folder, and count as its")
    for image, part in zip(images, below, strict=True):
        inner = products == "inner" and part[0] not in direct
        if len(part) > 1:
            product = words.name(part[-2] if inner else part[0])
            group = "/".join(part[:-2]) if inner else ""
            into.rows.append((image, product, split, group))
    seen = [folder.removeprefix(head) for folder in found.folders if folder.startswith(head)]
    inside = {part[0] for part in below if len(part) > 1}
    first = {folder.partition("/")[0] for folder in seen} - inside - {""}
    into.empty += [head + folder for folder in sorted(first, key=natural) if not hidden(folder)]


def rp2k(name: str, root: Path, *, others: bool = False) -> Catalogue:
    """RP2K: all/train/ and all/test/, names decoded where unpacking has mangled them.

    Left out are empty folders and, unless `others`, the folder of that name, which holds
    what no product name fits.
    """
    inside = (root / "rp2k_dataset" / "all", root / "all", root)
    top = next(path for path in inside if path.is_dir())
    found = scan(top)
    placed = _placed(name, top, found)
    table = pd.DataFrame(placed.rows, columns=[*COLUMNS, "group"], dtype=str)[COLUMNS]
    folder = table["image"].str.rpartition("/")[0]
    table["product"] = table["product"].map(decoded)
    notes = [*placed.notes]
    rest = table["product"] == "others"
    unnamed = [folder for folder in placed.empty if folder.endswith("/others")]
    if (rest.any() or unnamed) and not others:
        notes.append(f"others/ left out, {rest.sum()} images")
        found.leave_out(table["image"][rest].tolist(), "others/: what no product name fits")
        table, folder = table[~rest], folder[~rest]
    empty = [f"{folder}/" for folder in placed.empty if folder not in unnamed]
    if empty:
        notes.append(f"{len(empty)} folders are empty: {named(empty)}")
    if table.empty:
        raise ValueError(f"{name}: {top} holds no image in folders of products")
    table = table.reset_index(drop=True)
    notes += _several(table)
    return Catalogue(table, top, name, notes=tuple(notes), left_out=found.left_out)


def decoded(name: str) -> str:
    """A Chinese name that was unpacked as if it were in code page 437, put right; any other
    name as it is.

    RP2K's archive holds UTF-8 without the flag that says so, in copies GBK.  GBK is
    tried only on names with line drawings, which that reading makes of Chinese and
    which no name has otherwise.
    """
    drawn = any("\u2500" <= sign <= "\u259f" for sign in name)
    for encoding in ("utf-8", "gbk") if drawn else ("utf-8",):
        with suppress(UnicodeError):  # Chinese already, or in another encoding
            return unicodedata.normalize("NFC", name.encode("cp437").decode(encoding))
    return name
