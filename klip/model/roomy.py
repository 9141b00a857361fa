"""Depthwise convolutions on maps that are smaller than their kernel, on a CPU.

torch's backward pass of such a convolution is several times slower than on a map that was
padded by hand (36 against 9 ms for 5 x 5 on 64 x 1152 x 3 x 3, two cores with AVX2).  The
sums are the same.  Axes: B images, C channels, h, w sides of a map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RoomyConv2d(nn.Conv2d):
    """A depthwise convolution of stride 1 that pads small maps itself while it is trained."""

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) to the same shape."""
        small = max(maps.shape[-2:]) < self.kernel_size[0]
        if not (small and maps.device.type == "cpu" and torch.is_grad_enabled()):
            return super().forward(maps)
        maps = nn.functional.pad(maps, (1, 1, 1, 1))
        rest = self.padding[0] - 1
        return nn.functional.conv2d(maps, self.weight, self.bias, padding=rest, groups=self.groups)


def make_room(tower: nn.Module) -> None:
    """Let the depthwise convolutions of a tower pad small maps themselves, in place."""
    for module in tower.modules():
        if type(module) is not nn.Conv2d or module.stride != (1, 1) or module.dilation != (1, 1):
            continue
        depthwise = module.groups == module.in_channels > 1
        # Padded so that a map keeps its sides, by a square kernel of 5 or more.
        side = module.kernel_size[0]
        if depthwise and side >= 5 and module.kernel_size == (side, side):
            if module.padding == (side // 2, side // 2):
                module.__class__ = RoomyConv2d
