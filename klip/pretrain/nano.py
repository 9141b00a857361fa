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

from klip.data import catalogue as data
from klip.finetuning.validation import few_queries
from klip.model import blocks, encoder, hub, imagenet
from klip.model.device import default_device
from klip.model.encoder import Encoder
from klip.pretrain.corpus import CORPUS_PIXELS, Batches, corpus, preprocess
from klip.pretrain.learning import Lessons, answered, captioned, contrastive, imitation, learn, seen
from klip.recognise import evaluation
from klip.recognise.prompts import build, tokenizer
from klip.settings import paths
from klip.settings.files import write_tensors
from klip.shop.design import colour_name, design
from klip.shop.packshot import packshot
from klip.shop.photo import on_white
from klip.shop.sets import source_hash
from klip.stats import metrics


@dataclass(frozen=True)
class PretrainConfig:
    """One run.  The defaults made `nanoclip`; what differs for `nanovit` stands in its file."""

    arch: str = "nanoclip"  # klip/weights/<arch>.json
    lines: int = 4_000  # product lines in the corpus; a line has one to three flavours
    views: int = 2  # packshots rendered of a product: turned, another apple of the kind
    steps: int = 480
    batch: int = 64  # products a step; each gives one packshot, one photograph and one caption
    pixels: int = 128  # side in training; a test sees more (Touvron et al. 2019)
    test_pixels: int = 160
    wise: float = 0.5  # share of the trained weights in the image tower beside ImageNet's (WiSE-FT)
    lr: float = 2e-4  # of the last block of the image tower
    decay: float = 0.85  # each earlier block has this times the rate
    frozen_blocks: int = 5  # low blocks that keep their ImageNet weights, the stem with them
    text_lr: float = 1e-3  # of the text tower, which starts from nothing, and of the temperatures
    text_weight: float = 0.1  # of the image-caption loss while both learn; that of pairs has 1
    text_steps: int = 120  # whose pictures the text tower names when the image tower is finished
    text_passes: int = 8  # times that it goes through them
    weight_decay: float = 0.05
    warmup: int = 20  # steps
    temperature: float = 0.07  # start of the learnt temperatures, as in CLIP
    strength: tuple[float, float] = (0.2, 1.0)  # how hard the photographs are, see klip.shop.photo
    cut: float = 0.5  # share of the pictures cut to the product, as by a detector, and padded
    siblings: float = 0.25  # share of a batch drawn as flavours of one line
    teacher: str = ""  # weight file whose embeddings are matched instead (distillation)
    passes: int = 1  # times that a pupil goes through the pictures; the teacher sees them once
    seed: int = 0


def start(config: PretrainConfig) -> nn.Module:
    """The model to be trained: a timm image tower has ImageNet weights, all else random ones."""
    torch.manual_seed(config.seed)
    model = build(config.arch)
    if hasattr(model.visual, "trunk"):
        hub.fill_trunk(model.visual.trunk, imagenet.state_dict())
        blocks.freeze(model.visual, config.frozen_blocks)
    return model


def pretrain(
    config: PretrainConfig,
    out: str | Path,
    progress: bool = True,
    log_every: int = 50,
    sets: dict[str, pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """Train `config.arch` and write `out` (safetensors, fp16); the history of its losses.

    Packshots, photographs and captions must find each other.  Then the image tower is
    mixed with what it started as and locked, and the text tower learns to name its
    embeddings (LiT, Zhai et al. 2022).  A pupil of `config.teacher` has an image tower
    alone.  sets: those of `judges`; what `choices` finds on them is kept in the file.
    """
    model = start(config).to(default_device())
    facts = json.loads((paths.WEIGHTS / f"{config.arch}.json").read_text())
    how = preprocess(config.test_pixels)
    tower = Encoder(model.visual, how, name=config.arch, arch=config.arch, config=facts).train()
    loader = _loader(config, progress)
    study = partial(learn, warmup=config.warmup, log_every=log_every, progress=progress)
    chosen: list[dict] = []
    if config.teacher:
        history = _imitate(config, tower, loader, study)
    else:
        before = copy.deepcopy(tower)
        history = _match(config, model, tower, loader, study)
        if sets:
            chosen = choices(before, tower, sets)
        tower = encoder.interpolate(before, tower, alpha=config.wise)
        model.visual = tower.tower
        shown = history[-1]["images"]
        named = _name(config, model, tower, loader, study)
        history += [row | {"images": shown + row["images"]} for row in named]
    write(model, config, history, out, chosen)
    return pd.DataFrame(history)


def _loader(config: PretrainConfig, progress: bool) -> Lessons:
    batches = Batches(config, *corpus(config, progress=progress), tokenizer(config.arch))
    how = {"num_workers": os.cpu_count(), "prefetch_factor": 4}
    how["worker_init_fn"] = encoder.quiet_worker
    return torch.utils.data.DataLoader(batches, batch_size=None, **how)


def _imitate(
    config: PretrainConfig, tower: Encoder, loader: Lessons, study: Callable
) -> list[dict]:
    """A pupil's image tower learns the embeddings of its teacher, at one rate."""
    teacher = encoder.load(config.teacher).to(tower.device)
    lessons = answered(loader, teacher, config.passes, config.seed)

    def losses(images: np.ndarray, _: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"teacher": imitation(seen(tower, images), target)}

    one_rate = replace(config, decay=1.0)
    return study(losses, lessons, config.steps * config.passes, _image_rates(one_rate, tower))


def _match(
    config: PretrainConfig, model: nn.Module, tower: Encoder, loader: Lessons, study: Callable
) -> list[dict]:
    """Both towers learn: packshots, photographs and captions must find each other."""
    device, begins = tower.device, np.log(1 / config.temperature)
    scale = nn.Parameter(torch.tensor(begins, dtype=torch.float32, device=device))

    def losses(images: np.ndarray, words: Tensor) -> dict[str, Tensor]:
        packshots, photographs = seen(tower, images).chunk(2)
        said = model.encode_text(words.to(device), normalize=True)
        return {
            "pair": contrastive(packshots, photographs, scale),
            "text": contrastive(photographs, said, model.logit_scale),
        }

    rates = [*_image_rates(config, tower), _text_rates(config, model, scale)]
    return study(losses, loader, config.steps, rates, weights={"text": config.text_weight})


def _name(
    config: PretrainConfig, model: nn.Module, tower: Encoder, loader: Lessons, study: Callable
) -> list[dict]:
    """The text tower learns to name the embeddings of the finished image tower (LiT)."""
    pictures = itertools.islice(loader, config.text_steps)
    lessons = answered(pictures, tower, config.text_passes, config.seed)

    def losses(_: np.ndarray, words: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"caption": captioned(model, words, target)}

    steps = config.text_steps * config.text_passes
    return study(losses, lessons, steps, [_text_rates(config, model)])


def _image_rates(config: PretrainConfig, tower: Encoder) -> list[dict]:
    how = {"top_lr": config.lr, "decay": config.decay, "weight_decay": config.weight_decay}
    return blocks.parameter_groups(tower.tower, **how)


def _text_rates(config: PretrainConfig, model: nn.Module, *more: nn.Parameter) -> dict:
    """What is not the image tower, and more, with one rate and no decay."""
    named = model.named_parameters()
    text = [parameter for name, parameter in named if not name.startswith("visual.")]
    return {"params": [*text, *more], "lr": config.text_lr, "weight_decay": 0.0}


def write(
    model: nn.Module, config: PretrainConfig, history: list[dict], out: str | Path, chosen: list
) -> None:
    """Weights as fp16 (a pupil: the image tower alone); metadata: arch, preprocess, provenance."""
    tensors = {}
    for name, value in model.state_dict().items():
        if name == "attn_mask" or (config.teacher and not name.startswith("visual.")):
            continue
        tensors[name] = (value.half() if value.is_floating_point() else value).cpu()
    made = {
        "recipe": asdict(config) | {"teacher": Path(config.teacher).name},
        "renderer": source_hash(("sets.py", "store.py")),
        "history": history,
        "chosen": chosen,
    }
    told = {
        "arch": config.arch,
        "preprocess": json.dumps(preprocess(config.test_pixels).to_dict()),
        "provenance": json.dumps(made),
    }
    write_tensors(Path(out), tensors, facts=told)


def judges() -> dict[str, pd.DataFrame]:
    """The real photographs on which resolution and mixing are chosen, as far as KLIP_DATA
    has them: GroZi-120 with at most 10 seeded crops of each product, and 500 of
    GroceryStore's *training* photographs."""
    found = {}
    if (paths.data_root() / "grozi-120").is_dir():
        found["grozi-120 web1"] = few_queries(data.load("grozi-120"), 10)
    if (paths.data_root() / "grocery-store").is_dir():
        grocery = data.load("grocery-store")
        shown = grocery[grocery["split"] == "gallery"]
        train = grocery[grocery["split"] == "train"]
        asked = train.sample(min(500, len(train)), random_state=0).assign(split="query")
        both = pd.concat([shown, asked], ignore_index=True)
        both.attrs = grocery.attrs
        found["grocery-store, training photographs"] = both
    return found


def choices(before: Encoder, after: Encoder, sets: dict[str, pd.DataFrame]) -> list[dict]:
    """Top-1 (a fraction) of each judge, one packshot, one view, at each resolution and
    share of the trained weights."""
    rows = []
    for share, side in itertools.product((0.0, 0.25, 0.5, 0.75, 1.0), (128, 160, 192, 224)):
        judge = encoder.interpolate(before, after, alpha=share)
        judge.preprocess = judge.preprocess.changed(size=side)
        for name, catalogue in sets.items():
            answers = evaluation.evaluate(judge, catalogue, views=1, precision="auto")
            row = {"set": name, "pixels": side, "wise": share}
            rows.append(row | {"top1": metrics.score(answers).top1})
    return rows


def provenance(arch: str = "nanoclip", file: str | Path = "") -> dict:
    """How a weight file was made: recipe, renderer (hash of the shop's code), history, chosen."""
    with safe_open(Path(file or paths.WEIGHTS / f"{arch}.safetensors"), "pt") as found:
        return json.loads(found.metadata()["provenance"])


def zero_shot(arch: str = "nanoclip") -> pd.DataFrame:
    """Zero-shot classification by prompt, as CLIP does it, of packshots of the range
    `spare`, never trained on.  A row per question: attribute, choices, correct, total,
    chance (of the most frequent answer, a fraction)."""
    model, tokenize = build(arch, trained=True).eval(), tokenizer(arch)
    tower = encoder.load(paths.WEIGHTS / f"{arch}.safetensors")
    products, rng = design("spare", 300, (1, 1), 0), np.random.default_rng(0)
    side = tower.preprocess.size
    clean = [on_white(packshot(product, CORPUS_PIXELS), rng, side) for product in products]
    shapes = [product.shape for product in products]
    colours = [colour_name(product.palette[0]) for product in products]
    questions = {
        "package": ("a packshot of a {}", shapes),
        "main colour": ("a photo of a {} package", colours),
        "kind of goods": ("a packshot of {}", [product.noun for product in products]),
    }
    rows = []
    with torch.no_grad():
        images = encoder.embed(tower, clean)  # (N, D)
        for attribute, (prompt, truth) in questions.items():
            answers = sorted(set(truth))
            prompts = tokenize([prompt.format(answer) for answer in answers])
            text = model.encode_text(prompts, normalize=True)  # (answers, D)
            said = [answers[k] for k in (images @ text.T).argmax(1).tolist()]
            correct = sum(a == b for a, b in zip(said, truth, strict=True))
            chance = max(map(truth.count, answers)) / len(truth)
            rows.append((attribute, len(answers), correct, len(truth), chance))
    return pd.DataFrame(rows, columns=["attribute", "choices", "correct", "total", "chance"])
