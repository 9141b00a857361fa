"""The file of a gallery: safetensors, its owners and settings as JSON in the metadata."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from torch import Tensor

from klip.settings.files import sentence, write_tensors

FORMAT = "klip-gallery-1"
PATIENCE = 600
"""Seconds to wait for another command that changes the same gallery."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Inside, no other process that asks here may change the gallery.

    OSError: another has not ended within PATIENCE seconds, or no lock can be written; and as
    `told`.
    """
    told(path)  # there is one
    path = Path(os.path.realpath(path))
    lock = path.with_name(f".{path.name}.lock")
    try:
        with sentence(path), FileLock(lock, timeout=PATIENCE):
            yield
    except Timeout:
        raise OSError(
            f"gallery: another command has been changing {path} for {PATIENCE} seconds; wait for "
            f"it, or delete {lock} if there is none"
        ) from None


def write(
    path: Path, embeddings: Tensor, *, descriptors: list[np.ndarray] | None, told: dict[str, Any]
) -> Path:
    """Write it whole or not at all."""
    head = {"format": FORMAT, "gallery": json.dumps(told, ensure_ascii=False)}
    tensors = {"embeddings": embeddings}
    if descriptors is not None:
        none = torch.zeros(0, 130, dtype=torch.uint8)  # there may be no packshot
        tensors["descriptors"] = torch.cat([none, *map(torch.from_numpy, descriptors)])
        counts = [len(rows) for rows in descriptors]
        tensors["keypoints"] = torch.tensor(counts, dtype=torch.int32)
    write_tensors(path, tensors, facts=head)
    return path


def told(path: Path) -> dict[str, Any]:
    """What was told of the rows of a gallery; they themselves are not read."""
    head, _ = _parts(path, rows=False)
    with _sound(path):
        facts = json.loads(head["gallery"])
        _complete(facts)
    return facts


def read(path: Path) -> tuple[Tensor, list[np.ndarray] | None, dict[str, Any]]:
    """Embeddings, descriptors (None: there are none), and what was told of them."""
    head, tensors = _parts(path, rows=True)
    with _sound(path):
        facts, descriptors = json.loads(head["gallery"]), None
        if "descriptors" in tensors:  # galleries from before re-ranking have none
            rows = tensors["descriptors"].split(tensors["keypoints"].tolist())
            descriptors = [own.numpy() for own in rows]
        _check(tensors["embeddings"], descriptors, facts)
    return tensors["embeddings"], descriptors, facts


def _parts(path: Path, *, rows: bool) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The header of a gallery's file, and its tensors if its rows are asked for."""
    if not path.is_file():
        raise FileNotFoundError(f"gallery {path} is missing; `klip gallery build` writes one")
    try:
        with safe_open(path, "pt") as file:
            head = file.metadata() or {}
            names = file.keys() if rows else ()
            tensors = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(f"gallery: {path} is not a whole safetensors file ({error})") from None
    if head.get("format") != FORMAT:
        raise ValueError(f"gallery: {path} is no gallery; `klip gallery build` writes one")
    return head, tensors


@contextmanager
def _sound(path: Path) -> Iterator[None]:
    """Say in one sentence that the parts of a gallery cannot be used."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"gallery: {path} is damaged or made by another program ({error}); build it anew"
        ) from None


def _check(embeddings: Tensor, descriptors: list | None, told: dict[str, Any]) -> None:
    """ValueError where the parts of a gallery do not belong together."""
    rows = len(embeddings)
    if embeddings.ndim != 2 or not torch.isfinite(embeddings).all():
        raise ValueError("embeddings must be finite numbers, a row for each view")
    lengths = {name: len(told[name]) for name in ("owners", "images")}
    if set(lengths.values()) != {rows}:
        raise ValueError(f"{rows} rows of embeddings, and names of {lengths}")
    if descriptors is not None and len(descriptors) * told["views"] != rows:
        raise ValueError(f"{len(descriptors)} packshots with descriptors for {rows} rows")
    _complete(told)


def _complete(told: dict[str, Any]) -> None:
    """ValueError where the settings of a gallery are not all told."""
    missing = {"fingerprint", "encoder", "views", "seed", "precision"} - set(told)
    if missing:
        raise ValueError(f"it does not say its {', '.join(sorted(missing))}")
