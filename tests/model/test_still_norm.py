"""Training through batch normalisation that stays: the same embeddings and gradients, fewer maps
kept, and left alone where it would be something else."""

import pytest
import timm
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from klip.model import encoder, still_norm

pytestmark = pytest.mark.usefixtures("one_thread")


def alive(name):
    """A network whose batch normalisation does something and stays, trained otherwise."""
    torch.manual_seed(0)
    tower = timm.create_model(name, num_classes=0).train()
    for norm in tower.modules():
        if isinstance(norm, _BatchNorm):
            norm.eval()
            norm.running_mean.normal_(std=0.2)
            norm.running_var.uniform_(0.5, 2)
            nn.init.uniform_(norm.weight, 0.5, 2)
    return tower


def gradients(network, tower, images):
    tower.zero_grad(set_to_none=True)
    made = network(images)
    (made * torch.linspace(-1, 1, made.numel()).view_as(made)).sum().backward()
    return made.detach(), {name: weight.grad for name, weight in tower.named_parameters()}


def far(one, other):
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "mobilenetv3_small_050"])
def test_embeddings_and_gradients_are_those_of_the_tower(name):
    tower, images = alive(name).double(), torch.randn(3, 3, 64, 64).double()
    light = still_norm.light(tower, images)
    assert light is not tower
    joined = [one for one in light.modules() if isinstance(one, still_norm.Joined)]
    assert len(joined) == sum(isinstance(one, _BatchNorm) for one in tower.modules())
    torch.manual_seed(1)
    plain, wanted = gradients(tower, tower, images)
    torch.manual_seed(1)
    made, found = gradients(light, tower, images)
    assert far(made, plain) < 1e-12 and set(found) == set(wanted)
    for weight, gradient in wanted.items():
        assert far(found[weight], gradient) < 1e-9, weight


def test_a_shipped_encoder_trains_that_way_and_keeps_less():
    made, images = encoder.load("nano", pixels=64).train(), torch.randn(16, 3, 64, 64)

    def kept(network):
        """Bytes kept for the backward pass, each storage once."""
        seen = {}

        def note(tensor):
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            network(images)
        return sum(seen.values())

    assert kept(made) < 0.7 * kept(made.tower)
    shown = images.contiguous(memory_format=torch.channels_last)
    assert far(made(images).detach(), made.tower(shown).detach()) < 1e-4


def test_steps_of_the_copy_are_steps_of_the_tower():
    made, images = encoder.load("nano", pixels=64).train(), torch.randn(2, 3, 64, 64)
    optimiser = torch.optim.AdamW(made.parameters(), lr=1e-3, fused=True)
    before = made(images).detach()
    for _ in range(2):
        optimiser.zero_grad()
        made(images).square().sum().backward()
        optimiser.step()
    after = made(images).detach()
    assert far(after, made.tower(images).detach()) < 1e-3 < 1e-2 < far(before, after)
    with torch.no_grad():
        assert far(made.eval()(images), after) < 1e-3
    weights = encoder.load("nano", pixels=64).state_dict()
    made.load_state_dict(weights)
    assert far(made.train()(images).detach(), before) < 1e-5


def test_modes_and_frozen_weights_are_those_of_the_tower():
    tower, images = alive("resnet18"), torch.randn(2, 3, 64, 64)
    light = still_norm.light(tower, images)
    assert still_norm.light(tower, images) is light
    tower.layer1[0].bn1.train()  # statistics that move are not folded
    other = still_norm.light(tower, images)
    assert other is not light
    count = [
        sum(isinstance(one, still_norm.Joined) for one in net.modules()) for net in (light, other)
    ]
    assert count == [20, 19]
    tower.layer1.requires_grad_(False)
    _, found = gradients(still_norm.light(tower, images), tower, images)
    assert {name for name, grad in found.items() if grad is None} == {
        name for name, _ in tower.named_parameters() if name.startswith("layer1")
    }


class Crossed(nn.Module):
    """Its parts are used in another order than they are named."""

    def __init__(self):
        super().__init__()
        self.one, self.norm = nn.Conv2d(3, 3, 1, bias=False), nn.BatchNorm2d(3).eval()
        self.norm.running_mean.fill_(5)
        self.norm.bias.data.fill_(0.5)

    def forward(self, images):
        return self.one(self.norm(images)).flatten(1)


@pytest.mark.parametrize(
    "tower",
    [
        Crossed(),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Flatten()),
        nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Flatten()).train(),
        nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4).eval(), nn.Flatten()),
    ],
    ids=["another order", "no normalisation", "statistics that move", "a bias of its own"],
)
def test_other_towers_are_left_alone(tower):
    images = torch.randn(2, 3, 4, 4)
    assert still_norm.light(tower, images) is tower


def test_where_relu6_ends_its_gradient_ends():
    given = torch.tensor([-1.0, 0, 1e-7, 3, 6 - 1e-6, 6, 7], requires_grad=True)
    made = still_norm.Clamped.apply(given * 1)
    made.sum().backward()
    wanted = given.detach().clone().requires_grad_()
    nn.functional.relu6(wanted).sum().backward()
    assert torch.equal(given.grad, wanted.grad)
    assert torch.equal(made, nn.functional.relu6(wanted))
