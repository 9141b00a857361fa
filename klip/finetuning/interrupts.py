"""Ctrl-C and SIGTERM: the step under way ends, and what was trained is kept."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A run was asked to end, and says from where it goes on."""


@contextmanager
def noted() -> Iterator[Callable[[], bool]]:
    """Inside, the signals are noted, and a function tells whether one came; a second one is
    obeyed at once.  Threads other than the main one get no signals."""
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: object) -> None:
        came.append(number)
        signal.signal(number, before[number] or signal.SIG_DFL)

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
