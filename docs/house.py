"""Draws docs/house.svg: the rooms of klip and who imports whom, read from the imports.

Run: python docs/house.py
"""

import ast
import io
from pathlib import Path

import matplotlib
import networkx
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

PACKAGE = Path(__file__).resolve().parents[1] / "klip"
PICTURE = Path(__file__).with_name("house.svg")
PLACES = {
    "settings": (0.5, 0),
    "shop": (2, 0),
    "stats": (0, 1),
    "data": (1.5, 1),
    "companion": (0, 2),
    "model": (1.5, 2),
    "finetuning": (1.5, 3),
    "recognise": (1, 4),
    "scale": (2, 5),
    "pretrain": (1, 5),
    "cli": (0, 6),
}
"""Where a room stands: column, floor.  An arrow goes down, to what is imported."""


def arrows(package: Path = PACKAGE) -> set[tuple[str, str]]:
    """(room, imported room)."""
    found = set()
    for room in PLACES:
        for file in (package / room).glob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("klip."):
                    found.add((room, node.module.split(".")[1]))
    return {(room, other) for room, other in found if room != other}


def figure(package: Path = PACKAGE) -> Figure:
    """The rooms as boxes, an arrow for who imports whom unless a way through others tells it."""
    picture = Figure(figsize=(7.5, 6.3))
    axes = picture.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.5, 2.5), ylim=(-0.4, 6.4))
    axes.axis("off")
    needed = networkx.transitive_reduction(networkx.DiGraph(arrows(package)))
    arrow = {"arrowstyle": "->", "color": "0.5"}
    for room, other in sorted(needed.edges):
        (x0, y0), (x1, y1) = PLACES[room], PLACES[other]
        axes.annotate("", (x1, y1 + 0.2), (x0, y0 - 0.2), arrowprops=arrow)
    box = {"boxstyle": "round,pad=0.5", "facecolor": "#eef3f8", "edgecolor": "#4a6a8a"}
    middle = {"ha": "center", "va": "center", "fontsize": 11, "zorder": 3, "bbox": box}
    for room, (x, y) in PLACES.items():
        axes.text(x, y, room, **middle)
    return picture


def draw(package: Path = PACKAGE) -> str:
    """The picture as SVG, the same text for the same imports."""
    text = io.StringIO()
    style = {"svg.fonttype": "none", "svg.hashsalt": "klip", "font.family": "sans-serif"}
    nameless = {"Date": None, "Creator": None}
    with matplotlib.rc_context(style):
        FigureCanvasSVG(figure(package)).print_svg(text, metadata=nameless)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(draw())
