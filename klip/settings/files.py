"""Files and folders that are whole or absent, whatever interrupts their writing, and hashes
of code."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

FULL = (errno.ENOSPC, errno.EDQUOT)
DEVICES = re.compile("/(dev|proc)/")
LITTLE = 2**20
"""Bytes free on a disk under which whatever failed to write is taken to have filled it."""
OLD = 24 * 3600
"""Seconds after which what a killed process began to write is swept away."""


def atomic(path: Path, write_to: Callable[[Path], object]) -> None:
    """Write a file that is either whole or absent, with the folders that it needs.

    Where it leads is written, not a link to it; a pipe or device gets the bytes; a file
    that was there keeps its mode.  OSError: one sentence.
    """
    path, given = Path(os.path.realpath(path)), Path(path)
    with sentence(path):
        # /dev/stdout may lead to a file, which others have open
        if given.exists() and not (given.is_file() or given.is_dir()) or DEVICES.match(str(given)):
            path = given
            with tempfile.TemporaryDirectory() as work:
                write_to(Path(work, path.name))
                with Path(work, path.name).open("rb") as made, path.open("wb") as out:
                    shutil.copyfileobj(made, out)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path, "part")
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.touch()  # its mode is what the umask says; libraries that write have their own
            mode = (path if path.exists() else part).stat().st_mode
            write_to(part)
            part.chmod(mode & 0o7777)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `path` when the block has ended.

    What was there before is replaced; after an error it is as it was.  OSError: one sentence.
    """
    path = Path(os.path.realpath(path))
    with sentence(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path, "partial")
        named = {"dir": path.parent, "prefix": f".{path.name}.", "suffix": ".partial"}
        fresh, gone = Path(tempfile.mkdtemp(**named)), Path(tempfile.mkdtemp(**named))
        try:
            (fresh / "whole").mkdir()  # a mode as the umask says
            yield fresh / "whole"
            if path.exists():  # moved away first, for a full folder cannot be replaced
                os.replace(path, gone / "old")
            os.replace(fresh / "whole", path)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
            if not path.exists() and (gone / "old").exists():
                os.replace(gone / "old", path)
            shutil.rmtree(gone, ignore_errors=True)


def sweep(path: Path, suffix: str) -> None:
    """Delete what processes that were killed left beside a file or folder."""
    for left in path.parent.glob(f".{path.name}.*.{suffix}"):
        try:
            if time.time() - left.stat().st_mtime > OLD:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        except OSError:  # another process was quicker
            continue


@contextmanager
def sentence(path: Path) -> Iterator[None]:
    """Say in one sentence why something could not be written, and what helps."""
    try:
        yield
    except (FileNotFoundError, FileExistsError):
        raise
    except (OSError, RuntimeError, ValueError) as error:  # libraries wrap what the disk said
        number = getattr(error, "errno", None)
        if number in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise OSError(
                f"cannot write {path}: {error.strerror.lower()}; change the rights of "
                f"{path.parent}, or choose another place"
            ) from None
        folder = next(one for one in (path, *path.parents) if one.is_dir())
        free = shutil.disk_usage(folder).free
        if number in FULL or "No space left" in str(error) or free < LITTLE:
            raise OSError(
                f"cannot write {path}: the disk is full ({free / 1e6:.1f} MB are free); free some, "
                "or choose another place, and run the same again"
            ) from None
        raise


def of_code(sources: Iterable[Path], facts: Any) -> hashlib._Hash:
    """A SHA-256 of some facts (JSON) and of files of code, to go on with or to be read."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest


def write_json(path: Path, facts: Any) -> None:
    """A JSON file, whole or absent."""
    text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
    atomic(path, lambda part: part.write_text(text, encoding="utf-8"))


def write_tensors(
    path: Path,
    tensors: dict[str, Tensor],
    *,
    facts: dict[str, str] | None = None,
    half: bool = False,
) -> None:
    """A safetensors file, whole or absent; facts: its metadata; half: numbers with a point
    as fp16."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    def write(part: Path) -> None:
        try:
            save_file(kept, part, facts)
        except SafetensorError as error:
            raise OSError(str(error)) from None

    kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    if half:
        for name, value in kept.items():
            kept[name] = value.half() if value.is_floating_point() else value
    atomic(path, write)
