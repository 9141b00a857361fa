"""With what is kept and without it the numbers are the same, to the bit where nothing is folded."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from klip.finetuning import loop
from klip.model import encoder, folded
from klip.recognise import keypoints, printed, rerank
from klip.recognise.evaluation import evaluate
from klip.recognise.gallery import Gallery


@pytest.fixture
def asked(shop):
    """The shop as a set to evaluate on: packshots, and four queries of each product."""
    place = shop.frame.groupby("product").cumcount()
    return shop.assign(split=np.where(place == 0, "gallery", "query"))


def bits(run):
    kept = {**run.encoder.tower.state_dict(), **run.average.tower.state_dict(prefix="average.")}
    return {name: value.numpy().tobytes() for name, value in kept.items()}


def told(run):
    return run.history.drop(columns="images_per_s")


def test_fine_tuning(config, shop):
    config = config.changed(ema=0.9, validate_every=2)
    without, made, found = (
        loop.finetune(config, shop, progress=False, cache=cache) for cache in (False, True, True)
    )
    assert bits(without) == bits(made) == bits(found)
    pd.testing.assert_frame_equal(told(without), told(made))
    pd.testing.assert_frame_equal(told(made), told(found))


def test_evaluation(config, asked, seen):
    one = encoder.load(config.model)
    how = {"views": 3, "keep": 4}
    without, made, found = (
        evaluate(one, asked, remember=remember, **how) for remember in (False, True, True)
    )
    assert len(seen) == 2 * len(asked)  # the third read no image
    pd.testing.assert_frame_equal(without, made)
    pd.testing.assert_frame_equal(made, found)


def test_folded_normalisation(asked, monkeypatch):
    one = encoder.load("imagenet", pixels=64)
    made = encoder.embed(one, asked, precision="fp32")
    monkeypatch.setattr(folded, "folded", lambda tower, images: tower)
    plain = encoder.embed(one, asked, precision="fp32")
    assert not torch.equal(made, plain) and (made - plain).norm(dim=1).max() < 1e-5


def test_votes_of_print(config, tmp_path, monkeypatch):
    rng, files = np.random.default_rng(0), []
    for number in range(6):
        file = tmp_path / f"{number}.png"
        print_ = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8).repeat(16, 0).repeat(16, 1)
        Image.fromarray(print_).save(file)
        files.append(str(file))
    rows = nn.functional.normalize(torch.randn(6, 16, generator=torch.manual_seed(0)), dim=1)
    gallery = Gallery(
        rows, list("abcdef"), files, {"views": 1}, descriptors=keypoints.describe(files)
    )
    how = rerank.Rerank(first=4)

    def answers():
        searched, cosines = gallery.search(rows, 4)
        return rerank.of_gallery(gallery, files, rows=searched, cosines=cosines, how=how)

    made, found = answers(), answers()
    monkeypatch.setattr(printed, "KEPT", 0)
    gallery._prints = None
    without = answers()
    for one, other, third in zip(made, found, without, strict=True):
        assert np.array_equal(one, other) and np.array_equal(one, third)
    assert (made[1] > gallery.search(rows, 4)[1]).any()  # somebody voted
