"""Galleries (paper §4.2): packshot embeddings; products come and go.

Axes: Q queries, G gallery rows (packshots x views), D numbers per row, of length 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from klip.data import words
from klip.data.catalogue import Catalogue
from klip.model.encoder import Encoder, embed, fingerprint
from klip.recognise import gallery_file, keypoints as prints, nearest, outcomes, rerank as by_print
from klip.recognise.printed import Printed
from klip.recognise.rerank import Rerank


@dataclass(eq=False)
class Gallery:
    """Packshots as an encoder sees them; each view of a packshot is a row."""

    embeddings: Tensor  # (G, D) float32
    owners: list[str]
    """The product of each row."""
    images: list[str]
    """The packshot of each row."""
    meta: dict[str, Any]
    """Which encoder, views and seed made the rows; perhaps which threshold
    `open_set.calibrate` chose ("unknown")."""
    encoder: Encoder | None = None
    """Without it only embeddings can be classified."""
    descriptors: list[np.ndarray] | None = None
    """Of each packshot the rows of `keypoints.sift`; None: none are kept."""
    reading: dict[str, Any] = field(default_factory=dict)
    """How `encoder.embed` reads images for it: workers, progress."""
    _counted: tuple[list[str], Tensor] | None = field(default=None, init=False, repr=False)
    """Owners as they were when their products were last numbered, and those numbers."""
    _prints: Printed | None = field(default=None, init=False, repr=False)

    @classmethod
    def build(
        cls,
        encoder: Encoder,
        packshots: Catalogue,
        *,
        views: int = 8,
        seed: int = 0,
        precision: str = "fp32",
        keypoints: bool = False,
        **reading: Any,
    ) -> Gallery:
        """Gallery of a catalogue's images, all `views` of each kept (the first is plain).

        `precision` and `reading` (workers ...) hold for all that is embedded for this
        gallery later, too; fp32 is the same on every machine.  `keypoints` keeps
        descriptors to re-rank by.
        """
        if not len(packshots) or views < 1:
            raise ValueError(
                "gallery: at least one packshot and one view of each are needed, got "
                f"{len(packshots)} packshots and {views!r} views"
            )
        meta = {"fingerprint": fingerprint(encoder), "encoder": encoder.name}
        meta |= {"model": encoder.name, "resize": encoder.preprocess.resize}
        meta |= {name: encoder.config.get(name, 0) for name in ("pixels", "also")}
        meta |= {"views": views, "seed": seed, "precision": precision}
        if packshots.lost():
            meta["left_out"] = packshots.lost()
        described = [] if keypoints else None
        gallery = cls(torch.empty(0, encoder.dim), [], [], meta, encoder, described, reading)
        gallery.extend(packshots["product"], packshots["image"], files=packshots.files)
        return gallery

    @property
    def products(self) -> list[str]:
        """Products in the order of their first row."""
        return list(dict.fromkeys(self.owners))

    def __len__(self) -> int:
        return len(self.owners)

    def extend(
        self, products: Sequence[str], images: Sequence[str], *, files: Sequence[str | Path]
    ) -> None:
        """Put the views of some packshots behind the other rows: all or none."""
        views, products = self.meta["views"], [words.name(product) for product in products]
        rows = self.embed(files, views=views, seed=self.meta["seed"])
        if not torch.isfinite(rows).all():
            raise ValueError(
                "gallery: the embeddings hold values that are not finite; the encoder is broken"
            )
        if self.descriptors is not None:
            self.descriptors = self.descriptors + prints.describe(files)
        self.embeddings = torch.cat([self.embeddings, rows])
        self.owners = self.owners + np.repeat(products, views).tolist()
        self.images = self.images + np.repeat(images, views).tolist()

    def add(self, product: str, images: Sequence[str | Path]) -> None:
        """Append the views of a product's images; a known product gets more rows."""
        names = [str(path) for path in images]
        if not names:
            raise ValueError(f"gallery: a product needs images, got none of {product!r}")
        self.extend([product] * len(names), names, files=names)

    def remove(self, product: str) -> None:
        """Drop a product's rows; the others keep their values and order."""
        product = words.name(product)
        if product not in self.owners:
            near = difflib.get_close_matches(product, self.products, 1)
            hint = f"; did you mean {near[0]!r}" if near else ""
            raise ValueError(
                f"gallery: {product!r} is none of its {len(self.products)} products{hint}"
            )
        vars(self).update(vars(self.without({product})))

    def without(self, products: Collection[str]) -> Gallery:
        """A new gallery without these products; those it does not have are no error."""
        rows = [row for row, owner in enumerate(self.owners) if owner not in products]
        described = self.descriptors
        if described:
            views = self.meta["views"]  # all rows of a packshot stay or go
            described = [described[row // views] for row in rows[::views]]
        return replace(
            self,
            embeddings=self.embeddings[rows],
            owners=[self.owners[row] for row in rows],
            images=[self.images[row] for row in rows],
            meta=dict(self.meta),
            descriptors=described,
        )

    def embed(self, images: Sequence[str | Path] | Catalogue, **views: int) -> Tensor:
        """`encoder.embed` by the encoder that made the gallery, in its precision."""
        if self.encoder is None:
            raise ValueError(
                "gallery: images need the encoder that made it: Gallery.load(path, encoder)"
            )
        precision = self.meta["precision"]
        return embed(self.encoder, images, precision=precision, **self.reading, **views)

    def search(self, queries: Tensor, top: int = 5) -> tuple[np.ndarray, np.ndarray]:
        """Best row of each of the `top` best products, and its cosine: (Q, top) each.

        Products in the order of their nearest row (k = 1, as in the paper).  Exact ties
        go to the lowest gallery row.
        """
        nearest.check(queries, self.embeddings)
        owners = self.numbered()
        # By NumPy: threads of torch would spin on for a while beside those that read rows.
        top = min(top, int(owners.numpy().max()) + 1)
        rows, cosines = nearest.search(queries, self.embeddings, owners=owners, top=top)
        return rows.numpy(), cosines.numpy()

    def numbered(self) -> Tensor:
        """The number of each row's product (G,), counted anew only where owners changed."""
        if self._counted is None or self._counted[0] != self.owners:
            numbers, _ = pd.factorize(np.array(self.owners, object))
            self._counted = list(self.owners), torch.from_numpy(numbers)
        return self._counted[1]

    def printed(self) -> Printed:
        """The prints of its products, made anew where products or descriptors changed."""
        packshots = self.numbered()[:: self.meta["views"]].numpy()
        if self._prints is None or not self._prints.are_of(packshots, self.descriptors):
            self._prints = Printed(packshots, self.descriptors)
        return self._prints

    def classify(
        self,
        images: Sequence[str | Path] | Tensor,
        *,
        top: int = 5,
        unknown_below: float | None = None,
        score: str = "",
        rerank: Rerank | None = None,
    ) -> pd.DataFrame:
        """query, rank (from 1), product, similarity, packshot, unknown: a row per rank.

        `images` are paths or embeddings (Q, D); a query is named by its path or number.
        `unknown`: its score, similarity or margin, is below `unknown_below` (-2 accepts
        everything); without these, as the gallery's own threshold has it.  `rerank` (of
        images) orders by print, `unknown` still goes by the cosines.
        """
        embedded = isinstance(images, Tensor)
        if rerank:
            by_print.check(self, embedded=embedded)
        below, score = outcomes.threshold(self.meta.get("unknown"), unknown_below, score=score)
        names = list(range(len(images))) if embedded else [str(path) for path in images]
        queries = images if embedded else self.embed(names)
        # A margin wants two products, re-ranking its first ones.
        wanted = max(top, 2, rerank.first if rerank else 1)
        rows, cosines = self.search(queries, wanted)  # (Q, wanted)
        scores = cosines.astype(float)
        judged = scores[:, 0] if score == "similarity" else outcomes.margin(scores)
        unknown = judged < below - nearest.TIE
        if rerank and names:
            rows, scores = by_print.of_gallery(self, names, rows=rows, cosines=scores, how=rerank)
        products, packshots = self.named(rows[:, :top])
        ranks = products.shape[1]
        columns = {
            "query": [name for name in names for _ in range(ranks)],
            "rank": np.tile(np.arange(1, ranks + 1), len(names)),
            "product": products.ravel(),
            "similarity": scores[:, :top].ravel(),
            "packshot": packshots.ravel(),
            "unknown": unknown.repeat(ranks),
        }
        return pd.DataFrame(columns)

    def named(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The products and the packshots of some rows, in the same shape."""
        owners = [self.owners[row] for row in rows.ravel().tolist()]
        images = [self.images[row] for row in rows.ravel().tolist()]
        return (
            np.array(owners, object).reshape(rows.shape),
            np.array(images, object).reshape(rows.shape),
        )

    def save(self, path: str | Path) -> Path:
        """Write one file, whole or not at all (`gallery_file`)."""
        told = {"owners": self.owners, "images": self.images, **self.meta}
        return gallery_file.write(
            Path(path), self.embeddings, descriptors=self.descriptors, told=told
        )

    @classmethod
    def load(cls, path: str | Path, encoder: Encoder | None = None) -> Gallery:
        """Read a gallery; another encoder or preprocessing than made it is refused."""
        embeddings, descriptors, meta = gallery_file.read(Path(path))
        if encoder is not None and fingerprint(encoder) != meta["fingerprint"]:
            raise ValueError(
                f"gallery: {path} was made by {meta['encoder']} ({meta['fingerprint']}), got "
                f"{encoder.name} ({fingerprint(encoder)}); use that model and resize, or build "
                "it anew"
            )
        return cls(embeddings, meta.pop("owners"), meta.pop("images"), meta, encoder, descriptors)

    @classmethod
    @contextmanager
    def edited(cls, path: str | Path, encoder: Encoder | None = None) -> Iterator[Gallery]:
        """Inside, a gallery to change that no other process changes; saved when the block has
        ended without an error.  Errors: as `load` and `gallery_file.locked`."""
        with gallery_file.locked(Path(path)):
            gallery = cls.load(path, encoder)
            yield gallery
            gallery.save(path)
