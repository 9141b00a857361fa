"""Depth and breadth (paper §4.1.3, words of Zhang & Deng 2020): which image is drawn when.

Breadth is the number of products, depth that of a product's draws in an epoch.  No image is drawn again before all of
its product were; a repeat has its number, so that it can be augmented harder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True, eq=False)
class Plan:
    """Which images are used, and in which order; made by `plan`."""

    depth: int
    breadth: int
    seed: int
    balanced: bool
    rows: pd.DataFrame
    """The images used: `row` (position in the catalogue), `product`, `image`, sorted by product, then row."""

    @property
    def products(self) -> list[str]:
        """The products sorted by name; the position of a product is its label."""
        return self.rows["product"].unique().tolist()

    def __len__(self) -> int:
        """Draws in an epoch."""
        return self.breadth * self.depth if self.balanced else len(self.rows)

    def epoch(self, number: int, together: bool = False) -> np.ndarray:
        """Draws of one epoch, shuffled, (draws, 2) int: position in the catalogue, repeat number from 0.

        Balanced: exactly `depth` draws of a product, pass after pass through its images, each in a new order.
        Not balanced: every image once.  together: the draws of a product stay side by side, as pairs need it.
        """
        rng = np.random.default_rng((self.seed, number + 1))
        code = self.rows["product"].factorize()[0]
        size = np.bincount(code)[code]  # (images,) of the same product
        passes = -(-self.depth // size) if self.balanced else np.ones_like(size)
        image = np.repeat(np.arange(len(code)), passes)
        repeat = _rank(image)
        order = np.lexsort((rng.random(len(image)), repeat, code[image]))
        if self.balanced:
            order = order[_rank(code[image[order]]) < self.depth]
        image, repeat = image[order], repeat[order]
        draws = np.stack([self.rows["row"].to_numpy()[image], repeat], axis=1)
        if together:
            return draws[np.argsort(rng.permutation(self.breadth)[code[image]], kind="stable")]
        return draws[rng.permutation(len(draws))]

    def draws(self, images: int, together: bool = False) -> Iterator[tuple[int, int, int, int]]:
        """`images` draws across epochs: (epoch, index in it, position in the catalogue, repeat number)."""
        _whole("images", images, 1)
        for start in range(0, images, len(self)):
            epoch = start // len(self)
            for index, (row, repeat) in enumerate(
                self.epoch(epoch, together)[: images - start].tolist()
            ):
                yield epoch, index, row, repeat

    def table(self) -> pd.DataFrame:
        """Per product the images used, the draws of an epoch, and how often a draw repeats an image."""
        used = self.rows.groupby("product", sort=True).size()
        draws = pd.Series(self.depth, used.index) if self.balanced else used
        return pd.DataFrame(
            {"images": used, "draws": draws, "repeats": (draws - used).clip(lower=0)}
        ).reset_index()


def plan(
    catalogue: pd.DataFrame, depth: int, breadth: int = 0, seed: int = 0, balanced: bool = True
) -> Plan:
    """Plan of the split `train` (paper §4.1.3): `breadth` products (0: all) at `depth` images each.

    A product with more images keeps one random choice of `depth` for the whole run (A: the paper builds one balanced
    set).  For one seed a deeper or broader plan contains the others.  balanced=False keeps all images of the products.
    """
    _whole("depth", depth, 1, " image per product")
    _whole("breadth", breadth, 0, " (0: all products)")
    _whole("seed", seed, 0)
    row = np.flatnonzero((catalogue["split"] == "train").to_numpy())
    names = catalogue["product"].iloc[row]
    if not len(row):
        raise ValueError(
            "balance plan: no image has split 'train'; the catalogue has "
            f"{sorted(set(catalogue['split']))}"
        )
    nameless = (names.isna() | (names.astype(str).str.strip() == "")).to_numpy()
    if nameless.any():
        raise ValueError(
            "balance plan: every training image needs a product, "
            f"{catalogue['image'].iloc[row[nameless][0]]} has none"
        )
    declared = (
        catalogue["product"].cat.categories if catalogue["product"].dtype == "category" else []
    )
    if empty := sorted(set(map(str, declared)) - set(names.astype(str))):
        raise ValueError(
            f"balance plan: {len(empty)} products have no training image, first {empty[0]!r}; "
            "leave them out of the catalogue or add images"
        )
    code, products = pd.factorize(names.astype(str), sort=True)
    if breadth > len(products):
        raise ValueError(
            f"balance plan: breadth must be at most the {len(products)} products, got {breadth}"
        )
    rng = np.random.default_rng((seed, 0))
    chosen = np.sort(rng.permutation(len(products))[: breadth or len(products)])
    order = np.lexsort((rng.random(len(row)), code))
    kept = order[(_rank(code[order]) < depth) | (not balanced)]
    kept = np.sort(kept[np.isin(code[kept], chosen)])
    rows = pd.DataFrame(
        {
            "row": row[kept],
            "product": np.asarray(products)[code[kept]],
            "image": catalogue["image"].to_numpy()[row[kept]],
        }
    )
    return Plan(
        depth, len(chosen), seed, balanced, rows.sort_values(["product", "row"], ignore_index=True)
    )


def _rank(groups: np.ndarray) -> np.ndarray:
    """How many equal elements stand before each."""
    return pd.Series(groups).groupby(groups).cumcount().to_numpy()


def _whole(name: str, value: int, least: int, unit: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(
            f"balance plan: {name} must be a whole number >= {least}{unit}, got {value!r}"
        )
