"""Dots with their intervals as SVG text, for a page: sharp on a telephone, and its colours
follow the page, dark or light.

Each row has its words above its dot, so that long names fit 390 pixels.  Ours is a
diamond, a row that decides nothing is hollow.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

WIDTH, EDGE, ROW, HEAD = 360, 12, 36, 30
"""Units of the drawing; one is a pixel where the page is 390 wide."""
STEPS = (1, 2, 5, 10, 20, 25, 50)
"""Between two numbers of the axis, in percent or points."""


class Dot(NamedTuple):
    """A row: fractions with the ends of their interval; no ends, no line."""

    group: str
    label: str
    value: float
    low: float
    high: float
    ours: bool = False
    hollow: bool = False


def told(dot: Dot, sign: str = "") -> str:
    """The numbers of a row in percent, or with sign="+" in points."""
    number = f"{100 * dot.value:{sign}z.1f}"
    if not np.isfinite([dot.low, dot.high]).all():
        return number
    return f"{number} ({100 * dot.low:{sign}z.1f} to {100 * dot.high:{sign}z.1f})"


def svg(rows: Sequence[Dot], *, title: str, sign: str = "") -> str:
    """The drawing; its description says all that it shows.

    rows: at least one.  Rows that follow each other with one group stand under its name.
    sign: "+" for differences, around a line at zero.
    """
    ends = 100 * np.array([(row.value, row.low, row.high) for row in rows])
    first, last = min(0.0, np.nanmin(ends)), max(0.0, np.nanmax(ends))
    step = next((one for one in STEPS if (last - first) / one <= 5), 100)
    first, last = step * np.floor(first / step), step * np.ceil(last / step)
    scale = (WIDTH - 2 * EDGE) / max(last - first, step)

    def x(percent: float) -> float:
        return EDGE + scale * (percent - first)

    parts, y, group = [], 0, ""
    for row in rows:
        if row.group != group:
            group, y = row.group, y + HEAD
            parts.append(f'<text class="group" x="0" y="{y - 4}">{escape(group)}</text>')
        parts.append(_row(row, y, x=x, sign=sign))
        y += ROW
    axis = [
        f'<path class="{"zero" if tick == 0 else "rule"}" d="M{x(tick):.1f} 4V{y}"/>'
        f'<text class="tick" x="{x(tick):.1f}" y="{y + 15}">{tick:{sign if tick else ""}z.0f}</text>'
        for tick in np.arange(first, last + step / 2, step)
    ]
    drawing = "\n".join([*axis, *parts])
    said = "; ".join(f"{row.group} {row.label}: {told(row, sign)}".strip() for row in rows)
    return (
        f'<svg viewBox="0 0 {WIDTH} {y + 20}" role="img" aria-label="{escape(title)}">\n'
        f"<desc>{escape(said)}</desc>\n{drawing}\n</svg>"
    )


def _row(row: Dot, y: int, *, x, sign: str) -> str:
    """Words of a row, its interval and its mark, from height y on."""
    kind = "ours" if row.ours else "other"
    middle, line = x(100 * row.value), y + 25
    words = (
        f'<text class="label" x="0" y="{y + 14}">{escape(row.label)}</text>'
        f'<text class="value" x="{WIDTH}" y="{y + 14}">{100 * row.value:{sign}z.1f}</text>'
    )
    if np.isfinite([row.low, row.high]).all():
        ends = f"M{x(100 * row.low):.1f} {line}H{x(100 * row.high):.1f}"
        words += f'<path class="{kind}" d="{ends}"/>'
    shape = f"M{middle:.1f} {line - 6}l6 6l-6 6l-6-6z"
    if not row.ours:
        shape = f"M{middle - 4.5:.1f} {line}a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0z"
    return words + f'<path class="{kind} {"hollow" if row.hollow else "mark"}" d="{shape}"/>'
