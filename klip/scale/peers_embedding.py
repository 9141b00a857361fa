"""Contenders that embed a catalogue of JPEG files: klip and what a user would take instead.

A round embeds all files, from opening them to unit rows (N, D), N images of D numbers.
Run as a program it is one contestant (`contender.serve`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from klip.scale import contender, plain
from klip.scale.contender import Round, now

# What sets klip's malloc is imported by klip's contestants alone.
if TYPE_CHECKING:
    from klip.scale.contest import Contender

BATCH = 64
"""Images at a time, as klip's `embed` takes them."""


@dataclass(frozen=True)
class Embedding:
    """What a contestant is given.  folder: of `same_start.write`; out: a folder for the rows."""

    folder: str
    files: list[str]
    out: str
    workers: int = 2
    precision: str = "fp32"
    device: str = "cpu"

    def counted(self, name: str, rows: Tensor, *, started: float) -> dict[str, Any]:
        """What a round tells; its rows are kept for `agreement`."""
        seconds = now(self.device) - started
        np.save(Path(self.out, f"{name}.npy"), rows.cpu().numpy())
        return {"work": len(self.files), "seconds": seconds}


def contenders(given: Embedding, names: Sequence[str] = ()) -> list[Contender]:
    """Contenders of these names; without names all."""
    from klip.scale import contest

    how = {"notes": NOTES, "names": names or list(CONTESTANTS)}
    return contest.entered("klip.scale.peers_embedding", asdict(given), **how)


def agreement(out: str | Path, ours: str = "klip") -> Mapping[str, float]:
    """`alike` of each contestant with rows in `out` and klip."""
    rows = {file.stem: np.load(file) for file in sorted(Path(out).glob("*.npy"))}
    mine = rows.pop(ours)
    return {name: alike(others, mine) for name, others in rows.items()}


def alike(one: np.ndarray, other: np.ndarray) -> float:
    """The share of images whose nearest other image is the same by two kinds of rows (N, D)."""
    return float((_nearest(one) == _nearest(other)).mean())


def _nearest(rows: np.ndarray) -> np.ndarray:
    """The place of the nearest other row (N,), of unit rows (N, D)."""
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -np.inf)
    return cosines.argmax(axis=1)


def klip(given: dict[str, Any]) -> Round:
    """klip's `embed`."""
    from klip.model import encoder as encoders

    asked = Embedding(**given)
    encoder = encoders.load(Path(asked.folder, "klip", "tower.safetensors"))

    def work() -> dict[str, Any]:
        started = now(asked.device)
        how = {"workers": asked.workers, "precision": asked.precision}
        rows = encoders.embed(encoder, asked.files, **how)
        return asked.counted("klip", rows, started=started)

    return work


def klip_compute(given: dict[str, Any]) -> Round:
    """klip's encoder on random numbers: what is left when nothing is read."""
    from klip.model import encoder as encoders
    from klip.model.device import autocast

    asked = Embedding(**given)
    encoder = encoders.load(Path(asked.folder, "klip", "tower.safetensors")).to(asked.device)
    size = encoder.preprocess.size
    images = torch.randn(min(BATCH, len(asked.files)), 3, size, size)

    @torch.no_grad()
    def work() -> dict[str, Any]:
        started, done = now(asked.device), 0
        while done < len(asked.files):
            shown = images[: len(asked.files) - done].to(asked.device)
            with autocast(asked.precision, asked.device):
                nn.functional.normalize(encoder(shown), dim=1)
            done += len(shown)
        return {"work": done, "seconds": now(asked.device) - started}

    return work


def klip_reading(given: dict[str, Any]) -> Round:
    """klip's readers: what is left when the network costs nothing."""
    from klip.model import encoder as encoders, readers
    from klip.model.views import Views

    asked = Embedding(**given)
    seen = encoders.load(Path(asked.folder, "klip", "tower.safetensors")).preprocess
    views = Views(asked.files, seen)
    places = list(range(len(asked.files)))
    groups = [places[start : start + BATCH] for start in places[::BATCH]]
    how = {"workers": asked.workers, "room": (BATCH, seen.size), "beside": asked.device == "cuda"}

    def work() -> dict[str, Any]:
        started = now(asked.device)
        done = sum(len(batch) for batch in readers.batches(views, groups, **how))
        return {"work": done, "seconds": now(asked.device) - started}

    return work


def open_clip(given: dict[str, Any]) -> Round:
    """open_clip's tower and transform, files read by the workers of a loader."""
    asked = Embedding(**given)
    tower, _, transform = plain.of_open_clip(asked.folder, asked.device)
    return _looped("open_clip", tower.eval(), asked, transform=transform)


def timm(given: dict[str, Any]) -> Round:
    """timm's network and transform, files read by the workers of a loader."""
    asked = Embedding(**given)
    network, transform = plain.of_timm(asked.folder, asked.device)
    return _looped("timm", network.eval(), asked, transform=transform)


def _looped(
    name: str, network: nn.Module, asked: Embedding, *, transform: plain.Transform
) -> Round:
    """The loop that a user writes around a network (B, 3, S, S) -> (B, D)."""
    files = plain.Photographs(asked.files, transform, [0] * len(asked.files))

    def batches() -> Iterator[Tensor]:
        for images, _ in DataLoader(files, BATCH, num_workers=asked.workers):
            with torch.no_grad(), plain.autocast(asked.precision, asked.device):
                rows = network(images.to(asked.device))
            yield nn.functional.normalize(rows.float(), dim=1)

    def work() -> dict[str, Any]:
        started = now(asked.device)
        rows = torch.cat(list(batches()))
        return asked.counted(name, rows, started=started)

    return work


def pml(given: dict[str, Any]) -> Round:
    """pytorch-metric-learning's `InferenceModel`, which reads in its own process."""
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.inference import CustomKNN, InferenceModel

    asked = Embedding(**given)
    tower, _, transform = plain.of_open_clip(asked.folder, asked.device)
    # its own search wants faiss; none is made here
    search = CustomKNN(CosineSimilarity())
    model = InferenceModel(tower, knn_func=search, data_device=torch.device(asked.device))
    files = plain.Photographs(asked.files, transform, [0] * len(asked.files))

    def work() -> dict[str, Any]:
        started = now(asked.device)
        with plain.autocast(asked.precision, asked.device):
            rows = model.get_embeddings_from_tensor_or_dataset(files, BATCH)
        return asked.counted("pml", rows.float(), started=started)

    return work


CONTESTANTS = {
    "klip": klip,
    "klip compute": klip_compute,
    "klip reading": klip_reading,
    "open_clip": open_clip,
    "pml": pml,
    "timm": timm,
}
NOTES = {
    "klip compute": "the encoder on random numbers, nothing is read",
    "klip reading": "files are read and made views of, nothing is computed",
    "open_clip": "its model and preprocess_val, a DataLoader with workers",
    "pml": "InferenceModel of pytorch-metric-learning, which has no workers",
    "timm": "create_model and create_transform, a DataLoader with workers",
}

if __name__ == "__main__":
    contender.serve(CONTESTANTS)
