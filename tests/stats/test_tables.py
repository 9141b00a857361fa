"""Tables of many outcomes: each line is what the functions of `metrics` say of it alone."""

import numpy as np
import pandas as pd
import pytest

from klip.stats import metrics, tables


def frame(seed, queries=4, products=5):
    rng = np.random.default_rng(seed)
    owner = np.repeat([f"p{n}" for n in range(products)], queries)
    top1 = rng.random(len(owner)) < 0.5
    more = {"top5": top1 | (rng.random(len(owner)) < 0.5), "similarity": rng.random(len(owner))}
    return pd.DataFrame({"product": owner, "top1": top1, **more})


OUTCOMES = {("a", 1): [frame(0), frame(1)], ("b", 2): [frame(2)]}


@pytest.mark.parametrize("stat", metrics.STATS)
def test_scores_have_a_line_per_key(stat):
    table = tables.scores(OUTCOMES, ["set", "depth"], stat=stat)
    assert table[["set", "depth"]].values.tolist() == [["a", 1], ["b", 2]]
    for row, frames in zip(table.itertuples(), OUTCOMES.values(), strict=True):
        whole = pd.concat(frames)
        assert row.mean == getattr(metrics.score(whole), stat)
        assert (row.low, row.high) == metrics.bootstrap_products(whole, stat)
    alone = tables.scores({"x": frame(3)}, ["set"])
    assert alone["set"].tolist() == ["x"] and alone["mean"][0] == frame(3)["top1"].mean()


def test_all_scores_are_percent():
    table = tables.all_scores(OUTCOMES, ["set", "depth"]).set_index("set")
    one = tables.scores(OUTCOMES, ["set", "depth"], stat="top1_per_product").set_index("set")
    assert table.columns[:3].tolist() == ["depth", "products", "queries"]
    assert table["queries"].tolist() == [20, 20] and table["products"].tolist() == [5, 5]
    assert np.allclose(table["per_product"], 100 * one["mean"])
    assert np.allclose(table["per_product_low"], 100 * one["low"])
    assert np.allclose(
        table["top5"], [100 * pd.concat(f)["top5"].mean() for f in OUTCOMES.values()]
    )


def test_differences_name_what_they_measure():
    pairs = {"x": (frame(0), frame(1)), "y": ([frame(0), frame(2)], frame(1))}
    plain = tables.differences(pairs, ["set"])
    assert plain.columns.tolist() == ["set", "difference", "low", "high"]
    assert tuple(plain.iloc[1, 1:]) == metrics.paired_difference(*pairs["y"])
    each = tables.differences(pairs, ["set"], stats=["top1", "top5"])
    assert each["measure"].tolist() == ["top1", "top5"] * 2
    assert tuple(each.iloc[1, 2:]) == metrics.paired_difference(*pairs["x"], stat="top5")


def test_quarters_by_similarity():
    table = pd.DataFrame({"similarity": np.arange(8) / 8, "top1": [0, 0, 0, 1, 1, 0, 1, 1]})
    found = tables.by_similarity(table.sample(frac=1, random_state=0))
    assert found.to_dict() == {"lowest": 0, "second": 0.5, "third": 0.5, "highest": 1}
