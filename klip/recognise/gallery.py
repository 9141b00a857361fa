"""Galleries (paper §4.2): a table of packshot embeddings, to which products come and from which they go.

Axes: Q queries, G gallery rows (packshots x views), D numbers per embedding.  All rows have length 1.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from klip.data.images import read
from klip.model.encoder import embed, fingerprint, image_files
from klip.recognise import nearest
from klip.recognise.keypoints import describe, sift, sift_scores, threads
from klip.recognise.rerank import Rerank, order, share
from klip.settings.files import atomic

if TYPE_CHECKING:
    from klip.model.encoder import Encoder

FORMAT = "klip-gallery-1"
SCORES = ("similarity", "margin")
"""By what a query is found to be of no product of the gallery: see `evaluation.outcome`."""


class Gallery:
    """Embeddings (G, D) of packshots and the product that owns each row; rows of one packshot are its views.

    `owners` and `images` have one entry per row; `meta` says which encoder, views and seed made the rows, and perhaps
    which threshold `open_set.calibrate` chose ("unknown"), which stays when products come and go.  Without `encoder`
    only embeddings can be classified.  `descriptors`, if kept, are the rows of `keypoints.sift` of each packshot.
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
        packshots: pd.DataFrame,
        views: int = 8,
        seed: int = 0,
        precision: str = "fp32",
        keypoints: bool = False,
        **options: Any,
    ) -> Gallery:
        """Gallery of a catalogue's images with `views` views each, all kept (the first is the plain image).

        `precision` holds for all that is embedded for this gallery later; fp32 is the same on every machine.
        `keypoints` keeps descriptors, for `classify` to re-rank by.  `options` go to `embed`.  Empty: an error.
        """
        if packshots.empty or views < 1:
            raise ValueError(
                "gallery: at least one packshot and one view of each are needed, got "
                f"{len(packshots)} packshots and {views!r} views"
            )
        meta = {
            "fingerprint": fingerprint(encoder),
            "encoder": encoder.name,
            "views": views,
            "seed": seed,
            "precision": precision,
        }
        rows = embed(encoder, packshots, views=views, seed=seed, precision=precision, **options)
        described = describe(image_files(packshots)) if keypoints else None
        return cls(
            rows,
            packshots["product"].repeat(views),
            packshots["image"].repeat(views),
            meta,
            encoder,
            described,
        )

    @property
    def products(self) -> list[str]:
        """Products in the order of their first row."""
        return list(dict.fromkeys(self.owners))

    def __len__(self) -> int:
        return len(self.owners)

    def add(self, product: str, images: Sequence[str | Path]) -> None:
        """Append the views of a product's images; no other row changes.  A known product gets more rows."""
        names = [str(path) for path in images]
        if not product or not names:
            raise ValueError(
                f"gallery: a product needs a name and images, got {product!r} and {len(names)}"
            )
        rows = self.embed(names, views=self.meta["views"], seed=self.meta["seed"])
        if self.descriptors is not None:
            self.descriptors = self.descriptors + describe(names)
        self.embeddings = torch.cat([self.embeddings, rows])
        self.owners = self.owners + [product] * len(rows)
        self.images = self.images + [name for name in names for _ in range(self.meta["views"])]

    def remove(self, product: str) -> None:
        """Drop a product's rows; the others keep their values and order.  An unknown product is an error."""
        rest = self.without({product})
        if len(rest) == len(self):
            near = difflib.get_close_matches(product, self.products, 1)
            hint = f"; did you mean {near[0]!r}" if near else ""
            raise ValueError(
                f"gallery: {product!r} is none of its {len(self.products)} products{hint}"
            )
        self.embeddings, self.owners, self.images = rest.embeddings, rest.owners, rest.images
        self.descriptors = rest.descriptors

    def without(self, products: Collection[str]) -> Gallery:
        """A new gallery without the rows of these products; those it does not have are no error."""
        keep = [row for row, owner in enumerate(self.owners) if owner not in products]
        own = self.descriptors and [
            self.descriptors[row // self.meta["views"]] for row in keep[:: self.meta["views"]]
        ]
        return Gallery(
            self.embeddings[keep],
            [self.owners[row] for row in keep],
            [self.images[row] for row in keep],
            self.meta,
            self.encoder,
            own,
        )

    def embed(self, images: Sequence[str | Path] | pd.DataFrame, **options: Any) -> Tensor:
        """`encoder.embed` by the encoder that made the gallery, in its precision; ValueError where there is none."""
        if self.encoder is None:
            raise ValueError(
                "gallery: images need the encoder that made it: Gallery.load(path, encoder)"
            )
        return embed(self.encoder, images, **{"precision": self.meta["precision"]} | options)

    def search(self, queries: Tensor, k: int = 1, top: int = 5) -> tuple[Tensor, Tensor]:
        """Best row of each of the `top` best products, and its cosine: (Q, top) int, (Q, top) float.

        k = 1 (the paper): products in the order of their nearest row.  k > 1: by their votes among the k nearest rows,
        then by nearness.  Exact ties go to the lowest gallery row.  `top` is cut to the number of products.
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
        return nearest.search(
            queries, self.embeddings, torch.from_numpy(owners), k, min(top, len(products))
        )

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
        """One row per query and rank: `query`, `rank` (from 1), `product`, `similarity`, `packshot`, `unknown`.

        `images` are paths or embeddings (Q, D); a query is named by its path or by its number.  `unknown` (of the
        whole query) is True if its score is below `unknown_below` (-2 accepts everything), or else the gallery's own
        threshold, if it has one: then `product` only names the nearest.  `score` is similarity or margin (see
        `evaluation.outcome`); empty: that of the gallery's own threshold, or else similarity.  `rerank` (for images,
        k = 1) orders by print: `similarity` is then that of `rerank`, while `unknown` goes by the cosines.
        """
        if rerank:
            self._can_rerank(images, k)
        below, score = self._threshold(unknown_below, score)
        embedded = isinstance(images, Tensor)
        names = list(range(len(images))) if embedded else [str(path) for path in images]
        queries = images if embedded else self.embed(names, **options)
        rows, similarities = self.search(
            queries, k, max(top, 2, rerank.first if rerank else 1) if top > 0 else top
        )
        values = (
            similarities[:, 0].double() if score == "similarity" else nearest.margin(similarities)
        )
        unknown = (values < below - nearest.TIE).tolist()
        if rerank and len(names):
            rows, similarities = self._reranked(
                names, rows, similarities, rerank, options.get("workers", 0)
            )
        return pd.DataFrame(
            [
                (name, rank, self.owners[row], value, self.images[row], out)
                for name, best, values, out in zip(
                    names, rows.tolist(), similarities.tolist(), unknown, strict=True
                )
                for rank, (row, value) in enumerate(
                    zip(best[:top], values[:top], strict=True), start=1
                )
            ],
            columns=["query", "rank", "product", "similarity", "packshot", "unknown"],
        )

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, owners and settings as JSON in its metadata; whole or not at all."""
        from safetensors.torch import save_file

        path = Path(path)
        text = json.dumps(
            {"owners": self.owners, "images": self.images, **self.meta}, ensure_ascii=False
        )
        tensors, head = (
            {"embeddings": self.embeddings.contiguous()},
            {"format": FORMAT, "gallery": text},
        )
        if self.descriptors is not None:
            every = [torch.from_numpy(own) for own in self.descriptors]
            tensors |= {
                "descriptors": torch.cat(every)
                if every
                else torch.zeros(0, 130, dtype=torch.uint8),
                "keypoints": torch.tensor([len(own) for own in every], dtype=torch.int32),
            }
        atomic(path, lambda part: save_file(tensors, part, head))
        return path

    @classmethod
    def load(cls, path: str | Path, encoder: Encoder | None = None) -> Gallery:
        """Read a gallery; an encoder is refused if its weights or preprocessing did not make this gallery."""
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"gallery {path} is missing; `klip gallery build` writes one")
        try:
            with safe_open(path, "pt") as file:
                head = file.metadata() or {}
                if head.get("format") != FORMAT:
                    raise ValueError(
                        f"gallery: {path} is no gallery; `klip gallery build` writes one"
                    )
                embeddings, own = file.get_tensor("embeddings"), None
                if "descriptors" in file.keys():  # noqa: SIM118 (no dict); galleries before re-ranking have none
                    own = [
                        rows.numpy()
                        for rows in file.get_tensor("descriptors").split(
                            file.get_tensor("keypoints").tolist()
                        )
                    ]
        except SafetensorError as error:
            raise ValueError(f"gallery: {path} is not a whole safetensors file ({error})") from None
        meta = json.loads(head["gallery"])
        if encoder is not None and (found := fingerprint(encoder)) != meta["fingerprint"]:
            raise ValueError(
                f"gallery: {path} was made by {meta['encoder']} ({meta['fingerprint']}), got "
                f"{encoder.name} ({found}); use that model and resize, or build it anew"
            )
        return cls(embeddings, meta.pop("owners"), meta.pop("images"), meta, encoder, own)

    def _threshold(self, below: float | None, score: str) -> tuple[float, str]:
        """What `classify` shall use: a threshold (minus infinity if there is none) and its score."""
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

    def _can_rerank(self, images: Any, k: int) -> None:
        if self.descriptors is None:
            raise ValueError(
                "gallery: it keeps no keypoints to re-rank by; build it anew with keypoints "
                "(`klip gallery build FILE SOURCE --keypoints`)"
            )
        if k != 1 or isinstance(images, Tensor):
            raise ValueError(
                "gallery: re-ranking wants k = 1 and the images themselves, got "
                f"{'embeddings' if isinstance(images, Tensor) else f'k={k!r}'}"
            )

    def _reranked(
        self, images: list[str], rows: Tensor, cosine: Tensor, how: Rerank, workers: int
    ) -> tuple[Tensor, Tensor]:
        """`search`'s rows (Q, top) and cosines in the order of `klip.recognise.rerank`, with its similarities."""
        of_product = dict[str, list[np.ndarray]]()
        for owner, own in zip(self.owners[:: self.meta["views"]], self.descriptors, strict=True):
            of_product.setdefault(owner, []).append(own)

        def shares(image: str, first: list[int]) -> np.ndarray:
            shown = [np.concatenate(of_product[self.owners[row]]) for row in first]
            return share(sift_scores(shown)(sift(read(image))))

        with threads(max(1, workers)) as pool:
            found = np.array(list(pool.map(shares, images, rows[:, : how.first].tolist())))
        places, scores = order(cosine.double().numpy(), found, how.weight)
        return rows.gather(1, torch.from_numpy(places)), torch.from_numpy(scores)
