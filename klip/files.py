"""Files that are whole or absent, whatever interrupts their writing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def atomic(path: Path, write_to: Callable[[Path], object]) -> None:
    """Write a file that is either whole or absent."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write_to(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
