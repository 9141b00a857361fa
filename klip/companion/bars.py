"""Values side by side, most with intervals.  Functions return a Figure, write nothing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from klip.companion import findings
from klip.companion.canvas import (
    BLUE,
    DARK,
    LEADER,
    ORANGE,
    SMALL,
    counted,
    headline,
    look,
    panels,
    percent,
    styled,
)


@styled
def rate_bars(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Learning rate (lr) per block (group), one panel per tower (paper §4.1.2)."""
    widths = [len(table) + 4 for table in tables.values()]
    size = (1 + 0.155 * sum(widths), 4.0)
    figure, axes = panels(len(tables), size, sharey=True, width_ratios=widths)
    for ax, (name, table) in zip(axes, tables.items(), strict=True):
        places, blocks = range(len(table)), table["group"].str.removeprefix("block ")
        ax.bar(places, table["lr"], color=BLUE, width=0.75)
        ax.set_xticks(places, blocks, rotation=90, fontsize=SMALL)
        ax.grid(False, axis="x")
        ax.set(yscale="log", title=name)
    figure.supxlabel("block", fontsize=11)
    axes[0].set_ylabel("learning rate")
    headline(figure, findings.slowest(tables))
    return figure


@styled
def rows(table: pd.DataFrame, ours: str) -> Figure:
    """Every row of the results, in the table's order, a panel per set.

    Columns set, row, top1, low, high, and queries if it is known.  The row `ours` stands
    out, a dotted line carries its value down the panel.
    """
    names, sets = list(table["row"].unique()), list(table["set"].unique())
    size = (3.4 + 2.4 * len(sets), 1.6 + 0.27 * len(names))
    figure, axes = panels(len(sets), size, sharey=True)
    counts = []
    for ax, name in zip(axes, sets, strict=True):
        own = table[table["set"] == name]
        for row in own.itertuples():
            place, colour, marker = names.index(row.row), BLUE, "o"
            if row.row == ours:
                colour, marker = ORANGE, "D"
                ax.axvline(row.top1, color=ORANGE, linestyle=":", linewidth=1, zorder=0)
            ax.plot([row.low, row.high], [place, place], color=colour, linewidth=1.4)
            ax.plot(row.top1, place, marker, color=colour, markersize=4)
        counts.append(findings.beaten(own, ours))
        n = {name: int(own["queries"].max())} if "queries" in own else None
        below = "ahead of {} of {} rows".format(*counts[-1])
        ax.set(title=f"{counted(name, n)}:\n{below}", xlabel="top-1", xlim=(0, None))
        _upright(ax, names)
    won, others = np.sum(counts, axis=0)
    headline(figure, f"{ours} has the higher top-1 in {won} of {others} comparisons")
    return figure


@styled
def comparison(
    table: pd.DataFrame, title: str = "", *, zero: bool = True, n: Mapping[str, int] | None = None
) -> Figure:
    """Values with intervals, one line per label, one colour per group.

    The first five columns are label, group, value, low and high, whatever their names;
    zero draws "no difference".  With eight columns the first three numbers are levels,
    and a second panel shows the others as differences.  n: queries of a label or group.
    """
    values, differences = [(2, 3, 4)], [zero]
    if table.shape[1] >= 8:
        values, differences = [(2, 3, 4), (5, 6, 7)], [False, True]
    labels, groups = table.iloc[:, 0].unique(), table.iloc[:, 1].unique()
    size = (4.8 + 2.9 * len(values), 1.6 + (0.2 * len(groups) + 0.18) * len(labels))
    figure, axes = panels(len(values), size, sharey=True)
    found = []
    for ax, numbers, difference in zip(axes, values, differences, strict=True):
        panel = table.iloc[:, [0, 1, *numbers]]
        panel = panel.set_axis(["label", "group", "mean", "low", "high"], axis=1)
        ax.set_xlabel("difference in points" if difference else "top-1")
        if difference:
            ax.axvline(0, color=DARK, linewidth=1)
        for number, group in enumerate(groups):
            own = panel[panel["group"] == group]
            # The groups of a label stand one below the other.
            shift = (number - (len(groups) - 1) / 2) * 0.7 / len(groups)
            places = [list(labels).index(label) + shift for label in own["label"]]
            line = {"linestyle": "", "capsize": 2.5, "linewidth": 1.3, **look(number)}
            ax.errorbar(own["mean"], places, xerr=_reach(own), label=counted(group, n), **line)
        _upright(ax, [counted(label, n) for label in labels], sign="" if difference else " %")
        found.append(findings.certain(panel) if difference else findings.ahead(panel))
    if len(groups) > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    headline(figure, ": ".join(filter(None, [title, found[-1]])))
    return figure


@styled
def trade(table: pd.DataFrame, across: str, *, n: Mapping[str, int] | None = None) -> Figure:
    """Gains on set `across` (x) against those on each other set, a panel each.

    Columns variant, set, mean, low, high: fractions gained over the frozen encoder;
    below the line a variant loses, a square: for certain.  Names stand in the order of
    the points.  n: queries of a set.
    """
    others = [name for name in table["set"].unique() if name != across]
    gains = table[table["set"] == across].set_index("variant")["mean"]
    figure, axes = panels(len(others), (6.4 * len(others), 3.8))
    how = {"fontsize": SMALL, "va": "center", "textcoords": "axes fraction", "arrowprops": LEADER}
    for ax, name in zip(axes, others, strict=True):
        rows = table[table["set"] == name].sort_values("mean", kind="stable", ignore_index=True)
        for number, row in rows.iterrows():
            point = (gains[row["variant"]], row["mean"])
            colour, marker = (ORANGE, "s") if row["high"] < 0 else (BLUE, "o")
            ax.errorbar(*point, _reach(rows[number : number + 1]), fmt=marker, color=colour)
            ax.annotate(row["variant"], point, (1.04, (number + 0.5) / len(rows)), **how)
        ax.axhline(0, color=DARK, linewidth=1)
        ax.axvline(0, color=DARK, linewidth=1)
        ax.set(title=counted(name, n), xlabel=f"points gained on {across}", ylabel="points gained")
        percent(ax.xaxis, "")
        percent(ax.yaxis, "")
    headline(figure, findings.traded(table, across))
    return figure


def _reach(table: pd.DataFrame) -> np.ndarray:
    """Lengths of the whiskers to either side of the means, (2, N)."""
    return np.maximum([table["mean"] - table["low"], table["high"] - table["mean"]], 0)


def _upright(ax: Axes, names: list[str], *, sign: str = " %") -> None:
    """Names along the y axis, the first on top; percent along the x axis."""
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.45, -0.55)
    ax.grid(False, axis="y")
    percent(ax.xaxis, sign)
