"""Loading a set by its name: one parser per layout, one `Catalogue` out of all of them.

`folders` and `manifests` know how the sets lie on disk, `sources` whence they come.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from klip.data import damage, folders, manifests, sources
from klip.data.catalogue import SHOPS, Catalogue
from klip.settings import paths

PARSERS = {
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
}
"""What reads a set, and the options that it takes."""
PARTS = ("tuned", "held-out", "packaged")


def load_catalogue(
    name: str,
    root: str | Path = "",
    *,
    seed: int = 0,
    unreadable: str = "fail",
    validation: int = 0,
    test_only: str = "",
    **options: Any,
) -> Catalogue:
    """The catalogue of a set.

    name: a rendered shop (`shop` is its fine-tuning range), a set of `sources`, `folder`
    or `manifest`; with :tuned, :held-out or :packaged behind it a `Catalogue.part`.
    root: its folder, else below `paths.data_root()`.
    unreadable: "fail" (a missing file raises now, a damaged one when it is read), "skip"
    (all are opened now, a warning names what is left out) or "keep" (`damage.check`).
    validation: K > 0 makes split "val" hold K seeded images of each product (§4.1.3), of
    the set's own, or else of the training images of products that have more.
    test_only: are queries of products without a packshot counted as wrong ("count", as
    RP2K does if nothing is said) or left out ("drop", as the others do)?
    Options: shops workers, progress; grocery-store packaged=True; rp2k others=True (the
    folder of what is no product); capg-gp boxes=FILE (cut out of shelf photographs).
    ValueError: an unknown name, option or value, a list that cannot be understood.
    FileNotFoundError: the set is not there; the sentence says how it gets there.
    """
    _check(name, unreadable, test_only, options)
    catalogue = _parsed(name, root, test_only, options)
    if unreadable == "fail":
        damage.refuse(catalogue)
    elif unreadable == "skip":
        catalogue = damage.left_out(catalogue)
    if validation:
        catalogue = _validated(catalogue, validation, np.random.default_rng(seed))
    return catalogue


def _check(name: str, unreadable: str, test_only: str, options: dict[str, Any]) -> None:
    """Complain before the disk is looked at."""
    base, _, part = name.partition(":")
    if base not in PARSERS or part not in ("", *PARTS):
        raise ValueError(
            f"data: no set is called {name!r}; there are {', '.join(PARSERS)}, each also with "
            f":{', :'.join(PARTS)} behind it"
        )
    if unreadable not in ("fail", "skip", "keep"):
        raise ValueError(f"data: unreadable must be fail, skip or keep, got {unreadable!r}")
    if test_only not in ("", "count", "drop"):
        raise ValueError(f"data: test_only must be count or drop, got {test_only!r}")
    accepted = ["test_only", *PARSERS[base][1:]]
    for option in options:
        if option not in accepted:
            raise ValueError(
                f"data: {base} has no option {option!r}; there are {', '.join(accepted)}"
            )


def _parsed(name: str, root: str | Path, test_only: str, options: dict[str, Any]) -> Catalogue:
    """What the parser of the set finds on disk, or the part of it that was asked for."""
    base, _, part = name.partition(":")
    if base not in SHOPS:
        folder = sources.folder_of(base, root)
    elif root:
        folder = Path(root).expanduser()
    else:  # rendered where it is not yet
        folder = paths.CACHE / "shop"
    found = PARSERS[base][0](base, folder, **options)
    table = found.frame.astype({"image": str, "product": str, "split": str})
    counted = test_only == "count" or (base == "rp2k" and not test_only)
    catalogue = replace(found.of(table), name=name, counted=counted)
    return catalogue.part(part) if part else catalogue


def _validated(catalogue: Catalogue, images: int, rng: np.random.Generator) -> Catalogue:
    """Split "val" holds `images` of each product that has enough, and no others."""
    source = "val" if catalogue["split"].eq("val").any() else "train"
    least = images if source == "val" else images + 1  # one is left to train with
    held: list[int] = []
    candidates = catalogue.frame[catalogue["split"] == source]
    for _, own in candidates.groupby("product", sort=False):
        if len(own) >= least:
            held += rng.choice(own.index, images, replace=False).tolist()
    split = catalogue["split"].replace("val", "")
    split.iloc[held] = "val"
    return catalogue.of(catalogue.frame.assign(split=split)[split != ""])


def summary(catalogue: Catalogue) -> pd.DataFrame:
    """Per split its images and products: split, images, products."""
    products = catalogue.frame.groupby("split")["product"]
    return products.agg(images="size", products="nunique").reset_index()
