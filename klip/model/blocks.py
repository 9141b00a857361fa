"""Block-wise learning rates (paper §4.1.2): `stem | block 0 .. block n-1 | top`, after the
"blocks of transformers and other layers labelled in OpenCLIP's code".
"""

import re
from typing import NamedTuple

import pandas as pd
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from timm.models._manipulate import group_with_matcher
from torch import nn

from klip.model.towers import TimmTower

_EMBEDDINGS = ("class_embedding", "positional_embedding", "cls_token", "reg_token", "pos_embed")


class Group(NamedTuple):
    """One step of the ladder of rates."""

    name: str
    parameters: tuple[str, ...]


def partition(tower: nn.Module, reading: str = "blockwise") -> list[Group]:
    """Groups from stem to top; every trainable parameter is in exactly one.

    A frozen group stays, empty, so that freezing moves no rate.  A tower without a
    projection has no top.  The final norm rides with the last block, as in open_clip's
    `lock()`; `layerwise` puts a ViT's on top, as FT-CLIP does.
    """
    matcher, top, pattern = _labels(tower, reading)
    # timm's mark (99999,): what has no label rides with the last block
    matcher = {**matcher, "rest": [("", (99999,))]}
    names = [name for name, _ in tower.named_parameters()]
    below = [name for name in names if not re.match(pattern, name)]
    inside = [(name.removeprefix("trunk."), None) for name in below]
    places = group_with_matcher(inside, matcher, reverse=True)  # 0 stem, 1 .. n blocks
    labels = ["stem", *(f"block {i}" for i in range(max(places.values())))]
    if len(below) < len(names):
        labels.append(top)
    members: dict[str, list[str]] = {label: [] for label in labels}
    for name in names:
        if tower.get_parameter(name).requires_grad:
            place = places.get(name.removeprefix("trunk."), -1)  # the top is the last
            members[labels[place]].append(name)
    return [Group(label, tuple(own)) for label, own in members.items()]


def _labels(tower: nn.Module, reading: str) -> tuple[dict, str, str]:
    """A matcher as timm's `group_with_matcher` takes it; name and pattern of the top."""
    if isinstance(tower, VisionTransformer):
        stem = "conv1|class_embedding|positional_embedding|ln_pre"
        top = "proj|attn_pool|ln_post" if reading == "layerwise" else "proj|attn_pool"
        return {"stem": stem, "blocks": r"transformer\.resblocks\.(\d+)"}, "proj", top
    if isinstance(tower, ModifiedResNet):
        matcher = {"stem": r"(?:conv|bn)\d", "blocks": r"layer(\d)\.(\d+)"}
        return matcher, "attnpool", "attnpool"
    if isinstance(tower, TimmModel | TimmTower):
        return tower.trunk.group_matcher(), "head", r"(?!trunk\.)"
    raise ValueError(
        f"blocks: no partition is known for a {type(tower).__name__}; accepted are "
        "open_clip's VisionTransformer, ModifiedResNet and TimmModel, and TimmTower"
    )


def freeze(tower: nn.Module, low: int) -> list[nn.Parameter]:
    """Freeze the stem and the `low` first blocks (0: nothing); what this froze.  The others
    keep their rates.  ValueError: it has fewer blocks."""
    groups = partition(tower)
    count = sum(group.name.startswith("block") for group in groups)
    if low > count:
        raise ValueError(
            f"frozen_blocks must be at most the {count} blocks of the tower, got {low}"
        )
    frozen = groups[: low + 1] if low else []
    names = [name for group in frozen for name in group.parameters]
    return [tower.get_parameter(name).requires_grad_(False) for name in names]


def rates(
    groups: list[Group], reading: str = "blockwise", *, top_lr: float = 2e-4, decay: float = 0.7
) -> list[float]:
    """The rate of each group.

    blockwise  the last block has `top_lr`, each earlier one `decay` times as much, the
               stem last; the top as the last block (paper §4.1.2)
    layerwise  the top has `top_lr`, the final norm with it, the last block `decay` times
               as much (FT-CLIP; its ViT-L/14: 4e-4 and 0.65)
    common     `top_lr` everywhere
    """
    if reading == "common":
        return [float(top_lr)] * len(groups)
    below = list(range(len(groups)))[::-1]  # steps under the top
    if reading == "blockwise" and not groups[-1].name.startswith("block"):
        below = [max(steps - 1, 0) for steps in below]
    return [top_lr * decay**steps for steps in below]


def parameter_groups(
    tower: nn.Module, reading: str = "blockwise", *, weight_decay: float = 0.05, **ladder: float
) -> list[dict]:
    """Groups for AdamW: `params`, absolute `lr`, `weight_decay`, `name`; stem to top.

    Each is split in two: weights, and those that never decay (at most one dimension,
    class and position embeddings).  ladder: `top_lr` and `decay` of `rates`.
    """
    groups, found = partition(tower, reading), []
    for group, lr in zip(groups, rates(groups, reading, **ladder), strict=True):
        weights, free = [], []
        for name in group.parameters:
            parameter = tower.get_parameter(name)
            never = parameter.ndim <= 1 or name.split(".")[-1] in _EMBEDDINGS
            (free if never else weights).append(parameter)
        for params, decays in ((weights, weight_decay), (free, 0.0)):
            how = {"lr": lr, "weight_decay": decays, "name": group.name}
            found.append({"params": params, **how})
    found = [group for group in found if group["params"]]
    if not found:
        raise ValueError("parameter groups: the tower has no trainable parameter; unfreeze some")
    return found


def optimiser(groups: list[dict], kind: str = "adamw") -> torch.optim.Optimizer:
    """adamw: torch's, fused (§4.1.1); adamw8bit: bitsandbytes', moments of 2 bytes, not 8."""
    if kind == "adamw":
        return torch.optim.AdamW(groups, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise ValueError(
            "fine-tuning: optimiser adamw8bit needs bitsandbytes, which is not installed; "
            "run `pip install bitsandbytes`, or take adamw"
        ) from None
    return AdamW8bit(groups)


def table(tower: nn.Module, reading: str = "blockwise", **ladder: float) -> pd.DataFrame:
    """group, parameters (trainable numbers in it) and lr, from stem to top.
    ladder: `top_lr` and `decay` of `rates`."""
    groups, rows = partition(tower, reading), []
    for group, lr in zip(groups, rates(groups, reading, **ladder), strict=True):
        numbers = sum(tower.get_parameter(name).numel() for name in group.parameters)
        rows.append((group.name, numbers, lr))
    return pd.DataFrame(rows, columns=["group", "parameters", "lr"])
