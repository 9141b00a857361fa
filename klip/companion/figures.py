"""Floor 4: the pictures of the notebooks, in one restrained style. Each returns a Figure and writes nothing.

Accuracies are fractions and become percent at the axis. Colours are Okabe and Ito's (safe for colour-blind readers);
markers repeat what colours say. Figures stay out of pyplot's global list, so nothing has to be closed.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from IPython import display
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageOps

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#9A9A9A"
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vP"
PART_COLOURS = {"head": BLUE, "middle": GREEN, "tail": ORANGE}
SPAN = ["mean", "low", "high"]
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "figure.dpi": 90,
    "figure.facecolor": "white",
}
_styled = style.context(["default", STYLE])  # whatever the reader's matplotlibrc says


def _needs(*columns: str) -> Callable[[Callable[..., Figure]], Callable[..., Figure]]:
    """Draws in klip's style what is not empty: a table with these columns, or a mapping to such tables or to others."""

    def decorate(draw: Callable[..., Figure]) -> Callable[..., Figure]:
        @functools.wraps(draw)
        def checked(given, /, *args, **options) -> Figure:
            if len(given) == 0:
                raise ValueError(
                    f"{draw.__name__}: nothing to draw, got an empty table; give at least one row"
                )
            for table in given.values() if isinstance(given, Mapping) else [given]:
                if missing := ", ".join(name for name in columns if name not in table):
                    raise ValueError(
                        f"{draw.__name__}: needs columns {', '.join(columns)}; missing {missing}"
                    )
            return _styled(draw)(given, *args, **options)

        return checked

    return decorate


def _canvas(rows: int = 1, columns: int = 1, size: tuple[float, float] = (6.4, 3.4), **options):
    """A Figure of so many inches and its axes (rows, columns)."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def _percent(axis, sign: str = " %") -> None:
    axis.set_major_formatter(lambda value, _: f"{100 * value:.4g}{sign}")


@_needs()
def rank_frequency(counts: pd.Series, parts: pd.Series, exponent: float) -> Figure:
    """Images per product against rank, both logarithmic (paper §3); the line is rank to the power -exponent."""
    figure, ((ax,),) = _canvas(size=(6.4, 3.6))
    images, rank, part = (
        counts.to_numpy(),
        np.arange(1, len(counts) + 1),
        parts.reindex(counts.index).to_numpy(),
    )
    for name, colour in PART_COLOURS.items():
        own = part == name
        ax.plot(
            rank[own],
            images[own],
            "o",
            color=colour,
            markersize=4,
            label=f"{name}: {own.sum():,} products, {images[own].sum():,} images",
        )
    level = np.exp(np.mean(np.log(images) + exponent * np.log(rank)))
    ax.plot(
        rank, level * rank**-exponent, "--", color=GREY, label=f"fit: rank$^{{-{exponent:.2f}}}$"
    )
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="rank of the product",
        ylabel="images",
        title="Images per product",
    )
    ax.legend(loc="lower left")
    return figure


@_styled
def sheet(rows: Mapping[str, Sequence[np.ndarray]]) -> Figure:
    """A grid of pictures: a labelled row of RGB uint8 (H, W, 3) per entry, whole, on white squares of 96 pixels."""
    columns = max(map(len, rows.values()), default=0)
    if columns == 0:
        raise ValueError(
            "sheet: nothing to draw, got no image; give at least one row with one image"
        )
    figure, axes = _canvas(len(rows), columns, size=(0.6 + 1.05 * columns, 0.25 + 1.08 * len(rows)))
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for line, (label, images) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(label)
        for ax, image in zip(line, images, strict=False):
            ax.imshow(ImageOps.pad(Image.fromarray(image), (96, 96), color="white"))
    return figure


def confusions(triples: Sequence[Sequence[np.ndarray]]) -> Figure:
    """Mistakes side by side, one column each: query, the wrong neighbour, the right packshot (RGB uint8)."""
    query, wrong, right = zip(*triples, strict=True) if triples else ((), (), ())
    return sheet({"query": query, "wrong\nneighbour": wrong, "right\npackshot": right})


def show(figure: Figure, images: bool = False) -> display.Image:
    """The figure as a picture to show in a notebook: PNG, or JPEG for a grid of `images`, which takes a tenth."""
    options = {"format": "jpeg", "pil_kwargs": {"quality": 80}} if images else {"format": "png"}
    figure.savefig(stream := io.BytesIO(), dpi=90, **options)
    return display.Image(data=stream.getvalue(), format=options["format"])


def _look(number: int) -> dict[str, str]:
    """Colour and marker of a line; after six they begin anew."""
    return {"color": COLOURS[number % 6], "marker": MARKERS[number % 6]}


def _curve(ax: Axes, table: pd.DataFrame, x: str, number: int, label: str) -> None:
    ax.fill_between(
        table[x], table["low"], table["high"], color=COLOURS[number % 6], alpha=0.15, linewidth=0
    )
    ax.plot(table[x], table["mean"], **_look(number), label=label)


@_needs("depth", *SPAN)
def depth_curve(table: pd.DataFrame, points: pd.DataFrame, chosen: int) -> Figure:
    """Validation accuracy against depth (paper §4.1.3); points: depth, top1 of each seed; chosen: the depth to mark."""
    figure, ((ax,),) = _canvas()
    _curve(ax, table, "depth", 0, "mean of the seeds, 95 % interval")
    ax.plot(
        points["depth"], points["top1"], "o", color=GREY, markersize=3, zorder=1.5, label="one seed"
    )
    ax.axvline(chosen, color=ORANGE, linestyle=":", label=f"chosen depth {chosen}")
    ax.set_xscale("log", base=2)
    ax.set_xticks(table["depth"], [str(depth) for depth in table["depth"]])
    ax.set(
        xlabel="depth (images per product and epoch)",
        ylabel="validation top-1",
        title="Depth sweep",
    )
    _percent(ax.yaxis)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _set_curves(table: pd.DataFrame, x: str, label: str, title: str) -> Figure:
    """Top-1 of each set against column `x`."""
    figure, ((ax,),) = _canvas()
    for number, (name, rows) in enumerate(table.groupby("set", sort=False)):
        _curve(ax, rows.sort_values(x), x, number, str(name))
    ax.set(xlabel=label, ylabel="top-1", title=title)
    _percent(ax.yaxis)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@_needs("set", "alpha", *SPAN)
def alpha_curve(table: pd.DataFrame) -> Figure:
    """Accuracy of each set between frozen (alpha 0) and fine-tuned weights (alpha 1)."""
    return _set_curves(
        table, "alpha", "alpha (0 frozen, 1 fine-tuned)", "Between frozen and fine-tuned weights"
    )


@_needs("set", "products", *SPAN)
def breadth_curve(table: pd.DataFrame) -> Figure:
    """Accuracy of each set against the number of products at a fixed number of images (C5)."""
    figure = _set_curves(
        table,
        "products",
        "products trained on (a quarter of them gets four times the depth)",
        "Breadth sweep",
    )
    figure.axes[0].set_xticks(sorted(set(table["products"])))
    return figure


@_needs("set", "weight", "top1", "low", "high")
def weight_curve(table: pd.DataFrame) -> Figure:
    """Top-1 of each set against the weight of the keypoints' votes."""
    lines = table.rename(columns={"top1": "mean"})
    return _set_curves(
        lines, "weight", "weight of the votes (0: cosine alone)", "Re-ranking by print"
    )


@_needs("row", "budget", "mean", "chosen")
def budget_curve(table: pd.DataFrame) -> Figure:
    """Held-out top-1 of the trained baselines (row) against images per product; chosen (bool) are ringed."""
    figure = _set_curves(
        table.assign(set=table["row"], low=table["mean"], high=table["mean"]),
        "budget",
        "images per product",
        "Budgets of the trained baselines, on validation products",
    )
    ax, taken, budgets = figure.axes[0], table[table["chosen"]], sorted(set(table["budget"]))
    for line in ax.lines[len(COLOURS) :]:  # colours begin anew
        line.set_linestyle("--")
    ax.plot(
        taken["budget"],
        taken["mean"],
        "o",
        markersize=11,
        markerfacecolor="none",
        markeredgecolor="#555555",
    )
    ax.set_xscale("log", base=2)
    ax.set_xticks(budgets, map(str, budgets))
    return figure


@_needs("set", "row", "top1", "low", "high")
def rows(table: pd.DataFrame, ours: str) -> Figure:
    """Every row of the results in the table's order, one panel per set, intervals as bars.

    The row `ours` stands out, a dotted line carries its value down the panel.
    """
    names, sets = list(dict.fromkeys(table["row"])), list(dict.fromkeys(table["set"]))
    figure, axes = _canvas(
        1, len(sets), (2.6 + 2.3 * len(sets), 0.9 + 0.24 * len(names)), sharey=True
    )
    for ax, name in zip(axes[0], sets, strict=True):
        for row in table[table["set"] == name].itertuples():
            place, (colour, marker) = (
                names.index(row.row),
                (ORANGE, "D") if row.row == ours else (BLUE, "o"),
            )
            ax.plot([row.low, row.high], [place] * 2, color=colour, linewidth=1.4)
            ax.plot(row.top1, place, marker, color=colour, markersize=4)
            if row.row == ours:
                ax.axvline(row.top1, color=ORANGE, linestyle=":", linewidth=1, zorder=0)
        ax.set(title=name, xlabel="top-1", xlim=(0, None))
        ax.grid(False, axis="y")
        _percent(ax.xaxis)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylim(len(names) - 0.4, -0.6)
    return figure


@_needs("threshold", "false_accepts", "correct_accepts")
def accept_curve(curves: Mapping[str, pd.DataFrame], chosen: Mapping[str, float]) -> Figure:
    """Correct against false accepts, products in the gallery against others: one line per label.

    curves: as `open_set.curve` makes them; chosen, for 95 % correct accepts: thresholds by label, marked on the lines.
    """
    figure, ((ax,),) = _canvas(size=(6.8, 4.2))
    ax.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1, label="chance")
    ax.axhline(0.95, color=GREY, linestyle=":", linewidth=1, label="95 % correct accepts")
    point = {
        "markeredgecolor": "white",
        "markersize": 7,
        "zorder": 3,
    }  # stands out where lines run close
    for number, (name, table) in enumerate(curves.items()):
        ax.plot(
            table["false_accepts"],
            table["correct_accepts"],
            color=COLOURS[number % 6],
            label=str(name),
            linestyle="-" if number < 6 else "--",
        )
        if name in chosen:
            last = table[table["threshold"] >= chosen[name]].tail(1)
            ax.plot(last["false_accepts"], last["correct_accepts"], **_look(number), **point)
    ax.set(
        xlabel="false accepts (products not in the gallery)",
        ylabel="correct accepts",
        title="Open set",
    )
    ax.plot([], [], "o", color="#555555", label="at the chosen threshold", **point)
    _percent(ax.xaxis)
    _percent(ax.yaxis)
    figure.legend(loc="outside right center", fontsize=8)
    return figure


@_needs("group", "lr")
def rate_bars(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Learning rate per block, one panel per tower (paper §4.1.2)."""
    widths = [len(table) + 8 for table in tables.values()]
    figure, axes = _canvas(
        1, len(tables), (1 + 0.16 * sum(widths), 3.2), sharey=True, width_ratios=widths
    )
    for ax, (name, table) in zip(axes[0], tables.items(), strict=True):
        ax.bar(range(len(table)), table["lr"], color=BLUE, width=0.75)
        ax.set_xticks(
            range(len(table)), table["group"].str.removeprefix("block "), rotation=90, fontsize=7
        )
        ax.grid(False, axis="x")
        ax.set(yscale="log", title=name)
    figure.supxlabel("block", fontsize=9)
    axes[0, 0].set_ylabel("learning rate")
    return figure


@_needs("images", "loss", "val_top1")
def history(runs: Mapping[str, pd.DataFrame]) -> Figure:
    """Training as it went: loss, learning rate per block, validation accuracy against images seen; one line a run."""
    figure, ((loss, rates, validation),) = _canvas(1, 3, size=(9.6, 3.0))
    for number, (name, table) in enumerate(runs.items()):
        steps, judged = table.dropna(subset=["loss"]), table.dropna(subset=["val_top1"])
        smooth = steps["loss"].rolling(max(1, len(steps) // 20), min_periods=1).mean()
        loss.plot(steps["images"], smooth, color=COLOURS[number % 6], label=name)
        validation.plot(judged["images"], judged["val_top1"], **_look(number))
    first = next(iter(runs.values()))
    blocks = [name for name in first if name.startswith("lr_") and name != "lr_centres"]
    for position, name in enumerate(blocks):  # the stem pale, the top dark
        shade = 0.25 + 0.75 * (position + 1) / len(blocks)
        rates.plot(
            first["images"],
            first[name].where(first[name] > 0),
            color=BLUE,
            alpha=shade,
            linewidth=1.1,
        )
    loss.set(title="Loss (running mean)", xlabel="images seen")
    rates.set(title="Rate per block (dark: top)", xlabel="images seen", yscale="log")
    validation.set(title="Validation top-1", xlabel="images seen")
    _percent(validation.yaxis)
    loss.legend(loc="upper right")
    return figure


def _reach(table: pd.DataFrame) -> np.ndarray:
    """Lengths of the whiskers to either side of the means, (2, N)."""
    return np.maximum([table["mean"] - table["low"], table["high"] - table["mean"]], 0)


@_needs()
def comparison(table: pd.DataFrame, title: str = "", zero: bool = True) -> Figure:
    """Values with intervals, one line per label, one colour per group.

    The first five columns are label, group, value, low and high, whatever their names; zero draws "no difference".
    With eight columns the first three numbers are levels, and a second panel shows the others as differences.
    """
    panels = [
        table.iloc[:, [0, 1, *range(start, start + 3)]].set_axis(["label", "group", *SPAN], axis=1)
        for start in range(2, min(table.shape[1], 8) - 2, 3)
    ]
    labels, groups = (
        list(dict.fromkeys(panels[0]["label"])),
        list(dict.fromkeys(panels[0]["group"])),
    )
    height = 1.0 + (0.2 * len(groups) + 0.15) * len(labels)
    figure, (axes,) = _canvas(1, len(panels), (3.6 + 3.2 * len(panels), height), sharey=True)
    for ax, panel, difference in zip(
        axes, panels, [zero] if len(panels) == 1 else [False, True], strict=True
    ):
        if difference:
            ax.axvline(0, color="#555555", linewidth=1)
        for number, group in enumerate(groups):
            own = panel[panel["group"] == group]
            shift = (number - (len(groups) - 1) / 2) * 0.7 / len(groups)
            ax.errorbar(
                own["mean"],
                [labels.index(label) + shift for label in own["label"]],
                xerr=_reach(own),
                label=str(group),
                linestyle="",
                capsize=2.5,
                linewidth=1.3,
                **_look(number),
            )
        ax.set_yticks(range(len(labels)), labels)
        ax.set(
            ylim=(len(labels) - 0.45, -0.55),
            xlabel="difference in points" if difference else "top-1",
        )
        ax.grid(False, axis="y")
        _percent(ax.xaxis, "" if difference else " %")
    axes[0].set_title(title)
    if len(groups) > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    return figure


@_needs("variant", "set", *SPAN)
def trade(table: pd.DataFrame, across: str) -> Figure:
    """What is gained on set `across` (x) against what is gained on each other set (y, a panel each).

    Fractions gained over the frozen encoder: below the line a variant loses.  Names stand in the order of the points.
    """
    others = [name for name in dict.fromkeys(table["set"]) if name != across]
    if across not in set(table["set"]) or not others:
        raise ValueError(
            f"trade: wants rows of {across!r} and of another set, got {', '.join(set(table['set']))}"
        )
    at = table[table["set"] == across].set_index("variant")
    figure, axes = _canvas(1, len(others), (4.6 * len(others), 3.2))
    for ax, name in zip(axes[0], others, strict=True):
        rows = table[table["set"] == name].sort_values("mean", kind="stable", ignore_index=True)
        for number, row in rows.iterrows():
            x, colour = at.loc[row["variant"], "mean"], ORANGE if row["high"] < 0 else BLUE
            ax.errorbar(x, row["mean"], _reach(rows[number : number + 1]), fmt="o", color=colour)
            ax.annotate(
                row["variant"],
                (x, row["mean"]),
                (1.04, (number + 0.5) / len(rows)),
                fontsize=7.5,
                va="center",
                textcoords="axes fraction",
                arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6},
            )
        ax.axhline(0, color="#555555", linewidth=1)
        ax.axvline(0, color="#555555", linewidth=1)
        ax.set(title=name, xlabel=f"points gained on {across}", ylabel="points gained")
        _percent(ax.xaxis, "")
        _percent(ax.yaxis, "")
    return figure


@_needs("part", "encoder", *SPAN)
def tail_accuracy(table: pd.DataFrame) -> Figure:
    """Accuracy of head, middle and tail products (part), for each encoder."""
    return comparison(
        table[["part", "encoder", *SPAN]], "Accuracy by part of the long tail", zero=False
    )


@_needs()
def umap_scatter(
    points: Mapping[str, np.ndarray], products: Sequence[str], shown: Sequence[str] = ()
) -> Figure:
    """Two-dimensional maps side by side, e.g. before and after; each array is (N, 2), products has N names.

    Those in `shown` (up to 12 differ in colour or marker) stand out.  A long name loses its beginning: flavours of one
    line differ at the end.
    """
    figure, axes = _canvas(1, len(points), (1.4 + 3.9 * len(points), 3.9))
    names = np.asarray(products)
    for ax, (title, place) in zip(axes[0], points.items(), strict=True):
        ax.plot(
            *place[~np.isin(names, list(shown))].T, ".", color="#CFCFCF", markersize=3, zorder=1
        )
        for number, product in enumerate(shown):
            marker, name = MARKERS[(number + number // 6) % 6], str(product)
            ax.plot(
                *place[names == product].T,
                marker,
                color=COLOURS[number % 6],
                markersize=4,
                label=name if len(name) <= 30 else f"...{name[-27:]}",
            )
        ax.set(title=title, xticks=[], yticks=[])
        ax.spines[:].set_visible(True)
    if len(shown):
        figure.legend(
            *axes[0, 0].get_legend_handles_labels(), loc="outside right center", fontsize=7
        )
    return figure


@_needs("images")
def losses(runs: Mapping[str, pd.DataFrame]) -> Figure:
    """Pre-training as it went: one panel a run, a line for each of its losses."""
    figure, axes = _canvas(1, len(runs), size=(4.8 * len(runs), 3.0))
    for ax, (name, table) in zip(axes[0], runs.items(), strict=True):
        for number, part in enumerate(
            table.columns.intersection(["pair", "text", "caption", "teacher"], sort=False)
        ):
            ax.plot(
                "images", part, data=table.dropna(subset=part), color=COLOURS[number], label=part
            )
        ax.set(title=name, xlabel="images seen", ylabel="loss")
        ax.legend()
    return figure
