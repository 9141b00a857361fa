"""The ideas of recognition, drawn from their own numbers: gallery, nearest row, threshold,
purity, and how sure a difference is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from klip.companion import canvas
from klip.companion.canvas import look, panels, percent, styled
from klip.companion.drawings import circle, ray

NUMBERS = 24
"""Columns of an embedding that are drawn: a strip to recognise it by."""


@styled
def pipeline(rows: np.ndarray, owners: Sequence[str], query: np.ndarray) -> Figure:
    """Packshot, views, gallery rows (G, D), query (D,), nearest row (paper §4.2).

    rows and query are of length 1.  The strips are the first numbers of the embeddings,
    the bars the cosines to the query.
    """
    figure, (flow, strips, bars) = panels(3, (11.6, 4.6), width_ratios=(1.15, 1.2, 1))
    products, views = list(dict.fromkeys(owners)), len(owners) // len(set(owners))
    cosines, nearest = rows @ query, int(np.argmax(rows @ query))
    _flow(flow, [f"{len(products)} packshots,\none of each product",
                 f"{views} views of each:\nplain, and augmented", "encoder",
                 f"{len(rows)} gallery rows\nof length 1", "product of the row\nnearest to the query"])  # fmt: skip
    shown = np.vstack([rows, np.full_like(query, np.nan), query])[:, :NUMBERS]
    reach = np.nanmax(np.abs(shown))
    strips.imshow(shown, cmap="RdBu", vmin=-reach, vmax=reach, aspect="auto")
    strips.set_yticks(
        [*((np.arange(len(products)) + 0.5) * views - 0.5), len(rows) + 1],
        [*(f"product {letter}" for letter in "ABCDEFGH"[: len(products)]), "query"],
    )
    strips.set(xticks=[], title="Gallery rows and a query")
    strips.grid(False)
    shades = [canvas.ORANGE if row == nearest else canvas.BLUE for row in range(len(rows))]
    hatches = ["//" if row == nearest else "" for row in range(len(rows))]
    bars.barh(range(len(rows)), cosines, color=shades, hatch=hatches)
    bars.text(0.02, len(rows) + 1, f"nearest: row {nearest + 1}", va="center")
    for ax in (strips, bars):
        ax.set_ylim(len(rows) + 2, -0.5)
    bars.set(yticks=[], xlabel="cosine", title="Cosine to the query")
    return figure


def _flow(ax: Axes, steps: list[str]) -> None:
    """Boxes from top to bottom with arrows between them."""
    box = {"boxstyle": "round", "facecolor": "white", "edgecolor": canvas.DARK}
    places = np.linspace(0.94, 0.06, len(steps))
    for number, (step, place) in enumerate(zip(steps, places, strict=True)):
        if number:
            arrow = {"arrowstyle": "->", "color": canvas.DARK}
            ends = {"xytext": (0.5, places[number - 1] - 0.07), "arrowprops": arrow}
            ax.annotate("", (0.5, place + 0.07), **ends)
        ax.text(0.5, place, step, ha="center", va="center", bbox=box)
    ax.set(xlim=(0, 1), ylim=(0, 1), title="From packshot to answer")
    ax.axis("off")


@styled
def nearest(rows: np.ndarray, owners: Sequence[str], query: np.ndarray) -> Figure:
    """Gallery rows (G, 2) and a query (2,) on the unit circle, the nearest tied to it."""
    figure, (ax,) = panels(1, (6.4, 4.4))
    circle(ax)
    products, cosines = list(dict.fromkeys(owners)), rows @ query
    for row, owner, cosine in zip(rows, owners, cosines, strict=True):
        degrees = np.degrees(np.arctan2(row[1], row[0]))
        ray(ax, degrees, f"{owner}, cos {cosine:.2f}", number=products.index(owner))
    ax.plot([0, query[0]], [0, query[1]], "--", color=canvas.DARK)
    ax.plot(*query, "*", color=canvas.DARK, markersize=14)
    best = int(np.argmax(cosines))
    ax.plot(*np.stack([query, rows[best]]).T, ":", color=canvas.DARK, linewidth=3)
    ax.text(*(0.62 * query), "query", ha="right")
    ax.set_title(f"The query takes the product of its nearest row: {owners[best]}")
    return figure


@styled
def threshold(scores: Sequence[float], known: Sequence[bool], below: float) -> Figure:
    """Scores of queries with a packshot (known) and without, and the line that parts them."""
    figure, (ax,) = panels(1, (7.6, 2.8))
    scores, known = np.asarray(scores), np.asarray(known, bool)
    for place, own in enumerate((known, ~known)):
        taken = own & (scores >= below)
        text = f"{taken.sum()} of {own.sum()} accepted"
        ax.plot(scores[own], np.full(own.sum(), place), linestyle="", **look(place), markersize=9)
        ax.text(1.02, place, text, transform=ax.get_yaxis_transform(), va="center")
    ax.axvline(below, color=canvas.DARK)
    ax.text(below, -0.62, f" threshold {below:g}", va="center")
    ax.set_yticks([0, 1], ["with a packshot", "without"])
    ax.set(ylim=(1.5, -0.85), xlabel="cosine of the nearest packshot")
    ax.set_title("Right of the line a query is accepted")
    return figure


@styled
def neighbours(places: np.ndarray, products: Sequence[str], k: int) -> Figure:
    """Embeddings (N, 2) of length 1, a line to each of the k nearest: dashed to another product."""
    figure, (ax,) = panels(1, (6.4, 4.4))
    circle(ax)
    cosines = places @ places.T
    np.fill_diagonal(cosines, -np.inf)
    for row, own in enumerate(cosines):
        for other in np.argsort(-own, kind="stable")[:k]:
            same = products[row] == products[other]
            line = {"color": canvas.BLUE if same else canvas.ORANGE, "linewidth": 2}
            tip = {"arrowstyle": "->", "linestyle": "-" if same else "--", **line}
            tip["connectionstyle"] = "arc3,rad=0.25"
            ax.annotate("", places[other], places[row], arrowprops=tip)
    names = list(dict.fromkeys(products))
    for place, product in zip(places, products, strict=True):
        ax.plot(*place, linestyle="", **look(names.index(product)), markersize=10)
        ax.text(*(1.15 * place), product, ha="center", va="center")
    ax.set_title("Solid: the neighbour shows the same product")
    return figure


@styled
def resampled(gains: pd.Series, means: np.ndarray, interval: tuple[float, float]) -> Figure:
    """A difference by product, and its means over resampled products with their interval."""
    figure, (ax, many) = panels(2, (10.4, 3.6))
    ax.axvline(0, color=canvas.DARK, linewidth=1)
    for place, gain in enumerate(gains):
        shade, mark = (canvas.BLUE, "o") if gain >= 0 else (canvas.ORANGE, "s")
        ax.plot([0, gain], [place, place], color=shade)
        ax.plot([gain], [place], mark, color=shade, markersize=8)
    ax.set_yticks(range(len(gains)), gains.index)
    ax.set(title="A difference per product", xlabel="top-1, a minus b")
    ax.set(xlim=(-1.15, 1.15), xticks=[-1, -0.5, 0, 0.5, 1])
    values, counts = np.unique(np.round(means, 9), return_counts=True)
    many.bar(values, counts / len(means), width=0.6 * np.diff(values).min(), color=canvas.GREY)
    for value in interval:
        many.axvline(value, color=canvas.ORANGE, linestyle="--", linewidth=2)
    many.axvline(0, color=canvas.DARK, linewidth=1)
    many.set(title="Products drawn anew: 95 % lie between", xlabel="mean difference")
    many.set_ylabel("share of the draws")
    for axis in (ax.xaxis, many.xaxis, many.yaxis):
        percent(axis)
    return figure
