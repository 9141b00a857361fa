"""Embeddings kept on disk: an encoder embeds an image once, whoever asks for it next.

CACHE/embeddings has a file for each encoder and way of embedding: rows, and the images
they are of, known by path, size and time of change.  It can be deleted at any time.
Axes: N images, M images kept, V views of each, D numbers per embedding.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from klip.settings import paths
from klip.settings.files import of_code, write_tensors

KLIP = Path(__file__).parents[1]
SOURCES = [KLIP / "data/images.py", *sorted(KLIP.glob("model/*.py"))]
"""The code that makes an embedding of a file."""


def rows(
    files: Sequence[str | Path], facts: Any, *, embed: Callable[[list], Tensor], views: int
) -> Tensor:
    """The embeddings (N V, D) of some files; `embed` makes those that are not kept yet.

    facts: all else that decides an embedding (JSON).
    """
    path = paths.CACHE / "embeddings" / f"{_key(facts)}.safetensors"
    known, stored = _read(path)
    names = [told(file) for file in files]
    missing = {name: file for name, file in zip(names, files, strict=True) if name not in known}
    if missing:
        made = embed(list(missing.values())).unflatten(0, (-1, views))  # (new, V, D)
        stored = made if stored is None else torch.cat([stored, made])
        known |= {name: len(known) + place for place, name in enumerate(missing)}
        write_tensors(path, {"rows": stored}, facts={"names": json.dumps(list(known))})
    return stored[[known[name] for name in names]].flatten(0, 1)


def _key(facts: Any) -> str:
    return of_code(SOURCES, [torch.__version__, facts]).hexdigest()[:16]


def told(file: str | Path) -> str:
    """Tells a file, as it is now, from all others; one that is not there has no time."""
    path = Path(file).absolute()
    if not path.is_file():
        return path.as_posix()
    found = path.stat()
    return f"{path.as_posix()} {found.st_size} {found.st_mtime_ns}"


def _read(path: Path) -> tuple[dict[str, int], Tensor | None]:
    """Name -> place among the rows kept (M, V, D); what is damaged is made anew."""
    try:
        with safe_open(path, "pt") as file:
            names = json.loads(file.metadata()["names"])
            return {name: place for place, name in enumerate(names)}, file.get_tensor("rows")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return {}, None
