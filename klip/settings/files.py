"""Files that are whole or absent, whatever interrupts their writing, and hashes of code."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def atomic(path: Path, write_to: Callable[[Path], object]) -> None:
    """Write a file that is either whole or absent, with the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write_to(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def of_code(sources: Iterable[Path], facts: Any) -> hashlib._Hash:
    """A SHA-256 of some facts (JSON) and of files of code, to go on with or to be read."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest


def write_tensors(
    path: Path,
    tensors: dict[str, Tensor],
    *,
    facts: dict[str, str] | None = None,
    half: bool = False,
) -> None:
    """A safetensors file, whole or absent; facts: its metadata; half: numbers with a point
    as fp16."""
    from safetensors.torch import save_file

    kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    if half:
        for name, value in kept.items():
            kept[name] = value.half() if value.is_floating_point() else value
    atomic(path, lambda part: save_file(kept, part, facts))
