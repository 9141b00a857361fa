"""What a fine-tuning step keeps in memory, counted on tensors without numbers.

The tower runs once on fake tensors (shapes and types of a GPU, no numbers, no GPU), with PyTorch's own autocast rules,
and every tensor kept for the backward pass is counted, each storage once.  B images of a micro-batch; sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from klip import arcface, blocks, weights
from klip import encoder as encoders
from klip.augment import Preprocess
from klip.encoder import Encoder

SMALL, LARGE = 2, 4
"""The two batches from which bytes per image and bytes per step are told apart."""


@dataclass(frozen=True)
class Line:
    """Bytes that grow in a line with the batch."""

    fixed: float
    per_image: float

    def at(self, images: int) -> float:
        return self.fixed + images * self.per_image

    @classmethod
    def through(cls, small: float, large: float) -> Line:
        per_image = (large - small) / (LARGE - SMALL)
        return cls(small - SMALL * per_image, per_image)


@dataclass(frozen=True)
class Saved:
    """Bytes kept by a forward pass.  sizes: of each storage, in the order of their making; between: what checkpointing
    leaves of them; block: the largest block, without what it shares with `between`.
    """

    sizes: list[int]
    between: int
    block: int


@dataclass(frozen=True)
class Need:
    """Bytes of a model.  kept: all activations (fixed: weights cast by autocast); between: what stays of them with
    checkpointing; block: the largest checkpointed block; largest: an image's largest tensor; head: the loss's own.
    """

    parameters: int
    trained: int
    head_parameters: int
    kept: Line
    between: Line
    block: Line
    largest: float
    head: Line

    def parts(self, micro: int, accumulate: int = 1, checkpointing: bool = False,
              ema: bool = False) -> dict[str, float]:
        """Bytes by part at the peak of a step in `accumulate` micro-batches of `micro` images; their sum is the peak.

        With one micro-batch gradients grow while activations go: only what exceeds these counts beside them.
        """
        activations = self.kept.at(micro)
        if checkpointing:  # autocast's weights live to the end of the forward pass, a block's until its backward
            activations = self.between.at(micro) + max(self.kept.fixed - self.between.fixed, self.block.at(micro))
        moving = activations + self.head.at(micro)
        gradients = 4.0 * (self.trained + self.head_parameters)
        return {
            "weights": 4.0 * self.parameters,
            "optimiser": 8.0 * self.trained,
            "averaged weights": 4.0 * self.parameters * ema,
            "ArcFace head, its optimiser": 12.0 * self.head_parameters,
            "activations": activations,
            "ArcFace activations": self.head.at(micro),
            "gradients of activations": 2 * self.largest * micro,
            "gradients of weights": gradients if accumulate > 1 else max(0.0, gradients - moving),
        }


def need(model: str, precision: str = "auto", products: int = 6500, frozen_blocks: int = 0) -> Need:
    """Count a model on fake tensors of a GPU; no weights are read, and none are needed for ARCH or ARCH:TAG."""
    precision = _gpu_precision(precision)
    config, preprocess = described(model)
    with torch.device("meta"):
        encoder = encoders.build(config, preprocess, model)
    with FakeTensorMode(), torch.device("cuda"):
        fill(encoder)
        blocks.freeze(encoder.tower, frozen_blocks)
        few, many = (saved(encoder, torch.empty(n, 3, preprocess.size, preprocess.size), precision)
                     for n in (SMALL, LARGE))
        parameters = list(encoder.parameters())
    growth = max((b - a for a, b in zip(few.sizes, many.sizes, strict=True)), default=0) / (LARGE - SMALL)
    return Need(sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad),
                products * encoder.dim, Line.through(sum(few.sizes), sum(many.sizes)),
                Line.through(few.between, many.between), Line.through(few.block, many.block), growth,
                Line.through(*(_head_bytes(products, encoder.dim, n) for n in (SMALL, LARGE))))


def _gpu_precision(precision: str) -> str:
    """What `auto` becomes on the GPU here; without one bf16, which takes the memory that fp16 takes."""
    if precision == "auto" and not torch.cuda.is_available():
        return "bf16"
    return encoders.resolve_precision(precision, "cuda")


def described(model: str) -> tuple[dict, Preprocess]:
    """Config and preprocessing of a model; open_clip's ARCH alone will do, and weights play no part."""
    named = model in weights.NAMES or ":" in model or model.endswith(".safetensors")
    source = weights.source(model if named else f"{model}:none")
    return source.config, source.preprocess


def fill(module: nn.Module) -> None:
    """Put empty weights where a module was built on the meta device, in the current mode and on its device."""
    for part in module.modules():
        for name, value in part.named_parameters(recurse=False):
            setattr(part, name, nn.Parameter(torch.empty(value.shape, dtype=value.dtype)))
        for name, value in part.named_buffers(recurse=False):
            setattr(part, name, torch.empty(value.shape, dtype=value.dtype))


def saved(encoder: Encoder, images: Tensor, precision: str) -> Saved:
    """What one forward pass of a batch (B, 3, S, S) keeps for its backward pass."""
    encoder.train()
    own = {parameter.untyped_storage()._cdata for parameter in encoder.parameters()}
    inside: dict[int, Storages] = {}  # by block, -1 outside of all
    inputs: dict[int, Tensor] = {}
    places = {module: place for place, module in enumerate(_checkpointed(encoder.tower))}
    now = -1

    def pack(tensor: Tensor) -> Tensor:
        return _note(tensor, inside.setdefault(now, {}), own)

    def enter(module: nn.Module, given: tuple) -> None:
        nonlocal now
        now = places[module]
        inputs[now] = given[0]

    def leave(*_: object) -> None:
        nonlocal now
        now = -1

    hooks = [hook for module in places for hook in (module.register_forward_pre_hook(enter),
                                                    module.register_forward_hook(leave))]
    try:
        with (torch.autograd.graph.saved_tensors_hooks(pack, _same), _autocast(precision, images.device),
              _fused_attention()):
            encoder(images)
    finally:
        for hook in hooks:
            hook.remove()
    between = dict(inside.get(-1, {}))
    for place, tensor in inputs.items():
        if place in inside:  # a frozen block keeps nothing
            _note(tensor, between, own)
    everything = {key: item for part in inside.values() for key, item in part.items()}
    alone = [{key: item for key, item in part.items() if key not in between}
             for place, part in inside.items() if place >= 0]
    return Saved([item[1] for item in everything.values()], _total(between), max(map(_total, alone), default=0))


Storages = dict[int, tuple[Tensor, int]]
"""Bytes by storage, with a tensor that keeps it alive: no other storage may take its place in memory."""


def _note(tensor: Tensor, found: Storages, own: set[int]) -> Tensor:
    storage = tensor.untyped_storage()
    if storage._cdata not in own:
        found[storage._cdata] = tensor, storage.nbytes()
    return tensor


def _total(found: Storages) -> int:
    return sum(size for _, size in found.values())


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _checkpointed(tower: nn.Module) -> list[nn.Module]:
    """The modules that `Encoder.checkpointing` runs again; of an unknown tower none, as if it had no such switch."""
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.transformer import VisionTransformer

    if isinstance(tower, VisionTransformer):
        return list(tower.transformer.resblocks)
    if isinstance(tower, ModifiedResNet):
        return [tower.layer1, tower.layer2, tower.layer3, tower.layer4]
    return []


def _head_bytes(products: int, dim: int, images: int) -> float:
    """Bytes that ArcFace keeps for its backward pass, counted on the CPU with real, small tensors."""
    found: Storages = {}
    with torch.random.fork_rng([]):
        head = arcface.Head("arcface", products, dim)
        own = {parameter.untyped_storage()._cdata for parameter in head.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: _note(tensor, found, own), _same):
            head(torch.randn(images, dim, requires_grad=True), torch.arange(images) % products)
    return float(_total(found))


@contextmanager
def _autocast(precision: str, device: torch.device) -> Iterator[None]:
    """Autocast, also for fake tensors of a GPU where there is none: torch.autocast would switch itself off."""
    if precision == "fp32" or device.type != "cuda":
        with encoders.autocast(precision, device):
            yield
        return
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.float16 if precision == "fp16" else torch.bfloat16)
    try:
        yield
    finally:
        torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Give fake tensors of a GPU the kernel that a GPU takes; without one PyTorch would choose the unfused product.

    A mode cannot do it: PyTorch switches modes off inside nn.MultiheadAttention.
    """
    whole = nn.functional.scaled_dot_product_attention

    def fused(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *more: Any,
              **options: Any) -> Tensor:
        if query.device.type != "cuda" or attn_mask is not None:
            return whole(query, key, value, attn_mask, *more, **options)
        return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, True)[0]

    nn.functional.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        nn.functional.scaled_dot_product_attention = whole
