"""A finished run, in memory and in its folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from klip.finetuning import prepare, run_cache
from klip.model import encoder as encoders, heads
from klip.model.encoder import Encoder
from klip.model.weights import save
from klip.settings.config import FinetuneConfig
from klip.settings.files import atomic, write_json, write_tensors


@dataclass(frozen=True)
class Run:
    """A finished run.

    head: the loss with the weights it owns; label i is products[i].
    history: a row per step, of step, images, loss, lr_<group>, images_per_s, val_top1 (a
    fraction, NaN where not validated); with validate_every, row 0 is the frozen encoder.
    average: the encoder of the averaged weights, if config.ema.
    """

    encoder: Encoder
    head: heads.Head
    products: list[str]
    history: pd.DataFrame
    config: FinetuneConfig
    seconds: float
    path: Path | None
    average: Encoder | None = None

    def keep(self, frozen: Encoder, *, wise: float = 1.0) -> Path:
        """The file of what is kept of a cached run: last weights, mixed with the frozen ones.

        wise: share of the fine-tuned weights (WiSE-FT, Wortsman et al. 2022); 1: no mixing.
        ValueError: a run that was not cached, another architecture.
        """
        if self.path is None:
            raise ValueError(
                "fine-tuning: only a run with a folder can be kept; call finetune with cache=True"
            )
        if wise == 1:
            return self.path / "encoder.safetensors"
        mixed = encoders.interpolate(frozen, self.encoder, alpha=wise)
        file = self.path / f"encoder_wise_{wise:g}.safetensors"
        config = self.config.model_dump(mode="json")
        return save(mixed, file, wise=wise, config=config, seconds=self.seconds)


def write(run: Run, precision: str, *, left_out: dict[str, Any]) -> None:
    """Keep a run in its folder, with what was left out of its images; it counts from the
    moment run.json is there."""
    config = run.config.model_dump(mode="json")
    facts = {"config": config, "seconds": run.seconds, "precision": precision}
    save(run.encoder, run.path / "encoder.safetensors", **facts)
    if run.average is not None:
        save(run.average, run.path / "average.safetensors", **facts)
    write_tensors(run.path / "head.safetensors", run.head.state_dict())
    atomic(run.path / "history.csv", lambda part: run.history.to_csv(part, index=False))
    write_json(run.path / "run.json", facts | {"products": run.products, "left_out": left_out})
    (run.path / "state.pt").unlink(missing_ok=True)


def read(folder: Path, config: FinetuneConfig) -> Run:
    """The finished run of `config` that `folder` holds."""
    try:
        history = pd.read_csv(folder / "history.csv")
        facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        products = facts["products"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"fine-tuning: the run in {folder} is damaged ({type(error).__name__}); delete the "
            "folder to make it anew"
        ) from None
    encoder, average = encoders.load(folder / "encoder.safetensors"), None
    encoder.name = name(config)
    if config.ema:
        average = averaged(encoder, encoders.load(folder / "average.safetensors").tower)
    head = prepare.head_of(config, products, dim=encoder.dim)
    head.load_state_dict(run_cache.read(folder / "head.safetensors"))
    rest = history, config, facts["seconds"], folder, average
    return Run(encoder, head, products, *rest)


def name(config: FinetuneConfig) -> str:
    """What the encoder of a run is called."""
    return f"{config.model} fine-tuned (depth {config.depth}, seed {config.seed})"


def averaged(encoder: Encoder, tower: nn.Module) -> Encoder:
    """The encoder of the averaged weights beside that of the last ones."""
    title = f"{encoder.name}, averaged weights"
    kept = {"arch": encoder.arch, "config": encoder.config}
    return Encoder(tower, encoder.preprocess, name=title, **kept)
