"""A generated manifest of a tenth of the size: seconds and memory are bounded, in a process of its own."""

import subprocess

import pandas as pd
import pytest

from klip.data import balance
from klip.data.loading import load_catalogue
from klip.scale import measure


@pytest.mark.parametrize("rows", [100_000])
def test_a_large_manifest_loads_in_seconds_and_little_memory(tmp_path, rows):
    file = measure.generate(tmp_path, rows=rows, products=650)
    found = measure.fresh(file)
    assert (found["rows"], found["products"]) == (rows, 650)
    assert found["load_s"] + found["plan_s"] + found["batch_s"] < 5  # 0.3 s on an idle machine
    if found["peak_mib"] is not None:
        assert found["before_mib"] < found["peak_mib"] < 200  # 98 MiB
    first = pd.read_csv(file)["image"][0]
    (tmp_path / first).unlink()
    with pytest.raises(ValueError, match=rf"1 damaged in .*: {first} \(missing\)"):
        load_catalogue("manifest", file)


def test_generated_counts_fall_and_are_kept(tmp_path):
    file = measure.generate(tmp_path, rows=500, products=20)
    counts = load_catalogue("manifest", file)["product"].value_counts()
    assert (
        counts.sum() == 500
        and len(counts) == 20
        and counts.max() > 5 * counts.min()
        and counts.min() >= 1
    )
    before = file.stat().st_mtime_ns
    assert (
        measure.generate(tmp_path, rows=500, products=20) == file
        and file.stat().st_mtime_ns == before
    )
    with pytest.raises(ValueError, match="one image per product, got 3 images of 5"):
        measure.generate(tmp_path / "other", rows=3, products=5)
    with pytest.raises(ValueError, match="is missing"):
        measure.fresh(tmp_path / "none.csv")


def test_a_process_that_dies_without_a_word_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(
        subprocess, "run", lambda *given, **_: subprocess.CompletedProcess(given, -9, "", "\n")
    )
    with pytest.raises(
        ValueError, match="^measure: its process ended without a word, with code -9$"
    ):
        measure.fresh(tmp_path / "manifest.csv")


def test_a_product_may_have_more_images_than_a_file_names(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "LINKS", 3)
    found = measure.here(measure.generate(tmp_path, rows=20, products=2))
    assert found["rows"] == 20 and found["batch_s"] >= 0


def test_draws_after_the_first_cost_nothing_of_the_catalogue(tmp_path):
    """Per step O(batch): an epoch is computed once, then handed out."""
    catalogue = load_catalogue("manifest", measure.generate(tmp_path, rows=200, products=10))
    plan, calls = balance.plan(catalogue, 4), []
    object.__setattr__(
        plan, "epoch", lambda *given: calls.append(given) or balance.Plan.epoch(plan, *given)
    )
    assert len(list(plan.draws(100))) == 100 and len(calls) == 3
