"""The search against its definition in 64 bits: ties, many rows of a product, odd block sizes."""

import numpy as np
import pytest
import torch
from torch import nn

from klip.recognise import nearest
from klip.recognise.gallery import Gallery


def unit(rows, dim, rng):
    numbers = torch.from_numpy(rng.standard_normal((rows, dim))).float()
    return nn.functional.normalize(numbers, dim=1)


def gallery_of(embeddings, owners):
    return Gallery(embeddings, owners, owners, {"views": 1})


def by_definition(gallery, query, top):
    """The nearest row of each of the `top` nearest products; of equal rows the first."""
    cosines = (gallery.embeddings.double() * query.double()).sum(dim=1).numpy()
    best = {}
    for row in np.argsort(-cosines, kind="stable").tolist():
        best.setdefault(gallery.owners[row], row)
    rows = list(best.values())[:top]
    return rows, cosines[rows]


def agrees(gallery, queries, top):
    rows, cosines = gallery.search(queries, top)
    for number, query in enumerate(queries):
        expected, exact = by_definition(gallery, query, top)
        assert rows[number].tolist() == expected
        assert cosines[number] == pytest.approx(exact, abs=1e-6)


@pytest.fixture(autouse=True)
def blocks(monkeypatch):
    """Blocks also where they spare nothing."""
    monkeypatch.setattr(nearest, "SMALL", 0)


@pytest.fixture
def cores():
    """cores(3): torch computes on so many, until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


WAYS = {"all rows": (10**6, 1, 0), "a core": (0, 1, 0), "cores": (0, 3, 0), "reading": (0, 3, 100)}
"""SMALL, cores, READING."""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("panel", [2**24, 2**9], ids=["one panel", "many panels"])
@pytest.mark.parametrize("count", [1, 31, 32, 33, 1000, 1601])
@pytest.mark.parametrize("products", [1, 3, 200, 2000])
def test_search_is_its_definition(count, products, panel, way, cores, monkeypatch):
    small, number, reading = WAYS[way]
    cores(number)
    monkeypatch.setattr(nearest, "SMALL", small)
    monkeypatch.setattr(nearest, "READING", reading)
    monkeypatch.setattr(nearest, "PANEL", panel)
    monkeypatch.setattr(nearest, "CHUNK", 7)
    rng = np.random.default_rng(count + products)
    numbers = np.sort(rng.integers(0, products, count))  # rows of a product stand together
    gallery = gallery_of(unit(count, 16, rng), [f"p{number}" for number in numbers])
    agrees(gallery, unit(19, 16, rng), 5)


@pytest.mark.parametrize("number", [1, 3], ids=["a core", "cores"])
@pytest.mark.parametrize("panel", [2**24, 2**9], ids=["one panel", "many panels"])
@pytest.mark.parametrize("stream", [0, 2**30], ids=["parts side by side", "as a whole"])
@pytest.mark.parametrize("count", [1, 33, 97, 3000])
@pytest.mark.parametrize("products", [3, 2000])
def test_one_query(products, count, stream, panel, number, cores, monkeypatch):
    cores(number)
    monkeypatch.setattr(nearest, "SMALL", 0)
    monkeypatch.setattr(nearest, "STREAM", stream)
    monkeypatch.setattr(nearest, "PANEL", panel)
    rng = np.random.default_rng(count + products)
    numbers = np.sort(rng.integers(0, products, count))
    gallery = gallery_of(unit(count, 16, rng), [f"p{number}" for number in numbers])
    agrees(gallery, unit(1, 16, rng), 5)
    assert torch.get_num_threads() == number


def test_no_query():
    rng = np.random.default_rng(3)
    gallery = gallery_of(unit(3000, 16, rng), [f"p{number}" for number in range(3000)])
    assert gallery.search(torch.empty(0, 16), 5)[0].shape == (0, 5)


def test_threads_are_given_back(cores):
    cores(2)
    rng = np.random.default_rng(4)
    gallery = gallery_of(unit(3000, 16, rng), ["one"] * 3000)
    gallery.search(unit(40, 16, rng))
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("top", [1, 5, 20])
def test_equal_rows_in_many_blocks_go_to_the_first(top):
    rng = np.random.default_rng(top)
    rows = unit(40, 64, rng)[torch.from_numpy(rng.integers(0, 40, 2500))]
    gallery = gallery_of(rows, [f"p{number}" for number in rng.integers(0, 900, 2500)])
    agrees(gallery, torch.cat([rows[:20], unit(20, 64, rng)]), top)


def test_rows_that_differ_by_rounding_are_told_apart():
    rng = np.random.default_rng(0)
    rows = unit(1, 32, rng) + 2e-7 * torch.from_numpy(rng.standard_normal((700, 32))).float()
    rows = nn.functional.normalize(rows, dim=1)
    agrees(gallery_of(rows, [f"p{number}" for number in range(700)]), rows[:30], 5)


def test_one_product_that_fills_all_the_best_blocks():
    rng = np.random.default_rng(1)
    near = nn.functional.normalize(unit(1, 16, rng) + 0.05 * unit(3000, 16, rng), dim=1)
    gallery = gallery_of(torch.cat([near, unit(50, 16, rng)]), ["many"] * 3000 + list("abcde") * 10)
    agrees(gallery, near[:5], 4)


def test_owners_changed_by_hand_are_noticed():
    rng = np.random.default_rng(2)
    gallery = gallery_of(unit(6, 8, rng), list("aabbcc"))
    agrees(gallery, unit(4, 8, rng), 3)
    gallery.owners[0] = "new"
    agrees(gallery, unit(4, 8, rng), 4)
    gallery.remove("b")
    agrees(gallery, unit(4, 8, rng), 5)
