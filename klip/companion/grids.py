"""Grids of pictures.  Each function returns a Figure and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from klip.companion.canvas import styled
from klip.data.catalogue import Catalogue
from klip.data.images import read


@styled
def sheet(rows: Mapping[str, Sequence[Path | np.ndarray]]) -> Figure:
    """A labelled row per entry of files or RGB uint8 (H, W, 3), whole, on white squares of 96
    pixels."""
    columns = max(map(len, rows.values()))
    size = (0.6 + 1.05 * columns, 0.25 + 1.08 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for line, (label, images) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(label)
        for ax, image in zip(line, images, strict=False):
            pixels = image if isinstance(image, np.ndarray) else read(image)
            ax.imshow(ImageOps.pad(Image.fromarray(pixels), (96, 96), color="white"))
    return figure


def mistakes(frame: pd.DataFrame, catalogue: Catalogue, *, most: int = 7) -> Figure:
    """The surest mistakes of an outcome frame, one of a product: query, the wrong neighbour,
    the right packshot."""
    wrong = frame[~frame["top1"]].sort_values("similarity", ascending=False)
    wrong = wrong.drop_duplicates("product").head(most)
    gallery, _ = catalogue.pick()
    right = gallery.frame.set_index("product")["image"][wrong["product"]]
    shown = {"query": wrong["image"], "wrong\nneighbour": wrong["packshot"]}
    shown["right\npackshot"] = right
    files = {label: [catalogue.root / name for name in names] for label, names in shown.items()}
    return sheet(files)
