"""Images packed into tar files as WebDataset does: KEY.jpg beside KEY.json, some thousand
images a file.

A few large files are quicker to store and send than a million small ones.  Balanced
draws need any image at any time, so a catalogue names it by its place:
FILE.tar@OFFSET+SIZE (`images`), found by one look at the headers.
"""

import io
import json
import tarfile
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from tqdm import tqdm

from klip.data import images
from klip.settings.files import atomic

COLUMNS = ["image", "product", "split", "group"]
INDEX = "index.csv"
"""What `pack` writes beside the tar files: no header need be read again."""


def pack(
    catalogue: pd.DataFrame,
    out: str | Path,
    per_shard: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> Path:
    """Write the images of a catalogue, bytes unchanged, as out/000000.tar ... and an index;
    the folder.

    In a seeded random order, so that a reader from front to back meets all products.
    ValueError: a folder that holds something already, an image that cannot be read.
    """
    out, root = Path(out), catalogue.attrs["root"]
    if per_shard < 1:
        raise ValueError(f"shards: per_shard must be at least 1 image, got {per_shard!r}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"shards: {out} holds something already; name an empty folder")
    out.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(seed).permutation(len(catalogue))
    with tqdm(total=len(order), unit="img", desc="pack", disable=not progress) as bar:
        for number, start in enumerate(range(0, len(order), per_shard)):
            rows = catalogue.iloc[order[start : start + per_shard]]
            write = partial(_write, rows=rows, root=root, bar=bar)
            atomic(out / f"{number:06}.tar", write)
    found = _scan(out)
    atomic(out / INDEX, lambda part: found.to_csv(part, index=False))
    return out


def shards(name: str, root: Path) -> pd.DataFrame:
    """Catalogue of a folder of tar files, by its index or else by their headers.

    An image's product stands in its .json ({"product": ..., "split": ...}) or is the
    text of its .cls or .txt.
    """
    table = _indexed(root / INDEX) if (root / INDEX).is_file() else _scan(root)
    if table.empty:
        raise ValueError(
            f"{name}: {root} must hold tar files of images, each with a .json that names its "
            "product; `klip data pack` writes such"
        )
    table.attrs["root"] = str(root)
    return table


def _indexed(path: Path) -> pd.DataFrame:
    """What `_scan` found when the set was packed."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        if table.empty or table[COLUMNS[:3]].eq("").any(axis=None):
            raise ValueError("rows or values are missing")
        return table
    except (ValueError, KeyError) as error:  # empty, torn, other columns, not UTF-8
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"shards: {path} is no list of {', '.join(COLUMNS[:3])} ({reason}); delete it, then "
            "the tar files' own headers are read"
        ) from None


def _write(path: Path, rows: pd.DataFrame, root: str, bar: tqdm) -> None:
    with tarfile.open(path, "w") as tar:
        for key, row in rows.filter(COLUMNS).iterrows():
            suffix = PurePosixPath(row["image"].partition(".tar@")[0]).suffix.lower()
            if suffix not in images.IMAGES:  # it comes out of another shard
                suffix = ".jpg"
            content = images.content(Path(root, row["image"]))
            facts = json.dumps(row.drop("image").to_dict(), ensure_ascii=False).encode()
            for ending, text in ((suffix, content), (".json", facts)):
                member = tarfile.TarInfo(f"{key:09}{ending}")
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text))
            bar.update()


def _scan(root: Path) -> pd.DataFrame:
    """image, product, split and perhaps group of every image, by the tar files' headers."""
    rows = []
    for path in sorted(root.glob("*.tar")):
        try:
            places, facts = _members(path)
        except (tarfile.TarError, ValueError) as error:
            reason = str(error).splitlines()[0].rstrip(" (:")
            raise ValueError(
                f"shards: {path} is no whole tar file of images ({reason}); pack or fetch it again"
            ) from None
        nameless = [key for key in places if not facts.get(key, {}).get("product")]
        if nameless:
            raise ValueError(
                f"shards: {path} names no product for {nameless[0]} ({len(nameless)} of "
                f'{len(places)} images); a .json with "product", a .cls or a .txt does'
            )
        rows += [{"image": place, "split": "train", **facts[key]} for key, place in places.items()]
    return pd.DataFrame(rows).filter(COLUMNS).fillna("").astype(str)


def _members(path: Path) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """For every key of a tar file the place of its image, and what stands beside it."""
    places, facts = {}, {}
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            name = PurePosixPath(member.name)
            key, suffix = name.stem, name.suffix.lower()
            if suffix in images.IMAGES:
                places[key] = f"{path.name}@{member.offset_data}+{member.size}"
            elif suffix == ".json":
                facts[key] = json.load(tar.extractfile(member))
            elif suffix in (".cls", ".txt"):
                product = tar.extractfile(member).read().decode().strip()
                facts.setdefault(key, {"product": product})
    return places, facts
