"""Zero-shot recognition (paper §4.2): the product of a photograph is that of its nearest packshot embedding.

Axes: Q queries, G gallery rows (packshots x views), D numbers per embedding.  All rows have length 1, so
that a dot product is the cosine.
"""

from __future__ import annotations

import difflib
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from klip import data
from klip.encoder import embed, fingerprint
from klip.files import atomic

if TYPE_CHECKING:
    from klip.encoder import Encoder

FORMAT = "klip-gallery-1"
CHUNK = 256
"""Queries compared at a time: memory is CHUNK x G numbers."""
TIE = 1e-6
"""Cosines this close count as equal: a matrix product rounds equal rows differently in different places."""
SCORES = ("similarity", "margin")
"""By what a query is found to be of no product of the gallery: see `outcome`."""


class Gallery:
    """Embeddings (G, D) of packshots and the product that owns each row; rows of one packshot are its views.

    `owners` and `images` have one entry per row; `meta` says which encoder, views and seed made the rows.
    `encoder` may be None for a gallery read from a file: then only embeddings can be classified.
    `meta["unknown"]`, if there, is the threshold that `openset.calibrate` chose and how: `classify` uses it,
    the file keeps it, and it stays when products come and go.
    """

    def __init__(self, embeddings: Tensor, owners: Sequence[str], images: Sequence[str], meta: dict[str, Any],
                 encoder: Encoder | None = None) -> None:
        if embeddings.ndim != 2 or not len(embeddings) == len(owners) == len(images):
            raise ValueError(f"gallery: one owner and one image per row of a (G, D) table are needed, got "
                             f"{tuple(embeddings.shape)}, {len(owners)} owners and {len(images)} images")
        if not torch.isfinite(embeddings).all():
            raise ValueError("gallery: the embeddings hold values that are not finite; the encoder is broken")
        self.embeddings, self.owners, self.images = embeddings.float(), list(owners), list(images)
        self.meta, self.encoder = dict(meta), encoder

    @classmethod
    def build(cls, encoder: Encoder, packshots: pd.DataFrame, views: int = 8, seed: int = 0,
              precision: str = "fp32", **options: Any) -> Gallery:
        """Gallery of a catalogue's images with `views` views each, all kept (the first is the plain image).

        `precision` holds for all that is embedded for this gallery later; fp32 is the same on every machine.
        `options` go to `embed` (batch_size, workers, progress).  An empty catalogue is an error.
        """
        if packshots.empty or views < 1:
            raise ValueError("gallery: at least one packshot and one view of each are needed, got "
                             f"{len(packshots)} packshots and {views!r} views")
        meta = {"fingerprint": fingerprint(encoder), "encoder": encoder.name, "views": views, "seed": seed,
                "precision": precision}
        rows = embed(encoder, packshots, views=views, seed=seed, precision=precision, **options)
        return cls(rows, _each(packshots["product"], views), _each(packshots["image"], views), meta, encoder)

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
            raise ValueError(f"gallery: a product needs a name and images, got {product!r} and {len(names)}")
        views = self.meta["views"]
        rows = self._embed(names, views=views, seed=self.meta["seed"])
        self.embeddings = torch.cat([self.embeddings, rows])
        self.owners, self.images = self.owners + [product] * len(rows), self.images + _each(names, views)

    def remove(self, product: str) -> None:
        """Drop a product's rows; the others keep their values and order.  An unknown product is an error."""
        rest = self.without({product})
        if len(rest) == len(self):
            near = difflib.get_close_matches(product, self.products, 1)
            hint = f"; did you mean {near[0]!r}" if near else ""
            raise ValueError(f"gallery: {product!r} is none of its {len(self.products)} products{hint}")
        self.embeddings, self.owners, self.images = rest.embeddings, rest.owners, rest.images

    def without(self, products: Collection[str]) -> Gallery:
        """A new gallery without the rows of these products; those it does not have are no error."""
        keep = [row for row, owner in enumerate(self.owners) if owner not in products]
        return Gallery(self.embeddings[keep], [self.owners[row] for row in keep],
                       [self.images[row] for row in keep], self.meta, self.encoder)

    def search(self, queries: Tensor, k: int = 1, top: int = 5) -> tuple[Tensor, Tensor]:
        """Best row of each of the `top` best products, and its cosine: (Q, top) int, (Q, top) float.

        k = 1 (the paper): products in the order of their nearest row.  k > 1: by their votes among the k
        nearest rows, equal votes to the nearer product; products without a vote follow, nearest first.
        Exact ties go to the lowest gallery row.  `top` is cut to the number of products.
        """
        if not 1 <= k <= len(self) or top < 1:
            raise ValueError(f"gallery: k must be between 1 and its {len(self)} rows and top at least 1, "
                             f"got k={k!r}, top={top!r}")
        if queries.ndim != 2 or queries.shape[1] != self.embeddings.shape[1]:
            raise ValueError(f"gallery: queries must have {self.embeddings.shape[1]} columns, got the shape "
                             f"{tuple(queries.shape)}")
        number = {product: index for index, product in enumerate(self.products)}
        owners = torch.tensor([number[owner] for owner in self.owners])     # (G,)
        top, rows, similarities = min(top, len(number)), [], []
        for chunk in queries.float().split(CHUNK):
            similarity = chunk @ self.embeddings.T                          # (q, G)
            row = _nearest(similarity.clone(), top, owners)
            if k > 1:
                row = _vote(_nearest(similarity.clone(), k), row, owners)
            rows.append(row)
            similarities.append(similarity.gather(1, row))
        if not rows:
            return torch.zeros(0, top, dtype=torch.long), torch.zeros(0, top)
        return torch.cat(rows), torch.cat(similarities)

    def classify(self, images: Sequence[str | Path] | Tensor, k: int = 1, top: int = 5,
                 unknown_below: float | None = None, score: str = "", **options: Any) -> pd.DataFrame:
        """One row per query and rank: `query`, `rank` (from 1), `product`, `similarity`, `packshot`, `unknown`.

        `images` are paths or embeddings (Q, D); a query is named by its path or by its number.  `unknown` (of the
        whole query) is True if its score is below the threshold: its product is not in the gallery, and `product`
        only names the nearest.  `score` is similarity or margin (see `outcome`; of the two best, whatever `top`);
        empty: that of the gallery's own threshold, or else similarity.  Without `unknown_below` the gallery's
        own threshold holds; where it has none, nothing is unknown.  `unknown_below` -2 accepts everything.
        """
        below, score = self._threshold(unknown_below, score)
        if isinstance(images, Tensor):
            queries, names = images, list(range(len(images)))
        else:
            names = [str(path) for path in images]
            queries = self._embed(names, **options)
        rows, similarities = self.search(queries, k, max(top, 2) if top > 0 else top)
        values = similarities[:, 0].double() if score == "similarity" else _margin(similarities)
        unknown = (values < below - TIE).tolist()
        return pd.DataFrame([
            {"query": name, "rank": rank, "product": self.owners[row], "similarity": value,
             "packshot": self.images[row], "unknown": out}
            for name, best, cosines, out in zip(names, rows.tolist(), similarities.tolist(), unknown, strict=True)
            for rank, (row, value) in enumerate(zip(best[:top], cosines[:top], strict=True), start=1)
        ], columns=["query", "rank", "product", "similarity", "packshot", "unknown"])

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, owners and settings as JSON in its metadata; whole or not at all."""
        from safetensors.torch import save_file

        path = Path(path)
        text = json.dumps({"owners": self.owners, "images": self.images, **self.meta}, ensure_ascii=False)
        tensors, head = {"embeddings": self.embeddings.contiguous()}, {"format": FORMAT, "gallery": text}
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
                    raise ValueError(f"gallery: {path} is no gallery; `klip gallery build` writes one")
                embeddings = file.get_tensor("embeddings")
        except SafetensorError as error:
            raise ValueError(f"gallery: {path} is not a whole safetensors file ({error})") from None
        meta = json.loads(head["gallery"])
        if encoder is not None and (found := fingerprint(encoder)) != meta["fingerprint"]:
            raise ValueError(f"gallery: {path} was made by {meta['encoder']} ({meta['fingerprint']}), got "
                             f"{encoder.name} ({found}); use that model and resize, or build it anew")
        return cls(embeddings, meta.pop("owners"), meta.pop("images"), meta, encoder)

    def _threshold(self, below: float | None, score: str) -> tuple[float, str]:
        """What `classify` shall use: a threshold (minus infinity if there is none) and its score."""
        own = self.meta.get("unknown") or {}
        chosen = score or own.get("score", SCORES[0])
        if below is None and own.get("score") == chosen:
            below = own["below"]
        if chosen not in SCORES or (score and below is None):
            raise ValueError(f"gallery: score must be {' or '.join(SCORES)}, with a threshold unknown_below unless "
                             f"the gallery has one of that score, got score={score!r} and no threshold for it")
        if below is not None and not -2 <= below <= 2:
            raise ValueError("gallery: unknown_below is a cosine or a difference of two, between -2 and 2, "
                             f"got {below!r}")
        return -math.inf if below is None else below, chosen

    def _embed(self, images: list[str], **options: Any) -> Tensor:
        if self.encoder is None:
            raise ValueError("gallery: images need the encoder that made it: Gallery.load(path, encoder)")
        return embed(self.encoder, images, **{"precision": self.meta["precision"]} | options)


def queries(catalogue: pd.DataFrame) -> pd.DataFrame:
    """The query images of a set, the same for every gallery rule: one embedding serves several galleries.

    A set without queries of its own (a plain folder: all images but the packshots) is an error.
    """
    if not catalogue["split"].eq("query").any():
        raise ValueError(f"evaluate: set {catalogue.attrs.get('name', '')!r} has no queries of its own; "
                         "which they are depends on the gallery")
    return _part(data.pick_gallery(catalogue), "query")


def packshots(catalogue: pd.DataFrame) -> pd.DataFrame:
    """What a gallery can be built of: the images of split gallery, or of train where there are none."""
    return _part(catalogue, "gallery" if catalogue["split"].eq("gallery").any() else "train")


def pick(catalogue: pd.DataFrame, rule: str = "first", seed: int = 0,
         embeddings: Tensor | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One packshot per product by `rule`, and the queries (`data.pick_gallery`).

    `embeddings` (Q, D), if there are any already, must be those of `queries(catalogue)`: as many.
    """
    if embeddings is not None and len(embeddings) != len(queries(catalogue)):
        raise ValueError(f"evaluate: one embedding per query is needed, got {len(embeddings)} for "
                         f"{len(queries(catalogue))} queries")
    picked = data.pick_gallery(catalogue, rule, seed)
    return _part(picked, "gallery"), _part(picked, "query")


def outcome(gallery: Gallery, asked: pd.DataFrame, embeddings: Tensor, k: int = 1) -> pd.DataFrame:
    """What the gallery answers to the queries `asked` with these embeddings (Q, D); one row per query.

    Columns: image, product, predicted, top1, top5 (among five distinct products), similarity (cosine of the best
    product), margin (that minus the cosine of the second product; below 0 only where k > 1 votes; in a gallery
    of one product as if a second lay opposite, at cosine -1), packshot (of the predicted product: the wrong
    neighbour, if it is wrong).
    """
    rows, similarity = gallery.search(embeddings, k, top=5)
    found = [[gallery.owners[row] for row in best] for best in rows.tolist()]
    truth = list(zip(found, asked["product"], strict=True))
    return asked[["image", "product"]].assign(
        predicted=[best[0] for best in found],
        top1=[best[0] == product for best, product in truth],
        top5=[product in best for best, product in truth],
        similarity=similarity[:, 0].numpy(),
        margin=_margin(similarity).numpy(),
        packshot=[gallery.images[row] for row in rows[:, 0].tolist()],
    )


def evaluate(encoder: Encoder, catalogue: pd.DataFrame, rule: str = "first", views: int = 8, seed: int = 0,
             k: int = 1, embeddings: Tensor | None = None, precision: str = "fp32",
             **options: Any) -> pd.DataFrame:
    """Classify a set's queries against one packshot per product (§4.2); the columns are those of `outcome`.

    `rule` picks the packshot: first (= web1), largest or random (by `seed`).  `embeddings` (Q, D) of
    `queries(catalogue)` in the same precision spare embedding them anew for another rule or seed.  Queries
    without a packshot: see `data.pick_gallery`.
    """
    chosen, asked = pick(catalogue, rule, seed, embeddings)
    gallery = Gallery.build(encoder, chosen, views, seed, precision, **options)
    if embeddings is None:
        embeddings = embed(encoder, asked, precision=precision, **options)
    frame = outcome(gallery, asked, embeddings, k)
    frame.attrs = {**catalogue.attrs, "gallery": rule, "views": views, "seed": seed, "k": k,
                   "fingerprint": gallery.meta["fingerprint"]}
    return frame


def _part(catalogue: pd.DataFrame, split: str) -> pd.DataFrame:
    return catalogue[catalogue["split"] == split].reset_index(drop=True)


def _each(values: Iterable[str], views: int) -> list[str]:
    return [value for value in values for _ in range(views)]


def _margin(similarity: Tensor) -> Tensor:
    """Best minus second product, (Q,) in float64, of (Q, top); see `outcome` for a single product."""
    similarity = similarity.double()
    return similarity[:, 0] - (similarity[:, 1] if similarity.shape[1] > 1 else -1)


def _nearest(similarity: Tensor, count: int, owners: Tensor | None = None) -> Tensor:
    """The `count` nearest rows (q, count), nearest first, ties to the lowest; `similarity` (q, G) is used up.

    With `owners` (G,) each row found closes its whole product, so that the rows belong to distinct products.
    """
    found = []
    for _ in range(count):
        best = similarity.amax(dim=1, keepdim=True)
        row = (similarity >= best - TIE).to(torch.uint8).argmax(dim=1, keepdim=True)    # the first such row
        found.append(row)
        if owners is None:
            similarity.scatter_(1, row, -torch.inf)
        else:
            similarity.masked_fill_(owners == owners[row], -torch.inf)
    return torch.cat(found, dim=1)


def _vote(voters: Tensor, ranked: Tensor, owners: Tensor) -> Tensor:
    """`ranked` (q, top), a row per product, ordered by the votes of `voters` (q, k); both nearest first."""
    result = []
    for near, best in zip(voters.tolist(), ranked.tolist(), strict=True):
        first: dict[int, int] = {}
        for row in [*near, *best]:
            first.setdefault(int(owners[row]), row)
        votes = Counter(int(owners[row]) for row in near)
        order = sorted(first, key=lambda product: -votes[product])      # stable: the nearer one stays first
        result.append([first[product] for product in order[: ranked.shape[1]]])
    return torch.tensor(result)
