"""What the machine can do at most: multiply, read its memory, decode JPEGs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from klip.data.images import read
from klip.scale import bench, watch


def floors(
    *,
    rounds: int = 5,
    device: str = "cpu",
    precision: str = "fp32",
    side: int = 0,
    megabytes: int = 1024,
    size: tuple[int, int] = (600, 800),
) -> pd.DataFrame:
    """A row per floor: floor, unit, per_second (median of `rounds`, by turns), low, high.

    side: of the matrices, 0 as `bench.matrix_rate` has it.  megabytes: of the array that
    all threads read; more than the caches hold.  size: width and height of the JPEG.
    """
    array = torch.ones(megabytes * 2**20 // 4)
    with tempfile.TemporaryDirectory(prefix="klip-floors-") as folder:
        (file,) = watch.photographs(Path(folder), 1, size=size).files
        how = {"side": side, "repeats": 1}
        measured: dict[tuple[str, str], Callable[[], float]] = {
            ("matrix product", "FLOP"): lambda: bench.matrix_rate(device, precision, **how),
            ("memory, read by all threads", "byte"): lambda: read_rate(array),
            ("JPEG decoded on one core", "image"): lambda: decode_rate(file),
        }
        rows = []
        for turn in range(rounds + 1):
            for (floor, unit), rate in measured.items():
                found = rate()
                if turn:  # the first warms up
                    rows.append({"floor": floor, "unit": unit, "per_second": found})
    rates = pd.DataFrame(rows).groupby(["floor", "unit"], sort=False)["per_second"]
    table = rates.agg(per_second="median", low="min", high="max")
    return table.reset_index()


def read_rate(array: torch.Tensor) -> float:
    """Bytes/s of an array that is summed up once."""
    started = time.perf_counter()
    array.sum()
    return array.nbytes / (time.perf_counter() - started)


def decode_rate(file: Path, images: int = 20) -> float:
    """Images/s of klip's reader in this thread, the file being in the page cache."""
    started = time.perf_counter()
    for _ in range(images):
        read(file)
    return images / (time.perf_counter() - started)
