"""The rows of the tables on a small shelf: filled, empty, marked, compared and judged."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from klip.data.catalogue import Catalogue
from klip.model import encoder
from klip.model.augment import Preprocess
from klip.recognise import baselines, evaluation, rerank, rows
from klip.stats import metrics, published

VIT = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16},
}
PLAIN = Preprocess(size=16, mean=(0.5,) * 3, std=(0.25,) * 3)
QUICK = {"workers": 0, "precision": "fp32"}
LINEAR = next(one for one in baselines.RECIPES if one.row == published.LINEAR)
MAXENT = next(one for one in baselines.RECIPES if one.row.endswith("+ MaxEnt"))
WHOLE = next(one for one in baselines.RECIPES if one.row == baselines.WHOLE_SPLIT)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def shelf(tmp_path):
    """Four products in two categories, a packshot and three speckled queries of each."""
    rng, table = np.random.default_rng(0), []
    for number in range(4):
        picture = rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)
        for place, split in enumerate(["gallery", "query", "query", "query"]):
            noise = rng.integers(-30, 31, (60, 60, 3)) * place
            large = np.asarray(Image.fromarray(picture).resize((60, 60), Image.Resampling.NEAREST))
            pixels = (large + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{number}_{place}.png")
            table.append((f"{number}_{place}.png", f"tea-{number}", split, f"k{number // 2}/x"))
    frame = pd.DataFrame(table, columns=["image", "product", "split", "group"])
    return Catalogue(frame, tmp_path, "rp2k-like")


@pytest.fixture
def backbone():
    made = encoder.build(VIT, PLAIN, name="tiny")
    other = encoder.build(VIT, PLAIN, name="other", seed=1)
    return {"resnext": other, "clip": made, "semi": made}


@pytest.fixture
def filled(shelf, backbone):
    own = rows.Rows(shelf, views=2, reading=QUICK, bare=baselines.bare(backbone))
    keep = {"views": 2, "keep": 4, **QUICK}
    for row, tower in ((published.OURS, backbone["clip"]), (rows.FROZEN, backbone["resnext"])):
        own.frames[row] = [evaluation.evaluate(tower, shelf, **keep)]
    return own


def test_each_method_fills_its_rows(filled, shelf, backbone):
    filled.nearest("averaged", [])
    filled.floors()
    voted = filled.rerank(rerank.Rerank(weight=0.5, first=3))
    filled.as_they_came(backbone, baselines.bare(backbone))
    how = {"budget": {LINEAR.row: 4}, "batch_size": 8, **QUICK}
    rows.fit({"shelf": filled}, backbone, recipes=[LINEAR, WHOLE], seeds=2, **how)
    assert set(filled.frames) == {
        *(published.OURS, rows.FROZEN, *rows.FLOORS, rows.RERANKED, rows.FROZEN_RERANKED),
        *("frozen ResNeXt", LINEAR.row),
    }  # the clip tower's own row is the frozen encoder, and the semi-supervised one's too
    assert len(filled.frames[LINEAR.row]) == len(filled.runs[LINEAR.row]) == 2
    assert filled.empty == {WHOLE.row: "the set has no training images"}
    again = rerank.reranked(
        filled.frames[published.OURS], voted, how=rerank.Rerank(weight=0.5, first=3)
    )
    pd.testing.assert_frame_equal(again[0], filled.frames[rows.RERANKED][0])
    asked = shelf.queries()["image"].tolist()
    assert all(one["image"].tolist() == asked for own in filled.frames.values() for one in own)


def test_the_longest_are_trained_first_and_answer_where_they_belong(shelf, backbone, monkeypatch):
    order, answers = [], []

    def made(jobs, executor):
        order.extend((job.args[0].row, job.keywords["seed"]) for job in jobs)
        return list(order)  # each job returns what it was

    monkeypatch.setattr(rows.sweep, "side_by_side", made)
    monkeypatch.setattr(rows.Rows, "answer", lambda own, *given: answers.append(given))
    budget = {LINEAR.row: 2, MAXENT.row: 8}
    rows.fit({"a": rows.Rows(shelf)}, backbone, recipes=[LINEAR, MAXENT], budget=budget, seeds=2)
    assert order == [(row, seed) for row in (MAXENT.row, LINEAR.row) for seed in (0, 1)]
    assert answers == [(row, [(row, 0), (row, 1)]) for row in (LINEAR.row, MAXENT.row)]


def test_names_are_asked_where_there_are_names(filled, shelf):
    digits = rows.Rows(shelf.assign(product=shelf["product"].str[-1]))
    digits.by_name(None, "nano", embeddings=None)
    assert digits.empty == {rows.PROMPTS: "its products have numbers, not names"}


def test_the_table_has_every_row_chance_and_what_is_empty(filled, backbone):
    filled.empty["a row"] = "no reason"
    worse = filled.frames[rows.FROZEN][0].assign(top1=False)
    filled.frames[LINEAR.row] = [worse]
    table = rows.table({"rp2k-like": filled}, backbone).set_index("row")
    assert table.loc["chance", "top1"] == 0.25 and table.loc["a row", "note"] == "empty: no reason"
    label = baselines.label(LINEAR.row, backbone)
    under = filled.frames[rows.FROZEN][0]["top1"].any()
    assert table.loc[label, "note"] == (baselines.UNDER if under else "")
    assert table.loc[published.OURS, "top1"] == filled.frames[published.OURS][0]["top1"].mean()
    pairs = rows.versus({"rp2k-like": filled}, backbone)
    assert pairs["b"].tolist() == [rows.FROZEN, label] and set(pairs["a"]) == {published.OURS}


def test_a_row_that_a_later_set_adds_comes_last_in_every_set(filled, backbone):
    other = rows.Rows(filled.catalogue, bare=filled.bare)
    own, frozen = (filled.frames[row] for row in (published.OURS, rows.FROZEN))
    other.frames = {published.OURS: own, rows.PROMPTS: frozen, rows.FROZEN: frozen}
    table = rows.table({"grozi-like": filled, "capg-like": other}, backbone)
    told = table[table["set"] == "capg-like"]["row"].tolist()
    assert told == [published.OURS, rows.FROZEN, rows.PROMPTS, "chance"]


def test_claims_are_decided_by_the_rows_that_a_set_has(filled, backbone):
    sets = {"rp2k-like": filled, "capg-like": filled}
    assert rows.evidence(sets, backbone) == []
    filled.frames[published.LINEAR] = [filled.frames[rows.FROZEN][0]]
    (found,) = rows.evidence(sets, backbone)
    gap = metrics.paired_difference(filled.frames[published.OURS], filled.frames[published.LINEAR])
    assert found["claim"] == "C2" and found["set"].startswith("capg-like")
    assert (found["difference"], found["low"], found["high"]) == gap


def test_the_hardest_categories_are_the_worst_quarter(filled, backbone):
    frame = filled.frames[rows.FROZEN][0].copy()
    frame["top1"] = frame["product"].isin(["tea-0", "tea-1"])  # the second category is all wrong
    filled.frames[baselines.WHOLE_SPLIT] = [frame]
    found = rows.hardest({"rp2k-like": filled, "grozi-like": filled}, backbone)
    words, evidence = found["rp2k-like"]
    assert list(found) == ["rp2k-like"] and words.startswith("k1: 0 / 6")
    ours = filled.frames[published.OURS][0]["top1"].mean()
    assert evidence["claim"] == "C4" and evidence["difference"] == pytest.approx(ours)
