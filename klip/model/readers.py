"""Who reads images for a network: threads, or processes, how many have room, and what goes
wrong with them."""

import shutil
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

SHARED = Path("/dev/shm")
"""Where Linux keeps what processes share."""


def batches(
    items: Dataset, groups: Iterable[list], *, workers: int, room: tuple[int, int], beside: bool
) -> Iterator[Any]:
    """The batch of each group of keys, made of `items[key]`, by `workers` readers.

    beside: read by processes while the network computes on a GPU.  Else by threads between
    its steps: on a CPU processes would take the cores on which it computes.
    room: views of a batch and pixels of their side, for `room_for`.
    """
    if not beside:
        with _mapped(workers) as each:
            for group in groups:
                yield default_collate(list(each(items.__getitem__, group)))
        return
    yield from DataLoader(
        items,
        batch_sampler=groups,
        num_workers=room_for(workers, room[0], size=room[1]),
        worker_init_fn=quiet,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # the numbers that torch draws are for the steps
    )


@contextmanager
def _mapped(workers: int) -> Iterator[Callable[..., Iterable]]:
    """`map`, by that many threads."""
    if workers < 2:
        yield map
        return
    with ThreadPoolExecutor(workers) as pool:
        yield pool.map


def quiet(_worker: int) -> None:
    """A loader's worker computes on one thread: the others belong to the model.  Ctrl-C is
    for the process that it works for, which ends it."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def room_for(workers: int, batch: int, *, size: int) -> int:
    """`workers`, or 0 with a warning where /dev/shm has no room for their batches of `batch`
    views, `size` pixels a side: each keeps up to three there."""
    if not workers or not SHARED.is_dir():
        return workers
    wanted, free = 3 * workers * batch * 3 * size * size * 4, shutil.disk_usage(SHARED).free
    if wanted <= free:
        return workers
    warnings.warn(
        f"{SHARED} has {free / 1e6:.0f} MB free and {workers} workers want {wanted / 1e6:.0f}: "
        "images are read in this process (in a container: --shm-size)",
        stacklevel=3,
    )
    return 0


@contextmanager
def one_sentence(batch: int) -> Iterator[None]:
    """Say in one sentence what goes wrong around a network: an error in a DataLoader's worker
    without its traceback, a worker that was killed, memory that is not there for a `batch`."""
    try:
        yield
    except (ValueError, OSError) as error:
        if "DataLoader worker" not in str(error):
            raise
        raise type(error)(str(error).strip().splitlines()[-1].split(": ", 1)[-1]) from None
    except (RuntimeError, MemoryError) as error:
        said = str(error)
        if "DataLoader worker" in said or "shared memory" in said:
            free = shutil.disk_usage(SHARED).free if SHARED.is_dir() else 0
            raise OSError(
                "a process that read images was killed, or had no room: the machine is short of "
                f"memory, or {SHARED} ({free / 1e6:.0f} MB free) is; take fewer workers, or "
                "workers=0"
            ) from None
        lacks = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if lacks or "can't allocate memory" in said or "not enough memory" in said:
            raise MemoryError(
                f"out of memory at {batch} images at a time; take a smaller batch_size, or "
                "accumulate or checkpointing in fine-tuning (`klip plan` tells what fits)"
            ) from None
        raise
