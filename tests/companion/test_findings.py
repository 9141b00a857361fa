"""What titles say is counted from the table: by hand here."""

import numpy as np
import pandas as pd
import pytest

from klip.companion import findings, names


def curve(**best):
    """Sets whose top-1 is highest at the x given."""
    rows = [
        (name, x, 0.5 if x == place else 0.4) for name, place in best.items() for x in (1, 2, 4)
    ]
    return pd.DataFrame(rows, columns=["set", "depth", "mean"])


@pytest.mark.parametrize(
    ("best", "said"),
    [
        ({"a": 2}, "depth 2"),
        ({"a": 2, "b": 2}, "depth 2 on both"),
        ({"a": 2, "b": 2, "c": 2}, "depth 2 on all 3"),
        ({"a": 4, "b": 1, "c": 4}, "depth 1 (b), 4 (a, c)"),
        ({"a": 4, "b": 1, "c": 4, "d": 4, "e": 4}, "depth 1 (1 row), 4 (4 rows)"),
    ],
)
def test_where_the_top1_is_highest(best, said):
    assert findings.highest(curve(**best), "depth", "depth {}") == f"Top-1 is highest at {said}"


def test_of_equals_the_lowest_is_named():
    flat = curve(a=2).assign(mean=0.4)[::-1]
    assert findings.highest(flat, "depth", "depth {}").endswith("depth 1")


def test_the_share_of_the_head():
    said = findings.head(np.array([60, 30, 10]), np.array(["head", "tail", "tail"]))
    assert said == "1 of 3 products, the head, hold 60 % of the images"


def test_one_curve_has_one_share():
    assert "threshold 40 % of" in findings.passing([0.4, 0.4])
    assert "thresholds 40 % to 90 % of" in findings.passing([0.9, 0.4])


def test_training_may_go_wrong_or_be_judged_once():
    up, down = np.array([1.0, 2.0]), np.array([0.4, 0.3])
    assert findings.training([up], [down]) == (
        "The loss rose from 1.00 to 2.00; validation top-1 fell from 40.0 % to 30.0 %"
    )
    assert findings.training([up], [down[:1]]) == "The loss rose from 1.00 to 2.00"
    assert findings.falling([up, down]) == "1 of 2 losses ended lower than they began"


def test_frozen_blocks_have_no_rate_to_compare():
    tables = {"t": pd.DataFrame({"lr": [0.0, 1e-5, 2e-2]})}
    assert findings.slowest(tables).endswith(": 2,000 times in t")


def test_an_interval_counts_where_it_lies_wholly_to_one_side():
    rows = [(0.1, 0.01, 0.2), (0.1, 0.0, 0.2), (-0.1, -0.2, -0.01), (0, 0, 0), (0, np.nan, np.nan)]
    table = pd.DataFrame(rows, columns=["mean", "low", "high"])
    assert findings.certain(table) == "above zero on 1 of 3, below on 1"  # zero throughout: itself


def test_who_is_ahead_and_who_draws():
    table = pd.DataFrame({"label": list("aabb"), "group": list("xyxy"), "mean": [1, 2, 3, 3]})
    assert findings.ahead(table) == "y is ahead on 1 of 2"
    assert findings.ahead(table[2:]) == "nobody is ahead"
    assert findings.ahead(table[table["group"] == "x"]) == "b is highest"


def test_beaten_rows_leave_out_what_is_missing():
    table = pd.DataFrame({"row": ["ours", "a", "b", "c"], "top1": [0.5, 0.4, 0.6, np.nan]})
    assert findings.beaten(table, "ours") == (1, 2)


def test_only_what_gains_can_be_traded():
    rows = [("a", "val", 0.1, 0.2), ("a", "x", -0.2, -0.1), ("b", "val", 0.1, 0.2), ("b", "x", -0.1, 0.1),
            ("c", "val", -0.1, 0.2), ("c", "x", -0.2, -0.1)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["variant", "set", "low", "high"])
    assert findings.traded(table, "val") == "1 of 2 variants that gain on val lose elsewhere"


def test_kinds_of_errors_are_counted():
    assert (
        findings.kinds(["other brand", "same line", "same line"])
        == "2 x same line; 1 x other brand"
    )


ZOLA, MINT = "zola-1-pure-tea-lemon-0", "zola-1-pure-tea-mint-1"
GROUPS = {ZOLA: "drink/tea/zola-1", MINT: "drink/tea/zola-1", "zola-2-pure-rice-0": "dry/rice/zola-2",
          "bo-1-gold-tea-kids-0": "drink/tea/bo-1", "bo-1-gold-soap-0": "care/soap/bo-1",
          "Milk": "dairy", "Cream": "dairy", "Pear": "fruit"}  # fmt: skip


@pytest.mark.parametrize(
    ("right", "wrong", "kind"),
    [
        (ZOLA, MINT, "same line, other flavour"),
        (ZOLA, "zola-2-pure-rice-0", "same brand, other line"),
        (ZOLA, "bo-1-gold-tea-kids-0", "other brand, same kind"),
        (ZOLA, "bo-1-gold-soap-0", "other brand, other kind"),
        ("Milk", "Cream", "same group, other product"),
        ("Milk", "Pear", "other group"),
        ("Milk", ZOLA, "other group"),
        ("Milk", "unheard of", "another product"),
    ],
)
def test_the_kind_of_a_mistake(right, wrong, kind):
    assert names.mistake(right, wrong, GROUPS) == kind


def test_names_lose_their_numbers_unless_these_tell_them_apart():
    assert names.said(ZOLA) == "zola pure tea lemon" and names.said("120") == "120"
    assert names.short("a-1-" + "long_" * 30).count("\n") == 2
    assert names.told_apart([ZOLA, MINT]) == ["zola pure tea lemon", "zola pure tea mint"]
    assert names.told_apart(["cola-1", "cola-2"]) == ["cola-1", "cola-2"]
