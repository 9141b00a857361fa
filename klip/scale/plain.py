"""What a user writes without klip: a model of open_clip or timm, files, batches of them.

Nothing of klip.model is imported here (see `contender`).
Axes: B images of a batch, S pixels a side, D numbers per embedding.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from klip.scale.contender import Cannot

KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Transform = Callable[[Image.Image], Tensor]


def of_open_clip(folder: str, device: str) -> tuple[nn.Module, Transform, Transform]:
    """Image tower, transform for training and for evaluation, of a folder of
    `same_start.write`."""
    if not Path(folder, "open_clip_config.json").is_file():
        raise Cannot("open_clip has no config of this network")
    model, training, evaluation = open_clip.create_model_and_transforms(
        f"local-dir:{folder}", device=device
    )
    return model.visual, training, evaluation


def of_timm(folder: str, device: str) -> tuple[nn.Module, Transform]:
    """Network without classifier and transform for evaluation, by timm's own functions."""
    import timm
    from timm.data import create_transform

    if not Path(folder, "timm.json").is_file():
        raise Cannot("this tower is no network of timm alone")
    facts = json.loads(Path(folder, "timm.json").read_text(encoding="utf-8"))
    seen = facts.pop("preprocess")
    network = timm.create_model(**facts, pretrained=False, num_classes=0)
    state = load_file(Path(folder, "klip", "tower.safetensors"))
    start = "visual.trunk."
    network.load_state_dict({name.removeprefix(start): value for name, value in state.items()})
    modes = {"squash": "squash", "crop": "center", "pad": "border"}
    transform = create_transform(
        (3, seen["size"], seen["size"]),
        is_training=False,
        mean=seen["mean"],
        std=seen["std"],
        interpolation=seen.get("interpolation", "bicubic"),
        crop_pct=1.0,
        crop_mode=modes[seen["resize"]],
    )
    return network.to(device), transform


def dim(folder: str) -> int:
    """Numbers per embedding of the tower in a folder."""
    config = json.loads(Path(folder, "open_clip_config.json").read_text(encoding="utf-8"))
    return config["model_cfg"]["embed_dim"]


def autocast(precision: str, device: str) -> torch.autocast:
    """For fp32 one that does nothing."""
    return torch.autocast(device, KINDS[precision], enabled=precision != "fp32")


class Photographs(Dataset):
    """Image (3, S, S) and label of each file."""

    def __init__(self, files: Sequence[str], transform: Transform, labels: Sequence[int]) -> None:
        self.files, self.transform, self.labels = files, transform, labels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        with Image.open(self.files[item]) as image:
            return self.transform(image.convert("RGB")), self.labels[item]


def shuffled(dataset: Dataset, *, batch: int, steps: int, **loading: Any) -> DataLoader:
    """`steps` batches in random order; no file twice before all were there."""
    sampler = RandomSampler(dataset, num_samples=batch * steps)
    return DataLoader(dataset, batch, sampler=sampler, **loading)
