"""Image towers with random weights: open_clip's, a bare network of timm, or one under an LCA layer.

Axes: B images, S pixels a side, C channels of the last map, h, w its sides, N concepts, D numbers per embedding.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn


class LCA(nn.Module):
    """Local concepts accumulation (Srivastava 2020, arXiv 2001.03992) in our reading: its full text was not at hand.

    A concept is the mean of the last map over a square window; windows of every side but 1, at every place.  One
    linear layer and ReLU, shared by all concepts, then their mean.  The layer starts as the identity (A).
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
            raise ValueError(
                f"LCA: needs a last map of at least 2 x 2, got {tuple(maps.shape[-2:])}; larger images "
                "make larger maps"
            )
        concepts = [nn.functional.avg_pool2d(maps, side, stride=1).flatten(2) for side in sides]
        concepts = torch.cat(concepts, dim=2).transpose(1, 2)  # (B, N, C)
        return self.shared(concepts).relu().mean(dim=1)


class TimmTower(nn.Module):
    """A timm network without classifier, of the `arguments` of its create_model, weights random, pooled by its own
    average or by LCA: (B, 3, S, S) -> (B, D)."""

    def __init__(self, arguments: dict[str, Any], lca: bool = False) -> None:
        import timm

        super().__init__()
        self.trunk = timm.create_model(**arguments, pretrained=False, num_classes=0)
        self.lca = LCA(self.trunk.num_features) if lca else None
        self.dim = (
            self.trunk.num_features
            if lca
            else getattr(self.trunk, "head_hidden_size", self.trunk.num_features)
        )

    def forward(self, images: Tensor) -> Tensor:
        return (
            self.trunk(images)
            if self.lca is None
            else self.lca(self.trunk.forward_features(images))
        )

    def set_grad_checkpointing(self, on: bool = True) -> None:
        try:
            self.trunk.set_grad_checkpointing(on)
        except AssertionError:
            raise ValueError(
                f"encoder: timm's {type(self.trunk).__name__} has no checkpointing; take checkpointing "
                "false and a smaller batch, or accumulate"
            ) from None


def build(config: dict[str, Any]) -> nn.Module:
    """The tower of an open_clip model config, or with `timm` in it a `TimmTower`.  `pixels`, if there, is another image
    side than the config's own, `proj` "drop" leaves CLIP's projection out."""
    from open_clip.model import _build_vision_tower

    if "timm" in config:
        tower = TimmTower(config["timm"], bool(config.get("lca")))
    else:
        vision = {**config["vision_cfg"], "timm_model_pretrained": False}
        tower = _build_vision_tower(config["embed_dim"], vision, bool(config.get("quick_gelu")))
    if getattr(
        tower, "output_tokens", False
    ):  # CoCa's caption decoder wants tokens; an embedding is the pooled one
        tower.output_tokens = False
    if config.get("proj") == "drop":
        tower.proj = None
    if config.get("pixels"):
        resize(tower, config["pixels"])
    return tower.eval()


def sees_one_size(tower: nn.Module) -> bool:
    """Has it a table of positions, which is made for one size of images?"""
    return any("pos" in name for name, _ in tower.named_parameters())


def resize(tower: nn.Module, pixels: int) -> None:
    """Let a tower take images of `pixels` a side, in place: tables of absolute positions are interpolated, bicubic as
    open_clip and timm do when they load.  ValueError: it cannot, which one image tells."""
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.transformer import VisionTransformer

    try:
        if isinstance(tower, VisionTransformer):
            tower.image_size, tower.grid_size = (
                (pixels,) * 2,
                tuple(pixels // side for side in tower.patch_size),
            )
            _stretch(tower, tower.grid_size)
        elif isinstance(tower, ModifiedResNet):
            _stretch(tower.attnpool, (pixels // 32,) * 2)
        elif hasattr(tower.trunk, "set_input_size"):
            tower.trunk.set_input_size(img_size=pixels)
        elif tower.trunk.pretrained_cfg.get("fixed_input_size"):
            raise ValueError("its input size is fixed")
        with torch.no_grad():
            tower.eval()(torch.zeros(1, 3, pixels, pixels, device=next(tower.parameters()).device))
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        kind = type(getattr(tower, "trunk", tower)).__name__
        raise ValueError(
            f"encoder: this {kind} cannot take images of {pixels} x {pixels} pixels ({reason}); take "
            "pixels 0, the size stored with the model, or a multiple of its patches"
        ) from None


def _stretch(owner: nn.Module, grid: tuple[int, int]) -> None:
    """Interpolate the grid in `owner.positional_embedding` (1 + h w, D); its first row, the class token's, stays."""
    from open_clip.model import resize_pos_embed

    old, key = owner.positional_embedding, "visual.positional_embedding"
    state = {key: old.detach()}
    resize_pos_embed(state, SimpleNamespace(visual=SimpleNamespace(grid_size=grid)))
    owner.positional_embedding = nn.Parameter(state[key].clone(), requires_grad=old.requires_grad)


def channels_last(tower: nn.Module) -> bool:
    """Is that layout safe and faster?  On a CPU convolutional towers take half the time, but oneDNN's backward pass of
    a strided 1 x 1 convolution on fewer than 16 channels ends the process (MobileCLIP-S1, MobileCLIP2-S0 have one)."""
    found = [m for m in tower.modules() if isinstance(m, nn.Conv2d)]
    broken = [
        m
        for m in found
        if set(m.kernel_size) == {1} and max(m.stride) > 1 and m.in_channels // m.groups < 16
    ]
    return len(found) > 1 and not broken  # a ViT has one, its patches
