"""The process of one contender: it prepares, says so, and works a round for every line it gets.

Its first line is what it is given (JSON), all others ask for a round.  It answers each with
a line of JSON: what it did, or `empty`, why it cannot.  Nothing of klip or torch is imported
here: klip's settings for malloc and threads shall neither help nor harm a peer.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

PACKAGES = {
    "faiss": "faiss-cpu",
    "usearch": "usearch",
    "oml": "--no-deps open-metric-learning",
    "cv2": "opencv-contrib-python-headless",
}
"""Module -> what pip calls it, where the names differ or no dependency of klip brings it."""
Round = Callable[[], dict[str, Any]]
"""A round of work: `work`, how many images or queries are counted, the `seconds` that they
took, `done`, how many there were with those not counted (else `work`), and what else is to
be told."""


class Cannot(Exception):
    """A contender that does not take part, and why."""


def serve(contestants: Mapping[str, Callable[[dict[str, Any]], Round]]) -> None:
    """Be the contestant that the command line names, until there are no more lines.

    A contestant prepares with what it is given, and returns its round.  The first round
    warms up, and is not told.
    """
    lines = queue.SimpleQueue[bytes]()
    threading.Thread(target=listen, args=(lines,), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        work = contestants[sys.argv[1]](json.loads(lines.get()))
        timed(work)
        answers.write(json.dumps({"ready": True}) + "\n")
        while True:
            lines.get()
            answers.write(json.dumps(timed(work)) + "\n")
    except Exception as error:  # whatever it is, it stands in the table
        answers.write(json.dumps({"empty": sentence(error)}) + "\n")


def listen(lines: queue.SimpleQueue[bytes]) -> None:
    """Pass lines on as they come; when no more can come, end at once, in the middle of a
    round, too: who asked is gone.

    By the file's number: a lock of `sys.stdin`, held here, would stop forked workers.
    """
    rest = b""
    while True:
        part = os.read(0, 2**16)
        if not part:
            break
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            lines.put(line)
    if os.getpgrp() == os.getpid():  # with the workers of a loader
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def timed(work: Round) -> dict[str, Any]:
    """A round, with the seconds of computing that it took in this process and its workers."""
    before = os.times()
    found = work()
    gc.collect()  # a loader ends its workers when it goes, and only then their time is known
    after = os.times()
    user = after.user + after.children_user - before.user - before.children_user
    system = after.system + after.children_system - before.system - before.children_system
    return {"done": found["work"], **found, "user_s": user, "system_s": system}


def sentence(error: Exception) -> str:
    """Why a contender takes no part."""
    if isinstance(error, ModuleNotFoundError):
        module = (error.name or "").partition(".")[0]
        return f"needs pip install {PACKAGES.get(module, module)}"
    lines = str(error).strip().splitlines() or ["no reason given"]
    return lines[0] if isinstance(error, Cannot) else f"{type(error).__name__}: {lines[0]}"


def now(device: str) -> float:
    """The time in seconds, when a GPU has done what it was given."""
    if device == "cuda":
        import torch  # not needed by all who import this file

        torch.cuda.synchronize()
    return time.perf_counter()
