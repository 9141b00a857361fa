"""Sweeps: many runs of the same images, one after the other here, or as jobs of submitit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from klip.data.catalogue import Catalogue
from klip.finetuning import finished, loop
from klip.finetuning.finished import Run
from klip.settings import paths
from klip.settings.config import Executor, FinetuneConfig


def sweep(
    configs: Sequence[FinetuneConfig],
    catalogue: Catalogue,
    executor: str = "here",
    at_once: int = 0,
    **resources: Any,
) -> Iterator[Run]:
    """The runs of `configs`, in their order, one at a time in memory.

    executor: here, in this process; local, processes of this machine; slurm, jobs of a
    cluster that shares CACHE.
    at_once: jobs that run at the same time; 0: one on this machine, all on a cluster.
    resources: submitit's: timeout_min (a day), gpus_per_node (slurm: 1), cpus_per_task ...
    ValueError: an unknown executor, and what `loop.finetune` refuses; submitit's own error
    if a job fails.
    """
    accepted = get_args(Executor)
    if executor not in accepted:
        raise ValueError(f"sweep: executor must be one of {', '.join(accepted)}, got {executor!r}")
    if at_once < 0:
        raise ValueError(
            f"sweep: at_once must be a number of jobs, 0 for as many as there are, got {at_once!r}"
        )
    if executor == "here":
        return (loop.finetune(config, catalogue) for config in configs)
    import submitit

    pool = submitit.AutoExecutor(paths.CACHE / "jobs", cluster=executor)
    asked = {"timeout_min": 24 * 60}
    if executor == "slurm":
        asked |= {"slurm_array_parallelism": at_once or len(configs), "gpus_per_node": 1}
    pool.update_parameters(**asked | resources)
    if executor == "slurm":
        jobs = pool.map_array(_job, configs, [catalogue] * len(configs))
    else:
        jobs = []
        for config in configs:
            while sum(not job.done() for job in jobs) >= max(1, at_once):
                time.sleep(0.1)
            jobs.append(pool.submit(_job, config, catalogue))
    pairs = zip(jobs, configs, strict=True)
    return (finished.read(job.result(), config) for job, config in pairs)


def _job(config: FinetuneConfig, catalogue: Catalogue) -> Path:
    """The folder of the run: only that travels, not the weights."""
    return loop.finetune(config, catalogue, progress=False).path
