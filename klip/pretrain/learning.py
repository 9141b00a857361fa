"""How the towers learn from lessons: the loop, and what a lesson costs.

Axis letters: B products in a batch, S pixels, L tokens, D embedding.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch
from open_clip.loss import ClipLoss
from torch import Tensor, nn
from tqdm.auto import tqdm

from klip.finetuning.loop import rate_factor
from klip.model.device import autocast
from klip.model.encoder import Encoder

Lessons = Iterable[tuple]
"""Pictures (2B, S, S, 3) uint8 as of `Batches`, words (B, L), perhaps a target (2B, D)."""


def learn(
    losses: Callable[[tuple], dict[str, Tensor]],
    lessons: Lessons,
    *,
    steps: int,
    groups: list[dict],
    warmup: int,
    log_every: int,
    progress: bool,
    weights: Mapping[str, float] = {},  # noqa: B006
) -> list[dict]:
    """Train what is in `groups` by the weighted sum of a lesson's losses (default 1).

    AdamW, warm-up, cosine, gradients clipped to 1; a row of figures every `log_every` steps.
    """
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: rate_factor(step, steps, warmup=warmup / steps)
    )
    trained = [parameter for group in groups for parameter in group["params"]]
    history, images, started = [], 0, time.perf_counter()
    for step, lesson in enumerate(tqdm(lessons, "lessons", steps, disable=not progress), 1):
        parts = losses(lesson)
        optimiser.zero_grad(set_to_none=True)
        sum(weights.get(name, 1) * part for name, part in parts.items()).backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        schedule.step()
        images += len(lesson[0])
        if step % log_every == 0 or step == steps:
            row = {"step": step, "images": images}
            row["images_per_s"] = images / (time.perf_counter() - started)
            row |= {name: part.item() for name, part in parts.items()}
            history.append(row)
            print(json.dumps(row), flush=True)
    return history


def seen(tower: Encoder, images: np.ndarray) -> Tensor:
    """Unit embeddings (2B, D) of pictures (2B, S, S, 3) uint8, in the fastest numbers."""
    device, how = tower.device, tower.preprocess
    mean, std = torch.tensor((how.mean, how.std), device=device).view(2, 3, 1, 1)
    pixels = (torch.as_tensor(images).to(device).permute(0, 3, 1, 2).float() / 255 - mean) / std
    with autocast("auto", device, trained=tower.tower if torch.is_grad_enabled() else None):
        return nn.functional.normalize(tower(pixels), dim=1)


def contrastive(left: Tensor, right: Tensor, *, scale: Tensor) -> Tensor:
    """CLIP's loss (Radford et al. 2021) of unit rows (B, D); row i belongs to row i."""
    return ClipLoss()(left, right, scale.exp().clamp(max=100))


def captioned(model: nn.Module, words: Tensor, *, target: Tensor) -> Tensor:
    """Mean loss of captions (B, L) against locked embeddings (2B, D) from `seen`."""
    said = model.encode_text(words.to(target.device), normalize=True)
    scale = model.logit_scale
    return sum(contrastive(images, said, scale=scale) for images in target.chunk(2)) / 2


def imitation(embedded: Tensor, target: Tensor) -> Tensor:
    """How far a pupil is from its teacher: 1 - cosine of the unit embeddings (2B, D), and
    of their similarities, which recognition uses (relational distillation, Park et al.
    2019, with cosines).
    """
    apart = (embedded @ embedded.T - target @ target.T).square().mean()
    return (1 - (embedded * target).sum(1)).mean() + 10 * apart


def answered(lessons: Lessons, teacher: Encoder, *, passes: int, seed: int) -> Iterator[tuple]:
    """The lessons with the teacher's embeddings as target; kept for later passes."""
    kept = []
    for images, words in lessons:
        with torch.no_grad():
            kept.append((images, words, seen(teacher, images)))
        yield kept[-1]
    rng = np.random.default_rng(seed)
    for _ in range(1, passes):
        yield from (kept[k] for k in rng.permutation(len(kept)))
