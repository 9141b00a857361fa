"""Baselines on a small shelf whose answers are known: what is trained on what, and answered how."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from klip import baselines, encoder
from klip.augment import Preprocess

TIMM = {"embed_dim": 32, "timm": {"model_name": "resnext50_32x4d", "layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8],
                                  "cardinality": 2, "base_width": 16, "stem_width": 8}}
VIT = {"embed_dim": 16, "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16}}
ROWS = {recipe.row: recipe for recipe in baselines.RECIPES}
QUICK = {"batch_size": 8, "workers": 0, "precision": "fp32"}

pytestmark = [pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"), pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def shelf(tmp_path):
    """Four products of one colour each: a packshot, two queries and two training images."""
    rng, rows = np.random.default_rng(0), []
    for number, colour in enumerate([(220, 30, 30), (30, 200, 40), (30, 40, 220), (200, 200, 40)]):
        for split, count in {"gallery": 1, "query": 2, "train": 2}.items():
            for place in range(count):
                name = f"{split}{number}_{place}.png"
                pixels = (np.array(colour) + rng.integers(-20, 20, (64, 64, 3))).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / name)
                rows.append((name, f"p{number}", split))
    frame = pd.DataFrame(rows, columns=["image", "product", "split"])
    frame.attrs.update(root=str(tmp_path), name="shelf")
    return frame


@pytest.fixture
def towers():
    return {"resnext": encoder.build(TIMM, Preprocess(64, (0.5,) * 3, (0.25,) * 3), "small"),
            "clip": encoder.build(VIT, Preprocess(16, (0.5,) * 3, (0.25,) * 3), "tiny")}


def fit(row, towers, shelf, images=64, **more):
    tower = towers["clip" if ROWS[row].tower == "clip" else "resnext"]
    return baselines.fit(ROWS[row], tower, shelf, images, progress=False, cache=False, **QUICK | more)


@pytest.mark.parametrize("row", ROWS)
def test_every_recipe_trains_and_answers_all_queries(row, towers, shelf):
    run = fit(row, towers, shelf, images=16)
    frame = baselines.answer(ROWS[row], run, shelf, views=1, precision="fp32")
    assert frame["image"].tolist() == shelf.loc[shelf["split"] == "query", "image"].tolist()
    assert {"predicted", "top1", "top5", "similarity"} <= set(frame) and frame["top5"].all()
    assert run.history["images"].iloc[-1] == 16 and run.config.images == 16


def test_rows_are_unique_and_stand_for_those_of_the_paper():
    assert len(ROWS) == len(baselines.RECIPES)
    assert {"ResNeXt, full fine-tuning", "ResNeXt + LCA + MaxEnt",
            "semi-supervised ResNeXt + linear layer"} <= set(ROWS)


def test_packshots_alone_are_trained_on_or_the_whole_training_split(shelf):
    packshots = baselines.training_images(ROWS["ResNeXt, full fine-tuning"], shelf)
    whole = baselines.training_images(ROWS["ResNet on the full training split"], shelf)
    assert packshots["image"].tolist() == [f"gallery{n}_0.png" for n in range(4)]
    assert len(whole) == 12 and not whole["image"].str.startswith("query").any()
    assert set(packshots["split"]) == set(whole["split"]) == {"train"}
    assert baselines.missing(ROWS["ResNet on the full training split"], shelf) == ""
    poor = shelf[shelf["split"] != "train"]
    assert baselines.missing(ROWS["ResNet on the full training split"], poor) == "the set has no training images"


@pytest.mark.parametrize("products, images, depth", [(4, 64, 16), (120, 1500, 12), (200, 1500, 8), (500, 100, 2)])
def test_depth_spends_the_budget_evenly_and_in_pairs(products, images, depth):
    for recipe in baselines.RECIPES:
        assert baselines.config(recipe, products, images, model="nano").depth == depth


def test_a_classifier_learns_four_colours(towers, shelf):
    row = "ResNeXt, full fine-tuning"
    run = fit(row, towers, shelf, images=640)
    assert baselines.answer(ROWS[row], run, shelf, precision="fp32")["top1"].all()


def test_the_answer_is_the_most_probable_product_of_the_head(towers, shelf):
    run = fit("ResNeXt + MaxEnt", towers, shelf, images=16)
    queries = shelf[shelf["split"] == "query"].reset_index(drop=True)
    queries.attrs = shelf.attrs
    frame = baselines.classify(run, queries, precision="fp32")
    rows = encoder.embed(run.encoder, queries, precision="fp32", unit=False)
    for row, found in zip(rows, frame.itertuples(), strict=True):
        logits = [float(w @ row + b) for w, b in zip(run.head.centres, run.head.body.bias.detach(), strict=True)]
        odds = np.exp(np.array(logits) - max(logits))
        assert found.predicted == run.products[int(np.argmax(logits))]
        assert found.similarity == pytest.approx(odds.max() / odds.sum(), rel=1e-4)
        assert found.top1 == (found.predicted == found.product)


def test_lca_changes_no_feature_at_the_start_and_leaves_the_tower_alone(towers):
    images = torch.rand(2, 3, 64, 64)
    made = baselines.with_lca(towers["resnext"])
    maps = towers["resnext"].tower.trunk.forward_features(images)
    assert maps.shape[-2:] == (2, 2)  # one window of 2 x 2: the average itself
    torch.testing.assert_close(made(images), towers["resnext"](images))
    assert towers["resnext"].tower.lca is None
    with pytest.raises(ValueError, match="LCA: wants the last map of a timm tower, got tiny"):
        baselines.with_lca(towers["clip"])


def test_only_a_softmax_head_classifies(towers, shelf):
    run = fit("hierarchical triplets, store-like augmentation", towers, shelf, images=16)
    with pytest.raises(ValueError, match="only a softmax head classifies by itself, got triplet; use zeroshot"):
        baselines.classify(run, shelf)
