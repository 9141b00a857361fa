"""What all figures share: one restrained style, colours, panels, their encoding.

Accuracies are fractions and become percent at the axis.  Colours are Okabe and Ito's
(safe for colour-blind readers); markers repeat what colours say.  Figures stay out of
pyplot's global list, so nothing has to be closed.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable

from IPython import display
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
GREY, DARK = "#9A9A9A", "#555555"
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vP"
STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
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
    "figure.dpi": 90,
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
    return figure, list(figure.subplots(1, count, squeeze=False, **options)[0])


def percent(axis: Axis, sign: str = " %") -> None:
    """Write an axis's fractions as percent."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:.4g}{sign}")


def colour(number: int) -> str:
    """Colour of a line; after six they begin anew."""
    return COLOURS[number % 6]


def look(number: int) -> dict[str, str]:
    """Colour and marker of a line; after six they begin anew."""
    return {"color": colour(number), "marker": MARKERS[number % 6]}


def dashed(number: int) -> str:
    """Style of a line whose colour may have begun anew."""
    return "-" if number < len(COLOURS) else "--"


def encoded(figure: Figure, kind: str) -> bytes:
    """A figure as the bytes of a `png` or `jpeg` file, 90 dots per inch, without a date."""
    stream = io.BytesIO()
    options = {"metadata": {"Software": None}}  # else a new matplotlib changes every file
    if kind == "jpeg":
        options = {"pil_kwargs": {"quality": 80}}
    figure.savefig(stream, format=kind, dpi=90, **options)
    return stream.getvalue()


def show(figure: Figure, images: bool = False) -> display.Image:
    """A figure as PNG, or as JPEG for a grid of `images`, which takes a tenth."""
    kind = "jpeg" if images else "png"
    return display.Image(data=encoded(figure, kind), format=kind)
