"""Beyond one process: rows of each work at its smallest, and of what is not installed."""

import importlib.util

import numpy as np
import pytest

from klip.model import export
from klip.recognise.gallery import Gallery
from klip.scale import standings, wider


@pytest.mark.parametrize("work", ["exported", "indexed"])
def test_what_is_not_installed_has_a_row_that_says_so(monkeypatch, work):
    monkeypatch.setattr(wider, "find_spec", lambda name: None)
    if work == "exported":
        table, extra = wider.exported("nano-vit", rounds=1), "onnx"
    else:
        (table, found), extra = wider.indexed(rows=9, dim=4, queries=2, rounds=1), "faiss"
        assert found == {}
    (row,) = standings.summary(table).to_dict("records")
    assert row["rounds"] == 0 and f"klip[{extra}]" in row["note"]


def test_an_index_is_asked_what_the_gallery_is_asked(monkeypatch):
    pytest.importorskip("faiss")
    asked, search = [], Gallery.search
    monkeypatch.setattr(
        Gallery, "search", lambda self, rows, *top: asked.append(rows) or search(self, rows, *top)
    )
    table, found = wider.indexed(rows=400, dim=16, queries=5, rounds=2)
    assert set(table["contender"]) == {"klip", "faiss flat", "faiss ivf"}
    assert (table["work"] == 5).all() and found["faiss flat"] == 1 and 0 < found["faiss ivf"] <= 1
    assert {len(rows) for rows in asked} == {5}
    assert np.allclose(asked[0].norm(dim=1), 1)


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in export.NEEDED), reason="needs klip[onnx]"
)
def test_a_network_runs_without_torch():
    table = wider.exported("nano-vit", rounds=1, batches=(1, 4))
    assert table["contender"].nunique() == 6 and set(table["work"]) == {4}


@pytest.mark.slow
def test_a_set_in_parts_is_the_set(monkeypatch):
    table = wider.parted("nano-vit", rounds=1, files=6)
    assert table["contender"].tolist() == ["one process", "2 processes"]
    load = np.load
    monkeypatch.setattr(
        np, "load", lambda file: load(file) + ("tmp" in str(file)) * np.random.rand()
    )
    with pytest.raises(ValueError, match="other rows"):
        wider.parted("nano-vit", rounds=0, files=6)
