"""Data-parallel fine-tuning: a loop that the processes of torchrun share.

    torchrun --standalone --nproc-per-node 2 -m klip finetune ...

Every process draws the same plan and reads its own images of each batch.  The embeddings
of all go into one loss, the same in every process; only the rows of its own images carry
a gradient there.  So the gradients of the tower add up to those of the whole batch,
whatever the loss and however uneven the shares.
Axes: b images in this process, D numbers per embedding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, distributed

from klip.finetuning.loop import Loop


def first() -> bool:
    """Is this the process that writes and shows progress?"""
    return not distributed.is_initialized() or distributed.get_rank() == 0


@contextmanager
def joined() -> Iterator[type[Loop]]:
    """Inside, the processes that torchrun started are one group, each with a GPU of its own
    where there are GPUs.  Gives the class of their loop; klip's plain one to one alone.
    ValueError: more processes than GPUs."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Loop
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
        yield SharedLoop
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
    failed = torch.tensor(float(failure is not None), device=device)
    distributed.all_reduce(failed)
    if failure is not None:
        raise failure
    if failed:
        raise ValueError(
            "fine-tuning: another process of this run failed; its own message says why"
        )


class SharedLoop(Loop):
    """klip's loop where each process has a share of every batch, within a group; the first
    process writes."""

    def put_centres(self) -> None:
        super().put_centres()
        for module in (self.encoder.tower, self.head):
            for tensor in module.state_dict().values():  # alike everywhere, bit for bit
                distributed.broadcast(tensor, src=0)

    def own(self, part: Tensor) -> Tensor:
        return part[distributed.get_rank() :: distributed.get_world_size()]

    def fetch(self) -> Iterator[tuple[Tensor, Tensor]]:
        arriving = super().fetch()
        for step in range(self.done, len(self.batches)):
            batch = self.batches[step]
            images, labels = torch.empty(0), torch.empty(0, dtype=torch.long)
            with together(self.device):  # a damaged image ends all processes
                # few images leave some processes without any
                if any(len(self.own(part)) for part in self.parts(batch)):
                    images, labels = next(arriving)
            yield images, labels

    def embed(self, images: Tensor) -> Tensor:
        if not len(images):  # they are all in other processes
            return torch.zeros(0, self.encoder.dim, device=self.device)
        return super().embed(images)

    def gather(self, embeddings: Tensor, labels: Tensor, *, size: int) -> tuple[Tensor, Tensor]:
        places = self.own(torch.arange(size, device=self.device))
        whole = embeddings.new_zeros(size, embeddings.shape[1])
        own = whole.index_copy(0, places, embeddings)  # the others' rows are 0
        others = own.detach().clone()
        names = labels.new_zeros(size).index_copy(0, places, labels)
        distributed.all_reduce(others)
        distributed.all_reduce(names)
        others[places] = 0
        # a loss without weights has a backward pass too where no image is
        return own + others.requires_grad_(), names

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Their sum over processes; of the loss's own weights, which all have, the mean.  A
        weight that has no gradient in any process keeps none, so that no weight decay
        touches it."""
        some = [float(weight.grad is not None) for weight in self.weights]
        some = torch.tensor(some, device=self.device)
        distributed.all_reduce(some)
        used = [
            weight for weight, any_of in zip(self.weights, some.tolist(), strict=True) if any_of
        ]
        for weight in used:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        for work in [distributed.all_reduce(weight.grad, async_op=True) for weight in used]:
            work.wait()
        for weight in self.head.parameters():
            if weight.grad is not None:
                weight.grad /= distributed.get_world_size()

    def write(self, file: Callable[[], None]) -> None:
        with together(self.device):  # what the first process wrote is there for all
            if first():
                file()

    def alone(self) -> AbstractContextManager:
        return nullcontext()  # its processes make one run together

    def due(self) -> bool:
        # by steps alone: clocks of several processes differ
        return bool(self.config.save_every) and self.done % self.config.save_every == 0

    @contextmanager
    def keeping(self) -> Iterator[None]:
        yield  # not all processes may be at the same step

    def found(self, name: str) -> bool:
        box = [super().found(name)]  # on the first process's disk
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    @cached_property
    def facts(self) -> list:
        # the number of processes decides how sums are rounded
        return [
            *super().facts,
            distributed.get_world_size(),
            Path(__file__).read_text(encoding="utf-8"),
        ]
