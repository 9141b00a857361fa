"""Sweeps: many runs of the same images, one after the other, side by side, or as jobs of Slurm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import joblib
import torch
from tqdm.auto import tqdm

from klip.data.catalogue import Catalogue
from klip.finetuning import finished, loop
from klip.finetuning.finished import Run
from klip.settings import paths
from klip.settings.config import Executor, FinetuneConfig

MINUTES = 24 * 60
"""The most that a job of Slurm may take."""
MOST = 4
"""The most runs side by side: each has a tower, its gradients and its images in memory."""


def sweep(
    configs: Sequence[FinetuneConfig], catalogue: Catalogue, *, executor: Executor = "here"
) -> Iterator[Run]:
    """The runs of `configs`, in their order, one at a time in memory.

    executor: here, one after the other in this process; cores, up to MOST side by side
    that share the cores (a small network trains faster on one core than half as fast as
    on two; with a GPU as `here`); slurm, jobs of a cluster that shares CACHE, all at once,
    with a GPU each (submitit).
    ValueError: what `loop.finetune` refuses; submitit's own errors: no Slurm, a job that
    failed.
    """
    together = min(joblib.cpu_count(), MOST, len(configs))
    if executor == "slurm":
        folders = _slurm(configs, catalogue)
    elif executor == "cores" and together > 1 and not torch.cuda.is_available():
        folders = _side_by_side(configs, catalogue, together=together)
    else:
        yield from (loop.finetune(config, catalogue) for config in configs)
        return
    for config, folder in zip(configs, folders, strict=True):
        yield finished.read(folder, config)


def _side_by_side(
    configs: Sequence[FinetuneConfig], catalogue: Catalogue, *, together: int
) -> list[Path]:
    """The folders of all runs, made by processes that have their share of the cores each."""
    # Each reads its images itself: another process would want a core of its own.
    own = [config.changed(workers=0) for config in configs]
    pool = joblib.Parallel(n_jobs=together, return_as="generator")
    made = pool(joblib.delayed(_run)(config, catalogue, paths.CACHE) for config in own)
    return list(tqdm(made, total=len(own), unit="run", desc=f"{together} side by side"))


def _slurm(configs: Sequence[FinetuneConfig], catalogue: Catalogue) -> Iterator[Path]:
    import submitit

    pool = submitit.AutoExecutor(paths.CACHE / "jobs", cluster="slurm")
    pool.update_parameters(timeout_min=MINUTES, gpus_per_node=1)
    again = [[catalogue] * len(configs), [paths.CACHE] * len(configs)]
    return (job.result() for job in pool.map_array(_run, configs, *again))


def _run(config: FinetuneConfig, catalogue: Catalogue, cache: Path) -> Path:
    """The folder of the run, below `cache`: only that travels, not the weights."""
    paths.CACHE = cache
    return loop.finetune(config, catalogue, progress=False).path
