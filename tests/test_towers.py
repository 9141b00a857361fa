"""LCA against loops over windows; a timm tower as an encoder."""

import pytest
import torch

from klip import blocks, encoder
from klip.augment import Preprocess
from klip.towers import LCA, TimmTower

SMALL = {"model_name": "resnext50_32x4d", "layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16], "cardinality": 2,
         "base_width": 16, "stem_width": 8}
CONFIG = {"embed_dim": 64, "timm": SMALL}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("side", [2, 3, 5])
def test_lca_is_the_mean_over_all_windows_but_single_places(side):
    torch.manual_seed(0)
    layer, maps = LCA(4), torch.randn(2, 4, side, side)
    torch.nn.init.normal_(layer.shared.weight)
    for image in range(2):
        total, count = torch.zeros(4), 0
        for k in range(2, side + 1):
            for top in range(side - k + 1):
                for left in range(side - k + 1):
                    concept = maps[image, :, top:top + k, left:left + k].mean(dim=(1, 2))
                    total += (layer.shared.weight @ concept + layer.shared.bias).clamp(min=0)
                    count += 1
        torch.testing.assert_close(layer(maps)[image], total / count)


def test_lca_starts_with_the_features_of_the_network():
    maps = torch.rand(2, 4, 2, 2)
    torch.testing.assert_close(LCA(4)(maps), maps.mean(dim=(2, 3)))


def test_lca_of_a_single_place_says_what_it_needs():
    with pytest.raises(ValueError, match=r"at least 2 x 2, got \(1, 1\)"):
        LCA(4)(torch.rand(1, 4, 1, 1))


@pytest.mark.parametrize("lca", [False, True])
def test_a_timm_tower_is_an_encoder_that_reloads_equal(tmp_path, lca):
    made = encoder.build(CONFIG | {"lca": lca}, Preprocess(64, (0.5,) * 3, (0.25,) * 3), "small")
    images = torch.rand(2, 3, 64, 64)
    again = encoder.load(encoder.save(made, tmp_path / "small.safetensors"))
    assert torch.equal(made(images), again(images)) and made(images).shape == (2, 64)
    assert encoder.fingerprint(made) == encoder.fingerprint(again)


def test_every_parameter_of_a_timm_tower_has_one_block_and_lca_is_on_top():
    tower = TimmTower(SMALL, lca=True)
    groups = blocks.partition(tower)
    names = [name for group in groups for name in group.parameters]
    assert sorted(names) == sorted(name for name, _ in tower.named_parameters())
    assert groups[-1].parameters == ("lca.shared.weight", "lca.shared.bias")
    assert groups[0].name == "stem" and "trunk.conv1.weight" in groups[0].parameters
