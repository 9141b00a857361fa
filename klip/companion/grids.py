"""Grids of pictures.  Each function returns a Figure and writes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageOps

from klip.companion.canvas import styled


@styled
def sheet(rows: Mapping[str, Sequence[np.ndarray]]) -> Figure:
    """A labelled row of RGB uint8 (H, W, 3) per entry, whole, on white squares of 96 pixels."""
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
            ax.imshow(ImageOps.pad(Image.fromarray(image), (96, 96), color="white"))
    return figure


@styled
def confusions(triples: Sequence[Sequence[np.ndarray]]) -> Figure:
    """Mistakes, one column each: query, the wrong neighbour, the right packshot (RGB uint8)."""
    query, wrong, right = zip(*triples, strict=True)
    return sheet({"query": query, "wrong\nneighbour": wrong, "right\npackshot": right})
