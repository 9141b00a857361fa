"""Images packed into tar files as WebDataset does: KEY.jpg beside KEY.json, some thousand
images a file.

A few large files are quicker to store and send than a million small ones.  Balanced
draws need any image at any time, so manifest.csv names it by its place,
FILE.tar@OFFSET+SIZE (`images`): a packed set is loaded as any manifest.
"""

import io
import json
import posixpath
import re
import tarfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from klip.data import images, words
from klip.data.catalogue import Catalogue
from klip.data.scan import NO_IMAGE, hidden, told
from klip.data.words import named, natural
from klip.settings.files import atomic, whole_folder

COLUMNS = ["image", "product", "split", "group"]
PACKED = re.compile(r"\.(tgz|tbz2?|txz|tar\.(gz|bz2|xz|zst))$")
BESIDE = (".json", ".cls", ".txt")
"""What stands beside an image; the first of these tells its product."""
MOST_TEXT = 2**20
"""Bytes that a .json, .cls or .txt may have."""


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
    order = np.random.default_rng(seed).permutation(len(catalogue))
    bar = tqdm(total=len(order), unit="img", desc="pack", disable=not progress)
    with whole_folder(out) as folder, bar:
        for number, start in enumerate(range(0, len(order), per_shard)):
            rows = catalogue.frame.iloc[order[start : start + per_shard]]
            _write(folder / f"{number:06}.tar", rows=rows, root=catalogue.root, bar=bar)
        index(folder)
    return out


def index(folder: str | Path) -> Path:
    """Write the manifest.csv of a folder of tar files, by their headers; its path.

    A key is what WebDataset takes for it: the path of a member up to the first dot of its
    name.  An image's product stands in its .json ({"product": ..., "split": ...}) or is the
    text of its .cls or .txt.  Rows are in the order of the packed catalogue, or of the tar
    files.  A warning counts and names members that are left out.
    ValueError: no tar file, a torn one, two images of one key, an image without a product.
    """
    folder, rows, left_out = Path(folder), [], {}
    packed = [path.name for path in folder.glob("*.t*") if PACKED.search(path.name.lower())]
    if packed:
        raise ValueError(
            f"shards: {folder} holds compressed tar files ({named(packed)}), in which no image has "
            "a place; uncompress them"
        )
    for path in sorted(folder.glob("*.tar"), key=lambda path: natural(path.name)):
        try:
            members = _members(path)
        except (tarfile.TarError, EOFError, OSError) as error:
            reason = str(error).splitlines()[0].rstrip(" (:")
            raise ValueError(
                f"shards: {path} is no whole tar file of images ({reason}); pack or fetch it again"
            ) from None
        rows += _rows(path, members)
        left_out |= {f"{path.name}/{name}": why for name, why in members.left_out.items()}
    if not rows:
        raise ValueError(
            f"shards: {folder} must hold tar files of images, each with a .json that names its "
            "product; `klip data pack` writes such"
        )
    shown = {path: why for path, why in left_out.items() if why != "hidden"}
    if shown:
        warnings.warn(f"shards: {'; '.join(told(shown))}", stacklevel=2)
    if all("place" in row for row in rows):  # `pack` shuffles them
        rows.sort(key=lambda row: row["place"])
    table = pd.DataFrame(rows).filter(COLUMNS).fillna("").astype(str)
    manifest = folder / "manifest.csv"
    atomic(manifest, lambda part: table.to_csv(part, index=False, encoding="utf-8"))
    return manifest


@dataclass
class Members:
    """Of a tar file.  images: key -> its members.  facts: key -> what stands beside it.
    left_out: member -> why."""

    images: dict[str, list[tarfile.TarInfo]] = field(default_factory=dict)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def _rows(path: Path, members: Members) -> list[dict[str, Any]]:
    """Of each image of a tar file its place and what is said of it."""
    said = {key: members.facts.get(key, {}).get("product") for key in members.images}
    nameless = [key for key, product in said.items() if product in (None, "")]
    if nameless:
        raise ValueError(
            f"shards: {path} names no product for {nameless[0]} ({len(nameless)} of "
            f'{len(members.images)} images); a .json with "product", a .cls or a .txt does'
        )
    rows = []
    for key, (image, *others) in members.images.items():
        if others:
            raise ValueError(
                f"shards: {path} has {len(others) + 1} images of one key, {image.name} and "
                f"{others[0].name}; each image wants a key of its own"
            )
        facts = members.facts[key]
        split = words.split(str(facts.get("split") or "train"))
        if not split:
            raise ValueError(
                f"shards: {path} says split {facts['split']!r} of {key}, accepted are "
                f"{', '.join(words.SPLITS)} and other words for them"
            )
        place = f"{path.name}@{image.offset_data}+{image.size}"
        row = {"image": place, "product": words.name(facts["product"]), "split": split}
        rows.append(row | {name: facts[name] for name in ("group", "place") if name in facts})
    return rows


def _write(path: Path, *, rows: pd.DataFrame, root: Path, bar: tqdm) -> None:
    with tarfile.open(path, "w") as tar:
        for key, row in rows.filter(COLUMNS).iterrows():
            suffix = PurePosixPath(row["image"].partition(".tar@")[0]).suffix.lower()
            if suffix not in images.IMAGES:  # it comes out of another shard
                suffix = ".jpg"
            content = images.content(Path(root, row["image"]))
            said = row.drop("image").to_dict() | {"place": int(key)}
            facts = json.dumps(said, ensure_ascii=False).encode()
            for ending, text in ((suffix, content), (".json", facts)):
                member = tarfile.TarInfo(f"{key:09}{ending}")
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text))
            bar.update()


def _members(path: Path) -> Members:
    """What a tar file holds; nothing is unpacked."""
    found, texts, read = Members(), dict[str, dict[str, str]](), dict[str, bytes]()
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            name = posixpath.normpath(member.name)
            folder, last = posixpath.split(name)
            key = posixpath.join(folder, last.partition(".")[0])
            suffix = PurePosixPath(last).suffix.lower()
            if member.isdir():
                continue
            if any(hidden(part) for part in name.split("/")):
                found.left_out[name] = "hidden"
            elif not member.isfile() or member.issparse():
                found.left_out[name] = "a link, a device or a sparse file"
            elif suffix in images.IMAGES:
                found.images.setdefault(key, []).append(member)
            elif suffix not in BESIDE:
                found.left_out[name] = NO_IMAGE
            elif member.size > MOST_TEXT:
                raise ValueError(f"shards: {path}: {name} has {member.size} bytes of text")
            elif name in texts.setdefault(key, {}).values():
                raise ValueError(f"shards: {path} has {name} twice; a key is there once")
            else:
                texts[key][suffix] = name
                read[name] = tar.extractfile(member).read()
    for key, own in texts.items():
        name = own[min(own, key=BESIDE.index)]
        found.facts[key] = _facts(read[name], where=f"{path}: {name}")
        if key not in found.images:
            found.left_out |= dict.fromkeys(own.values(), "no image beside it")
    return found


def _facts(text: bytes, *, where: str) -> dict[str, Any]:
    """What a member says of the image of its key."""
    try:
        said = text.decode("utf-8-sig").strip()
        facts = json.loads(said) if where.lower().endswith(".json") else {"product": said}
    except ValueError as error:
        raise ValueError(f"shards: {where} cannot be read ({error})") from None
    if not isinstance(facts, dict):
        raise ValueError(f'shards: {where} must be {{"product": ...}}, got {said[:40]}')
    return facts
