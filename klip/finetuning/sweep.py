"""Sweeps: many runs of the same images, one after the other, side by side, or as jobs of Slurm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

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
    if executor == "slurm":
        folders = _slurm([partial(_run, config, catalogue) for config in configs])
    elif together(len(configs), executor) > 1:
        # Each reads its images itself: another process would want a core of its own.
        own = [partial(_run, config.changed(workers=0), catalogue) for config in configs]
        folders = side_by_side(own, executor, alike=True)
    else:
        yield from (loop.finetune(config, catalogue) for config in configs)
        return
    for config, folder in zip(configs, folders, strict=True):
        yield finished.read(folder, config)


def together(jobs: int, executor: Executor) -> int:
    """How many of some jobs run side by side in this machine."""
    if executor != "cores" or torch.cuda.is_available():
        return 1
    return min(joblib.cpu_count(), MOST, jobs)


def side_by_side(
    jobs: Sequence[Callable[[], Any]], executor: Executor = "cores", *, alike: bool = False
) -> list[Any]:
    """What each job returns, in order; of `cores` made by processes that have their share of
    the cores each, else one after the other in this process.

    alike: all take as long, so the last, too few for a round of their own, have more cores.
    """
    number = together(len(jobs), executor)
    if number < 2:
        return [job() for job in jobs]
    cores, last = joblib.cpu_count(), len(jobs) % number if alike else 0
    shares = [cores // number] * (len(jobs) - last) + [cores // last for _ in range(last)]
    pool = joblib.Parallel(n_jobs=number, return_as="generator")
    each = zip(jobs, shares, strict=True)
    made = pool(joblib.delayed(_there)(paths.CACHE, job, share) for job, share in each)
    return list(tqdm(made, total=len(jobs), unit="run", desc=f"{number} side by side"))


def _there(cache: Path, job: Callable[[], Any], cores: int = 0) -> Any:
    """A job in another process, which keeps its files below the same `cache`.  cores: on so
    many, whatever the job before it in that process had; 0: as the process has them."""
    paths.CACHE = cache
    if cores:
        torch.set_num_threads(cores)
    return job()


def _slurm(jobs: Sequence[Callable[[], Path]]) -> Iterator[Path]:
    import submitit

    pool = submitit.AutoExecutor(paths.CACHE / "jobs", cluster="slurm")
    pool.update_parameters(timeout_min=MINUTES, gpus_per_node=1)
    given = [paths.CACHE] * len(jobs), jobs
    return (job.result() for job in pool.map_array(_there, *given))


def _run(config: FinetuneConfig, catalogue: Catalogue) -> Path:
    """The folder of the run: only that travels, not the weights."""
    return loop.finetune(config, catalogue, progress=False).path
