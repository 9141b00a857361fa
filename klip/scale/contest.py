"""Contenders that do the same work by turns, A B A B ..., each in a process of its own.

So what one of them imports, sets or keeps in memory touches no other, and a machine that
slows down for a while slows all of them down.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pandas as pd

from klip.scale.measure import peak_mib

PACKAGE = Path(__file__).parents[2]


@dataclass
class Contender:
    """One contestant of a module that ends in `contender.serve`, and its process."""

    name: str
    module: str
    given: dict[str, Any] = field(default_factory=dict)
    """What the contestant is made of (JSON)."""
    note: str = ""
    patience: float = 1800.0
    """Seconds after which a round, or its preparation, has failed."""
    empty: str = ""
    """Why it takes no part."""
    process: subprocess.Popen[str] | None = None
    errors: IO[str] | None = None

    def start(self) -> None:
        """Start the process, and wait until it has prepared and warmed up."""
        path = os.pathsep.join([str(PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(
            [sys.executable, "-m", self.module, self.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # with its loader's workers a group, to be ended as one
        )
        self.send(json.dumps(self.given))
        self.empty = self.answer().get("empty", "")

    def round(self, number: int) -> dict[str, Any]:
        """A row of `rounds`."""
        self.send("")
        found = self.answer()
        row = {"contender": self.name, "round": number, "note": self.note}
        self.empty = found.get("empty", "")
        if self.empty:
            return row | {"note": f"empty: {self.empty}"}
        row["per_second"] = found["work"] / found["seconds"]
        return row | found | {"peak_mib": peak_mib(self.process.pid)}

    def send(self, line: str) -> None:
        """Write a line; a process that is no more is told of by `answer`."""
        with suppress(BrokenPipeError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The next line of the process; `empty`: it failed, and why."""
        started, late = time.monotonic(), threading.Timer(self.patience, self.kill)
        late.start()
        line = self.process.stdout.readline()
        late.cancel()
        if line:
            return json.loads(line)
        code = self.process.wait()
        if time.monotonic() - started >= self.patience:
            return {"empty": f"took longer than {self.patience:g} seconds"}
        self.errors.seek(0)
        words = self.errors.read().strip().splitlines()
        last = f": {words[-1]}" if words else ""
        return {"empty": f"its process ended with code {code}{last}"}

    def kill(self) -> None:
        """End the process and its workers at once."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def end(self) -> None:
        """End the process; one that waits for a line ends by itself."""
        if self.process is None:
            return
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(1)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()
        self.process.stdout.close()
        self.errors.close()


def entered(
    module: str, given: dict[str, Any], *, notes: Mapping[str, str], names: Sequence[str]
) -> list[Contender]:
    """A contender for each name of a contestant of a module, all given the same."""
    return [Contender(name, module, given, note=notes.get(name, "")) for name in names]


@contextmanager
def started(contenders: Sequence[Contender]) -> Iterator[Sequence[Contender]]:
    """Inside, all contenders wait for their rounds, or have said why they cannot; their
    processes end with the block, whatever ends it."""
    begun = []
    try:
        for one in contenders:  # one after the other, for threads that compete wait for each other
            begun.append(one)
            one.start()
        yield contenders
    finally:
        for one in begun:
            one.end()


def rounds(contenders: Sequence[Contender], number: int) -> pd.DataFrame:
    """Let contenders that were `started` work `number` rounds by turns.

    A row per contender and round: contender, round (from 0), per_second, work, seconds,
    done, user_s and system_s of computing for all that was done, peak_mib (of its process
    so far, without workers), what else a contestant tells, note.  One that fails has a row
    with its reason instead.
    """
    rows, silent = [], [one for one in contenders if one.empty]
    for turn in range(number):
        rows += [one.round(turn) for one in contenders if not one.empty]
    for one in silent:
        rows.append({"contender": one.name, "note": f"empty: {one.empty}"})
    first = ["contender", "round", "per_second", "work", "seconds", "done", "user_s", "system_s"]
    table = pd.DataFrame(rows, columns=[*first, "peak_mib", *_others(rows, first), "note"])
    place = {one.name: place for place, one in enumerate(contenders)}
    return table.sort_values(
        ["round", "contender"],
        key=lambda column: column.map(place) if column.name == "contender" else column,
        ignore_index=True,
    )


def _others(rows: list[dict[str, Any]], first: list[str]) -> list[str]:
    """Columns that only some contestants fill."""
    seen = dict.fromkeys(name for row in rows for name in row)
    return [name for name in seen if name not in (*first, "peak_mib", "note")]


def held(contenders: Sequence[Contender], number: int) -> pd.DataFrame:
    """A whole contest: start, `rounds`, end."""
    with started(contenders) as waiting:
        return rounds(waiting, number)
