"""Lines and points over a quantity.  Functions return a Figure and write nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from klip.companion import canvas, findings
from klip.companion.canvas import colour, counted, headline, look, panels, percent, stroke, styled
from klip.companion.names import told_apart
from klip.companion.thumbs import thumbnails

CURVES = {
    "alpha": ("alpha {}", "alpha (0 frozen, 1 fine-tuned)", "top-1"),
    "budget": ("{} images per product", "images per product", "top-1 on validation"),
    "depth": ("depth {}", "depth (images per product and epoch)", "top-1 on validation"),
    "products": ("{} products", "products trained on (a quarter at four times the depth)", "top-1"),
    "weight": ("weight {}", "weight of the votes (0: cosine alone)", "top-1"),
}
"""Column -> how its values are said, and the labels of both axes."""


@styled
def rank_frequency(counts: pd.Series, parts: pd.Series, *, exponent: float) -> Figure:
    """Images per product against rank, both logarithmic (paper §3).

    The line is rank to the power -exponent.
    """
    figure, (ax,) = panels(1, (7.0, 4.2))
    images, rank = counts.to_numpy(), np.arange(1, len(counts) + 1)
    part = parts.reindex(counts.index).to_numpy()
    looks = {
        "head": (canvas.BLUE, "D"),
        "middle": (canvas.GREEN, "s"),
        "tail": (canvas.ORANGE, "o"),
    }
    for name, (shade, marker) in looks.items():
        own = part == name
        label = f"{name}: {own.sum():,} products, {images[own].sum():,} images"
        ax.plot(rank[own], images[own], marker, color=shade, markersize=4, label=label)
    # In logarithms the line goes through the mean of the points.
    level = np.exp(np.mean(np.log(images) + exponent * np.log(rank)))
    fit = f"fit: rank$^{{-{exponent:.2f}}}$"
    ax.plot(rank, level * rank**-exponent, "--", color=canvas.GREY, label=fit)
    ax.set(xscale="log", yscale="log", xlabel="rank of the product", ylabel="images")
    ax.legend(loc="lower left")
    headline(figure, findings.head(images, part))
    return figure


@styled
def curve(
    table: pd.DataFrame,
    x: str,
    *,
    points: pd.DataFrame | None = None,
    n: Mapping[str, int] | None = None,
) -> Figure:
    """Top-1 of each set (columns set, mean, low, high) against column `x` of CURVES.

    With a column `chosen` (bool) what was chosen is ringed.  points: x and top1 of single
    runs.  n: queries of a set.  Up to four lines have their names at their ends.
    """
    words, *labels = CURVES[x]
    sets = table.groupby("set", sort=False)
    direct = len(sets) <= 4
    figure, (ax,) = panels(1, (7.6, 4.0) if direct else (7.6, 5.0))
    ends = []
    for number, (name, rows) in enumerate(sets):
        rows, label = rows.sort_values(x), counted(name, n)
        band = {"color": colour(number), "alpha": 0.15, "linewidth": 0}
        ax.fill_between(rows[x], rows["low"], rows["high"], **band)
        ax.plot(rows[x], rows["mean"], label=label, **(look(number) | stroke(number)))
        ends.append((label, rows[x].iloc[-1], rows["mean"].iloc[-1], colour(number)))
    _marks(ax, table, x, points=points)
    ax.set(xlabel=labels[0], ylabel=labels[1])
    _measured(ax, table, x)
    percent(ax.yaxis)
    if direct:
        canvas.at_ends(ax, ends)
    handles, names = ax.get_legend_handles_labels()
    left = slice(len(ends) if direct else 0, None)  # others stand at their lines
    if names[left]:
        below = {"loc": "outside lower center", "ncols": 2}
        figure.legend(handles[left], names[left], **below)
    headline(figure, findings.highest(table, x, words))
    return figure


def _measured(ax: Axes, table: pd.DataFrame, x: str) -> None:
    """A scale on which the places are about evenly apart, a tick where something was measured."""
    if x in ("budget", "depth"):  # each is twice the one before, or so
        ax.set_xscale("log", base=2)
    if x == "weight":  # the same, and zero
        ax.set_xscale("symlog", base=2, linthresh=0.1)
    places = sorted(set(table[x]))
    ax.set_xticks(places, [f"{place:g}" for place in places])


def _marks(ax: Axes, table: pd.DataFrame, x: str, *, points: pd.DataFrame | None) -> None:
    """Single runs as grey points, and a ring around what was chosen."""
    if points is not None:
        seed = {"color": canvas.GREY, "markersize": 3, "zorder": 1.5}
        ax.plot(points[x], points["top1"], "o", label="one seed", **seed)
    if "chosen" in table:
        taken, ring = table[table["chosen"]], {"markersize": 11, "markerfacecolor": "none"}
        ring["markeredgecolor"] = canvas.DARK
        ax.plot(taken[x], taken["mean"], "o", label="chosen", **ring)


@styled
def accept_curve(
    curves: Mapping[str, pd.DataFrame],
    chosen: Mapping[str, float],
    *,
    n: Mapping[str, int] | None = None,
) -> Figure:
    """Correct accepts (known products) against false ones (others), a line per label.

    curves: as `open_set.curve` makes them; chosen, for 95 % correct accepts: thresholds
    by label, marked on the lines; n: queries by label.
    """
    figure, (ax,) = panels(1, (8.6, 4.6))
    ax.plot([0, 1], [0, 1], color=canvas.GREY, linewidth=1, label="chance")
    ax.axhline(0.95, color=canvas.GREY, linestyle=":", linewidth=1, label="95 % correct accepts")
    # A mark must stand out where lines run close.
    point = {"markeredgecolor": "white", "markersize": 8, "zorder": 3}
    passing = []
    for number, (name, table) in enumerate(curves.items()):
        line = {"label": counted(name, n), **stroke(number)}
        ax.plot(table["false_accepts"], table["correct_accepts"], **line)
        last = table[table["threshold"] >= chosen[name]].tail(1)
        ax.plot(last["false_accepts"], last["correct_accepts"], **look(number), **point)
        passing += last["false_accepts"].tolist()
    ax.plot([], [], "o", color=canvas.DARK, label="at the chosen threshold", **point)
    ax.set(ylabel="correct accepts", xlabel="false accepts (products not in the gallery)")
    percent(ax.xaxis)
    percent(ax.yaxis)
    figure.legend(loc="outside right center", fontsize=10)
    headline(figure, findings.passing(passing))
    return figure


@styled
def history(runs: Mapping[str, pd.DataFrame]) -> Figure:
    """Training as it went, against images seen; one line a run.

    Panels: loss, learning rate per block (of the first run), validation accuracy.
    """
    figure, (loss, rates, validation) = panels(3, (10.6, 3.8))
    losses, accuracies, ends = [], [], []
    for number, (name, table) in enumerate(runs.items()):
        steps, judged = table.dropna(subset=["loss"]), table.dropna(subset=["val_top1"])
        smooth = steps["loss"].rolling(max(1, len(steps) // 20), min_periods=1).mean()
        loss.plot(steps["images"], smooth, label=name, **stroke(number))
        validation.plot(judged["images"], judged["val_top1"], **(look(number) | stroke(number)))
        losses.append(smooth.to_numpy())
        accuracies.append(judged["val_top1"].to_numpy())
        if len(judged):
            last = judged.iloc[-1]
            ends.append((str(name), last["images"], last["val_top1"], colour(number)))
    _rates(rates, next(iter(runs.values())))
    loss.set(title="Loss (running mean)", xlabel="images seen")
    validation.set(title="Validation top-1", xlabel="images seen")
    percent(validation.yaxis)
    if len(ends) == len(runs) <= 4:
        canvas.at_ends(validation, ends)
    else:
        loss.legend(loc="upper right")
    headline(figure, findings.training(losses, accuracies))
    return figure


def _rates(ax: Axes, table: pd.DataFrame) -> None:
    """The rate of each block of one run, the stem pale, the top dark."""
    blocks = [name for name in table if name.startswith("lr_") and name != "lr_centres"]
    for position, name in enumerate(blocks):
        shade = 0.25 + 0.75 * (position + 1) / len(blocks)
        above_zero = table[name].where(table[name] > 0)  # the axis is logarithmic
        ax.plot(table["images"], above_zero, color=canvas.BLUE, alpha=shade, linewidth=1.1)
    ax.set(title="Rate per block (dark: top)", xlabel="images seen", yscale="log")


@styled
def losses(runs: Mapping[str, pd.DataFrame]) -> Figure:
    """Pre-training as it went: one panel a run, a line for each of its losses."""
    figure, axes = panels(len(runs), (5.2 * len(runs), 3.6))
    drawn = []
    for ax, (name, table) in zip(axes, runs.items(), strict=True):
        parts = table.columns.intersection(["pair", "text", "caption", "teacher"], sort=False)
        ends = []
        for number, part in enumerate(parts):
            rows = table.dropna(subset=part)
            ax.plot(rows["images"], rows[part], label=part, **stroke(number))
            ends.append((part, rows["images"].iloc[-1], rows[part].iloc[-1], colour(number)))
            drawn.append(rows[part].to_numpy())
        ax.set(title=name, xlabel="images seen", ylabel="loss")
        canvas.at_ends(ax, ends)
    headline(figure, findings.falling(drawn))
    return figure


@styled
def umap_scatter(
    points: Mapping[str, np.ndarray],
    products: Sequence[str],
    *,
    shown: Sequence[str],
    files: Sequence[Path] | None = None,
) -> Figure:
    """Maps (N, 2) side by side, e.g. before and after; products has N names.

    Those in `shown` stand out (up to 12 differ in colour or marker).  With `files`, N
    paths, each of them has a thumbnail of its photograph in the middle.
    """
    figure, axes = panels(len(points), (2.4 + 4.2 * len(points), max(4.4, 0.6 + 0.37 * len(shown))))
    names = np.asarray(products)
    # Flavours of one line differ at the end: a long name loses its beginning.
    labels = [own if len(own) <= 46 else f"...{own[-43:]}" for own in told_apart(shown)]
    labels = [textwrap.fill(label, 25) for label in labels]
    for ax, (title, place) in zip(axes, points.items(), strict=True):
        others = place[~np.isin(names, list(shown))]
        ax.plot(*others.T, ".", color="#CFCFCF", markersize=3, zorder=1)
        owned = []
        for number, (product, label) in enumerate(zip(shown, labels, strict=True)):
            # The second six take another marker.
            marker = look(number + number // 6)["marker"]
            line = {"color": colour(number), "markersize": 5, "label": label}
            ax.plot(*place[names == product].T, marker, **line)
            owned.append((colour(number), marker, np.flatnonzero(names == product)))
        ax.set_title("\n".join(textwrap.wrap(title, 38)))
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(True)
        if files is not None:
            thumbnails(ax, place, files, owned=owned)
    handles, labels = axes[0].get_legend_handles_labels()
    size = f"n = {len(names):,} photographs\nof {len(set(products)):,} products"
    how = {"fontsize": 10, "title": size, "title_fontsize": 10, "alignment": "left"}
    figure.legend(handles, labels, loc="outside right center", **how)
    return figure
