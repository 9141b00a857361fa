"""NanoCLIP: pre-training of the small shipped encoders with open_clip's contrastive loss, on rendered products only.

What CLIP learns from the web, the nano towers learn from the rendered shop: brands of the range `pretrain`, which no
other range shares.  Axis letters: B products in a batch, S pixels, D embedding, N products in the corpus.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from klip import paths
from klip.prompts import build, fill, tokenizer

cv2.setNumThreads(0)  # its threads would not survive the fork of the loader's workers

CORPUS_PIXELS = 144  # side of a stored packshot: half again the encoder's, so that a crop still has detail
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@dataclass(frozen=True)
class PretrainConfig:
    """One pre-training run.  The defaults made the shipped `nanoclip`; `nanovit`: see the appendix notebook."""

    arch: str = "nanoclip"  # klip/weights/<arch>.json
    lines: int = 12_000  # product lines in the corpus; a line has one to three flavours
    views: int = 2  # packshots rendered of a product: turned, another apple of the kind
    steps: int = 1800
    batch: int = 128  # products a step; each gives one packshot, one photograph and one caption
    lr: float = 1.5e-3
    weight_decay: float = 0.1
    warmup: int = 150  # steps
    text_weight: float = 0.25  # of the image-caption loss; the packshot-photograph loss has 1
    temperature: float = 0.07  # start of the learnt temperatures, as in CLIP
    strength: tuple[float, float] = (0.2, 1.0)  # how hard the photographs are, see klip.shop.photo
    siblings: float = 0.25  # share of a batch drawn as flavours of one line
    start: str = ""  # weight file to go on from; its own recipe is then kept in the provenance
    teacher: str = ""  # weight file of an encoder whose embeddings are matched as well (distillation)
    precision: str = "auto"
    seed: int = 0


# ---------------------------------------------------------------------------------------------- corpus

def _packshots(file: str, start: int, products: list, seed: int) -> int:
    """Render `products` into rows start.. of the packshot file (N, V, P, P, 4), each turned at random in each view."""
    import cv2

    from klip.shop.packshot import packshot

    cv2.setNumThreads(1)
    rows = np.load(file, mmap_mode="r+")
    for row, product in enumerate(products, start):
        rng = np.random.default_rng((seed, row))
        for view in range(rows.shape[1]):
            rows[row, view] = packshot(product, CORPUS_PIXELS, (rng.uniform(-35, 35), rng.uniform(0, 18)), view)
    return len(products)


def corpus(config: PretrainConfig, workers: int = 2, progress: bool = True) -> tuple[list, np.ndarray]:
    """The N products of range `pretrain` and their packshots, a memory-mapped (N, V, P, P, 4) uint8 RGBA array."""
    from klip.shop.design import design

    products = design("pretrain", config.lines, (1, 3), config.seed)
    file = paths.CACHE / "nano" / f"packshots_{config.lines}_{config.views}_{config.seed}.npy"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part.npy")
        shape = (len(products), config.views, CORPUS_PIXELS, CORPUS_PIXELS, 4)
        np.lib.format.open_memmap(part, "w+", np.uint8, shape).flush()
        with ProcessPoolExecutor(workers) as pool, tqdm(total=len(products), disable=not progress) as bar:
            starts = range(0, len(products), 200)
            chunks = (products[s : s + 200] for s in starts)
            for done in pool.map(_packshots, repeat(str(part)), starts, chunks, repeat(config.seed)):
                bar.update(done)
        os.replace(part, file)
    return products, np.load(file, mmap_mode="r")


class Batches(torch.utils.data.Dataset):
    """Item `step`: packshots and photographs (B, S, S, 3) uint8 and token ids (B, L), drawn from (seed, step) alone."""

    def __init__(self, config: PretrainConfig, products: list, packshots: np.ndarray, tokenize, size: int):
        self.config, self.products, self.packshots = config, products, packshots
        self.tokenize, self.size = tokenize, size
        lines = pd.Series([f"{p.brand}/{p.line}" for p in products])
        self.line = lines.groupby(lines).indices
        self.siblings = [rows for rows in self.line.values() if len(rows) > 1]

    def __len__(self) -> int:
        return self.config.steps

    def rows(self, rng: np.random.Generator) -> np.ndarray:
        """B distinct products, a share of them as whole lines, whose flavours are hard to tell apart."""
        chosen: list[int] = []
        while len(chosen) < self.config.siblings * self.config.batch and self.siblings:
            chosen += self.siblings[rng.integers(len(self.siblings))].tolist()
        chosen += rng.choice(len(self.products), self.config.batch, replace=False).tolist()
        return np.array(list(dict.fromkeys(chosen))[: self.config.batch])

    def words(self, product, rng: np.random.Generator):
        """What is said of a product; `tokenize` takes a list of these."""
        from klip.shop.design import caption

        return caption(product, rng)

    def __getitem__(self, step: int):
        from klip.shop.photo import on_white, photograph

        rng = np.random.default_rng((self.config.seed, step))
        rows = self.rows(rng)
        clean, shop, words = [], [], []
        for row in rows:
            product, (one, other) = self.products[row], self.packshots[row, rng.integers(self.config.views, size=2)]
            around = [self.packshots[k, 0] for k in rng.choice(rows, 3)]
            style = "pile" if product.shape == "produce" and rng.random() < 0.6 else None
            clean.append(on_white(one, rng, self.size))
            shop.append(photograph(other, rng, self.size, around, style, rng.uniform(*self.config.strength)))
            words.append(self.words(product, rng))
        return np.stack(clean), np.stack(shop), self.tokenize(words)


# ---------------------------------------------------------------------------------------------- training

def normalise(images: torch.Tensor) -> torch.Tensor:
    """(B, S, S, 3) uint8 to (B, 3, S, S) float, channels last in memory."""
    pixels = images.permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def losses(model, image_scale, clean, shop, tokens, config: PretrainConfig, teacher=None) -> dict[str, torch.Tensor]:
    """Contrastive losses of one batch (Radford et al. 2021, open_clip ClipLoss), fp32 after the towers."""
    from open_clip.loss import ClipLoss

    unit = partial(torch.nn.functional.normalize, dim=-1)
    images = torch.cat([clean, shop])
    embedded = unit(model.encode_image(images).float())  # (2B, D)
    text = unit(model.encode_text(tokens).float())  # (B, D)
    packshots, photographs = embedded.chunk(2)
    clip = ClipLoss()
    parts = {"pair": clip(packshots, photographs, image_scale.exp().clamp(max=100)),
             "text": clip(photographs, text, model.logit_scale.exp().clamp(max=100))}
    if teacher is not None:
        with torch.no_grad():
            target = unit(teacher(images).float())
        parts["teacher"] = (1 - (embedded * target).sum(-1)).mean() * 5
    return parts


def pretrain(config: PretrainConfig, out: str | Path, progress: bool = True, log_every: int = 50) -> pd.DataFrame:
    """Train `config.arch`, write `out` (safetensors, fp16) every 250 steps and at the end; returns the loss history."""
    from klip.encoder import autocast, load

    torch.manual_seed(config.seed)
    tokenize = tokenizer(config.arch)
    model = build(config.arch)
    if config.start:
        fill(model, config.start)
    model.train().to(memory_format=torch.channels_last)
    teacher = load(config.teacher).eval() if config.teacher else None
    image_scale = torch.nn.Parameter(torch.tensor(np.log(1 / config.temperature), dtype=torch.float32))
    size = model.visual.image_size[0] if isinstance(model.visual.image_size, tuple) else model.visual.image_size
    products, packshots = corpus(config, progress=progress)

    def objective(clean, shop, tokens):
        with autocast(config.precision, "cpu"):
            parts = losses(model, image_scale, normalise(torch.as_tensor(clean)), normalise(torch.as_tensor(shop)),
                           tokens, config, teacher)
        return parts["pair"] + config.text_weight * parts["text"] + parts.get("teacher", 0.0), parts

    return fit(config, Batches(config, products, packshots, tokenize, size), objective,
               [*model.named_parameters(), ("image_scale", image_scale)],
               lambda history: write(model, config, history, out), progress, log_every)


def fit(config, batches: Batches, objective: Callable, named: list[tuple[str, torch.nn.Parameter]],
        save: Callable[[list[dict]], None], progress: bool = True, log_every: int = 50) -> pd.DataFrame:
    """AdamW over all batches, warm-up, cosine, gradients clipped to 1; vectors do not decay.  Returns the history.

    config: lr, weight_decay, warmup, steps, batch; objective(clean, shop, tokens): the loss and its parts by name.
    """
    from klip.encoder import quiet_worker

    loader = torch.utils.data.DataLoader(batches, batch_size=None, num_workers=2, prefetch_factor=4,
                                         worker_init_fn=quiet_worker)
    optimiser = torch.optim.AdamW([
        {"params": [p for _, p in named if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for _, p in named if p.ndim <= 1], "weight_decay": 0.0}], lr=config.lr, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.SequentialLR(optimiser, [
        torch.optim.lr_scheduler.LinearLR(optimiser, 0.01, 1.0, config.warmup),
        torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, config.steps - config.warmup))], [config.warmup])
    history, started = [], time.perf_counter()
    for step, batch in enumerate(tqdm(loader, disable=not progress), 1):
        loss, parts = objective(*batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
        optimiser.step()
        schedule.step()
        if step % log_every == 0 or step == config.steps:
            rate = step * 2 * config.batch / (time.perf_counter() - started)
            history.append({"step": step, "images": step * 2 * config.batch, "images_per_s": rate,
                            **{name: float(part.detach()) for name, part in parts.items()}})
            tqdm.write(json.dumps(history[-1])) if progress else print(json.dumps(history[-1]), flush=True)
        if step % 250 == 0 or step == config.steps:
            save(history)
    return pd.DataFrame(history)


def write(model, config: PretrainConfig, history: list[dict], out: str | Path) -> None:
    """Both towers (a pupil: the image tower) by `store`, with their preprocessing and what they went on from."""
    from klip.augment import Preprocess

    size = json.loads((paths.WEIGHTS / f"{config.arch}.json").read_text())["vision_cfg"]["image_size"]
    tensors = {name: value for name, value in model.state_dict().items()
               if name != "attn_mask" and (name.startswith("visual.") or not config.teacher)}
    before = {"before": provenance(config.arch, config.start)} if config.start else {}
    store(tensors, config, history, out, {"preprocess": Preprocess(size, MEAN, STD, "squash").to_dict()}, before)


def store(tensors: dict[str, torch.Tensor], config, history: list[dict], out: str | Path, facts: dict,
          before: dict | None = None) -> None:
    """Weights as fp16 safetensors; metadata: arch, `facts` as JSON, and provenance (recipe, renderer, loss history)."""
    from safetensors.torch import save_file

    from klip.files import atomic
    from klip.shop.sets import source_hash

    Path(out).parent.mkdir(parents=True, exist_ok=True)
    halves = {name: (value.detach().half() if value.is_floating_point() else value).contiguous()
              for name, value in tensors.items()}
    recipe = asdict(config)
    recipe |= {name: Path(recipe[name]).name for name in ("start", "teacher") if name in recipe}
    made = {"recipe": recipe, "renderer": source_hash(("sets.py", "store.py")), "history": history, **(before or {})}
    texts = {name: json.dumps(value) for name, value in (facts | {"provenance": made}).items()}
    atomic(Path(out), lambda part: save_file(halves, part, {"arch": config.arch, **texts}))


# ---------------------------------------------------------------------------------------------- its own check

def provenance(arch: str = "nanoclip", file: str | Path = "") -> dict:
    """What a weight file says of its making: `recipe`, `renderer` (hash of the shop's code), `history`."""
    from safetensors import safe_open

    with safe_open(Path(file or paths.WEIGHTS / f"{arch}.safetensors"), "pt") as found:
        return json.loads(found.metadata()["provenance"])


def unseen(lines: int, seed: int, size: int) -> tuple[list, np.ndarray]:
    """N products of the range `spare`, one a line, and a clean packshot of each, (N, S, S, 3) uint8."""
    from klip.shop.design import design
    from klip.shop.packshot import packshot
    from klip.shop.photo import on_white

    products, rng = design("spare", lines, (1, 1), seed), np.random.default_rng(seed)
    return products, np.stack([on_white(packshot(product, CORPUS_PIXELS), rng, size) for product in products])


def zero_shot(arch: str = "nanoclip", file: str | Path = "", lines: int = 300, seed: int = 0) -> pd.DataFrame:
    """Zero-shot classification by prompt, as CLIP does it, of packshots of the range `spare`, never trained on.

    One row per question: attribute, choices, correct, total, chance (of the most frequent answer, a fraction).
    """
    from klip.shop.design import colour_name

    model, tokenize = build(arch), tokenizer(arch)
    fill(model, file or paths.WEIGHTS / f"{arch}.safetensors")
    model.eval()
    size = json.loads((paths.WEIGHTS / f"{arch}.json").read_text())["vision_cfg"]["image_size"]
    products, clean = unseen(lines, seed, size)
    questions = {"package": ("a packshot of a {}", [product.shape for product in products]),
                 "main colour": ("a photo of a {} package", [colour_name(product.palette[0]) for product in products]),
                 "kind of goods": ("a packshot of {}", [product.noun for product in products])}
    rows = []
    with torch.no_grad():
        images = model.encode_image(normalise(torch.from_numpy(clean)), normalize=True)  # (N, D)
        for attribute, (prompt, truth) in questions.items():
            answers = sorted(set(truth))
            text = model.encode_text(tokenize([prompt.format(answer) for answer in answers]), normalize=True)
            said = [answers[k] for k in (images @ text.T).argmax(1).tolist()]
            correct = sum(a == b for a, b in zip(said, truth, strict=True))
            rows.append({"attribute": attribute, "choices": len(answers), "correct": correct, "total": len(truth),
                         "chance": max(map(truth.count, answers)) / len(truth)})
    return pd.DataFrame(rows)
