"""Galleries (paper §4.2): packshot embeddings, to which products come and from which they go.

Axes: Q queries, G gallery rows (packshots x views), D numbers per row, of length 1.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from klip.data.catalogue import Catalogue
from klip.model.encoder import Encoder, embed, fingerprint
from klip.recognise import gallery_file, nearest, outcomes, rerank as by_print
from klip.recognise.keypoints import describe
from klip.recognise.rerank import Rerank

SCORES = ("similarity", "margin")
"""By what a query is found to be of no product of the gallery: see `evaluation.outcome`."""


class Gallery:
    """Embeddings (G, D) of packshots, and the product and the image of each row.

    The views of a packshot are rows.  `meta` says which encoder, views and seed made
    them, and perhaps which threshold `open_set.calibrate` chose ("unknown").  Without
    `encoder` only embeddings can be classified.  `descriptors`: of each packshot the
    rows of `keypoints.sift`.
    """

    def __init__(
        self,
        embeddings: Tensor,
        owners: Sequence[str],
        images: Sequence[str],
        meta: dict[str, Any],
        encoder: Encoder | None = None,
        descriptors: Sequence[np.ndarray] | None = None,
    ) -> None:
        if embeddings.ndim != 2 or not len(embeddings) == len(owners) == len(images):
            raise ValueError(
                f"gallery: one owner and one image per row of a (G, D) table are needed, got "
                f"{tuple(embeddings.shape)}, {len(owners)} owners and {len(images)} images"
            )
        if not torch.isfinite(embeddings).all():
            raise ValueError(
                "gallery: the embeddings hold values that are not finite; the encoder is broken"
            )
        self.embeddings, self.owners, self.images = embeddings.float(), list(owners), list(images)
        self.meta, self.encoder = dict(meta), encoder
        self.descriptors = None if descriptors is None else list(descriptors)

    @classmethod
    def build(
        cls,
        encoder: Encoder,
        packshots: Catalogue,
        views: int = 8,
        seed: int = 0,
        precision: str = "fp32",
        keypoints: bool = False,
        **options: Any,
    ) -> Gallery:
        """Gallery of a catalogue's images, all `views` of each kept (the first is plain).

        `precision` holds for all that is embedded for this gallery later; fp32 is the
        same on every machine.  `keypoints` keeps descriptors to re-rank by.  `options`
        go to `embed`.
        """
        if not len(packshots) or views < 1:
            raise ValueError(
                "gallery: at least one packshot and one view of each are needed, got "
                f"{len(packshots)} packshots and {views!r} views"
            )
        made = {"views": views, "seed": seed, "precision": precision}
        meta = {"fingerprint": fingerprint(encoder), "encoder": encoder.name, **made}
        rows = embed(encoder, packshots, **made, **options)
        owners, images = packshots["product"].repeat(views), packshots["image"].repeat(views)
        described = describe(packshots.files) if keypoints else None
        return cls(rows, owners, images, meta, encoder, described)

    @property
    def products(self) -> list[str]:
        """Products in the order of their first row."""
        return list(dict.fromkeys(self.owners))

    def __len__(self) -> int:
        return len(self.owners)

    def add(self, product: str, images: Sequence[str | Path]) -> None:
        """Append the views of a product's images; a known product gets more rows."""
        names, views = [str(path) for path in images], self.meta["views"]
        if not product or not names:
            raise ValueError(
                f"gallery: a product needs a name and images, got {product!r} and {len(names)}"
            )
        rows = self.embed(names, views=views, seed=self.meta["seed"])
        if self.descriptors is not None:
            self.descriptors = self.descriptors + describe(names)
        self.embeddings = torch.cat([self.embeddings, rows])
        self.owners = self.owners + [product] * len(rows)
        self.images = self.images + np.repeat(names, views).tolist()

    def remove(self, product: str) -> None:
        """Drop a product's rows; the others keep their values and order."""
        if product not in self.owners:
            near = difflib.get_close_matches(product, self.products, 1)
            hint = f"; did you mean {near[0]!r}" if near else ""
            raise ValueError(
                f"gallery: {product!r} is none of its {len(self.products)} products{hint}"
            )
        rest = self.without({product})
        self.embeddings, self.owners, self.images = rest.embeddings, rest.owners, rest.images
        self.descriptors = rest.descriptors

    def without(self, products: Collection[str]) -> Gallery:
        """A new gallery without these products; those it does not have are no error."""
        keep = [row for row, owner in enumerate(self.owners) if owner not in products]
        owners, images = [self.owners[row] for row in keep], [self.images[row] for row in keep]
        described = self.descriptors
        if described:
            views = self.meta["views"]  # all rows of a packshot stay or go
            described = [described[row // views] for row in keep[::views]]
        rows = self.embeddings[keep]
        return Gallery(rows, owners, images, self.meta, self.encoder, described)

    def embed(self, images: Sequence[str | Path] | Catalogue, **options: Any) -> Tensor:
        """`encoder.embed` by the encoder that made the gallery, in its precision."""
        if self.encoder is None:
            raise ValueError(
                "gallery: images need the encoder that made it: Gallery.load(path, encoder)"
            )
        return embed(self.encoder, images, **{"precision": self.meta["precision"]} | options)

    def search(self, queries: Tensor, k: int = 1, top: int = 5) -> tuple[Tensor, Tensor]:
        """Best row of each of the `top` best products, and its cosine: (Q, top) each.

        k = 1 (the paper): products in the order of their nearest row.  k > 1: by their
        votes among the k nearest rows, then by nearness.  Exact ties go to the lowest
        gallery row.
        """
        if not 1 <= k <= len(self) or top < 1:
            raise ValueError(
                f"gallery: k must be between 1 and its {len(self)} rows and top at least 1, got k={k!r}, "
                f"top={top!r}"
            )
        if queries.ndim != 2 or queries.shape[1] != self.embeddings.shape[1]:
            raise ValueError(
                f"gallery: queries must have {self.embeddings.shape[1]} columns, got the shape "
                f"{tuple(queries.shape)}"
            )
        owners, products = pd.factorize(pd.Series(self.owners))  # (G,)
        owners, top = torch.from_numpy(owners), min(top, len(products))
        return nearest.search(queries, self.embeddings, owners, k, top)

    def classify(
        self,
        images: Sequence[str | Path] | Tensor,
        k: int = 1,
        top: int = 5,
        unknown_below: float | None = None,
        score: str = "",
        rerank: Rerank | None = None,
        **options: Any,
    ) -> pd.DataFrame:
        """query, rank (from 1), product, similarity, packshot, unknown: a row per query and rank.

        `images` are paths or embeddings (Q, D); a query is named by its path or its
        number.  `unknown` (of the whole query): its score, similarity or margin, is
        below `unknown_below` (-2 accepts everything); without these, as the gallery's
        own threshold has it, if there is one.  `rerank` (for images, k = 1) orders by
        print: `similarity` is then that of `rerank`, while `unknown` goes by the
        cosines.
        """
        embedded = isinstance(images, Tensor)
        if rerank:
            by_print.check(self, k, embedded)
        below, score = self._threshold(unknown_below, score)
        names = list(range(len(images))) if embedded else [str(path) for path in images]
        queries = images if embedded else self.embed(names, **options)
        wanted = top
        if top > 0:  # a margin wants two, re-ranking its first; none is refused by the search
            wanted = max(top, 2, rerank.first if rerank else 1)
        rows, cosines = self.search(queries, k, wanted)  # (Q, wanted)
        rows, scores = rows.numpy(), cosines.double().numpy()
        judged = scores[:, 0] if score == "similarity" else outcomes.margin(scores)
        unknown = (judged < below - nearest.TIE).tolist()
        if rerank and names:
            workers = max(1, options.get("workers", 0))
            rows, scores = by_print.rows_of(self, names, rows, scores, rerank, workers)
        found = []
        for name, best, values, out in zip(names, rows, scores, unknown, strict=True):
            pairs = zip(best[:top].tolist(), values[:top].tolist(), strict=True)
            for rank, (row, value) in enumerate(pairs, start=1):
                found.append((name, rank, self.owners[row], value, self.images[row], out))
        columns = ["query", "rank", "product", "similarity", "packshot", "unknown"]
        return pd.DataFrame(found, columns=columns)

    def save(self, path: str | Path) -> Path:
        """Write one file, whole or not at all (`gallery_file`)."""
        path = Path(path)
        told = {"owners": self.owners, "images": self.images, **self.meta}
        gallery_file.write(path, self.embeddings, self.descriptors, told)
        return path

    @classmethod
    def load(cls, path: str | Path, encoder: Encoder | None = None) -> Gallery:
        """Read a gallery; an encoder of other weights or preprocessing than made it is refused."""
        path = Path(path)
        embeddings, descriptors, meta = gallery_file.read(path)
        if encoder is not None and fingerprint(encoder) != meta["fingerprint"]:
            raise ValueError(
                f"gallery: {path} was made by {meta['encoder']} ({meta['fingerprint']}), got "
                f"{encoder.name} ({fingerprint(encoder)}); use that model and resize, or build it anew"
            )
        return cls(embeddings, meta.pop("owners"), meta.pop("images"), meta, encoder, descriptors)

    def _threshold(self, below: float | None, score: str) -> tuple[float, str]:
        """What `classify` shall use: a threshold (minus infinity: none) and its score."""
        own = self.meta.get("unknown") or {}
        chosen = score or own.get("score", SCORES[0])
        if below is None and own.get("score") == chosen:
            below = own["below"]
        if chosen not in SCORES or (score and below is None):
            raise ValueError(
                f"gallery: score must be {' or '.join(SCORES)}, with a threshold unknown_below unless "
                f"the gallery has one of that score, got score={score!r} and no threshold for it"
            )
        if below is not None and not -2 <= below <= 2:
            raise ValueError(
                "gallery: unknown_below is a cosine or a difference of two, between -2 and 2, "
                f"got {below!r}"
            )
        return -math.inf if below is None else below, chosen
