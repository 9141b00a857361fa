"""The ideas of fine-tuning, drawn from their own numbers: balance, rates, margin, batch.

Small examples, so that every number can be computed by hand; text of 11 points and more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullFormatter

from klip.companion import canvas
from klip.companion.canvas import look, panels, styled


@styled
def balanced(sizes: pd.Series, depth: int) -> Figure:
    """Images per product, and what a depth makes of them (paper §4.1.3).

    Of each product the images kept (solid), those left out above the depth and the
    repeats that fill it up (hatched, otherwise each).
    """
    figure, (ax,) = panels(1, (7.6, 3.6))
    places, kept = np.arange(len(sizes)), sizes.clip(upper=depth)
    kinds = [
        ("kept", kept, 0, {"color": canvas.BLUE}),
        ("left out", sizes - kept, kept, {"hatch": "...", "edgecolor": canvas.GREY}),
        ("repeated, augmented", depth - kept, kept, {"hatch": "///", "edgecolor": canvas.ORANGE}),
    ]
    for label, heights, bottom, how in kinds:
        fill = {"facecolor": "white"} if "hatch" in how else {}
        ax.bar(places, heights, bottom=bottom, label=label, **fill, **how)
    ax.axhline(depth, color=canvas.DARK, linewidth=1)
    ax.text(len(sizes) - 0.5, depth + 0.2, f"depth {depth}", ha="right")
    ax.set_xticks(places, sizes.index)
    ax.grid(False, axis="x")
    ax.set(title=f"Every product is drawn {depth} times", ylabel="images")
    ax.legend(loc="upper right")
    return figure


@styled
def ladder(rates: Mapping[str, float], decay: float) -> Figure:
    """The rate of each block, the first on top, on a logarithmic axis (paper §4.1.2)."""
    figure, (ax,) = panels(1, (7.6, 0.9 + 0.42 * len(rates)))
    values = list(rates.values())
    ax.plot(values, range(len(rates)), "o--", color=canvas.BLUE, markersize=8)
    for place, value in enumerate(values):
        ax.text(value * 1.15, place, f"{value:.2e}", va="center")
    ax.set_yticks(range(len(rates)), list(rates))
    ax.set_ylim(len(rates) - 0.5, -0.5)
    ax.set(xscale="log", xlim=(min(values) / 2, max(values) * 3), xlabel="learning rate")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_title(f"One block down, {decay:g} times the rate: equal steps in logarithms")
    ax.grid(False, axis="y")
    return figure


@styled
def angular_margin(
    centres: Sequence[float], embedding: float, *, margin_deg: float, scale: float
) -> Figure:
    """ArcFace on the unit circle; angles in degrees, the first centre is the own one.

    Left: the angle theta to the own centre, widened by the margin.  Right: the logit
    of the own product by theta, without and with it.
    """
    figure, (ax, curve) = panels(2, (10.4, 4.4))
    theta = abs(embedding - centres[0])
    away = embedding + margin_deg * np.sign(embedding - centres[0])
    circle(ax)
    for number, angle in enumerate(centres):
        name = "own centre" if number == 0 else "another centre"
        ray(ax, angle, name, number=0 if number == 0 else 1)
    ray(ax, embedding, "embedding", number=2)
    ax.plot(*np.transpose([(0, 0), _at(away)]), ":", color=canvas.GREEN)  # as the loss has it
    arc(ax, (centres[0], embedding), 0.5, f"θ, {theta:.0f}°", color=canvas.DARK)
    arc(ax, (embedding, away), 0.6, f"margin m, {margin_deg:.1f}°", color=canvas.ORANGE)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=2)
    ax.set_title("The margin makes the angle wider")
    angles = np.linspace(0, 180 - margin_deg, 100)
    for number, extra in enumerate((0.0, margin_deg)):
        label = "s cos(θ + m)" if extra else "s cos θ"
        drawn = scale * np.cos(np.radians(angles + extra))
        curve.plot(angles, drawn, "--" if extra else "-", color=canvas.colour(number), label=label)
        point = scale * np.cos(np.radians(theta + extra))
        curve.plot([theta], [point], **look(number), markersize=8)
    curve.set(title="and the logit lower", xlabel="θ in degrees", ylabel="logit")
    curve.legend(loc="lower left")
    return figure


@styled
def batch(similarity: np.ndarray, names: Sequence[str]) -> Figure:
    """Cosines (B, B) of a batch's pictures (rows) and captions; what belongs is framed."""
    figure, (ax,) = panels(1, (6.4, 4.4))
    ax.imshow(similarity, cmap="Blues", vmin=-1, vmax=2.2)  # light enough for black text
    for (row, column), value in np.ndenumerate(similarity):
        ax.text(column, row, f"{value:.2f}", ha="center", va="center")
    for place in range(len(similarity)):
        corner, frame = (place - 0.48, place - 0.48), {"fill": False, "linewidth": 2.5}
        ax.add_patch(Rectangle(corner, 0.96, 0.96, edgecolor=canvas.ORANGE, **frame))
    ax.set_xticks(range(len(names)), [f"caption\n{name}" for name in names])
    ax.set_yticks(range(len(names)), [f"picture {name}" for name in names])
    ax.grid(False)
    ax.set_title("The framed must win their row and their column")
    return figure


def circle(ax: Axes) -> None:
    """The unit circle, axes of equal units and no ticks."""
    turn = np.linspace(0, 2 * np.pi, 181)
    ax.plot(np.cos(turn), np.sin(turn), color=canvas.GREY, linewidth=1)
    ax.set(aspect="equal", xticks=[], yticks=[], xlim=(-1.5, 1.5), ylim=(-1.25, 1.25))
    ax.spines[:].set_visible(False)


def ray(ax: Axes, degrees: float, name: str, *, number: int) -> None:
    """A unit vector with its name at the tip; colour and marker by number."""
    x, y = _at(degrees)
    ax.plot([0, x], [0, y], **look(number), markevery=[1], markersize=8)
    side = "left" if x > 0.2 else "right" if x < -0.2 else "center"
    ax.text(1.08 * x, 1.12 * y, name, ha=side, va="center")


def arc(ax: Axes, ends: tuple[float, float], radius: float, name: str, *, color: str) -> None:
    """An arc between two angles in degrees, named in the legend."""
    turn = np.linspace(*ends, 60)
    ax.plot(*(radius * _at(turn)), color=color, linewidth=4, solid_capstyle="butt", label=name)


def _at(degrees: float | np.ndarray) -> np.ndarray:
    """x and y on the unit circle, (2,) or (2, N)."""
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
