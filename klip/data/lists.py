"""List files as tables of text, and the sentence on the first row that is wrong.

Tables are checked column by column: a million rows take seconds.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from klip.data.sources import SOURCES


@dataclass(frozen=True, eq=False)
class ListFile:
    """A list of a set.  root: the folder of its images; table: text, nothing missing."""

    name: str
    path: Path
    root: Path
    table: pd.DataFrame

    def refuse(self, problems: Mapping[str, pd.Series | np.ndarray]) -> None:
        """ValueError on the first row that is wrong.  problems: the end of a sentence (see
        `complaint`) and for which rows (N,) it is true."""
        wrong = np.column_stack(list(problems.values()))  # (N, problems)
        if wrong.any():
            row = int(wrong.any(axis=1).argmax())
            raise self.complaint(row, list(problems)[int(wrong[row].argmax())])

    def complaint(self, row: int, problem: str) -> ValueError:
        """The error on a row; in `problem` stand {root} and its columns, as in {image!r}."""
        said = problem.format_map({**self.table.iloc[row], "root": self.root})
        return ValueError(f"{self.name}: row {row + 1} of {self.path} {said}")


def read(
    name: str,
    path: Path,
    *,
    needs: Sequence[str],
    may: str = "",
    root: Path,
    aliases: Mapping[str, str] | None = None,
    **how: Any,
) -> ListFile:
    """A CSV (UTF-8; of comma, semicolon or tab what its first line has) or Parquet file with
    the columns `needs`; `may` is "" where it is not.

    aliases: column -> other words for it, any of which is taken where it is alone.
    how: more options of `pandas.read_csv`.
    FileNotFoundError: there is none.  ValueError: another kind of file, too long a row, a
    column that is missing, no row.
    """
    wanted = "columns " + ", ".join(needs) + (f"[, {may}]" if may else "")
    if not path.is_file():
        hint = SOURCES[name].place if name in SOURCES else f"it has {wanted}"
        raise FileNotFoundError(f"{name}: {path} is missing; {hint}")
    table = _text(name, path, **how)
    for column, others in (aliases or {}).items():
        called = [own for own in table.columns if own.lower() in {column, *others.split()}]
        if column not in table and len(called) == 1:
            table = table.rename(columns={called[0]: column})
    if not set(needs) <= set(table.columns) or table.empty:
        raise ValueError(
            f"{name}: {path} wants {wanted} and at least one row, got columns "
            f"{', '.join(table.columns)} and {len(table)} rows"
        )
    if may and may not in table:
        table[may] = ""
    return ListFile(name, path, root, table)


def _separator(path: Path) -> dict[str, str]:
    """That of the first line, if it is no comma."""
    with path.open(encoding="utf-8-sig") as file:
        line = file.readline()
    found = [sign for sign in ";\t" if sign in line and "," not in line]
    return {"sep": found[0]} if len(found) == 1 else {}


def _text(name: str, path: Path, **how: Any) -> pd.DataFrame:
    """The table, its columns and their names stripped."""
    how |= dict(dtype=str, keep_default_na=False, skipinitialspace=True, encoding="utf-8-sig")
    packed = path.suffix.lower() == ".parquet"
    try:
        # The parser warns of rows that are too long.
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            if packed:
                table = pd.read_parquet(path)
            else:
                table = pd.read_csv(path, index_col=False, **_separator(path) | how)
    except ImportError:
        raise ValueError(
            f"{name}: {path} needs a reader of Parquet files; run `pip install pyarrow`, or give "
            "a CSV file"
        ) from None
    except (ValueError, OSError, pd.errors.ParserWarning) as error:
        # also a wrong encoding and an empty file
        kind = "Parquet file" if packed else "CSV file in UTF-8"
        raise ValueError(f"{name}: {path} is no {kind} ({str(error).splitlines()[0]})") from None
    table.columns = [str(column).strip() for column in table.columns]
    return table.astype(str).fillna("").apply(lambda column: column.str.strip())
