"""Sets whose list files say what an image shows: manifests, Products-10K, and the index files that Stanford Online
Products and Retail-786k share.  Tables are checked column by column: a million rows take seconds.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from klip.data import crops
from klip.data.folders import SPLITS, frame, named
from klip.data.sources import SOURCES

INDEX = ["image_id", "class_id", "super_class_id", "path"]


def manifest(name: str, root: Path) -> pd.DataFrame:
    """A CSV or Parquet file (or a folder's manifest.csv or manifest.parquet): image, relative to it, product and, if
    wanted, split.  Parquet needs the package pyarrow, which klip does not install."""
    files = (root / "manifest.csv", root / "manifest.parquet")
    path = next((file for file in files if file.is_file()), files[0]) if root.is_dir() else root
    if not path.is_file():
        raise FileNotFoundError(
            f"{name}: {path} is missing; it has columns image, product[, split]"
        )
    table = _rows(name, path, path.parent, ("image", "product"), "train")
    again = table[table["image"].duplicated(keep=False)].groupby("image")["product"].nunique()
    if (again > 1).any():
        raise ValueError(
            f"{name}: {path} gives several products to one image: {named(again.index[again > 1])}"
        )
    twice = table.duplicated(["image", "split"])
    if twice.any():
        warnings.warn(
            f"{name}: {twice.sum()} duplicate rows of {path} left out: "
            f"{named(table.loc[twice, 'image'].unique())}",
            stacklevel=4,
        )
        table = table[~twice]
    return frame(path.parent, table)


def boxes(name: str, root: Path, path: Path) -> pd.DataFrame:
    """Crops (`crops.cut`) of the boxes of a CSV file: image, x1, y1, x2, y2, product[, split, else query]."""
    table = _rows(name, path, root, ("image", *crops.SIDES, "product"), "query")
    return frame(
        root, table.assign(image=crops.cut(name, root, path, table))[["image", "product", "split"]]
    )


def _rows(name: str, path: Path, root: Path, columns: Sequence[str], unsaid: str) -> pd.DataFrame:
    """A list with these columns and split (`unsaid` where it has none), or one sentence on its first wrong row."""
    table = text_table(name, path)
    if not set(columns) <= set(table.columns) or table.empty:
        raise ValueError(
            f"{name}: {path} wants columns {', '.join(columns)}[, split] and at least one row, got "
            f"columns {', '.join(table.columns)} and {len(table)} rows"
        )
    image = table["image"].str.strip().str.replace("\\", "/", regex=False)
    table = table.assign(image=image, split=table.get("split", ""))
    for column in table.columns.drop("image"):
        table[column] = each(table[column], str.strip)
    table["product"] = each(table["product"], lambda product: unicodedata.normalize("NFC", product))
    table["split"] = each(
        table["split"],
        lambda split: {"": unsaid, "test": "query"}.get(split.lower(), split.lower()),
    )
    outside = (
        image.eq("") | image.str.match("/|[A-Za-z]:") | image.str.contains(r"(?:^|/)\.\.(?:/|$)")
    )
    wrong = outside | table["product"].eq("") | ~table["split"].isin(SPLITS)
    for row in np.flatnonzero(wrong)[:1]:
        shown, product, split = table[["image", "product", "split"]].iloc[row]
        problem = (
            f"image {shown!r}, accepted are paths below {root}"
            if outside.iloc[row]
            else f"split {split!r}, accepted are {', '.join(SPLITS)}"
            if product
            else "no product"
        )
        raise ValueError(f"{name}: row {row + 1} of {path} has {problem}")
    return table


def products_10k(name: str, root: Path) -> pd.DataFrame:
    """Products-10K: train.csv (name, class[, group]) with train/, and test_kaggletest.csv with test/ as queries.

    Without a labelled test list there are training images only.  `group` is the set's own, where it has one.
    """
    train, test = root / "train.csv", root / "test_kaggletest.csv"
    if not train.is_file():
        raise FileNotFoundError(f"{name}: {train} is missing; {SOURCES[name].place}")
    tables = []
    for path, folder, split in ((train, "train/", "train"), (test, "test/", "query"))[
        : 1 + test.is_file()
    ]:
        table = text_table(name, path)
        if not {"name", "class"} <= set(table.columns):
            raise ValueError(
                f"{name}: {path} wants columns name, class[, group], got {', '.join(table.columns)}"
            )
        table = table.reindex(columns=["name", "class", "group"], fill_value="").apply(
            each, change=str.strip
        )
        for row in np.flatnonzero(table[["name", "class"]].eq("").any(axis=1))[:1]:
            raise ValueError(f"{name}: row {row + 1} of {path} lacks its name or class")
        tables.append(
            pd.DataFrame(
                {
                    "image": folder + table["name"],
                    "product": table["class"],
                    "split": split,
                    "group": table["group"],
                }
            )
        )
    table = pd.concat(tables, ignore_index=True)
    groups = (
        table[table["group"] != ""]
        .drop_duplicates("product")
        .set_index("product")["group"]
        .to_dict()
    )
    table["group"] = each(
        table["product"], lambda product: groups.get(product, "")
    )  # the test list may have none
    return frame(
        root,
        table if groups else table.drop(columns="group"),
        [] if test.is_file() else [f"{test.name} is missing: no queries"],
    )


def index_files(name: str, root: Path) -> pd.DataFrame:
    """Stanford Online Products and Retail-786k: text files of image_id class_id super_class_id path, with that header.

    A file's name tells its split (train, val, test); one that does not is left out, or all training if none does.
    Where no test product is in the training list (Stanford), its first image becomes its packshot.  `group` is
    super_class_id.
    """
    tables = {}
    for path in sorted(root.glob("*.txt")):
        with path.open(encoding="utf-8-sig") as file:
            if file.readline().split() != INDEX:
                continue
        split = next(
            (split for split in ("train", "val", "test") if split in path.stem.lower()), ""
        )
        try:
            table = pd.read_csv(
                path,
                sep=" ",
                dtype=str,
                skipinitialspace=True,
                keep_default_na=False,
                encoding="utf-8-sig",
            )
        except ValueError as error:
            raise ValueError(
                f"{name}: {path} wants rows of {' '.join(INDEX)} ({str(error).splitlines()[0]})"
            ) from None
        for row in np.flatnonzero(table[["class_id", "path"]].fillna("").eq("").any(axis=1))[:1]:
            raise ValueError(f"{name}: row {row + 1} of {path} wants {' '.join(INDEX)}")
        tables[path.name] = table.assign(split=split.replace("test", "query"))
    if not tables:
        raise FileNotFoundError(
            f"{name}: no index file (*.txt with the header {' '.join(INDEX)}) in {root}; "
            f"{SOURCES[name].place}"
        )
    table, notes = pd.concat(tables.values(), ignore_index=True), []
    if table["split"].ne("").any():
        notes = [f"{file} left out" for file, own in tables.items() if own["split"].eq("").any()]
        table = table[table["split"] != ""].reset_index(drop=True)
    split, product = table["split"].replace("", "train"), table["class_id"]
    asked = split == "query"
    if asked.any() and not product[asked].isin(product[~asked]).any():
        split[asked & ~product.where(asked).duplicated()] = "gallery"
        notes.append(
            "no product is in both lists: the first image of each test product is its packshot"
        )
    columns = {
        "image": table["path"],
        "product": product,
        "split": split,
        "group": table["super_class_id"],
    }
    return frame(root, pd.DataFrame(columns), notes)


def text_table(name: str, path: Path) -> pd.DataFrame:
    """Text columns of a CSV file in UTF-8 or a Parquet file, nothing missing; rows beyond the header are an error."""
    packed = path.suffix.lower() == ".parquet"
    try:
        with warnings.catch_warnings(
            action="error", category=pd.errors.ParserWarning
        ):  # of rows that are too long
            table = (
                pd.read_parquet(path)
                if packed
                else pd.read_csv(
                    path,
                    dtype=str,
                    keep_default_na=False,
                    skipinitialspace=True,
                    index_col=False,
                    encoding="utf-8-sig",
                )
            )
    except ImportError:
        raise ValueError(
            f"{name}: {path} needs a reader of Parquet files; run `pip install pyarrow`, or give a CSV "
            "file"
        ) from None
    except (
        ValueError,
        OSError,
        pd.errors.ParserWarning,
    ) as error:  # also a wrong encoding and an empty file
        kind = "Parquet file" if packed else "CSV file in UTF-8"
        raise ValueError(f"{name}: {path} is no {kind} ({str(error).splitlines()[0]})") from None
    table.columns = [str(column).strip() for column in table.columns]
    return table.astype(str).fillna("")


def each(column: pd.Series, change: Callable[[str], str]) -> pd.Series:
    """A text column with every different value changed once: quick where few values come often."""
    codes, values = pd.factorize(column)
    changed = pd.Series(list(map(change, values)), dtype=str)
    return pd.Series(changed.array.take(codes), index=column.index, name=column.name)
