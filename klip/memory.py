"""What a fine-tuning step needs of a GPU's memory, part by part, told before there is a GPU.

The tower runs once on fake tensors (shapes and types of a GPU, no numbers, no GPU), with PyTorch's own autocast rules,
and every tensor kept for the backward pass is counted, each storage once.  B images of a micro-batch; sizes in bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from klip import arcface, blocks
from klip import encoder as encoders
from klip.config import FinetuneConfig, Settings
from klip.encoder import Encoder

GIB = 2**30
RESERVE_GIB = 0.75
"""Kept free for the CUDA context, the workspaces of its libraries and what the allocator cannot use (A)."""
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


@dataclass(frozen=True)
class Plan:
    """Settings that fit.  micro: images at a time; parts: bytes at the peak, without the reserve."""

    model: str
    precision: str
    gpu_bytes: float
    reserve: float
    batch_size: int
    accumulate: int
    checkpointing: bool
    micro: int
    parts: dict[str, float]
    largest: dict[bool, int]
    """The largest micro-batch that fits without (False) and with (True) checkpointing; 0: none does."""
    need: Need
    images: int
    products: int
    frozen_blocks: int

    @property
    def peak(self) -> float:
        return sum(self.parts.values())

    @property
    def settings(self) -> dict[str, Any]:
        """By the names of FinetuneConfig, to be given with --set or papermill's -p."""
        found = {"batch_size": self.batch_size, "accumulate": self.accumulate, "checkpointing": self.checkpointing,
                 "precision": self.precision}
        return found | ({"frozen_blocks": self.frozen_blocks} if self.frozen_blocks else {})


def plan(model: str, gpu_gb: float = 11.0, images: int = 325_000, batch: int = 64, precision: str = "auto",
         products: int = 6500, frozen_blocks: int = 0, ema: bool = False, reserve_gb: float = RESERVE_GIB) -> Plan:
    """The fewest micro-batches that give `batch` images a step on a GPU of `gpu_gb` GiB; checkpointing only if needed.

    ValueError: an unknown model, a number out of range, a GPU too small for one image at a time.
    """
    limits = {"gpu_gb": (gpu_gb, 0), "images": (images, 1), "batch": (batch, 1), "products": (products, 2),
              "frozen_blocks": (frozen_blocks, 0), "reserve_gb": (reserve_gb, 0)}
    for name, (value, least) in limits.items():
        if not (math.isfinite(value) and value >= least) or name == "gpu_gb" and value == 0:
            least = "above 0" if name == "gpu_gb" else f"at least {least}"
            raise ValueError(f"plan: {name} must be {least}, got {value!r}")
    if frozen_blocks and "frozen_blocks" not in FinetuneConfig.model_fields:
        raise ValueError(f"plan: fine-tuning has no setting frozen_blocks yet, got {frozen_blocks}; leave it at 0")
    found = need(model, precision, products, frozen_blocks)
    budget = (gpu_gb - reserve_gb) * GIB

    def peak(micro: int, checkpointing: bool) -> float:
        return sum(found.parts(micro, math.ceil(batch / micro), checkpointing, ema).values())

    largest = {on: max((micro for micro in range(1, batch + 1) if peak(micro, on) <= budget), default=0)
               for on in (False, True)}
    checkpointing = not largest[False]
    if not largest[checkpointing]:
        least = peak(1, True) / GIB + reserve_gb
        raise ValueError(f"plan: {model} needs {least:.1f} GiB for one image at a time even with checkpointing, got a "
                         f"GPU of {gpu_gb:g} GiB; take a smaller model, or freeze low blocks")
    accumulate = math.ceil(batch / largest[checkpointing])
    micro = math.ceil(batch / accumulate)  # as `train` cuts a batch
    return Plan(model, precision, gpu_gb * GIB, reserve_gb * GIB, batch, accumulate, checkpointing, micro,
                found.parts(micro, accumulate, checkpointing, ema), largest, found, images, products, frozen_blocks)


def text(plan: Plan) -> str:
    """The plan for people: parts in GiB, what fits, and the settings to give."""
    rows = [*plan.parts.items(), ("peak", plan.peak), ("reserve", plan.reserve), ("GPU", plan.gpu_bytes)]
    how = "with" if plan.checkpointing else "without"
    lines = [f"{plan.model}: {plan.need.parameters:,} parameters, {plan.need.trained:,} of them trained, "
             f"{plan.products:,} products, {plan.micro} images at a time {how} checkpointing (predicted)"]
    lines += [f"  {name:<28}{size / GIB:7.2f} GiB" for name, size in rows]
    once, again = plan.need.kept, plan.need.between
    lines += [f"an image keeps {once.per_image / 1e6:.0f} MB for its backward pass, {again.per_image / 1e6:.0f} MB "
              "with checkpointing",
              f"largest micro-batch: {plan.largest[False]} without checkpointing, {plan.largest[True]} with it"
              + (f" (of the {plan.batch_size} asked)" if plan.largest[True] == plan.batch_size else ""),
              "checkpointing is " + ("needed" if plan.checkpointing else "not needed"),
              "settings: " + " ".join(f"--set {name}={_word(value)}" for name, value in plan.settings.items()),
              "papermill: " + " ".join(f"-p {name} {_word(value)}" for name, value in plan.settings.items()
                                       if name in Settings.model_fields)]
    return "\n".join(lines)


def speed_text(plan: Plan, images_per_s: float | None) -> str:
    """Images a second and hours of the whole run; None: there is no GPU to probe."""
    if images_per_s is None:
        return "speed: no GPU is here, so none was probed; run this command on the machine that will train"
    hours = plan.images / images_per_s / 3600
    return f"speed: {images_per_s:.1f} images/s by a short probe here, {hours:.1f} h for {plan.images:,} images"


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def need(model: str, precision: str = "auto", products: int = 6500, frozen_blocks: int = 0) -> Need:
    """Count a model on fake tensors of a GPU; no weights are read, and none are needed for ARCH or ARCH:TAG."""
    precision = _gpu_precision(precision)
    config, preprocess = described(model)
    with torch.device("meta"):
        encoder = encoders.build(config, preprocess, model)
    with FakeTensorMode(), torch.device("cuda"):
        fill(encoder)
        freeze(encoder.tower, frozen_blocks)
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


def described(model: str) -> tuple[dict, encoders.Preprocess]:
    """open_clip's config and the preprocessing of a model; ARCH alone will do, the weights play no part."""
    if model in encoders.SHIPPED or model.endswith(".safetensors"):
        loaded = encoders.load(model, device="cpu")
        return loaded.config, loaded.preprocess
    config = encoders._model_config(model.partition(":")[0])
    size = config["vision_cfg"]["image_size"]
    return config, encoders.Preprocess(size if isinstance(size, int) else size[0], (0.5,) * 3, (0.5,) * 3)


def fill(module: nn.Module) -> None:
    """Put empty weights where a module was built on the meta device, in the current mode and on its device."""
    for part in module.modules():
        for name, value in part.named_parameters(recurse=False):
            setattr(part, name, nn.Parameter(torch.empty(value.shape, dtype=value.dtype)))
        for name, value in part.named_buffers(recurse=False):
            setattr(part, name, torch.empty(value.shape, dtype=value.dtype))


def freeze(tower: nn.Module, count: int) -> None:
    """Take the stem and the first `count` blocks of a tower out of the training; 0 leaves all in."""
    if not count:
        return
    groups, named = blocks.partition(tower), dict(tower.named_parameters())
    inner = [group for group in groups if group.name.startswith("block")]
    if count > len(inner):
        raise ValueError(f"plan: frozen_blocks must be at most the {len(inner)} blocks of the tower, got {count}")
    for group in [groups[0], *inner[:count]]:
        for name in group.parameters:
            named[name].requires_grad_(False)


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
