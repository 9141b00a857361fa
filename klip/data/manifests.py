"""Sets whose list files say what an image shows: manifests, the boxes of CAPG-GP,
Products-10K, and the index files that Stanford Online Products and Retail-786k share.

Tables are checked column by column: a million rows take seconds.
"""

import unicodedata
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from klip.data import crops
from klip.data.catalogue import Catalogue
from klip.data.folders import SPLITS, folders, inner
from klip.data.sources import SOURCES
from klip.data.words import named

INDEX = ["image_id", "class_id", "super_class_id", "path"]
TEXT = dict(dtype=str, keep_default_na=False, skipinitialspace=True, encoding="utf-8-sig")
"""How text is read: as it stands, nothing of it a number or missing."""


def manifest(name: str, root: Path) -> Catalogue:
    """A CSV or Parquet file (or a folder's manifest.csv or manifest.parquet): image,
    relative to it, product and, if wanted, split.  Parquet needs the package pyarrow,
    which klip does not install."""
    files = [root / "manifest.csv", root / "manifest.parquet"] if root.is_dir() else [root]
    path = next(filter(Path.is_file, files), files[0])
    if not path.is_file():
        raise FileNotFoundError(
            f"{name}: {path} is missing; it has columns image, product[, split]"
        )
    table = _rows(name, path, path.parent, ("image", "product"), "train")
    again = table[table["image"].duplicated(keep=False)].groupby("image")["product"].nunique()
    several = again.index[again > 1]
    if len(several):
        raise ValueError(f"{name}: {path} gives several products to one image: {named(several)}")
    twice = table.duplicated(["image", "split"])
    if twice.any():
        images = named(table.loc[twice, "image"].unique())
        warnings.warn(
            f"{name}: {twice.sum()} duplicate rows of {path} left out: {images}", stacklevel=4
        )
        table = table[~twice]
    return Catalogue(table, path.parent, name)


def capg_gp(name: str, root: Path, *, boxes: str = "") -> Catalogue:
    """CAPG-GP: train/<product>/ and test/<product>/, the crops (`crops.cut`) of a CSV
    file of boxes (image, x1, y1, x2, y2, product[, split, else query]), or both."""
    path = root / (boxes or "boxes.csv")
    if boxes and not path.is_file():
        raise FileNotFoundError(f"{name}: {path} is missing; {SOURCES[name].place}")
    if not path.is_file():
        return folders(name, root)
    table = _rows(name, path, root, ("image", *crops.SIDES, "product"), "query")
    table["image"] = crops.cut(name, root, path, table)
    cut = table[["image", "product", "split"]]
    tops = [folder for folder in inner(root) if folder.name.lower() in SPLITS]
    if not tops:
        return Catalogue(cut, root, name)
    packshots = folders(name, root, tops=tops)
    return packshots.of(pd.concat([packshots.frame, cut]))


def _rows(name: str, path: Path, root: Path, columns: Sequence[str], unsaid: str) -> pd.DataFrame:
    """A list with these columns and split (else `unsaid`), or what its first wrong row is."""
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
    split = each(table["split"], str.lower)
    table["split"] = split.replace({"": unsaid, "test": "query"})
    rooted = image.str.match("/|[A-Za-z]:")
    outside = image.eq("") | rooted | image.str.contains(r"(?:^|/)\.\.(?:/|$)")
    unknown = ~table["split"].isin([*SPLITS, "index"])
    wrong = outside | table["product"].eq("") | unknown
    if not wrong.any():
        return table
    row = int(wrong.to_numpy().argmax())
    shown, product, split = table[["image", "product", "split"]].iloc[row]
    if outside.iloc[row]:
        problem = f"image {shown!r}, accepted are paths below {root}"
    elif not product:
        problem = "no product"
    else:
        problem = f"split {split!r}, accepted are {', '.join(SPLITS)}"
    raise ValueError(f"{name}: row {row + 1} of {path} has {problem}")


def products_10k(name: str, root: Path) -> Catalogue:
    """Products-10K: train.csv (name, class[, group]) with train/, and test_kaggletest.csv
    with test/ as queries.

    Without a labelled test list there are training images only.  `group` is the set's
    own, where it has one.
    """
    train, test = root / "train.csv", root / "test_kaggletest.csv"
    if not train.is_file():
        raise FileNotFoundError(f"{name}: {train} is missing; {SOURCES[name].place}")
    table, notes = _classes(name, train, "train/", "train"), ()
    if test.is_file():
        asked = _classes(name, test, "test/", "query")
        table = pd.concat([table, asked], ignore_index=True)
    else:
        notes = (f"{test.name} is missing: no queries",)
    # The test list may have no groups: a product's is that of its first row with one.
    first = table[table["group"] != ""].drop_duplicates("product").set_index("product")
    if first.empty:
        table = table.drop(columns="group")
    else:
        table["group"] = table["product"].map(first["group"]).fillna("")
    return Catalogue(table, root, name, notes=notes)


def _classes(name: str, path: Path, folder: str, split: str) -> pd.DataFrame:
    """One list of Products-10K: image, product, split, group."""
    table = text_table(name, path)
    if not {"name", "class"} <= set(table.columns):
        raise ValueError(
            f"{name}: {path} wants columns name, class[, group], got {', '.join(table.columns)}"
        )
    table = table.reindex(columns=["name", "class", "group"], fill_value="")
    file, product, group = (each(table[column], str.strip) for column in table)
    empty = file.eq("") | product.eq("")
    if empty.any():
        row = int(empty.to_numpy().argmax())
        raise ValueError(f"{name}: row {row + 1} of {path} lacks its name or class")
    columns = {"image": folder + file, "product": product, "split": split, "group": group}
    return pd.DataFrame(columns)


def index_files(name: str, root: Path) -> Catalogue:
    """Stanford Online Products and Retail-786k: text files of image_id class_id
    super_class_id path, with that header.

    A file's name tells its split (train, val, test); one that does not is left out, or
    all training if none does.  Where no test product is in the training list
    (Stanford), its first image becomes its packshot.  `group` is super_class_id.
    """
    tables, unsaid = [], []
    for path in sorted(root.glob("*.txt")):
        table = _index(name, path)
        if table is not None:
            tables.append(table)
            if table["split"].eq("").any():
                unsaid.append(f"{path.name} left out")
    if not tables:
        raise FileNotFoundError(
            f"{name}: no index file (*.txt with the header {' '.join(INDEX)}) in {root}; "
            f"{SOURCES[name].place}"
        )
    table, notes = pd.concat(tables, ignore_index=True), []
    if table["split"].ne("").any():
        notes = unsaid
        table = table[table["split"] != ""].reset_index(drop=True)
    split, product = table["split"].replace("", "train"), table["class_id"]
    asked = split == "query"
    if asked.any() and not product[asked].isin(product[~asked]).any():
        split[asked & ~product.where(asked).duplicated()] = "gallery"
        notes.append(
            "no product is in both lists: the first image of each test product is its packshot"
        )
    group = table["super_class_id"]
    columns = {"image": table["path"], "product": product, "split": split, "group": group}
    return Catalogue(pd.DataFrame(columns), root, name, notes=tuple(notes))


def _index(name: str, path: Path) -> pd.DataFrame | None:
    """Rows of an index file, with the split that its name tells, or ""; None: another file."""
    with path.open(encoding="utf-8-sig") as file:
        if file.readline().split() != INDEX:
            return None
    try:
        table = pd.read_csv(path, sep=" ", **TEXT)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{name}: {path} wants rows of {' '.join(INDEX)} ({reason})") from None
    short = table[["class_id", "path"]].fillna("").eq("").any(axis=1)
    if short.any():
        row = int(short.to_numpy().argmax())
        raise ValueError(f"{name}: row {row + 1} of {path} wants {' '.join(INDEX)}")
    told = [split for split in ("train", "val", "test") if split in path.stem.lower()]
    return table.assign(split=told[0].replace("test", "query") if told else "")


def text_table(name: str, path: Path) -> pd.DataFrame:
    """Text columns of a CSV (UTF-8) or Parquet file, nothing missing; no row is too long."""
    packed = path.suffix.lower() == ".parquet"
    try:
        # The parser warns of rows that are too long.
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            table = pd.read_parquet(path) if packed else pd.read_csv(path, index_col=False, **TEXT)
    except ImportError:
        raise ValueError(
            f"{name}: {path} needs a reader of Parquet files; run `pip install pyarrow`, or give "
            "a CSV file"
        ) from None
    except (ValueError, OSError, pd.errors.ParserWarning) as error:
        # also a wrong encoding and an empty file
        kind = "Parquet file" if packed else "CSV file in UTF-8"
        raise ValueError(f"{name}: {path} is no {kind} ({str(error).splitlines()[0]})") from None
    table.columns = [str(column).strip() for column in table.columns]
    return table.astype(str).fillna("")


def each(column: pd.Series, change: Callable[[str], str]) -> pd.Series:
    """A text column, every different value changed once: quick where few come often."""
    codes, values = pd.factorize(column)
    changed = pd.Series(list(map(change, values)), dtype=str)
    return pd.Series(changed.array.take(codes), index=column.index, name=column.name)
