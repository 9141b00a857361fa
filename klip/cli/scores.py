"""What `klip evaluate` finds, as plain data for its JSON file, and how it is told."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    import pandas as pd

    from klip.model.encoder import Encoder
    from klip.recognise.rerank import Rerank

SHARES = ("top1", "top1_per_product", "top5")


def figures_of(frame: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Counts, fractions and their 95 % intervals by bootstrap over products."""
    from klip.stats import metrics

    score = metrics.score(frame)
    figures: dict[str, Any] = {"queries": score.total, "products": score.products}
    figures["correct"] = score.correct
    for name in SHARES:
        figures[name] = getattr(score, name)
        figures[f"{name}_interval"] = list(metrics.bootstrap_products(frame, name, seed=seed))
    return figures


def reranked(
    encoder: Encoder, frame: pd.DataFrame, *, root: Path, how: Rerank, workers: int, seed: int
) -> dict[str, Any]:
    """Settings, figures, gain on cosine alone, and milliseconds per query (medians)."""
    from klip.recognise import rerank
    from klip.stats import metrics

    voted = rerank.votes([frame], [how.first], root=root, workers=max(1, workers))
    (found,) = rerank.reranked([frame], voted, how=how)
    gain, *interval = metrics.paired_difference(found, frame, seed=seed)
    told = {"method": "keypoints", **how.model_dump(), **figures_of(found, seed)}
    told |= {"difference": gain, "difference_interval": interval}
    took = {"keypoints": voted.keypoints_ms, "votes": voted.votes_ms}
    few = [root / image for image in frame["image"].head(20)]
    took["embedding"] = _embedding_ms(encoder, few)
    return told | {"milliseconds": took}


def _embedding_ms(encoder: Encoder, images: list[Path]) -> float:
    """Median of some images, each read and embedded by itself."""
    from klip.model import encoder as encoders
    from klip.model.device import at_work

    took = []
    with at_work(encoder):
        for image in images:
            began = time.perf_counter()
            encoders.embed(encoder, [image], precision="fp32")
            took.append(1000 * (time.perf_counter() - began))
    return statistics.median(took)


def tell(figures: dict[str, Any]) -> None:
    """The figures for people, with the options of `evaluate`, perhaps with `rerank`."""
    size = f"{figures['queries']} queries, {figures['products']} products"
    typer.echo(f"{figures['set']}: {size}, gallery {figures['gallery']}, model {figures['model']}")
    _tell_shares(figures)
    told = figures.get("rerank")
    if told:
        took = ", ".join(f"{name} {ms:.1f} ms" for name, ms in told["milliseconds"].items())
        how = f"weight {told['weight']:g}, first {told['first']}"
        typer.echo(f"re-ranked by keypoints ({how}); per query: {took}")
        _tell_shares(told)
        gain, low, high = _percent(told, "difference")
        typer.echo(f"  {'difference':<17}{gain:+6.1f}     [{low:+.1f}, {high:+.1f}]")


def _tell_shares(figures: dict[str, Any]) -> None:
    for name in SHARES:
        share, low, high = _percent(figures, name)
        typer.echo(f"  {name:<17}{share:6.1f} %   [{low:.1f}, {high:.1f}]")


def _percent(figures: dict[str, Any], name: str) -> list[float]:
    """A figure and the ends of its interval."""
    return [100 * value for value in (figures[name], *figures[f"{name}_interval"])]
