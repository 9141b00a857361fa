"""Block-wise learning rates (paper §4.1.2): `stem | block 0 .. block n-1 | top`, after the
"blocks of transformers and other layers labelled in OpenCLIP's code".
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from timm.models import group_parameters
from torch import nn

from klip.model.towers import TimmTower

READINGS = ("blockwise", "blockwise-proj", "common", "layerwise")
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
    blocks, top, place = _layout(tower, reading)
    places = {name: place(name) for name, _ in tower.named_parameters()}
    groups = ["stem", *(f"block {i}" for i in range(blocks))]
    if blocks + 1 in places.values():
        groups.append(top)
    trained = [name for name, p in tower.named_parameters() if p.requires_grad]
    members = (tuple(n for n in trained if places[n] == i) for i in range(len(groups)))
    return [Group(name, own) for name, own in zip(groups, members, strict=True)]


def _layout(tower: nn.Module, reading: str) -> tuple[int, str, Callable[[str], int]]:
    """Number n of blocks, name of the top, place of a parameter: 0 stem, 1..n, n + 1 top."""
    if isinstance(tower, VisionTransformer):
        n = len(tower.transformer.resblocks)
        places = dict.fromkeys(("conv1", "class_embedding", "positional_embedding", "ln_pre"), 0)
        places |= {f"transformer.resblocks.{i}": i + 1 for i in range(n)}
        places["ln_post"] = n + 1 if reading == "layerwise" else n
        return n, "proj", lambda name: _under(name, places, n + 1)
    if isinstance(tower, ModifiedResNet):
        stages = ("layer1", "layer2", "layer3", "layer4")
        labels = [f"{stage}.{k}" for stage in stages for k in range(len(getattr(tower, stage)))]
        places = {label: i for i, label in enumerate([*labels, "attnpool"], start=1)}
        return len(labels), "attnpool", lambda name: _under(name, places, 0)
    if isinstance(tower, TimmModel | TimmTower):
        # timm's own labels; its mark (99999,): final norms etc. ride with the last block
        matcher = tower.trunk.group_matcher() | {"rest": [("", (99999,))]}
        inside = group_parameters(tower.trunk, matcher, reverse=True)
        n = max(inside.values())
        return n, "head", lambda name: inside.get(name.removeprefix("trunk."), n + 1)
    raise ValueError(
        f"blocks: no partition is known for a {type(tower).__name__}; "
        "accepted are open_clip's VisionTransformer, ModifiedResNet and TimmModel, and TimmTower"
    )


def _under(name: str, places: dict[str, int], other: int) -> int:
    """The place of the module or parameter that `name` is or is part of."""
    for label, place in places.items():
        if f"{name}.".startswith(f"{label}."):
            return place
    return other


def freeze(tower: nn.Module, low: int) -> list[nn.Parameter]:
    """Freeze the stem and the `low` first blocks (0: nothing); what this froze.

    The others keep their rates; the paper's are under 1e-6 in blocks 0-8 of ViT-L/14.
    """
    count = _layout(tower, READINGS[0])[0]
    if not 0 <= low <= count:
        blocks = f"the {count} blocks of the tower"
        raise ValueError(f"frozen_blocks must be at most {blocks}, got {low}")
    groups = partition(tower)[: low + 1] if low else []
    names = [name for group in groups for name in group.parameters]
    return [tower.get_parameter(name).requires_grad_(False) for name in names]


def rates(
    groups: list[Group], reading: str = "blockwise", top_lr: float = 2e-4, decay: float = 0.7
) -> list[float]:
    """The rate of each group.

    blockwise       the last block has `top_lr`, each earlier one `decay` times as much, the
                    stem last; the top as the last block (paper §4.1.2, our first reading)
    blockwise-proj  the top has `top_lr`, the last block `decay` times as much (second reading)
    layerwise       the same, the final norm on top too (FT-CLIP; its ViT-L/14: 4e-4 and 0.65)
    common          `top_lr` everywhere
    """
    if reading not in READINGS:
        accepted = ", ".join(READINGS)
        raise ValueError(f"block rates: reading must be one of {accepted}, got {reading!r}")
    if not 0 < decay <= 1:
        raise ValueError(f"block rates: decay must be above 0 and at most 1, got {decay!r}")
    if not (top_lr > 0 and math.isfinite(top_lr)):
        raise ValueError(f"block rates: top_lr must be above 0 and finite, got {top_lr!r}")
    if reading == "common":
        return [float(top_lr)] * len(groups)
    below = list(range(len(groups)))[::-1]  # steps under the top
    if reading == "blockwise" and not groups[-1].name.startswith("block"):
        below = [max(steps - 1, 0) for steps in below]
    return [top_lr * decay**steps for steps in below]


def parameter_groups(
    tower: nn.Module,
    reading: str = "blockwise",
    top_lr: float = 2e-4,
    decay: float = 0.7,
    weight_decay: float = 0.05,
) -> list[dict]:
    """Groups for AdamW: `params`, absolute `lr`, `weight_decay`, `name`; stem to top.

    Each is split in two: weights, and those that never decay (at most one dimension,
    class and position embeddings).
    """
    groups, found = partition(tower, reading), []
    for group, lr in zip(groups, rates(groups, reading, top_lr, decay), strict=True):
        weights, free = [], []
        for name in group.parameters:
            parameter = tower.get_parameter(name)
            never = parameter.ndim <= 1 or name.split(".")[-1] in _EMBEDDINGS
            (free if never else weights).append(parameter)
        for rows, decays in ((weights, weight_decay), (free, 0.0)):
            if rows:
                found.append({"params": rows, "lr": lr, "weight_decay": decays, "name": group.name})
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


def table(
    tower: nn.Module, reading: str = "blockwise", top_lr: float = 2e-4, decay: float = 0.7
) -> pd.DataFrame:
    """group, parameters (trainable numbers in it) and lr, from stem to top."""
    groups = partition(tower, reading)
    sizes = {name: parameter.numel() for name, parameter in tower.named_parameters()}
    counts = [sum(sizes[name] for name in group.parameters) for group in groups]
    names, lrs = [group.name for group in groups], rates(groups, reading, top_lr, decay)
    return pd.DataFrame({"group": names, "parameters": counts, "lr": lrs})
