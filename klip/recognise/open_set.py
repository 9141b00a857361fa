"""Products that are not in the gallery: a query is accepted if its score reaches a threshold, else called unknown.

Not in the paper, whose queries all have a packshot; the question is that of open-set recognition (Scheirer et al.
2013).  Frames have one row per query: image, product, known (has its product a packshot in the gallery?), predicted,
top1, and the two scores of `evaluation.outcome`, similarity and margin.
Axes: P products, K queries of known ones, N resamples.  Only `evaluate` and `calibrate` need torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from klip.stats import metrics

if TYPE_CHECKING:
    from torch import Tensor

    from klip.model.encoder import Encoder
    from klip.recognise.gallery import Gallery

FEWEST = 4
"""Products needed: half of them known, and a margin needs two."""


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
    catalogue: pd.DataFrame,
    rule: str = "first",
    views: int = 8,
    seed: int = 0,
    embeddings: Tensor | None = None,
    precision: str = "fp32",
    **options: Any,
) -> pd.DataFrame:
    """All queries of a set asked of a gallery that lacks a seeded half of its products: the frame of above.

    Other columns and arguments as in `evaluation.evaluate`; top1 and top5 are False for unknown products.  Of an odd
    number the smaller half is kept out; products without queries stay in.  Fewer than FEWEST with queries: an error.
    """
    from klip.recognise import evaluation
    from klip.recognise.gallery import Gallery

    chosen, asked = evaluation.pick(catalogue, rule, seed, embeddings)
    out, known = _kept_out(chosen, asked, seed)
    gallery = Gallery.build(
        encoder, chosen[~chosen["product"].isin(out)], views, seed, precision, **options
    )
    if embeddings is None:
        embeddings = gallery.embed(asked, **options)
    frame = evaluation.outcome(gallery, asked, embeddings).assign(known=known)
    frame.attrs = {
        **catalogue.attrs,
        "gallery": rule,
        "views": views,
        "seed": seed,
        "fingerprint": gallery.meta["fingerprint"],
    }
    return frame


def calibrate(
    gallery: Gallery,
    catalogue: pd.DataFrame,
    score: str = "similarity",
    accepts: float = 0.95,
    draws: int = 5,
    **options: Any,
) -> dict[str, Any]:
    """`choose` for a gallery: the threshold to store as `gallery.meta["unknown"]`, chosen on a set's products.

    They want packshots and queries like those of the gallery (in a plain folder a product's first image is its
    packshot).  In each draw half of them join the gallery's own products, whose number a threshold depends on, and
    the others are unknown.  Products are told by name: one of the gallery that is in the set, too, is replaced.
    """
    import torch

    from klip.recognise import evaluation
    from klip.recognise.gallery import SCORES, Gallery

    _check(accepts)  # before the work, not after it
    if score not in SCORES:
        raise ValueError(f"open set: score must be {' or '.join(SCORES)}, got {score!r}")
    chosen, asked = evaluation.pick(catalogue)
    halves = [_kept_out(chosen, asked, draw) for draw in range(draws)]
    embeddings, meta = gallery.embed(asked, **options), gallery.meta
    joining = Gallery.build(
        gallery.encoder, chosen, meta["views"], meta["seed"], meta["precision"], **options
    )
    others = gallery.without(joining.products)
    whole = Gallery(
        torch.cat([others.embeddings, joining.embeddings]),
        others.owners + joining.owners,
        others.images + joining.images,
        meta,
    )
    frames = [
        evaluation.outcome(whole.without(out), asked, embeddings).assign(known=known)
        for out, known in halves
    ]
    return choose(frames, score, accepts) | {
        "set": catalogue.attrs["name"],
        "beside": len(others.products),
    }


def auroc(frame: pd.DataFrame, score: str = "similarity") -> float:
    """Chance that a known query scores above an unknown one, ties counted half (Hanley & McNeil 1982)."""
    from sklearn.metrics import roc_auc_score

    _sides(frame, score)
    return float(roc_auc_score(frame["known"].astype(bool), frame[score]))


def threshold(frame: pd.DataFrame, score: str = "similarity", accepts: float = 0.95) -> float:
    """The largest threshold that accepts at least the share `accepts` of the known queries: one of their scores."""
    _check(accepts)
    known, _ = _sides(frame, score, unknown=False)
    return float(np.sort(known[score])[::-1][math.ceil(accepts * len(known) - 1e-9) - 1])


def rates(frame: pd.DataFrame, score: str, threshold: float) -> Rates:
    """What a threshold accepts (score at or above it) of the known and of the unknown queries."""
    known, unknown = _sides(frame, score)
    accepted = known[known[score] >= threshold]
    return Rates(
        len(known),
        len(accepted),
        int(accepted["top1"].sum()),
        len(unknown),
        int((unknown[score] >= threshold).sum()),
    )


def curve(frame: pd.DataFrame, score: str = "similarity") -> pd.DataFrame:
    """threshold, false_accepts, correct_accepts at every value of the score, from an infinite one (none accepted)."""
    from sklearn.metrics import roc_curve

    _sides(frame, score)
    false, correct, cuts = roc_curve(
        frame["known"].astype(bool), frame[score], drop_intermediate=False
    )
    return pd.DataFrame({"threshold": cuts, "false_accepts": false, "correct_accepts": correct})


def choose(
    frames: Sequence[pd.DataFrame], score: str = "similarity", accepts: float = 0.95
) -> dict[str, Any]:
    """The `threshold` on frames of validation products (one per seed, pooled) with how it came about; plain JSON."""
    pooled = _pooled(frames)
    below = threshold(pooled, score, accepts)
    reached = rates(pooled, score, below)
    return {
        "below": below,
        "score": score,
        "accepts": accepts,
        "how": f"the largest threshold that accepts at least {accepts:.4g} of the queries of known products",
        "products": pooled["product"].nunique(),
        "queries": reached.known + reached.unknown,
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
    """One row per set (its frames, one per seed, pooled) and score of `chosen` (score -> what `choose` returned).

    Counts products, known and unknown (queries, over all seeds).  With _low and _high, 95 % intervals by bootstrap
    over whole products: auroc; oracle_false_accepts, at the threshold that the set itself would choose, which no
    shop knows; correct_accepts and false_accepts at the chosen threshold.  right: share of the accepted known
    queries with the right product.
    """
    rows = []
    for name, seeds in frames.items():
        pooled = _pooled(seeds)
        for score, choice in chosen.items():
            below, accepts = choice["below"], choice["accepts"]
            got, own = rates(pooled, score, below), threshold(pooled, score, accepts)
            known, unknown = (
                side.assign(top1=side[score] >= below) for side in _sides(pooled, score)
            )
            row = {
                "set": name,
                "score": score,
                "products": pooled["product"].nunique(),
                "known": got.known,
                "unknown": got.unknown,
            }
            for column, value, (low, high) in [
                ("auroc", auroc(pooled, score), auroc_interval(pooled, score, n, seed)),
                (
                    "oracle_false_accepts",
                    rates(pooled, score, own).false_accepts,
                    oracle_interval(pooled, score, accepts, n, seed),
                ),
                (
                    "correct_accepts",
                    got.correct_accepts,
                    metrics.bootstrap_products(known, "top1", n, seed),
                ),
                (
                    "false_accepts",
                    got.false_accepts,
                    metrics.bootstrap_products(unknown, "top1", n, seed),
                ),
            ]:
                row |= {column: value, f"{column}_low": low, f"{column}_high": high}
            rows.append(row | {"threshold": below, "right": got.right_of_accepted})
    return pd.DataFrame(rows)


def auroc_interval(
    frame: pd.DataFrame, score: str = "similarity", n: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of `auroc`, whole products resampled; (0, 1) with a single known or unknown product."""
    known, unknown = _sides(frame, score)
    codes, times = _resampled(frame, n, seed)
    if times is None:
        return 0.0, 1.0
    own, other = (side["product"].map(codes) for side in (known, unknown))
    wins = np.zeros((len(codes), len(codes)))  # (P, P): pairs that a known product's queries win
    for product, theirs in unknown.groupby("product")[score]:
        below = [
            np.searchsorted(np.sort(theirs), known[score], side) for side in ("left", "right")
        ]  # (2, K)
        wins[:, codes[product]] = np.bincount(own, sum(below) / 2, len(codes))
    pairs = (times @ np.bincount(own, minlength=len(codes))) * (
        times @ np.bincount(other, minlength=len(codes))
    )
    return metrics.percentiles(((times @ wins) * times).sum(axis=1) / pairs)


def oracle_interval(
    frame: pd.DataFrame,
    score: str = "similarity",
    accepts: float = 0.95,
    n: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """As `auroc_interval`, of the false accepts at the frame's own `threshold`, chosen anew in each resample."""
    known, unknown = (side.sort_values(score, ascending=False) for side in _sides(frame, score))
    codes, times = _resampled(frame, n, seed)
    if times is None:
        return 0.0, 1.0
    values, mine, theirs = (
        known[score].to_numpy(),
        known["product"].map(codes),
        unknown["product"].map(codes),
    )
    reach = np.searchsorted(
        -unknown[score].to_numpy(), -values, "right"
    )  # (K,) unknown ones at or above each
    found = []
    for weight in times:
        accepted, false = weight[mine].cumsum(), np.append(0, weight[theirs].cumsum())
        last = np.searchsorted(accepted, accepts * accepted[-1] - 1e-9)
        found.append(false[reach[last]] / false[-1])
    return metrics.percentiles(np.array(found))


def _kept_out(chosen: pd.DataFrame, asked: pd.DataFrame, seed: int) -> tuple[set[str], pd.Series]:
    """Products to keep out of the gallery, a seeded half of those shown and asked for, and which queries stay known."""
    shown = set(chosen["product"])
    products = sorted(shown & set(asked["product"]))
    if len(products) < FEWEST:
        raise ValueError(
            f"open set: half of the products is kept out of the gallery, which wants at least {FEWEST} "
            f"products with a packshot and queries, got {len(products)}"
        )
    out = set(np.random.default_rng(seed).permutation(products)[: len(products) // 2].tolist())
    return out, asked["product"].isin(shown - out)


def _check(accepts: float) -> None:
    if not 0 < accepts <= 1:
        raise ValueError(f"open set: accepts is a share above 0 and at most 1, got {accepts!r}")


def _pooled(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    if not len(frames):
        raise ValueError("open set: wants at least one frame, one for each seed, got none")
    return pd.concat(frames, ignore_index=True)


def _sides(
    frame: pd.DataFrame, score: str, unknown: bool = True
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of known and of unknown products, both there; a frame that cannot be judged is refused."""
    if missing := {"product", "known", "top1", score} - set(frame.columns):
        raise ValueError(
            "open set: a frame has product, known, top1 and the scores similarity and margin; missing: "
            f"{', '.join(sorted(missing))}"
        )
    if frame[["product", "known", score]].isna().any(axis=None):
        raise ValueError(f"open set: wants no missing value in product, known and {score}")
    known = frame["known"].astype(bool)
    if not known.any() or (unknown and known.all()):
        raise ValueError(
            "open set: wants queries of products in the gallery and of products that are not, got "
            f"{known.sum()} and {(~known).sum()}"
        )
    return frame[known], frame[~known]


def _resampled(frame: pd.DataFrame, n: int, seed: int) -> tuple[dict[str, int], np.ndarray | None]:
    """Numbers of the products, and how often each is drawn, (N, P); None where one side has a single product.

    Products only known, only unknown, and (over several seeds) both are drawn among their kind: no side is ever empty.
    """
    roles = frame["known"].astype(bool).groupby(frame["product"]).agg(["any", "all"])
    codes, rng = (
        {product: code for code, product in enumerate(roles.index)},
        np.random.default_rng(seed),
    )
    times = np.zeros((n, len(roles)))
    for _, own in roles.groupby(["any", "all"]):
        times[:, own.index.map(codes)] = rng.multinomial(
            len(own), np.full(len(own), 1 / len(own)), size=n
        )
    enough = roles["any"].sum() >= 2 and (~roles["all"]).sum() >= 2
    return codes, times if enough else None
