"""The rows of Tables 1 and 2 on one set: who answers its queries, and the claims they decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import Any

import pandas as pd
from torch import Tensor

from klip.data.catalogue import Catalogue
from klip.finetuning import sweep
from klip.finetuning.finished import Run
from klip.model.encoder import Encoder
from klip.recognise import baselines, evaluation, keypoints, prompts, rerank
from klip.recognise.baselines import Recipe
from klip.recognise.rerank import Rerank, Votes
from klip.settings.config import Executor
from klip.stats import claims, metrics, published

FROZEN, PROMPTS = "frozen encoder", "text prompts"
RERANKED = f"{published.OURS}, re-ranked by print"
FROZEN_RERANKED = f"{FROZEN}, re-ranked by print"
FLOORS = {"SIFT": "sift", "BRISK": "brisk", "HSV histogram": "hsv"}
"""Row -> the method of `keypoints`."""
Backbone = Mapping[str, Encoder]


@dataclass
class Rows:
    """The rows of one set; each method fills one or some of them.

    frames: row -> outcome frames, one a seed.  runs: row -> the runs of a trained row.
    empty: row -> why it cannot be filled.
    """

    catalogue: Catalogue
    rule: str = "first"
    views: int = 8
    reading: dict[str, Any] = field(default_factory=dict)
    """precision, workers."""
    frames: dict[str, list[pd.DataFrame]] = field(default_factory=dict)
    runs: dict[str, list[Run]] = field(default_factory=dict)
    empty: dict[str, str] = field(default_factory=dict)
    bare: dict[str, str] = field(default_factory=dict)
    """Tower -> its row as it came (`baselines.bare`): trained rows have to be better."""

    @property
    def _asked(self) -> dict[str, Any]:
        return {"rule": self.rule, "views": self.views, **self.reading}

    @property
    def _workers(self) -> int:
        return max(1, self.reading.get("workers", 1))

    def nearest(self, row: str, encoders: Sequence[Encoder], *, keep: int = 0) -> None:
        """The nearest packshot by each encoder; without an encoder there is no row.

        keep: first products that frames keep, see `evaluation.outcome`.
        """
        for one in encoders:
            frame = evaluation.evaluate(one, self.catalogue, keep=keep, **self._asked)
            self.frames.setdefault(row, []).append(frame)

    def by_name(self, tower: Encoder, model: str, *, embeddings: Tensor) -> None:
        """The nearest product name; embeddings (Q, D) of the queries by `tower`."""
        reason = prompts.missing(self.catalogue)
        if reason:
            self.empty[PROMPTS] = reason
            return
        asked = {"catalogue": self.catalogue, "embeddings": embeddings}
        self.frames[PROMPTS] = [prompts.evaluate(tower, model, **asked)]

    def floors(self) -> None:
        """Recognition without learning."""
        how = {"rule": self.rule, "workers": self._workers}
        for row, method in FLOORS.items():
            self.frames[row] = [keypoints.evaluate(self.catalogue, method, **how)]

    def rerank(self, how: Rerank) -> Votes:
        """RetailKLIP and the frozen encoder re-ranked by print; their votes, RetailKLIP's first.

        Their frames must keep the first products (`evaluation.evaluate`).
        """
        own, frozen = self.frames[published.OURS], self.frames[FROZEN]
        where = {"root": self.catalogue.root, "workers": self._workers}
        voted = rerank.votes([*own, *frozen], [how.first], **where)
        ranked = rerank.reranked([*own, *frozen], voted, how=how)
        self.frames |= {RERANKED: ranked[: len(own)], FROZEN_RERANKED: ranked[len(own) :]}
        return voted

    def as_they_came(self, backbone: Backbone, bare: dict[str, str]) -> None:
        """The towers of trained rows, those that are no row yet; bare: `baselines.bare`."""
        self.bare = bare
        for tower, row in bare.items():
            if row not in self.frames:
                self.nearest(row, [backbone[tower]])

    def answer(self, row: str, runs: list[Run]) -> None:
        """The row of a classifier that was trained for this set, once a seed."""
        self.runs[row] = runs
        answers = [baselines.answer(run, self.catalogue, **self._asked) for run in runs]
        self.frames[row] = answers

    def under(self) -> list[str]:
        """Trained rows that ended under their frozen backbone."""
        return baselines.under_frozen(self.frames, self.bare)


def fit(
    sets: Mapping[str, Rows],
    backbone: Backbone,
    *,
    recipes: Sequence[Recipe],
    budget: Mapping[str, int],
    seeds: int,
    executor: Executor = "here",
    **training: Any,
) -> None:
    """Train rows on each set, a run per seed, and let them answer.

    budget: images per product of each row.  executor: cores trains side by side, a core
    for each run, so that seconds are those of one core.  training: fields of FinetuneConfig.
    """
    asked, jobs, sizes = [], [], []
    for recipe in recipes:
        for own in sets.values():
            reason = baselines.missing(recipe, own.catalogue)
            if reason:
                own.empty[recipe.row] = reason
                continue
            asked.append((recipe.row, own))
            how = {"catalogue": own.catalogue, "budget": budget[recipe.row], "rule": own.rule}
            train = partial(baselines.fit, recipe, backbone[recipe.tower], **how, **training)
            jobs += [partial(train, seed=seed) for seed in range(seeds)]
            sizes += [budget[recipe.row] * own.catalogue["product"].nunique()] * seeds
    # The longest first, lest one be left for a single core in the end.
    order = sorted(range(len(jobs)), key=lambda job: -sizes[job])
    made = sweep.side_by_side([jobs[job] for job in order], executor)
    runs = [run for _, run in sorted(zip(order, made, strict=True), key=itemgetter(0))]
    for place, (row, own) in enumerate(asked):
        own.answer(row, runs[place * seeds : (place + 1) * seeds])


def table(sets: Mapping[str, Rows], backbone: Backbone) -> pd.DataFrame:
    """A line per set and row as named by `baselines.label`, chance and empty rows among them:
    set, row, the columns of `metrics.row`, paper (percent), note."""
    filled, chance, empty = [], [], []
    # Each set has its rows in one order, that of the first set that has a row.
    order = dict.fromkeys(row for rows in sets.values() for row in rows.frames)
    for name, rows in sets.items():
        under = rows.under()
        for row in order:
            if row not in rows.frames:
                continue
            note = baselines.UNDER if row in under else ""
            found = metrics.row(rows.frames[row])
            told = {"set": name, "row": baselines.label(row, backbone), **found}
            filled.append(told | {"paper": published.of_row(name, row), "note": note})
        # All rows answer the same queries.
        chance.append({"set": name, "row": "chance", "top1": 1 / found["products"], "note": ""})
        for row, reason in rows.empty.items():
            label = baselines.label(row, backbone)
            empty.append({"set": name, "row": label, "note": f"empty: {reason}"})
    return pd.DataFrame([*filled, *chance, *empty])


def versus(sets: Mapping[str, Rows], backbone: Backbone) -> pd.DataFrame:
    """RetailKLIP minus every other row: set, the columns of `metrics.compare`, note."""
    found = []
    for name, rows in sets.items():
        pairs, under = metrics.compare(rows.frames, published.OURS), rows.under()
        notes = pairs["b"].isin(under).map({True: baselines.UNDER, False: ""})
        labels = [baselines.label(row, backbone) for row in pairs["b"]]
        found.append(pairs.assign(set=name, note=notes, b=labels))
    whole = pd.concat(found, ignore_index=True)
    return whole[["set", *whole.columns.drop("set")]]


def evidence(sets: Mapping[str, Rows], backbone: Backbone) -> list[dict[str, Any]]:
    """A row of `claims.evidence` for each test of a claim whose rows a set has."""
    found, under = [], {name: rows.under() for name, rows in sets.items()}
    tests = [(claim, test) for claim in published.CLAIMS for test in claim.tests]
    for claim, test in tests:
        for name, rows in sets.items():
            mirrored = published.PAPER_SET.get(name, name)
            if mirrored in claim.sets and {test.a, test.b} <= set(rows.frames):
                gap = metrics.paired_difference(rows.frames[test.a], rows.frames[test.b])
                place = baselines.place(name, test.b, backbone=backbone)
                told = {"place": place, "difference": gap, **_comparable(test.b, under[name])}
                found.append(claims.evidence(claim.id, test.name, **told))
    return found


def hardest(sets: Mapping[str, Rows], backbone: Backbone) -> dict[str, tuple[str, dict]]:
    """Claim C4 by set: RetailKLIP against the quarter of the categories in which the row of
    the whole training split is worst (RP2K and the set that mirrors it); in words, and as
    `claims.evidence`."""
    found = {}
    for name, rows in sets.items():
        known = rows.frames.get(baselines.WHOLE_SPLIT)
        if published.PAPER_SET.get(name, name) != "rp2k" or known is None:
            continue
        products = rows.catalogue.frame.drop_duplicates("product").set_index("product")
        category = products["group"].str.extract("([^/]+)")[0]
        own = pd.concat(known)
        by_category = own["top1"].groupby(own["product"].map(category)).mean()
        ordered = by_category.sort_values(kind="stable").index
        worst = ordered[: max(1, len(ordered) // 4)]
        hard = [frame[frame["product"].map(category).isin(worst)] for frame in known]
        gap = metrics.unpaired_difference(rows.frames[published.OURS], hard)
        place = baselines.place(name, baselines.WHOLE_SPLIT, backbone=backbone)
        told = {"place": place, "difference": gap}
        told |= _comparable(baselines.WHOLE_SPLIT, rows.under())
        test = f"{published.OURS} minus {published.HARDEST}"
        words = f"{', '.join(worst)}: {metrics.score(pd.concat(hard))}"
        found[name] = words, claims.evidence("C4", test, **told)
    return found


def _comparable(rival: str, under: list[str]) -> dict[str, str]:
    """A rival under its own frozen backbone is none."""
    if rival in under:
        return {"status": "not comparable", "why": baselines.UNDER}
    return {}
