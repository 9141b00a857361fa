"""Data-parallel training: what the processes of one run say to each other.

    torchrun --standalone --nproc-per-node 2 -m klip finetune ...

Every process draws the same plan and reads its share of each batch (`mine`, `together`).
The embeddings of all go into one loss, the same in every process (`gathered`); only the
rows of its own images carry a gradient there.  So the gradients of the tower add up to
those of the whole batch (`add_gradients`), whatever the loss and however uneven the
shares.  In a single process nothing is changed or copied.
Axes: B images of a batch, b of them in this process, D numbers per embedding.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed


def count() -> int:
    """Number of processes of this run."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def first() -> bool:
    """Is this the process that writes and shows progress?"""
    return count() == 1 or distributed.get_rank() == 0


def mine(batch: Sequence) -> Sequence:
    """This process's images of a batch; few images leave some processes without any."""
    if count() == 1:
        return batch
    return batch[distributed.get_rank() :: count()]


@contextmanager
def joined() -> Iterator[None]:
    """Inside, the processes that torchrun started are one group, each with a GPU of its own
    where there are GPUs."""
    if count() > 1 or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            raise ValueError(
                f"torchrun: process {local} of this machine has no GPU, there are {gpus}; give "
                f"--nproc-per-node {gpus}"
            )
        torch.cuda.set_device(local)
    distributed.init_process_group(backend)
    try:
        yield
    finally:
        distributed.destroy_process_group()


@contextmanager
def together(device: torch.device) -> Iterator[None]:
    """All processes leave this block, or none: an error in one is a ValueError in the
    others, which would wait."""
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    if count() > 1:
        failed = torch.tensor(float(failure is not None), device=device)
        distributed.all_reduce(failed)
        if failure is None and failed:
            raise ValueError(
                "fine-tuning: another process of this run failed; its own message says why"
            )
    if failure is not None:
        raise failure


def agreed(value: Any) -> Any:
    """The first process's value of a small object, such as what it found on its disk."""
    box = [value]
    if count() > 1:
        distributed.broadcast_object_list(box, src=0)
    return box[0]


@torch.no_grad()
def alike(tensors: Iterable[Tensor]) -> None:
    """Overwrite the tensors with those of the first process, bit for bit."""
    if count() > 1:
        for tensor in tensors:
            distributed.broadcast(tensor, src=0)


def gathered(rows: Tensor, labels: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Embeddings (B, D) and labels (B,) of the whole batch, of b of them; the gradient
    stays with the own rows."""
    if count() == 1:
        return rows, labels
    places = torch.tensor(mine(range(size)), dtype=torch.long, device=rows.device)
    own = rows.new_zeros(size, rows.shape[1]).index_copy(0, places, rows)  # others' are 0
    others = own.detach().clone()
    names = labels.new_zeros(size).index_copy(0, places, labels)
    distributed.all_reduce(others)
    distributed.all_reduce(names)
    others[places] = 0
    return own + others, names


@torch.no_grad()
def add_gradients(weights: list[torch.nn.Parameter], copied: list[torch.nn.Parameter]) -> None:
    """Gradients of the whole batch: the sum over processes; of `copied`, the loss's own
    weights among them, the mean.  A weight that has no gradient in any process keeps none,
    so that no weight decay touches it."""
    if count() == 1:
        return
    some = [float(weight.grad is not None) for weight in weights]
    some = torch.tensor(some, device=weights[0].device)
    distributed.all_reduce(some)
    used = [weight for weight, any_of in zip(weights, some.tolist(), strict=True) if any_of]
    for weight in used:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    for work in [distributed.all_reduce(weight.grad, async_op=True) for weight in used]:
        work.wait()
    for weight in copied:
        if weight.grad is not None:
            weight.grad /= count()


def wait() -> None:
    """Until all processes are here."""
    if count() > 1:
        distributed.barrier()
