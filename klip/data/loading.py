"""Loading a set by its name: one parser per layout, one `Catalogue` out of all of them.

`folders` and `manifests` know how the sets lie on disk, `sources` whence they come.
"""

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
    (all are opened now; one warning counts and names the damaged ones and the empty
    products left out) or, for `damage.check`, "keep" (no look).
    validation: K > 0 makes split "val" hold exactly K seeded images per product
    (§4.1.3): of the set's own, or else of the training images of products that have more.
    test_only: are queries of products without a packshot counted as wrong ("count", as
    RP2K does if nothing is said) or left out ("drop", as the others do)?
    Options: shops `workers`, `progress`; grocery-store `packaged=True`; rp2k
    `others=True` keeps the folder of what is no product; capg-gp `boxes=FILE` cuts
    products out of shelf photographs.
    ValueError: an unknown name, option or value, a list that cannot be understood.
    FileNotFoundError: the set is not there; the sentence says how it gets there.
    """
    base, _, part = name.partition(":")
    accepted = {"unreadable": ("fail", "skip", "keep"), "test_only": ("", "count", "drop")}
    given = {"unreadable": unreadable, "test_only": test_only}
    for option, value in given.items():
        if value not in accepted[option]:
            words = ", ".join(filter(None, accepted[option]))
            raise ValueError(f"data: {option} must be one of {words}, got {value!r}")
    if base not in PARSERS or part not in ("", *PARTS):
        raise ValueError(
            f"data: no set is called {name!r}; there are {', '.join(PARSERS)}, each also with "
            f":{', :'.join(PARTS)} behind it"
        )
    parse, *known = PARSERS[base]
    for option in options:
        if option not in known:
            raise ValueError(
                f"data: {base} has no option {option!r}; there are "
                f"{', '.join(['test_only', *known])}"
            )
    if base in SHOPS:  # rendered where it is not yet
        folder = Path(root).expanduser() if root else paths.CACHE / "shop"
    else:
        folder = sources.folder_of(base, root)
    found = parse(base, folder, **options)
    table = found.frame.astype({"image": str, "product": str, "split": str})
    counted = test_only == "count" or (base == "rp2k" and not test_only)
    catalogue = Catalogue(
        table.reset_index(drop=True), found.root, name, found.empty, found.notes, counted
    )
    if part:
        catalogue = catalogue.part(part)
    if unreadable == "fail":
        damage.refuse(catalogue)
    elif unreadable == "skip":
        catalogue = damage.left_out(catalogue)
    if validation:
        catalogue = _validated(catalogue, validation, np.random.default_rng(seed))
    return catalogue


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
