"""Depth and breadth (paper §4.1.3, words of Zhang & Deng 2020): which image is drawn when.

Breadth is the number of products, depth that of a product's draws in an epoch.  No
image is drawn again before all of its product were; a repeat has its number, so that it
can be augmented harder.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from klip.data.catalogue import Catalogue


@dataclass(frozen=True, eq=False)
class Plan:
    """Which images are used, and in which order; made by `plan`."""

    depth: int
    breadth: int
    seed: int
    balanced: bool
    rows: Catalogue
    """Images used: `row` (place in the set), `product`, `image`; by product, row."""

    @property
    def products(self) -> list[str]:
        """The products sorted by name; the position of a product is its label."""
        return self.rows["product"].unique().tolist()

    def __len__(self) -> int:
        """Draws in an epoch."""
        return self.breadth * self.depth if self.balanced else len(self.rows)

    def epoch(self, number: int, together: bool = False) -> np.ndarray:
        """Shuffled draws of an epoch, (draws, 2) int: place in the catalogue, repeat from 0.

        Balanced: exactly `depth` draws of a product, pass after pass through its
        images, each in a new order.  Not balanced: every image once.  together: the
        draws of a product stay side by side, as pairs need it.
        """
        rng = np.random.default_rng((self.seed, number + 1))
        label = self.rows["product"].factorize()[0]  # (images,)
        size = np.bincount(label)[label]  # (images,) of the same product
        passes = -(-self.depth // size) if self.balanced else np.ones_like(size)
        image = np.repeat(np.arange(len(label)), passes)
        repeat = _rank(image)
        # Product by product, pass by pass, at random within a pass; then the first `depth`.
        order = np.lexsort((rng.random(len(image)), repeat, label[image]))
        if self.balanced:
            order = order[_rank(label[image[order]]) < self.depth]
        image, repeat = image[order], repeat[order]
        draws = np.stack([self.rows["row"].to_numpy()[image], repeat], axis=1)
        if together:
            place = rng.permutation(self.breadth)[label[image]]
            return draws[np.argsort(place, kind="stable")]
        return draws[rng.permutation(len(draws))]

    def draws(self, images: int, together: bool = False) -> Iterator[tuple[int, int, int, int]]:
        """`images` draws: (epoch, index in it, place in the catalogue, repeat from 0)."""
        _whole(images, "images", least=1)
        for start in range(0, images, len(self)):
            number = start // len(self)
            draws = self.epoch(number, together)[: images - start]
            for index, (row, repeat) in enumerate(draws.tolist()):
                yield number, index, row, repeat


def plan(
    catalogue: Catalogue, depth: int, *, breadth: int = 0, seed: int = 0, balanced: bool = True
) -> Plan:
    """Plan of the split `train` (paper §4.1.3): `breadth` products (0: all) at `depth` images each.

    A product with more images keeps one random choice of `depth` for the whole run (A:
    the paper builds one balanced set).  For one seed a deeper or broader plan contains
    the others.  balanced=False keeps all images of the products.
    """
    _whole(depth, "depth", least=1, unit=" image per product")
    _whole(breadth, "breadth", unit=" (0: all products)")
    _whole(seed, "seed")
    row = np.flatnonzero(catalogue["split"] == "train")
    training = catalogue.frame[["image", "product"]].iloc[row]
    if training.empty:
        have = sorted(set(catalogue["split"]))
        raise ValueError(f"balance plan: no image has split 'train'; the catalogue has {have}")
    _all_named(training)
    label, names = pd.factorize(training["product"].astype(str), sort=True)
    if breadth > len(names):
        raise ValueError(
            f"balance plan: breadth must be at most the {len(names)} products, got {breadth}"
        )
    rng = np.random.default_rng((seed, 0))
    chosen = rng.permutation(len(names))[: breadth or len(names)]
    # Product by product, at random within a product; then the first `depth` of each.
    order = np.lexsort((rng.random(len(row)), label))
    if balanced:
        order = order[_rank(label[order]) < depth]
    kept = order[np.isin(label[order], chosen)]
    columns = {
        "row": row[kept],
        "product": names.to_numpy()[label[kept]],
        "image": training["image"].to_numpy()[kept],
    }
    rows = pd.DataFrame(columns).sort_values(["product", "row"])
    return Plan(depth, len(chosen), seed, balanced, catalogue.of(rows))


def _all_named(training: pd.DataFrame) -> None:
    """Every image must have a product, and every category of a categorical column an image."""
    product = training["product"]
    nameless = product.isna() | (product.astype(str).str.strip() == "")
    if nameless.any():
        first = training.loc[nameless, "image"].iloc[0]
        raise ValueError(f"balance plan: every training image needs a product, {first} has none")
    if product.dtype != "category":
        return
    empty = sorted(set(product.cat.categories.astype(str)) - set(product.astype(str)))
    if empty:
        raise ValueError(
            f"balance plan: {len(empty)} products have no training image, first {empty[0]!r}; "
            "leave them out of the catalogue or add images"
        )


def _rank(groups: np.ndarray) -> np.ndarray:
    """How many equal elements stand before each."""
    return pd.Series(groups).groupby(groups).cumcount().to_numpy()


def _whole(value: int, name: str, *, least: int = 0, unit: str = "") -> None:
    # True is an int, too
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        wanted = f"{name} must be a whole number >= {least}{unit}"
        raise ValueError(f"balance plan: {wanted}, got {value!r}")
