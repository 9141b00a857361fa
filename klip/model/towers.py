"""Image towers with random weights: open_clip's, a network of timm, or one under LCA.

Axes: B images, S pixels a side, C channels of the last map, h, w its sides, N concepts,
D numbers per embedding.
"""

from types import SimpleNamespace
from typing import Any

import timm
import torch
from open_clip.model import _build_vision_tower, resize_pos_embed
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from klip.model.roomy import make_room


class LCA(nn.Module):
    """Local concepts accumulation (Srivastava 2020): (B, C, h, w) -> (B, C).

    Our reading: the full text of arXiv 2001.03992 was not at hand.  A concept is the
    mean of the last map over a square window; windows of every side but 1, at every
    place.  One linear layer, at first the identity (A), and ReLU, then their mean.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shared = nn.Linear(channels, channels)
        nn.init.eye_(self.shared.weight)
        nn.init.zeros_(self.shared.bias)

    def forward(self, maps: Tensor) -> Tensor:
        sides = range(2, min(maps.shape[-2:]) + 1)
        if not sides:
            raise ValueError(
                f"LCA: needs a last map of at least 2 x 2, got {tuple(maps.shape[-2:])}; "
                "larger images make larger maps"
            )
        concepts = [nn.functional.avg_pool2d(maps, side, stride=1).flatten(2) for side in sides]
        concepts = torch.cat(concepts, dim=2).transpose(1, 2)  # (B, N, C)
        return self.shared(concepts).relu().mean(dim=1)


class TimmTower(nn.Module):
    """A timm network of `arguments` for its create_model, without classifier, pooled by
    its own average or by LCA: (B, 3, S, S) -> (B, D)."""

    def __init__(self, arguments: dict[str, Any], lca: bool = False) -> None:
        super().__init__()
        self.trunk = timm.create_model(**arguments, pretrained=False, num_classes=0)
        width = self.trunk.num_features
        self.lca = LCA(width) if lca else None
        # some networks have a layer after their pooling
        self.dim = width if lca else getattr(self.trunk, "head_hidden_size", width)

    def forward(self, images: Tensor) -> Tensor:
        if self.lca is None:
            return self.trunk(images)
        return self.lca(self.trunk.forward_features(images))

    def set_grad_checkpointing(self, on: bool = True) -> None:
        try:
            self.trunk.set_grad_checkpointing(on)
        except AssertionError:
            raise ValueError(
                f"encoder: timm's {type(self.trunk).__name__} has no checkpointing; take "
                "checkpointing false and a smaller batch, or accumulate"
            ) from None


def build(config: dict[str, Any]) -> nn.Module:
    """The tower of an open_clip model config, or with `timm` in it a `TimmTower`.

    pixels: another image side than the config's; proj "drop": without CLIP's projection.
    """
    if "timm" in config:
        tower = TimmTower(config["timm"], bool(config.get("lca")))
    else:
        vision = {**config["vision_cfg"], "timm_model_pretrained": False}
        tower = _build_vision_tower(config["embed_dim"], vision, bool(config.get("quick_gelu")))
    if getattr(tower, "output_tokens", False):
        tower.output_tokens = False  # CoCa's decoder wants them; an embedding is the pooled one
    if config.get("proj") == "drop":
        tower.proj = None
    if config.get("pixels"):
        resize(tower, config["pixels"])
    make_room(tower)
    return tower.eval()


def sees_one_size(tower: nn.Module) -> bool:
    """Has it a table of positions, which is made for one size of images?"""
    return any("pos" in name for name, _ in tower.named_parameters())


def resize(tower: nn.Module, pixels: int) -> None:
    """Let a tower take images of `pixels` a side, in place: tables of positions are
    interpolated, bicubic as open_clip and timm do.  ValueError: it cannot."""
    trunk = getattr(tower, "trunk", tower)
    try:
        if isinstance(tower, VisionTransformer):
            tower.image_size = (pixels, pixels)
            tower.grid_size = tuple(pixels // side for side in tower.patch_size)
            _stretch(tower, tower.grid_size)
        elif isinstance(tower, ModifiedResNet):
            _stretch(tower.attnpool, (pixels // 32,) * 2)
        elif hasattr(trunk, "set_input_size"):
            trunk.set_input_size(img_size=pixels)
        elif trunk.pretrained_cfg.get("fixed_input_size"):
            raise ValueError("its input size is fixed")
        device = next(tower.parameters()).device
        with torch.no_grad():  # does it work?
            tower.eval()(torch.zeros(1, 3, pixels, pixels, device=device))
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"encoder: this {type(trunk).__name__} cannot take images of {pixels} x {pixels} "
            f"pixels ({reason}); take pixels 0, the size stored with the model, or a multiple "
            "of its patches"
        ) from None


def _stretch(owner: nn.Module, grid: tuple[int, int]) -> None:
    """Interpolate the grid in `owner.positional_embedding` (1 + h w, D), not its first row."""
    old, key = owner.positional_embedding, "visual.positional_embedding"
    state = {key: old.detach()}
    resize_pos_embed(state, SimpleNamespace(visual=SimpleNamespace(grid_size=grid)))
    owner.positional_embedding = nn.Parameter(state[key].clone(), requires_grad=old.requires_grad)


def channels_last(tower: nn.Module) -> bool:
    """Is that layout safe and faster?  On a CPU convolutional towers take half the
    time, but oneDNN's backward pass of a strided 1 x 1 convolution on fewer than 16
    channels ends the process (MobileCLIP-S1, MobileCLIP2-S0 have one)."""
    found = [module for module in tower.modules() if isinstance(module, nn.Conv2d)]
    for one in found:
        narrow = one.in_channels // one.groups < 16
        if set(one.kernel_size) == {1} and max(one.stride) > 1 and narrow:
            return False
    return len(found) > 1  # a ViT has one, its patches
