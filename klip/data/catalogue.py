"""Catalogues of images: one loader per set, one table type out of all of them.

A catalogue is a pandas frame with columns `image` (posix path below the root; a crop's is absolute), `product` and
`split` (train, val, gallery, query; in GroZi-120 also index) and with `attrs` root (folder), name (of the set) and
empty (products without images).  Where the set has one, `group` is the product's place in a hierarchy, the general
first: "tea/ice_tea/zola-1".  `folders` and `manifests` know how the sets lie on disk, `sources` whence they come.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from klip.data import folders, manifests, shards
from klip.data.folders import SPLITS, files_in, named, natural
from klip.data.images import IMAGES, area, file_of, read
from klip.data.sources import SOURCES
from klip.settings import paths

__all__ = [
    "IMAGES",
    "RULES",
    "SHOPS",
    "SPLITS",
    "WHERE",
    "check",
    "load",
    "natural",
    "one_sided",
    "pick_gallery",
    "read",
    "summary",
]

SHOPS = ("shop", "grozi-like", "capg-like", "rp2k-like")
RULES = ("first", "web1", "largest", "random", "index")
WHERE = {name: source.place for name, source in SOURCES.items()}
"""Sets of real photographs, and how they get to their place by hand."""
OPTIONS = {
    **dict.fromkeys(SHOPS, ("workers", "progress")),
    "grocery-store": ("packaged",),
    "capg-gp": ("boxes",),
    "rp2k": ("others",),
}
"""What `load` takes for single sets."""


def load(
    name: str,
    root: str | Path = "",
    seed: int = 0,
    *,
    unreadable: str = "fail",
    validation: int = 0,
    test_only: str = "",
    **options: Any,
) -> pd.DataFrame:
    """The catalogue of a set.

    name: a rendered shop (`shop` is its fine-tuning range), a set of WHERE, `folder`, `manifest` or `shards`; with
    `:tuned` or `:held-out` behind it every other product (disjoint halves, the same for every seed), with
    `:packaged` those in packages.  root: its folder, else below data_root().
    unreadable: "fail" (a missing file raises now, a damaged one when it is read), "skip" (every image is opened now;
    one warning counts and names the damaged ones and empty products left out) or, for `check`, "keep" (no look).
    validation: K > 0 makes split "val" hold exactly K seeded images per product (§4.1.3): of the set's own validation
    images, or else of the training images of products that have more than K; the other products have none.
    test_only: are queries of products without a packshot counted as wrong ("count", RP2K's default) or left out
    ("drop", that of all others)?  Options: shops `workers`, `progress`; grocery-store `packaged=True`; rp2k
    `others=True` keeps the folder of what is no product; capg-gp `boxes=FILE` cuts products out of shelf photographs.
    """
    if unreadable not in ("fail", "skip", "keep"):
        raise ValueError(f"data: unreadable must be fail, skip or keep, got {unreadable!r}")
    if test_only not in ("", "count", "drop"):
        raise ValueError(f"data: test_only must be count or drop, got {test_only!r}")
    base, _, part = name.partition(":")
    loaders = {
        **dict.fromkeys(SHOPS, folders.shop),
        "grocery-store": folders.grocery_store,
        "grozi-120": folders.grozi,
        "capg-gp": _capg_gp,
        "rp2k": folders.rp2k,
        "products-10k": manifests.products_10k,
        "retail-786k": manifests.index_files,
        "stanford-online-products": manifests.index_files,
        "folder": folders.folders,
        "manifest": manifests.manifest,
        "shards": shards.shards,
    }
    if base not in loaders or part not in ("", "tuned", "held-out", "packaged"):
        raise ValueError(
            f"data: no set is called {name!r}; there are {', '.join(loaders)}, each also with "
            f":tuned, :held-out or :packaged behind it"
        )
    if unknown := [option for option in options if option not in OPTIONS.get(base, ())]:
        raise ValueError(
            f"data: {base} has no option {unknown[0]!r}; there are "
            f"{', '.join(['test_only', *OPTIONS.get(base, ())])}"
        )
    catalogue = loaders[base](base, _root(base, root), **options).reset_index(drop=True)
    catalogue = catalogue.astype({"image": str, "product": str, "split": str})
    if part in ("tuned", "held-out"):
        halves = sorted(set(catalogue["product"]), key=natural)[part == "held-out" :: 2]
        catalogue = catalogue[catalogue["product"].isin(halves)].reset_index(drop=True)
    elif part:
        catalogue = folders.only_packaged(catalogue, name)
    catalogue.attrs["name"] = name
    if (test_only or ("count" if base == "rp2k" else "drop")) == "count":
        catalogue.attrs["test_only"] = "count"
    catalogue = catalogue if unreadable == "keep" else _sound(catalogue, unreadable)
    return (
        _validated(catalogue, validation, np.random.default_rng(seed)) if validation else catalogue
    )


def check(catalogue: pd.DataFrame) -> pd.DataFrame:
    """What is wrong with a catalogue: a frame of image, product, problem.  Opens every image."""
    root = Path(catalogue.attrs["root"])
    damage = [
        ("", product, "no image in its folder") for product in catalogue.attrs.get("empty", ())
    ]
    for image, product in zip(catalogue["image"], catalogue["product"], strict=True):
        try:
            read(root / image)
        except FileNotFoundError:
            damage.append((image, product, "missing"))
        except ValueError as error:
            damage.append((image, product, str(error).removeprefix(f"image {root / image}: ")))
    return pd.DataFrame(damage, columns=["image", "product", "problem"])


def summary(catalogue: pd.DataFrame) -> pd.DataFrame:
    """Per split its images and products: split, images, products."""
    return (
        catalogue.groupby("split")["product"].agg(images="size", products="nunique").reset_index()
    )


def one_sided(catalogue: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Products that are never asked for, and products that are asked for and never shown (train, gallery); both
    empty in a set without queries of its own."""
    asked, shown = (
        set(catalogue.loc[catalogue["split"].isin(splits), "product"])
        for splits in (["query"], ["train", "gallery"])
    )
    return (
        (sorted(shown - asked, key=natural), sorted(asked - shown, key=natural))
        if asked
        else ([], [])
    )


def pick_gallery(catalogue: pd.DataFrame, rule: str = "first", seed: int = 0) -> pd.DataFrame:
    """The catalogue with exactly one gallery image per product, by rule, before its queries (paper §4.2).

    first = web1 (the paper does not say: A), largest (in pixels), random (seeded).  Candidates are the gallery rows, or
    the training rows where there are none; if there are no queries either, all other images become queries.  index:
    the first picture of split "index", which other rules leave alone (GroZi-120's Index/).  Queries of products
    without a packshot are left out with a warning, or count as wrong where `attrs` test_only is "count" (see `load`).
    """
    if rule not in RULES:
        raise ValueError(f"gallery: the rule must be one of {', '.join(RULES)}, got {rule!r}")
    name, root, catalogue = (
        catalogue.attrs["name"],
        catalogue.attrs["root"],
        catalogue.reset_index(drop=True),
    )
    split = catalogue["split"]
    if rule == "index" and not (split == "index").any():
        raise ValueError(
            f"{name}: the gallery rule index wants pictures in Index/ (GroZi-120's archive), there are "
            f"none in {root}; take first, largest or random"
        )
    source = "index" if rule == "index" else "gallery" if (split == "gallery").any() else "train"
    candidates = catalogue[split == source]
    rng, chosen = np.random.default_rng(seed), []
    for _, rows in candidates.groupby("product", sort=False):
        position = 0
        if rule == "random":
            position = int(rng.integers(len(rows)))
        elif rule == "largest" and len(rows) > 1:
            position = int(np.argmax([area(Path(root, image)) for image in rows["image"]]))
        chosen.append(rows.index[position])
    gallery = catalogue.loc[chosen].assign(split="gallery")
    queries = catalogue[split == "query"]
    if queries.empty:
        queries = candidates.drop(chosen).assign(split="query")
    known = queries["product"].isin(gallery["product"])
    if not known.any():
        raise ValueError(
            f"{name}: wants gallery and query images of the same products (a plain folder: two "
            f"images per product), got {len(gallery)} gallery images and {len(queries)} queries"
        )
    if not known.all():
        counted = catalogue.attrs.get("test_only") == "count"
        warnings.warn(
            f"{name}: {(~known).sum()} queries {'count as wrong' if counted else 'left out'}, there is no "
            f"packshot of {named(queries.loc[~known, 'product'].unique())}",
            stacklevel=2,
        )
        known |= counted
    result = pd.concat([gallery, queries[known]], ignore_index=True)
    result.attrs = catalogue.attrs
    return result


def _root(name: str, root: str | Path) -> Path:
    if name in SHOPS:
        return Path(root).expanduser() if root else paths.CACHE / "shop"
    what = (
        "a CSV or Parquet file with columns image, product[, split]"
        if name == "manifest"
        else "a folder of products"
    )
    if not root and name not in WHERE:
        raise ValueError(f"{name}: no root was given; it is {what}")
    folder = Path(root).expanduser() if root else paths.data_root() / name
    if not folder.exists() or (name != "manifest" and not folder.is_dir()):
        hint = "run `klip data fetch grocery-store`, or " if name == "grocery-store" else ""
        hint += f"{WHERE[name]}: {SOURCES[name].holds}" if name in WHERE else f"it has to be {what}"
        raise FileNotFoundError(f"{name}: {folder} is missing; {hint}")
    return folder


def _capg_gp(name: str, root: Path, boxes: str = "") -> pd.DataFrame:
    """CAPG-GP: train/<product>/ and test/<product>/, the boxes of shelf photographs, or both."""
    path = root / (boxes or "boxes.csv")
    if boxes and not path.is_file():
        raise FileNotFoundError(f"{name}: {path} is missing; {WHERE[name]}")
    if not path.is_file():
        return folders.folders(name, root)
    crops = manifests.boxes(name, root, path)
    tops = [folder for folder in folders.inner(root) if folder.name.lower() in SPLITS]
    parts = [folders.folders(name, root, tops=tops), crops] if tops else [crops]
    result = pd.concat(parts, ignore_index=True)
    result.attrs = parts[0].attrs
    return result


def _missing(root: Path, images: pd.Series) -> list[str]:
    """Those that are no file, in order.  To list a folder is quicker than to ask for more than eight files in it."""
    if images.str.contains(".tar@", regex=False).any():
        there = {
            file: (root / file).is_file() for file in {str(file_of(image)) for image in images}
        }
        return [image for image in images if not there[str(file_of(image))]]
    lost, of_folder = set(), dict[str, list[str]]()
    for image in images:
        head, slash, _ = image.rpartition("/")
        of_folder.setdefault(head + slash, []).append(image)
    for folder, own in of_folder.items():
        there = files_in(root / folder) if len(own) > 8 else set()
        lost.update(
            image
            for image in own  # a file system may be lax about how a name is written
            if image[len(folder) :] not in there and not Path(root, image).is_file()
        )
    return [image for image in images if image in lost] if lost else []


def _sound(catalogue: pd.DataFrame, unreadable: str) -> pd.DataFrame:
    """The catalogue without its damage, or the sentence that names and counts it."""
    name, root = catalogue.attrs["name"], catalogue.attrs["root"]
    if unreadable == "fail":
        problems = [
            f"{product}/ (no image in its folder)" for product in catalogue.attrs.get("empty", ())
        ]
        problems += [f"{image} (missing)" for image in _missing(Path(root), catalogue["image"])]
        if problems:
            raise ValueError(
                f"{name}: {len(problems)} damaged in {root}: {named(problems)}; put them right "
                f'or have them left out (unreadable="skip")'
            )
        return catalogue
    damage = check(catalogue)
    if len(damage):
        problems = [
            f"{row.image or row.product + '/'} ({row.problem})" for row in damage.itertuples()
        ]
        warnings.warn(f"{name}: {len(problems)} left out: {named(problems)}", stacklevel=3)
        catalogue = catalogue[~catalogue["image"].isin(damage["image"])].reset_index(drop=True)
        if catalogue.empty:
            raise ValueError(f"{name}: no image in {root} can be read")
    return catalogue


def _validated(catalogue: pd.DataFrame, images: int, rng: np.random.Generator) -> pd.DataFrame:
    split = catalogue["split"].to_numpy(object, copy=True)
    source = "val" if (split == "val").any() else "train"
    groups = catalogue[split == source].groupby("product", sort=False)
    split[split == "val"] = ""
    for _, own in groups:
        if len(own) >= images + (source == "train"):
            split[rng.choice(own.index, images, replace=False)] = "val"
    return catalogue.assign(split=pd.Series(split, dtype=str))[split != ""].reset_index(drop=True)
