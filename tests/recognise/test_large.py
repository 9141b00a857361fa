"""Galleries through faiss answer as the gallery itself does."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

from klip.recognise import large
from klip.recognise.gallery import Gallery
from klip.recognise.large import Large


def unit(rows, dim, rng):
    numbers = torch.from_numpy(rng.standard_normal((rows, dim))).float()
    return nn.functional.normalize(numbers, dim=1)


def gallery_of(count, products, rng):
    owners = [f"p{number}" for number in np.sort(rng.integers(0, products, count))]
    return Gallery(unit(count, 16, rng), owners, owners, {"views": 1})


@pytest.mark.parametrize("count, products", [(1, 1), (40, 3), (3000, 4), (3000, 900)])
def test_flat_answers_as_the_gallery(count, products):
    pytest.importorskip("faiss")
    rng = np.random.default_rng(count + products)
    gallery, queries = gallery_of(count, products, rng), unit(70, 16, rng)
    gallery.embeddings[count // 2 :] = gallery.embeddings[: count - count // 2].clone()  # ties
    rows, cosines = Large.build(gallery).search(queries)
    expected, exact = gallery.search(queries)
    assert np.array_equal(rows, expected) and cosines == pytest.approx(exact, abs=1e-6)


def test_recall_of_lists_rises_to_one():
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    gallery, queries = gallery_of(4000, 1000, rng), unit(100, 16, rng)
    found = [
        large.recall(Large.build(gallery, "ivf", lists=50, probes=probes), queries)
        for probes in (1, 10, 50)
    ]
    assert 0 < found[0] < found[1] < found[2] == 1


def test_what_is_refused(monkeypatch):
    gallery = gallery_of(5, 2, np.random.default_rng(0))
    with pytest.raises(ValueError, match="kind must be flat or ivf, got 'tree'"):
        Large.build(gallery, "tree")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"pip install 'klip\[faiss\]'"):
        Large.build(gallery)


def test_no_gallery_no_index():
    pytest.importorskip("faiss")
    with pytest.raises(ValueError, match="holds no product"):
        Large.build(Gallery(torch.zeros(0, 16), [], [], {"views": 1}))
