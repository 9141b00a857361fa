"""Purity against a loop, trustworthiness of a faithful and a shuffled picture, UMAP's shape and seed."""

import numpy as np
import pytest

from klip.companion import projection


def clusters(products=4, each=8, noise=0.05, seed=0):
    """Unit rows around one axis per product, and their products."""
    rng = np.random.default_rng(seed)
    points = np.repeat(np.eye(products, 16), each, axis=0)
    points += noise * rng.standard_normal(points.shape)
    names = np.repeat([f"p{i}" for i in range(products)], each)
    return points / np.linalg.norm(points, axis=1, keepdims=True), names


def test_purity_is_one_for_clusters_and_chance_for_permuted_products():
    points, products = clusters()
    assert projection.neighbour_purity(points, products, k=5) == 1.0
    shuffled = np.random.default_rng(1).permutation(products)
    assert projection.neighbour_purity(points, shuffled, k=5) < 0.5


def test_purity_equals_the_definition():
    points, products = clusters(noise=0.6)
    shares = []
    for i in range(len(points)):
        similarity = points @ points[i]
        others = sorted(set(range(len(points))) - {i}, key=lambda j: -similarity[j])
        shares.append(sum(products[j] == products[i] for j in others[:3]) / 3)
    assert projection.neighbour_purity(points, products, k=3) == pytest.approx(np.mean(shares))


@pytest.mark.parametrize(
    "products, expected, word",
    [
        (
            ["a", "a", "b", "b", "c"],
            1.0,
            "pairs have one right neighbour each; the single product is left out",
        ),
        (["a", "b", "a", "b", "c"], 0.0, "the nearest is always of the other product"),
    ],
)
def test_purity_of_small_products(products, expected, word):
    points = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [-1, -1]])
    assert projection.neighbour_purity(points, products, k=5) == expected, word


@pytest.mark.parametrize(
    "points, products, k, word",
    [(np.eye(6), list("abcdef"), 5, "single image"), (np.eye(4), list("aabb"), 1, "at least 5")],
)
def test_purity_refuses(points, products, k, word):
    with pytest.raises(ValueError, match=word):
        projection.neighbour_purity(points, products, k=k)


def test_trustworthiness_of_a_faithful_and_a_shuffled_picture():
    angle = np.sort(np.random.default_rng(0).uniform(0, np.pi / 2, 60))
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    picture = np.stack([angle, np.zeros_like(angle)], axis=1)
    assert projection.trustworthiness(points, picture) > 0.99
    shuffled = np.random.default_rng(1).permutation(picture)
    assert projection.trustworthiness(points, shuffled) < 0.7


@pytest.mark.slow  # its compiler takes seconds
def test_umap_repeats_on_one_machine_and_keeps_clusters_together():
    points, products = clusters(products=3, each=20)
    picture = projection.umap_2d(points, seed=3)
    assert picture.shape == (60, 2)
    assert np.array_equal(picture, projection.umap_2d(points, seed=3))
    assert projection.trustworthiness(points, picture) > 0.6
    centres = np.array([picture[products == name].mean(axis=0) for name in np.unique(products)])
    nearest = np.linalg.norm(picture[:, None] - centres, axis=2).argmin(axis=1)
    assert (np.unique(products)[nearest] == products).all()
