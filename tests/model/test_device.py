"""Devices and precision: chosen by the hardware and the kind of tower, the same every time."""

import pytest
import torch
from torch import nn

from klip.model import device, encoder
from klip.model.device import autocast, resolve_precision

DEPTHWISE = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8))
OTHERS = {
    "plain": nn.Conv2d(8, 8, 3),
    "grouped, as in ResNeXt": nn.Conv2d(8, 8, 3, groups=4),
    "linear": nn.Linear(2, 2),
    "one channel": nn.Conv2d(1, 1, 3),
    "1 x 1 on each channel": nn.Conv2d(8, 8, 1, groups=8),
}


def test_precision_is_resolved_by_the_hardware(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert resolve_precision("auto", "cpu") == "bf16"
    assert resolve_precision("fp32", "cpu") == "fp32"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"neon": True}, raising=False)
    assert resolve_precision("auto", "cpu") == "fp32"
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # an older torch
    assert resolve_precision("auto", "cpu") == "fp32"
    with autocast("bf16", "cpu"):
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.bfloat16
    with autocast("auto", "cpu"):
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.float32
    with pytest.raises(ValueError, match="auto, fp32, bf16 or fp16, got 'half'"):
        resolve_precision("half", "cpu")


@pytest.mark.parametrize("kind", OTHERS)
def test_only_depthwise_convolutions_are_trained_in_fp32_on_a_cpu(monkeypatch, kind):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **more: True)
    assert device.depthwise(DEPTHWISE) and not device.depthwise(OTHERS[kind])
    for where, wanted in (("cpu", "fp32"), ("cuda", "bf16")):
        assert device.resolve_precision("auto", where, trained=DEPTHWISE) == wanted
        assert device.resolve_precision("auto", where) == "bf16"  # embedding
        assert device.resolve_precision("auto", where, trained=OTHERS[kind]) == "bf16"
    assert (
        device.resolve_precision("bf16", "cpu", trained=DEPTHWISE) == "bf16"
    )  # who asks for it gets it
    with device.autocast("auto", "cpu", trained=DEPTHWISE):
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.float32


def test_lite0_and_convnext_are_depthwise_and_a_vit_is_not():
    with torch.device("meta"):
        kinds = {
            name: device.depthwise(encoder.load(f"timm:{name}:none").tower)
            for name in (
                "tf_efficientnet_lite0",
                "convnext_atto",
                "resnext50_32x4d",
                "vit_tiny_patch16_224",
            )
        }
    assert list(kinds.values()) == [True, True, False, False]
