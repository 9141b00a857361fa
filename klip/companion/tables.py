"""Frames as Markdown, numbers as JSON's own types."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

LONGEST = 60
"""Rows of a table that report.md and the .md file show; the .csv holds them all."""


def plain(value: Any) -> Any:
    """numpy, pandas and paths as JSON's own types; not-a-number as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "to_dict"):  # Series, DataFrame
        return plain(value.to_dict("records") if hasattr(value, "columns") else value.to_dict())
    if hasattr(value, "tolist"):  # arrays, numbers and tensors
        return plain(value.tolist())
    if isinstance(value, set | frozenset):
        value = sorted(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def markdown(frame: pd.DataFrame, rows: int = LONGEST) -> str:
    """A frame as a Markdown table: four digits, empty where nothing is known, some rows."""

    def cell(value: Any) -> str:
        value = plain(value)
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        return "" if value is None else text.replace("|", "\\|").replace("\n", " ")

    rule = ["--:" if dtype.kind in "iuf" else "---" for dtype in frame.dtypes]
    lines = [list(map(str, frame)), rule]
    for row in frame.head(rows).itertuples(index=False):
        lines.append([cell(value) for value in row])
    text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    left = len(frame) - rows
    return text + (f"\n{left} more rows are in the .csv file.\n" if left > 0 else "")
