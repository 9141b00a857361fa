"""A catalogue: which image shows which product, and what it is used for."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from klip.data import identity
from klip.data.images import area
from klip.data.words import named, natural, truth

SHOPS = ("shop", "grozi-like", "capg-like", "rp2k-like")
"""The rendered sets."""
HEAD, TAIL = 100, 20
"""Head: at least 100 images; tail: under 20; middle between ("many / medium / few-shot",
Liu et al. 2019)."""
PARTS = ("head", "middle", "tail")
RULES = ("first", "web1", "largest", "random", "index")


@dataclass(frozen=True, eq=False)
class Catalogue:
    """A table of images and the folder in which they lie.

    frame: a row per image, of `image` (posix path below `root`; a crop's is absolute),
    `product` and `split` (train, val, gallery, query; in GroZi-120 also index); where
    the set has a hierarchy also `group`, the general first: "tea/ice_tea/zola-1".
    empty: products without images.  notes: sentences on what was left out or put
    together.  left_out: files of the folder that are none of its images, and why.
    counted: are queries of products without a packshot wrong answers, or left out?
    copies: are queries asked whose answer proves nothing (`identity.no_question`)?
    """

    frame: pd.DataFrame
    root: Path = Path()
    name: str = ""
    empty: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    counted: bool = False
    copies: bool = True

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, column: str) -> pd.Series:
        """A column of the table."""
        return self.frame[column]

    @property
    def files(self) -> list[Path]:
        """Where each image lies."""
        return [Path(self.root, image) for image in self.frame["image"]]

    def lost(self, most: int = 1000) -> dict[str, Any]:
        """How many files were left out, hidden ones aside, and of the first ones why (JSON);
        {}: none."""
        seen = [(path, why) for path, why in self.left_out.items() if why != "hidden"]
        return {"files": len(seen), "why": dict(seen[:most])} if seen else {}

    @property
    def photographs(self) -> bool:
        """Is it a set of real photographs, not a rendered one?"""
        return self.name.partition(":")[0] not in SHOPS

    def of(self, frame: pd.DataFrame) -> Catalogue:
        """A catalogue of the same folder with other rows."""
        return replace(self, frame=frame.reset_index(drop=True))

    def assign(self, **columns: Any) -> Catalogue:
        """With these columns, new or in the place of the old."""
        return self.of(self.frame.assign(**columns))

    def where(self, rows: pd.Series | np.ndarray) -> Catalogue:
        """The images for which `rows` (N,) is true."""
        return self.of(self.frame[rows])

    def split(self, *names: str) -> Catalogue:
        """The images of these splits."""
        return self.where(self.frame["split"].isin(names))

    def part(self, name: str) -> Catalogue:
        """Every other product (`tuned` and `held-out` are disjoint halves, the same for
        every seed), or those in packages (`packaged`)."""
        if name == "packaged":
            if "packaged" not in self.frame:
                raise ValueError(
                    f"{self.name}: this set does not say which products are packaged; "
                    "grocery-store does"
                )
            return self.where(self.frame["packaged"].map(truth).to_numpy(bool))
        products = sorted(set(self.frame["product"]), key=natural)
        half = products[::2] if name == "tuned" else products[1::2]
        return self.where(self.frame["product"].isin(half))

    @property
    def has_packshots(self) -> bool:
        """Has it pictures meant for a gallery?  Else training photographs stand in for them."""
        return bool(self.frame["split"].eq("gallery").any())

    def packshots(self) -> Catalogue:
        """What a gallery can be chosen from: split gallery, or train if that is empty."""
        return self.split("gallery" if self.has_packshots else "train")

    def rules(self) -> dict[str, range]:
        """The rules that tell the packshots of this set apart, and the seeds to try of each."""
        if self.split("gallery")["product"].duplicated().any():
            return {"web1": range(1), "largest": range(1), "random": range(5)}
        return {"first": range(1)}

    def queries(self) -> Catalogue:
        """The images that are asked about, the same for every gallery rule."""
        if not self.frame["split"].eq("query").any():
            raise ValueError(
                f"evaluate: set {self.name!r} has no queries of its own; which they are "
                "depends on the gallery"
            )
        return self.pick()[1]

    def pick(self, rule: str = "first", seed: int = 0) -> tuple[Catalogue, Catalogue]:
        """One packshot per product, by rule, and the queries (paper §4.2).

        first = web1 (the paper does not say: A), largest (in pixels), random (seeded),
        out of `packshots`; index: the first picture of split "index", which other rules
        leave alone (GroZi-120's Index/).  Where there are no queries those of split val are
        asked, and without them all other images.  Those of products without a packshot are left out with a
        warning, or count as wrong (see `counted`).
        """
        if rule not in RULES:
            raise ValueError(f"gallery: the rule must be one of {', '.join(RULES)}, got {rule!r}")
        candidates = self.split("index") if rule == "index" else self.packshots()
        if rule == "index" and not len(candidates):
            raise ValueError(
                f"{self.name}: the gallery rule index wants pictures in Index/ (GroZi-120's "
                f"archive), there are none in {self.root}; take first, largest or random"
            )
        chosen = candidates._one_each(rule, np.random.default_rng(seed))
        gallery = candidates.of(candidates.frame.loc[chosen]).assign(split="gallery")
        queries = self.split("query")
        if not len(queries):  # a range to train on, with photographs held out of it
            queries = self.split("val").assign(split="query")
        if not len(queries):
            queries = candidates.of(candidates.frame.drop(chosen)).assign(split="query")
        return gallery, queries._shown_by(gallery)._no_copies_of(gallery)

    def _shown_by(self, gallery: Catalogue) -> Catalogue:
        """The queries that a gallery can answer, and the others if they count as wrong."""
        known = self["product"].isin(gallery["product"])
        if not known.any():
            raise ValueError(
                f"{self.name}: wants gallery and query images of the same products (a plain "
                f"folder: two images per product), got {len(gallery)} gallery images and "
                f"{len(self)} queries"
            )
        if not known.all():
            fate = "count as wrong" if self.counted else "left out"
            lost = named(self["product"][~known].unique())
            warnings.warn(
                f"{self.name}: {(~known).sum()} queries {fate}, there is no packshot of {lost}",
                stacklevel=3,
            )
        return self if self.counted else self.where(known)

    def _no_copies_of(self, gallery: Catalogue) -> Catalogue:
        """The queries without those whose answer proves nothing."""
        if self.copies:
            return self
        why = identity.no_question(gallery, self)
        lost = why != ""
        if not lost.any():
            return self
        told = [
            f"{(why == reason).sum()} queries left out, {reason}: {named(self['image'][why == reason])}"
            for reason in dict.fromkeys(why[lost])
        ]
        sentence = f"{self.name}: {'; '.join(told)} (copies=keep asks them all the same)"
        if lost.all():
            raise ValueError(sentence)
        warnings.warn(sentence, stacklevel=3)
        return self.where(~lost)

    def counts(self, split: str = "train") -> pd.Series:
        """Images per product of one split, most first, ties by name."""
        rows = self.frame[self.frame["split"] == split]
        if rows.empty:
            have = sorted(set(self.frame["split"]))
            raise ValueError(f"counts: no image has split {split!r}; the catalogue has {have}")
        sizes = rows.groupby(rows["product"].astype(str)).size()
        return sizes.sort_values(ascending=False, kind="stable").rename("images")

    def parts(self) -> pd.Series:
        """head, middle or tail for each product that is trained with, in the order of `counts`."""
        sizes = self.counts()
        names = np.select([sizes >= HEAD, sizes >= TAIL], PARTS[:2], PARTS[2])
        return pd.Series(names, index=sizes.index, name="part", dtype=object)

    def first(self, most: int) -> Catalogue:
        """The first images of each product, `most` of them at most."""
        return self.of(self.frame.groupby("product", sort=False).head(most))

    def held_out(self) -> tuple[Catalogue, Catalogue] | None:
        """Gallery and queries of the validation (paper §4.1.3); None if there is no query.

        Queries: of each product in split `val` as many as the poorest has.  Gallery: their
        first images in training.
        """
        queries = self.split("val")
        if not len(queries):
            return None
        queries = queries.first(queries["product"].value_counts().min())
        training = self.split("train")
        gallery = training.where(training["product"].isin(queries["product"])).first(1)
        lost = sorted(set(queries["product"]) - set(gallery["product"]))
        if lost:
            raise ValueError(
                f"validation: {len(lost)} products have no image to be compared with, first "
                f"{lost[0]!r}; each needs one in split train"
            )
        return gallery, queries

    def validation_set(self, products: int = 300, *, seed: int = 0) -> Catalogue:
        """An evaluation set of `products` seeded validation products, or all if they are
        fewer: of each a packshot (split gallery) and its held-out photographs (query).

        Of a fine-tuning set that was loaded with `validation`.
        """
        held = self.held_out()
        if held is None:
            raise ValueError(
                "validation: the fine-tuning set has no image of split val; load it with "
                "validation=2"
            )
        gallery, queries = held
        rng = np.random.default_rng(seed)
        names = rng.permutation(sorted(gallery["product"]))[:products]
        both = (gallery.assign(split="gallery").frame, queries.assign(split="query").frame)
        frame = pd.concat(both)
        return self.of(frame[frame["product"].isin(names)])

    def few_queries(self, most: int, *, seed: int = 0) -> Catalogue:
        """A set with one packshot per product (`pick`) and at most `most` seeded queries of
        each; 0: all."""
        gallery, queries = self.pick()
        asked = queries.frame
        if most:
            shuffled = asked.sample(frac=1, random_state=seed)
            asked = shuffled.groupby("product").head(most).sort_index()
        return self.of(pd.concat([gallery.frame, asked]))

    def _one_each(self, rule: str, rng: np.random.Generator) -> list[int]:
        """The place of one image per product."""
        chosen = []
        for _, rows in self.frame.groupby("product", sort=False):
            position = 0
            if rule == "random":
                position = int(rng.integers(len(rows)))
            elif rule == "largest" and len(rows) > 1:
                areas = [area(Path(self.root, image)) for image in rows["image"]]
                position = int(np.argmax(areas))
            chosen.append(rows.index[position])
        return chosen
