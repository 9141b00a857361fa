"""What all figures share: one restrained style, colours, panels, and a check of what is drawn.

Accuracies are fractions and become percent at the axis.  Colours are Okabe and Ito's (safe for
colour-blind readers); markers repeat what colours say.  Figures stay out of pyplot's global
list, so nothing has to be closed.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping

from IPython import display
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
GREY, DARK = "#9A9A9A", "#555555"
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = "osD^vP"
SPAN = ["mean", "low", "high"]
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
styled = style.context(["default", STYLE])  # whatever the reader's matplotlibrc says


def draws(*columns: str) -> Callable[[Callable[..., Figure]], Callable[..., Figure]]:
    """Draws in klip's style, after a look at the first argument.

    It must not be empty, and be a table with these columns or a mapping to such tables.
    """

    def decorate(draw: Callable[..., Figure]) -> Callable[..., Figure]:
        @functools.wraps(draw)
        def checked(given, /, *args, **options) -> Figure:
            name = draw.__name__
            if len(given) == 0:
                raise ValueError(
                    f"{name}: nothing to draw, got an empty table; give at least one row"
                )
            for table in given.values() if isinstance(given, Mapping) else [given]:
                missing = [column for column in columns if column not in table]
                if missing:
                    wanted = ", ".join(columns)
                    raise ValueError(
                        f"{name}: needs columns {wanted}; missing {', '.join(missing)}"
                    )
            return styled(draw)(given, *args, **options)

        return checked

    return decorate


def panels(count: int = 1, size: tuple = (6.4, 3.4), **options) -> tuple[Figure, list[Axes]]:
    """A Figure of so many inches and its panels side by side."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False, **options)[0])


def percent(axis: Axis, sign: str = " %") -> None:
    axis.set_major_formatter(lambda value, _: f"{100 * value:.4g}{sign}")


def colour(number: int) -> str:
    """Colour of a line; after six they begin anew."""
    return COLOURS[number % len(COLOURS)]


def look(number: int) -> dict[str, str]:
    """Colour and marker of a line; after six they begin anew."""
    return {"color": colour(number), "marker": MARKERS[number % len(MARKERS)]}


def show(figure: Figure, images: bool = False) -> display.Image:
    """A figure as PNG, or as JPEG for a grid of `images`, which takes a tenth."""
    options = {"format": "jpeg", "pil_kwargs": {"quality": 80}} if images else {"format": "png"}
    stream = io.BytesIO()
    figure.savefig(stream, dpi=90, **options)
    return display.Image(data=stream.getvalue(), format=options["format"])
