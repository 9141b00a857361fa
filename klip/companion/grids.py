"""Grids of pictures.  Each function returns a Figure and writes nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from klip.companion import findings, names
from klip.companion.canvas import SMALL, headline, styled
from klip.data.catalogue import Catalogue
from klip.data.images import read


@styled
def sheet(
    rows: Mapping[str, Sequence[Path | np.ndarray]],
    *,
    title: str = "",
    below: Mapping[str, Sequence[str]] | None = None,
    cell: tuple[float, float] = (1.05, 1.08),
) -> Figure:
    """A labelled row per entry of files or RGB uint8 (H, W, 3), whole, on white squares of 144
    pixels.

    title: over all.  below: words under each picture of a row.  cell: inches, words included.
    """
    columns = max(map(len, rows.values()))
    size = (0.8 + cell[0] * columns, (0.6 if title else 0.25) + cell[1] * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for line, (label, images) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(label)
        for ax, image in zip(line, images, strict=False):
            pixels = image if isinstance(image, np.ndarray) else read(image)
            ax.imshow(ImageOps.pad(Image.fromarray(pixels), (144, 144), color="white"))
        for ax, words in zip(line, (below or {}).get(label, ()), strict=False):
            ax.set_xlabel(words, fontsize=SMALL)
    if title:
        headline(figure, title)
    return figure


@styled
def mistakes(
    frame: pd.DataFrame, catalogue: Catalogue, *, most: int = 5, shown: str = "packshot"
) -> Figure:
    """The surest mistakes of an outcome frame, one of a product: query, the wrong neighbour,
    the right packshot; with their names, the cosine and the kind of error.

    shown: what a picture of the gallery is called.
    """
    wrong = frame[~frame["top1"]].sort_values("similarity", ascending=False)
    wrong = wrong.drop_duplicates("product").head(most)
    gallery, _ = catalogue.pick()
    right = gallery.frame.set_index("product")["image"][wrong["product"]]
    pictures = {"query": wrong["image"], "wrong\nneighbour": wrong["packshot"]}
    pictures[f"right\n{shown}"] = right
    files = {label: [catalogue.root / name for name in own] for label, own in pictures.items()}
    kinds = _kinds(wrong, catalogue)
    taken = zip(wrong["predicted"], wrong["similarity"], strict=True)
    told = [[], [f"{names.short(product)}\ncosine {cosine:.2f}" for product, cosine in taken]]
    told.append([names.short(product) for product in wrong["product"]])
    how = {"title": f"The surest mistakes: {findings.kinds(kinds)}", "cell": (1.35, 1.58)}
    figure = sheet(files, below=dict(zip(files, told, strict=True)), **how)
    for ax, kind in zip(figure.axes, kinds, strict=False):  # the first row
        ax.set_title(textwrap.fill(kind, 15), fontsize=10, loc="center")
    return figure


def _kinds(wrong: pd.DataFrame, catalogue: Catalogue) -> list[str]:
    """The kind of each mistake, by the groups of the catalogue where it has some."""
    groups = {}
    if "group" in catalogue.frame:
        groups = dict(zip(catalogue["product"], catalogue["group"], strict=True))
    pairs = zip(wrong["product"], wrong["predicted"], strict=True)
    return [names.mistake(right, taken, groups) for right, taken in pairs]
