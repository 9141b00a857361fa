"""Figures of what work costs: klip beside its peers, and how the cost grows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from klip.companion import canvas
from klip.companion.canvas import at_ends, headline, look, panels, stroke, styled

SHADES = {"klip": canvas.ORANGE, "klip compute": canvas.GREY, "floor": canvas.GREY}
"""Of rows that are no peers."""


@styled
def standings(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Rates over the best peer's, a panel per work.

    tables: work -> rows of contenders with ratio, ratio_low and ratio_high (the least and
    the most of the rounds).  klip stands out; a line marks the best peer.
    """
    longest = max(len(table) for table in tables.values())
    figure, axes = panels(len(tables), (1 + 3.9 * len(tables), 1.4 + 0.34 * longest))
    ahead = 0
    for ax, (work, table) in zip(axes, tables.items(), strict=True):
        own = table.dropna(subset="ratio")
        places = np.arange(len(own))
        shades = [SHADES.get(name.split(":")[0], canvas.BLUE) for name in own.index]
        spread = [own["ratio"] - own["ratio_low"], own["ratio_high"] - own["ratio"]]
        ax.barh(places, own["ratio"], xerr=spread, color=shades, height=0.6, capsize=2.5)
        ax.axvline(1, color=canvas.DARK, linewidth=1, linestyle=":")
        ax.set_yticks(places, own.index)
        ax.invert_yaxis()
        ax.set(title=work, xlabel="rate over the best peer's", xlim=(0, None))
        ax.grid(axis="y", visible=False)
        ahead += bool(own["ratio"].get("klip", 0) >= 1)
    headline(figure, f"klip is level with its best peer or ahead in {ahead} of {len(tables)} works")
    return figure


@styled
def growth(table: pd.DataFrame, slopes: Mapping[str, float]) -> Figure:
    """How many times the seconds against how many times the work, both logarithmic; a line
    per work, named with its slope.  The dotted line costs in proportion.

    Columns work, size and seconds, of which medians are drawn.
    """
    figure, (ax,) = panels(1, (9.0, 4.8))
    ends, medians = [], table.groupby(["work", "size"], sort=False)["seconds"].median()
    for number, work in enumerate(table["work"].unique()):
        own = medians[work]
        times, longer = own.index / own.index[0], own / own.iloc[0]
        how = look(number) | stroke(number)
        ax.plot(times, longer, **how)
        ends.append((f"{work}: {slopes[work]:.2f}", times[-1], longer.iloc[-1], how["color"]))
    most = max(end[1] for end in ends)
    ax.plot([1, most], [1, most], ":", color=canvas.DARK, linewidth=1)
    ax.set(xscale="log", yscale="log", xlabel="times as much work", ylabel="times as long")
    at_ends(ax, ends)
    steepest = max(slopes, key=lambda work: slopes[work])
    headline(figure, f"Nothing grows faster than {steepest}: slope {slopes[steepest]:.2f}")
    return figure
