"""Lines and points over a quantity.  Functions return a Figure and write nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from klip.companion import canvas
from klip.companion.canvas import colour, look, panels, percent, styled

CURVES = {
    "alpha": ("Between frozen and fine-tuned weights", "alpha (0 frozen, 1 fine-tuned)"),
    "budget": ("Budgets of the trained baselines, on validation", "images per product"),
    "depth": ("Depth sweep, on validation", "depth (images per product and epoch)"),
    "products": (
        "Breadth sweep",
        "products trained on (a quarter of them gets four times the depth)",
    ),
    "weight": ("Re-ranking by print", "weight of the votes (0: cosine alone)"),
}
"""Column -> title of its curve, and label of its axis."""


@styled
def rank_frequency(counts: pd.Series, parts: pd.Series, *, exponent: float) -> Figure:
    """Images per product against rank, both logarithmic (paper §3).

    The line is rank to the power -exponent.
    """
    figure, (ax,) = panels(1, (6.4, 3.6))
    images, rank = counts.to_numpy(), np.arange(1, len(counts) + 1)
    part = parts.reindex(counts.index).to_numpy()
    shades = {"head": canvas.BLUE, "middle": canvas.GREEN, "tail": canvas.ORANGE}
    for name, shade in shades.items():
        own = part == name
        label = f"{name}: {own.sum():,} products, {images[own].sum():,} images"
        ax.plot(rank[own], images[own], "o", color=shade, markersize=4, label=label)
    # In logarithms the line goes through the mean of the points.
    level = np.exp(np.mean(np.log(images) + exponent * np.log(rank)))
    fit = f"fit: rank$^{{-{exponent:.2f}}}$"
    ax.plot(rank, level * rank**-exponent, "--", color=canvas.GREY, label=fit)
    ax.set(xscale="log", yscale="log", title="Images per product")
    ax.set(xlabel="rank of the product", ylabel="images")
    ax.legend(loc="lower left")
    return figure


@styled
def curve(table: pd.DataFrame, x: str, *, points: pd.DataFrame | None = None) -> Figure:
    """Top-1 of each set (columns set, mean, low, high) against column `x` of CURVES.

    With a column `chosen` (bool) what was chosen is ringed.  points: x and top1 of single
    runs.
    """
    figure, (ax,) = panels(1, (6.4, 3.4))
    sets = table.groupby("set", sort=False)
    for number, (name, rows) in enumerate(sets):
        rows = rows.sort_values(x)
        band = {"color": colour(number), "alpha": 0.15, "linewidth": 0}
        ax.fill_between(rows[x], rows["low"], rows["high"], **band)
        line = {"linestyle": canvas.dashed(number), **look(number)}
        ax.plot(rows[x], rows["mean"], label=str(name), **line)
    if points is not None:
        seed = {"color": canvas.GREY, "markersize": 3, "zorder": 1.5}
        ax.plot(points[x], points["top1"], "o", label="one seed", **seed)
    if "chosen" in table:
        taken, ring = table[table["chosen"]], {"markersize": 11, "markerfacecolor": "none"}
        ring["markeredgecolor"] = canvas.DARK
        ax.plot(taken[x], taken["mean"], "o", label="chosen", **ring)
    title, label = CURVES[x]
    ax.set(title=title, xlabel=label, ylabel="top-1")
    if x in ("budget", "depth"):  # each is twice the one before, or so
        ax.set_xscale("log", base=2)
    places = sorted(set(table[x]))  # a tick where something was measured
    ax.set_xticks(places, [f"{place:g}" for place in places])
    percent(ax.yaxis)
    figure.legend(loc="outside lower center", ncols=3 if len(sets) <= 3 else 2)
    return figure


@styled
def accept_curve(curves: Mapping[str, pd.DataFrame], chosen: Mapping[str, float]) -> Figure:
    """Correct accepts (known products) against false ones (others), a line per label.

    curves: as `open_set.curve` makes them; chosen, for 95 % correct accepts: thresholds
    by label, marked on the lines.
    """
    figure, (ax,) = panels(1, (6.8, 4.2))
    ax.plot([0, 1], [0, 1], "--", color=canvas.GREY, linewidth=1, label="chance")
    ax.axhline(0.95, color=canvas.GREY, linestyle=":", linewidth=1, label="95 % correct accepts")
    # A mark must stand out where lines run close.
    point = {"markeredgecolor": "white", "markersize": 7, "zorder": 3}
    for number, (name, table) in enumerate(curves.items()):
        line = {"color": colour(number), "linestyle": canvas.dashed(number)}
        ax.plot(table["false_accepts"], table["correct_accepts"], label=str(name), **line)
        last = table[table["threshold"] >= chosen[name]].tail(1)
        ax.plot(last["false_accepts"], last["correct_accepts"], **look(number), **point)
    ax.plot([], [], "o", color=canvas.DARK, label="at the chosen threshold", **point)
    ax.set(title="Open set", ylabel="correct accepts")
    ax.set_xlabel("false accepts (products not in the gallery)")
    percent(ax.xaxis)
    percent(ax.yaxis)
    figure.legend(loc="outside right center", fontsize=8)
    return figure


@styled
def history(runs: Mapping[str, pd.DataFrame]) -> Figure:
    """Training as it went, against images seen; one line a run.

    Panels: loss, learning rate per block (of the first run), validation accuracy.
    """
    figure, (loss, rates, validation) = panels(3, (9.6, 3.0))
    for number, (name, table) in enumerate(runs.items()):
        steps, judged = table.dropna(subset=["loss"]), table.dropna(subset=["val_top1"])
        smooth = steps["loss"].rolling(max(1, len(steps) // 20), min_periods=1).mean()
        loss.plot(steps["images"], smooth, color=colour(number), label=name)
        validation.plot(judged["images"], judged["val_top1"], **look(number))
    first = next(iter(runs.values()))
    blocks = [name for name in first if name.startswith("lr_") and name != "lr_centres"]
    for position, name in enumerate(blocks):  # the stem pale, the top dark
        shade = 0.25 + 0.75 * (position + 1) / len(blocks)
        above_zero = first[name].where(first[name] > 0)  # the axis is logarithmic
        rates.plot(first["images"], above_zero, color=canvas.BLUE, alpha=shade, linewidth=1.1)
    loss.set(title="Loss (running mean)", xlabel="images seen")
    rates.set(title="Rate per block (dark: top)", xlabel="images seen", yscale="log")
    validation.set(title="Validation top-1", xlabel="images seen")
    percent(validation.yaxis)
    loss.legend(loc="upper right")
    return figure


@styled
def losses(runs: Mapping[str, pd.DataFrame]) -> Figure:
    """Pre-training as it went: one panel a run, a line for each of its losses."""
    figure, axes = panels(len(runs), (4.8 * len(runs), 3.0))
    for ax, (name, table) in zip(axes, runs.items(), strict=True):
        parts = table.columns.intersection(["pair", "text", "caption", "teacher"], sort=False)
        for number, part in enumerate(parts):
            rows = table.dropna(subset=part)
            ax.plot(rows["images"], rows[part], color=colour(number), label=part)
        ax.set(title=name, xlabel="images seen", ylabel="loss")
        ax.legend()
    return figure


@styled
def umap_scatter(
    points: Mapping[str, np.ndarray], products: Sequence[str], *, shown: Sequence[str]
) -> Figure:
    """Maps (N, 2) side by side, e.g. before and after; products has N names.

    Those in `shown` stand out (up to 12 differ in colour or marker).  A long name loses
    its beginning: flavours of one line differ at the end.
    """
    figure, axes = panels(len(points), (1.4 + 3.9 * len(points), 3.9))
    names = np.asarray(products)
    for ax, (title, place) in zip(axes, points.items(), strict=True):
        others = place[~np.isin(names, list(shown))]
        ax.plot(*others.T, ".", color="#CFCFCF", markersize=3, zorder=1)
        for number, product in enumerate(shown):
            own, name = place[names == product], str(product)
            # The second six take another marker.
            marker = look(number + number // 6)["marker"]
            label = name if len(name) <= 30 else f"...{name[-27:]}"
            line = {"color": colour(number), "markersize": 4, "label": label}
            ax.plot(*own.T, marker, **line)
        ax.set(title=title, xticks=[], yticks=[])
        ax.spines[:].set_visible(True)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=7)
    return figure
