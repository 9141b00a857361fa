"""Products that are not in the gallery: a query whose score reaches no threshold is unknown.

Not in the paper, whose queries all have a packshot, but open-set recognition (Scheirer
et al. 2013).  Frames are those of `evaluation.outcome` with a column known: has the
product a packshot in the gallery?  score is similarity or margin.  Only `evaluate` and
`calibrate` need torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from klip.recognise import open_frames
from klip.stats import metrics

if TYPE_CHECKING:
    from torch import Tensor

    from klip.data.catalogue import Catalogue
    from klip.model.encoder import Encoder
    from klip.recognise.gallery import Gallery


class Rates(NamedTuple):
    """Counts of queries at one threshold; the shares made of them are fractions."""

    known: int
    accepted: int  # of the known ones
    right: int  # of the known and accepted ones
    unknown: int
    accepted_unknown: int

    @property
    def correct_accepts(self) -> float:
        return self.accepted / self.known

    @property
    def false_accepts(self) -> float:
        return self.accepted_unknown / self.unknown

    @property
    def right_of_accepted(self) -> float:
        """Not a number where no known query was accepted."""
        return self.right / self.accepted if self.accepted else math.nan


def evaluate(
    encoder: Encoder,
    catalogue: Catalogue,
    rule: str = "first",
    views: int = 8,
    seed: int = 0,
    embeddings: Tensor | None = None,
    precision: str = "fp32",
    **options: Any,
) -> pd.DataFrame:
    """All queries of a set asked of a gallery that lacks a seeded half of its products.

    Arguments as in `evaluation.evaluate`; top1 and top5 are False for unknown products.
    Of an odd number the smaller half is kept out; products without queries stay in.
    """
    from klip.recognise import evaluation
    from klip.recognise.gallery import Gallery

    chosen, asked = catalogue.pick(rule, seed)
    evaluation.check_rows(embeddings, asked)
    out, known = open_frames.kept_out(chosen, asked, seed)
    shown = chosen.where(~chosen["product"].isin(out))
    gallery = Gallery.build(encoder, shown, views, seed, precision, **options)
    if embeddings is None:
        embeddings = gallery.embed(asked, **options)
    return evaluation.outcome(gallery, asked, embeddings).assign(known=known)


def calibrate(
    gallery: Gallery,
    catalogue: Catalogue,
    score: str = "similarity",
    accepts: float = 0.95,
    draws: int = 5,
    **options: Any,
) -> dict[str, Any]:
    """`choose` for a gallery: the threshold to store as `gallery.meta["unknown"]`.

    It is chosen on a set with packshots and queries like those of the gallery.  In each
    draw half of its products join the gallery's own, whose number a threshold depends
    on, and the others are unknown.  A product of both, told by its name, is replaced.
    """
    import torch

    from klip.recognise import evaluation
    from klip.recognise.gallery import SCORES, Gallery

    open_frames.check_share(accepts)  # before the work, not after it
    if score not in SCORES:
        raise ValueError(f"open set: score must be {' or '.join(SCORES)}, got {score!r}")
    chosen, asked = catalogue.pick()
    halves = [open_frames.kept_out(chosen, asked, draw) for draw in range(draws)]
    embeddings, meta = gallery.embed(asked, **options), gallery.meta
    made = {key: meta[key] for key in ("views", "seed", "precision")}
    joining = Gallery.build(gallery.encoder, chosen, **made, **options)
    others = gallery.without(joining.products)
    rows = torch.cat([others.embeddings, joining.embeddings])
    owners, images = others.owners + joining.owners, others.images + joining.images
    whole, frames = Gallery(rows, owners, images, meta), []
    for out, known in halves:
        frame = evaluation.outcome(whole.without(out), asked, embeddings)
        frames.append(frame.assign(known=known))
    told = {"set": catalogue.name, "beside": len(others.products)}
    return choose(frames, score, accepts) | told


def auroc(frame: pd.DataFrame, score: str = "similarity") -> float:
    """Chance that a known query scores above an unknown one, ties half (Hanley & McNeil 1982)."""
    from sklearn.metrics import roc_auc_score

    open_frames.sides(frame, score)
    return float(roc_auc_score(frame["known"].astype(bool), frame[score]))


def threshold(frame: pd.DataFrame, score: str = "similarity", accepts: float = 0.95) -> float:
    """The largest one that accepts at least this share of the known queries: one of their scores."""
    open_frames.check_share(accepts)
    known, _ = open_frames.sides(frame, score, unknown=False)
    falling = np.sort(known[score])[::-1]
    return float(falling[math.ceil(accepts * len(known) - 1e-9) - 1])


def rates(frame: pd.DataFrame, score: str, threshold: float) -> Rates:
    """What a threshold accepts (score at or above it) of the known and of the unknown queries."""
    known, unknown = open_frames.sides(frame, score)
    accepted = known[known[score] >= threshold]
    right, others = int(accepted["top1"].sum()), int((unknown[score] >= threshold).sum())
    return Rates(len(known), len(accepted), right, len(unknown), others)


def curve(frame: pd.DataFrame, score: str = "similarity") -> pd.DataFrame:
    """threshold, false_accepts, correct_accepts at every score, from an infinite one (none)."""
    from sklearn.metrics import roc_curve

    open_frames.sides(frame, score)
    known = frame["known"].astype(bool)
    false, correct, cuts = roc_curve(known, frame[score], drop_intermediate=False)
    return pd.DataFrame({"threshold": cuts, "false_accepts": false, "correct_accepts": correct})


def choose(
    frames: Sequence[pd.DataFrame], score: str = "similarity", accepts: float = 0.95
) -> dict[str, Any]:
    """The `threshold` on frames of validation products (one per seed, pooled); plain JSON."""
    pooled = open_frames.pooled(frames)
    below = threshold(pooled, score, accepts)
    reached = rates(pooled, score, below)
    return {
        "below": below,
        "score": score,
        "accepts": accepts,
        "how": f"the largest threshold that accepts at least {accepts:.4g} of the queries of known products",
        "products": pooled["product"].nunique(),
        "queries": len(pooled),
        "draws": len(frames),
        "auroc": auroc(pooled, score),
        **reached._asdict(),
        "correct_accepts": reached.correct_accepts,
        "false_accepts": reached.false_accepts,
    }


def table(
    frames: Mapping[str, Sequence[pd.DataFrame]],
    chosen: Mapping[str, Mapping[str, Any]],
    n: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per set (its frames, one per seed, pooled) and score of `chosen` (see `choose`).

    Counts products, known and unknown (queries).  With _low and _high (95 %, bootstrap
    over products): auroc; oracle_false_accepts, at the threshold that the set itself
    would choose, which no shop knows; correct_accepts and false_accepts at the chosen
    one.  right: share of the accepted known queries with the right product.
    """
    rows = []
    for name, seeds in frames.items():
        pooled = open_frames.pooled(seeds)
        for score, choice in chosen.items():
            row = _judged(pooled, score, choice["below"], choice["accepts"], n, seed)
            rows.append({"set": name, "score": score, **row})
    return pd.DataFrame(rows)


def _judged(
    frame: pd.DataFrame, score: str, below: float, accepts: float, n: int, seed: int
) -> dict[str, Any]:
    """A row of `table`, less set and score."""
    got = rates(frame, score, below)
    row = {"products": frame["product"].nunique(), "known": got.known, "unknown": got.unknown}

    def add(column: str, value: float, interval: tuple[float, float]) -> None:
        row.update({column: value, f"{column}_low": interval[0], f"{column}_high": interval[1]})

    add("auroc", auroc(frame, score), auroc_interval(frame, score, n, seed))
    oracle = rates(frame, score, threshold(frame, score, accepts)).false_accepts
    add("oracle_false_accepts", oracle, oracle_interval(frame, score, accepts, n, seed))
    known, unknown = open_frames.sides(frame.assign(top1=frame[score] >= below), score)
    add(
        "correct_accepts",
        got.correct_accepts,
        metrics.bootstrap_products(known, "top1", n=n, seed=seed),
    )
    add(
        "false_accepts",
        got.false_accepts,
        metrics.bootstrap_products(unknown, "top1", n=n, seed=seed),
    )
    return row | {"threshold": below, "right": got.right_of_accepted}


def auroc_interval(
    frame: pd.DataFrame, score: str = "similarity", n: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of `auroc`, products resampled; (0, 1): a side has a single product."""
    drawn = open_frames.resampled(frame, score, n, seed)
    if drawn is None:
        return 0.0, 1.0
    count = drawn.times.shape[1]
    wins = np.zeros((count, count))  # (P, P): pairs that a known product's queries win
    for product in np.unique(drawn.theirs):
        others = np.sort(drawn.unknown[drawn.theirs == product])
        below, level = (np.searchsorted(others, drawn.known, side) for side in ("left", "right"))
        wins[:, product] = np.bincount(drawn.mine, (below + level) / 2, count)
    known = drawn.times @ np.bincount(drawn.mine, minlength=count)  # (N,) queries drawn
    unknown = drawn.times @ np.bincount(drawn.theirs, minlength=count)
    won = ((drawn.times @ wins) * drawn.times).sum(axis=1)
    return metrics.percentiles(won / (known * unknown))


def oracle_interval(
    frame: pd.DataFrame,
    score: str = "similarity",
    accepts: float = 0.95,
    n: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """As `auroc_interval`, of the false accepts at the `threshold` of each resample itself."""
    drawn = open_frames.resampled(frame, score, n, seed)
    if drawn is None:
        return 0.0, 1.0
    # (K,) how many unknown queries score at or above each known one
    reach = np.searchsorted(-drawn.unknown, -drawn.known, "right")
    found = []
    for weight in drawn.times:
        accepted = weight[drawn.mine].cumsum()
        false = np.append(0, weight[drawn.theirs].cumsum())
        last = np.searchsorted(accepted, accepts * accepted[-1] - 1e-9)
        found.append(false[reach[last]] / false[-1])
    return metrics.percentiles(np.array(found))
