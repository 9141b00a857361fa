"""What is rendered: the plan of a shop, and the products that follow from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from numpy import ndarray

from klip.shop.design import Product, design

_LEAST = {"breadth": 2, "seed": 0, "size": 48}  # of whole numbers; the others: 1
_MOST = {"capg_flavours": 12, "size": 512}


@dataclass(frozen=True)
class ShopPlan:
    """All that decides what is rendered.  The defaults are the `nano` shop, twenty seconds
    on two cores.

    finetune: `breadth` products with a long-tailed number of training images, the first of
    each a packshot and of the others a share, and `val_images` held-out photographs each;
    grozi_like: clean web packshots against close, dark in-store crops; capg_like: lines of
    near-identical flavours, mild photographs on both sides; rp2k_like: in-store photographs
    on both sides, and a training split.
    """

    breadth: int = 600  # products of the fine-tuning set
    exponent: float = 0.75  # Zipf exponent of the training images per product, above 0
    max_images: int = 300  # training images of the most frequent product
    min_images: int = 3  # training images of the rarest products
    packshot_share: float = 0.15  # of the training images after a product's first, 0..1
    val_images: int = 2  # held-out images of every fine-tuning product
    grozi_products: int = 120
    grozi_queries: int = 5  # in-store crops per product; of each one web packshot
    capg_lines: int = 25
    capg_flavours: int = 4  # products that differ in one accent, per line
    capg_queries: int = 4
    rp2k_products: int = 200
    rp2k_queries: int = 3
    rp2k_train: int = 4  # photographs per product to train on, as in RP2K
    size: int = 144  # longer side in pixels
    finetune_strength: float = 0.7  # how hard photographs are, 0..1
    grozi_strength: float = 0.8
    capg_strength: float = 0.3
    rp2k_strength: float = 0.4
    store: float = 0.3  # share of the store's light, glass and stickers, 0..1
    squashed: float = 0.1  # share of close photographs out of proportion, 0..1
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            wanted = _wanted(field.name, value, share=isinstance(field.default, float))
            if wanted:
                raise ValueError(f"shop plan: {field.name} must {wanted}, got {value!r}")
        if self.max_images < self.min_images:
            least = f"max_images must be at least min_images ({self.min_images})"
            raise ValueError(f"shop plan: {least}, got {self.max_images!r}")

    def of(self, name: str, what: str) -> float:
        """A field of one set: `of("grozi_like", "queries")` is `grozi_queries`."""
        return getattr(self, f"{name.removesuffix('_like')}_{what}")


def _wanted(name: str, value: object, *, share: bool) -> str:
    """What a field must be, if its value is not that, else nothing."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name == "exponent":
        return "" if number and 0 < value < math.inf else "be a finite number above 0"
    if share:
        return "" if number and 0 <= value <= 1 else "lie in 0..1"
    least, most = _LEAST.get(name, 1), _MOST.get(name, math.inf)
    if number and isinstance(value, int) and least <= value <= most:
        return ""
    limits = f"at least {least}" + (f" and at most {most}" if name in _MOST else "")
    return f"be a whole number of {limits}"


def counts(plan: ShopPlan) -> ndarray:
    """Training images per fine-tuning product (breadth,), most frequent first: max_images /
    rank ** exponent (Zipf's law), rounded, clipped.
    """
    rank = np.arange(1, plan.breadth + 1, dtype=np.float64)
    share = plan.max_images / rank**plan.exponent
    return np.clip(np.round(share), plan.min_images, plan.max_images).astype(np.int64)


@lru_cache(maxsize=8)
def products_of(plan: ShopPlan, name: str) -> tuple[Product, ...]:
    """The products of one set of a plan, in a fixed order."""
    if name == "capg_like":
        lines, flavours = plan.capg_lines, (plan.capg_flavours, plan.capg_flavours)
        wanted = lines * plan.capg_flavours
    else:
        wanted = plan.breadth if name == "finetune" else int(plan.of(name, "products"))
        lines, flavours = wanted, (1, 3)
    # Twice as many lines as needed: fruit, which two of the sets leave out, goes from them.
    made = design(name, lines * 2, flavours=flavours, seed=plan.seed)
    if name in ("capg_like", "grozi_like"):
        made = [product for product in made if product.shape != "produce"]
    return tuple(made[:wanted])
