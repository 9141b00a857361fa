"""What klip costs beyond its own process: ONNX Runtime, parts of a set, an index of faiss.

Each work returns the table of `cost.by_turns`; what is not installed has a row that says so.
Axes: G gallery rows, D numbers per row, Q queries.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from subprocess import DEVNULL, Popen, run

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from klip.model import encoder as encoders, export
from klip.model.device import autocast
from klip.recognise.gallery import Gallery
from klip.recognise.large import Large, recall
from klip.scale import shards, watch
from klip.scale.cost import PHOTOGRAPH, by_turns

CENTRES, NOISE = 5000, 0.02
"""Of a made-up gallery: rows that others lie around, and how far in each number."""


def exported(model: str, *, rounds: int, batches: Sequence[int] = (1, 64)) -> pd.DataFrame:
    """Images/s of a network on random numbers, so many at a time: by ONNX Runtime and by klip
    in fp32, and by klip as it computes if nothing else is said."""
    if any(find_spec(name) is None for name in export.NEEDED):
        return _lacking("ONNX Runtime", "onnx")
    import onnxruntime

    encoder, works = encoders.load(model), dict[str, Callable[[], float]]()
    size, options = encoder.preprocess.size, onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="klip-cost-") as folder:
        file = str(export.to_onnx(encoder, Path(folder, "network.onnx")))
        session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])

    def by_onnx(images: Tensor) -> None:
        session.run(None, {"images": images.numpy()})

    @torch.no_grad()
    def by_klip(images: Tensor, *, precision: str) -> None:
        with autocast(precision, encoder.device):
            encoder(images)

    def several(one: Callable[[Tensor], None], images: Tensor) -> float:
        times = max(1, max(batches) // len(images))
        for _ in range(times):
            one(images)
        return times * len(images)

    kinds = {"ONNX Runtime": by_onnx, "klip in fp32": partial(by_klip, precision="fp32")}
    kinds["klip"] = partial(by_klip, precision="auto")
    for batch in batches:
        images = torch.randn(batch, 3, size, size)
        for name, one in kinds.items():
            works[f"{name}, {batch} at a time"] = partial(several, one, images)
    return by_turns(works, rounds)


def parted(model: str, *, rounds: int, files: int, parts: int = 2) -> pd.DataFrame:
    """Images/s of `klip embed` on tar files of photographs, its start included: one process on
    all cores, and one for each part on a core of its own.  ValueError: their rows differ."""
    cut = [["--part", f"{part}/{parts}"] for part in range(parts)]
    command = [sys.executable, "-m", "klip", "embed", "--model", model]
    outs = dict[str, str]()
    with tempfile.TemporaryDirectory(prefix="klip-cost-") as folder:
        Path(folder, "photographs").mkdir()
        shots = watch.photographs(Path(folder, "photographs"), files, size=PHOTOGRAPH)
        packed = str(Path(folder, "packed"))
        shards.pack(shots, packed, per_shard=max(1, files // (3 * parts)))

        def embedded(name: str, shares: list[list[str]], **more: str) -> float:
            outs[name] = tempfile.mkdtemp(dir=folder)  # new: what is there already would be kept
            how = {"env": os.environ | more, "stdout": DEVNULL, "stderr": DEVNULL}
            begun = [Popen([*command, packed, outs[name], *words], **how) for words in shares]
            if any([process.wait() for process in begun]):
                raise ValueError(f"cost: `{' '.join([*command, packed, 'OUT'])}` failed")
            return files

        works = {"one process": partial(embedded, "one", [[]])}
        works[f"{parts} processes"] = partial(embedded, "several", cut, OMP_NUM_THREADS="1")
        table = by_turns(works, rounds)
        run([*command, packed, outs["several"]], check=True, stdout=DEVNULL)  # joins the parts
        one, several = (np.load(Path(out, "embeddings.npy")) for out in outs.values())
        if not np.array_equal(one, several):
            raise ValueError("cost: a set embedded in parts has other rows than in one")
        return table


def indexed(
    *, rows: int, dim: int, queries: int, rounds: int
) -> tuple[pd.DataFrame, Mapping[str, float]]:
    """Queries/s of a gallery (G, D) by itself and through indexes of faiss; and of each index
    the share of the gallery's own first five that it finds.  Rows lie around CENTRES."""
    if find_spec("faiss") is None:
        return _lacking("faiss", "faiss"), {}
    chance = torch.Generator().manual_seed(0)
    centres = torch.randn(min(CENTRES, rows), dim, generator=chance) / dim**0.5

    def near(places: Tensor) -> Tensor:
        moved = centres[places] + NOISE * torch.randn(len(places), dim, generator=chance)
        return nn.functional.normalize(moved, dim=1)

    filled = torch.empty(rows, dim)
    for places in torch.arange(rows).split(100_000):
        filled[places] = near(places % len(centres))
    asked = near(torch.randint(len(centres), (queries,), generator=chance))
    names = [f"product {place:07}" for place in range(rows)]
    gallery = Gallery(filled, names, names, {"views": 1})
    indexes = {kind: Large.build(gallery, kind) for kind in ("flat", "ivf")}

    def search(found: Gallery | Large) -> float:
        found.search(asked)
        return len(asked)

    works = {"klip": partial(search, gallery)}
    works |= {f"faiss {kind}": partial(search, index) for kind, index in indexes.items()}
    found = {f"faiss {kind}": recall(index, asked) for kind, index in indexes.items()}
    return by_turns(works, rounds), found


def _lacking(name: str, extra: str) -> pd.DataFrame:
    """The row of what is not installed."""
    row = {"contender": name, "note": f"empty: needs pip install 'klip[{extra}]'"}
    columns = ["contender", "round", "per_second", "work", "done", "seconds", "user_s", "peak_mib"]
    return pd.DataFrame([row], columns=[*columns, "note"])
