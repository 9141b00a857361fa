"""Catalogues of images: one loader per set, one table type out of all of them.

A catalogue is a pandas frame with columns `image` (posix path below the root; a crop's
is absolute), `product` and `split` (train, val, gallery, query; in GroZi-120 also
index) and with `attrs` root (folder), name (of the set) and empty (products without
images).  Where the set has one, `group` is the product's place in a hierarchy, the
general first: "tea/ice_tea/zola-1".  `folders` and `manifests` know how the sets lie on
disk, `sources` whence they come.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from klip.data import folders, manifests, shards, sources
from klip.data.folders import named, natural
from klip.data.images import area, missing, read
from klip.settings import paths

SHOPS = ("shop", "grozi-like", "capg-like", "rp2k-like")
RULES = ("first", "web1", "largest", "random", "index")
WHERE = {name: source.place for name, source in sources.SOURCES.items()}
"""Sets of real photographs, and how they get to their place by hand."""
LOADERS = {
    **dict.fromkeys(SHOPS, (folders.shop, "workers", "progress")),
    "grocery-store": (folders.grocery_store, "packaged"),
    "grozi-120": (folders.grozi,),
    "capg-gp": (manifests.capg_gp, "boxes"),
    "rp2k": (folders.rp2k, "others"),
    "products-10k": (manifests.products_10k,),
    "retail-786k": (manifests.index_files,),
    "stanford-online-products": (manifests.index_files,),
    "folder": (folders.folders,),
    "manifest": (manifests.manifest,),
    "shards": (shards.shards,),
}
"""What reads a set, and the options that it takes."""


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

    name: a rendered shop (`shop` is its fine-tuning range), a set of WHERE, `folder`,
    `manifest` or `shards`; with `:tuned` or `:held-out` behind it every other product
    (disjoint halves, the same for every seed), with `:packaged` those in packages.
    root: its folder, else below data_root().
    unreadable: "fail" (a missing file raises now, a damaged one when it is read), "skip"
    (all are opened now; one warning counts and names the damaged ones and the empty
    products left out) or, for `check`, "keep" (no look).
    validation: K > 0 makes split "val" hold exactly K seeded images per product (§4.1.3):
    of the set's own, or else of the training images of products that have more than K.
    test_only: are queries of products without a packshot counted as wrong ("count", as
    RP2K does if nothing is said) or left out ("drop", as the others do)?
    Options: shops `workers`, `progress`; grocery-store `packaged=True`; rp2k `others=True`
    keeps the folder of what is no product; capg-gp `boxes=FILE` cuts products out of
    shelf photographs.
    """
    _check_request(name, unreadable, test_only, options)
    base, _, part = name.partition(":")
    if base in SHOPS:  # rendered where it is not yet
        folder = Path(root).expanduser() if root else paths.CACHE / "shop"
    else:
        folder = sources.folder_of(base, root)
    loader, *_ = LOADERS[base]
    catalogue = loader(base, folder, **options).reset_index(drop=True)
    catalogue = catalogue.astype({"image": str, "product": str, "split": str})
    if part == "packaged":
        catalogue = folders.only_packaged(catalogue, name)
    elif part:
        products = sorted(set(catalogue["product"]), key=natural)
        half = products[::2] if part == "tuned" else products[1::2]
        catalogue = catalogue[catalogue["product"].isin(half)].reset_index(drop=True)
    catalogue.attrs["name"] = name
    if test_only == "count" or (base == "rp2k" and not test_only):
        catalogue.attrs["test_only"] = "count"
    if unreadable == "fail":
        _refuse_damage(catalogue)
    elif unreadable == "skip":
        catalogue = _without_damage(catalogue)
    if validation:
        catalogue = _validated(catalogue, validation, np.random.default_rng(seed))
    return catalogue


def check(catalogue: pd.DataFrame) -> pd.DataFrame:
    """What is wrong: a frame of image, product, problem.  Opens every image."""
    root, empty = Path(catalogue.attrs["root"]), catalogue.attrs.get("empty", ())
    damage = [("", product, "no image in its folder") for product in empty]
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
    products = catalogue.groupby("split")["product"]
    return products.agg(images="size", products="nunique").reset_index()


def one_sided(catalogue: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Products that are never asked for, and products that are asked for and never
    shown (train, gallery); both empty in a set without queries of its own."""
    split, product = catalogue["split"], catalogue["product"]
    asked = set(product[split == "query"])
    shown = set(product[split.isin(["train", "gallery"])])
    if not asked:
        return [], []
    return sorted(shown - asked, key=natural), sorted(asked - shown, key=natural)


def pick_gallery(catalogue: pd.DataFrame, rule: str = "first", seed: int = 0) -> pd.DataFrame:
    """One gallery image per product, by rule, and behind them the queries (paper §4.2).

    first = web1 (the paper does not say: A), largest (in pixels), random (seeded).
    Candidates are the gallery rows, or the training rows where there are none; if there
    are no queries either, all other images become queries.  index: the first picture of
    split "index", which other rules leave alone (GroZi-120's Index/).  Queries of
    products without a packshot are left out with a warning, or count as wrong where
    `attrs` test_only is "count" (see `load`).
    """
    if rule not in RULES:
        raise ValueError(f"gallery: the rule must be one of {', '.join(RULES)}, got {rule!r}")
    name, root = catalogue.attrs["name"], catalogue.attrs["root"]
    catalogue = catalogue.reset_index(drop=True)
    split = catalogue["split"]
    source = "gallery" if (split == "gallery").any() else "train"
    candidates = catalogue[split == ("index" if rule == "index" else source)]
    if rule == "index" and candidates.empty:
        raise ValueError(
            f"{name}: the gallery rule index wants pictures in Index/ (GroZi-120's archive), "
            f"there are none in {root}; take first, largest or random"
        )
    chosen = _packshots(candidates, rule, root, np.random.default_rng(seed))
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
        fate = "count as wrong" if counted else "left out"
        lost = named(queries.loc[~known, "product"].unique())
        warnings.warn(
            f"{name}: {(~known).sum()} queries {fate}, there is no packshot of {lost}", stacklevel=2
        )
        queries = queries if counted else queries[known]
    result = pd.concat([gallery, queries], ignore_index=True)
    result.attrs = catalogue.attrs
    return result


def _packshots(
    candidates: pd.DataFrame, rule: str, root: str, rng: np.random.Generator
) -> list[int]:
    """The index of one row per product."""
    chosen = []
    for _, rows in candidates.groupby("product", sort=False):
        position = 0
        if rule == "random":
            position = int(rng.integers(len(rows)))
        elif rule == "largest" and len(rows) > 1:
            position = int(np.argmax([area(Path(root, image)) for image in rows["image"]]))
        chosen.append(rows.index[position])
    return chosen


def _check_request(name: str, unreadable: str, test_only: str, options: dict[str, Any]) -> None:
    if unreadable not in ("fail", "skip", "keep"):
        raise ValueError(f"data: unreadable must be fail, skip or keep, got {unreadable!r}")
    if test_only not in ("", "count", "drop"):
        raise ValueError(f"data: test_only must be count or drop, got {test_only!r}")
    base, _, part = name.partition(":")
    if base not in LOADERS or part not in ("", "tuned", "held-out", "packaged"):
        raise ValueError(
            f"data: no set is called {name!r}; there are {', '.join(LOADERS)}, each also with "
            ":tuned, :held-out or :packaged behind it"
        )
    accepted = ["test_only", *LOADERS[base][1:]]
    for option in options:
        if option not in accepted:
            raise ValueError(
                f"data: {base} has no option {option!r}; there are {', '.join(accepted)}"
            )


def _refuse_damage(catalogue: pd.DataFrame) -> None:
    name, root = catalogue.attrs["name"], catalogue.attrs["root"]
    empty = catalogue.attrs.get("empty", ())
    problems = [f"{product}/ (no image in its folder)" for product in empty]
    problems += [f"{image} (missing)" for image in missing(Path(root), catalogue["image"])]
    if problems:
        raise ValueError(
            f"{name}: {len(problems)} damaged in {root}: {named(problems)}; put them right "
            'or have them left out (unreadable="skip")'
        )


def _without_damage(catalogue: pd.DataFrame) -> pd.DataFrame:
    """The catalogue without what `check` finds, which a warning counts and names."""
    name, damage = catalogue.attrs["name"], check(catalogue)
    if damage.empty:
        return catalogue
    shown = damage["image"].where(damage["image"] != "", damage["product"] + "/")
    problems = named(shown + " (" + damage["problem"] + ")")
    warnings.warn(f"{name}: {len(damage)} left out: {problems}", stacklevel=3)
    catalogue = catalogue[~catalogue["image"].isin(damage["image"])].reset_index(drop=True)
    if catalogue.empty:
        raise ValueError(f"{name}: no image in {catalogue.attrs['root']} can be read")
    return catalogue


def _validated(catalogue: pd.DataFrame, images: int, rng: np.random.Generator) -> pd.DataFrame:
    """Split "val" holds `images` of each product that has enough, and no others."""
    source = "val" if (catalogue["split"] == "val").any() else "train"
    least = images if source == "val" else images + 1  # one is left to train with
    held: list[int] = []
    for _, own in catalogue[catalogue["split"] == source].groupby("product", sort=False):
        if len(own) >= least:
            held += rng.choice(own.index, images, replace=False).tolist()
    split = catalogue["split"].replace("val", "")
    split.iloc[held] = "val"
    return catalogue.assign(split=split)[split != ""].reset_index(drop=True)
