"""How many cores compute: one, where several works go side by side or are timed beside others."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache

import cv2
from threadpoolctl import ThreadpoolController


@cache
def _libraries() -> ThreadpoolController:
    """Those that compute, looked for once: it takes longer than comparing two prints."""
    return ThreadpoolController()


@contextmanager
def one_core() -> Iterator[None]:
    """Inside, BLAS, OpenCV and, if the program has imported it, torch compute on one core."""
    torch, before = sys.modules.get("torch"), cv2.getNumThreads()
    threads_of_torch = torch.get_num_threads() if torch else 0
    try:
        if torch:
            torch.set_num_threads(1)
        cv2.setNumThreads(1)
        with _libraries().limit(limits=1, user_api="blas"):
            yield
    finally:
        if torch:
            torch.set_num_threads(threads_of_torch)
        cv2.setNumThreads(before)


@contextmanager
def threads(number: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of so many threads, each of which computes on one core, lest they wait for each
    other."""
    with one_core(), ThreadPoolExecutor(number) as pool:
        yield pool
