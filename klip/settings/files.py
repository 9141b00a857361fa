"""Files that are whole or absent, whatever interrupts their writing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

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
