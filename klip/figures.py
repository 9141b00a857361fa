"""Floor 4: the pictures of the notebooks, in one restrained style. Each returns a Figure and writes nothing.

Accuracies are fractions and become percent at the axis. Colours are Okabe and Ito's (safe for colour-blind readers);
markers repeat what colours say. Figures stay out of pyplot's global list, so nothing has to be closed.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from IPython.display import Image
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#9A9A9A"
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vP"
PART_COLOURS = {"head": BLUE, "middle": GREEN, "tail": ORANGE}
SPAN = ["mean", "low", "high"]
STYLE = {
    "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#555555", "axes.grid": True,
    "axes.axisbelow": True, "grid.color": "#E4E4E4", "grid.linewidth": 0.7, "legend.frameon": False,
    "lines.linewidth": 1.6, "lines.markersize": 5, "figure.dpi": 90, "figure.facecolor": "white",
}  # fmt: skip


def _styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    @functools.wraps(draw)
    def inside(*args, **kwargs) -> Figure:
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()  # whatever the reader's matplotlibrc says
            matplotlib.rcParams.update(STYLE)
            return draw(*args, **kwargs)

    return inside


def _canvas(rows: int = 1, columns: int = 1, size: tuple[float, float] = (6.4, 3.4), **options):
    """A Figure of so many inches and its axes (rows, columns)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def _percent(axis, sign: str = " %") -> None:
    axis.set_major_formatter(lambda value, _: f"{100 * value:.4g}{sign}")


def _filled(what: str, table: pd.DataFrame | Mapping | Sequence, *columns: str) -> None:
    if len(table) == 0:
        raise ValueError(f"{what}: nothing to draw, got an empty table; give at least one row")
    if missing := [name for name in columns if name not in table]:
        raise ValueError(f"{what}: needs columns {', '.join(columns)}; missing {', '.join(missing)}")


@_styled
def rank_frequency(counts: pd.Series, parts: pd.Series, exponent: float | None = None) -> Figure:
    """Images per product against rank, both logarithmic (paper §3); the line is rank to the power -exponent."""
    _filled("rank_frequency", counts)
    figure, ((ax,),) = _canvas(size=(6.4, 3.6))
    images, rank, part = counts.to_numpy(), np.arange(1, len(counts) + 1), parts.reindex(counts.index).to_numpy()
    for name, colour in PART_COLOURS.items():
        own = part == name
        label = f"{name}: {own.sum():,} products, {images[own].sum():,} images"
        ax.plot(rank[own], images[own], "o", color=colour, markersize=4, label=label)
    if exponent is not None:
        level = np.exp(np.mean(np.log(images) + exponent * np.log(rank)))
        ax.plot(rank, level * rank**-exponent, "--", color=GREY, label=f"fit: rank$^{{-{exponent:.2f}}}$")
    ax.set(xscale="log", yscale="log", xlabel="rank of the product", ylabel="images", title="Images per product")
    ax.legend(loc="lower left")
    return figure


def _thumbnail(image: np.ndarray, side: int) -> np.ndarray:
    """RGB uint8 (H, W, 3) -> (side, side, 3), whole, on white."""
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.pad(Image.fromarray(image), (side, side), color="white"))


@_styled
def sheet(rows: Mapping[str, Sequence[np.ndarray]], titles: Sequence[str] = (), side: int = 96) -> Figure:
    """A grid of pictures: one labelled row of RGB uint8 images per entry, column titles above."""
    columns = max((len(images) for images in rows.values()), default=0)
    if columns == 0:
        raise ValueError("sheet: nothing to draw, got no image; give at least one row with one image")
    figure, axes = _canvas(len(rows), columns, size=(0.6 + 1.05 * columns, 0.25 + 1.08 * len(rows)))
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for line, (label, images) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(label)
        for ax, image in zip(line, images, strict=False):
            ax.imshow(_thumbnail(image, side))
    for ax, title in zip(axes[0], titles, strict=False):
        ax.set_title(title, fontsize=7.5, fontweight="normal", loc="center")
    return figure


def confusions(triples: Sequence[Sequence[np.ndarray]], titles: Sequence[str] = ()) -> Figure:
    """Mistakes side by side, one column each: query, the wrong neighbour, the right packshot (RGB uint8)."""
    query, wrong, right = zip(*triples, strict=True) if triples else ((), (), ())
    return sheet({"query": query, "wrong\nneighbour": wrong, "right\npackshot": right}, titles)


def show(figure: Figure, images: bool = False) -> Image:
    """The figure as a picture to show in a notebook: PNG, or JPEG for a grid of `images`, which takes a tenth."""
    from IPython.display import Image

    options = {"format": "jpeg", "pil_kwargs": {"quality": 80}} if images else {"format": "png"}
    figure.savefig(stream := io.BytesIO(), dpi=90, **options)
    return Image(data=stream.getvalue(), format=options["format"])


def _curve(ax: Axes, table: pd.DataFrame, x: str, number: int, label: str) -> None:
    ax.fill_between(table[x], table["low"], table["high"], color=COLOURS[number % 6], alpha=0.15, linewidth=0)
    ax.plot(table[x], table["mean"], marker=MARKERS[number % 6], color=COLOURS[number % 6], label=label)


@_styled
def depth_curve(table: pd.DataFrame, points: pd.DataFrame | None = None, chosen: int | None = None) -> Figure:
    """Validation accuracy against depth (paper §4.1.3).

    table: depth, mean, low, high; points: depth, top1 of each seed; chosen: the depth to mark.
    """
    _filled("depth_curve", table, "depth", *SPAN)
    figure, ((ax,),) = _canvas()
    _curve(ax, table, "depth", 0, "mean of the seeds, 95 % interval")
    if points is not None:
        ax.plot(points["depth"], points["top1"], "o", color=GREY, markersize=3, zorder=1.5, label="one seed")
    if chosen is not None:
        ax.axvline(chosen, color=ORANGE, linestyle=":", label=f"chosen depth {chosen}")
    ax.set_xscale("log", base=2)
    ax.set_xticks(table["depth"], [str(depth) for depth in table["depth"]])
    ax.set(xlabel="depth (images per product and epoch)", ylabel="validation top-1", title="Depth sweep")
    _percent(ax.yaxis)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@_styled
def _set_curves(table: pd.DataFrame, x: str, label: str, title: str) -> Figure:
    """Top-1 of each set against column `x`: columns set, x, mean, low, high."""
    figure, ((ax,),) = _canvas()
    for number, (name, rows) in enumerate(table.groupby("set", sort=False)):
        _curve(ax, rows.sort_values(x), x, number, str(name))
    ax.set(xlabel=label, ylabel="top-1", title=title)
    _percent(ax.yaxis)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def alpha_curve(table: pd.DataFrame) -> Figure:
    """Accuracy between frozen (alpha 0) and fine-tuned weights (alpha 1): columns set, alpha, mean, low, high."""
    _filled("alpha_curve", table, "set", "alpha", *SPAN)
    return _set_curves(table, "alpha", "alpha (0 frozen, 1 fine-tuned)", "Between frozen and fine-tuned weights")


def breadth_curve(table: pd.DataFrame) -> Figure:
    """Accuracy against the number of products at a fixed number of images (C5): set, products, mean, low, high."""
    _filled("breadth_curve", table, "set", "products", *SPAN)
    figure = _set_curves(table, "products", "products trained on (a quarter of them gets four times the depth)",
                         "Breadth sweep")
    figure.axes[0].set_xticks(sorted(set(table["products"])))
    return figure


def weight_curve(table: pd.DataFrame) -> Figure:
    """Top-1 of each set against the weight of the keypoints' votes: columns set, weight, top1, low, high."""
    _filled("weight_curve", table, "set", "weight", "top1", "low", "high")
    lines = table.rename(columns={"top1": "mean"})
    return _set_curves(lines, "weight", "weight of the votes (0: cosine alone)", "Re-ranking by print")


def budget_curve(table: pd.DataFrame) -> Figure:
    """Held-out top-1 of the trained baselines against images per product: row, budget, mean, chosen (bool, ringed)."""
    _filled("budget_curve", table, "row", "budget", "mean", "chosen")
    figure = _set_curves(table.assign(set=table["row"], low=table["mean"], high=table["mean"]), "budget",
                         "images per product", "Budgets of the trained baselines, on validation products")
    ax, taken = figure.axes[0], table[table["chosen"]]
    for line in ax.lines[len(COLOURS):]:  # colours begin anew
        line.set_linestyle("--")
    ax.plot(taken["budget"], taken["mean"], "o", markersize=11, markerfacecolor="none", markeredgecolor="#555555")
    ax.set_xscale("log", base=2)
    ax.set_xticks(sorted(set(table["budget"])), [str(budget) for budget in sorted(set(table["budget"]))])
    return figure


@_styled
def rows(table: pd.DataFrame, ours: str) -> Figure:
    """Every row of the results, one panel per set, intervals as bars: columns set, row, top1, low, high (fractions).

    The row `ours` stands out, a dotted line carries its value down the panel; rows keep the table's order.
    """
    _filled("rows", table, "set", "row", "top1", "low", "high")
    names, sets = list(dict.fromkeys(table["row"])), list(dict.fromkeys(table["set"]))
    figure, axes = _canvas(1, len(sets), (2.6 + 2.3 * len(sets), 0.9 + 0.24 * len(names)), sharey=True)
    for ax, name in zip(axes[0], sets, strict=True):
        for row in table[table["set"] == name].itertuples():
            mine = row.row == ours
            ax.plot([row.low, row.high], [names.index(row.row)] * 2, color=ORANGE if mine else BLUE, linewidth=1.4)
            ax.plot(row.top1, names.index(row.row), "D" if mine else "o", color=ORANGE if mine else BLUE, markersize=4)
            if mine:
                ax.axvline(row.top1, color=ORANGE, linestyle=":", linewidth=1, zorder=0)
        ax.set(title=name, xlabel="top-1", xlim=(0, None))
        ax.grid(False, axis="y")
        _percent(ax.xaxis)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylim(len(names) - 0.4, -0.6)
    return figure


@_styled
def accept_curve(curves: Mapping[str, pd.DataFrame], chosen: Mapping[str, float] | None = None,
                 accepts: float = 0.95) -> Figure:
    """Correct against false accepts, products in the gallery against others: one line per label.

    curves: columns threshold (falling), false_accepts, correct_accepts, as `openset.curve` makes them; chosen: a
    threshold for any of the labels, marked on its line; accepts: the share of correct accepts that is asked for.
    """
    _filled("accept_curve", curves)
    figure, ((ax,),) = _canvas(size=(6.8, 4.2))
    ax.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1, label="chance")
    ax.axhline(accepts, color=GREY, linestyle=":", linewidth=1, label=f"{100 * accepts:.4g} % correct accepts")
    point = {"markeredgecolor": "white", "markersize": 7, "zorder": 3}  # stands out where lines run close
    for number, (name, table) in enumerate(curves.items()):
        _filled("accept_curve", table, "threshold", "false_accepts", "correct_accepts")
        colour = COLOURS[number % 6]
        ax.plot(table["false_accepts"], table["correct_accepts"], color=colour, label=str(name),
                linestyle="-" if number < 6 else "--")
        taken = table[table["threshold"] >= (chosen or {}).get(name, np.inf)]
        if name in (chosen or {}) and len(taken):
            place = taken.iloc[-1:][["false_accepts", "correct_accepts"]].to_numpy().T
            ax.plot(*place, MARKERS[number % 6], color=colour, **point)
    ax.set(xlabel="false accepts (products not in the gallery)", ylabel="correct accepts", title="Open set")
    if chosen:
        ax.plot([], [], "o", color="#555555", label="at the chosen threshold", **point)
    for axis in (ax.xaxis, ax.yaxis):
        _percent(axis)
    figure.legend(loc="outside right center", fontsize=8)
    return figure


@_styled
def rate_bars(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Learning rate per block, one panel per tower (paper §4.1.2): each table has the columns group and lr."""
    _filled("rate_bars", tables)
    widths = [len(table) + 8 for table in tables.values()]
    figure, axes = _canvas(1, len(tables), (1 + 0.16 * sum(widths), 3.2), sharey=True, width_ratios=widths)
    for ax, (name, table) in zip(axes[0], tables.items(), strict=True):
        _filled("rate_bars", table, "group", "lr")
        ax.bar(range(len(table)), table["lr"], color=BLUE, width=0.75)
        labels = [group.removeprefix("block ") for group in table["group"]]
        ax.set_xticks(range(len(table)), labels, rotation=90, fontsize=7)
        ax.grid(False, axis="x")
        ax.set(yscale="log", title=name)
    figure.supxlabel("block", fontsize=9)
    axes[0, 0].set_ylabel("learning rate")
    return figure


@_styled
def history(runs: Mapping[str, pd.DataFrame]) -> Figure:
    """Training as it went: loss, learning rate per block, validation accuracy against images seen; one line a run."""
    _filled("history", runs)
    figure, ((loss, rates, validation),) = _canvas(1, 3, size=(9.6, 3.0))
    for number, (name, table) in enumerate(runs.items()):
        style = {"color": COLOURS[number % 6], "label": name}
        steps, judged = table.dropna(subset=["loss"]), table.dropna(subset=["val_top1"])
        smooth = steps["loss"].rolling(max(1, len(steps) // 20), min_periods=1).mean()
        loss.plot(steps["images"], smooth, **style)
        validation.plot(judged["images"], judged["val_top1"], marker=MARKERS[number % 6], **style)
    first = next(iter(runs.values()))
    blocks = [name for name in first if name.startswith("lr_") and name != "lr_centres"]
    for position, name in enumerate(blocks):  # the stem pale, the top dark
        shade = 0.25 + 0.75 * (position + 1) / len(blocks)
        rates.plot(first["images"], first[name].where(first[name] > 0), color=BLUE, alpha=shade, linewidth=1.1)
    loss.set(title="Loss (running mean)", xlabel="images seen")
    rates.set(title="Rate per block (dark: top)", xlabel="images seen", yscale="log")
    validation.set(title="Validation top-1", xlabel="images seen")
    _percent(validation.yaxis)
    loss.legend(loc="upper right")
    return figure


def _intervals(ax: Axes, table: pd.DataFrame, labels: list, groups: list, xlabel: str, zero: bool) -> None:
    """Rows (label, group, mean, low, high) as points with whiskers, from the top down; zero draws "no difference"."""
    if zero:
        ax.axvline(0, color="#555555", linewidth=1)
    for number, group in enumerate(groups):
        rows = table[table["group"] == group]
        place = [labels.index(label) + (number - (len(groups) - 1) / 2) * 0.7 / len(groups) for label in rows["label"]]
        reach = np.maximum([rows["mean"] - rows["low"], rows["high"] - rows["mean"]], 0)
        style = {"fmt": MARKERS[number % 6], "color": COLOURS[number % 6], "capsize": 2.5, "linewidth": 1.3}
        ax.errorbar(rows["mean"], place, xerr=reach, label=str(group), **style)
    ax.set_yticks(range(len(labels)), labels)
    ax.set(ylim=(len(labels) - 0.45, -0.55), xlabel=xlabel)
    ax.grid(False, axis="y")
    _percent(ax.xaxis, "" if zero else " %")


@_styled
def comparison(table: pd.DataFrame, title: str = "", zero: bool = True) -> Figure:
    """Values with intervals, one line per label, one colour per group.

    The first five columns are label, group, value, low and high, whatever their names; zero draws "no difference".
    With eight columns the first three numbers are levels, and a second panel shows the others as differences.
    """
    _filled("comparison", table)
    panels = [table.iloc[:, [0, 1, *range(start, start + 3)]].set_axis(["label", "group", *SPAN], axis=1)
              for start in range(2, min(table.shape[1], 8) - 2, 3)]
    labels, groups = list(dict.fromkeys(panels[0]["label"])), list(dict.fromkeys(panels[0]["group"]))
    height = 1.0 + (0.2 * len(groups) + 0.15) * len(labels)
    figure, (axes,) = _canvas(1, len(panels), (3.6 + 3.2 * len(panels), height), sharey=True)
    kinds = [zero] if len(panels) == 1 else [False, True]
    for ax, rows, difference in zip(axes, panels, kinds, strict=True):
        _intervals(ax, rows, labels, groups, "difference in points" if difference else "top-1", difference)
    axes[0].set_title(title)
    if len(groups) > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    return figure


@_styled
def trade(table: pd.DataFrame, across: str) -> Figure:
    """What is gained on set `across` (x) against what is gained on each other set (y, a panel each).

    Columns variant, set, mean, low, high (fractions gained over the frozen encoder).  Below the line a variant loses.
    Each point is named at the right edge of its panel, the names in the order of the points.
    """
    _filled("trade", table, "variant", "set", *SPAN)
    others = [name for name in dict.fromkeys(table["set"]) if name != across]
    if across not in set(table["set"]) or not others:
        raise ValueError(f"trade: wants rows of {across!r} and of another set, got {', '.join(set(table['set']))}")
    at = table[table["set"] == across].set_index("variant")
    figure, axes = _canvas(1, len(others), (4.6 * len(others), 3.2))
    for ax, name in zip(axes[0], others, strict=True):
        rows = table[table["set"] == name].sort_values("mean", kind="stable", ignore_index=True)
        for number, row in rows.iterrows():
            x, colour = at.loc[row["variant"], "mean"], ORANGE if row["high"] < 0 else BLUE
            reach = np.maximum([[row["mean"] - row["low"]], [row["high"] - row["mean"]]], 0)
            ax.errorbar(x, row["mean"], reach, fmt="o", color=colour)
            ax.annotate(row["variant"], (x, row["mean"]), (1.04, (number + 0.5) / len(rows)), fontsize=7.5, va="center",
                        textcoords="axes fraction", arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.6})
        ax.axhline(0, color="#555555", linewidth=1)
        ax.axvline(0, color="#555555", linewidth=1)
        ax.set(title=name, xlabel=f"points gained on {across}", ylabel="points gained")
        _percent(ax.xaxis, "")
        _percent(ax.yaxis, "")
    return figure


def tail_accuracy(table: pd.DataFrame) -> Figure:
    """Accuracy of head, middle and tail products: columns part, encoder, mean, low, high."""
    _filled("tail_accuracy", table, "part", "encoder", *SPAN)
    return comparison(table[["part", "encoder", *SPAN]], "Accuracy by part of the long tail", zero=False)


def _tail(name: str, length: int = 30) -> str:
    """A long name without its beginning: flavours of one line differ at the end."""
    return name if len(name) <= length else f"...{name[3 - length:]}"


@_styled
def umap_scatter(points: Mapping[str, np.ndarray], products: Sequence[str], shown: Sequence[str] = ()) -> Figure:
    """Two-dimensional maps side by side, e.g. before and after; each array is (N, 2), products has N names.

    The products in `shown` (up to 12 differ in colour or marker) stand out, the others are grey.
    """
    _filled("umap_scatter", points)
    figure, axes = _canvas(1, len(points), (1.4 + 3.9 * len(points), 3.9))
    names = np.asarray(products)
    for ax, (title, place) in zip(axes[0], points.items(), strict=True):
        ax.plot(*place[~np.isin(names, list(shown))].T, ".", color="#CFCFCF", markersize=3, zorder=1)
        for number, product in enumerate(shown):
            marker, colour = MARKERS[(number + number // 6) % 6], COLOURS[number % 6]
            ax.plot(*place[names == product].T, marker, color=colour, markersize=4, label=_tail(str(product)))
        ax.set(title=title, xticks=[], yticks=[])
        ax.spines[:].set_visible(True)
    if len(shown):
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
    return figure


@_styled
def losses(runs: Mapping[str, pd.DataFrame]) -> Figure:
    """Pre-training as it went: one panel a run, a line for each of its losses."""
    _filled("losses", runs)
    figure, axes = _canvas(1, len(runs), size=(4.8 * len(runs), 3.0))
    for ax, (name, table) in zip(axes[0], runs.items(), strict=True):
        for number, part in enumerate(table.columns.intersection(["pair", "text", "caption", "teacher"], sort=False)):
            ax.plot("images", part, data=table.dropna(subset=part), color=COLOURS[number], label=part)
        ax.set(title=name, xlabel="images seen", ylabel="loss")
        ax.legend()
    return figure
