"""NanoCLIP: how the small shipped encoders were made, on two cores, from ImageNet features and the rendered shop.

`nanoclip` is an open_clip model whose image tower starts as EfficientNet-Lite0 with ImageNet weights and then learns,
with CLIP's contrastive loss and low block-wise rates, to match packshots, photographs and captions of the range
`pretrain`, whose brands no other range shares.  `nanovit` is a small Vision Transformer that is taught its embeddings.
Axis letters: B products in a batch, S pixels, L tokens, D embedding, N products in the corpus.
"""

from __future__ import annotations

import copy
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from open_clip.loss import ClipLoss
from safetensors import safe_open
from torch import Tensor, nn
from tqdm.auto import tqdm

from klip.data import catalogue as data
from klip.finetuning.loop import rate_factor
from klip.finetuning.validation import few_queries
from klip.model import blocks, encoder, hub, imagenet
from klip.model.device import autocast, default_device
from klip.model.encoder import Encoder
from klip.pretrain.corpus import CORPUS_PIXELS, Batches, corpus, preprocess
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
    """One run.  The defaults made the shipped `nanoclip`; what differs for `nanovit` stands in its file."""

    arch: str = "nanoclip"  # klip/weights/<arch>.json
    lines: int = 4_000  # product lines in the corpus; a line has one to three flavours
    views: int = 2  # packshots rendered of a product: turned, another apple of the kind
    steps: int = 480
    batch: int = 64  # products a step; each gives one packshot, one photograph and one caption
    pixels: int = (
        128  # side in training; `test_pixels` sees more, as Touvron et al. 2019 found best
    )
    test_pixels: int = 160
    wise: float = (
        0.5  # share of the trained weights in the image tower, the rest are ImageNet's (WiSE-FT)
    )
    lr: float = 2e-4  # of the last block of the image tower
    decay: float = 0.85  # each earlier block has this times the rate
    frozen_blocks: int = 5  # low blocks that keep their ImageNet weights, the stem with them
    text_lr: float = 1e-3  # of the text tower, which starts from nothing, and of the temperatures
    text_weight: float = (
        0.1  # of the image-caption loss while both towers learn; the packshot-photograph loss has 1
    )
    text_steps: int = (
        120  # steps whose pictures the text tower learns to name once the image tower is finished
    )
    text_passes: int = 8  # times that it goes through them
    weight_decay: float = 0.05
    warmup: int = 20  # steps
    temperature: float = 0.07  # start of the learnt temperatures, as in CLIP
    strength: tuple[float, float] = (0.2, 1.0)  # how hard the photographs are, see klip.shop.photo
    cut: float = (
        0.5  # share of the pictures cut to the product's shape, as a detector does, and padded
    )
    siblings: float = 0.25  # share of a batch drawn as flavours of one line
    teacher: str = ""  # weight file whose embeddings are matched instead (distillation)
    passes: int = (
        1  # times that a pupil goes through the pictures, whose embeddings the teacher gives once
    )
    seed: int = 0


def start(config: PretrainConfig) -> nn.Module:
    """The open_clip model to be trained: a timm image tower has ImageNet weights, all else random ones."""
    torch.manual_seed(config.seed)
    model = build(config.arch)
    if hasattr(model.visual, "trunk"):
        hub.fill_timm(imagenet.CLASSIFIER, model.visual, imagenet.state_dict())
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

    Packshots, photographs and captions must find each other.  Then the image tower is mixed with what it started as
    and locked, and the text tower learns to name its embeddings (LiT, Zhai et al. 2022).  A pupil of `config.teacher`
    has an image tower alone.  sets: those of `judges`; what `choices` finds on them is kept in the file.
    """
    model, device, chosen = start(config).to(default_device()), default_device(), []
    facts = json.loads((paths.WEIGHTS / f"{config.arch}.json").read_text())
    tower = Encoder(
        model.visual, preprocess(config.test_pixels), config.arch, config.arch, facts
    ).train()
    loader = torch.utils.data.DataLoader(
        Batches(config, *corpus(config, progress=progress), tokenizer(config.arch)),
        batch_size=None,
        num_workers=os.cpu_count(),
        prefetch_factor=4,
        worker_init_fn=encoder.quiet_worker,
    )
    decay = 1.0 if config.teacher else config.decay
    rates = blocks.parameter_groups(tower.tower, "blockwise", config.lr, decay, config.weight_decay)
    scale = nn.Parameter(
        torch.tensor(np.log(1 / config.temperature), dtype=torch.float32, device=device)
    )
    text = [
        parameter for name, parameter in model.named_parameters() if not name.startswith("visual.")
    ]
    how = {"warmup": config.warmup, "log_every": log_every, "progress": progress}

    def together(images: np.ndarray, words: Tensor) -> dict[str, Tensor]:
        packshots, photographs = seen(tower, images).chunk(2)
        said = model.encode_text(words.to(device), normalize=True)
        return {
            "pair": contrastive(packshots, photographs, scale),
            "text": contrastive(photographs, said, model.logit_scale),
        }

    if config.teacher:
        lessons = answered(
            loader, encoder.load(config.teacher).to(device), config.passes, config.seed
        )
        history = learn(
            lambda images, _, target: {"teacher": imitation(seen(tower, images), target)},
            lessons,
            config.steps * config.passes,
            rates,
            **how,
        )
    else:
        before, named = (
            copy.deepcopy(tower),
            {"params": text, "lr": config.text_lr, "weight_decay": 0.0},
        )
        history = learn(
            together,
            loader,
            config.steps,
            [*rates, named | {"params": [*text, scale]}],
            weights={"text": config.text_weight},
            **how,
        )
        if sets:
            chosen = choices(before, tower, sets)
        tower = encoder.interpolate(before, tower, config.wise)
        model.visual = tower.tower
        lessons = answered(
            itertools.islice(loader, config.text_steps), tower, config.text_passes, config.seed
        )
        told = learn(
            lambda _, words, target: {"caption": captioned(model, words, target)},
            lessons,
            config.text_steps * config.text_passes,
            [named],
            **how,
        )
        history += [row | {"images": history[-1]["images"] + row["images"]} for row in told]
    write(model, config, history, out, chosen)
    return pd.DataFrame(history)


def learn(
    losses: Callable[..., dict[str, Tensor]],
    lessons: Iterable[tuple],
    steps: int,
    groups: list[dict],
    warmup: int,
    log_every: int,
    progress: bool,
    weights: Mapping[str, float] = {},
) -> list[dict]:  # noqa: B006
    """Train what is in `groups` on `steps` lessons by the weighted sum of their losses, told every `log_every` steps.
    AdamW, warm-up, cosine, gradients clipped to 1.  A loss without a weight has 1."""
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: rate_factor(step, steps, warmup / steps)
    )
    trained = [parameter for group in groups for parameter in group["params"]]
    history, images, started = [], 0, time.perf_counter()
    for step, lesson in enumerate(tqdm(lessons, "lessons", steps, disable=not progress), 1):
        parts = losses(*lesson)
        optimiser.zero_grad(set_to_none=True)
        sum(weights.get(name, 1) * part for name, part in parts.items()).backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        schedule.step()
        images += len(lesson[0])
        if step % log_every == 0 or step == steps:
            history.append(
                {
                    "step": step,
                    "images": images,
                    "images_per_s": images / (time.perf_counter() - started),
                    **{name: part.item() for name, part in parts.items()},
                }
            )
            print(json.dumps(history[-1]), flush=True)
    return history


def seen(tower: Encoder, images: np.ndarray) -> Tensor:
    """Unit embeddings (2B, D) of pictures (2B, S, S, 3) uint8, in the numbers fastest for it."""
    device, how = tower.device, tower.preprocess
    mean, std = (
        torch.tensor(values, device=device).view(3, 1, 1) for values in (how.mean, how.std)
    )
    pixels = (torch.as_tensor(images).to(device).permute(0, 3, 1, 2).float() / 255 - mean) / std
    with autocast("auto", device, tower.tower if torch.is_grad_enabled() else None):
        return nn.functional.normalize(tower(pixels), dim=1)


def contrastive(left: Tensor, right: Tensor, scale: Tensor) -> Tensor:
    """CLIP's loss (Radford et al. 2021) of unit rows (B, D), row i of one belonging to row i of the other."""
    return ClipLoss()(left, right, scale.exp().clamp(max=100))


def captioned(model: nn.Module, words: Tensor, target: Tensor) -> Tensor:
    """Mean loss of captions (B, L) against locked embeddings of packshots and of photographs, (2B, D) in that order."""
    said = model.encode_text(words.to(target.device), normalize=True)
    return sum(contrastive(images, said, model.logit_scale) for images in target.chunk(2)) / 2


def imitation(embedded: Tensor, target: Tensor) -> Tensor:
    """How far a pupil is from its teacher: 1 - cosine of the unit embeddings (2B, D), and of their similarities, which
    recognition uses (relational distillation, Park et al. 2019, with cosines)."""
    apart = (embedded @ embedded.T - target @ target.T).square().mean()
    return (1 - (embedded * target).sum(1)).mean() + 10 * apart


def answered(lessons: Iterable[tuple], teacher: Encoder, passes: int, seed: int) -> Iterator[tuple]:
    """Pictures, words and what the teacher makes of the pictures, unit rows (2B, D); all are kept for later passes."""
    kept = []
    for images, words in lessons:
        with torch.no_grad():
            kept.append((images, words, seen(teacher, images)))
        yield kept[-1]
    rng = np.random.default_rng(seed)
    for _ in range(1, passes):
        yield from (kept[k] for k in rng.permutation(len(kept)))


def write(
    model: nn.Module,
    config: PretrainConfig,
    history: list[dict],
    out: str | Path,
    chosen: list[dict],
) -> None:
    """Weights as fp16 safetensors (a pupil: the image tower alone); metadata: arch, preprocess, provenance."""
    tensors = {
        name: (value.half() if value.is_floating_point() else value).cpu()
        for name, value in model.state_dict().items()
        if name != "attn_mask" and (name.startswith("visual.") or not config.teacher)
    }
    recipe = asdict(config) | {"teacher": Path(config.teacher).name}
    made = {
        "recipe": recipe,
        "renderer": source_hash(("sets.py", "store.py")),
        "history": history,
        "chosen": chosen,
    }
    write_tensors(
        Path(out),
        tensors,
        {
            "arch": config.arch,
            "preprocess": json.dumps(preprocess(config.test_pixels).to_dict()),
            "provenance": json.dumps(made),
        },
    )


def judges() -> dict[str, pd.DataFrame]:
    """The real photographs on which resolution and mixing are chosen, as far as KLIP_DATA has them: GroZi-120 with at
    most 10 seeded crops of each product, and 500 of GroceryStore's *training* photographs."""
    found = {}
    if (paths.data_root() / "grozi-120").is_dir():
        found["grozi-120 web1"] = few_queries(data.load("grozi-120"), 10)
    if (paths.data_root() / "grocery-store").is_dir():
        grocery = data.load("grocery-store")
        shown, train = grocery[grocery["split"] == "gallery"], grocery[grocery["split"] == "train"]
        asked = train.sample(min(500, len(train)), random_state=0).assign(split="query")
        found["grocery-store, training photographs"] = pd.concat([shown, asked], ignore_index=True)
        found["grocery-store, training photographs"].attrs = grocery.attrs
    return found


def choices(before: Encoder, after: Encoder, sets: dict[str, pd.DataFrame]) -> list[dict]:
    """Top-1 (a fraction) of each judge at each resolution and share of the trained weights, one packshot, one view."""
    rows = []
    for share, side in itertools.product((0.0, 0.25, 0.5, 0.75, 1.0), (128, 160, 192, 224)):
        judge = encoder.interpolate(before, after, share)
        judge.preprocess = replace(judge.preprocess, size=side)
        for name, catalogue in sets.items():
            answers = evaluation.evaluate(judge, catalogue, views=1, precision="auto")
            rows.append(
                {"set": name, "pixels": side, "wise": share, "top1": metrics.score(answers).top1}
            )
    return rows


def provenance(arch: str = "nanoclip", file: str | Path = "") -> dict:
    """What a weight file says of its making: `recipe`, `renderer` (hash of the shop's code), `history`, `chosen`."""
    with safe_open(Path(file or paths.WEIGHTS / f"{arch}.safetensors"), "pt") as found:
        return json.loads(found.metadata()["provenance"])


def zero_shot(arch: str = "nanoclip") -> pd.DataFrame:
    """Zero-shot classification by prompt, as CLIP does it, of packshots of the range `spare`, never trained on.
    One row per question: attribute, choices, correct, total, chance (of the most frequent answer, a fraction)."""
    model, tokenize = build(arch, trained=True).eval(), tokenizer(arch)
    tower = encoder.load(paths.WEIGHTS / f"{arch}.safetensors")
    products, rng = design("spare", 300, (1, 1), 0), np.random.default_rng(0)
    clean = [
        on_white(packshot(product, CORPUS_PIXELS), rng, tower.preprocess.size)
        for product in products
    ]
    questions = {
        "package": ("a packshot of a {}", [product.shape for product in products]),
        "main colour": (
            "a photo of a {} package",
            [colour_name(product.palette[0]) for product in products],
        ),
        "kind of goods": ("a packshot of {}", [product.noun for product in products]),
    }
    rows = []
    with torch.no_grad():
        images = encoder.embed(tower, clean)  # (N, D)
        for attribute, (prompt, truth) in questions.items():
            answers = sorted(set(truth))
            text = model.encode_text(
                tokenize([prompt.format(answer) for answer in answers]), normalize=True
            )
            said = [answers[k] for k in (images @ text.T).argmax(1).tolist()]
            correct = sum(a == b for a, b in zip(said, truth, strict=True))
            rows.append(
                {
                    "attribute": attribute,
                    "choices": len(answers),
                    "correct": correct,
                    "total": len(truth),
                    "chance": max(map(truth.count, answers)) / len(truth),
                }
            )
    return pd.DataFrame(rows)
