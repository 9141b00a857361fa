"""Images packed into tar files as WebDataset does: KEY.jpg beside KEY.json, some thousand
images a file.

A few large files are quicker to store and send than a million small ones.  Balanced
draws need any image at any time, so manifest.csv names it by its place,
FILE.tar@OFFSET+SIZE (`images`): a packed set is loaded as any manifest.
"""

import io
import json
import tarfile
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from klip.data import images
from klip.data.catalogue import Catalogue
from klip.settings.files import atomic

COLUMNS = ["image", "product", "split", "group"]


def pack(
    catalogue: Catalogue,
    out: str | Path,
    *,
    per_shard: int = 1000,
    seed: int = 0,
    progress: bool = False,
) -> Path:
    """Write the images of a catalogue, bytes unchanged, as out/000000.tar ... and their
    manifest.csv; the folder.

    In a seeded random order, so that a reader from front to back meets all products.
    ValueError: a folder that holds something already, an image that cannot be read.
    """
    out = Path(out)
    if per_shard < 1:
        raise ValueError(f"shards: per_shard must be at least 1 image, got {per_shard!r}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"shards: {out} holds something already; name an empty folder")
    out.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(seed).permutation(len(catalogue))
    with tqdm(total=len(order), unit="img", desc="pack", disable=not progress) as bar:
        for number, start in enumerate(range(0, len(order), per_shard)):
            rows = catalogue.frame.iloc[order[start : start + per_shard]]
            write = partial(_write, rows=rows, root=catalogue.root, bar=bar)
            atomic(out / f"{number:06}.tar", write)
    index(out)
    return out


def index(folder: str | Path) -> Path:
    """Write the manifest.csv of a folder of tar files, by their headers; its path.

    An image's product stands in its .json ({"product": ..., "split": ...}) or is the
    text of its .cls or .txt.
    ValueError: no tar file, a torn one, an image without a product.
    """
    folder = Path(folder)
    rows = []
    for path in sorted(folder.glob("*.tar")):
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
        for key, place in places.items():
            rows.append({"image": place, "split": "train", **facts[key]})
    if not rows:
        raise ValueError(
            f"shards: {folder} must hold tar files of images, each with a .json that names its "
            "product; `klip data pack` writes such"
        )
    table = pd.DataFrame(rows).filter(COLUMNS).fillna("").astype(str)
    manifest = folder / "manifest.csv"
    atomic(manifest, lambda part: table.to_csv(part, index=False))
    return manifest


def _write(path: Path, *, rows: pd.DataFrame, root: Path, bar: tqdm) -> None:
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
