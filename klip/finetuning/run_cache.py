"""Runs on disk: CACHE/runs/<key>.

The key covers all that decides the weights: no run is made twice, none taken for another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors.torch import load_file

from klip.data import images
from klip.data.catalogue import Catalogue
from klip.settings import files, paths

KLIP = Path(__file__).parents[1]
SOURCES = [KLIP / "data/images.py", KLIP / "data/balance.py"]
SOURCES += sorted([*KLIP.glob("model/*.py"), *KLIP.glob("finetuning/*.py")])
"""The code that decides a run.  What lists images is not among it: what it lists is hashed."""


def folder(facts: Any, used: Iterable[Catalogue]) -> Path:
    """Where a run is kept: by `facts` (JSON), klip's code, torch's version and the contents
    of the images it uses."""
    digest = files.of_code(SOURCES, [torch.__version__, facts])
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


def read(path: Path) -> dict[str, Any]:
    """The tensors of a .safetensors file, or the state of an interrupted run.  ValueError:
    it is damaged."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"fine-tuning: {path} is damaged or missing ({type(error).__name__}); "
            f"delete {path.parent} to make it anew"
        ) from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside, no other process of this machine makes the run of a folder."""
    with files.sentence(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            yield


def random_state() -> dict[str, Any]:
    """That of the numbers which torch draws."""
    gpu = torch.cuda.is_available()
    return {"rng": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state()} if gpu else {})


def save(file: Path, parts: dict[str, Any], *, facts: list, random: dict[str, Any]) -> None:
    """Write the state from which an interrupted run goes on: that of its parts, `facts`,
    and `random_state`."""
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"facts": facts, **random}
    files.atomic(file, lambda part: torch.save(state, part))


def restore(file: Path, parts: dict[str, Any]) -> list:
    """Put the parts into the state of `save`, and give back its `facts`."""
    state = read(file)
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["rng"])
        if "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"])
        return state["facts"]
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"fine-tuning: {file} is no state of this run ({type(error).__name__}); delete "
            f"{file.parent} to make it anew"
        ) from None
