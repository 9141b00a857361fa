"""Scores and intervals against loops over the definition, and against scipy."""

from math import comb

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats import contingency_tables, proportion

from klip.stats.metrics import (
    STATS,
    bootstrap_products,
    by_part,
    compare,
    mcnemar,
    mean_interval,
    over_seeds,
    paired_difference,
    row,
    score,
    unpaired_difference,
)


def frame(**products: str) -> pd.DataFrame:
    """`a="10t"`: product a has a right query (1), a wrong one (0), one right in the top five (t)."""
    rows = [(p, q == "1", q in "1t") for p, queries in products.items() for q in queries]
    return pd.DataFrame(rows, columns=["product", "top1", "top5"])


def random_frame(products: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    sizes, skill = rng.integers(1, 60, products), rng.random(products)
    owner = np.repeat(np.arange(products), sizes)
    top1 = rng.random(len(owner)) < skill[owner]
    top5 = top1 | (rng.random(len(owner)) < 0.5)
    return pd.DataFrame({"product": owner.astype(str), "top1": top1, "top5": top5})


def test_score_counts_first():
    s = score(frame(a="1110", b="t", c="0"))
    assert (s.correct, s.total, s.products) == (3, 6, 3)
    assert (s.top1, s.top5) == (3 / 6, 4 / 6)
    assert s.top1_per_product == pytest.approx((3 / 4 + 0 + 0) / 3)
    assert str(s) == "3 / 6 = 50.0%"


@pytest.mark.parametrize("queries, share", [("1", 1.0), ("1111", 1.0), ("0", 0.0), ("000", 0.0)])
def test_single_product_all_or_none(queries, share):
    f = frame(only=queries)
    assert score(f).top1 == score(f).top1_per_product == share
    assert bootstrap_products(f) == (0.0, 1.0)  # one product says nothing about others
    assert paired_difference(f, f) == (0.0, -1.0, 1.0)


@pytest.mark.parametrize("queries, share", [("1", 1.0), ("0", 0.0)])
@pytest.mark.parametrize("stat", STATS)
def test_many_products_all_or_none(queries, share, stat):
    f = frame(a=queries, b=queries * 3, c=queries * 7)
    assert bootstrap_products(f, stat) == (share, share)


def definition(f: pd.DataFrame, stat: str) -> tuple[np.ndarray, np.ndarray, object]:
    """Right and all queries of each product by a loop, and the statistic of them."""
    column = stat.split("_")[0]
    right = np.array([sum(f[column][f["product"] == p]) for p in sorted(set(f["product"]))], float)
    whole = np.array([sum(f["product"] == p) for p in sorted(set(f["product"]))], float)
    if stat.endswith("per_product"):
        return right, whole, lambda r, w, axis=-1: np.mean(r / w, axis=axis)
    return right, whole, lambda r, w, axis=-1: r.sum(axis=axis) / w.sum(axis=axis)


@pytest.mark.parametrize("stat", STATS)
def test_bootstrap_against_scipy(stat):
    f = random_frame(40, seed=3)
    right, whole, statistic = definition(f, stat)
    expected = stats.bootstrap(
        (right, whole),
        statistic,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=9999,
        rng=np.random.default_rng(1),
    ).confidence_interval
    low, high = bootstrap_products(f, stat, n=9999)
    assert low == pytest.approx(expected.low, abs=0.01) and high == pytest.approx(
        expected.high, abs=0.01
    )
    assert getattr(score(f), stat) == pytest.approx(statistic(right, whole))
    assert low < getattr(score(f), stat) < high
    assert (low, high) == bootstrap_products(f, stat, n=9999)
    assert (low, high) != bootstrap_products(f, stat, n=9999, seed=1)


def test_products_are_resampled_and_not_queries():
    f = frame(a="1" * 500, b="0" * 500)  # two products: queries alone would give 0.5 +- 0.03
    assert bootstrap_products(f) == (0.0, 1.0)


def with_skill(base: pd.DataFrame, seed: int, flip: float) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return base.assign(top1=base["top1"] | (rng.random(len(base)) < flip))


@pytest.mark.parametrize("stat", ["top1", "top1_per_product"])
def test_paired_difference_against_scipy(stat):
    frozen = random_frame(40, seed=5)
    tuned = [with_skill(frozen, s, 0.1 * s) for s in (1, 2, 3)]
    low_counts, whole, statistic = definition(frozen, stat)
    mean_counts = np.mean([definition(t, stat)[0] for t in tuned], axis=0)
    per_product = mean_counts - low_counts
    value, low, high = paired_difference(tuned, frozen, stat=stat)
    assert value == pytest.approx(statistic(per_product, whole))
    assert value == pytest.approx(
        np.mean([getattr(score(t), stat) for t in tuned]) - getattr(score(frozen), stat)
    )
    expected = stats.bootstrap(
        (per_product, whole),
        statistic,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=9999,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.01)
    assert 0 < low < value < high
    assert paired_difference(frozen, tuned, stat=stat).value == pytest.approx(-value)


def test_paired_difference_of_a_tie_is_exactly_zero():
    f = random_frame(12, seed=0)
    assert (
        paired_difference(f, f)
        == paired_difference([f, f], f, stat="top1_per_product")
        == (0.0, 0.0, 0.0)
    )


def test_order_of_the_queries_does_not_matter():
    a, b = random_frame(12, seed=0), with_skill(random_frame(12, seed=0), 1, 0.5)
    mixed = b.sample(frac=1, random_state=2)
    assert paired_difference(b, a) == pytest.approx(paired_difference(mixed, a))


def test_micro_and_macro_weigh_products_differently():
    before, after = frame(big="0" * 9, small="1"), frame(big="1" * 9, small="0")
    assert paired_difference(after, before).value == pytest.approx(0.8)
    assert paired_difference(after, before, stat="top1_per_product").value == 0


def test_other_queries_are_refused():
    with pytest.raises(
        ValueError, match="products and queries of each, got 2 queries of 1 .* and 2 of 2"
    ):
        paired_difference(frame(a="11"), frame(a="1", b="1"))
    with pytest.raises(
        ValueError, match="every seed needs a frame with the same queries, got 2 frames"
    ):
        paired_difference([frame(a="11"), frame(a="1")], frame(a="1"))
    with pytest.raises(ValueError, match="got 0 frames"):
        paired_difference([], frame(a="1"))


def test_wrong_frames_are_named():
    with pytest.raises(KeyError, match="top5"):
        score(frame(a="1").drop(columns="top5"))
    with pytest.raises(ValueError, match="at least one query"):
        score(frame())
    with pytest.raises(ValueError, match="no missing value"):
        score(frame(a="1").assign(product=None))


def asked(answers: str, start: int = 0) -> pd.DataFrame:
    return frame(a=answers).assign(image=[f"{start + n}.jpg" for n in range(len(answers))])


@pytest.mark.parametrize(
    "both, only_a, only_b, neither", [(3, 9, 2, 4), (0, 0, 5, 0), (7, 4, 4, 1), (1, 130, 97, 50)]
)
def test_mcnemar_from_its_definition_and_against_statsmodels(both, only_a, only_b, neither):
    a = asked("1" * (both + only_a) + "0" * (only_b + neither))
    b = asked("1" * both + "0" * only_a + "1" * only_b + "0" * neither)
    *counts, p = mcnemar(a, b.sample(frac=1, random_state=0))
    n = only_a + only_b
    rarer = (
        sum(comb(n, k) for k in range(min(only_a, only_b) + 1)) / 2**n
    )  # P(the losing side wins this often)
    assert counts == [only_a, only_b]
    assert p == pytest.approx(min(1.0, 2 * rarer), abs=1e-12)
    theirs = contingency_tables.mcnemar([[both, only_a], [only_b, neither]], exact=True)
    assert p == pytest.approx(theirs.pvalue, abs=1e-9)


@pytest.mark.parametrize("correct, total", [(0, 9), (3, 10), (10, 10), (777, 5786)])
def test_wilson_against_statsmodels(correct, total):
    found = row([frame(**{f"p{n}": "1" if n < correct else "0" for n in range(total)})])
    expected = proportion.proportion_confint(correct, total, method="wilson")
    assert (found["wilson_low"], found["wilson_high"]) == pytest.approx(expected, abs=1e-9)


def test_mcnemar_of_equal_answers_and_of_other_queries():
    assert mcnemar(asked("110"), asked("110")) == (0, 0, 1.0)
    with pytest.raises(ValueError, match="the same images, got 3 and 3 queries, 2 images in both"):
        mcnemar(asked("110"), asked("110", start=1))
    twice = pd.concat([asked("110")] * 2)
    with pytest.raises(ValueError, match="every image once .* got 6 and 6 queries, 3 images"):
        mcnemar(twice, twice)


def test_seeds_have_a_mean_and_a_range():
    assert over_seeds([asked("1100"), asked("1000"), asked("0000")]) == (0.25, 0.0, 0.5)


def test_accuracy_by_part_counts_each_products_queries_in_its_part():
    f = random_frame(30, seed=1)
    parts = pd.Series(
        {str(n): ("head", "tail")[n % 2] for n in range(28)}
    )  # the last two have no part
    table = by_part(f, parts).set_index("part")
    for part in ("head", "tail"):
        own = f[[parts.get(product) == part for product in f["product"]]]
        row = table.loc[part]
        assert (row["products"], row["queries"]) == (own["product"].nunique(), len(own))
        assert row["top1"] == pytest.approx(own["top1"].mean())
        assert (row["low"], row["high"]) == bootstrap_products(own)


def test_comparison_table_holds_difference_interval_and_the_largest_p_of_the_seeds():
    base = random_frame(20, seed=5)
    base["image"] = base.index.astype(str)
    tuned = [with_skill(base, seed, 0.02 * seed) for seed in (1, 9)]
    table = compare(
        {"tuned": tuned, "frozen": [base], "chance": [base.assign(top1=False)]},
        "tuned",
        others=["frozen"],
    )
    assert table[["a", "b"]].to_numpy().tolist() == [["tuned", "frozen"]]
    assert tuple(table.loc[0, ["difference", "low", "high"]]) == paired_difference(tuned, [base])
    assert (
        table.loc[0, "p"]
        == max(mcnemar(one, base)[2] for one in tuned)
        > mcnemar(tuned[1], base)[2]
    )
    assert compare({"tuned": tuned, "frozen": [base], "chance": [base]}, "tuned")["b"].tolist() == [
        "frozen",
        "chance",
    ]
    with pytest.raises(KeyError, match="sift"):
        compare({"tuned": tuned}, "tuned", others=["sift"])


def test_a_row_counts_first_and_its_parts_are_the_functions_above():
    base = random_frame(20, seed=5)
    frames = [with_skill(base, seed, 0.05 * seed) for seed in (0, 1, 4)]
    found, whole = row(frames), pd.concat(frames)
    assert list(found)[:4] == ["products", "queries", "seeds", "correct"]
    assert (found["products"], found["queries"], found["seeds"]) == (20, len(base), 3)
    assert found["correct"] == pytest.approx(sum(frame["top1"].sum() for frame in frames) / 3)
    assert (found["low"], found["high"]) == bootstrap_products(whole)
    assert (found["top1"], found["lowest"], found["highest"]) == pytest.approx(over_seeds(frames))
    assert (
        found["per_product"] == score(whole).top1_per_product and found["top5"] == score(whole).top5
    )


def test_unpaired_difference_is_wider_than_the_paired_one_of_the_same_queries():
    base = random_frame(40, seed=3)
    better = with_skill(base, 1, 0.1)
    apart, paired = unpaired_difference([better], [base]), paired_difference(better, base)
    assert (
        apart.value
        == pytest.approx(paired.value)
        == pytest.approx(score(better).top1 - score(base).top1)
    )
    assert apart.low < paired.low and apart.high > paired.high
    other = random_frame(15, seed=9)
    assert unpaired_difference([base], [other]).value == pytest.approx(
        score(base).top1 - score(other).top1
    )


def test_mean_interval_against_scipy():
    values = np.random.default_rng(0).normal(3, 1, 40)
    found = mean_interval(values)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    with pytest.raises(ValueError, match="2 or more finite values, got .1.0."):
        mean_interval([1.0])
