"""What work costs with klip and with what a user would take instead: the contests of
notebook B, each in one run and by turns.

Rates are images or queries a second; every function returns the table of `contest.rounds`
or one like it, to be summed up by `standings.summary`.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from torch import nn

from klip.data.catalogue import Catalogue
from klip.data.images import read
from klip.data.loading import load_catalogue
from klip.model import encoder as encoders
from klip.recognise import baselines, budgets, keypoints, rerank
from klip.recognise.gallery import Gallery
from klip.scale import (
    contest,
    peers_embedding,
    peers_print,
    peers_search,
    peers_training,
    same_start,
    watch,
)
from klip.scale.peers_embedding import Embedding
from klip.scale.peers_print import Prints
from klip.scale.peers_search import Search
from klip.scale.plain_training import Training
from klip.settings import paths
from klip.settings.config import FinetuneConfig
from klip.settings.cores import one_core
from klip.shop import sets
from klip.shop.plan import ShopPlan

PHOTOGRAPH = (600, 800)
"""Width and height of the JPEG files of a catalogue (A): a telephone's, made smaller."""
MEMORY = Path("/dev/shm")
"""Where Linux keeps files in memory."""
COMMANDS = {"import klip": ["-c", "import klip"], "klip --help": ["-m", "klip", "--help"]}


def training(
    model: str, *, rounds: int, steps: int, batch: int, products: int = 64, workers: int = 2
) -> pd.DataFrame:
    """Images/s of fine-tuning from JPEG files: klip, its pure compute, and its peers."""
    with tempfile.TemporaryDirectory(prefix="klip-cost-") as folder:
        start = same_start.write(model, Path(folder, "start"))
        shots = watch.photographs(Path(folder), products)
        given = Training(
            str(start),
            [str(file) for file in shots.files],
            list(range(products)),
            batch,
            steps,
            workers,
            **same_start.how(model, trained=True),
        )
        return contest.held(peers_training.contenders(given), rounds)


def embedding(
    model: str, *, rounds: int, files: int, workers: int = 2
) -> tuple[pd.DataFrame, Mapping[str, float]]:
    """Images/s of embedding JPEG files; and of each peer, and of klip in fp32, the share of
    images whose nearest other image is the one that klip finds.  "decoded whole": by klip in
    fp32, files decoded whole beside files decoded in part."""
    with tempfile.TemporaryDirectory(prefix="klip-cost-") as folder:
        out = Path(folder, "rows")
        out.mkdir()
        start = same_start.write(model, Path(folder, "start"))
        shots = watch.photographs(Path(folder), files, size=PHOTOGRAPH)
        names = [str(file) for file in shots.files]
        how = same_start.how(model, trained=False)
        given = Embedding(str(start), names, str(out), workers, **how)
        table = contest.held(peers_embedding.contenders(given), rounds)
        own = encoders.load(start / "klip" / "tower.safetensors")
        exact = encoders.embed(own, names, workers=workers, precision="fp32")
        np.save(out / "klip in fp32.npy", exact.numpy())
        agree = dict(peers_embedding.agreement(out))
        whole = encoders.embed(own, list(map(read, names)), workers=workers, precision="fp32")
        return table, agree | {"decoded whole": peers_embedding.alike(exact.numpy(), whole.numpy())}


def search(*, rounds: int, names: Sequence[str] = (), **sizes: int) -> pd.DataFrame:
    """Queries/s of the nearest rows.  sizes: of `Search`; names: of contestants, else all."""
    return contest.held(peers_search.contenders(Search(**sizes), names), rounds)


def prints(
    *, rounds: int, queries: int, packshots: int
) -> tuple[pd.DataFrame, Mapping[str, float]]:
    """Queries/s of comparing print with some packshots, on one core, of the rendered set
    grozi-like; and of each contestant the share of queries that the right packshot wins."""
    shots, asked = (found.frame for found in _rendered())
    shots = shots.sample(packshots, random_state=0)
    asked = asked[asked["product"].isin(shots["product"])]
    asked = asked.sample(min(queries, len(asked)), random_state=0)
    given = Prints(asked["file"].tolist(), shots["file"].tolist())
    table = contest.held(peers_print.contenders(given), rounds)
    named, truth = shots["product"].to_numpy(), asked["product"].to_numpy()
    won = table.dropna(subset="first").groupby("contender", sort=False)["first"].last()
    right = {
        name: float((named[places] == truth).mean())
        for name, places in won.items()
        if not name.startswith("floor")
    }
    return table, right


def _rendered() -> tuple[Catalogue, Catalogue]:
    """Packshots and queries, with a column `file`."""
    chosen, asked = (
        found.assign(file=list(map(str, found.files)))
        for found in load_catalogue("grozi-like").pick("first", 0)
    )
    return chosen, asked


def by_turns(
    works: Mapping[str, Callable[[], float]], rounds: int, *, warm: bool = True
) -> pd.DataFrame:
    """Rows contender, round, per_second, work, seconds of works in this process; each returns
    how much it did.  warm: a round more before all others, which is not told."""
    rows = []
    for turn in range(-1 if warm else 0, rounds):
        for name, work in works.items():
            started = time.perf_counter()
            done = work()
            seconds = time.perf_counter() - started
            row = {"contender": name, "round": turn, "per_second": done / seconds}
            rows.append(row | {"work": done, "done": done, "seconds": seconds})
    table = pd.DataFrame(rows).query("round >= 0").reset_index(drop=True)
    return table.assign(user_s=np.nan, peak_mib=np.nan, note="")


def arrival(model: str, *, rounds: int, products: int) -> pd.DataFrame:
    """A new product, on one core: a packshot's file added to a gallery of so many products and
    its photograph recognised; and one forward pass of one image."""
    encoder = encoders.load(model)
    rows = nn.functional.normalize(
        torch.randn(products, encoder.dim, generator=torch.Generator().manual_seed(0)), dim=1
    )
    names = [f"product {place:05}" for place in range(products)]
    size = encoder.preprocess.size
    with tempfile.TemporaryDirectory(prefix="klip-cost-") as folder, one_core():
        packshot, photograph = watch.photographs(Path(folder), 2).files
        meta = {"views": 1, "seed": 0, "precision": "fp32"}
        full = Gallery(rows, names, names, meta=meta, encoder=encoder)

        def added() -> float:
            gallery = replace(full)  # what adds to its rows makes them anew
            gallery.add("a new product", [packshot])
            gallery.classify([photograph], top=1)
            return 1

        def forward() -> float:
            with torch.no_grad():
                encoder(torch.zeros(1, 3, size, size))
            return 1

        return by_turns({"klip": added, "floor: forward": forward}, rounds)


def rivals(model: str, *, products: int) -> pd.DataFrame:
    """What a product more costs who has to train: rows of notebook 05 fitted for so many
    products, a packshot each, with the fewest images that are tried there; on one core, once,
    for they take minutes.  "views kept": those of all products but the new one are there."""
    encoder = encoders.load(model)
    recipes = {recipe.row: recipe for recipe in baselines.RECIPES}
    linear = recipes["frozen CLIP tower + linear layer"]
    whole = recipes["ResNeXt, full fine-tuning"]  # the recipe, on klip's tower
    with tempfile.TemporaryDirectory(prefix="klip-cost-") as folder, one_core():
        shots = watch.photographs(Path(folder), products + 1)
        last = np.arange(products + 1) == products
        names = shots["product"].where(~last, shots["product"][0])
        shop = shots.assign(product=names, split=np.where(last, "query", "gallery"))
        how = {"catalogue": shop, "budget": budgets.LEAST, "workers": 0, "precision": "fp32"}
        task = FinetuneConfig(depth=1, workers=0, precision="fp32")
        kept = torch.randn((products - 1) * baselines.VIEWS, encoder.dim)

        def from_files() -> float:
            baselines.fit(linear, encoder, **how)
            return 1

        def with_views() -> float:
            new = shots.where(np.arange(products + 1) == 0)
            features = torch.cat([baselines.embed(encoder, new, how=task), kept])
            baselines.fit(linear, encoder, features=features, **how)
            return 1

        def wholly() -> float:
            baselines.fit(whole, encoder, **how)
            return 1

        works = {"linear layer": from_files, "linear layer, views kept": with_views}
        before, paths.CACHE = paths.CACHE, Path(folder, "cache")  # no run is found finished
        try:
            return by_turns(works | {"whole network": wholly}, 1, warm=False)
        finally:
            paths.CACHE = before


def reranking(*, rounds: int, products: int, first: int = 20, queries: int = 20) -> pd.DataFrame:
    """Queries/s of re-ranking among the first of so many products, on one core, from the file
    to the answer, and of finding the query's keypoints alone."""
    shots, asked = (found["file"].tolist() for found in _rendered())
    asked, shots = asked[:queries], (shots * (1 + products // len(shots)))[:products]
    seen = dict(zip(set(shots), keypoints.describe(set(shots), 1), strict=True))
    names = [f"product {place:05}" for place in range(products)]
    unit = nn.functional.normalize(torch.randn(products, 8), dim=1)
    meta = {"views": 1, "seed": 0, "precision": "fp32"}
    gallery = Gallery(unit, names, shots, meta, None, [seen[file] for file in shots])
    how = rerank.Rerank(first=min(first, products))
    rng = np.random.default_rng(0)
    rows = np.stack([rng.permutation(products)[: how.first] for _ in asked])  # (Q, F)
    cosines = np.linspace(1, 0.5, how.first)[None]

    def ranked() -> float:
        for file, nearest in zip(asked, rows, strict=True):  # one at a time, as a till asks
            rerank.of_gallery(gallery, [file], rows=nearest[None], cosines=cosines, how=how)
        return len(asked)

    def found() -> float:
        for file in asked:
            keypoints.sift(read(file))
        return len(asked)

    with one_core():
        return by_turns({"klip": ranked, "floor: keypoints": found}, rounds)


def rendering(*, rounds: int, share: float = 0.05, photographs: int = 600) -> pd.DataFrame:
    """Images/s of the rendered shop on one core, a share of its products in its own mixture
    of packshots and in-store images; and of in-store images, of which few products have
    so many each that their packshots hardly count.  Files go to memory where the system has
    such a folder, for a disk is no core; "on disk" tells what it adds."""
    usual, turn = ShopPlan(), itertools.count()
    few = dict.fromkeys(("breadth", "grozi_products", "rp2k_products"), 2)
    few |= {"capg_lines": 1, "capg_flavours": 2, "max_images": usual.min_images}
    few |= dict.fromkeys(("grozi_queries", "capg_queries", "rp2k_queries"), photographs)
    mixture, alone = _shop(share), replace(usual, **few)

    def rendered(plan: ShopPlan, into: Path | None) -> float:
        with tempfile.TemporaryDirectory(prefix="klip-cost-", dir=into) as folder:
            plan = replace(plan, seed=next(turn))
            made = sets.render(plan, Path(folder, "shop"), workers=1, progress=False)
            return sum(map(len, made.values()))

    memory = MEMORY if MEMORY.is_dir() else None
    works = {"klip": partial(rendered, mixture, memory)}
    works |= {"klip, in-store": partial(rendered, alone, memory)}
    works |= {"klip, in-store, on disk": partial(rendered, alone, None)}
    return by_turns(works, rounds)


def _shop(share: float) -> ShopPlan:
    """The shop as profile `nano` has it, with a share of its products and of the images of the
    most frequent."""
    usual = ShopPlan()
    names = ("breadth", "max_images", "grozi_products", "capg_lines", "rp2k_products")
    return replace(usual, **{name: max(4, round(share * getattr(usual, name))) for name in names})


def whole_shop(share: float = 1.0) -> float:
    """Seconds of rendering profile `nano`'s shop, or a share of it, on all cores."""
    plan = _shop(share)
    with tempfile.TemporaryDirectory(prefix="klip-cost-") as folder:
        started = time.perf_counter()
        sets.render(plan, Path(folder, "shop"), workers=joblib.cpu_count(), progress=False)
        return time.perf_counter() - started


def commands(rounds: int) -> pd.DataFrame:
    """Seconds of starting klip."""

    def begun(words: list[str]) -> float:
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
        return 1

    return by_turns({name: partial(begun, words) for name, words in COMMANDS.items()}, rounds)
