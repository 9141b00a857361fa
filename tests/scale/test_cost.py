"""What work costs: rates by turns, the works at their smallest, and notebook B as a whole."""

import json
import time

import pandas as pd
import pytest

from klip.companion import cost_charts, front, reproduce, stored
from klip.scale import cost, standings
from klip.settings import paths
from klip.shop import sets

CACHE = paths.CACHE
"""Of the session: the shop is rendered once for all slow tests of a process."""
SMALLEST = {
    "rounds": 1,
    "models": "nano-vit",
    "steps": 2,
    "batch": 4,
    "files": 6,
    "queries": 10,
    "gallery": 200,
    "many": 300,
    "dim": 16,
    "prints": 2,
    "photographs": 3,
    "shop": 0.01,
    "products": 20,
    "factors": "1 2",
}


def test_works_take_turns_and_the_first_round_is_not_told():
    log = []
    works = {name: lambda name=name: log.append(name) or 3.0 for name in "ab"}
    table = cost.by_turns(works, 2)
    assert log == ["a", "b"] * 3  # one round warms up
    assert table["contender"].tolist() == ["a", "b"] * 2 and set(table["round"]) == {0, 1}
    assert (table["per_second"] * table["seconds"]).round(6).eq(3).all()


def test_a_slow_work_has_a_small_ratio():
    works = {"klip": lambda: 1.0, "peer": lambda: time.sleep(0.02) or 1.0}
    found = standings.summary(cost.by_turns(works, 3))
    assert found.loc["peer", "ratio"] == 1 and found.loc["klip", "ratio"] > 5
    assert 10 < found.loc["peer", "per_second"] <= 50


def test_at_best_reading_and_computing_take_their_times_together():
    names = pd.Index(["klip", "klip compute", "klip reading"])
    table = pd.DataFrame({"per_second": [2.0, 4.0, 12.0]}, index=names)
    share, best = standings.of_compute(table)
    assert share == 0.5 and best == pytest.approx((1 / 4) / (1 / 4 + 1 / 12))


def test_an_arrival_is_quicker_than_training():
    arrived = cost.arrival("nano-vit", rounds=1, products=30)
    trained = cost.rivals("nano-vit", products=30).set_index("contender")["seconds"]
    assert arrived.set_index("contender")["seconds"].idxmin() == "floor: forward"
    assert trained["linear layer"] > trained["linear layer, views kept"]
    assert trained["whole network"] > arrived.set_index("contender")["seconds"]["klip"]


def test_the_shop_is_rendered_each_time(monkeypatch):
    seen = []
    monkeypatch.setattr(sets, "render", lambda plan, *a, **k: seen.append(plan.seed) or {"s": "ab"})
    assert cost.rendering(rounds=2)["work"].tolist() == [2] * 6
    assert seen == list(range(9))  # none is found finished


def test_commands_are_quick():
    found = cost.commands(1).set_index("contender")["seconds"]
    assert list(found.index) == list(cost.COMMANDS) and (found < 30).all()


@pytest.mark.slow
def test_notebook_b_at_its_smallest(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    monkeypatch.setattr(paths, "CACHE", CACHE)  # the notebook's kernel is told so, too
    assert reproduce.run("nano", SMALLEST, only=["B"]) == ["B_what_it_costs"]
    (folder,) = tmp_path.iterdir()
    found = stored.all_metrics(folder.name)["cost"]
    assert [set(bar) for bar in found["bars"]] == [
        {"work", "bar", "measured", "at best", "met"}
    ] * 18
    assert set(found["contests"]["fine-tuning nano-vit"][0]) >= {"contender", "ratio", "note"}
    assert "| embedding over the best peer | >= 2 |" in front.cost(folder.name)
    assert "memory" not in front.cost(folder.name, only="best peer")
    drawn = {path.stem for path in (folder / "figures").iterdir()}
    assert drawn == {"B_growth", "B_standings"}
    assert json.loads((folder / "metrics" / "cost.json").read_text())["slopes"]


def test_before_a_bench_the_page_says_how(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    assert front.cost("nano") == "Not measured yet: `make bench`.\n"


def test_charts_name_what_they_draw():
    works = {name: lambda: 1.0 for name in ("klip", "peer")}
    table = standings.summary(cost.by_turns(works, 1))
    figure = cost_charts.standings({"a work": table})
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["klip", "peer"]
    assert "of 1 works" in figure.get_suptitle()
    with pytest.raises(ValueError, match="nothing to draw"):
        cost_charts.standings({})
