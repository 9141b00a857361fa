"""Sets with a layout of their own: rendered shops, GroceryStore, GroZi-120.

Every parser takes the set's name and its folder and returns a `Catalogue`.
"""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd

from klip.data import lists
from klip.data.catalogue import Catalogue
from klip.data.folders import COLUMNS
from klip.data.scan import scan
from klip.data.sources import SOURCES
from klip.settings import paths

GROZI = {
    "gallery": r"inVitro/(?P<product>\d+)/web/JPEG/web(?P<number>\d+)\.\w+",
    "query": r"inSitu/(?P<product>\d+)/video/video(?P<number>\d+)\.\w+",
    "index": r"(?:inVitro/(?P<product>\d+)/Index/[^/]+|Index/(?P<flat>\d+)\.\w+)",
}
"""Split -> where GroZi-120 has its images."""


def shop(name: str, root: Path) -> Catalogue:
    """The default shop, rendered if need be; or the shop that is in a folder of one's own."""
    from klip.shop import sets
    from klip.shop.plan import ShopPlan

    if root != paths.CACHE / "shop" and (root / "plan.json").is_file():
        found = sets.catalogues(root)
    else:
        found = sets.render(ShopPlan(), root)
    frame = found["finetune" if name == "shop" else name.replace("-", "_")]
    return Catalogue(frame, root, name).assign(group=frame["product"].map(_shelf))


def _shelf(product: str) -> str:
    """category/kind/brand-number of a product, named brand-number-line-kind-flavour-number."""
    from klip.shop.goods import CATEGORIES

    brand, number, _, kind, *_ = product.split("-")
    for category, (_, kinds) in CATEGORIES.items():
        if kind.replace("_", " ") in kinds.split("|"):
            return f"{category}/{kind}/{brand}-{number}"
    return f"produce/{kind}/{brand}-{number}"


def grocery_store(name: str, root: Path) -> Catalogue:
    """GroceryStore: iconic packshots are the gallery, test photos the queries."""
    root = root / "dataset" if (root / "dataset" / "classes.csv").is_file() else root
    listed = lists.read(name, root / "classes.csv", needs=(), root=root)
    classes, columns = listed.table.iloc[:, :5], ["product", "id", "group", "coarse id", "image"]
    if classes.shape[1] < len(columns):
        raise ValueError(
            f"{name}: {listed.path} wants columns for {', '.join(columns)}, got "
            f"{', '.join(classes.columns)}"
        )
    classes.columns = columns
    again = classes["id"].duplicated()
    replace(listed, table=classes).refuse({"has id {id} a second time": again})
    tables = [classes.assign(split="gallery")]
    for split in ("train", "val", "test"):
        needs = ("image", "id", "coarse id")
        found = lists.read(name, root / f"{split}.txt", needs=needs, root=root, names=needs)
        wanted = "wants `path, id, coarse id` with an id of classes.csv"
        unknown = ~found.table["id"].isin(classes["id"])
        found.refuse({wanted + ", got '{image}, {id}, {coarse id}'": unknown})
        tables.append(found.table.assign(split=split.replace("test", "query")))
    table = pd.concat(tables, ignore_index=True)
    of_id = classes.set_index("id")
    table["product"] = table["id"].map(of_id["product"])
    table["group"] = table["id"].map(of_id["group"])
    table["image"] = table["image"].str.lstrip("/")
    table["packaged"] = table["image"].str.contains("/Packages/")
    return Catalogue(table[[*COLUMNS, "packaged", "group"]], root, name)


def grozi(name: str, root: Path) -> Catalogue:
    """GroZi-120, any number of its products: web packshots as gallery candidates, video
    crops as queries.

    Split "index", for the gallery rule of that name: inVitro/<product>/Index/* and
    Index/<product>.* (where that folder lies in the official archive could not be
    confirmed).
    """
    found, kept = scan(root), dict[tuple, str]()
    for place, image in enumerate(found.images):
        matches = [(split, re.fullmatch(pattern, image)) for split, pattern in GROZI.items()]
        split, said = next((match for match in matches if match[1]), ("", None))
        if said is None:
            found.left_out[image] = "no picture of the set"
            continue
        number = place if split == "index" else int(said["number"])
        key = (split, int(said["product"] or said["flat"]), number)
        if key in kept:  # .png comes after .jpg: of two copies the lossless one counts
            found.left_out[kept[key]] = "a copy of another file"
        kept[key] = image
    for split, pattern in {
        "gallery": "inVitro/*/web/JPEG/web*",
        "query": "inSitu/*/video/video*",
    }.items():
        if not any(key[0] == split for key in kept):
            raise FileNotFoundError(f"{name}: no image {pattern} in {root}; {SOURCES[name].place}")
    rows = []
    for split, product, number in sorted(
        kept, key=lambda key: (list(GROZI).index(key[0]), key[1:])
    ):
        packshot = number if split == "gallery" else 0
        rows.append((kept[split, product, number], str(product), split, packshot))
    table = pd.DataFrame(rows, columns=[*COLUMNS, "packshot"])
    return Catalogue(table, root, name, left_out=found.left_out)
