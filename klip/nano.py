"""NanoCLIP: pre-training of the small shipped encoders with open_clip's contrastive loss, on rendered products only.

What CLIP learns from the web, the nano towers learn from the rendered shop: brands of the range `pretrain`, which no
other range shares.  Axis letters: B products in a batch, S pixels, D embedding, N products in the corpus.
"""

from __future__ import annotations

import gzip
import json
import os
import time
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


def tokenizer(arch: str = "nanoclip"):
    """open_clip's own BPE tokenizer, its merges cut to the model's vocabulary (bytes, the first merges, two marks)."""
    from open_clip.tokenizer import SimpleTokenizer, default_bpe

    text = json.loads((paths.WEIGHTS / f"{arch}.json").read_text())["text_cfg"]
    merges = gzip.open(default_bpe()).read().decode().split("\n")[: text["vocab_size"] - 514 + 1]  # line 0: version
    short = paths.CACHE / f"bpe_{text['vocab_size']}.txt.gz"
    if not short.exists():
        short.parent.mkdir(parents=True, exist_ok=True)
        short.write_bytes(gzip.compress("\n".join(merges).encode()))
    return SimpleTokenizer(bpe_path=str(short), context_length=text["context_length"])


def build(arch: str):
    """The whole open_clip model (image and text tower) of `klip/weights/<arch>.json`, randomly initialised."""
    import open_clip

    open_clip.add_model_config(paths.WEIGHTS / f"{arch}.json")
    return open_clip.create_model(arch)


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

    def __getitem__(self, step: int):
        from klip.shop.design import caption
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
            words.append(caption(product, rng))
        return np.stack(clean), np.stack(shop), self.tokenize(words)


# ---------------------------------------------------------------------------------------------- training

def _read(model, file: str | Path) -> None:
    """Load a weight file that `write` wrote; one without a text tower leaves the model's own."""
    from safetensors.torch import load_file

    state = {name: value.float() if value.is_floating_point() else value for name, value in load_file(file).items()}
    model.load_state_dict(state, strict=False)


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
    from klip.encoder import autocast, load, quiet_worker

    torch.manual_seed(config.seed)
    tokenize = tokenizer(config.arch)
    model = build(config.arch)
    if config.start:
        _read(model, config.start)
    model.train().to(memory_format=torch.channels_last)
    teacher = load(config.teacher).eval() if config.teacher else None
    image_scale = torch.nn.Parameter(torch.tensor(np.log(1 / config.temperature), dtype=torch.float32))
    size = model.visual.image_size[0] if isinstance(model.visual.image_size, tuple) else model.visual.image_size
    products, packshots = corpus(config, progress=progress)
    loader = torch.utils.data.DataLoader(Batches(config, products, packshots, tokenize, size), batch_size=None,
                                         num_workers=2, prefetch_factor=4, worker_init_fn=quiet_worker)
    named = [*model.named_parameters(), ("image_scale", image_scale)]
    optimiser = torch.optim.AdamW([
        {"params": [p for _, p in named if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for _, p in named if p.ndim <= 1], "weight_decay": 0.0}], lr=config.lr, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.SequentialLR(optimiser, [
        torch.optim.lr_scheduler.LinearLR(optimiser, 0.01, 1.0, config.warmup),
        torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, config.steps - config.warmup))], [config.warmup])
    history, started = [], time.perf_counter()
    for step, (clean, shop, tokens) in enumerate(tqdm(loader, disable=not progress), 1):
        with autocast(config.precision, "cpu"):
            parts = losses(model, image_scale, normalise(torch.as_tensor(clean)), normalise(torch.as_tensor(shop)),
                           tokens, config, teacher)
        loss = parts["pair"] + config.text_weight * parts["text"] + parts.get("teacher", 0.0)
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
            write(model, config, history, out)
    return pd.DataFrame(history)


def write(model, config: PretrainConfig, history: list[dict], out: str | Path) -> None:
    """Both towers (a pupil: the image tower) as fp16 safetensors; metadata: arch, preprocess and provenance (recipe,
    renderer, loss history)."""
    from safetensors.torch import save_file

    from klip.augment import Preprocess
    from klip.checkpoint import atomic
    from klip.shop.sets import source_hash

    size = json.loads((paths.WEIGHTS / f"{config.arch}.json").read_text())["vision_cfg"]["image_size"]
    tensors = {name: value.detach().half().contiguous() if value.is_floating_point() else value.contiguous()
               for name, value in model.state_dict().items()
               if name != "attn_mask" and (name.startswith("visual.") or not config.teacher)}
    preprocess = Preprocess(size=size, mean=MEAN, std=STD, resize="squash")
    recipe = asdict(config) | {name: Path(getattr(config, name)).name for name in ("start", "teacher")}
    made = {"recipe": recipe, "renderer": source_hash(("sets.py", "store.py")), "history": history}
    if config.start:
        made["before"] = provenance(config.arch, config.start)
    facts = {"arch": config.arch, "preprocess": json.dumps(preprocess.to_dict()), "provenance": json.dumps(made)}
    atomic(Path(out), lambda part: save_file(tensors, part, facts))


# ---------------------------------------------------------------------------------------------- its own check

def provenance(arch: str = "nanoclip", file: str | Path = "") -> dict:
    """What a weight file says of its making: `recipe`, `renderer` (hash of the shop's code), `history`."""
    from safetensors import safe_open

    with safe_open(Path(file or paths.WEIGHTS / f"{arch}.safetensors"), "pt") as found:
        return json.loads(found.metadata()["provenance"])


def zero_shot(arch: str = "nanoclip", file: str | Path = "", lines: int = 300, seed: int = 0) -> pd.DataFrame:
    """Zero-shot classification by prompt, as CLIP does it, of packshots of the range `spare`, never trained on.

    One row per question: attribute, choices, correct, total, chance (of the most frequent answer, a fraction).
    """
    from klip.shop.design import colour_name, design
    from klip.shop.packshot import packshot
    from klip.shop.photo import on_white

    model, tokenize = build(arch), tokenizer(arch)
    _read(model, file or paths.WEIGHTS / f"{arch}.safetensors")
    model.eval()
    products, rng = design("spare", lines, (1, 1), seed), np.random.default_rng(seed)
    size = json.loads((paths.WEIGHTS / f"{arch}.json").read_text())["vision_cfg"]["image_size"]
    clean = np.stack([on_white(packshot(product, CORPUS_PIXELS), rng, size) for product in products])
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
