"""How the cost of klip's works grows with their size: seconds at 1, 10 and 100 times as much.

The slope of a work in a picture of two logarithmic axes is 1 where twice as much takes
twice as long, and 0 where the size costs nothing.
Axes: G gallery rows of D numbers, P packshots.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from klip.data import balance
from klip.data.catalogue import Catalogue
from klip.data.loading import load_catalogue
from klip.finetuning.loop import Loop
from klip.model import encoder as encoders
from klip.model.encoder import Encoder
from klip.recognise import keypoints
from klip.recognise.gallery import Gallery
from klip.scale import measure, watch
from klip.settings.config import FinetuneConfig

FACTORS = (1, 10, 100)
KEYPOINTS = (300, 200)
"""Of a query and of a packshot: about those of a photograph."""
PRODUCTS = 16
"""Of the JPEG files that are trained with, embedded and added."""
Work = Callable[[], object]


@dataclass(frozen=True)
class Ground:
    """What the works use.  folder: empty, to write in; shots: a few JPEG files."""

    encoder: Encoder
    folder: Path
    shots: Catalogue
    batch: int = 16

    def gallery(self, rows: int) -> Gallery:
        """A gallery of random rows, each a product of its own."""
        embeddings = torch.randn(rows, self.encoder.dim, generator=torch.Generator().manual_seed(0))
        names = [f"product {place}" for place in range(rows)]
        meta = {"views": 1, "seed": 0, "precision": "fp32"}
        unit = nn.functional.normalize(embeddings, dim=1)
        return Gallery(unit, names, names, meta=meta, encoder=self.encoder)


def finetuning(ground: Ground, images: int) -> Work:
    """Fine-tuning with so many images, without the embeddings that the first centres want."""
    config = FinetuneConfig(
        model=ground.encoder.name,
        images=images,
        depth=math.ceil(images / len(ground.shots)),
        batch_size=min(ground.batch, images),
        workers=0,
    )

    def work() -> None:
        loop.done, loop.seconds, loop.history = 0, 0.0, []
        loop.run()

    loop = Loop(config, ground.shots, base=ground.encoder)
    loop.begin()
    return work


def embedding(ground: Ground, images: int) -> Work:
    """`embed` of so many files."""
    files = (ground.shots.files * math.ceil(images / len(ground.shots)))[:images]
    return lambda: encoders.embed(ground.encoder, files)


def search(ground: Ground, rows: int) -> Work:
    """One query in a gallery of so many rows."""
    gallery = ground.gallery(rows)
    query = gallery.embeddings[:1]
    return lambda: gallery.search(query)


def adding(ground: Ground, rows: int) -> Work:
    """A new product of one image, in a gallery of so many rows."""
    gallery, file = ground.gallery(rows), ground.shots.files[0]
    return lambda: gallery.add("a new product", [file])


def voting(ground: Ground, packshots: int) -> Work:
    """The votes of one query's keypoints among so many packshots; random descriptors."""
    rng = np.random.default_rng(0)
    query, *others = (
        keypoints.prepared(rng.integers(0, 256, (count, 130), np.uint8))
        for count in (KEYPOINTS[0], *[KEYPOINTS[1]] * packshots)
    )
    return lambda: keypoints.sift_votes(query, others)


def loading(ground: Ground, rows: int) -> Work:
    """A manifest of so many images, all of which are looked for."""
    file = manifest(ground, rows)
    return lambda: load_catalogue("manifest", file)


def planning(ground: Ground, rows: int) -> Work:
    """The plan of balanced draws of so many images, and its first epoch."""
    catalogue = load_catalogue("manifest", manifest(ground, rows))
    return lambda: balance.plan(catalogue, measure.DEPTH).epoch(0)


def manifest(ground: Ground, rows: int) -> Path:
    """A generated one, ten images to a product on average."""
    own = ground.folder / f"manifest-{rows}"
    return measure.generate(own, rows=rows, products=max(1, rows // 10))


WORKS: Mapping[str, tuple[Callable[[Ground, int], Work], int]] = {
    "fine-tuning, images": (finetuning, 16),
    "embedding, images": (embedding, 16),
    "search of one query, gallery rows": (search, 1000),
    "adding a product, gallery rows": (adding, 1000),
    "votes of one query, packshots": (voting, 5),
    "loading, images": (loading, 1000),
    "planning, images": (planning, 1000),
}
"""What grows -> how it is prepared, and its size at 1 x."""


def growth(
    model: str = "nano",
    *,
    rounds: int = 3,
    factors: Sequence[int] = FACTORS,
    sizes: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """work, size, round, seconds: each work at its size times each of the factors, by turns.

    sizes: of some works at 1 x, where not as in WORKS; 0 leaves a work out.
    """
    rows, asked = [], {name: size for name, (_, size) in WORKS.items()} | dict(sizes or {})
    with tempfile.TemporaryDirectory(prefix="klip-growth-") as folder, torch.random.fork_rng([]):
        shots = watch.photographs(Path(folder), PRODUCTS)
        ground = Ground(encoders.load(model), Path(folder, "manifests"), shots)
        for name, base in asked.items():
            prepare, _ = WORKS[name]
            works = {base * factor: prepare(ground, base * factor) for factor in factors if base}
            for work in list(works.values())[:1]:
                work()  # warms up
            for turn in range(rounds):
                for size, work in works.items():
                    started = time.perf_counter()
                    work()
                    seconds = time.perf_counter() - started
                    rows.append({"work": name, "size": size, "round": turn, "seconds": seconds})
    return pd.DataFrame(rows)


def slopes(table: pd.DataFrame) -> pd.DataFrame:
    """work, slope: by least squares through the logarithms of sizes and of median seconds."""
    medians = table.groupby(["work", "size"], sort=False)["seconds"].median().reset_index()
    found = []
    for name, own in medians.groupby("work", sort=False):
        slope, _ = np.polyfit(np.log(own["size"]), np.log(own["seconds"]), 1)
        found.append({"work": name, "slope": float(slope)})
    return pd.DataFrame(found)
