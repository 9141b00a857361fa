"""LCA against loops over windows; a timm tower as an encoder."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from klip.model import blocks, encoder, towers
from klip.model.augment import Preprocess
from klip.model.towers import LCA, TimmTower
from klip.model.weights import save

SMALL = {
    "model_name": "resnext50_32x4d",
    "layers": [1, 1, 1, 1],
    "channels": [8, 8, 16, 16],
    "cardinality": 2,
    "base_width": 16,
    "stem_width": 8,
}
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
                    concept = maps[image, :, top : top + k, left : left + k].mean(dim=(1, 2))
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
    made = encoder.build(
        CONFIG | {"lca": lca}, Preprocess(size=64, mean=(0.5,) * 3, std=(0.25,) * 3), name="small"
    )
    images = torch.rand(2, 3, 64, 64)
    again = encoder.load(save(made, tmp_path / "small.safetensors"))
    assert torch.equal(made(images), again(images)) and made(images).shape == (2, 64)
    assert encoder.fingerprint(made) == encoder.fingerprint(again)


def test_every_parameter_of_a_timm_tower_has_one_block_and_lca_is_on_top():
    tower = TimmTower(SMALL, lca=True)
    groups = blocks.partition(tower)
    names = [name for group in groups for name in group.parameters]
    assert sorted(names) == sorted(name for name, _ in tower.named_parameters())
    assert groups[-1].parameters == ("lca.shared.weight", "lca.shared.bias")
    assert groups[0].name == "stem" and "trunk.conv1.weight" in groups[0].parameters


VIT = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32},
}
COCA = {
    **VIT,
    "vision_cfg": {
        **VIT["vision_cfg"],
        "attentional_pool": True,
        "attn_pooler_heads": 2,
        "attn_pooler_queries": 4,
        "output_tokens": True,
    },
}
RESNET = {
    "embed_dim": 16,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 64, "image_size": 32},
}
TIMM_VIT = {
    "embed_dim": 64,
    "vision_cfg": {
        "timm_model_name": "test_vit",
        "timm_pool": "token",
        "timm_proj": "linear",
        "image_size": 160,
    },
}
MIXER = {"embed_dim": 512, "timm": {"model_name": "mixer_s32_224"}}
HALF = (0.5,) * 3


def made(config, size=32):
    return encoder.build(config, Preprocess(size=size, mean=HALF, std=HALF), name="small")


def test_coca_gives_the_pooled_embedding_and_trains():
    small = made(COCA)
    assert small(torch.rand(2, 3, 32, 32)).shape == (2, 16)
    small.train()(torch.rand(2, 3, 32, 32)).sum().backward()
    names = sorted(name for group in blocks.partition(small.tower) for name in group.parameters)
    assert names == sorted(name for name, p in small.tower.named_parameters() if p.requires_grad)
    assert small.tower.attn_pool.query.grad.abs().sum() > 0


def stretched(table, side):
    """Rows of a table (1 + h w, D) on another grid, the first one kept: bicubic and antialiased, from torch."""
    first, grid = table[:1], table[1:]
    old = int(len(grid) ** 0.5)
    grid = grid.T.reshape(1, -1, old, old)
    grid = nn.functional.interpolate(
        grid, (side, side), mode="bicubic", antialias=True, align_corners=False
    )
    return torch.cat([first, grid.flatten(2)[0].T])


@pytest.mark.parametrize(
    "pixels", [16, 48, 50]
)  # the last is no multiple of the patches: 2 pixels are not seen
@pytest.mark.parametrize(
    "config, get, patch",
    [
        (VIT, lambda tower: tower.positional_embedding, 8),
        (RESNET, lambda tower: tower.attnpool.positional_embedding, 32),
    ],
)
def test_other_pixels_interpolate_the_table_and_are_stored(config, get, patch, pixels, tmp_path):
    file, pixels = save(made(config), tmp_path / "small.safetensors"), pixels * patch // 8
    before, after = encoder.load(file), encoder.load(file, pixels=pixels)
    torch.testing.assert_close(
        get(after.tower), stretched(get(before.tower).detach(), pixels // patch)
    )
    assert after.preprocess.size == pixels and after(torch.rand(1, 3, pixels, pixels)).shape == (
        1,
        16,
    )
    again = encoder.load(save(after, tmp_path / "wide.safetensors"))
    assert encoder.fingerprint(again) == encoder.fingerprint(after) != encoder.fingerprint(before)
    assert get(after.tower).requires_grad


def test_pixels_of_its_own_and_none_change_nothing(tmp_path):
    file = save(made(VIT), tmp_path / "small.safetensors")
    kept = [encoder.fingerprint(encoder.load(file, pixels=pixels)) for pixels in (0, 32)]
    assert set(kept) == {encoder.fingerprint(encoder.load(file))}


def test_a_vision_transformer_of_timm_is_resized_by_timm_and_a_convolutional_network_simply_takes_it(
    tmp_path,
):
    for number, (config, size) in enumerate(((TIMM_VIT, 160), (CONFIG, 64))):
        file = save(made(config, size), tmp_path / f"{number}.safetensors")
        after = encoder.load(file, pixels=96)
        assert after(torch.rand(1, 3, 96, 96)).shape == (1, 64)
        again = encoder.load(save(after, tmp_path / "again.safetensors"))
        assert encoder.fingerprint(again) == encoder.fingerprint(after)


def test_a_tower_that_cannot_says_so_in_one_sentence():
    fixed = "this MlpMixer cannot take images of 96 x 96 pixels .its input size is fixed"
    for config, pixels, words in (
        (MIXER, 96, fixed),
        (VIT, 4, "this VisionTransformer cannot take images of 4 x 4"),
    ):
        tower = towers.build(config)
        with pytest.raises(ValueError, match=words) as caught:
            towers.resize(tower, pixels)
        assert "\n" not in str(caught.value) and "pixels 0" in str(caught.value)


@pytest.mark.parametrize(
    "convolutions, wanted",
    [
        ([nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)], True),
        ([nn.Conv2d(3, 8, 16, stride=16)], False),
        ([nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 1, stride=2)], False),
        ([nn.Conv2d(3, 8, 3), nn.Conv2d(16, 8, 1, stride=2)], True),
        ([nn.Conv2d(3, 8, 3), nn.Conv2d(32, 32, 1, stride=2, groups=4)], False),
    ],
)
def test_the_layout_is_channels_last_where_it_is_safe(convolutions, wanted):
    assert towers.channels_last(nn.Sequential(*convolutions)) is wanted


@pytest.mark.parametrize("name", ["fastvit_mci0"])
def test_a_mobileclip_trunk_trains_without_ending_the_process(name):
    """In a process of its own: in channels-last layout this one died in oneDNN's backward pass."""
    code = (
        f"import torch; from klip.model import encoder; tower = encoder.load('timm:{name}:none').train(); "
        "tower(torch.rand(2, 3, 256, 256)).sum().backward(); "
        "print(all(p.grad.isfinite().all().item() for p in tower.parameters() if p.grad is not None))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr[-500:]


def test_the_width_of_a_network_is_that_of_its_answer():
    """MobileNetV3 has a layer after its pooling."""
    with torch.device("meta"):
        wide = encoder.load("timm:mobilenetv3_small_050:none")
        assert wide(torch.empty(2, 3, 224, 224)).shape == (2, wide.dim)


def test_checkpointing_where_timm_has_none_is_one_sentence():
    tower = TimmTower({"model_name": "test_vit"})
    tower.trunk.set_grad_checkpointing = lambda on: (_ for _ in ()).throw(
        AssertionError("not supported")
    )
    with pytest.raises(ValueError, match="has no checkpointing; take checkpointing false"):
        tower.set_grad_checkpointing()
