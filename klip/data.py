"""Catalogues of images: one loader per set, one table type out of all of them.

A catalogue is a pandas frame with columns `image` (posix path below the root), `product` and `split` (train,
val, gallery, query) and with `attrs` root (folder), name (of the set) and empty (products without images).
Where the set has one, `group` is the product's place in a hierarchy, the general first: "tea/ice_tea/zola-1".
Files are listed here, and opened only by `read`, `check` and where damaged ones are to be skipped.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from klip import paths

SPLITS = ("train", "val", "test", "gallery", "query")
SHOPS = ("shop", "grozi-like", "capg-like", "rp2k-like")
RULES = ("first", "web1", "largest", "random")
IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
WHERE = {
    "grocery-store": "put the contents of dataset/ of github.com/marcusklasson/GroceryStoreDataset there "
                     "(classes.csv, train.txt, train/ and so on)",
    "grozi-120": "unpack inVitro.zip and inSitu.zip of grozi.calit2.net there (inVitro/ and inSitu/)",
    "capg-gp": "put the product crops of CAPG-GP there (train/<product>/ and test/<product>/)",
    "rp2k": "unpack rp2k_dataset.zip there (all/train/<product>/ and all/test/<product>/)",
}
"""Sets of real photographs, and how they get to their place by hand."""


def load(name: str, root: str | Path = "", seed: int = 0, *, unreadable: str = "fail", validation: int = 0,
         **options: Any) -> pd.DataFrame:
    """The catalogue of a set.

    name: a rendered shop (`shop` is its fine-tuning range), `grocery-store`, `grozi-120`, `capg-gp`, `rp2k`,
    `folder` or `manifest`; with `:tuned` or `:held-out` behind it every other product (two disjoint halves,
    the same for every seed), with `:packaged` those in packages.  root: its folder, else below data_root().
    unreadable: "fail" (a missing file raises now, a damaged one when it is read) or "skip" (every image is
    opened now; damaged ones and empty products are left out, with one warning that counts and names them);
    "keep" looks at nothing, for `check`.
    validation: K > 0 makes split "val" hold exactly K seeded images per product, as §4.1.3 wants it: of the
    set's own validation images, or else of the training images of products that have more than K; the other
    products have none.  Options: shops `workers`, `progress`; grocery-store `packaged=True`.
    """
    if unreadable not in ("fail", "skip", "keep"):
        raise ValueError(f"data: unreadable must be fail, skip or keep, got {unreadable!r}")
    base, _, part = name.partition(":")
    loaders: dict[str, Callable[..., pd.DataFrame]] = {
        **dict.fromkeys(SHOPS, _shop), "grocery-store": _grocery_store, "grozi-120": _grozi,
        "capg-gp": _folder, "rp2k": _folder, "folder": _folder, "manifest": _manifest}
    if base not in loaders or part not in ("", "tuned", "held-out", "packaged"):
        raise ValueError(f"data: no set is called {name!r}; there are {', '.join(loaders)}, each also with "
                         f":tuned, :held-out or :packaged behind it")
    catalogue = loaders[base](base, _root(base, root), **options).reset_index(drop=True)
    catalogue = catalogue.astype({"image": str, "product": str, "split": str})
    if part in ("tuned", "held-out"):
        halves = sorted(set(catalogue["product"]), key=natural)[part == "held-out"::2]
        catalogue = _only(catalogue, catalogue["product"].isin(halves))
    elif part:
        catalogue = _packaged(catalogue, name)
    catalogue.attrs["name"] = name
    catalogue = catalogue if unreadable == "keep" else _sound(catalogue, unreadable)
    return _validated(catalogue, validation, np.random.default_rng(seed)) if validation else catalogue


def read(path: str | Path) -> np.ndarray:
    """An image as RGB, uint8 (H, W, 3): turned as its EXIF says, what is transparent on white."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"image {path}: there is no such file")
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I"):  # 16 bits
                image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = str(error).split("'")[0].split("<")[0].strip() or type(error).__name__
        raise ValueError(f"image {path}: cannot be read ({reason})") from None


def check(catalogue: pd.DataFrame) -> pd.DataFrame:
    """What is wrong with a catalogue: a frame of image, product, problem.  Opens every image."""
    root = Path(catalogue.attrs["root"])
    damage = [("", product, "no image in its folder") for product in catalogue.attrs.get("empty", ())]
    for image, product in zip(catalogue["image"], catalogue["product"], strict=True):
        try:
            read(root / image)
        except FileNotFoundError:
            damage.append((image, product, "missing"))
        except ValueError as error:
            damage.append((image, product, str(error).removeprefix(f"image {root / image}: ")))
    return pd.DataFrame(damage, columns=["image", "product", "problem"])


def pick_gallery(catalogue: pd.DataFrame, rule: str = "first", seed: int = 0) -> pd.DataFrame:
    """The catalogue with exactly one gallery image per product, by rule, before its queries (paper §4.2).

    first = web1 (the paper does not say: A), largest (in pixels), random (seeded).  Candidates are the
    gallery rows, or the training rows where there are none; if there are no queries either, all other images
    become queries.  Queries of products without a packshot are left out with a warning: none could be right.
    """
    if rule not in RULES:
        raise ValueError(f"gallery: the rule must be one of {', '.join(RULES)}, got {rule!r}")
    name, root, catalogue = catalogue.attrs["name"], catalogue.attrs["root"], catalogue.reset_index(drop=True)
    split = catalogue["split"]
    candidates = catalogue[split == ("gallery" if (split == "gallery").any() else "train")]
    rng, chosen = np.random.default_rng(seed), []
    for _, rows in candidates.groupby("product", sort=False):
        position = 0
        if rule == "random":
            position = int(rng.integers(len(rows)))
        elif rule == "largest" and len(rows) > 1:
            position = int(np.argmax([_area(Path(root, image)) for image in rows["image"]]))
        chosen.append(rows.index[position])
    gallery = catalogue.loc[chosen].assign(split="gallery")
    queries = catalogue[split == "query"]
    if queries.empty:
        queries = candidates.drop(chosen).assign(split="query")
    known = queries["product"].isin(gallery["product"])
    if not known.any():
        raise ValueError(f"{name}: wants gallery and query images of the same products (a plain folder: two "
                         f"images per product), got {len(gallery)} gallery images and {len(queries)} queries")
    if not known.all():
        warnings.warn(f"{name}: {(~known).sum()} queries left out, there is no packshot of "
                      f"{_named(queries.loc[~known, 'product'].unique())}", stacklevel=2)
    result = pd.concat([gallery, queries[known]], ignore_index=True)
    result.attrs = catalogue.attrs
    return result


def natural(text: str) -> list[Any]:
    """Sorting key under which numbers inside names count as numbers: 2 before 10."""
    pieces = filter(None, re.split(r"(\d+)", text))
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces]


def _root(name: str, root: str | Path) -> Path:
    if name in SHOPS:
        return Path(root).expanduser() if root else paths.CACHE / "shop"
    what = "a CSV file with columns image, product[, split]" if name == "manifest" else "a folder of products"
    if not root and name not in WHERE:
        raise ValueError(f"{name}: no root was given; it is {what}")
    folder = Path(root).expanduser() if root else paths.data_root() / name
    if not folder.exists() or (name != "manifest" and not folder.is_dir()):
        hint = "run `klip data fetch grocery-store`, or " if name == "grocery-store" else ""
        hint += WHERE.get(name, f"it has to be {what}")
        raise FileNotFoundError(f"{name}: {folder} is missing; {hint}")
    return folder


def _frame(root: Path, rows: list[tuple], extra: tuple[str, ...] = ()) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["image", "product", "split", *extra])
    frame.attrs.update(root=str(root), empty=[])
    return frame


def _shop(name: str, root: Path, workers: int = 2, progress: bool = True) -> pd.DataFrame:
    """The default shop, rendered if need be; in another folder than the cache's, whichever shop is there."""
    from klip.shop import sets

    if root != paths.CACHE / "shop" and (root / "plan.json").is_file():
        found = sets.catalogues(root)
    else:
        found = sets.render(sets.ShopPlan(), root, workers=workers, progress=progress)
    frame = found["finetune" if name == "shop" else name.replace("-", "_")]
    frame["group"] = frame["product"].map(_shelf)
    return frame


def _shelf(product: str) -> str:
    """category/kind of goods/brand-line of a rendered product, named brand-number-line-kind-flavour-number."""
    from klip.shop.design import CATEGORIES

    brand, number, _, kind, *_ = product.split("-")
    sold = (category for category, (_, kinds) in CATEGORIES.items() if kind.replace("_", " ") in kinds.split("|"))
    return f"{next(sold, 'produce')}/{kind}/{brand}-{number}"


def _grocery_store(name: str, root: Path, packaged: bool = False) -> pd.DataFrame:
    """GroceryStore: iconic packshots as gallery, test photos as queries, train and val as they are."""
    root = root / "dataset" if (root / "dataset" / "classes.csv").is_file() else root
    lists = [root / "classes.csv", *(root / f"{split}.txt" for split in ("train", "val", "test"))]
    for path in lists:
        if not path.is_file():
            raise FileNotFoundError(f"{name}: {path} is missing; {WHERE[name]}")
    classes = pd.read_csv(lists[0], dtype=str, skipinitialspace=True, keep_default_na=False).map(str.strip)
    products = {fine: product for product, fine in classes.iloc[:, :2].itertuples(index=False)}
    groups = dict(classes.iloc[:, [0, 2]].itertuples(index=False))
    rows = [(icon.lstrip("/"), product, "gallery")
            for product, icon in classes.iloc[:, [0, 4]].itertuples(index=False)]
    for path in lists[1:]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            image, fine, *_ = [*map(str.strip, line.split(",")), "", ""]
            if line.strip() and fine not in products:
                raise ValueError(f"{name}: line {number} of {path} wants `path, id, coarse id` with an id of "
                                 f"classes.csv, got {line!r}")
            if line.strip():
                rows.append((image.lstrip("/"), products[fine], path.stem.replace("test", "query")))
    frame = _frame(root, rows)
    frame["packaged"] = frame["image"].str.contains("/Packages/")
    frame["group"] = frame["product"].map(groups)
    return _packaged(frame, name) if packaged else frame


def _grozi(name: str, root: Path) -> pd.DataFrame:
    """GroZi-120, any number of its products: web packshots as gallery candidates, video crops as queries."""
    rows = []
    for split, pattern in (("gallery", "inVitro/*/web/JPEG/web*"), ("query", "inSitu/*/video/video*")):
        found: dict[tuple[int, int], Path] = {}
        for path in sorted(root.glob(pattern)):  # .png after .jpg: of two copies the lossless one counts
            product, match = path.relative_to(root).parts[1], re.fullmatch(r"(?:web|video)(\d+)", path.stem)
            if match and product.isdecimal() and path.suffix.lower() in IMAGES:
                found[int(product), int(match[1])] = path
        if not found:
            raise FileNotFoundError(f"{name}: no image {pattern} in {root}; {WHERE[name]}")
        rows += [(path.relative_to(root).as_posix(), str(product), split, number if split == "gallery" else 0)
                 for (product, number), path in sorted(found.items())]
    return _frame(root, rows, ("packshot",))


def _folder(name: str, root: Path) -> pd.DataFrame:
    """<root>/<product>/<image>, or <root>/<split>/<product>/<image> with a split of SPLITS (test = query)."""
    root = root / "all" if name == "rp2k" and (root / "all").is_dir() else root
    folders = _folders(root)
    split_up = bool(folders) and all(folder.name.lower() in SPLITS for folder in folders)
    rows, images_of = [], dict[str, int]()
    for top in folders if split_up else [root]:
        split = top.name.lower().replace("test", "query") if split_up else "train"
        for folder in _folders(top):
            product = unicodedata.normalize("NFC", folder.name)  # macOS writes another form of accents
            if name == "rp2k" and product == "others":  # not a product: what no product name fits
                continue
            files = [path.name for path in folder.iterdir() if path.is_file()
                     and path.suffix.lower() in IMAGES and not path.name.startswith(".")]
            within = folder.relative_to(root).as_posix()
            rows += [(f"{within}/{file}", product, split) for file in sorted(files, key=natural)]
            images_of[product] = images_of.get(product, 0) + len(files)
    if not rows:
        raise ValueError(f"{name}: {root} must hold one folder of images per product, found "
                         f"{len(images_of)} product folders and no image in them")
    frame = _frame(root, rows)
    if name != "rp2k":  # known to have some
        frame.attrs["empty"] = [product for product, count in images_of.items() if not count]
    return frame


def _manifest(name: str, root: Path) -> pd.DataFrame:
    """A CSV file (or a folder's manifest.csv): image, relative to it, product and, if wanted, split."""
    path = root / "manifest.csv" if root.is_dir() else root
    if not path.is_file():
        raise FileNotFoundError(f"manifest: {path} is missing; it has columns image, product[, split]")
    try:
        with warnings.catch_warnings(action="error"):  # rows longer than the header only warn
            table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True,
                                index_col=False, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserWarning) as error:  # also a wrong encoding and an empty file
        raise ValueError(f"manifest: {path} is no CSV file in UTF-8 ({str(error).splitlines()[0]})") from None
    table.columns = [str(column).strip() for column in table.columns]
    if not {"image", "product"} <= set(table.columns) or table.empty:
        raise ValueError(f"manifest: {path} wants columns image, product[, split] and at least one row, got "
                         f"columns {', '.join(table.columns)} and {len(table)} rows")
    table = table.fillna("").map(str.strip)
    table["image"] = table["image"].str.replace("\\", "/")
    table["product"] = table["product"].map(lambda product: unicodedata.normalize("NFC", product))
    split = table["split"].str.lower() if "split" in table else pd.Series("", index=table.index)
    table["split"] = split.replace({"": "train", "test": "query"})
    for row, image, product, split in table[["image", "product", "split"]].itertuples():
        inside = not (image.startswith("/") or PureWindowsPath(image).drive or ".." in image.split("/"))
        problem = (f"image {image!r}, accepted are paths below {path.parent}" if not image or not inside else
                   "no product" if not product else
                   f"split {split!r}, accepted are {', '.join(SPLITS)}" if split not in SPLITS else "")
        if problem:
            raise ValueError(f"manifest: row {row + 1} of {path} has {problem}")
    owners = table.groupby("image")["product"].nunique()
    if (owners > 1).any():
        raise ValueError(f"manifest: {path} gives several products to one image: "
                         f"{_named(owners.index[owners > 1])}")
    twice = table.duplicated(["image", "split"])
    if twice.any():
        warnings.warn(f"manifest: {twice.sum()} duplicate rows of {path} left out: "
                      f"{_named(table.loc[twice, 'image'].unique())}", stacklevel=4)
    table = table[~twice]
    table.attrs.update(root=str(path.parent), empty=[])
    return table


def _folders(folder: Path) -> list[Path]:
    found = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
    return sorted(found, key=lambda path: natural(path.name))


def _packaged(catalogue: pd.DataFrame, name: str) -> pd.DataFrame:
    if "packaged" not in catalogue:
        raise ValueError(f"{name}: this set does not say which products are packaged; grocery-store does")
    return _only(catalogue, catalogue["packaged"])


def _only(catalogue: pd.DataFrame, rows: pd.Series) -> pd.DataFrame:
    return catalogue[rows.to_numpy(bool)].reset_index(drop=True)


def _sound(catalogue: pd.DataFrame, unreadable: str) -> pd.DataFrame:
    """The catalogue without its damage, or the sentence that names and counts it."""
    name, root = catalogue.attrs["name"], catalogue.attrs["root"]
    if unreadable == "fail":
        problems = [f"{product}/ (no image in its folder)" for product in catalogue.attrs.get("empty", ())]
        problems += [f"{image} (missing)" for image in catalogue["image"] if not Path(root, image).is_file()]
        if problems:
            raise ValueError(f"{name}: {len(problems)} damaged in {root}: {_named(problems)}; put them right "
                             f"or have them left out (unreadable=\"skip\")")
        return catalogue
    damage = check(catalogue)
    if len(damage):
        problems = [f"{image or product + '/'} ({problem})" for image, product, problem in
                    damage.itertuples(index=False)]
        warnings.warn(f"{name}: {len(problems)} left out: {_named(problems)}", stacklevel=3)
        catalogue = _only(catalogue, ~catalogue["image"].isin(damage["image"]))
        if catalogue.empty:
            raise ValueError(f"{name}: no image in {root} can be read")
    return catalogue


def _validated(catalogue: pd.DataFrame, images: int, rng: np.random.Generator) -> pd.DataFrame:
    split = catalogue["split"].to_numpy(object, copy=True)
    source = "val" if (split == "val").any() else "train"
    held = catalogue[split == source]
    split[split == "val"] = ""
    for _, own in held.groupby("product", sort=False):
        if len(own) >= images + (source == "train"):
            split[rng.choice(own.index, images, replace=False)] = "val"
    return _only(catalogue.assign(split=pd.Series(split, dtype=str)), pd.Series(split != ""))


def _named(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _area(path: Path) -> int:
    """Pixels of an image, from its header; 0 if it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.width * image.height
    except OSError:
        return 0
