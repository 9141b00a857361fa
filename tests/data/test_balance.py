"""Depth plans, checked by counting."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from klip.data.balance import plan
from klip.data.catalogue import Catalogue

SIZES = {"b": 1, "a": 3, "d": 8, "c": 40}


@pytest.fixture
def catalogue():
    """52 training images between validation images, products interleaved."""
    rows = [(f"{p}/{i}.jpg", p, "train") for p, n in SIZES.items() for i in range(n)]
    rows += [(f"{p}/v{i}.jpg", p, "val") for p in SIZES for i in range(2)]
    frame = pd.DataFrame(rows, columns=["image", "product", "split"])
    return Catalogue(frame.sample(frac=1, random_state=1, ignore_index=True))


def drawn(catalogue, draws):
    """Per product: Counter of image -> draws."""
    found = {}
    for row, _ in draws:
        found.setdefault(catalogue["product"].iloc[row], Counter())[
            catalogue["image"].iloc[row]
        ] += 1
    return found


@pytest.mark.parametrize("depth", [1, 2, 3, 8, 17, 100])
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_exactly_depth_draws_per_product_and_epoch(catalogue, depth, epoch):
    p = plan(catalogue, depth)
    draws = p.epoch(epoch)
    assert len(draws) == len(p) == len(SIZES) * depth
    assert (catalogue["split"].iloc[draws[:, 0]] == "train").all()
    for product, images in drawn(catalogue, draws).items():
        assert images.total() == depth
        assert len(images) == min(depth, SIZES[product])
        assert (
            max(images.values()) - min(images.values()) <= 1
        )  # without replacement until exhausted


@pytest.mark.parametrize("depth", [5, 17])
def test_repeat_numbers_count_the_passes(catalogue, depth):
    draws = plan(catalogue, depth).epoch(0)
    for row in np.unique(draws[:, 0]):
        repeats = sorted(draws[draws[:, 0] == row, 1])
        assert repeats == list(range(len(repeats)))
    b = draws[(catalogue["product"].iloc[draws[:, 0]] == "b").to_numpy()]
    assert sorted(b[:, 1]) == list(range(depth))  # one image, drawn again and again


def test_the_chosen_images_stay_and_the_order_changes(catalogue):
    p = plan(catalogue, 8)
    epochs = [p.epoch(e) for e in range(3)]
    assert len({frozenset(e[:, 0].tolist()) for e in epochs}) == 1
    assert len({e.tobytes() for e in epochs}) == 3
    assert (p.epoch(1) == epochs[1]).all()
    assert len(p.rows) == 1 + 3 + 8 + 8
    assert (catalogue["image"].iloc[p.rows["row"]].to_numpy() == p.rows["image"].to_numpy()).all()


def test_seeds_differ_and_repeat(catalogue):
    a, again, b = (plan(catalogue, 4, seed=s) for s in (0, 0, 1))
    assert a.rows.frame.equals(again.rows.frame) and (a.epoch(0) == again.epoch(0)).all()
    assert not a.rows.frame.equals(b.rows.frame)


def test_a_deeper_or_broader_plan_contains_the_shallower(catalogue):
    images = [set(plan(catalogue, d).rows["image"]) for d in (1, 2, 8, 40)]
    assert images[0] < images[1] < images[2] < images[3] and len(images[3]) == 52
    products = [set(plan(catalogue, 4, breadth=b).products) for b in (1, 2, 3, 4)]
    assert products[0] < products[1] < products[2] < products[3] == set(SIZES)
    assert plan(catalogue, 4, breadth=4).rows.frame.equals(plan(catalogue, 4).rows.frame)


def test_products_are_sorted_labels(catalogue):
    p = plan(catalogue, 2)
    assert p.products == ["a", "b", "c", "d"] and p.breadth == 4


def test_not_balanced_keeps_natural_frequencies(catalogue):
    p = plan(catalogue, 2, balanced=False)
    draws = p.epoch(0)
    assert len(draws) == len(p) == 52 and not draws[:, 1].any()
    assert {k: v.total() for k, v in drawn(catalogue, draws).items()} == SIZES
    assert len(np.unique(draws[:, 0])) == 52


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("images", [1, 11, 12, 13, 120])
def test_draws_are_the_epochs_cut_at_the_budget(catalogue, images, balanced):
    p = plan(catalogue, 3, balanced=balanced)
    got = list(p.draws(images))
    assert len(got) == images
    for epoch, index, row, repeat in got:
        assert tuple(p.epoch(epoch)[index]) == (row, repeat)
    assert [(e, i) for e, i, _, _ in got] == [divmod(k, len(p)) for k in range(images)]


def test_single_product(catalogue):
    p = plan(catalogue.where(catalogue["product"] == "b"), 3)
    assert sorted(p.epoch(0)[:, 1]) == [0, 1, 2] and len(set(p.epoch(0)[:, 0])) == 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"depth": 0}, "depth must be a whole number >= 1 image per product, got 0"),
        ({"depth": -1}, "got -1"),
        ({"depth": 2.0}, "got 2.0"),
        ({"depth": True}, "got True"),
        ({"depth": "3"}, "got '3'"),
        ({"depth": 1, "breadth": 5}, "breadth must be at most the 4 products, got 5"),
        ({"depth": 1, "breadth": -1}, "breadth must be .* got -1"),
        ({"depth": 1, "seed": -1}, "seed must be"),
    ],
)
def test_wrong_arguments_are_named(catalogue, options, message):
    with pytest.raises(ValueError, match=message):
        plan(catalogue, **options)


def test_wrong_catalogues_are_named(catalogue):
    with pytest.raises(
        ValueError, match=r"no image has split 'train'; the catalogue has \['val'\]"
    ):
        plan(catalogue.split("val"), 1)
    for nothing in ("", "  ", None):
        with pytest.raises(
            ValueError, match=r"every training image needs a product, d/0.jpg has none"
        ):
            named = catalogue["product"].where(catalogue["image"] != "d/0.jpg", nothing)
            plan(catalogue.assign(product=named), 1)
    names = pd.Categorical(catalogue["product"], [*SIZES, "empty"])
    empty = catalogue.assign(product=names)
    with pytest.raises(ValueError, match="1 products have no training image, first 'empty'"):
        plan(empty, 1)
    with pytest.raises(ValueError, match="images must be"):
        next(plan(catalogue, 1).draws(0))


def test_draws_together_are_the_same_draws_in_runs_of_one_product(catalogue):
    p = plan(catalogue, 6)
    apart, together = p.epoch(2), p.epoch(2, together=True)
    assert sorted(map(tuple, apart)) == sorted(map(tuple, together))
    names = catalogue["product"].iloc[together[:, 0]].tolist()
    assert [len(set(names[i : i + 6])) for i in range(0, 24, 6)] == [1] * 4
    orders = {tuple(catalogue["product"].iloc[p.epoch(e, together=True)[::6, 0]]) for e in range(6)}
    assert len(orders) > 1  # the products come in another order each time
