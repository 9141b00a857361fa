"""What a fine-tuning step keeps in memory, counted on tensors without numbers.

The tower runs once on fake tensors (shapes and types of a GPU, no numbers, no GPU), with PyTorch's own autocast rules,
and every tensor kept for the backward pass is counted, each storage once.  B images of a micro-batch; sizes in bytes.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from klip import arcface, blocks, weights
from klip import encoder as encoders
from klip.augment import Preprocess
from klip.encoder import Encoder

SMALL, LARGE = 2, 4
"""The two batches from which bytes per image and bytes per step are told apart."""
ATTENTION = nn.functional.scaled_dot_product_attention
Storages = dict[int, tuple[Tensor, int]]
"""Bytes by storage, with a tensor that keeps it alive: no other storage may take its place in memory."""


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
    leaves of them; block: the largest block, without what it shares with `between`."""

    sizes: list[int]
    between: int
    block: int


@dataclass(frozen=True)
class Need:
    """Bytes of a model.  kept: all activations (fixed: weights cast by autocast); between: what stays of them with
    checkpointing; block: the largest checkpointed block; largest: an image's largest tensor; head: the loss's own."""

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
    if precision == "auto" and not torch.cuda.is_available():
        precision = "bf16"  # which takes the memory that fp16 takes
    precision = encoders.resolve_precision(precision, "cuda")
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


def described(model: str) -> tuple[dict, Preprocess]:
    """Config and preprocessing of a model; open_clip's ARCH alone will do, and weights play no part."""
    named = model in weights.NAMES or ":" in model or model.endswith(".safetensors")
    source = weights.source(model if named else f"{model}:none")
    return source.config, source.preprocess


def fill(module: nn.Module) -> None:
    """Put empty weights where a module was built on the meta device, in the current mode and on its device."""
    for part in module.modules():
        for name, value in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            empty = torch.empty(value.shape, dtype=value.dtype)
            setattr(part, name, nn.Parameter(empty) if isinstance(value, nn.Parameter) else empty)


def saved(encoder: Encoder, images: Tensor, precision: str) -> Saved:
    """What one forward pass of a batch (B, 3, S, S) keeps for its backward pass."""
    encoder.train()
    inside, inputs = defaultdict[nn.Module | None, Storages](dict), dict[nn.Module, Tensor]()  # by block, None: outside
    own, now = _storages(encoder), None

    def pack(tensor: Tensor) -> Tensor:
        return _note(tensor, inside[now], own)

    def enter(module: nn.Module, given: tuple) -> None:
        nonlocal now
        now, inputs[module] = module, given[0]

    def leave(*_: object) -> None:
        nonlocal now
        now = None

    with ExitStack() as during:
        for module in _checkpointed(encoder.tower):
            during.enter_context(module.register_forward_pre_hook(enter))
            during.enter_context(module.register_forward_hook(leave))
        during.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor))
        during.enter_context(_autocast(precision, images.device))
        during.enter_context(mock.patch.object(nn.functional, ATTENTION.__name__, _fused_attention))
        encoder(images)
    between = dict(inside.get(None, {}))
    for module, tensor in inputs.items():
        if module in inside:  # a frozen block keeps nothing
            _note(tensor, between, own)
    everything = {key: item for part in inside.values() for key, item in part.items()}
    alone = [{key: item for key, item in part.items() if key not in between}
             for module, part in inside.items() if module is not None]
    return Saved([size for _, size in everything.values()], _total(between), max(map(_total, alone), default=0))


def _storages(module: nn.Module) -> set[int]:
    """Those of the module's parameters, which are not counted."""
    return {parameter.untyped_storage()._cdata for parameter in module.parameters()}


def _note(tensor: Tensor, found: Storages, own: set[int]) -> Tensor:
    storage = tensor.untyped_storage()
    if storage._cdata not in own:
        found[storage._cdata] = tensor, storage.nbytes()
    return tensor


def _total(found: Storages) -> int:
    return sum(size for _, size in found.values())


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
        own = _storages(head)
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: _note(tensor, found, own), lambda tensor: tensor):
            head(torch.randn(images, dim, requires_grad=True), torch.arange(images) % products)
    return float(_total(found))


def _autocast(precision: str, device: torch.device) -> torch.autocast:
    """Autocast, also for fake tensors of a GPU where there is none, where it would switch itself off."""
    with (mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
          mock.patch("torch.cuda.is_bf16_supported", return_value=True)):
        return encoders.autocast(precision, device)


def _fused_attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *more: Any,
                     **options: Any) -> Tensor:
    """The kernel that a GPU takes, for fake tensors too; without a GPU PyTorch would choose the unfused product.

    A mode cannot do it: PyTorch switches modes off inside nn.MultiheadAttention.
    """
    if query.device.type != "cuda" or attn_mask is not None:
        return ATTENTION(query, key, value, attn_mask, *more, **options)
    return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, True)[0]
