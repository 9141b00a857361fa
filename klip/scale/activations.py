"""What a fine-tuning step keeps in memory, counted on tensors without numbers.

The tower runs once on fake tensors (shapes and types of a GPU, no numbers, no GPU),
with PyTorch's own autocast rules, and every tensor kept for the backward pass is
counted, each storage once.  B images of a micro-batch; sizes in bytes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from open_clip.modified_resnet import ModifiedResNet
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from klip.model import blocks, encoder as encoders, heads, weights
from klip.model.augment import Preprocess
from klip.model.device import autocast, resolve_precision
from klip.model.encoder import Encoder
from klip.settings.config import FinetuneConfig

SMALL, LARGE = 2, 4
"""The two batches from which bytes per image and bytes per step are told apart."""
ATTENTION = nn.functional.scaled_dot_product_attention


class Line(NamedTuple):
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
    """Bytes kept by a forward pass.  sizes: of each storage, in the order of their making;
    between: what checkpointing leaves of them; block: the largest, without what it shares
    with `between`."""

    sizes: list[int]
    between: int
    block: int


@dataclass(frozen=True)
class Need:
    """Bytes of a model.  kept: all activations (fixed: weights cast by autocast); between:
    what stays of them with checkpointing; block: the largest checkpointed block; largest:
    an image's largest tensor; head: the loss's own."""

    parameters: int
    trained: int
    head_parameters: int
    kept: Line
    between: Line
    block: Line
    largest: float
    head: Line

    def parts(
        self, micro: int, *, accumulate: int = 1, checkpointing: bool = False, ema: bool = False
    ) -> dict[str, float]:
        """Bytes by part at the peak of a step in `accumulate` micro-batches of `micro` images;
        their sum is the peak.  With one micro-batch gradients grow while activations go:
        only what exceeds these counts beside them."""
        activations = self.kept.at(micro)
        if checkpointing:
            # autocast's weights live to the end of the forward pass, a block's until its backward
            cast = self.kept.fixed - self.between.fixed
            activations = self.between.at(micro) + max(cast, self.block.at(micro))
        moving = activations + self.head.at(micro)
        gradients = 4.0 * (self.trained + self.head_parameters)
        return {
            "weights": 4.0 * self.parameters,
            "optimiser": 8.0 * self.trained,
            "averaged weights": 4.0 * self.parameters if ema else 0.0,
            "ArcFace head, its optimiser": 12.0 * self.head_parameters,
            "activations": activations,
            "ArcFace activations": self.head.at(micro),
            "gradients of activations": 2 * self.largest * micro,
            "gradients of weights": gradients if accumulate > 1 else max(0.0, gradients - moving),
        }


def need(
    model: str, precision: str = "auto", *, products: int = 6500, frozen_blocks: int = 0
) -> Need:
    """Count a model on fake tensors of a GPU; no weights are read, and none are needed for
    ARCH or ARCH:TAG."""
    if precision == "auto" and not torch.cuda.is_available():
        precision = "bf16"  # which takes the memory that fp16 takes
    precision = resolve_precision(precision, "cuda")
    config, preprocess = described(model)
    with torch.device("meta"):
        encoder = encoders.build(config, preprocess, name=model)
    with FakeTensorMode(), torch.device("cuda"):
        fill(encoder)
        blocks.freeze(encoder.tower, frozen_blocks)
        side = preprocess.size
        few = saved(encoder, torch.empty(SMALL, 3, side, side), precision=precision)
        many = saved(encoder, torch.empty(LARGE, 3, side, side), precision=precision)
        parameters = list(encoder.parameters())
    growths = [large - small for small, large in zip(few.sizes, many.sizes, strict=True)]
    head = [_head_bytes(products, encoder.dim, images=images) for images in (SMALL, LARGE)]
    return Need(
        parameters=sum(p.numel() for p in parameters),
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        head_parameters=products * encoder.dim,
        kept=Line.through(sum(few.sizes), sum(many.sizes)),
        between=Line.through(few.between, many.between),
        block=Line.through(few.block, many.block),
        largest=max(growths, default=0) / (LARGE - SMALL),
        head=Line.through(*head),
    )


def described(model: str) -> tuple[dict, Preprocess]:
    """Config and preprocessing of a model; open_clip's ARCH alone will do, and weights play
    no part."""
    named = model in weights.NAMES or ":" in model or model.endswith(".safetensors")
    source = weights.source(model if named else f"{model}:none")
    return source.config, source.preprocess


def fill(module: nn.Module) -> None:
    """Put empty weights where a module was built on the meta device, in the current mode
    and on its device."""
    for part in module.modules():
        for name, value in list(part.named_parameters(recurse=False)):
            setattr(part, name, nn.Parameter(torch.empty(value.shape, dtype=value.dtype)))
        for name, value in list(part.named_buffers(recurse=False)):
            setattr(part, name, torch.empty(value.shape, dtype=value.dtype))


def saved(encoder: Encoder, images: Tensor, *, precision: str) -> Saved:
    """What one forward pass of a batch (B, 3, S, S) keeps for its backward pass."""
    encoder.train()
    places = {module: place for place, module in enumerate(_checkpointed(encoder.tower))}
    inputs = dict[int, Tensor]()
    kept, now = list[tuple[int, Tensor]](), -1  # by block, -1 outside of all

    def enter(module: nn.Module, given: tuple) -> None:
        nonlocal now
        now = places[module]
        inputs[now] = given[0]

    def leave(*_: object) -> None:
        nonlocal now
        now = -1

    with ExitStack() as during:
        for module in places:
            during.enter_context(module.register_forward_pre_hook(enter))
            during.enter_context(module.register_forward_hook(leave))
        during.enter_context(_watched(lambda tensor: kept.append((now, tensor))))
        during.enter_context(_as_on_a_gpu(images.device.type, precision))
        encoder.tower(images)  # as it is: on a CPU a light copy would be trained
    inside = defaultdict[int, list[Tensor]](list)
    for place, tensor in kept:
        inside[place].append(tensor)
    outside = inside.pop(-1, [])
    # a frozen block keeps nothing and is not there
    between = _storages([*outside, *(inputs[place] for place in inside)], encoder)
    largest = 0
    for tensors in inside.values():
        block = _storages(tensors, encoder)
        largest = max(largest, sum(block[key] for key in block.keys() - between.keys()))
    everything = _storages([tensor for _, tensor in kept], encoder)
    return Saved(list(everything.values()), sum(between.values()), largest)


@contextmanager
def _as_on_a_gpu(kind: str, precision: str) -> Iterator[None]:
    """Inside, numbers have the types and attention the kernel of a GPU, though there may be none."""
    nn.functional.scaled_dot_product_attention = _fused_attention
    try:
        with autocast("fp32", kind):  # off; in the end it puts back what is set here
            if precision != "fp32":  # torch.autocast would switch itself off without a GPU
                number = torch.float16 if precision == "fp16" else torch.bfloat16
                torch.set_autocast_dtype(kind, number)
                torch.set_autocast_enabled(kind, True)
            yield
    finally:
        nn.functional.scaled_dot_product_attention = ATTENTION


def _watched(note: Callable[[Tensor], None]) -> torch.autograd.graph.saved_tensors_hooks:
    """Inside, every tensor that is kept for the backward pass is noted."""

    def pack(tensor: Tensor) -> Tensor:
        note(tensor)
        return tensor

    return torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)


def _storages(tensors: list[Tensor], module: nn.Module) -> dict[int, int]:
    """Bytes of each storage of some tensors, but for the module's parameters."""
    own = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
    storages = [tensor.untyped_storage() for tensor in tensors]
    return {one._cdata: one.nbytes() for one in storages if one._cdata not in own}


def _checkpointed(tower: nn.Module) -> list[nn.Module]:
    """The modules that `Encoder.checkpointing` runs again; of an unknown tower none, as if
    it had no such switch."""
    if isinstance(tower, VisionTransformer):
        return list(tower.transformer.resblocks)
    if isinstance(tower, ModifiedResNet):
        return [tower.layer1, tower.layer2, tower.layer3, tower.layer4]
    return []


def _head_bytes(products: int, dim: int, *, images: int) -> float:
    """Bytes that ArcFace keeps for its backward pass, counted on the CPU with real, small
    tensors."""
    kept = list[Tensor]()
    with torch.random.fork_rng([]), _watched(kept.append):
        head = heads.Head(FinetuneConfig(depth=1), products, dim=dim)
        head(torch.randn(images, dim, requires_grad=True), torch.arange(images) % products)
    return float(sum(_storages(kept, head).values()))


def _fused_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, *more: Any, **options: Any
) -> Tensor:
    """The kernel that a GPU takes, for fake tensors too; without a GPU PyTorch would choose
    the unfused product. A mode cannot do it: PyTorch switches modes off inside
    nn.MultiheadAttention."""
    if query.device.type != "cuda" or attn_mask is not None:
        return ATTENTION(query, key, value, attn_mask, *more, **options)
    return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, True)[0]
