"""A look at the embedding (not in the paper): UMAP, and how far to trust its picture.

Axes: N images, D numbers per embedding.  UMAP's coordinates differ between machines:
compare the purity, which is measured before the projection, never coordinates.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

NEIGHBOURS = 15


def umap_2d(embeddings: np.ndarray, seed: int = 0) -> np.ndarray:
    """UMAP coordinates (N, 2) of embeddings (N, D) by cosine (McInnes et al. 2018).

    Equal on one machine for one seed; N is at least 5.
    """
    points = _unit(embeddings)
    # umap can do without Tensorflow, and says so.
    with warnings.catch_warnings(action="ignore", category=ImportWarning):
        from umap import UMAP

    near = min(NEIGHBOURS, len(points) - 1)
    project = UMAP(n_neighbors=near, metric="cosine", n_jobs=1, random_state=seed)
    return project.fit_transform(points)


def trustworthiness(embeddings: np.ndarray, projected: np.ndarray) -> float:
    """How far the 15 nearest in a picture (N, 2) are true ones: 1 is best, 0.5 chance.

    Venna & Kaski 2001; fewer than 15 where N is under 31.
    """
    from sklearn.manifold import trustworthiness as measure

    points = _unit(embeddings)
    near = min(NEIGHBOURS, (len(points) - 1) // 2)
    return float(measure(points, projected, n_neighbors=near, metric="cosine"))


def neighbour_purity(embeddings: np.ndarray, products: Sequence[str], *, k: int = 5) -> float:
    """Mean share of an image's k nearest others (by cosine) that show its product.

    Of a product of n <= k images the n - 1 nearest count; with a single image it is
    left out; nothing left: ValueError.
    """
    points = _unit(embeddings)
    # owner: number of each image's product; size: images of each product.
    _, owner, size = np.unique(products, return_inverse=True, return_counts=True)
    if size.max() == 1:
        raise ValueError("purity: every product has a single image; give products with two or more")
    shares = []
    for row in np.flatnonzero(size[owner] > 1):
        similarity = points @ points[row]
        similarity[row] = -np.inf  # not its own neighbour
        nearest = np.argsort(-similarity, kind="stable")[: min(k, size[owner[row]] - 1)]
        shares.append(np.mean(owner[nearest] == owner[row]))
    return float(np.mean(shares))


def _unit(embeddings: np.ndarray) -> np.ndarray:
    """Float32 rows of length 1."""
    points = np.asarray(embeddings, dtype=np.float32)
    if len(points) < 5:
        raise ValueError(f"projection: at least 5 embeddings are needed, got {len(points)}")
    return points / np.linalg.norm(points, axis=1, keepdims=True)
