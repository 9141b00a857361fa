"""How long a large manifest takes, and how much memory: load, plan, first batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from klip.data import balance
from klip.data.images import read
from klip.data.loading import load_catalogue
from klip.settings.files import atomic

DEPTH, BATCH = 16, 64
LINKS = 60_000
"""Names that one file may have: ext4 allows 65,000."""


def generate(folder: Path, *, rows: int, products: int, seed: int = 0) -> Path:
    """A manifest of `rows` images in a folder per product, counts falling as 1/rank; its
    file is kept.

    The images of a product are names (hard links) of one small JPEG: many to look for, few
    to store.
    """
    if not 1 <= products <= rows:
        got = f"{rows} images of {products} products"
        raise ValueError(f"measure: wants at least one image per product, got {got}")
    file = folder / "manifest.csv"
    if file.is_file():
        return file
    share = 1 / np.arange(1, products + 1)
    counts = 1 + np.floor((rows - products) * share / share.sum()).astype(int)
    counts[0] += rows - counts.sum()
    rng, names = np.random.default_rng(seed), []
    for product, count in enumerate(counts.tolist()):
        own = folder / "images" / f"product-{product:05}"
        own.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            path = own / f"photograph-{number:07}.jpg"
            path.unlink(missing_ok=True)
            if number % LINKS == 0:
                first = path
                Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8)).save(path)
            else:
                os.link(first, path)
            names.append((f"images/{own.name}/{path.name}", f"product {product:05}"))
    table = pd.DataFrame(names, columns=["image", "product"]).sample(frac=1, random_state=seed)
    atomic(file, lambda part: table.to_csv(part, index=False))
    return file


def fresh(file: Path) -> dict[str, Any]:
    """`here` in a new process, so that nothing of this one is counted."""
    code = (
        "import json, sys; from klip.scale import measure; "
        "print(json.dumps(measure.here(sys.argv[1])))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True)
    if done.returncode:
        silent = f"its process ended without a word, with code {done.returncode}"
        words = done.stderr.strip() or silent
        raise ValueError(f"measure: {words.splitlines()[-1]}")
    return json.loads(done.stdout)


def here(file: str | Path) -> dict[str, Any]:
    """Load (all files are looked for), plan, first batch (draws and pixels) in this process.

    Times in seconds; before_mib and peak_mib: `peak_mib` at the start and at the end.
    """
    before, started = peak_mib(), time.perf_counter()
    catalogue = load_catalogue("manifest", file)
    loaded = time.perf_counter()
    plan = balance.plan(catalogue, DEPTH)
    planned = time.perf_counter()
    for _, _, row, _ in plan.draws(BATCH):
        read(catalogue.root / catalogue["image"].iat[row])
    drawn = time.perf_counter()
    return {
        "rows": len(catalogue),
        "products": catalogue["product"].nunique(),
        "load_s": round(loaded - started, 2),
        "plan_s": round(planned - loaded, 2),
        "batch_s": round(drawn - planned, 2),
        "before_mib": before,
        "peak_mib": peak_mib(),
    }


def peak_mib(process: int | str = "self") -> int | None:
    """Most resident memory of a process so far, MiB; None where the system does not say.
    process: its number."""
    status = Path(f"/proc/{process}/status")
    if status.is_file():  # getrusage also counts the process that started this one
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) // 1024
        return None
    if process != "self":
        return None
    try:
        import resource
    except ImportError:  # Windows
        return None
    in_a_mib = 1024 * 1024 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // in_a_mib
