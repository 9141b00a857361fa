"""Convolutional towers of timm, for the baselines: a bare network, or one under an LCA layer.

Axes: B images, C channels of the last map, h, w its sides, N concepts, D numbers per embedding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class LCA(nn.Module):
    """Local concepts accumulation (Srivastava 2020, arXiv 2001.03992) in our reading: its full text was not at hand.

    A concept is the mean of the last map over a square window; windows of every side but 1, at every place.  One
    linear layer and ReLU, shared by all concepts, then their mean.  The layer starts as the identity (A), so that
    training begins with the features that the network brings.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shared = nn.Linear(channels, channels)
        nn.init.eye_(self.shared.weight)
        nn.init.zeros_(self.shared.bias)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C)."""
        sides = range(2, min(maps.shape[-2:]) + 1)
        if not sides:
            raise ValueError(f"LCA: needs a last map of at least 2 x 2, got {tuple(maps.shape[-2:])}; larger images "
                             "make larger maps")
        concepts = [nn.functional.avg_pool2d(maps, side, stride=1).flatten(2) for side in sides]
        concepts = torch.cat(concepts, dim=2).transpose(1, 2)                                   # (B, N, C)
        return self.shared(concepts).relu().mean(dim=1)


class TimmTower(nn.Module):
    """A timm network without classifier, pooled by its own average or by LCA: (B, 3, S, S) -> (B, D).

    arguments: those of `timm.create_model`, with `model_name`; weights are random.
    """

    def __init__(self, arguments: dict[str, Any], lca: bool = False) -> None:
        import timm

        super().__init__()
        self.trunk = timm.create_model(**arguments, pretrained=False, num_classes=0)
        self.lca = LCA(self.trunk.num_features) if lca else None

    def forward(self, images: Tensor) -> Tensor:
        return self.trunk(images) if self.lca is None else self.lca(self.trunk.forward_features(images))

    def set_grad_checkpointing(self, on: bool = True) -> None:
        self.trunk.set_grad_checkpointing(on)
