"""Sets whose folders say what an image shows: a folder per product, RP2K, GroZi-120, GroceryStore, rendered shops.

Every parser takes the set's name and its folder and returns a catalogue (see `data`); `attrs` notes are sentences
on what it left out or put together.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from klip.data.images import IMAGES
from klip.data.sources import SOURCES
from klip.settings import paths

SPLITS = ("train", "val", "test", "gallery", "query")
COLUMNS = ["image", "product", "split"]


def shop(name: str, root: Path, workers: int = 2, progress: bool = True) -> pd.DataFrame:
    """The default shop, rendered if need be; in another folder than the cache's, whichever shop is there."""
    from klip.shop import sets

    there = root != paths.CACHE / "shop" and (root / "plan.json").is_file()
    found = (
        sets.catalogues(root)
        if there
        else sets.render(sets.ShopPlan(), root, workers=workers, progress=progress)
    )
    catalogue = found["finetune" if name == "shop" else name.replace("-", "_")]
    catalogue["group"] = catalogue["product"].map(_shelf)
    return catalogue


def _shelf(product: str) -> str:
    """category/kind of goods/brand-line of a rendered product, named brand-number-line-kind-flavour-number."""
    from klip.shop.goods import CATEGORIES

    brand, number, _, kind, *_ = product.split("-")
    sold = (
        category
        for category, (_, kinds) in CATEGORIES.items()
        if kind.replace("_", " ") in kinds.split("|")
    )
    return f"{next(sold, 'produce')}/{kind}/{brand}-{number}"


def grocery_store(name: str, root: Path, packaged: bool = False) -> pd.DataFrame:
    """GroceryStore: iconic packshots as gallery, test photos as queries, train and val as they are."""
    root = root / "dataset" if (root / "dataset" / "classes.csv").is_file() else root
    lists = [root / "classes.csv", *(root / f"{split}.txt" for split in ("train", "val", "test"))]
    for path in lists:
        if not path.is_file():
            raise FileNotFoundError(f"{name}: {path} is missing; {SOURCES[name].place}")
    classes = pd.read_csv(lists[0], dtype=str, skipinitialspace=True, keep_default_na=False).map(
        str.strip
    )
    names, numbers, groups, _, icons = (classes.iloc[:, column] for column in range(5))
    products = dict(zip(numbers, names, strict=True))
    rows = [(icon, product, "gallery") for icon, product in zip(icons, names, strict=True)]
    for path in lists[1:]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            image, fine, *_ = [*map(str.strip, line.split(",")), "", ""]
            if line.strip() and fine not in products:
                raise ValueError(
                    f"{name}: line {number} of {path} wants `path, id, coarse id` with an id of "
                    f"classes.csv, got {line!r}"
                )
            if line.strip():
                rows.append((image, products[fine], path.stem.replace("test", "query")))
    catalogue = frame(root, pd.DataFrame(rows, columns=COLUMNS))
    catalogue["image"] = catalogue["image"].str.lstrip("/")
    catalogue["packaged"] = catalogue["image"].str.contains("/Packages/")
    catalogue["group"] = catalogue["product"].map(dict(zip(names, groups, strict=True)))
    return only_packaged(catalogue, name) if packaged else catalogue


def only_packaged(catalogue: pd.DataFrame, name: str) -> pd.DataFrame:
    if "packaged" not in catalogue:
        raise ValueError(
            f"{name}: this set does not say which products are packaged; grocery-store does"
        )
    return catalogue[catalogue["packaged"].to_numpy(bool)].reset_index(drop=True)


def grozi(name: str, root: Path) -> pd.DataFrame:
    """GroZi-120, any number of its products: web packshots as gallery candidates, video crops as queries.

    Split "index", for the gallery rule of that name: inVitro/<product>/Index/* and Index/<product>.* (where that folder
    lies in the official archive could not be confirmed).
    """
    rows = []
    for split, pattern in (
        ("gallery", "inVitro/*/web/JPEG/web*"),
        ("query", "inSitu/*/video/video*"),
    ):
        found: dict[tuple[int, int], Path] = {}
        for path in sorted(
            root.glob(pattern)
        ):  # .png after .jpg: of two copies the lossless one counts
            product, match = (
                path.relative_to(root).parts[1],
                re.fullmatch(r"(?:web|video)(\d+)", path.stem),
            )
            if match and product.isdecimal() and path.suffix.lower() in IMAGES:
                found[int(product), int(match[1])] = path
        if not found:
            raise FileNotFoundError(f"{name}: no image {pattern} in {root}; {SOURCES[name].place}")
        rows += [
            (path, product, split, number if split == "gallery" else 0)
            for (product, number), path in sorted(found.items())
        ]
    index = [(path.parent.parent.name, path) for path in root.glob("inVitro/*/Index/*")]
    index += [(path.stem, path) for path in root.glob("Index/*")]
    rows += [
        (path, int(product), "index", 0)
        for product, path in sorted(index, key=lambda pair: natural(str(pair[1])))
        if product.isdecimal() and path.suffix.lower() in IMAGES
    ]
    rows = [
        (path.relative_to(root).as_posix(), str(product), *others)
        for path, product, *others in rows
    ]
    return frame(root, pd.DataFrame(rows, columns=[*COLUMNS, "packshot"]))


def rp2k(name: str, root: Path, others: bool = False) -> pd.DataFrame:
    """RP2K: all/train/ and all/test/, names decoded where unpacking has mangled them.  Left out are empty folders and,
    unless `others`, the folder of that name, which holds what no product name fits."""
    inside = (root / "rp2k_dataset" / "all", root / "all", root)
    return folders(
        name,
        next(path for path in inside if path.is_dir()),
        mangled=True,
        dropped=() if others else ("others",),
    )


def folders(
    name: str,
    root: Path,
    mangled: bool = False,
    dropped: tuple[str, ...] = (),
    tops: list[Path] | None = None,
) -> pd.DataFrame:
    """<root>/<product>/<image>, or <root>/<split>/<product>/<image> with a split of SPLITS (test = query).

    mangled: decode the names, and do not mind folders without an image.  dropped: folders that are no product.
    tops: the folders of splits, where others lie beside them.
    """
    found = inner(root) if tops is None else tops
    split_up = bool(found) and all(folder.name.lower() in SPLITS for folder in found)
    rows, empty, names_of, left_out = [], [], defaultdict[str, set[str]](set), Counter[str]()
    for top in found if split_up else [root]:
        split = top.name.lower().replace("test", "query") if split_up else "train"
        for folder in inner(top):
            product = unicodedata.normalize(
                "NFC", folder.name
            )  # macOS writes another form of accents
            product = unicodedata.normalize("NFC", decoded(product)) if mangled else product
            files = sorted(
                (
                    file
                    for file in files_in(folder)
                    if Path(file).suffix.lower() in IMAGES and not file.startswith(".")
                ),
                key=natural,
            )
            if product in dropped:
                left_out[product] += len(files)
                continue
            within = folder.relative_to(root).as_posix()
            rows += [(f"{within}/{file}", product, split) for file in files]
            names_of[product].add(folder.name)
            empty += [] if files else [f"{within}/"]
    if not rows:
        raise ValueError(
            f"{name}: {root} must hold one folder of images per product, found {len(names_of)} product "
            "folders and no image in them"
        )
    catalogue = frame(root, pd.DataFrame(rows, columns=COLUMNS))
    if not mangled:
        shown = set(catalogue["product"])
        catalogue.attrs["empty"] = [product for product in names_of if product not in shown]
        return catalogue
    twice = [product for product, names in names_of.items() if len(names) > 1]
    notes = [f"{product}/ left out, {count} images" for product, count in left_out.items()]
    notes += [f"{len(empty)} folders are empty: {named(empty)}"] if empty else []
    notes += (
        [f"{len(twice)} products have folders of several names: {named(twice)}"] if twice else []
    )
    return frame(root, catalogue, notes)


def decoded(name: str) -> str:
    """A Chinese name that was unpacked as if it were in code page 437, put right; any other name as it is.

    RP2K's archive holds UTF-8 without the flag that says so, in copies GBK.  GBK is tried only on names with line
    drawings, which that reading makes of Chinese and which no name has otherwise.
    """
    drawn = any("\u2500" <= sign <= "\u259f" for sign in name)
    for encoding in ("utf-8", "gbk") if drawn else ("utf-8",):
        with suppress(UnicodeError):  # Chinese already, or in another encoding
            return name.encode("cp437").decode(encoding)
    return name


def frame(root: Path, table: pd.DataFrame, notes: Sequence[str] = ()) -> pd.DataFrame:
    """A table as catalogue of a folder, with notes on what was left out or put together."""
    table.attrs.update(root=str(root), notes=list(notes))
    return table


def files_in(folder: str | Path) -> set[str]:
    """Names of the files in a folder, by one look at it; none if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def inner(folder: Path) -> list[Path]:
    """The folders in a folder, 2 before 10, without hidden ones."""
    found = (
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__"))
    )
    return sorted(found, key=lambda path: natural(path.name))


def natural(text: str) -> list[Any]:
    """Sorting key under which numbers inside names count as numbers: 2 before 10."""
    return [
        (int(piece), "") if piece.isdecimal() else (-1, piece)
        for piece in re.findall(r"\d+|\D+", text)
    ]


def named(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
