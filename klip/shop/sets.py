"""The rendered shop on disk: a fine-tuning set and three evaluation sets, as JPEG folders
with catalogues.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from klip.shop.design import Product, design
from klip.shop.packshot import packshot
from klip.shop.paint import stream
from klip.shop.photo import cut_out, on_white, photograph
from klip.shop.store import in_store

SETS = ("finetune", "grozi_like", "capg_like", "rp2k_like")
"""The sets a render holds; each draws its products from the range of the same name."""


@dataclass(frozen=True)
class ShopPlan:
    """All that decides what is rendered.  The defaults are the `nano` shop, half a minute
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
    grozi_queries: int = 8  # in-store crops per product; the gallery is one web packshot each
    capg_lines: int = 25
    capg_flavours: int = 4  # products that differ in one accent, per line
    capg_queries: int = 6
    rp2k_products: int = 200
    rp2k_queries: int = 5
    rp2k_train: int = 8  # photographs per product to train on, as RP2K's own protocol has it
    size: int = 144  # longer side in pixels; close photographs are cut to the product's shape
    finetune_strength: float = 0.7  # how hard the photographs are, 0..1, see `photo.photograph`
    grozi_strength: float = 0.8
    capg_strength: float = 0.3
    rp2k_strength: float = 0.4
    store: float = 0.3  # how much of the store's light, glass and stickers is in a photograph, 0..1
    squashed: float = 0.1  # share of close photographs that lose the product's aspect ratio, 0..1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if name.endswith(("strength", "share", "store", "squashed")):
                fits, wanted = number and 0 <= value <= 1, "lie in 0..1"
            elif name == "exponent":
                fits = number and 0 < value < math.inf
                wanted = "be a finite number above 0"
            else:
                least = {"breadth": 2, "seed": 0, "size": 48}.get(name, 1)
                fits = number and isinstance(value, int) and value >= least
                wanted = f"be a whole number of at least {least}"
            if not fits:
                raise ValueError(f"shop plan: {name} must {wanted}, got {value!r}")
        limits = {"capg_flavours": 12, "size": 512}
        for name, most in limits.items():
            if getattr(self, name) > most:
                unit = " pixels" if name == "size" else ""
                got = getattr(self, name)
                raise ValueError(f"shop plan: {name} must be at most {most}{unit}, got {got!r}")
        if self.max_images < self.min_images:
            raise ValueError(
                "shop plan: max_images must be at least min_images "
                f"({self.min_images}), got {self.max_images!r}"
            )


def counts(breadth: int, exponent: float, max_images: int, min_images: int) -> np.ndarray:
    """Training images per product (breadth,), most frequent first: max_images / rank **
    exponent, rounded, clipped.
    """
    share = max_images / np.arange(1, breadth + 1, dtype=np.float64) ** exponent
    return np.clip(np.round(share), min_images, max_images).astype(np.int64)


@lru_cache(maxsize=8)
def products_of(plan: ShopPlan, name: str) -> tuple[Product, ...]:
    """The products of one set of a plan, in a fixed order."""
    if name == "capg_like":
        made = design(name, plan.capg_lines * 2, (plan.capg_flavours,) * 2, plan.seed)
        wanted = plan.capg_lines * plan.capg_flavours
    else:
        wanted = {
            "finetune": plan.breadth,
            "grozi_like": plan.grozi_products,
            "rp2k_like": plan.rp2k_products,
        }[name]
        made = design(name, wanted * 2, (1, 3), plan.seed)
    if name in ("capg_like", "grozi_like"):
        made = [product for product in made if product.shape != "produce"]
    return tuple(made[:wanted])


@lru_cache(maxsize=8)
def _clutter(plan: ShopPlan, name: str) -> tuple[np.ndarray, ...]:
    """Cut-outs of other products for the background, RGBA uint8."""
    made = products_of(plan, name)
    return tuple(
        packshot(made[index], 72)
        for index in stream("clutter", name, plan.seed).choice(len(made), 24)
    )


def _images(plan: ShopPlan, name: str, index: int) -> dict[str, list[np.ndarray]]:
    """Split -> pictures, RGB uint8 (h, w, 3) whose longer side is size, of one product of a set."""
    product, rng = products_of(plan, name)[index], stream("pictures", name, index, plan.seed)
    short = name.removesuffix("_like")
    strength = getattr(plan, f"{short}_strength")
    turn = 35.0 * strength
    views = [packshot(product, 160)]
    if name == "finetune":
        trained = int(counts(plan.breadth, plan.exponent, plan.max_images, plan.min_images)[index])
        amount = plan.val_images + trained
    else:
        amount = getattr(plan, f"{short}_queries")
    for variant in range(1, min(amount, 7) + 1):
        views.append(
            packshot(product, 160, (rng.uniform(-turn, turn), rng.uniform(0, 18)), variant)
        )
    clutter = _clutter(plan, name)

    def shot() -> np.ndarray:
        others = [clutter[i] for i in rng.integers(len(clutter), size=5)]
        style = "tight"
        if name != "grozi_like":
            style = str(
                rng.choice(
                    ("pile" if product.shape == "produce" else "tight", "scene"), p=(0.7, 0.3)
                )
            )
        view = views[int(rng.integers(0 if len(views) == 1 else 1, len(views)))]
        picture = in_store(
            photograph(view, rng, plan.size, others, style, strength, plan.squashed),
            rng,
            plan.store,
        )
        return cut_out(picture, view, rng) if style == "tight" else picture

    if name == "finetune":
        held = [shot() for _ in range(plan.val_images)]
        clean = [number == 0 or rng.random() < plan.packshot_share for number in range(trained)]
        return {
            "train": [on_white(views[0], rng, plan.size) if one else shot() for one in clean],
            "val": held,
        }
    gallery = on_white(views[0], rng, plan.size) if name == "grozi_like" else shot()
    found = {"gallery": [gallery], "query": [shot() for _ in range(amount)]}
    return found | (
        {"train": [shot() for _ in range(plan.rp2k_train)]} if name == "rp2k_like" else {}
    )


def _write(plan: ShopPlan, name: str, index: int, root: str) -> list[tuple[str, str, str, str]]:
    """Write one product's images; returns rows (image, product, split, SHA-256 of the file)."""
    cv2.setNumThreads(1)
    product, rows = products_of(plan, name)[index].name, []
    for split, pictures in _images(plan, name, index).items():
        Path(root, name, split, product).mkdir(parents=True)
        for number, picture in enumerate(pictures):
            image = f"{name}/{split}/{product}/{number}.jpg"
            data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[
                1
            ].tobytes()
            Path(root, image).write_bytes(data)
            rows.append((image, product, split, hashlib.sha256(data).hexdigest()))
    return rows


@lru_cache(maxsize=2)
def source_hash(without: tuple[str, ...] = ()) -> str:
    """SHA-256 of the renderer's own source, but for some files; a changed renderer renders anew."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.name not in without:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def catalogues(root: str | Path) -> dict[str, pd.DataFrame]:
    """Set name -> table of a finished render: image (path below `root`), product, split."""
    root = Path(root)
    if not (root / "plan.json").is_file():
        raise FileNotFoundError(
            f"shop: {root} holds no finished render (no plan.json); call render first"
        )
    text = {"dtype": str, "keep_default_na": False}
    return {name: pd.read_csv(root / name / "catalogue.csv", **text) for name in SETS}


def render(
    plan: ShopPlan, root: str | Path, workers: int = 2, progress: bool = True
) -> dict[str, pd.DataFrame]:
    """Render a plan into the folder `root` and return its catalogues; a finished render of
    it is only read.

    Everything is drawn into a hidden folder beside `root`, which takes its place when
    complete; an interrupted render leaves `root` as it was.
    """
    if not isinstance(workers, int) or workers < 1:
        raise ValueError(
            f"shop render: workers must be a whole number of at least 1, got {workers!r}"
        )
    root = Path(root).absolute()
    recipe = json.dumps({"plan": asdict(plan), "source": source_hash()}, indent=1)
    if (root / "plan.json").is_file():
        if (root / "plan.json").read_text() == recipe:
            return catalogues(root)
    elif root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(
            f"shop render: root must be a new or empty folder or an earlier render, got {str(root)!r}"
        )
    root.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{root.name}.partial-", dir=root.parent))
    try:
        rows = _render_all(plan, partial, workers, progress)
        for name in SETS:
            frame = pd.DataFrame(
                [row[:3] for row in rows if row[0].startswith(name + "/")],
                columns=["image", "product", "split"],
            )
            frame.to_csv(partial / name / "catalogue.csv", index=False)
        digest = hashlib.sha256(
            "\n".join(f"{row[0]} {row[3]}" for row in sorted(rows)).encode()
        ).hexdigest()
        (partial / "fingerprint.txt").write_text(digest + "\n")
        (partial / "plan.json").write_text(recipe)
        partial.chmod(0o755)
        if root.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{root.name}.old-", dir=root.parent))
            os.replace(root, old / "render")
            os.replace(partial, root)
            shutil.rmtree(old)
        else:
            os.replace(partial, root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return catalogues(root)


def _render_all(
    plan: ShopPlan, root: Path, workers: int, progress: bool
) -> list[tuple[str, str, str, str]]:
    """Write every image of every set; returns the rows of all, in a fixed order."""
    jobs = [
        (plan, name, index, str(root))
        for name in SETS
        for index in range(len(products_of(plan, name)))
    ]
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    bar = tqdm(total=len(jobs), desc="rendering the shop", unit="product", disable=not progress)
    rows: list[tuple[str, str, str, str]] = []
    with (
        bar,
        nullcontext() if workers == 1 else ProcessPoolExecutor(workers, mp_context=context) as pool,
    ):
        for made in (pool.map if pool else map)(
            _write, *zip(*jobs, strict=True)
        ):  # a map left early cancels the rest
            rows += made
            bar.update()
    return rows
