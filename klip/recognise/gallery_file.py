"""The file of a gallery: safetensors, its owners and settings as JSON in the metadata."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from klip.settings.files import write_tensors

FORMAT = "klip-gallery-1"


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


def read(path: Path) -> tuple[Tensor, list[np.ndarray] | None, dict[str, Any]]:
    """Embeddings, descriptors (None: there are none), and what was told of them."""
    if not path.is_file():
        raise FileNotFoundError(f"gallery {path} is missing; `klip gallery build` writes one")
    try:
        with safe_open(path, "pt") as file:
            head = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    except SafetensorError as error:
        raise ValueError(f"gallery: {path} is not a whole safetensors file ({error})") from None
    if head.get("format") != FORMAT:
        raise ValueError(f"gallery: {path} is no gallery; `klip gallery build` writes one")
    descriptors = None
    if "descriptors" in tensors:  # galleries from before re-ranking have none
        rows = tensors["descriptors"].split(tensors["keypoints"].tolist())
        descriptors = [own.numpy() for own in rows]
    return tensors["embeddings"], descriptors, json.loads(head["gallery"])
