"""Padding by hand changes no sum, is used where it helps, and leaves weights' names alone."""

import pytest
import torch
from torch import nn

from klip.model import encoder
from klip.model.roomy import RoomyConv2d, make_room


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("kernel", [5, 7])
def test_output_and_gradients_are_those_of_the_plain_convolution(side, kernel):
    torch.manual_seed(0)
    plain = nn.Conv2d(8, 8, kernel, padding=kernel // 2, groups=8, bias=kernel == 7)
    other = nn.Conv2d(8, 8, kernel, padding=kernel // 2, groups=8, bias=kernel == 7)
    other.load_state_dict(plain.state_dict())
    make_room(other)
    assert type(other) is RoomyConv2d
    found = []
    for layer in (plain, other):
        maps = torch.arange(3.0 * 8 * side * side).reshape(3, 8, side, side).sin().requires_grad_()
        made = layer(maps)
        made.square().sum().backward()
        found.append([made, maps.grad, *(weight.grad for weight in layer.parameters())])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(plain(maps), other(maps))


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"stride": 2},
        {"dilation": 2},
        {"groups": 4},
        {"kernel_size": 3, "padding": 1},
    ],
)
def test_other_convolutions_are_left_alone(options):
    given = {"kernel_size": 5, "padding": 2, "groups": 8} | options
    layer = nn.Conv2d(8, 8, **given)
    make_room(layer)
    assert type(layer) is nn.Conv2d


def test_the_shipped_tower_has_some():
    tower = encoder.load("nano").tower
    assert sum(type(module) is RoomyConv2d for module in tower.modules()) >= 3
