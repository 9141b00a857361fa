"""Contenders that fine-tune: klip and what a user would take instead (`plain_training`).

All start from one tower, read the same JPEG files, and make the same number of steps of
the same batch in the same precision; each augments, optimises and treats batch
normalisation as its own documentation does.  A round is some steps; it counts images from
the end of its first step to the end of its last.
Run as a program it is one contestant (`contender.serve`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klip.scale import contender, plain_training
from klip.scale.contender import Round
from klip.scale.plain_training import Training

# What sets klip's malloc is imported by klip's contestants alone.
if TYPE_CHECKING:
    from klip.scale.contest import Contender
    from klip.scale.watch import Watched


def contenders(given: Training, names: Sequence[str] = ()) -> list[Contender]:
    """Contenders of these names; without names all."""
    from klip.scale import contest

    how = {"notes": NOTES, "names": names or list(CONTESTANTS)}
    return contest.entered("klip.scale.peers_training", asdict(given), **how)


def klip(given: dict[str, Any]) -> Round:
    """klip's whole loop, fed with the files."""
    from klip.scale import watch

    asked = Training(**given)
    loop = _loop(asked)

    def work() -> dict[str, Any]:
        watch.loop_rate(loop)
        return asked.counted(loop.ends)

    return work


def klip_compute(given: dict[str, Any]) -> Round:
    """klip's step on one batch of random numbers: what is left when nothing is read."""
    import torch

    asked = Training(**given)
    loop = _loop(asked)
    size = loop.encoder.preprocess.size
    images = torch.randn(asked.batch, 3, size, size)
    labels = torch.arange(asked.batch) % asked.products
    loop.encoder.train()

    def work() -> dict[str, Any]:
        loop.ends = []
        for _ in range(asked.steps):
            loop.train_step(images, labels)
        return asked.counted(loop.ends)

    return work


def klip_reading(given: dict[str, Any]) -> Round:
    """klip's loop with steps that do nothing: what is left when only images cost."""
    from klip.scale import watch

    asked = Training(**given)
    loop = _loop(asked)

    def work() -> dict[str, Any]:
        watch.loop_rate(loop, idle=True)
        return asked.counted(loop.ends)

    return work


def _loop(asked: Training) -> Watched:
    """klip's loop, ready for its first step."""
    import pandas as pd

    from klip.data.catalogue import Catalogue
    from klip.scale.watch import Watched
    from klip.settings.config import FinetuneConfig

    names = [f"product {label:05}" for label in asked.labels]
    table = pd.DataFrame({"image": asked.files, "product": names, "split": "train"})
    images = asked.steps * asked.batch
    config = FinetuneConfig(
        model=str(Path(asked.folder, "klip", "tower.safetensors")),
        images=images,
        depth=max(1, math.ceil(images / asked.products)),
        batch_size=asked.batch,
        precision=asked.precision,
        workers=asked.workers,
    )
    loop = Watched(config, Catalogue(table, name="contest"))
    loop.encoder.to(asked.device)
    loop.begin()
    loop.ends = []
    return loop


CONTESTANTS = {
    "klip": klip,
    "klip compute": klip_compute,
    "klip reading": klip_reading,
    "pml": plain_training.pml,
    "oml": plain_training.oml,
    "plain": plain_training.plain,
}
NOTES = {
    "klip compute": "steps on random numbers, nothing is read",
    "klip reading": "images are read and changed, steps do nothing",
    "pml": "MetricLossOnly of pytorch-metric-learning",
    "oml": "loop, loss and extractor of open-metric-learning; its datasets want albumentations",
    "plain": "a loop of one's own on open_clip, with PML's ArcFace",
}

if __name__ == "__main__":
    contender.serve(CONTESTANTS)
