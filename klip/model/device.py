"""Where a network computes, and in which numbers."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from klip.settings.malloc import keep_memory

keep_memory()


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def at_work(encoder: nn.Module) -> Iterator[None]:
    """Inside, the encoder is on the GPU, if there is one, and in eval mode; afterwards
    where and as it was."""
    home, training = encoder.device, encoder.training
    if home.type == default_device() and not any(module.training for module in encoder.modules()):
        yield  # going through all weights would take half as long as embedding an image
        return
    encoder.to(default_device()).eval()  # the modes may take different attention kernels
    try:
        yield
    finally:
        encoder.to(home).train(training)


def depthwise(network: nn.Module) -> bool:
    """Has it convolutions of one channel to a filter (EfficientNet, ConvNeXt, FastViT)?"""
    found = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    return any(1 < m.groups == m.in_channels and max(m.kernel_size) > 1 for m in found)


def resolve_precision(
    precision: str, device: str | torch.device, *, trained: nn.Module | None = None
) -> str:
    """fp32, bf16 or fp16.  auto: bf16 where the hardware computes in it, fp16 on older
    GPUs, else fp32.  ValueError: another word.  trained: the network if the step has a
    backward pass, which on a CPU takes depthwise ones twice as long in bf16."""
    if precision in ("fp32", "bf16", "fp16"):
        return precision
    if precision != "auto":
        raise ValueError(f"precision must be auto, fp32, bf16 or fp16, got {precision!r}")
    kind = torch.device(device).type
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    can = getattr(torch.cpu, "get_capabilities", dict)()  # a recent addition to torch
    fast = kind == "cpu" and (can.get("avx512_bf16") or can.get("amx_bf16"))
    return "bf16" if fast and not (trained is not None and depthwise(trained)) else "fp32"


def autocast(
    precision: str, device: str | torch.device, *, trained: nn.Module | None = None
) -> torch.autocast:
    """The autocast context of a precision on a device; for fp32 one that does nothing."""
    precision = resolve_precision(precision, device, trained=trained)
    kind = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(torch.device(device).type, kind, enabled=precision != "fp32")
