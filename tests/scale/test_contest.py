"""Contests by contestants that cost nothing: turns, failures, ends of processes; the definitions of a
summary; growth, floors and agreement against what they are by definition."""

import json
import math
import os
import statistics
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from klip.scale import contender, contest, standings
from klip.scale.contest import Contender

CONTESTANTS = """
    import os, time
    from klip.scale import contender

    def quick(given):
        def work():
            print("what a library prints is no answer")
            with open(given["log"], "a") as log:
                log.write(given["letter"])
            return {"work": 10, "seconds": 0.5, "colour": given["letter"]}
        return work

    def missing(given):
        import a_package_that_is_not_there

    def wrong(given):
        raise ValueError("this cannot be\\nand more of it")

    def unwilling(given):
        raise contender.Cannot("has no such network")

    def killed(given):
        os._exit(3)

    def later(given):
        rounds = []
        def work():
            rounds.append(0)
            if len(rounds) == 3:
                raise RuntimeError("out of luck")
            return {"work": 1, "seconds": 1}
        return work

    def slow(given):
        def work():
            time.sleep(600)
        return work

    if __name__ == "__main__":
        own = dict(globals())
        contender.serve({"A": quick, "B": quick, **own})
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module of contestants, which child processes find."""
    (tmp_path / "cheap_contestants.py").write_text(textwrap.dedent(CONTESTANTS))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "cheap_contestants"


def alive(process):
    """Is the process with this number still there?"""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_rounds_are_worked_by_turns_after_one_that_warms_up(module, tmp_path):
    log = tmp_path / "log"
    both = [Contender(name, module, {"log": str(log), "letter": name}) for name in "AB"]
    with contest.started(both) as waiting:
        table = contest.rounds(waiting, 3)
        numbers = [one.process.pid for one in both]
        assert all(map(alive, numbers))
    assert not any(map(alive, numbers))
    assert log.read_text() == "AB" + "AB" * 3
    assert table["contender"].tolist() == ["A", "B"] * 3
    assert table["round"].tolist() == [0, 0, 1, 1, 2, 2]
    assert table["per_second"].eq(20).all() and table["colour"].tolist() == ["A", "B"] * 3
    assert (table["peak_mib"] > 1).all() and (table["user_s"] >= 0).all()


@pytest.mark.parametrize(
    "name, why",
    [
        ("missing", "needs pip install a_package_that_is_not_there"),
        ("wrong", "ValueError: this cannot be"),
        ("unwilling", "has no such network"),
        ("killed", "its process ended with code 3"),
    ],
)
def test_who_cannot_take_part_stands_in_the_table(module, tmp_path, name, why):
    given = {"log": str(tmp_path / "log"), "letter": "A"}
    table = contest.held([Contender(name, module), Contender("A", module, given)], 2)
    assert table["contender"].tolist() == ["A", "A", name]
    assert table["note"].tolist()[-1] == f"empty: {why}"
    found = standings.summary(table)
    assert found.loc[name, "rounds"] == 0 and found.loc[name, "note"] == f"empty: {why}"
    assert found.loc["A", "rounds"] == 2 and found.loc["A", "ratio"] == 1


def test_who_fails_later_keeps_its_rounds(module):
    table = contest.held([Contender("later", module)], 4)
    assert table["round"].tolist() == [0, 1]
    assert table["note"].tolist() == ["", "empty: RuntimeError: out of luck"]
    assert table["per_second"][0] == 1 and math.isnan(table["per_second"][1])


def test_who_takes_too_long_is_ended(module):
    table = contest.held([Contender("slow", module, patience=3)], 1)
    assert table["note"].tolist() == ["empty: took longer than 3 seconds"]


def test_processes_end_with_an_error_and_with_who_started_them(module, tmp_path):
    given = {"log": str(tmp_path / "log"), "letter": "A"}
    one = Contender("A", module, given)
    with pytest.raises(KeyError), contest.started([one]):
        raise KeyError
    assert not alive(one.process.pid)
    code = (
        "import os; from klip.scale.contest import Contender, started\n"
        f"one = Contender('A', {module!r}, {given!r})\n"
        "with started([one]):\n    print(one.process.pid, flush=True)\n    os._exit(1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    for _ in range(100):
        if not alive(int(done.stdout)):
            break
        time.sleep(0.1)
    assert not alive(int(done.stdout))


def test_a_summary_holds_medians_and_ratios_of_the_same_rounds():
    rates = {
        "klip": [30, 10, 24],
        "one": [10, 20, 8],
        "two": [9, 8, 7],
        "klip compute": [40, 44, 48],
    }
    rows = [
        {"contender": name, "round": turn, "per_second": own[turn], "done": 4, "user_s": turn + 1.0}
        | {"peak_mib": 100 + turn, "note": ""}
        for turn in range(3)
        for name, own in rates.items()
    ]
    rows.append({"contender": "three", "note": "empty: needs pip install three"})
    found = standings.summary(pd.DataFrame(rows))
    assert found.index.tolist() == [*rates, "three"]
    for name, own in rates.items():
        row, ratios = found.loc[name], [a / b for a, b in zip(own, rates["one"], strict=True)]
        assert row["per_second"] == statistics.median(own)
        assert (row["low"], row["high"]) == (min(own), max(own))
        assert row["ratio"] == statistics.median(ratios)
        assert (row["ratio_low"], row["ratio_high"]) == (min(ratios), max(ratios))
        assert row["user_ms"] == 500 and row["peak_mib"] == 102
    assert found.loc["three", "rounds"] == 0 and np.isnan(found.loc["three", "per_second"])


def test_without_peers_there_is_no_ratio():
    rows = [{"contender": "klip", "round": 0, "per_second": 2.0, "done": 1, "user_s": 1.0}]
    found = standings.summary(pd.DataFrame(rows).assign(peak_mib=1, note=""))
    assert found.loc["klip", "per_second"] == 2 and np.isnan(found.loc["klip", "ratio"])


def test_a_contestant_is_timed_with_its_workers():
    def work():
        subprocess.run([sys.executable, "-c", "sum(range(10**7))"])
        return {"work": 1, "seconds": 1}

    found = contender.timed(work)
    assert found["user_s"] > 0.05 and found["work"] == found["done"] == 1
    json.dumps(found)


def test_the_child_side_imports_nothing_of_klips_that_costs():
    code = (
        "import sys, klip.scale.contender; print({'torch', 'pandas', 'numpy'} & set(sys.modules))"
    )
    root = Path(contest.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout == "set()\n", done.stderr
