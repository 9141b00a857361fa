"""Products that are not in the gallery: a query whose score reaches no threshold is unknown.

Not in the paper, whose queries all have a packshot, but open-set recognition (Scheirer
et al. 2013).  Frames are those of `evaluation.outcome` with a column known: has the
product a packshot in the gallery?  score is similarity or margin.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product as pairs
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from klip.data.catalogue import Catalogue
from klip.model.encoder import Encoder
from klip.recognise import evaluation
from klip.recognise.gallery import Gallery
from klip.recognise.outcomes import SCORES
from klip.stats import metrics

FEWEST = 4
"""Products needed: half of them known, and a margin needs two."""
RESAMPLES = 2000


def evaluate(
    encoder: Encoder,
    catalogue: Catalogue,
    *,
    rule: str = "first",
    seed: int = 0,
    embeddings: Tensor | None = None,
    **build: Any,
) -> pd.DataFrame:
    """All queries of a set asked of a gallery that lacks a seeded half of its products.

    Arguments as in `evaluation.evaluate`; top1 and top5 are False for unknown products.
    Of an odd number the smaller half is kept out; products without queries stay in.
    """
    chosen, asked = catalogue.pick(rule, seed)
    out, known = _kept_out(chosen, asked, seed=seed)
    shown = chosen.where(~chosen["product"].isin(out))
    gallery = Gallery.build(encoder, shown, seed=seed, **build)
    return evaluation.outcome(gallery, asked, embeddings=embeddings).assign(known=known)


def calibrate(
    gallery: Gallery,
    catalogue: Catalogue,
    *,
    score: str = "similarity",
    accepts: float = 0.95,
    draws: int = 5,
) -> dict[str, Any]:
    """`choose` for a gallery: the threshold to store as `gallery.meta["unknown"]`.

    It is chosen on a set with packshots and queries like those of the gallery.  In each
    draw half of its products join the gallery's own, whose number a threshold depends
    on, and the others are unknown.  A product of both, told by its name, is replaced.
    """
    _check(score, accepts)  # before the work, not after it
    chosen, asked = catalogue.pick()
    halves = [_kept_out(chosen, asked, seed=draw) for draw in range(draws)]
    embeddings = gallery.embed(asked)
    whole = gallery.without(set(chosen["product"]))
    whole.descriptors, beside = None, len(whole.products)  # thresholds go by the cosines
    whole.extend(chosen["product"], chosen["image"], files=chosen.files)
    frames = []
    for out, known in halves:
        frame = evaluation.outcome(whole.without(out), asked, embeddings=embeddings)
        frames.append(frame.assign(known=known))
    told = {"set": catalogue.name, "beside": beside}
    return choose(frames, score, accepts=accepts) | told


def threshold(frame: pd.DataFrame, score: str = "similarity", *, accepts: float = 0.95) -> float:
    """The largest one that accepts at least this share of the known queries: one of their scores."""
    falling = np.sort(frame.loc[frame["known"], score])[::-1]
    return float(falling[math.ceil(accepts * len(falling) - 1e-9) - 1])


def rates(frame: pd.DataFrame, score: str, *, threshold: float) -> dict[str, float]:
    """What a threshold accepts (score at or above it).

    Queries that are known, accepted (of these), right (of these), unknown,
    accepted_unknown; the fractions correct_accepts and false_accepts.
    """
    known, accepted = frame["known"], frame[score] >= threshold
    masks = {"known": known, "accepted": known & accepted}
    masks["right"] = masks["accepted"] & frame["top1"]
    masks |= {"unknown": ~known, "accepted_unknown": ~known & accepted}
    found = {name: int(mask.sum()) for name, mask in masks.items()}
    found["correct_accepts"] = found["accepted"] / found["known"]
    found["false_accepts"] = found["accepted_unknown"] / found["unknown"]
    return found


def curve(frame: pd.DataFrame, score: str = "similarity") -> pd.DataFrame:
    """threshold, false_accepts, correct_accepts at every score, from an infinite one (none)."""
    false, correct, cuts = roc_curve(frame["known"], frame[score], drop_intermediate=False)
    return pd.DataFrame({"threshold": cuts, "false_accepts": false, "correct_accepts": correct})


def choose(
    frames: Sequence[pd.DataFrame], score: str = "similarity", *, accepts: float = 0.95
) -> dict[str, Any]:
    """The `threshold` on frames of validation products (one per seed, pooled); plain JSON."""
    _check(score, accepts)
    pooled = pd.concat(frames, ignore_index=True)
    below = threshold(pooled, score, accepts=accepts)
    return {
        "below": below,
        "score": score,
        "accepts": accepts,
        "how": f"the largest threshold that accepts at least {accepts:.4g} of the queries of "
        "known products",
        "products": pooled["product"].nunique(),
        "queries": len(pooled),
        "draws": len(frames),
        "auroc": float(roc_auc_score(pooled["known"], pooled[score])),
        **rates(pooled, score, threshold=below),
    }


def table(
    frames: Mapping[str, Sequence[pd.DataFrame]], chosen: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """One row per set (its frames, one per seed, pooled) and score of `chosen` (see `choose`).

    Counts products, known and unknown (queries).  With _low and _high (95 %, bootstrap
    over products): auroc; oracle_false_accepts, at the threshold that the set itself
    would choose, which no shop knows; correct_accepts and false_accepts at the chosen
    one.  right: share of the accepted known queries with the right product.
    """
    rows = []
    for (name, seeds), (score, choice) in pairs(frames.items(), chosen.items()):
        pooled = pd.concat(seeds, ignore_index=True)
        rows.append({"set": name, "score": score} | _judged(pooled, score, choice=choice))
    return pd.DataFrame(rows)


def _judged(frame: pd.DataFrame, score: str, *, choice: Mapping[str, Any]) -> dict[str, float]:
    """A row of `table`, less set and score."""
    below, accepts, known = choice["below"], choice["accepts"], frame["known"]
    got = rates(frame, score, threshold=below)
    own = rates(frame, score, threshold=threshold(frame, score, accepts=accepts))
    accepted = frame.assign(top1=frame[score] >= below)
    auroc, oracle = intervals(frame, score, accepts=accepts)
    measured = {
        "auroc": (float(roc_auc_score(known, frame[score])), auroc),
        "oracle_false_accepts": (own["false_accepts"], oracle),
    }
    for name, part in (("correct_accepts", accepted[known]), ("false_accepts", accepted[~known])):
        measured[name] = got[name], metrics.bootstrap_products(part)
    row = {"products": frame["product"].nunique(), "known": got["known"], "unknown": got["unknown"]}
    for name, (value, (low, high)) in measured.items():
        row |= {name: value, f"{name}_low": low, f"{name}_high": high}
    right = got["right"] / got["accepted"] if got["accepted"] else math.nan
    return row | {"threshold": below, "right": right}


def intervals(
    frame: pd.DataFrame, score: str, *, accepts: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """95 % intervals of AUROC and of the false accepts at the `threshold` of a resample itself.

    Whole products are drawn with replacement, RESAMPLES times; (0, 1) where a side has
    a single one.
    """
    falling = frame.sort_values(score, ascending=False)
    known, scores = falling["known"].to_numpy(), falling[score].to_numpy()
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # of equal scores
    found = []
    for weight in _drawn(falling):
        correct = np.append(0, (weight * known).cumsum()[ends])
        false = np.append(0, (weight * ~known).cumsum()[ends])
        ahead = (false[1:] + false[:-1]) / 2  # ties count half
        won = (np.diff(correct) * (false[-1] - ahead)).sum()
        own = np.searchsorted(correct, accepts * correct[-1] - 1e-9)
        found.append((won / (correct[-1] * false[-1]), false[own] / false[-1]))
    if not found:
        return (0.0, 1.0), (0.0, 1.0)
    auroc, oracle = np.transpose(found)
    return metrics.percentiles(auroc), metrics.percentiles(oracle)


def _drawn(frame: pd.DataFrame) -> Iterator[np.ndarray]:
    """How often each row counts in a resample of products; no resample where a side has one.

    Products only known, only unknown, and (over several seeds) both are drawn among
    their kind: no side is ever empty.
    """
    roles = frame["known"].groupby(frame["product"]).agg(["any", "all"])
    if roles["any"].sum() < 2 or (~roles["all"]).sum() < 2:
        return
    times, rng = np.zeros((RESAMPLES, len(roles))), np.random.default_rng(0)
    for _, own in roles.groupby(["any", "all"]):
        chance = np.full(len(own), 1 / len(own))
        drawn = rng.multinomial(len(own), chance, size=RESAMPLES)
        times[:, roles.index.get_indexer(own.index)] = drawn
    products = roles.index.get_indexer(frame["product"])
    for row in times:
        yield row[products]


def _kept_out(chosen: Catalogue, asked: Catalogue, *, seed: int) -> tuple[set[str], pd.Series]:
    """A seeded half of the products shown and asked for, and which queries stay known."""
    shown = set(chosen["product"])
    products = sorted(shown & set(asked["product"]))
    if len(products) < FEWEST:
        raise ValueError(
            "open set: half of the products is kept out of the gallery, which wants at least "
            f"{FEWEST} products with a packshot and queries, got {len(products)}"
        )
    out = set(np.random.default_rng(seed).permutation(products)[: len(products) // 2].tolist())
    return out, asked["product"].isin(shown - out)


def _check(score: str, accepts: float) -> None:
    if score not in SCORES:
        raise ValueError(f"open set: score must be {' or '.join(SCORES)}, got {score!r}")
    if not 0 < accepts <= 1:
        raise ValueError(f"open set: accepts is a share above 0 and at most 1, got {accepts!r}")
