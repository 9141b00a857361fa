"""Sweeps: many runs of the same images, one after the other here, or as jobs of submitit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from klip.data.catalogue import Catalogue
from klip.finetuning import finished, loop
from klip.finetuning.finished import Run
from klip.settings import paths
from klip.settings.config import Executor, FinetuneConfig

MINUTES = 24 * 60
"""The most that a job may take."""


def sweep(
    configs: Sequence[FinetuneConfig], catalogue: Catalogue, *, executor: Executor = "here"
) -> Iterator[Run]:
    """The runs of `configs`, in their order, one at a time in memory.

    executor: here, in this process; local, each in a process of its own; slurm, jobs of a
    cluster that shares CACHE, all at once, with a GPU each.
    ValueError: what `loop.finetune` refuses; submitit's own errors: no such executor, a job
    that failed.
    """
    if executor == "here":
        yield from (loop.finetune(config, catalogue) for config in configs)
        return
    import submitit

    pool = submitit.AutoExecutor(paths.CACHE / "jobs", cluster=executor)
    pool.update_parameters(timeout_min=MINUTES)
    if executor == "slurm":
        pool.update_parameters(gpus_per_node=1)
        jobs = pool.map_array(_job, configs, [catalogue] * len(configs))
    else:  # each started when asked for: a machine has room for one
        jobs = (pool.submit(_job, config, catalogue) for config in configs)
    for config, job in zip(configs, jobs, strict=True):
        yield finished.read(job.result(), config)


def _job(config: FinetuneConfig, catalogue: Catalogue) -> Path:
    """The folder of the run: only that travels, not the weights."""
    return loop.finetune(config, catalogue, progress=False).path
