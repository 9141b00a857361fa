"""Runs on disk: CACHE/runs/<key>, and beside them what the frozen encoder makes of images.

The key covers all that decides the weights: no run is made twice, none taken for another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from klip.data import images
from klip.data.catalogue import Catalogue
from klip.settings import paths
from klip.settings.files import atomic, write_tensors

SOURCES = (
    *("data/images", "data/balance"),
    *("model/augment", "model/towers", "model/device", "model/weights", "model/hub"),
    *("model/imagenet", "model/blocks", "model/heads", "model/triplet", "model/encoder"),
    *("finetuning/distributed", "finetuning/validation", "finetuning/prepare"),
    *("finetuning/loop", "finetuning/finished"),
)
"""The modules whose code decides a run; those that list images do not: what they list is hashed."""


def folder(facts: Any, used: Iterable[Catalogue]) -> Path:
    """Where a run is kept: by `facts` (JSON), klip's code, torch's version and the contents
    of the images it uses."""
    digest = hashlib.sha256(json.dumps([torch.__version__, facts], sort_keys=True).encode())
    for source in SOURCES:
        digest.update((Path(__file__).parents[1] / f"{source}.py").read_bytes())
    for catalogue in used:
        for product, file in zip(catalogue["product"], catalogue.files, strict=True):
            try:
                content = images.content(file)
            except OSError as error:
                raise FileNotFoundError(
                    f"fine-tuning: image {file} of product {product!r} cannot be read "
                    f"({error.strerror}); `klip data check` lists all such images"
                ) from None
            digest.update(f"{product}\n".encode() + hashlib.sha256(content).digest())
        digest.update(b"\n")
    return paths.CACHE / "runs" / digest.hexdigest()[:16]


def once(
    what: str, start: list | None, used: Iterable[Catalogue], compute: Callable[[], Tensor]
) -> Tensor:
    """What the frozen encoder makes of some images, the same for all runs from it: computed
    by the first, kept beside the runs.

    start: all that tells the encoder and how it computes (JSON); None: nothing is kept.
    """
    if start is None:
        return compute()
    file = folder([what, *start], used).with_suffix(".safetensors")
    if not file.is_file():
        write_tensors(file, {"value": compute()})
    return read(file)["value"]


def read(path: Path) -> dict[str, Any]:
    """The tensors of a .safetensors file, or the state of an interrupted run; ValueError if
    it is damaged."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        whole = path if path.parent == paths.CACHE / "runs" else path.parent
        raise ValueError(
            f"fine-tuning: {path} is damaged or missing ({type(error).__name__}); delete {whole} to make "
            "it anew"
        ) from None


def save(file: Path, stateful: dict[str, Any], facts: list) -> None:
    """Write the state from which an interrupted run goes on; it has `facts` of its own."""
    states = {name: part.state_dict() for name, part in stateful.items()}
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    state = {"states": states, "facts": facts, "rng": torch.get_rng_state(), "cuda": cuda}
    atomic(file, lambda part: torch.save(state, part))


def restore(file: Path, stateful: dict[str, Any]) -> list:
    """Put what has a state into that of `save`, and give back its `facts`."""
    state = read(file)
    for name, part in stateful.items():
        part.load_state_dict(state["states"][name])
    torch.set_rng_state(state["rng"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])
    return state["facts"]
