"""A look at the embedding (not in the paper): UMAP, and how far to trust its picture.

Axes: N images, D numbers per embedding.  UMAP's coordinates differ between machines: compare
the purity, which is measured before the projection, never coordinates.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

NEIGHBOURS = 15


def umap_2d(embeddings: np.ndarray, seed: int = 0, neighbours: int = NEIGHBOURS) -> np.ndarray:
    """UMAP coordinates (N, 2) of embeddings (N, D) by cosine (McInnes et al. 2018).

    Equal on one machine for one seed.  `neighbours` is cut to N - 1; N is at least 5.
    """
    points = _points(embeddings)
    # umap can do without Tensorflow, and says so.
    with warnings.catch_warnings(action="ignore", category=ImportWarning):
        from umap import UMAP

    near = min(neighbours, len(points) - 1)
    project = UMAP(n_neighbors=near, metric="cosine", n_jobs=1, random_state=seed)
    return project.fit_transform(points)


def trustworthiness(
    embeddings: np.ndarray, projected: np.ndarray, neighbours: int = NEIGHBOURS
) -> float:
    """How far a picture's neighbours are true ones: 1 is best, 0.5 chance.

    Venna & Kaski 2001; `neighbours` is cut to under N / 2.
    """
    from sklearn.manifold import trustworthiness as measure

    points = _points(embeddings)
    near = min(neighbours, (len(points) - 1) // 2)
    return float(measure(points, projected, n_neighbors=near, metric="cosine"))


def neighbour_purity(embeddings: np.ndarray, products: Sequence[str], k: int = 5) -> float:
    """Mean share of an image's k nearest others (by cosine) that show its product.

    Of a product of n <= k images the n - 1 nearest count; with a single image it is left out;
    nothing left: an error.
    """
    points = _points(embeddings)
    _, owner, size = np.unique(products, return_inverse=True, return_counts=True)
    if len(owner) != len(points) or k < 1:
        raise ValueError(
            f"purity: one product per image and k of at least 1 are needed, got {len(owner)} for "
            f"{len(points)} images, k={k!r}"
        )
    shares = []
    for row in np.flatnonzero(size[owner] > 1):
        similarity = points @ points[row]
        similarity[row] = -np.inf
        nearest = np.argsort(-similarity, kind="stable")[: min(k, size[owner[row]] - 1)]
        shares.append(np.mean(owner[nearest] == owner[row]))
    if not shares:
        raise ValueError("purity: every product has a single image; give products with two or more")
    return float(np.mean(shares))


def _points(embeddings: np.ndarray) -> np.ndarray:
    """Float32 rows of length 1; tensors are welcome."""
    points = np.asarray(embeddings, dtype=np.float32)
    if points.ndim != 2 or len(points) < 5:
        raise ValueError(
            f"projection: at least 5 embeddings of shape (N, D) are needed, got {points.shape}"
        )
    return points / np.linalg.norm(points, axis=1, keepdims=True)
