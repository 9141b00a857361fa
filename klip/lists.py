"""Sets whose list files say what an image shows: manifests, Products-10K, and the index files that Stanford Online
Products and Retail-786k share.  Tables are checked column by column: a million rows take seconds.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from klip import crops
from klip.layouts import SPLITS, frame, named
from klip.sources import SOURCES

INDEX = ["image_id", "class_id", "super_class_id", "path"]


def manifest(name: str, root: Path) -> pd.DataFrame:
    """A CSV or Parquet file (or a folder's manifest.csv or manifest.parquet): image, relative to it, product and, if
    wanted, split.  Parquet needs the package pyarrow, which klip does not install."""
    path = root
    if root.is_dir():
        path = next((root / file for file in ("manifest.csv", "manifest.parquet") if (root / file).is_file()),
                    root / "manifest.csv")
    if not path.is_file():
        raise FileNotFoundError(f"manifest: {path} is missing; it has columns image, product[, split]")
    table = parquet(name, path) if path.suffix.lower() == ".parquet" else csv(name, path)
    if not {"image", "product"} <= set(table.columns) or table.empty:
        raise ValueError(f"manifest: {path} wants columns image, product[, split] and at least one row, got "
                         f"columns {', '.join(table.columns)} and {len(table)} rows")
    table["image"] = table["image"].str.strip().str.replace("\\", "/", regex=False)
    for column in table.columns.drop("image"):
        table[column] = each(table[column], str.strip)
    table["product"] = each(table["product"], lambda product: unicodedata.normalize("NFC", product))
    split = table["split"] if "split" in table else pd.Series("", index=table.index)
    table["split"] = each(split, lambda split: {"": "train", "test": "query"}.get(split.lower(), split.lower()))
    _check(path, table)
    twice = table.duplicated(["image", "split"])
    if twice.any():
        warnings.warn(f"manifest: {twice.sum()} duplicate rows of {path} left out: "
                      f"{named(table.loc[twice, 'image'].unique())}", stacklevel=4)
        table = table[~twice]
    table.attrs.update(root=str(path.parent), empty=[])
    return table


def _check(path: Path, table: pd.DataFrame) -> None:
    """One sentence on the first row that is wrong, or on images with several products."""
    image = table["image"]
    outside = image.eq("") | image.str.startswith("/") | image.str.match("[A-Za-z]:")
    outside |= image.str.contains(r"(?:^|/)\.\.(?:/|$)")
    nameless, strange = table["product"].eq(""), ~table["split"].isin(SPLITS)
    wrong = np.flatnonzero(outside | nameless | strange)
    if len(wrong):
        row = table.iloc[wrong[0]]
        problem = (f"image {row['image']!r}, accepted are paths below {path.parent}" if outside.iloc[wrong[0]] else
                   "no product" if nameless.iloc[wrong[0]] else
                   f"split {row['split']!r}, accepted are {', '.join(SPLITS)}")
        raise ValueError(f"manifest: row {wrong[0] + 1} of {path} has {problem}")
    again = table.loc[image.duplicated(keep=False), ["image", "product"]]
    owners = again.groupby("image")["product"].nunique()
    if (owners > 1).any():
        raise ValueError(f"manifest: {path} gives several products to one image: {named(owners.index[owners > 1])}")


def products_10k(name: str, root: Path) -> pd.DataFrame:
    """Products-10K: train.csv (name, class[, group]) with train/, and test_kaggletest.csv with test/ as queries.

    Without a labelled test list there are training images only.  `group` is the set's own, where it has one.
    """
    lists = [("train", root / "train.csv"), ("query", root / "test_kaggletest.csv")]
    if not lists[0][1].is_file():
        raise FileNotFoundError(f"{name}: {lists[0][1]} is missing; {SOURCES[name].place}")
    tables = []
    for split, path in lists:
        if not path.is_file():
            continue
        table = csv(name, path)
        if not {"name", "class"} <= set(table.columns):
            raise ValueError(f"{name}: {path} wants columns name, class[, group], got {', '.join(table.columns)}")
        lacking = np.flatnonzero(table["name"].str.strip().eq("") | table["class"].str.strip().eq(""))
        if len(lacking):
            raise ValueError(f"{name}: row {lacking[0] + 1} of {path} lacks its name or class")
        folder = "train/" if split == "train" else "test/"
        tables.append(pd.DataFrame({"image": folder + table["name"].str.strip(),
                                    "product": each(table["class"], str.strip), "split": split,
                                    "group": each(table["group"], str.strip) if "group" in table else ""}))
    table = pd.concat(tables, ignore_index=True)
    known = table[table["group"] != ""].drop_duplicates("product")
    groups = dict(zip(known["product"], known["group"], strict=True))
    table["group"] = each(table["product"], lambda product: groups.get(product, ""))  # the test list may have none
    if table["group"].eq("").all():
        del table["group"]
    table.attrs.update(root=str(root), empty=[], notes=[] if len(tables) == 2 else [
        f"{lists[1][1].name} is missing: no queries"])
    return table


def index_files(name: str, root: Path) -> pd.DataFrame:
    """Stanford Online Products and Retail-786k: text files of image_id class_id super_class_id path, with that header.

    The split is told by the file's name (train, val, test), a file named like none of them is left out if others are
    there, and else all training.  Where no product of the test list is in the training list (Stanford), nothing could
    be its packshot: then the first image of each test product is.  `group` is super_class_id.
    """
    tables = {}
    for path in sorted(root.glob("*.txt")):
        with path.open(encoding="utf-8-sig") as file:
            if file.readline().split() != INDEX:
                continue
        split = next((split for split in ("train", "val", "test") if split in path.stem.lower()), "")
        try:
            table = pd.read_csv(path, sep=" ", dtype=str, skipinitialspace=True, keep_default_na=False,
                                encoding="utf-8-sig")
        except ValueError as error:
            raise ValueError(f"{name}: {path} wants rows of {' '.join(INDEX)} ({str(error).splitlines()[0]})") from None
        lacking = np.flatnonzero((table[["class_id", "path"]].fillna("") == "").any(axis=1))
        if len(lacking):
            raise ValueError(f"{name}: row {lacking[0] + 1} of {path} wants {' '.join(INDEX)}")
        tables[path.name] = table.assign(split=split.replace("test", "query"))
    if not tables:
        raise FileNotFoundError(f"{name}: no index file (*.txt with the header {' '.join(INDEX)}) in {root}; "
                                f"{SOURCES[name].place}")
    notes = []
    if any(table["split"].iat[0] for table in tables.values() if len(table)):
        notes = [f"{file} left out" for file, table in tables.items() if len(table) and not table["split"].iat[0]]
        tables = {file: table for file, table in tables.items() if len(table) and table["split"].iat[0]}
    table = pd.concat(tables.values(), ignore_index=True)
    split, product = table["split"].replace("", "train"), table["class_id"]
    asked = split == "query"
    if asked.any() and not product[asked].isin(product[~asked]).any():
        split[asked & ~product.where(asked).duplicated()] = "gallery"
        notes.append("no product is in both lists: the first image of each test product is its packshot")
    rows = pd.DataFrame({"image": table["path"], "product": product, "split": split, "group": table["super_class_id"]})
    rows.attrs.update(root=str(root), empty=[], notes=notes)
    return rows


def boxes(name: str, root: Path, path: Path) -> pd.DataFrame:
    """Crops of the boxes of a CSV file (image, x1, y1, x2, y2, product[, split]; a box without split is a query).

    They are cut out once and kept in klip's cache, so that `image` is an absolute path.
    """
    table = csv(name, path)
    missing = {"image", "product", *crops.SIDES} - set(table.columns)
    if missing or table.empty:
        raise ValueError(f"{name}: {path} wants columns image, x1, y1, x2, y2, product[, split] and at least one row, "
                         f"got columns {', '.join(table.columns)} and {len(table)} rows")
    for column in table.columns:
        table[column] = each(table[column], str.strip)
    table["image"] = table["image"].str.replace("\\", "/", regex=False)
    given = table["split"] if "split" in table else pd.Series("", index=table.index)
    table["split"] = each(given, lambda split: {"": "query", "test": "query"}.get(split.lower(), split.lower()))
    for row, product, split in zip(range(1, len(table) + 1), table["product"], table["split"], strict=True):
        if not product or split not in SPLITS:
            raise ValueError(f"{name}: row {row} of {path} has " + (
                f"split {split!r}, accepted are {', '.join(SPLITS)}" if product else "no product"))
    table["product"] = each(table["product"], lambda product: unicodedata.normalize("NFC", product))
    files = crops.cut(name, root, path, table)
    return frame(root, list(zip(files, table["product"], table["split"], strict=True)))


def csv(name: str, path: Path) -> pd.DataFrame:
    """A CSV file in UTF-8, every column text, nothing missing; rows longer than the header are an error."""
    try:
        with warnings.catch_warnings(action="error"):  # rows longer than the header only warn
            table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True,
                                index_col=False, encoding="utf-8-sig")
    except (ValueError, pd.errors.ParserWarning) as error:  # also a wrong encoding and an empty file
        raise ValueError(f"{name}: {path} is no CSV file in UTF-8 ({str(error).splitlines()[0]})") from None
    table.columns = [str(column).strip() for column in table.columns]
    return table.fillna("")


def parquet(name: str, path: Path) -> pd.DataFrame:
    """A Parquet file, every column as text, nothing missing."""
    try:
        table = pd.read_parquet(path)
    except ImportError:
        raise ValueError(f"{name}: {path} needs a reader of Parquet files; run `pip install pyarrow`, or give a CSV "
                         "file") from None
    except (ValueError, OSError) as error:  # pyarrow's errors are both
        raise ValueError(f"{name}: {path} is no Parquet file ({str(error).splitlines()[0]})") from None
    table = table.astype(object).where(table.notna(), "").astype(str)
    table.columns = [str(column).strip() for column in table.columns]
    return table


def each(column: pd.Series, change: Callable[[str], str]) -> pd.Series:
    """A text column with every different value changed once: quick where few values come often."""
    codes, values = pd.factorize(column)
    changed = pd.Series(list(map(change, values)), dtype=str)
    return pd.Series(changed.array.take(codes), index=column.index, name=column.name)
