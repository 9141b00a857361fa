"""Baselines on a small shelf whose answers are known: what is trained on what, and answered how."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from klip.data.catalogue import Catalogue
from klip.model import encoder
from klip.model.augment import Preprocess
from klip.recognise import baselines

TIMM = {
    "embed_dim": 32,
    "timm": {
        "model_name": "resnext50_32x4d",
        "layers": [1, 1, 1, 1],
        "channels": [8, 8, 8, 8],
        "cardinality": 2,
        "base_width": 16,
        "stem_width": 8,
    },
}
VIT = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16},
}
ROWS = {recipe.row: recipe for recipe in baselines.RECIPES}
QUICK = {"batch_size": 8, "workers": 0, "precision": "fp32"}

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture
def shelf(tmp_path):
    """Four products of one colour each: a packshot, two queries and two training images."""
    rng, rows = np.random.default_rng(0), []
    for number, colour in enumerate([(220, 30, 30), (30, 200, 40), (30, 40, 220), (200, 200, 40)]):
        for split, count in {"gallery": 1, "query": 2, "train": 2}.items():
            for place in range(count):
                name = f"{split}{number}_{place}.png"
                pixels = (
                    (np.array(colour) + rng.integers(-20, 20, (64, 64, 3)))
                    .clip(0, 255)
                    .astype(np.uint8)
                )
                Image.fromarray(pixels).save(tmp_path / name)
                rows.append((name, f"p{number}", split))
    frame = pd.DataFrame(rows, columns=["image", "product", "split"])
    return Catalogue(frame, tmp_path, "shelf")


@pytest.fixture
def towers():
    return {
        "resnext": encoder.build(
            TIMM, Preprocess(size=64, mean=(0.5,) * 3, std=(0.25,) * 3), name="small"
        ),
        "clip": encoder.build(
            VIT, Preprocess(size=16, mean=(0.5,) * 3, std=(0.25,) * 3), name="tiny"
        ),
    }


def fit(row, towers, shelf, budget=16, **more):
    tower = towers["clip" if ROWS[row].tower == "clip" else "resnext"]
    return baselines.fit(ROWS[row], tower, catalogue=shelf, budget=budget, **QUICK | more)


@pytest.mark.parametrize("row", ROWS)
def test_every_recipe_trains_and_answers_all_queries(row, towers, shelf):
    run = fit(row, towers, shelf, budget=4)
    frame = baselines.answer(run, shelf, views=1, precision="fp32")
    assert frame["image"].tolist() == shelf.queries()["image"].tolist()
    assert {"predicted", "top1", "top5", "similarity"} <= set(frame) and frame["top5"].all()
    assert run.history["images"].iloc[-1] == 16 and run.config.images == 16


def test_rows_are_unique_and_stand_for_those_of_the_paper():
    assert len(ROWS) == len(baselines.RECIPES)
    assert {
        "ResNeXt, full fine-tuning",
        "ResNeXt + LCA + MaxEnt",
        "semi-supervised ResNeXt + linear layer",
    } <= set(ROWS)


def test_packshots_alone_are_trained_on_or_the_whole_training_split(shelf):
    packshots = baselines.training_images(ROWS["ResNeXt, full fine-tuning"], shelf)
    whole = baselines.training_images(ROWS["ResNet on the full training split"], shelf)
    assert packshots["image"].tolist() == [f"gallery{n}_0.png" for n in range(4)]
    assert len(whole) == 12 and not whole["image"].str.startswith("query").any()
    assert set(packshots["split"]) == set(whole["split"]) == {"train"}
    assert baselines.missing(ROWS["ResNet on the full training split"], shelf) == ""
    poor = shelf.split("gallery", "query")
    assert (
        baselines.missing(ROWS["ResNet on the full training split"], poor)
        == "the set has no training images"
    )


def test_a_linear_layer_learns_from_views_embedded_once(towers, shelf):
    row = "semi-supervised ResNeXt + linear layer"
    rows, tower = baselines.training_images(ROWS[row], shelf), towers["resnext"]
    before = encoder.fingerprint(tower)
    features = encoder.embed(
        tower, rows, views=baselines.VIEWS, seed=3, precision="fp32", unit=False
    )
    run = fit(row, towers, shelf, budget=64, seed=3)
    assert (
        run.config.images == 256 and run.encoder is tower and encoder.fingerprint(tower) == before
    )
    again = fit(row, towers, shelf, budget=64, seed=3, features=features)
    assert torch.equal(run.head.body.weight, again.head.body.weight)
    labels = torch.arange(4).repeat_interleave(baselines.VIEWS)
    means = torch.stack(
        [torch.nn.functional.normalize(features[labels == n], dim=1).mean(dim=0) for n in range(4)]
    )
    start = (
        features @ torch.nn.functional.normalize(means, dim=1).T
    )  # where it begins: the class means, no bias
    loss = torch.nn.functional.cross_entropy
    assert loss(run.head.body(features), labels) < loss(start, labels)
    few = fit(row, towers, shelf, budget=2, seed=3, batch_size=8)
    chosen = np.random.default_rng(3).permutation(32)[:8]
    assert few.history["loss"].tolist() == pytest.approx(
        [loss(start[chosen], labels[chosen]).item()], rel=1e-5
    )


def test_one_tower_in_two_places_gives_one_row(towers):
    other = encoder.build(TIMM, towers["resnext"].preprocess, name="other", seed=1)
    names = [one.row for one in baselines.recipes(towers | {"semi": towers["clip"]})]
    assert names == [row for row in ROWS if row != "frozen CLIP tower + linear layer"]
    assert [one.row for one in baselines.recipes(towers | {"semi": other})] == list(ROWS)
    assert baselines.bare(towers | {"semi": towers["clip"]})["semi"] == "frozen encoder"
    assert baselines.bare(towers | {"semi": other}) == baselines.BARE


@pytest.mark.parametrize(
    "name, arch, row, shown",
    [
        ("imagenet", "tf_efficientnet_lite0", "ResNeXt + LCA", "ImageNet + LCA"),
        (
            "imagenet",
            "tf_efficientnet_lite0",
            "ResNet on the full training split",
            "ImageNet on the full training split",
        ),
        ("imagenet", "tf_efficientnet_lite0", "frozen ResNeXt", "frozen ImageNet"),
        ("big", "resnext101_32x8d.fb_wsl_ig1b_ft_in1k", "frozen ResNeXt", "frozen ResNeXt"),
        (
            "nano",
            "nanoclip",
            "semi-supervised ResNeXt + linear layer",
            "frozen nano + linear layer",
        ),
        ("nano", "nanoclip", "frozen semi-supervised ResNeXt", "frozen nano"),
        ("imagenet", "tf_efficientnet_lite0", "RetailKLIP", "RetailKLIP"),
        (
            "big",
            "resnext101_32x8d.x",
            "semi-supervised ResNeXt + linear layer",
            "semi-supervised ResNeXt + linear layer",
        ),
    ],
)
def test_a_row_is_labelled_by_what_it_stands_on(towers, name, arch, row, shown):
    tower = encoder.Encoder(
        towers["resnext"].tower, towers["resnext"].preprocess, name=name, arch=arch, config=TIMM
    )
    assert baselines.label(row, {"resnext": tower, "semi": tower, "clip": towers["clip"]}) == shown
    found = baselines.place("capg-like", row, backbone={"resnext": tower, "semi": tower})
    assert found == ("capg-like" if row == shown else f"capg-like on {name}")


def test_rows_under_their_own_frozen_backbone():
    def frames(*shares):  # one frame a seed, of ten queries
        return [
            pd.DataFrame(
                {
                    "product": list("aabbccddee"),
                    "top1": [n < 10 * share for n in range(10)],
                    "top5": [True] * 10,
                }
            )
            for share in shares
        ]

    own = {
        "frozen ResNeXt": frames(0.5),
        "frozen encoder": frames(0.7),
        "RetailKLIP": frames(0.1),
        "ResNeXt, full fine-tuning": frames(0.5, 0.4),
        "ResNeXt + LCA": frames(0.4, 0.6),
        "semi-supervised ResNeXt + linear layer": frames(0.6),
        "ResNet on the full training split": frames(0.6),
    }
    assert baselines.under_frozen(own, baselines.BARE) == ["ResNeXt, full fine-tuning"]
    semi = baselines.BARE | {"semi": "frozen encoder"}
    assert baselines.under_frozen(own, semi) == [
        "ResNeXt, full fine-tuning",
        "semi-supervised ResNeXt + linear layer",
    ]


def test_a_classifier_learns_four_colours(towers, shelf):
    row = "ResNeXt, full fine-tuning"
    run = fit(row, towers, shelf, budget=160)
    assert baselines.answer(run, shelf, precision="fp32")["top1"].all()


def test_the_answer_is_the_most_probable_product_of_the_head(towers, shelf):
    run = fit("ResNeXt + MaxEnt", towers, shelf, budget=4)
    frame = baselines.answer(run, shelf, precision="fp32")
    rows = encoder.embed(run.encoder, shelf.queries(), precision="fp32", unit=False)
    for row, found in zip(rows, frame.itertuples(), strict=True):
        logits = [
            float(w @ row + b)
            for w, b in zip(run.head.centres, run.head.body.bias.detach(), strict=True)
        ]
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
