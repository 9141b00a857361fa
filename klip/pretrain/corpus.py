"""Pictures to pre-train on: products of the rendered range `pretrain`, and their captions.

What is asked of `config` are the fields of `nano.PretrainConfig`.  Axis letters: B
products in a batch, S pixels, N products in the corpus, V views, L tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from klip.model.augment import Preprocess, padded
from klip.settings import paths
from klip.settings.files import atomic
from klip.shop.design import Product, caption, design
from klip.shop.packshot import packshot, trimmed
from klip.shop.photo import STYLES, cut_out, on_white, photograph

CORPUS_PIXELS = 176
"""Side of a stored packshot: more than the encoder's, so that a crop still has detail."""


def preprocess(pixels: int) -> Preprocess:
    """How the towers that learn from the corpus see: true to shape, pixels in -1..1."""
    return Preprocess(size=pixels, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), resize="pad")


def _packshots(file: Path, numbered: list[tuple[int, Product]], *, seed: int) -> int:
    """Render products into their rows of a file (N, V, P, P, 4), each view turned anew."""
    rows = np.load(file, mmap_mode="r+")
    for row, product in numbered:
        rng = np.random.default_rng((seed, row))
        for view in range(rows.shape[1]):
            turned = rng.uniform(-35, 35), rng.uniform(0, 18)
            rows[row, view] = packshot(product, CORPUS_PIXELS, view=turned, variant=view)
    return len(numbered)


def corpus(
    config: Any, *, workers: int | None = None, progress: bool = True
) -> tuple[list[Product], np.ndarray]:
    """The N products of range `pretrain`, their packshots uint8 (N, V, P, P, 4) in a file."""
    products = design("pretrain", config.lines, seed=config.seed)
    key = f"{config.lines}_{config.views}_{config.seed}_{CORPUS_PIXELS}"
    file = paths.CACHE / "nano" / f"packshots_{key}.npy"

    def render(part: Path) -> None:
        shape = (len(products), config.views, CORPUS_PIXELS, CORPUS_PIXELS, 4)
        np.lib.format.open_memmap(part, "w+", np.uint8, shape).flush()
        numbered = list(enumerate(products))
        chunks = (numbered[start : start + 200] for start in range(0, len(products), 200))
        # The file is shared: each process maps it and writes rows of its own.
        draw = partial(_packshots, part, seed=config.seed)
        bar = tqdm(total=len(products), disable=not progress)
        with ProcessPoolExecutor(workers) as pool, bar:
            for done in pool.map(draw, chunks):
                bar.update(done)

    if not file.exists():
        atomic(file, render)
    return products, np.load(file, mmap_mode="r")


class Batches(torch.utils.data.Dataset):
    """Item `step`, drawn from (seed, step) alone: pictures and captions of B products.

    Pictures are (2B, S, S, 3) uint8: all packshots, then a photograph of each product, in
    the same order; captions are token ids (B, L).
    """

    def __init__(
        self, config: Any, products: list[Product], *, packshots: np.ndarray, tokenize: Callable
    ) -> None:
        self.config, self.tokenize = config, tokenize
        self.products, self.packshots = products, packshots
        self.preprocess = preprocess(config.pixels)
        lines = pd.Series([f"{p.brand}/{p.line}" for p in products])
        self.siblings = [rows for rows in lines.groupby(lines).indices.values() if len(rows) > 1]

    def __len__(self) -> int:
        return self.config.steps

    def rows(self, rng: np.random.Generator) -> np.ndarray:
        """B distinct products, a share of them as whole lines, hard to tell apart."""
        chosen: list[int] = []
        while len(chosen) < self.config.siblings * self.config.batch and self.siblings:
            chosen += self.siblings[rng.integers(len(self.siblings))].tolist()
        chosen += rng.choice(len(self.products), self.config.batch, replace=False).tolist()
        return np.array(list(dict.fromkeys(chosen))[: self.config.batch])

    def pair(
        self, row: int, rows: np.ndarray, *, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """A packshot and a photograph of a product in the shop, (S, S, 3) uint8 each."""
        config, product = self.config, self.products[row]
        one, other = map(trimmed, self.packshots[row, rng.integers(config.views, size=2)])
        around = [trimmed(self.packshots[k, 0]) for k in rng.choice(rows, 3)]
        style = str(rng.choice(STYLES, p=(0.47, 0.43, 0.1)))
        if product.shape == "produce" and rng.random() < 0.6:
            style = "pile"
        clean = on_white(one, rng, size=config.pixels)
        how = {"style": style, "strength": rng.uniform(*config.strength), "squashed": 0.1}
        shop = photograph(other, rng, size=config.pixels, others=around, **how)
        if rng.random() < config.cut:
            clean = padded(cut_out(clean, one, rng=rng), self.preprocess)
        if style == "tight" and rng.random() < 1.5 * config.cut:
            shop = padded(cut_out(shop, other, rng=rng), self.preprocess)
        return clean, shop

    def __getitem__(self, step: int) -> tuple[np.ndarray, Tensor]:
        rng = np.random.default_rng((self.config.seed, step))
        rows = self.rows(rng)
        pairs = [self.pair(row, rows, rng=rng) for row in rows]
        packshots, photographs = zip(*pairs, strict=True)
        pictures = np.stack([*packshots, *photographs])
        return pictures, self.tokenize([caption(self.products[row], rng) for row in rows])
