"""What all figures share: one restrained style, colours, panels, their encoding.

Accuracies are fractions and become percent at the axis.  Colours are Okabe and Ito's
(safe for colour-blind readers); markers repeat what colours say.  Figures stay out of
pyplot's global list, so nothing has to be closed.
"""

from __future__ import annotations

import functools
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from IPython import display
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from PIL import Image

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
GREY, DARK = "#9A9A9A", "#555555"
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vP"
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)), (0, (3, 1)))
LEADER = {"arrowstyle": "-", "color": GREY, "linewidth": 0.6, "relpos": (0, 0.5)}
"""The thin line from a point to the left of its name."""
TEXT, SMALL = 11, 9.5
"""Points of text, and of the names that stand closely."""
SHOWN, STORED, STORED_JPEG = 90, 180, 135
"""Dots per inch: of a figure on the page, and of its file, for a screen of fine dots."""
JPEG = {"quality": 50, "optimize": True, "progressive": True}
STYLE = {
    "font.size": TEXT,
    "axes.titlesize": 12,
    "axes.labelsize": TEXT,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": DARK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "figure.titlesize": 13,
    "figure.titleweight": "bold",
    "figure.dpi": SHOWN,
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draws in klip's style; ValueError where the first argument, what is drawn, is empty."""

    @functools.wraps(draw)
    def drawn(given, /, *args, **options) -> Figure:
        if len(given) == 0:
            raise ValueError(f"{draw.__name__}: nothing to draw; give at least one row")
        with style.context(["default", STYLE]):  # whatever the reader's matplotlibrc says
            return draw(given, *args, **options)

    return drawn


def panels(count: int, size: tuple[float, float], **options) -> tuple[Figure, list[Axes]]:
    """A Figure of so many inches and its panels side by side; options of `subplots`."""
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False, **options)[0])
    for ax in axes:  # ticks are made later, with the size of that time
        ax.tick_params(labelsize=TEXT)
    return figure, axes


def headline(figure: Figure, text: str) -> None:
    """What a figure finds, over all of its panels, on as many lines as it takes."""
    wide = int(8.1 * figure.get_figwidth())  # letters of the size of titles in an inch
    lines = [textwrap.fill(line, wide) for line in text.splitlines()]
    figure.suptitle("\n".join(lines), x=0.01, ha="left")


def counted(name: str, n: Mapping[str, int] | None) -> str:
    """A name with the number of queries behind it, where n knows it."""
    if not n or name not in n:
        return str(name)
    return f"{name}, n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{n[name]:,}"


def at_ends(ax: Axes, ends: Sequence[tuple[str, float, float, str]]) -> None:
    """Names of lines to the right of their ends, as (name, x, y, colour), none on another.

    Limits and scales of the axes must be set.
    """
    names = ["\n".join(textwrap.wrap(name, 18)) for name, *_ in ends]
    line = 1.25 * TEXT / 72 / (0.7 * ax.figure.get_figheight())  # of an axis, about
    high = [line * (1 + name.count("\n")) for name in names]
    ax.get_xlim(), ax.get_ylim()  # else the limits are not yet those of the data
    to_axes = ax.transData + ax.transAxes.inverted()
    middles = _apart([to_axes.transform(end[1:3])[1] for end in ends], high)
    how = {"va": "center", "textcoords": "axes fraction", "arrowprops": LEADER}
    for name, (_, x, y, shade), middle in zip(names, ends, middles, strict=True):
        ax.annotate(name, (x, y), (1.04, middle), annotation_clip=False, color=shade, **how)


def _apart(middles: Sequence[float], high: Sequence[float]) -> list[float]:
    """Places of boxes so high, moved no further than it takes to be clear of each other,
    and below the top, 1, where there is room."""
    moved, order = list(middles), sorted(range(len(middles)), key=lambda box: middles[box])
    free = 0.0
    for box in order:
        moved[box] = max(moved[box], free + high[box] / 2)
        free = moved[box] + high[box] / 2
    top = 1.0
    for box in reversed(order):
        moved[box] = min(moved[box], top - high[box] / 2)
        top = moved[box] - high[box] / 2
    return moved


def percent(axis: Axis, sign: str = " %") -> None:
    """Write an axis's fractions as percent."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:.4g}{sign}")


def colour(number: int) -> str:
    """Colour of a line; after six they begin anew."""
    return COLOURS[number % 6]


def look(number: int) -> dict[str, str]:
    """Colour and marker of a line; after six they begin anew."""
    return {"color": colour(number), "marker": MARKERS[number % 6]}


def stroke(number: int) -> dict[str, Any]:
    """Colour and dashes of a line: no two of 36 have both in common."""
    return {"color": colour(number), "linestyle": DASHES[(number + number // 6) % 6]}


def encoded(figure: Figure, kind: str) -> bytes:
    """A figure as the bytes of a `png` of 180 dots per inch and 128 colours, or of a `jpeg`
    of 135; without a date."""
    stream = io.BytesIO()
    if kind == "jpeg":
        figure.savefig(stream, format=kind, dpi=STORED_JPEG, pil_kwargs=JPEG)
        return stream.getvalue()
    figure.savefig(stream, format="png", dpi=STORED)
    with Image.open(stream) as drawn:
        few = drawn.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    smaller = io.BytesIO()
    few.save(smaller, format="png", optimize=True)
    return smaller.getvalue()


def width(figure: Figure) -> int:
    """Pixels of a figure on the page; its file has more."""
    return round(SHOWN * figure.get_figwidth())


def show(figure: Figure, images: bool = False) -> display.Image:
    """A figure as PNG, or as JPEG for a grid of `images`, which takes a tenth."""
    kind = "jpeg" if images else "png"
    return display.Image(data=encoded(figure, kind), format=kind, width=width(figure))
