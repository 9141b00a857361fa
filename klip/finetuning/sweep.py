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
        shares = zip(configs, _cores(len(configs), executor), strict=True)
        own = [partial(_run, one.changed(workers=0), catalogue, cores) for one, cores in shares]
        folders = side_by_side(own, executor)
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


def side_by_side(jobs: Sequence[Callable[[], Any]], executor: Executor = "cores") -> list[Any]:
    """What each job returns, in order; of `cores` made by processes that have their share of
    the cores each, else one after the other in this process."""
    number = together(len(jobs), executor)
    if number < 2:
        return [job() for job in jobs]
    pool = joblib.Parallel(n_jobs=number, return_as="generator")
    made = pool(joblib.delayed(_there)(paths.CACHE, job) for job in jobs)
    return list(tqdm(made, total=len(jobs), unit="run", desc=f"{number} side by side"))


def _cores(jobs: int, executor: Executor) -> list[int]:
    """Cores of each of some jobs alike: the last, too few for a round of their own, have more."""
    cores, number = joblib.cpu_count(), together(jobs, executor)
    last = jobs % number
    return [cores // number] * (jobs - last) + [cores // last for _ in range(last)]


def _there(cache: Path, job: Callable[[], Any]) -> Any:
    """A job in another process, which keeps its files below the same `cache`."""
    paths.CACHE = cache
    return job()


def _slurm(jobs: Sequence[Callable[[], Path]]) -> Iterator[Path]:
    import submitit

    pool = submitit.AutoExecutor(paths.CACHE / "jobs", cluster="slurm")
    pool.update_parameters(timeout_min=MINUTES, gpus_per_node=1)
    given = [paths.CACHE] * len(jobs), jobs
    return (job.result() for job in pool.map_array(_there, *given))


def _run(config: FinetuneConfig, catalogue: Catalogue, cores: int = 0) -> Path:
    """The folder of the run: only that travels, not the weights.  cores: 0 as it comes."""
    if cores:
        torch.set_num_threads(cores)
    return loop.finetune(config, catalogue, progress=False).path
