"""Sets whose list files say what an image shows: manifests, the boxes of CAPG-GP,
Products-10K, and the index files that Stanford Online Products and Retail-786k share.
"""

import warnings
from dataclasses import replace
from pathlib import Path

import pandas as pd

from klip.data import crops, lists, words
from klip.data.catalogue import Catalogue
from klip.data.folders import COLUMNS, folders
from klip.data.sources import SOURCES
from klip.data.words import named

ALIASES = {
    "image": "path file filename file_name filepath image_path img",
    "product": "label class class_name product_id product_name sku",
    "split": "set subset",
}
"""Column -> what others call it."""
INDEX = ["image_id", "class_id", "super_class_id", "path"]


def manifest(name: str, root: Path) -> Catalogue:
    """A CSV or Parquet file (or a folder's manifest.csv or manifest.parquet): image,
    relative to it, product and, if wanted, split.  Parquet needs the package pyarrow,
    which klip does not install."""
    files = [root / "manifest.csv", root / "manifest.parquet"] if root.is_dir() else [root]
    path = next(filter(Path.is_file, files), files[0])
    found = lists.read(
        name, path, needs=("image", "product"), may="split", root=path.parent, aliases=ALIASES
    )
    _asked_or_shown(found)
    table = _splits(found, "train").table
    again = table[table["image"].duplicated(keep=False)].groupby("image")["product"].nunique()
    several = again.index[again > 1]
    if len(several):
        raise ValueError(f"{name}: {path} gives several products to one image: {named(several)}")
    twice = table.duplicated(["image", "split"])
    if twice.any():
        images = named(table.loc[twice, "image"].unique())
        warnings.warn(
            f"{name}: {twice.sum()} duplicate rows of {path} left out: {images}", stacklevel=3
        )
    return Catalogue(table[~twice], path.parent, name)


def _asked_or_shown(found: lists.ListFile) -> None:
    """Splits by the columns is_query and is_gallery, which others have beside split."""
    table, sides = found.table, {}
    for column, split in {"is_query": "query", "is_gallery": "gallery"}.items():
        if column in table:
            sides[split] = table[column].map(words.truth)
    if len(sides) == 2:
        both = sides["query"] & sides["gallery"]
        found.refuse({"is query and gallery at once; one image is one of them": both})
    for split, rows in sides.items():
        table["split"] = table["split"].mask(rows, split)


def capg_gp(name: str, root: Path, *, boxes: str = "") -> Catalogue:
    """CAPG-GP: train/<product>/ and test/<product>/, the crops (`crops.cut`) of a CSV
    file of boxes (image, x1, y1, x2, y2, product[, split, else query]), or both."""
    path = root / (boxes or "boxes.csv")
    if not boxes and not path.is_file():
        return folders(name, root)
    needs = ("image", *crops.SIDES, "product")
    found = _splits(lists.read(name, path, needs=needs, may="split", root=root), "query")
    cut = found.table.assign(image=crops.cut(found))[COLUMNS]
    tops = [path.name for path in root.iterdir() if path.is_dir() and words.split(path.name)]
    if not tops:
        return Catalogue(cut, root, name)
    packshots = folders(name, root, tops=tops)
    return packshots.of(pd.concat([packshots.frame, cut]))


def _splits(found: lists.ListFile, unsaid: str) -> lists.ListFile:
    """The list with klip's names for splits (`unsaid` where there is none), every row checked."""
    table = found.table
    image = table["image"].str.replace("\\", "/", regex=False)
    root = found.root.absolute().as_posix().rstrip("/") + "/"
    table["image"] = image.str.removeprefix(root)
    said = table["split"]
    table["split"] = said.map(words.split).mask(said.eq(""), unsaid)
    rooted = table["image"].str.match("/|[A-Za-z]:")
    above = table["image"].str.contains(r"(?:^|/)\.\.(?:/|$)")
    outside = rooted | above | table["image"].eq("")
    problems = {
        "has image {image!r}, accepted are paths below {root}": outside,
        "has no product": table["product"].eq(""),
        f"has split {{said!r}}, accepted are {', '.join(words.SPLITS)} and other words for "
        "them": table["split"].eq(""),
    }
    replace(found, table=table.assign(said=said)).refuse(problems)
    return found


def products_10k(name: str, root: Path) -> Catalogue:
    """Products-10K: train.csv (name, class[, group]) with train/, and test_kaggletest.csv
    with test/ as queries.

    Without a labelled test list there are training images only.  `group` is the set's
    own, where it has one.
    """
    tables, notes = [_classes(name, root / "train.csv", split="train")], ()
    test = root / "test_kaggletest.csv"
    if test.is_file():
        tables.append(_classes(name, test, split="query"))
    else:
        notes = (f"{test.name} is missing: no queries",)
    table = pd.concat(tables, ignore_index=True)
    # The test list may have no groups: a product's is that of its first row with one.
    first = table[table["group"] != ""].drop_duplicates("product").set_index("product")
    if first.empty:
        table = table.drop(columns="group")
    else:
        table["group"] = table["product"].map(first["group"]).fillna("")
    return Catalogue(table, root, name, notes=notes)


def _classes(name: str, path: Path, *, split: str) -> pd.DataFrame:
    """One list of Products-10K: image, product, split, group."""
    folder = "train" if split == "train" else "test"
    found = lists.read(name, path, needs=("name", "class"), may="group", root=path.parent)
    table = found.table
    found.refuse({"lacks its name or class": table["name"].eq("") | table["class"].eq("")})
    table = table.assign(image=f"{folder}/" + table["name"], product=table["class"], split=split)
    return table[[*COLUMNS, "group"]]


def index_files(name: str, root: Path) -> Catalogue:
    """Stanford Online Products and Retail-786k: text files of image_id class_id
    super_class_id path, with that header.

    A file's name tells its split (train, val, test); one that does not is left out, or
    all training if none does.  Where no test product is in the training list
    (Stanford), its first image becomes its packshot.  `group` is super_class_id.
    """
    tables, unsaid = [], []
    for path in sorted(root.glob("*.txt")):
        with path.open(encoding="utf-8-sig") as file:
            if file.readline().split() != INDEX:
                continue
        found = lists.read(name, path, needs=INDEX, root=root, sep=" ")
        empty = found.table["class_id"].eq("") | found.table["path"].eq("")
        found.refuse({f"wants {' '.join(INDEX)}": empty})
        told = [split for split in ("train", "val", "test") if split in path.stem.lower()]
        if not told:
            unsaid.append(f"{path.name} left out")
        tables.append(found.table.assign(split=told[0] if told else ""))
    if not tables:
        raise FileNotFoundError(
            f"{name}: no index file (*.txt with the header {' '.join(INDEX)}) in {root}; "
            f"{SOURCES[name].place}"
        )
    table, notes = pd.concat(tables, ignore_index=True), []
    if table["split"].ne("").any():
        notes = unsaid
        table = table[table["split"] != ""].reset_index(drop=True)
    split = table["split"].replace({"": "train", "test": "query"})
    product, asked = table["class_id"], split == "query"
    if asked.any() and not product[asked].isin(product[~asked]).any():
        split[asked & ~product.where(asked).duplicated()] = "gallery"
        notes.append(
            "no product is in both lists: the first image of each test product is its packshot"
        )
    group = table["super_class_id"]
    columns = {"image": table["path"], "product": product, "split": split, "group": group}
    return Catalogue(pd.DataFrame(columns), root, name, notes=tuple(notes))
