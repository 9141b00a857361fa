"""NanoCLIP: how the small shipped encoders were made, on two cores.

`nanoclip` is an open_clip model whose image tower starts as EfficientNet-Lite0 with
ImageNet weights and then learns, with CLIP's contrastive loss and low block-wise rates,
to match packshots, photographs and captions of the rendered range `pretrain`, whose
brands no other range shares.  `nanovit` is a small Vision Transformer that is taught
its embeddings.  Axis letters: B products in a batch, L tokens, D embedding.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from torch import Tensor, nn

from klip.data.catalogue import Catalogue
from klip.model import blocks, encoder, hub, imagenet, readers
from klip.model.device import default_device
from klip.model.encoder import Encoder
from klip.pretrain import judging
from klip.pretrain.corpus import Batches, corpus, preprocess
from klip.pretrain.learning import Lessons, answered, captioned, contrastive, imitation, learn, seen
from klip.recognise.prompts import build, tokenizer
from klip.settings import paths
from klip.settings.files import write_tensors
from klip.shop.sets import source_hash


@dataclass(frozen=True)
class PretrainConfig:
    """One run.  The defaults made `nanoclip`; what differs for `nanovit` stands in its file."""

    arch: str = "nanoclip"  # klip/weights/<arch>.json
    lines: int = 4_000  # product lines in the corpus; a line has one to three flavours
    views: int = 2  # packshots rendered of a product: turned, another apple of the kind
    steps: int = 480
    batch: int = 64  # products a step, each a packshot, a photograph and a caption
    pixels: int = 128  # side in training; a test sees more (Touvron et al. 2019)
    test_pixels: int = 160
    wise: float = 0.5  # share of the trained weights beside ImageNet's (WiSE-FT)
    lr: float = 2e-4  # of the last block of the image tower
    decay: float = 0.85  # each earlier block has this times the rate
    frozen_blocks: int = 5  # low blocks that keep their ImageNet weights, the stem with them
    text_lr: float = 1e-3  # of the text tower, from nothing, and of the temperatures
    text_weight: float = 0.1  # of the image-caption loss while both learn; pairs have 1
    text_steps: int = 120  # whose pictures are named when the image tower is finished
    text_passes: int = 8  # times that it goes through them
    weight_decay: float = 0.05
    warmup: int = 20  # steps
    temperature: float = 0.07  # start of the learnt temperatures, as in CLIP
    strength: tuple[float, float] = (0.2, 1.0)  # of the photographs, see klip.shop.photo
    cut: float = 0.5  # share of the pictures cut to the product, as by a detector
    siblings: float = 0.25  # share of a batch drawn as flavours of one line
    teacher: str = ""  # weight file whose embeddings are matched instead (distillation)
    passes: int = 1  # of a pupil through the pictures; the teacher sees them once
    seed: int = 0


def start(config: PretrainConfig) -> nn.Module:
    """The model to train: a timm image tower has ImageNet weights, the rest random ones."""
    torch.manual_seed(config.seed)
    model = build(config.arch)
    if hasattr(model.visual, "trunk"):
        hub.fill_trunk(model.visual.trunk, imagenet.state_dict())
        blocks.freeze(model.visual, config.frozen_blocks)
    return model


def pretrain(
    config: PretrainConfig,
    out: str | Path,
    *,
    progress: bool = True,
    log_every: int = 50,
    sets: dict[str, Catalogue] | None = None,
) -> pd.DataFrame:
    """Train `config.arch` and write `out` (safetensors, fp16); the history of its losses.

    Packshots, photographs and captions must find each other.  Then the image tower is
    mixed with what it started as and locked, and the text tower learns to name its
    embeddings (LiT, Zhai et al. 2022).  A pupil of `config.teacher` has an image tower
    alone.  sets: those of `judging.judges`; what `judging.choices` finds on them is kept in the file.
    """
    model = start(config).to(default_device())
    facts = json.loads((paths.WEIGHTS / f"{config.arch}.json").read_text(encoding="utf-8"))
    how = preprocess(config.test_pixels)
    tower = Encoder(model.visual, how, name=config.arch, arch=config.arch, config=facts).train()
    study = partial(learn, warmup=config.warmup, log_every=log_every, progress=progress)
    run = _Run(config, model, tower, _loader(config, progress), study)
    chosen: list[dict] = []
    if config.teacher:
        history = run.imitate()
    else:
        before = copy.deepcopy(tower)
        history = run.match()
        if sets:
            chosen = judging.choices(before, tower, sets=sets)
        run.tower = encoder.interpolate(before, tower, alpha=config.wise)
        model.visual = run.tower.tower
        shown = history[-1]["images"]
        history += [row | {"images": shown + row["images"]} for row in run.name()]
    write(model, config, out=out, history=history, chosen=chosen)
    return pd.DataFrame(history)


def _loader(config: PretrainConfig, progress: bool) -> Lessons:
    products, packshots = corpus(config, progress=progress)
    batches = Batches(config, products, packshots=packshots, tokenize=tokenizer(config.arch))
    how = {"num_workers": os.cpu_count(), "worker_init_fn": readers.quiet}
    return torch.utils.data.DataLoader(batches, batch_size=None, prefetch_factor=4, **how)


@dataclass
class _Run:
    """What is trained, on what, and by which loop (`learn`, with what never changes)."""

    config: PretrainConfig
    model: nn.Module
    tower: Encoder
    loader: Lessons
    study: Callable[..., list[dict]]

    def imitate(self) -> list[dict]:
        """A pupil's image tower learns the embeddings of its teacher, at one rate."""
        config = self.config
        teacher = encoder.load(config.teacher).to(self.tower.device)
        lessons = answered(self.loader, teacher, passes=config.passes, seed=config.seed)

        def losses(lesson: tuple) -> dict[str, Tensor]:
            images, _, target = lesson
            return {"teacher": imitation(seen(self.tower, images), target)}

        rates = _image_rates(replace(config, decay=1.0), self.tower)
        return self.study(losses, lessons, steps=config.steps * config.passes, groups=rates)

    def match(self) -> list[dict]:
        """Both towers learn: packshots, photographs and captions must find each other."""
        config, model, device = self.config, self.model, self.tower.device
        begins = np.log(1 / config.temperature)
        scale = nn.Parameter(torch.tensor(begins, dtype=torch.float32, device=device))

        def losses(lesson: tuple) -> dict[str, Tensor]:
            images, words = lesson
            packshots, photographs = seen(self.tower, images).chunk(2)
            said = model.encode_text(words.to(device), normalize=True)
            pair = contrastive(packshots, photographs, scale=scale)
            return {"pair": pair, "text": contrastive(photographs, said, scale=model.logit_scale)}

        rates = [*_image_rates(config, self.tower), _text_rates(config, model, scale)]
        weights = {"text": config.text_weight}
        return self.study(losses, self.loader, steps=config.steps, groups=rates, weights=weights)

    def name(self) -> list[dict]:
        """The text tower learns to name the embeddings of the finished image tower (LiT)."""
        config, model, passes = self.config, self.model, self.config.text_passes
        pictures = itertools.islice(self.loader, config.text_steps)
        lessons = answered(pictures, self.tower, passes=passes, seed=config.seed)

        def losses(lesson: tuple) -> dict[str, Tensor]:
            _, words, target = lesson
            return {"caption": captioned(model, words, target=target)}

        rates = [_text_rates(config, model)]
        return self.study(losses, lessons, steps=config.text_steps * passes, groups=rates)


def _image_rates(config: PretrainConfig, tower: Encoder) -> list[dict]:
    how = {"top_lr": config.lr, "decay": config.decay, "weight_decay": config.weight_decay}
    return blocks.parameter_groups(tower.tower, **how)


def _text_rates(config: PretrainConfig, model: nn.Module, *more: nn.Parameter) -> dict:
    """What is not the image tower, and more, with one rate and no decay."""
    named = model.named_parameters()
    text = [parameter for name, parameter in named if not name.startswith("visual.")]
    return {"params": [*text, *more], "lr": config.text_lr, "weight_decay": 0.0}


def write(
    model: nn.Module, config: PretrainConfig, *, out: str | Path, history: list, chosen: list
) -> None:
    """Weights as fp16 (a pupil: the image tower alone); metadata: arch, preprocess, provenance."""
    tensors = {}
    for name, value in model.state_dict().items():
        if name == "attn_mask" or (config.teacher and not name.startswith("visual.")):
            continue
        tensors[name] = value
    made = {
        "recipe": asdict(config) | {"teacher": Path(config.teacher).name},
        "renderer": source_hash(("plan.py", "sets.py", "store.py")),
        "history": history,
        "chosen": chosen,
    }
    told = {
        "arch": config.arch,
        "preprocess": json.dumps(preprocess(config.test_pixels).to_dict()),
        "provenance": json.dumps(made),
    }
    write_tensors(Path(out), tensors, facts=told, half=True)


def file(arch: str, *, ship: bool = False) -> Path:
    """Where weights are written: those that klip ships, or trial weights in the cache."""
    folder = paths.WEIGHTS if ship else paths.CACHE / "nano"
    return folder / f"{arch}.safetensors"


def provenance(arch: str = "nanoclip", file: str | Path = "") -> dict:
    """How a weight file was made: recipe, renderer (hash of the shop's code), history, chosen."""
    with safe_open(Path(file or paths.WEIGHTS / f"{arch}.safetensors"), "pt") as found:
        return json.loads(found.metadata()["provenance"])
