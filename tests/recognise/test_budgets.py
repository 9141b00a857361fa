"""Budgets of the trained baselines: the rule on made-up curves, and the products that it is applied to."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from klip.data.catalogue import Catalogue
from klip.model import encoder
from klip.model.augment import Preprocess
from klip.recognise import baselines, budgets

LINEAR = next(one for one in baselines.RECIPES if one.changes["rates"] == "frozen")
WHOLE = baselines.RECIPES[0]


@pytest.fixture
def made_up(monkeypatch):
    """made_up(means): rows whose n-th budget has the n-th of these accuracies on 100 queries of 10 products."""

    def pretend(*means):
        tried = []

        def fit(recipe, tower, *, catalogue, budget, **given):
            tried.append(budget)
            return budget

        def answer(run, held, **options):
            right = round(100 * means[len(tried) - 1])
            return pd.DataFrame(
                {
                    "product": [n % 10 for n in range(100)],
                    "top1": [n < right for n in range(100)],
                    "top5": True,
                }
            )

        monkeypatch.setattr(baselines, "fit", fit)
        monkeypatch.setattr(baselines, "answer", answer)
        monkeypatch.setattr(baselines, "embed", lambda *given, how: None)
        return tried

    return pretend


def held(products):
    frame = pd.DataFrame(
        [
            (f"{split}{n}", f"p{n}", split)
            for n in range(products)
            for split in ("gallery", "query")
        ],
        columns=["image", "product", "split"],
    )
    return Catalogue(frame, name="held")


@pytest.mark.parametrize(
    "means, most, tried, chosen, rising",
    [
        (
            [0.3, 0.4, 0.5, 0.5, 0.4, 0.9],
            10_000,
            [2, 4, 8, 16, 32],
            8,
            False,
        ),  # two doublings without a rise: the end
        (
            [0.3, 0.2, 0.4, 0.4, 0.5, 0.5, 0.1],
            10_000,
            [2, 4, 8, 16, 32, 64, 128],
            32,
            False,
        ),  # a single one is a pause
        ([0.3, 0.4, 0.5, 0.6], 80, [2, 4, 8], 8, True),  # ten products, 80 images: it still rose
        ([0.5, 0.5, 0.5], 10_000, [2, 4, 8], 2, False),  # equal: the smallest
        ([0.5, 0.4, 0.3], 10_000, [2, 4, 8], 2, False),
        ([0.7], 1, [2], 2, True),  # the smallest budget is always tried
    ],
)
def test_the_budget_is_where_a_curve_stops_rising(made_up, means, most, tried, chosen, rising):
    found, table = made_up(*means), budgets.curve(WHOLE, None, held=held(10), most=most)
    assert found == table["budget"].tolist() == tried
    assert table["mean"].tolist() == pytest.approx(means[: len(tried)])
    assert table["images"].tolist() == [10 * budget for budget in tried]
    assert table.loc[table["chosen"], "budget"].tolist() == [chosen] and set(table["rising"]) == {
        rising
    }
    assert (table["low"] <= table["mean"]).all() and (table["mean"] <= table["high"]).all()


def test_a_linear_layer_is_not_held_back_by_the_images_of_a_run(made_up):
    tried = made_up(*np.linspace(0.1, 0.9, 20))
    table = budgets.curve(LINEAR, None, held=held(10), most=20)
    assert tried == [2, 4, 8, 16, 32, 64, 128, 256, 512] and table["rising"].all()


def test_validation_products_have_a_packshot_and_unseen_photographs():
    rows = [(f"{n}_{k}", f"p{n}", "val" if k > 3 else "train") for n in range(9) for k in range(6)]
    rows += [("lonely", "p9", "train")]
    frame = pd.DataFrame(rows, columns=["image", "product", "split"])
    finetuning = Catalogue(frame, Path("here"), "range")
    found = budgets.validation(finetuning, products=5)
    assert found["product"].nunique() == 5 and "p9" not in set(found["product"])
    assert not found["image"].duplicated().any()
    sizes = found.frame.groupby(["product", "split"]).size().unstack()
    assert sizes[["gallery", "query", "train"]].to_numpy().tolist() == [[1, 2, 3]] * 5
    asked = set(found.split("query")["image"])
    assert asked <= set(finetuning.split("val")["image"]) and found.root == Path("here")
    assert budgets.validation(finetuning, 5).frame.equals(found.frame)
    assert len(budgets.validation(finetuning)) == 9 * 6
    assert not budgets.validation(finetuning, 5, seed=1).frame.equals(found.frame)
    with pytest.raises(ValueError, match="no image of split val; load it with validation=2"):
        budgets.validation(finetuning.split("train"))


def test_a_curve_of_real_runs(tmp_path, picture, one_thread):
    few = held(3)
    for number, colour in enumerate([(220, 30, 30), (30, 200, 40), (30, 40, 220)]):
        for split in ("gallery", "query"):
            picture(tmp_path / f"{split}{number}.png", colour, (32, 32))
    few = Catalogue(few.frame.assign(image=few["image"] + ".png"), tmp_path)
    vit = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16}
    tower = encoder.build(
        {"embed_dim": 16, "vision_cfg": vit},
        Preprocess(size=16, mean=(0.5,) * 3, std=(0.25,) * 3),
        name="tiny",
    )
    table = budgets.curve(
        LINEAR, tower, held=few, most=6, workers=0, precision="fp32", batch_size=4
    )
    assert table["budget"].tolist()[:3] == [2, 4, 8] and table["mean"].between(0, 1).all()
    assert table["chosen"].sum() == 1 and set(table["row"]) == {LINEAR.row}
