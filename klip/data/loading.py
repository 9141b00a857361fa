"""Loading a set by its name: one parser per layout, one `Catalogue` out of all of them.

`folders`, `layouts` and `manifests` know how the sets lie on disk, `sources` whence they come.
"""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from klip.data import damage, folders, layouts, manifests, sources, words
from klip.data.catalogue import SHOPS, Catalogue
from klip.data.scan import NO_IMAGE, told
from klip.settings import paths

PARSERS = {
    **dict.fromkeys(SHOPS, layouts.shop),
    "grocery-store": layouts.grocery_store,
    "grozi-120": layouts.grozi,
    "capg-gp": manifests.capg_gp,
    "rp2k": folders.rp2k,
    "products-10k": manifests.products_10k,
    "retail-786k": manifests.index_files,
    "stanford-online-products": manifests.index_files,
    "folder": folders.folders,
    "manifest": manifests.manifest,
}
OPTIONS = {"capg-gp": ("boxes",), "rp2k": ("others",), "folder": ("products",)}
"""What a parser takes beside the folder."""
PARTS = ("tuned", "held-out", "packaged")


def load_catalogue(
    name: str,
    root: str | Path = "",
    *,
    seed: int = 0,
    bad_images: str = "stop",
    validation: int = 0,
    **options: Any,
) -> Catalogue:
    """The catalogue of a set.

    name: a rendered shop (`shop` is its fine-tuning range), a set of `sources`, `folder`
    or `manifest`; with :tuned, :held-out or :packaged behind it a `Catalogue.part`.
    root: its folder, else below `paths.data_root()`.
    bad_images: "stop" (a missing file raises now, a damaged one when it is read), "skip"
    (all are opened now, a warning names what is left out; an error if it is many) or "keep" (`damage.check`).
    validation: K > 0 makes split "val" hold K seeded images of each product (§4.1.3), of
    the set's own, or else of the training images of products that have more.
    Options: test_only, are queries of products without a packshot counted as wrong
    ("count", as RP2K does if nothing is said) or left out ("drop", as the others do); copies,
    are queries that are the very file of a packshot, or of another product, left out ("drop")
    or asked ("keep"); rp2k
    others=True (the folder of what is no product); capg-gp boxes=FILE (cut out of shelf
    photographs); folder products=outer or inner (which of two folders names the product).
    ValueError: an unknown name, option or value, a list that cannot be understood.
    FileNotFoundError: the set is not there; the sentence says how it gets there.
    """
    _check(name, options)
    _one_of("bad_images", bad_images, accepted=("stop", "skip", "keep"))
    catalogue = _parsed(name, root, **options)
    if bad_images == "stop":
        damage.refuse(catalogue)
    elif bad_images == "skip":
        catalogue = damage.left_out(catalogue)
    if validation:
        catalogue = _validated(catalogue, validation, rng=np.random.default_rng(seed))
    return catalogue


def _check(name: str, options: dict[str, Any]) -> None:
    """Complain before the disk is looked at."""
    base, _, part = name.partition(":")
    if base not in PARSERS or part not in ("", *PARTS):
        raise ValueError(
            f"data: no set is called {name!r}; there are {', '.join(PARSERS)}, each also with "
            f":{', :'.join(PARTS)} behind it"
        )
    accepted = ("test_only", "copies", *OPTIONS.get(base, ()))
    for option in options:
        if option not in accepted:
            raise ValueError(
                f"data: {base} has no option {option!r}; there are {', '.join(accepted)}"
            )


def _one_of(name: str, value: str, *, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        wanted = f"{', '.join(accepted[:-1])} or {accepted[-1]}"
        raise ValueError(f"data: {name} must be {wanted}, got {value!r}")


def _parsed(
    name: str, root: str | Path, *, test_only: str = "", copies: str = "drop", **options: Any
) -> Catalogue:
    """What the parser of the set finds on disk, or the part of it that was asked for."""
    base, _, part = name.partition(":")
    test_only = test_only or ("count" if base == "rp2k" else "drop")
    _one_of("test_only", test_only, accepted=("count", "drop"))
    _one_of("copies", copies, accepted=("drop", "keep"))
    if base not in SHOPS:
        folder = sources.folder_of(base, root)
    else:  # rendered where it is not yet
        folder = Path(root).expanduser() if root else paths.CACHE / "shop"
    for option, value in options.items():
        options[option] = words.truth(value) if option == "others" else value
    found = PARSERS[base](base, folder, **options)
    table = found.frame.astype(dict.fromkeys(folders.COLUMNS, str))
    table["product"] = _named(found, table["product"])
    seen = {path: why for path, why in found.left_out.items() if why not in ("hidden", NO_IMAGE)}
    if seen and base == "folder":  # of a published set `klip data check` tells them
        warnings.warn(f"{name}: {'; '.join(told(seen))}", stacklevel=3)
    catalogue = replace(
        found.of(table), name=name, counted=test_only == "count", copies=copies == "keep"
    )
    return catalogue.part(part) if part else catalogue


def _named(catalogue: Catalogue, products: pd.Series) -> pd.Series:
    """Products in the one form of their names; ValueError: one has none, and which."""
    forms = {}
    for product in products.unique():
        try:
            forms[product] = words.name(product)
        except ValueError as error:
            image = catalogue["image"][products.eq(product).to_numpy()].iloc[0]
            raise ValueError(f"{catalogue.name}: image {image}: {error}") from None
    return products.map(forms)


def _validated(catalogue: Catalogue, images: int, *, rng: np.random.Generator) -> Catalogue:
    """Split "val" holds `images` of each product that has enough, and no others."""
    source = "val" if catalogue["split"].eq("val").any() else "train"
    least = images if source == "val" else images + 1  # one is left to train with
    split = catalogue["split"].replace("val", "")
    candidates = catalogue.frame[catalogue["split"] == source]
    for _, own in candidates.groupby("product", sort=False):
        if len(own) >= least:
            split[rng.choice(own.index, images, replace=False)] = "val"
    return catalogue.assign(split=split).where(split != "")


def summary(catalogue: Catalogue) -> pd.DataFrame:
    """Per split its images and products: split, images, products."""
    products = catalogue.frame.groupby("split")["product"]
    return products.agg(images="size", products="nunique").reset_index()
