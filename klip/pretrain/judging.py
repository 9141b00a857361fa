"""The judges of pre-training: real photographs on which resolution and mixing are chosen."""

import itertools

import pandas as pd

from klip.data.catalogue import Catalogue
from klip.data.loading import load_catalogue
from klip.model import encoder
from klip.model.encoder import Encoder
from klip.recognise import evaluation
from klip.settings import paths
from klip.stats import metrics


def judges() -> dict[str, Catalogue]:
    """The real photographs on which resolution and mixing are chosen, as far as KLIP_DATA
    has them: GroZi-120 with at most 10 seeded crops of each product, and 500 of
    GroceryStore's *training* photographs."""
    found = {}
    if (paths.data_root() / "grozi-120").is_dir():
        found["grozi-120 web1"] = load_catalogue("grozi-120").few_queries(10)
    if (paths.data_root() / "grocery-store").is_dir():
        grocery = load_catalogue("grocery-store")
        train = grocery.split("train").frame
        asked = train.sample(min(500, len(train)), random_state=0).assign(split="query")
        both = pd.concat([grocery.split("gallery").frame, asked])
        found["grocery-store, training photographs"] = grocery.of(both)
    return found


def choices(before: Encoder, after: Encoder, *, sets: dict[str, Catalogue]) -> list[dict]:
    """Top-1 (a fraction) of each judge, one packshot, one view, at each resolution and
    share of the trained weights."""
    rows = []
    for share, side in itertools.product((0.0, 0.25, 0.5, 0.75, 1.0), (128, 160, 192, 224)):
        judge = encoder.interpolate(before, after, alpha=share)
        judge.preprocess = judge.preprocess.changed(size=side)
        for name, catalogue in sets.items():
            answers = evaluation.evaluate(judge, catalogue, views=1, precision="auto")
            row = {"set": name, "pixels": side, "wise": share}
            rows.append(row | {"top1": metrics.score(answers).top1})
    return rows
