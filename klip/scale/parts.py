"""A catalogue embedded in parts, each by a process of its own, here or on other machines.

Images stand in the order in which they lie in their tar files (`shards`), and a part is a
run of neighbours: a process reads its own tar files, each from front to back.
Axes: N images, n images of a part, D numbers per embedding.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from klip.data.catalogue import Catalogue
from klip.data.images import INSIDE
from klip.data.words import named
from klip.model import encoder as encoders
from klip.model.device import default_device, resolve_precision
from klip.model.encoder import Encoder
from klip.settings.files import atomic, write_tensors

PART = re.compile(r"part-(\d+)-of-(\d+)\.safetensors")


def places(catalogue: Catalogue) -> np.ndarray:
    """The rows (N,) of a catalogue in the order of reading."""
    inside = [INSIDE.fullmatch(image) for image in catalogue["image"]]
    keys = [
        (found["tar"], int(found["offset"])) if found else (image, 0)
        for image, found in zip(catalogue["image"], inside, strict=True)
    ]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), int)


def share(order: np.ndarray, part: int, parts: int) -> np.ndarray:
    """What part `part`, from 0, of `parts` has of an order (N,).  ValueError: no such part."""
    if not 0 <= part < parts:
        raise ValueError(
            f"embed: part must be 0/{parts} to {parts - 1}/{parts}, got {part}/{parts}"
        )
    return order[len(order) * part // parts : len(order) * (part + 1) // parts]


def embed(
    encoder: Encoder,
    catalogue: Catalogue,
    out: str | Path,
    *,
    part: int = 0,
    parts: int = 1,
    workers: int = 0,
    precision: str = "auto",
    progress: bool = False,
) -> Path:
    """Embed one part of the images of a catalogue into out/part-I-of-N.safetensors; the file.

    A file that is there already, of this encoder and these images, is kept as it is.
    ValueError: no such part, a damaged image.
    """
    out = Path(out)
    file = out / f"part-{part:05}-of-{parts:05}.safetensors"
    own = catalogue.of(catalogue.frame.iloc[share(places(catalogue), part, parts)])
    by = f"{encoders.fingerprint(encoder)} {resolve_precision(precision, default_device())}"
    facts = {"encoder": by, "images": _images(own)}
    if file.is_file() and _read(file, rows=False)[0] == facts:
        return file
    how = {"workers": workers, "precision": precision, "progress": progress}
    rows = encoders.embed(encoder, own, alike=True, **how)
    write_tensors(file, {"rows": rows}, facts={"facts": json.dumps(facts)})
    return file


def missing(out: str | Path) -> list[str]:
    """The parts that are not there, as 1/4; without any part 0/1."""
    there = _there(Path(out))
    parts = max((parts for _, parts in there), default=1)
    return [f"{part}/{parts}" for part in range(parts) if (part, parts) not in there]


def joined(catalogue: Catalogue, out: str | Path) -> Tensor:
    """The unit rows (N, D) of all parts, in the order of the catalogue; written, too, as
    out/embeddings.npy beside out/images.csv.

    ValueError: a part is missing or damaged, the parts are of several encoders or ways to
    cut or precisions, or of other images than the catalogue's.
    """
    out = Path(out)
    there, lacking = _there(out), missing(out)
    if lacking:
        raise ValueError(f"embed: {out} lacks parts {named(lacking)}; make them with --part")
    if len({parts for _, parts in there}) > 1:
        raise ValueError(f"embed: {out} holds parts of several cuts; delete those of all but one")
    rows, order, by = [], places(catalogue), set()
    for (part, parts), file in sorted(there.items()):
        facts, own = _read(file)
        shown = catalogue.of(catalogue.frame.iloc[share(order, part, parts)])
        if facts.get("images") != _images(shown):
            raise ValueError(
                f"embed: {file} is of other images than {catalogue.name}; delete it to make it anew"
            )
        by.add(facts["encoder"])
        rows.append(own)
    if len(by) > 1:
        raise ValueError(
            f"embed: the parts in {out} are by several encoders or precisions; delete those of "
            "all but one"
        )
    made = torch.cat(rows)[np.argsort(order)]
    atomic(out / "embeddings.npy", lambda part: _save(part, made))
    atomic(out / "images.csv", lambda part: catalogue.frame.to_csv(part, index=False))
    return made


def _save(path: Path, rows: Tensor) -> None:
    with path.open("wb") as file:  # by its name numpy would add a suffix
        np.save(file, rows.numpy())


def _there(out: Path) -> dict[tuple[int, int], Path]:
    """(part, parts) -> its file."""
    found = {}
    for file in out.glob("part-*.safetensors"):
        if told := PART.fullmatch(file.name):
            found[int(told[1]), int(told[2])] = file
    return found


def _images(catalogue: Catalogue) -> str:
    """Tells which images, by their names."""
    return hashlib.sha256("\n".join(catalogue["image"]).encode()).hexdigest()[:16]


def _read(file: Path, *, rows: bool = True) -> tuple[dict[str, str], Tensor | None]:
    """What a part tells of itself, and its rows, if they are asked for."""
    try:
        with safe_open(file, "pt") as opened:
            facts = json.loads(opened.metadata()["facts"])
            return facts, opened.get_tensor("rows") if rows else None
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        reason = type(error).__name__
        raise ValueError(
            f"embed: {file} is damaged ({reason}); delete it to make it anew"
        ) from None
