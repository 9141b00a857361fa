"""Encoders: an image tower with the preprocessing that belongs to its weights.

Axes: B images, S pixels a side, D numbers per embedding, N images, K views.
"""

import copy
import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from open_clip.modified_resnet import ModifiedResNet
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from tqdm.auto import tqdm

from klip.model import folded, kept, readers, still_norm, towers, weights
from klip.model.augment import Preprocess
from klip.model.device import at_work, autocast
from klip.model.views import Views

BATCH = 64  # views embedded at a time
ALIKE = 16
"""Views of a batch, at least, for which kernels add up in one order on a CPU: an image then
has the same embedding, to the bit, whatever images are beside it."""
FEW = 2000  # fewer views are made without worker processes: starting those takes longer


class Encoder(nn.Module):
    """An image tower and its preprocessing: (B, 3, S, S) -> (B, D) of any length, fp32.

    `name` is what was asked for, `arch` and `config` the open_clip model it was built
    as.  Batch normalisation keeps the statistics of pre-training in either mode: a few
    products are no sample for new.
    """

    def __init__(
        self, tower: nn.Module, preprocess: Preprocess, *, name: str, arch: str, config: dict
    ) -> None:
        super().__init__()
        self.channels_last = towers.channels_last(tower)
        self.tower = tower.to(memory_format=torch.channels_last) if self.channels_last else tower
        self.preprocess, self.name, self.arch, self.config = preprocess, name, arch, config
        self.dim: int = config["embed_dim"]
        self._stages: list[str] = []
        self.eval()

    @property
    def device(self) -> torch.device:
        return next(self.tower.parameters()).device

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        if mode:
            folded.forget(self.tower)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def checkpointing(self, on: bool = True) -> None:
        """Keep only what lies between blocks for the backward pass: the same gradients."""
        still_norm.forget(self.tower)
        if isinstance(self.tower, ModifiedResNet):  # its own switch does nothing in open_clip 3.3
            self._stages = ["stem", "layer1", "layer2", "layer3", "layer4"] if on else []
        else:
            self.tower.set_grad_checkpointing(on)

    def forward(self, images: Tensor) -> Tensor:
        whole, also = self._embedded(images), self.config.get("also")
        if self.training or not also:
            return whole
        resized = nn.functional.interpolate(images, (also, also), mode="bicubic", antialias=True)
        other = self._embedded(resized)
        return (nn.functional.normalize(whole, dim=1) + nn.functional.normalize(other, dim=1)) / 2

    def _embedded(self, images: Tensor) -> Tensor:
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        here = images.device.type == "cpu" and not torch.compiler.is_compiling()
        learns = torch.is_grad_enabled()
        if self.training or learns:
            folded.forget(self.tower)
        elif here:
            return folded.folded(self.tower, images)(images).float()
        if not (self._stages and self.training):
            light = here and self.training and learns
            tower = still_norm.light(self.tower, images) if light else self.tower
            return tower(images).float()
        for stage in self._stages:
            images = checkpoint(getattr(self.tower, stage), images, use_reentrant=False)
        return self.tower.attnpool(images).float()


def build(
    config: dict, preprocess: Preprocess, *, name: str, arch: str = "", seed: int = 0
) -> Encoder:
    """An encoder with random weights, the same for one seed; config: see `towers.build`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower = towers.build(config)
    return Encoder(tower, preprocess, name=name, arch=arch or name, config=config)


def drop_projection(encoder: Encoder) -> None:
    """Take CLIP's `proj` away, in place: embeddings are pooled tokens.  ValueError: none."""
    if encoder.config.get("proj") == "drop":
        return
    if not isinstance(getattr(encoder.tower, "proj", None), nn.Parameter):
        raise ValueError(
            f"encoder: {encoder.name} has no projection to drop, a vision transformer of "
            "open_clip has; take proj keep"
        )
    encoder.dim = encoder.tower.proj.shape[0]
    encoder.tower.proj = None
    encoder.config = {**encoder.config, "embed_dim": encoder.dim, "proj": "drop"}


def load(
    model: str | Path, resize: str | None = None, *, pixels: int = 0, also: int = 0
) -> Encoder:
    """The encoder of a name (`weights.FORMS`), in eval mode and fp32, on the CPU.

    resize replaces the policy stored with the weights (open_clip's own: squash), pixels
    the image side (0: as stored).  also: side of a second view; outside training the
    embedding is the mean of both views' unit embeddings (multi-scale, as Radenovic et
    al. 2019).  Errors: see `weights.source`.
    """
    source = weights.source(str(model))
    found = source.fetch() if source.fetch else None  # first: building a tower takes long, too
    encoder = build(source.config, source.preprocess, name=str(model), arch=source.arch)
    if found is not None:
        source.fill(encoder.tower, found)
    stored, sides = source.preprocess, pixels or source.preprocess.size
    encoder.preprocess = stored.changed(resize=resize or stored.resize, size=sides)
    if sides != stored.size:
        towers.resize(encoder.tower, sides)
        encoder.config = {**encoder.config, "pixels": sides}
    if also and towers.sees_one_size(encoder.tower):
        raise ValueError(
            f"encoder: {model} has a table of positions and sees one size, {sides} pixels; "
            f"take also 0, got {also!r}"
        )
    if also:
        encoder.config = {**encoder.config, "also": also}
    return encoder


def fingerprint(encoder: Encoder) -> str:
    """16 hex digits: of the weights in fp32, the preprocessing and `also`, of nothing else."""
    seen = encoder.preprocess.to_dict()
    if encoder.config.get("also"):
        seen["also"] = encoder.config["also"]
    digest = hashlib.sha256(json.dumps(seen, sort_keys=True).encode())
    for name, value in sorted(encoder.tower.state_dict().items()):
        value = value.float() if value.is_floating_point() else value
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def interpolate(zero_shot: Encoder, fine_tuned: Encoder, *, alpha: float) -> Encoder:
    """WiSE-FT (Wortsman et al. 2022): weights (1 - alpha) zero_shot + alpha fine_tuned.
    ValueError: they differ in architecture or preprocessing."""
    start, between = zero_shot.tower.state_dict(), fine_tuned.tower.state_dict()
    shapes = [{name: value.shape for name, value in one.items()} for one in (start, between)]
    if shapes[0] != shapes[1] or zero_shot.preprocess != fine_tuned.preprocess:
        one, other = (f"{e.arch} ({e.name}, {e.preprocess})" for e in (zero_shot, fine_tuned))
        raise ValueError(
            "WiSE-FT: wants two checkpoints of one architecture and one preprocessing, got "
            f"{one} and {other}"
        )
    for name, value in between.items():
        if value.is_floating_point():
            between[name] = torch.lerp(start[name].to(value), value, alpha)
    mixed = copy.deepcopy(fine_tuned)
    mixed.tower.load_state_dict(between)
    mixed.name = f"{fine_tuned.name} (WiSE-FT {alpha:g})"
    return mixed


@torch.no_grad()
def embed(
    encoder: Encoder,
    images: Any,
    *,
    workers: int = 0,
    precision: str = "auto",
    progress: bool = False,
    views: int = 1,
    seed: int = 0,
    unit: bool = True,
    alike: bool = False,
    again: bool = False,
    remember: bool = False,
) -> Tensor:
    """Unit rows (N * views, D), fp32, on the CPU; of views, the plain one comes first.

    images: a `Catalogue`, or paths, or (H, W, 3) uint8 arrays, which are taken as they are;
    files of large JPEGs are decoded in part (`views.ENOUGH`).  For one seed every image
    gets the same views, whatever its neighbours.  Gallery and queries want one
    precision: bf16 and fp32 differ.  unit=False: as the tower gives them.  alike: small
    batches are filled up, see ALIKE.  again: another encoder will ask for the same files
    (`model.views`).  remember (files; alike, again): what was embedded before is looked
    up, the rest is kept for the next who asks (`model.kept`).
    """
    images = getattr(images, "files", images)
    if remember and len(images):
        how = {"precision": precision, "views": views, "seed": seed if views > 1 else 0}
        facts = [fingerprint(encoder), encoder.device.type, how, unit]
        more = {"workers": workers, "progress": progress, "unit": unit}
        more |= {"alike": True, "again": True}
        make = partial(embed, encoder, **how, **more)
        return kept.rows(images, facts, embed=make, views=views)
    asked = Views(images, encoder.preprocess, views=views, seed=seed, again=again)
    places, at_once = range(len(images)), max(1, BATCH // max(1, views))
    groups = [list(places[start : start + at_once]) for start in places[::at_once]]
    rows, bar = [], tqdm(total=len(images), unit="img", desc="embed", disable=not progress)
    with at_work(encoder), readers.one_sentence(BATCH), bar:
        beside = encoder.device.type == "cuda"
        few = len(images) * views < FEW
        arriving = readers.batches(
            asked,
            groups,
            workers=0 if beside and few else workers,
            room=(BATCH, encoder.preprocess.size),
            beside=beside,
        )
        for batch in arriving:
            shown = batch.flatten(0, 1)  # (B, 3, S, S)
            if alike and len(shown) < ALIKE:
                shown = torch.cat([shown, shown[:1].expand(ALIKE - len(shown), -1, -1, -1)])
            with autocast(precision, encoder.device):
                found = encoder(shown.to(encoder.device))[: batch.shape[0] * batch.shape[1]]
            found = nn.functional.normalize(found, dim=1) if unit else found
            rows.append(found.cpu())
            bar.update(len(batch))
    return torch.cat(rows) if rows else torch.empty(0, encoder.dim)
