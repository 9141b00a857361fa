"""Floor 4: the pictures of the notebooks, in one restrained style. Each returns a Figure and writes nothing.

Accuracies are fractions and become percent at the axis. Colours are Okabe and Ito's (safe for colour-blind readers);
markers repeat what colours say. Figures are made without pyplot's global list, so nothing has to be closed.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from IPython.display import Image
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY)
MARKERS = "osD^vP"
GREY = "#9A9A9A"
PART_COLOURS = {"head": BLUE, "middle": GREEN, "tail": ORANGE}
STYLE = {
    "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#555555", "axes.grid": True,
    "axes.axisbelow": True, "grid.color": "#E4E4E4", "grid.linewidth": 0.7, "legend.frameon": False,
    "lines.linewidth": 1.6, "lines.markersize": 5, "figure.dpi": 90, "figure.facecolor": "white",
}  # fmt: skip


def _styled(draw: Callable[..., "Figure"]) -> Callable[..., "Figure"]:
    @functools.wraps(draw)
    def inside(*args, **kwargs):
        import matplotlib.pyplot as plt  # its import also tells a notebook how to show a Figure

        with plt.rc_context({**plt.rcParamsDefault, **STYLE, "backend": plt.rcParams["backend"]}):
            return draw(*args, **kwargs)

    return inside


def _canvas(rows: int = 1, columns: int = 1, size: tuple[float, float] = (6.4, 3.4), **options):
    """A Figure and its axes (rows, columns); size in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def _percent(axis) -> None:
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))


def _filled(what: str, table: pd.DataFrame | Mapping | Sequence, *columns: str) -> None:
    if len(table) == 0:
        raise ValueError(f"{what}: nothing to draw, got an empty table; give at least one row")
    if missing := [name for name in columns if name not in table]:
        raise ValueError(f"{what}: needs columns {', '.join(columns)}; missing {', '.join(missing)}")


@_styled
def rank_frequency(counts: pd.Series, parts: pd.Series, exponent: float | None = None) -> "Figure":
    """Images per product against rank, both logarithmic (paper §3); the line is rank to the power -exponent."""
    _filled("rank_frequency", counts)
    figure, axes = _canvas(size=(6.4, 3.6))
    ax, rank = axes[0, 0], np.arange(1, len(counts) + 1)
    part = parts.reindex(counts.index).to_numpy()
    for name, colour in PART_COLOURS.items():
        chosen = part == name
        products, images = int(chosen.sum()), int(counts.to_numpy()[chosen].sum())
        label = f"{name}: {products:,} products, {images:,} images"
        ax.plot(rank[chosen], counts.to_numpy()[chosen], "o", color=colour, markersize=4, label=label)
    if exponent is not None:
        level = np.exp(np.mean(np.log(counts.to_numpy()) + exponent * np.log(rank)))
        ax.plot(rank, level * rank**-exponent, color=GREY, linestyle="--", label=f"fit: rank$^{{-{exponent:.2f}}}$")
    ax.set(xscale="log", yscale="log", xlabel="rank of the product", ylabel="images", title="Images per product")
    ax.legend(loc="lower left")
    return figure


def _thumbnail(image: np.ndarray, side: int) -> np.ndarray:
    """image (H, W, 3) uint8 inside a white square of `side` pixels, never enlarged beyond it."""
    from PIL import Image, ImageOps

    fitted = ImageOps.contain(Image.fromarray(image), (side, side))
    return np.asarray(ImageOps.pad(fitted, (side, side), color="white"))


@_styled
def sheet(rows: Mapping[str, Sequence[np.ndarray]], titles: Sequence[str] = (), side: int = 96) -> "Figure":
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


def confusions(triples: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], titles: Sequence[str] = ()) -> "Figure":
    """Mistakes side by side, one column each: query, the wrong neighbour, the right packshot (RGB uint8)."""
    query, wrong, right = zip(*triples, strict=True) if triples else ((), (), ())
    return sheet({"query": query, "wrong\nneighbour": wrong, "right\npackshot": right}, titles)


def jpeg(figure: "Figure", quality: int = 80) -> "Image":
    """The figure as a JPEG to show in a notebook: a grid of photographs takes a tenth of its PNG."""
    import io

    from IPython.display import Image

    stream = io.BytesIO()
    figure.savefig(stream, format="jpeg", pil_kwargs={"quality": quality})
    return Image(data=stream.getvalue(), format="jpeg")


def _curve(ax: "Axes", table: pd.DataFrame, x: str, colour: str, marker: str, label: str | None = None) -> None:
    ax.fill_between(table[x], table["low"], table["high"], color=colour, alpha=0.15, linewidth=0)
    ax.plot(table[x], table["mean"], marker=marker, color=colour, label=label)


@_styled
def depth_curve(table: pd.DataFrame, points: pd.DataFrame | None = None, chosen: int | None = None) -> "Figure":
    """Validation accuracy against depth (paper §4.1.3).

    table: depth, mean, low, high; points: depth, top1 of each seed; chosen: the depth to mark.
    """
    _filled("depth_curve", table, "depth", "mean", "low", "high")
    figure, axes = _canvas()
    ax = axes[0, 0]
    _curve(ax, table, "depth", BLUE, "o", "mean of the seeds, 95 % interval")
    if points is not None:
        ax.plot(points["depth"], points["top1"], "o", color=GREY, markersize=3, zorder=1.5, label="one seed")
    if chosen is not None:
        ax.axvline(chosen, color=ORANGE, linestyle=":", label=f"chosen depth {chosen}")
    ax.set_xscale("log", base=2)
    ax.set_xticks(table["depth"], [str(depth) for depth in table["depth"]])
    ax.minorticks_off()
    ax.set(xlabel="depth (images per product and epoch)", ylabel="validation top-1", title="Depth sweep")
    _percent(ax.yaxis)
    ax.legend()
    return figure


@_styled
def alpha_curve(table: pd.DataFrame) -> "Figure":
    """Accuracy from frozen (alpha 0) to fine-tuned weights (alpha 1): columns set, alpha, mean, low, high."""
    _filled("alpha_curve", table, "set", "alpha", "mean", "low", "high")
    figure, axes = _canvas()
    ax = axes[0, 0]
    for number, (name, rows) in enumerate(table.groupby("set", sort=False)):
        _curve(ax, rows, "alpha", COLOURS[number % 6], MARKERS[number % 6], str(name))
    ax.set(xlabel="alpha (0 frozen, 1 fine-tuned)", ylabel="top-1", title="Between frozen and fine-tuned weights")
    _percent(ax.yaxis)
    ax.legend()
    return figure


@_styled
def rate_bars(tables: Mapping[str, pd.DataFrame]) -> "Figure":
    """Learning rate per block, one panel per tower (paper §4.1.2): each table has the columns group and lr."""
    _filled("rate_bars", tables)
    figure, axes = _canvas(1, len(tables), (1.4 + 3.6 * len(tables), 3.4), sharey=True,
                           width_ratios=[len(table) + 8 for table in tables.values()])  # fmt: skip
    for ax, (name, table) in zip(axes[0], tables.items(), strict=True):
        _filled("rate_bars", table, "group", "lr")
        ax.bar(range(len(table)), table["lr"], color=BLUE, width=0.75)
        labels = [group.replace("resblocks.", "").replace("transformer.", "") for group in table["group"]]
        ax.set_xticks(range(len(table)), labels, rotation=90, fontsize=7)
        ax.grid(False, axis="x")
        ax.set(yscale="log", title=name)
    axes[0, 0].set_ylabel("learning rate")
    return figure


@_styled
def history(runs: Mapping[str, pd.DataFrame]) -> "Figure":
    """Training as it went: loss, learning rate per block, validation accuracy against images seen; one line a run."""
    _filled("history", runs)
    figure, axes = _canvas(1, 3, size=(9.6, 3.0))
    loss, rates, validation = axes[0]
    for number, (name, table) in enumerate(runs.items()):
        style = {"color": COLOURS[number % 6], "label": name}
        smooth = table["loss"].rolling(max(1, len(table) // 20), min_periods=1).mean()
        loss.plot(table["images"], smooth, **style)
        seen = table.dropna(subset=["val_top1"])
        validation.plot(seen["images"], seen["val_top1"], marker=MARKERS[number % 6], **style)
    first = next(iter(runs.values()))
    blocks = [name for name in first.columns if name.startswith("lr_") and first[name].max() > 0]
    for position, name in enumerate(blocks):  # stem pale, top block dark
        shade = 0.25 + 0.75 * (position + 1) / len(blocks)
        rates.plot(first["images"], first[name].where(first[name] > 0), color=BLUE, alpha=shade, linewidth=1.1)
    loss.set(title="Loss", xlabel="images seen", ylabel="mean of the last steps")
    rates.set(title="Rate per block (dark: top)", xlabel="images seen", yscale="log")
    validation.set(title="Validation top-1", xlabel="images seen")
    _percent(validation.yaxis)
    loss.legend()
    return figure


@_styled
def comparison(table: pd.DataFrame, title: str = "", zero: bool = True) -> "Figure":
    """Values with intervals, one line per label, one colour per group: columns label, group, mean, low, high.

    zero=True draws the line "no difference".
    """
    _filled("comparison", table, "label", "group", "mean", "low", "high")
    labels, groups = list(dict.fromkeys(table["label"])), list(dict.fromkeys(table["group"]))
    figure, axes = _canvas(size=(6.4, 1.1 + (0.22 * len(groups) + 0.15) * len(labels)))
    ax = axes[0, 0]
    if zero:
        ax.axvline(0, color="#555555", linewidth=1)
    for number, group in enumerate(groups):
        rows = table[table["group"] == group]
        place = [labels.index(label) + (number - (len(groups) - 1) / 2) * 0.7 / len(groups) for label in rows["label"]]
        reach = np.maximum([rows["mean"] - rows["low"], rows["high"] - rows["mean"]], 0)
        ax.errorbar(rows["mean"], place, xerr=reach, fmt=MARKERS[number % 6], color=COLOURS[number % 6],
                    capsize=2.5, linewidth=1.3, label=str(group))  # fmt: skip
    ax.set_yticks(range(len(labels)), labels)
    ax.set(ylim=(len(labels) - 0.45, -0.55), title=title, xlabel="difference in top-1" if zero else "top-1")
    ax.grid(False, axis="y")
    _percent(ax.xaxis)
    if len(groups) > 1:
        figure.legend(*ax.get_legend_handles_labels(), loc="outside right center")
    return figure


def tail_accuracy(table: pd.DataFrame) -> "Figure":
    """Accuracy of head, middle and tail products: columns part, encoder, mean, low, high."""
    _filled("tail_accuracy", table, "part", "encoder", "mean", "low", "high")
    named = table.rename(columns={"part": "label", "encoder": "group"})
    return comparison(named, "Accuracy by part of the long tail", zero=False)


@_styled
def umap_scatter(points: Mapping[str, np.ndarray], products: Sequence[str], shown: Sequence[str] = ()) -> "Figure":
    """Two-dimensional maps side by side, e.g. before and after; each array is (N, 2), products has N names.

    The products in `shown` (at most 12 keep distinct colour and marker) stand out, the others are grey.
    """
    _filled("umap_scatter", points)
    figure, axes = _canvas(1, len(points), (1.4 + 3.9 * len(points), 3.9))
    names = np.asarray(products)
    for ax, (title, place) in zip(axes[0], points.items(), strict=True):
        ax.plot(*place[~np.isin(names, list(shown))].T, ".", color="#CFCFCF", markersize=3, zorder=1)
        for number, product in enumerate(shown):
            marker = MARKERS[(number + number // 6) % 6]
            ax.plot(*place[names == product].T, marker, color=COLOURS[number % 6], markersize=4, label=product)
        ax.set(title=title, xticks=[], yticks=[])
        ax.spines[:].set_visible(True)
    if len(shown):
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
    return figure


@_styled
def losses(runs: Mapping[str, pd.DataFrame]) -> "Figure":
    """Pre-training as it went: one panel a run, one line for each of its losses (columns pair, text, teacher)."""
    _filled("losses", runs)
    figure, axes = _canvas(1, len(runs), size=(4.8 * len(runs), 3.0))
    for ax, (name, table) in zip(axes[0], runs.items(), strict=True):
        for number, part in enumerate(column for column in ("pair", "text", "teacher") if column in table):
            label = {"pair": "packshot - photograph", "text": "photograph - caption", "teacher": "distance to teacher"}
            ax.plot(table["images"], table[part], color=COLOURS[number], label=label[part])
        ax.set(title=name, xlabel="images seen", ylabel="loss")
        ax.legend()
    return figure
