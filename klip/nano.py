"""NanoCLIP: how the small shipped encoders were made, on two cores, from ImageNet features and the rendered shop.

`nanoclip` is an open_clip model whose image tower starts as EfficientNet-Lite0 with ImageNet weights and then learns,
with CLIP's contrastive loss and low block-wise rates, to match packshots, photographs and captions of the range
`pretrain`, whose brands no other range shares.  `nanovit` is a small Vision Transformer that is taught its embeddings.
Axis letters: B products in a batch, S pixels, D embedding, N products in the corpus, V views.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from klip import blocks, paths
from klip.augment import Preprocess
from klip.corpus import CORPUS_PIXELS, Batches, corpus
from klip.prompts import build, fill, tokenizer

MEAN = STD = (0.5, 0.5, 0.5)
"""Those of the ImageNet weights."""
RESIZE = "pad"


@dataclass(frozen=True)
class PretrainConfig:
    """One run.  The defaults made the shipped `nanoclip`; what differs for `nanovit` stands in its file."""

    arch: str = "nanoclip"  # klip/weights/<arch>.json
    lines: int = 4_000  # product lines in the corpus; a line has one to three flavours
    views: int = 2  # packshots rendered of a product: turned, another apple of the kind
    steps: int = 480
    batch: int = 64  # products a step; each gives one packshot, one photograph and one caption
    pixels: int = 128  # side in training; `test_pixels` sees more, as Touvron et al. 2019 found best
    test_pixels: int = 160
    wise: float = 0.5  # share of the trained weights in the image tower, the rest are ImageNet's (WiSE-FT)
    lr: float = 2e-4  # of the last block of the image tower
    decay: float = 0.85  # each earlier block has this times the rate
    frozen_blocks: int = 5  # low blocks that keep their ImageNet weights, the stem with them
    text_lr: float = 1e-3  # of the text tower, which starts from nothing
    text_steps: int = 120  # steps whose pictures the text tower learns to name once the image tower is finished
    text_passes: int = 8  # times that it goes through them
    weight_decay: float = 0.05
    warmup: int = 20  # steps
    text_weight: float = 0.1  # of the image-caption loss; the packshot-photograph loss has 1
    temperature: float = 0.07  # start of the learnt temperatures, as in CLIP
    strength: tuple[float, float] = (0.2, 1.0)  # how hard the photographs are, see klip.shop.photo
    cut: float = 0.5  # share of the pictures cut to the product's shape, as a detector does, and padded
    siblings: float = 0.25  # share of a batch drawn as flavours of one line
    teacher: str = ""  # weight file whose embeddings are matched instead (distillation)
    passes: int = 1  # times that a pupil goes through the pictures, whose embeddings the teacher gives once
    seed: int = 0


# ---------------------------------------------------------------------------------------------- training

def normalise(images: np.ndarray | Tensor) -> Tensor:
    """(B, S, S, 3) uint8 to (B, 3, S, S) float, channels last in memory."""
    pixels = torch.as_tensor(images).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def losses(model, image_scale: Tensor, images: Tensor, tokens: Tensor) -> dict[str, Tensor]:
    """Contrastive losses (Radford et al. 2021, open_clip's ClipLoss) of images (2B, 3, S, S), packshots first."""
    from open_clip.loss import ClipLoss

    packshots, photographs = model.encode_image(images, normalize=True).float().chunk(2)  # (B, D) each
    text = model.encode_text(tokens, normalize=True).float()  # (B, D)
    clip = ClipLoss()
    return {"pair": clip(packshots, photographs, image_scale.exp().clamp(max=100)),
            "text": clip(photographs, text, model.logit_scale.exp().clamp(max=100))}


def start(config: PretrainConfig) -> torch.nn.Module:
    """The open_clip model to be trained: a timm image tower has ImageNet weights, all else random ones."""
    from klip import imagenet

    torch.manual_seed(config.seed)
    model = build(config.arch)
    if hasattr(model.visual, "trunk"):
        state = imagenet.state_dict()
        tower = {name: value for name, value in state.items() if not name.startswith(imagenet.CLASSIFIER)}
        model.visual.trunk.load_state_dict(tower)
        blocks.freeze(model.visual, config.frozen_blocks)
    return model.to(memory_format=torch.channels_last)


def pretrain(config: PretrainConfig, out: str | Path, progress: bool = True, log_every: int = 50,
             sets: dict[str, pd.DataFrame] | None = None) -> pd.DataFrame:
    """Train `config.arch` and write `out` (safetensors, fp16); the loss history.

    Both towers learn together, the image tower is mixed with what it started as, and the text tower learns what that
    sees (`caption`).  A pupil has an image tower alone.  sets: those of `judges`; what `choices` finds on them is kept
    in the file.

    AdamW, warm-up, cosine, gradients clipped to 1, statistics of batch normalisation as ImageNet left them.  fp32; a
    pupil without depthwise convolutions in bf16, where the CPU computes in it.
    """
    from klip import encoder
    from klip.train import rate_factor

    model = start(config)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    teacher = encoder.load(config.teacher) if config.teacher else None
    steps = config.steps * (config.passes if teacher else 1)
    image_scale = torch.nn.Parameter(torch.tensor(np.log(1 / config.temperature), dtype=torch.float32))
    rest = [p for name, p in model.named_parameters() if not name.startswith("visual.")] + [image_scale]
    decay = 1.0 if teacher else config.decay
    groups = blocks.parameter_groups(model.visual, "blockwise", config.lr, decay, config.weight_decay)
    groups.append({"params": rest, "lr": config.text_lr, "weight_decay": 0.0, "name": "text"})
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: rate_factor(step, steps, config.warmup / steps))
    trained = [parameter for group in groups for parameter in group["params"]]

    products, packshots = corpus(config, progress=progress)
    loader = torch.utils.data.DataLoader(
        Batches(config, products, packshots, tokenizer(config.arch)), batch_size=None, num_workers=2,
        prefetch_factor=4, worker_init_fn=encoder.quiet_worker)
    lessons = taught(loader, teacher, config) if teacher else loader
    history, started = [], time.perf_counter()
    for step, (clean, shop, words) in enumerate(tqdm(lessons, total=steps, disable=not progress), 1):
        images = torch.cat([normalise(clean), normalise(shop)])
        if teacher is None:
            parts = losses(model, image_scale, images, words)
            loss = parts["pair"] + config.text_weight * parts["text"]
        else:
            with encoder.autocast("auto", "cpu", model.visual):
                embedded = model.visual(images)
            loss = imitation(embedded, words)
            parts = {"teacher": loss}
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        schedule.step()
        if step % log_every == 0 or step == steps:
            rate = step * 2 * config.batch / (time.perf_counter() - started)
            history.append({"step": step, "images": step * 2 * config.batch, "images_per_s": rate,
                            **{name: part.item() for name, part in parts.items()}})
            print(json.dumps(history[-1]), flush=True)
    chosen = choices(model, config, sets).to_dict("records") if sets else []
    model.load_state_dict(mixed(model, config, config.wise), strict=False)
    if teacher is None:
        history += caption(model, loader, config, progress)
    write(model, config, history, out, chosen)
    return pd.DataFrame(history)


def caption(model: torch.nn.Module, loader: Iterable, config: PretrainConfig, progress: bool = True) -> list[dict]:
    """Let the text tower learn what the image tower, mixed and locked, sees (LiT, Zhai et al. 2022); the loss history.

    The pictures of `text_steps` steps are embedded once and gone through `text_passes` times.
    """
    from open_clip.loss import ClipLoss

    from klip.train import rate_factor

    model.eval()
    with torch.no_grad():
        lessons = [(model.encode_image(normalise(np.concatenate([clean, shop])), normalize=True), words)
                   for clean, shop, words in itertools.islice(loader, config.text_steps)]
    order = np.random.default_rng(config.seed).permuted(
        np.tile(np.arange(len(lessons)), (config.text_passes, 1)), axis=1).ravel()
    text = [parameter for name, parameter in model.named_parameters() if not name.startswith("visual.")]
    optimiser = torch.optim.AdamW(text, config.text_lr, (0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: rate_factor(step, len(order), config.warmup / len(order)))
    history, clip = [], ClipLoss()
    for step, lesson in enumerate(tqdm(order, "captions", disable=not progress), config.steps + 1):
        images, words = lessons[lesson]
        said, scale = model.encode_text(words, normalize=True), model.logit_scale.exp().clamp(max=100)
        loss = sum(clip(part, said, scale) for part in images.chunk(2)) / 2
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if (step - config.steps) % len(lessons) == 0:
            history.append({"step": step, "images": step * 2 * config.batch, "caption": loss.item()})
    return history


def taught(loader: Iterable, teacher: torch.nn.Module, config: PretrainConfig) -> Iterator[tuple]:
    """Packshots, photographs and what the teacher makes of them, unit rows (2B, D); all are kept for later passes."""
    from klip.encoder import autocast

    kept = []
    for clean, shop, _ in loader:
        with torch.no_grad(), autocast("auto", "cpu"):
            target = teacher(torch.cat([normalise(clean), normalise(shop)]))
        kept.append((clean, shop, torch.nn.functional.normalize(target.float(), dim=1)))
        yield kept[-1]
    rng = np.random.default_rng(config.seed)
    for _ in range(1, config.passes):
        yield from (kept[k] for k in rng.permutation(len(kept)))


def imitation(embedded: Tensor, target: Tensor) -> Tensor:
    """How far a pupil is from its teacher: 1 - cosine of the embeddings (2B, D), and of their similarities (2B, 2B).

    The second part is what recognition uses (relational distillation, Park et al. 2019, with cosines).
    """
    embedded = torch.nn.functional.normalize(embedded.float(), dim=1)
    apart = (embedded @ embedded.T - target @ target.T).square().mean()
    return (1 - (embedded * target).sum(1)).mean() + 10 * apart


def mixed(model: torch.nn.Module, config: PretrainConfig, share: float) -> dict[str, Tensor]:
    """Tensors of the model whose image tower is `share` trained, the rest as it started (Wortsman et al. 2022)."""
    state = {name: value.detach() for name, value in model.state_dict().items() if name != "attn_mask"}
    if config.teacher or share == 1:
        return state
    for name, before in start(config).state_dict().items():
        if name.startswith("visual.") and before.is_floating_point():
            state[name] = torch.lerp(before, state[name], share)
    return state


def write(model, config: PretrainConfig, history: list[dict], out: str | Path,
          chosen: list[dict] | None = None) -> None:
    """Weights as fp16 safetensors (a pupil: the image tower alone); metadata: arch, preprocess, provenance."""
    from safetensors.torch import save_file

    from klip.files import atomic
    from klip.shop.sets import source_hash

    Path(out).parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: (value.half() if value.is_floating_point() else value).contiguous()
               for name, value in model.state_dict().items()
               if name != "attn_mask" and (name.startswith("visual.") or not config.teacher)}
    recipe = asdict(config) | {"teacher": Path(config.teacher).name}
    made = {"recipe": recipe, "renderer": source_hash(("sets.py", "store.py")), "history": history,
            "chosen": chosen or []}
    preprocess = Preprocess(config.test_pixels, MEAN, STD, RESIZE).to_dict()
    facts = {"arch": config.arch, "preprocess": json.dumps(preprocess), "provenance": json.dumps(made)}
    atomic(Path(out), lambda part: save_file(tensors, part, facts))


def judges(per_product: int = 10, photographs: int = 500) -> dict[str, pd.DataFrame]:
    """The real photographs on which resolution and mixing are chosen, as far as KLIP_DATA has them: GroZi-120 with at
    most `per_product` seeded crops of each product, and that many of GroceryStore's *training* photographs."""
    from klip import data

    found = {}
    if (paths.data_root() / "grozi-120").is_dir():
        grozi = data.load("grozi-120")
        asked = grozi["split"] == "query"
        crops = grozi[asked].sample(frac=1, random_state=0).groupby("product", sort=False).head(per_product)
        found["grozi-120 web1"] = pd.concat([grozi[~asked], crops], ignore_index=True)
        found["grozi-120 web1"].attrs = grozi.attrs
    if (paths.data_root() / "grocery-store").is_dir():
        grocery = data.load("grocery-store")
        shown, train = grocery[grocery["split"] == "gallery"], grocery[grocery["split"] == "train"]
        asked = train.sample(min(photographs, len(train)), random_state=0).assign(split="query")
        found["grocery-store, training photographs"] = pd.concat([shown, asked], ignore_index=True)
        found["grocery-store, training photographs"].attrs = grocery.attrs
    return found


def choices(model: torch.nn.Module, config: PretrainConfig, sets: dict[str, pd.DataFrame],
            pixels: Sequence[int] = (128, 160, 192), shares: Sequence[float] = (0, 0.25, 0.5, 0.75, 1)) -> pd.DataFrame:
    """Top-1 (a fraction) of each judge at each resolution and share of the trained weights, one packshot, one view."""
    from klip import encoder, metrics, zeroshot

    size, rows = json.loads((paths.WEIGHTS / f"{config.arch}.json").read_text()), []
    for share in shares:
        tensors = mixed(model, config, share)
        tower = {name.removeprefix("visual."): value for name, value in tensors.items() if name.startswith("visual.")}
        for side in pixels:
            judge = encoder.build(size, Preprocess(side, MEAN, STD, RESIZE), config.arch)
            judge.tower.load_state_dict(tower)
            for name, catalogue in sets.items():
                answers = zeroshot.evaluate(judge, catalogue, views=1, precision="auto")
                rows.append({"set": name, "pixels": side, "wise": share, "top1": metrics.score(answers).top1})
    return pd.DataFrame(rows, columns=["set", "pixels", "wise", "top1"])


def provenance(arch: str = "nanoclip", file: str | Path = "") -> dict:
    """What a weight file says of its making: `recipe`, `renderer` (hash of the shop's code), `history`, `chosen`."""
    from safetensors import safe_open

    with safe_open(Path(file or paths.WEIGHTS / f"{arch}.safetensors"), "pt") as found:
        return json.loads(found.metadata()["provenance"])


# ---------------------------------------------------------------------------------------------- its own check

def zero_shot(arch: str = "nanoclip", file: str | Path = "", lines: int = 300, seed: int = 0) -> pd.DataFrame:
    """Zero-shot classification by prompt, as CLIP does it, of packshots of the range `spare`, never trained on.

    One row per question: attribute, choices, correct, total, chance (of the most frequent answer, a fraction).
    """
    from klip.shop.design import colour_name, design
    from klip.shop.packshot import packshot
    from klip.shop.photo import on_white

    model, tokenize = build(arch), tokenizer(arch)
    fill(model, file or paths.WEIGHTS / f"{arch}.safetensors")
    model.eval()
    products, rng = design("spare", lines, (1, 1), seed), np.random.default_rng(seed)
    size = PretrainConfig().test_pixels
    clean = np.stack([on_white(packshot(product, CORPUS_PIXELS), rng, size) for product in products])
    questions = {"package": ("a packshot of a {}", [product.shape for product in products]),
                 "main colour": ("a photo of a {} package", [colour_name(product.palette[0]) for product in products]),
                 "kind of goods": ("a packshot of {}", [product.noun for product in products])}
    rows = []
    with torch.no_grad():
        images = torch.cat([model.encode_image(normalise(part), normalize=True)
                            for part in np.array_split(clean, max(1, len(clean) // 64))])  # (N, D)
        for attribute, (prompt, truth) in questions.items():
            answers = sorted(set(truth))
            text = model.encode_text(tokenize([prompt.format(answer) for answer in answers]), normalize=True)
            said = [answers[k] for k in (images @ text.T).argmax(1).tolist()]
            correct = sum(a == b for a, b in zip(said, truth, strict=True))
            rows.append({"attribute": attribute, "choices": len(answers), "correct": correct, "total": len(truth),
                         "chance": max(map(truth.count, answers)) / len(truth)})
    return pd.DataFrame(rows)
