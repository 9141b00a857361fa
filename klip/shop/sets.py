"""The rendered shop on disk: a fine-tuning set and three evaluation sets, as JPEG folders
with catalogues.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import asdict
from functools import cache, lru_cache, partial
from pathlib import Path

import cv2
import pandas as pd
from numpy import ndarray
from numpy.random import Generator
from tqdm.auto import tqdm

from klip.settings.files import whole_folder
from klip.settings.malloc import keep_memory
from klip.shop.design import Product
from klip.shop.packshot import packshot, trimmed
from klip.shop.paint import stream
from klip.shop.photo import cut_out, on_white, photograph
from klip.shop.plan import ShopPlan, counts, products_of
from klip.shop.store import in_store

SETS = ("finetune", "grozi_like", "capg_like", "rp2k_like")
"""The sets a render holds; each draws its products from the range of the same name."""

Job = tuple[ShopPlan, str, int, str]  # plan, set, number of a product in it, folder
Row = tuple[str, str, str, str]  # image, product, split, SHA-256 of the file


@lru_cache(maxsize=8)
def _clutter(plan: ShopPlan, name: str) -> tuple[ndarray, ...]:
    """Other products for the background, cut out and trimmed, RGBA uint8."""
    made = products_of(plan, name)
    chosen = stream("clutter", name, plan.seed).choice(len(made), 24)
    return tuple(trimmed(packshot(made[index], 72)) for index in chosen)


def _shot(
    plan: ShopPlan,
    name: str,
    *,
    product: Product,
    views: int,
    drawn: Callable[[int], ndarray],
    rng: Generator,
) -> ndarray:
    """A photograph in the store, RGB uint8 (h, w, 3); a close one is cut to the product.

    views: how many views of the product there are; drawn: number of a view -> RGBA.
    """
    clutter, style = _clutter(plan, name), "tight"
    others = [clutter[i] for i in rng.integers(len(clutter), size=5)]
    if name != "grozi_like":
        close = "pile" if product.shape == "produce" else "tight"
        style = close if rng.random() < 0.7 else "scene"
    # Not the view of the packshot, where there are others.
    view = drawn(int(rng.integers(0 if views == 1 else 1, views)))
    how = {"style": style, "strength": plan.of(name, "strength"), "squashed": plan.squashed}
    picture = photograph(view, rng, size=plan.size, others=others, **how)
    picture = in_store(picture, rng, strength=plan.store)
    return cut_out(picture, view, rng=rng) if style == "tight" else picture


def _images(plan: ShopPlan, name: str, *, index: int) -> dict[str, list[ndarray]]:
    """Split -> pictures, RGB uint8 (h, w, 3) whose longer side is size, of one product of a set."""
    product, rng = products_of(plan, name)[index], stream("pictures", name, index, plan.seed)
    trained = int(counts(plan)[index]) if name == "finetune" else 0
    amount = plan.val_images + trained if trained else int(plan.of(name, "queries"))
    turn = 35.0 * plan.of(name, "strength")
    sides: list[tuple[float, float] | None] = [None]
    for _ in range(min(amount, 7)):
        sides.append((rng.uniform(-turn, turn), rng.uniform(0, 18)))

    @cache  # of a product with few photographs some views are never taken
    def drawn(number: int) -> ndarray:
        return trimmed(packshot(product, 160, view=sides[number], variant=number))

    def clean() -> ndarray:
        return on_white(drawn(0), rng, size=plan.size)

    views = len(sides)
    shot = partial(_shot, plan, name, product=product, views=views, drawn=drawn, rng=rng)
    if trained:
        held = [shot() for _ in range(plan.val_images)]
        # All is chosen before the first is drawn: what a picture draws moves no choice.
        white = [number == 0 or rng.random() < plan.packshot_share for number in range(trained)]
        return {"train": [clean() if one else shot() for one in white], "val": held}
    found = {"gallery": [clean() if name == "grozi_like" else shot()]}
    found["query"] = [shot() for _ in range(amount)]
    if name == "rp2k_like":
        found["train"] = [shot() for _ in range(plan.rp2k_train)]
    return found


def _write(job: Job) -> list[Row]:
    """Write one product's images; returns their rows."""
    cv2.setNumThreads(1)
    keep_memory()
    plan, name, index, root = job
    product, rows = products_of(plan, name)[index].name, []
    for split, pictures in _images(plan, name, index=index).items():
        Path(root, name, split, product).mkdir(parents=True)
        for number, picture in enumerate(pictures):
            image = f"{name}/{split}/{product}/{number}.jpg"
            quality = [cv2.IMWRITE_JPEG_QUALITY, 92]
            picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
            data = cv2.imencode(".jpg", picture, quality)[1].tobytes()
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
    plan: ShopPlan, root: str | Path, *, workers: int = 2, progress: bool = True
) -> dict[str, pd.DataFrame]:
    """Render a plan into the folder `root` and return its catalogues; a finished render of
    it is only read.

    Everything is drawn into a hidden folder beside `root`, which takes its place when
    complete; an interrupted render leaves `root` as it was.
    """
    if not isinstance(workers, int) or workers < 1:
        wanted = "workers must be a whole number of at least 1"
        raise ValueError(f"shop render: {wanted}, got {workers!r}")
    root = Path(root).absolute()
    recipe = json.dumps({"plan": asdict(plan), "source": source_hash()}, indent=1)
    if (root / "plan.json").is_file():
        if (root / "plan.json").read_text(encoding="utf-8") == recipe:
            return catalogues(root)
    elif root.exists() and (not root.is_dir() or any(root.iterdir())):
        wanted = "root must be a new or empty folder or an earlier render"
        raise ValueError(f"shop render: {wanted}, got {str(root)!r}")
    with whole_folder(root) as fresh:
        _fill(fresh, plan, workers=workers, progress=progress)
        (fresh / "plan.json").write_text(recipe, encoding="utf-8")
    return catalogues(root)


def _fill(root: Path, plan: ShopPlan, *, workers: int, progress: bool) -> None:
    """Write every image, the catalogues and the fingerprint of all images into a folder."""
    jobs: list[Job] = []
    for name in SETS:
        jobs += [(plan, name, index, str(root)) for index in range(len(products_of(plan, name)))]
    rows: list[Row] = []
    bar = tqdm(total=len(jobs), desc="rendering the shop", unit="product", disable=not progress)
    with bar, closing(_done(jobs, workers)) as done:
        for made in done:
            rows += made
            bar.update()
    for name in SETS:
        listed = [row[:3] for row in rows if row[0].startswith(name + "/")]
        frame = pd.DataFrame(listed, columns=["image", "product", "split"])
        frame.to_csv(root / name / "catalogue.csv", index=False)
    lines = "\n".join(f"{row[0]} {row[3]}" for row in sorted(rows))
    digest = hashlib.sha256(lines.encode()).hexdigest()
    (root / "fingerprint.txt").write_text(digest + "\n", encoding="utf-8")


def _done(jobs: list[Job], workers: int) -> Iterator[list[Row]]:
    """The rows of each job, in order, as they are done."""
    if workers == 1:
        yield from map(_write, jobs)
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(_write, jobs)  # a map left early cancels the rest
