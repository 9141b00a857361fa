"""Folding batch normalisation moves no embedding, is made anew when weights change, and is left
where it would compute something else."""

import pytest
import timm
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from klip.model import encoder, folded


def alive(name):
    """A network whose batch normalisation does something."""
    torch.manual_seed(0)
    tower = timm.create_model(name, num_classes=0).eval()
    for norm in tower.modules():
        if isinstance(norm, _BatchNorm):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 2)
    return tower


def norms(tower):
    return sum(isinstance(module, _BatchNorm) for module in tower.modules())


def close(one, other):
    """Are embeddings equal but for the rounding of some fifty layers?"""
    return bool(((one - other).norm(dim=1) < 1e-4 * other.norm(dim=1)).all())


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "mobilenetv3_small_050"])
def test_an_embedding_stays_where_it_is(name):
    tower, images = alive(name), torch.randn(3, 3, 64, 64)
    made = folded.folded(tower, images)
    assert norms(tower) and not norms(made)
    assert close(made(images), tower(images)) and folded.folded(tower, images) is made


@torch.no_grad()
def test_a_changed_weight_makes_it_anew():
    tower, images = alive("resnet18"), torch.randn(2, 3, 64, 64)
    made = folded.folded(tower, images)
    tower.layer1[0].bn1.bias.add_(1)
    again = folded.folded(tower, images)
    assert close(again(images), tower(images)) and again is not made


def test_what_was_trained_is_what_embeds():
    made, images = encoder.load("nano", pixels=64), torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        before = made(images)
    made.train()
    optimiser = torch.optim.AdamW(made.parameters(), lr=1e-2, fused=True)  # leaves no trace
    made(images).square().sum().backward()
    optimiser.step()
    made.eval()
    with torch.no_grad():
        plain = made.tower(images.contiguous(memory_format=torch.channels_last))
        assert close(made(images), plain) and not close(made(images), before)


@torch.no_grad()
def test_a_tower_that_uses_its_parts_in_another_order_is_left_alone():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.norm.running_mean.fill_(5)

        def forward(self, images):
            return self.one(self.norm(images)).flatten(1)

    tower = Crossed().eval()
    assert folded.folded(tower, torch.randn(2, 3, 4, 4)) is tower


@torch.no_grad()
def test_a_tower_without_batch_normalisation_is_itself():
    tower = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten())
    assert folded.folded(tower, torch.randn(2, 3, 4, 4)) is tower


@torch.no_grad()
def test_it_is_folded_in_low_precision_too():
    tower, images = alive("tf_efficientnet_lite0"), torch.randn(3, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        made = folded.folded(tower, images)
    assert norms(tower) and not norms(made)
