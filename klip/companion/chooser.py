"""Controls for a running notebook: choose a query, drop in a photograph.

A page without a kernel (the web, a test) shows a sentence in their place.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure

from klip.companion.canvas import encoded, width
from klip.companion.strips import Board

WITHOUT = "(a control: run the notebook to use it)"


class Panel(widgets.VBox):
    """A control, a line of text and a picture."""

    def __init__(self, control: widgets.Widget) -> None:
        self.control, self.told = control, widgets.Label()
        # Without a margin it is as wide as the page, and nothing scrolls sideways.
        whole = {"max_width": "100%", "margin": "0"}
        self.picture = widgets.Image(format="jpeg", layout=whole)
        super().__init__([control, self.told, self.picture])

    def show(self, draw: Callable[[Any], Figure], what: Any) -> None:
        """Draw anew; an image that cannot be read is told in the line of text."""
        try:
            figure = draw(what)
            self.picture.value, self.told.value = encoded(figure, "jpeg"), ""
            self.picture.layout.width = f"{width(figure)}px"
        except (ValueError, OSError) as error:
            self.told.value = str(error)

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        return super()._repr_mimebundle_(**options) | {"text/plain": WITHOUT}


def queries(board: Board, first: int = 0) -> Panel:
    """A list of the queries of a board, and the strip of the one that is chosen."""
    names = enumerate(board.asked["product"])
    options = [(f"{number}: {product}", number) for number, product in names]
    wide = {"width": "34em"}  # names are long
    control = widgets.Dropdown(options=options, value=first, description="query", layout=wide)
    panel = Panel(control)
    control.observe(lambda change: panel.show(board.strip, change["new"]), "value")
    panel.show(board.strip, first)
    return panel


def upload(draw: Callable[[Path], Figure]) -> Panel:
    """A button that takes a photograph; what `draw` makes of its file is shown.

    The file lies in a temporary folder and is deleted once drawn.
    """
    panel = Panel(widgets.FileUpload(accept="image/*", description="photograph"))

    def drawn(content: bytes) -> Figure:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "photograph")
            file.write_bytes(content)
            return draw(file)

    panel.control.observe(
        lambda change: [panel.show(drawn, bytes(one["content"])) for one in change["new"]], "value"
    )
    return panel
