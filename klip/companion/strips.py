"""Strips of pictures: a query, and the packshots that are nearest to it by each method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from klip.companion.canvas import DARK, GREEN, GREY, styled
from klip.companion.names import short
from klip.data.catalogue import Catalogue
from klip.data.images import read

RANKS = ("nearest", "second", "third", "fourth", "fifth")
WIDE, TOP, HIGH = 10.0, 0.7, 2.05
"""Inches of a strip, of its head and of a row: at 90 dots per inch its text can still be
read on 800 pixels."""
SIDE, ASKED, CAPTION, LEFT = 1.22, 1.7, 0.83, 2.55
"""Inches: sides of packshots and query, text below a packshot, where packshots begin."""
TITLE = {"fontsize": 13, "fontweight": "bold", "va": "top"}


@dataclass(frozen=True)
class Board:
    """Q queries and what several methods answered to them.

    answers: method -> the frame of `Gallery.classify(asked.files)`, five ranks or more.
    shown: what a picture of the gallery is called.
    """

    asked: Catalogue
    answers: Mapping[str, pd.DataFrame]
    shown: str = "packshot"

    def places(self) -> pd.DataFrame:
        """(Q, methods): the rank of the right product from 1; 0: not among the answers."""
        truth = self.asked["product"].to_numpy(object)[:, None]
        found = {}
        for method, frame in self.answers.items():
            right = frame["product"].to_numpy(object).reshape(len(self.asked), -1) == truth
            found[method] = (right.argmax(axis=1) + 1) * right.any(axis=1)
        return pd.DataFrame(found)

    def counts(self) -> pd.DataFrame:
        """method, queries, first and among_five: how often the right product is there."""
        places = self.places()
        rows = [(name, len(own), (own == 1).sum(), (own > 0).sum()) for name, own in places.items()]
        return pd.DataFrame(rows, columns=["method", "queries", "first", "among_five"])

    def first_gain(self, before: str, after: str) -> int:
        """The first query that one method has wrong and the other right; 0 if none is such."""
        places = self.places()
        return int(((places[before] != 1) & (places[after] == 1)).argmax())

    def strip(self, number: int) -> Figure:
        """The strip of a query, a row per method."""
        query = self.asked.frame.iloc[number]
        file = self.asked.files[number]
        rows = {name: frame[frame["query"] == str(file)] for name, frame in self.answers.items()}
        how = {"product": query["product"], "shown": self.shown}
        return strip(rows, file, root=self.asked.root, **how)


def first_gained(before: pd.DataFrame, after: pd.DataFrame) -> str:
    """The image of the first query that one outcome frame has wrong and the other right; of
    the first query if none is such.  Both answer the same queries in one order."""
    gained = ~before["top1"].to_numpy(bool) & after["top1"].to_numpy(bool)
    return str(before["image"].iloc[int(gained.argmax())])


def answers(
    frames: Mapping[str, pd.DataFrame], catalogue: Catalogue, image: str, *, shown: str = "packshot"
) -> Figure:
    """The strip of one query of outcome frames, method -> frame of `evaluate(keep=5)` or more.

    image: as the frames name it.  Of several answers to it, seeds, the first counts.
    """
    rows, product = {}, ""
    for method, frame in frames.items():
        own = frame[frame["image"] == image]
        if own.empty:
            raise ValueError(f"answers: no query {image!r} in the outcome frame of {method!r}")
        first, product = own.iloc[0], own["product"].iloc[0]
        columns = {"product": "products", "similarity": "cosines", "packshot": "packshots"}
        rows[method] = pd.DataFrame({name: first[kept] for name, kept in columns.items()})
    file = Path(catalogue.root, image)
    return strip(rows, file, root=catalogue.root, product=product, shown=shown)


@styled
def strip(
    rows: Mapping[str, pd.DataFrame],
    query: str | Path,
    *,
    root: Path = Path(),
    product: str = "",
    shown: str = "packshot",
) -> Figure:
    """The query, and beside it the first packshots of each method, with similarity and name.

    rows: method -> rows of `Gallery.classify` for this query.  root: the folder of
    packshots that have no absolute path.  product: the right one, which is framed and
    ticked; "": not known.  shown: what a picture of the gallery is called.
    """
    figure = Figure(figsize=(WIDE, TOP + HIGH * len(rows)))
    middle = (HIGH * len(rows) + CAPTION) / 2  # of the pictures, from below
    side = min(ASKED, HIGH * len(rows) - CAPTION + 0.2)
    asked = _picture(figure, query, at=(0.1, middle - side / 2), side=side)
    asked.set_title("query", fontsize=12, loc="center")
    asked.set_xlabel(short(product), fontsize=11)
    for line, (method, frame) in enumerate(rows.items()):
        below = HIGH * (len(rows) - line) - SIDE
        for place, row in enumerate(frame.head(len(RANKS)).itertuples()):
            at = (LEFT + (WIDE - LEFT) / len(RANKS) * place, below)
            ax = _picture(figure, Path(root, row.packshot), at=at, side=SIDE)
            _caption(ax, row, right=bool(product) and row.product == product)
            if line == 0:
                ax.set_title(RANKS[place], fontsize=12, fontweight="normal", loc="center")
            if place == 0:
                ax.set_ylabel(method.replace(" by ", "\nby "), fontsize=12, fontweight="bold")
    figure.text(0.01, 1 - 0.12 / figure.get_figheight(), _finding(rows, product, shown), **TITLE)
    return figure


def photograph(
    file: str | Path,
    classify: Callable[..., pd.DataFrame],
    *,
    root: Path = Path(),
    shown: str = "packshot",
) -> Figure:
    """The strip of a photograph of one's own; classify: of a `Gallery` whose packshots lie
    under `root`."""
    return strip({"": classify([str(file)])}, file, root=root, shown=shown)


def _finding(rows: Mapping[str, pd.DataFrame], product: str, shown: str) -> str:
    """What the strip shows, in words."""
    if not product:
        return f"The {shown}s nearest to the photograph"
    found = []
    for method, frame in rows.items():
        found.append(f"{method} {'yes' if frame['product'].iloc[0] == product else 'no'}")
    return f"Is the nearest {shown} the right one?  {',  '.join(found)}"


def _picture(figure: Figure, image: str | Path, *, at: tuple[float, float], side: float) -> Axes:
    """An image, whole, on a white square; `at`, its lower left corner, and side in inches."""
    wide, high = figure.get_size_inches()
    ax = figure.add_axes((at[0] / wide, at[1] / high, side / wide, side / high))
    ax.imshow(ImageOps.pad(Image.fromarray(read(image)), (180, 180), color="white"))
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(visible=True, color=GREY, linewidth=0.7)
    return ax


def _caption(ax: Axes, row: tuple, *, right: bool) -> None:
    """Similarity and product under a packshot; the right one has a frame and a tick."""
    text, colour = f"similarity {row.similarity:.2f}\n{short(row.product)}", DARK
    if right:
        text, colour = text.replace("similarity", "\N{CHECK MARK} right "), GREEN
        ax.spines[:].set(color=GREEN, linewidth=4)
    ax.set_xlabel(text, fontsize=11, color=colour)
