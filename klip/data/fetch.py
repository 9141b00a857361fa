"""Which sets are at hand, and the one that klip may fetch: GroceryStoreDataset (MIT).

GitHub's archives are not byte-stable, so what is checked is the `fingerprint` of the
files that klip reads.  A set appears in its place whole and checked, or not at all.
"""

import hashlib
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.error import URLError
from urllib.request import urlopen

from tqdm.auto import tqdm

from klip.data.loading import load_catalogue
from klip.data.sources import SOURCES
from klip.settings import paths

COMMIT = "fc80ba90f803d79d0383df52c5a4ac5de99ff6fc"
URL = f"https://github.com/marcusklasson/GroceryStoreDataset/archive/{COMMIT}.zip"
CONTENT = "be4d0e27fdbf8a6e04f0d7ca230abc6f9b9caee1a2f16ef44a75aab2c5627a43"
"""Fingerprint of the lists and the 5,502 images they name."""
MOST_BYTES, MOST_FILES = 2**30, 20_000
"""What the archive, packed or not, may have: several times what it has."""


def fingerprint(folder: str | Path, files: Iterable[str]) -> str:
    """SHA-256 (hex) over sorted relative paths and SHA-256s of files in a folder."""
    total = hashlib.sha256()
    for name in sorted(set(files)):
        with Path(folder, name).open("rb") as file:
            total.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def at_hand(names: Sequence[str], root: str | Path = "") -> tuple[list[str], str]:
    """Those of `names`, as `load_catalogue` takes them, that are in their place, and one line on
    the others, or "".

    GroceryStore is downloaded where the network allows; rendered sets are always at
    hand.  root: the folder of all sets, else `paths.data_root()`.  FileNotFoundError:
    nothing is at hand.
    """
    folder = Path(root).expanduser() if root else paths.data_root()
    lost: dict[str, str] = {}
    for name in dict.fromkeys(full.partition(":")[0] for full in names):
        if name not in SOURCES or _filled(folder / name):
            continue
        try:
            fetch(name, folder / name, timeout=10)
        except FileNotFoundError:
            lost[name] = "cannot be downloaded" if name == "grocery-store" else "not at hand"
    found = [full for full in names if full.partition(":")[0] not in lost]
    line = "; ".join(f"{name} ({reason})" for name, reason in lost.items())
    if not found:
        raise FileNotFoundError(
            f"evaluation sets: none is in {folder}: {line}; `klip data list` says where they come "
            "from, or name others with --set eval_sets=..."
        )
    return found, f"left out: {line}; `klip data list` says where it comes from" if lost else ""


def fetch(name: str, root: str | Path = "", *, timeout: float = 60) -> Path:
    """The folder of a set, downloaded if it is not there yet (about 120 MB; a progress bar
    on stderr).

    root: the set's own folder, else `paths.data_root()`/name.  Sets that klip may not
    download, a missing network, a folder or an archive with other content: one sentence
    that says what to put where.
    """
    if name not in SOURCES:
        raise ValueError(f"fetch: no set is called {name!r}; there are {', '.join(SOURCES)}")
    target = Path(root).expanduser() if root else paths.data_root() / name
    hint = f"{SOURCES[name].place} (the folder is {target})"
    if _filled(target):
        if name == "grocery-store":
            _verify(target, what=str(target), remedy="move it away and fetch again")
        return target
    if name != "grocery-store":
        raise FileNotFoundError(f"fetch: {name} has to be got by hand: {hint}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as work:
        try:
            found = _unpacked(Path(work), timeout)
        except (OSError, HTTPException, zipfile.BadZipFile, zlib.error) as error:
            reason = error.reason if isinstance(error, URLError) else error
            raise FileNotFoundError(
                f"fetch: {name} cannot be downloaded from {URL} ({reason}); check the network, "
                f"or {hint}"
            ) from None
        _verify(found, what=f"what came from {URL}", remedy="nothing was kept; try again later")
        if target.is_dir():  # empty, see above: Windows cannot rename over it
            target.rmdir()
        os.replace(found, target)
    return target


def _filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _unpacked(work: Path, timeout: float) -> Path:
    """The folder dataset/ of the archive, downloaded and unpacked; timeout in seconds."""
    archive = work / "archive.zip"
    with urlopen(URL, timeout=timeout) as response, archive.open("wb") as file:
        # GitHub tells no length, so the bar only counts.
        with tqdm.wrapattr(file, "write", desc="download") as bar:
            while part := response.read(2**20):
                bar.write(part)
                if file.tell() > MOST_BYTES:
                    raise zipfile.BadZipFile(f"it is longer than {MOST_BYTES // 2**30} GB")
    with zipfile.ZipFile(archive) as packed:
        members = packed.infolist()
        _refuse(members)
        names = [member.filename for member in members]
        wanted = [name for name in names if name.partition("/")[2].startswith("dataset/")]
        packed.extractall(work, wanted)
    if not wanted:
        raise zipfile.BadZipFile("it has no folder */dataset/")
    return work / wanted[0].partition("/")[0] / "dataset"


def _refuse(members: Sequence[zipfile.ZipInfo]) -> None:
    """BadZipFile: an archive that leads out of its folder, or unpacks to too much."""
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            raise zipfile.BadZipFile(f"its member {member.filename} leads out of the folder")
    size = sum(member.file_size for member in members)
    if size > MOST_BYTES or len(members) > MOST_FILES:
        raise zipfile.BadZipFile(
            f"it unpacks to {size / 2**30:.1f} GB in {len(members)} files, more than the set has"
        )


def _verify(folder: Path, *, what: str, remedy: str) -> None:
    """Raise unless the lists and images below a folder are those of the pinned commit."""
    catalogue = load_catalogue("grocery-store", folder)
    lists = ["classes.csv", "train.txt", "val.txt", "test.txt"]
    found = fingerprint(catalogue.root, [*lists, *catalogue["image"]])
    if found != CONTENT:
        raise ValueError(
            f"fetch: {what} is not GroceryStoreDataset {COMMIT[:7]}: fingerprint {found[:16]}, "
            f"wanted {CONTENT[:16]}; {remedy}"
        )
