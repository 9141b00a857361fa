"""What the runner knows of the notebooks: code, parameters, and what decides results."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from klip.companion import report
from klip.settings import config, paths

VOLATILE = ("provenance", "seconds")
"""Keys of a metrics file that say when and where, not what: nothing reruns for them."""


def code_cells(path: Path) -> list[dict[str, Any]]:
    """The code cells of an .ipynb file, their sources as one text each."""
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    return [cell | {"source": "".join(cell["source"])} for cell in cells]


@dataclass(frozen=True)
class Notebook:
    """An .ipynb file: literals of its parameters cell, text of its other code cells."""

    path: Path
    parameters: dict[str, Any]
    code: list[str]

    @classmethod
    def read(cls, path: Path) -> Notebook:
        """Its parameters cell has lines `name: type = literal`, as papermill wants them."""
        values, code = {}, []
        for cell in code_cells(path):
            if "parameters" not in cell["metadata"].get("tags", ()):
                code.append(cell["source"])
                continue
            for node in ast.parse(cell["source"]).body:
                values[ast.unparse(node.target)] = ast.literal_eval(node.value)
        return cls(path, values, code)

    @property
    def number(self) -> str:
        return self.path.name.split("_")[0]

    @property
    def reads(self) -> list[str]:
        """Names of the metrics that it reads: `report.read_metrics("02_depth", ...)`."""
        return sorted(set(re.findall(r'\bread_metrics\("(\w+)"', "\n".join(self.code))))

    def key(self, values: Mapping[str, Any], around: Any) -> str:
        """Hash of all that decides its results; around: what all notebooks share."""
        own = {name: values[name] for name in self.parameters}
        stored = report.all_metrics(values["profile"])
        upstream = {}
        for name in self.reads:
            found = stored.get(name, {})
            upstream[name] = {key: found[key] for key in found if key not in VOLATILE}
        # The parameters cell is not hashed: its values are, whoever gives them.
        content = json.dumps([self.code, own, upstream, around])
        return hashlib.sha256(content.encode()).hexdigest()


def notebooks() -> dict[str, Notebook]:
    """Number -> notebook: the numbered ones in order, then the appendix."""
    books = [Notebook.read(path) for path in sorted(paths.NOTEBOOKS.glob("[0-9A-Z]*_*.ipynb"))]
    if not books:
        raise FileNotFoundError(
            f"reproduce: no notebook in {paths.NOTEBOOKS}; run inside a checkout of klip"
        )
    return {book.number: book for book in books}


def parameters_of(
    books: Mapping[str, Notebook], profile: str, *, given: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Number -> checked parameters: those given, else the profile's, else its own.

    ValueError for a name that no notebook has, and for a value that `Settings` refuses.
    """
    report.folder(profile)  # a wrong word is told
    changes = {"profile": profile}
    if profile != "nano":
        changes |= yaml.safe_load((paths.PROFILES / f"{profile}.yaml").read_text())
    changes |= given
    if changes["profile"] != profile:
        raise ValueError(
            f"reproduce: the profile is {profile}, got {changes['profile']!r} as its parameter"
        )
    # What is no setting must be a parameter of the appendix alone.
    known = {name for book in books.values() for name in book.parameters}
    alone = known - set(config.Settings.model_fields)
    shared = {name: value for name, value in changes.items() if name not in alone}
    changes |= config.Settings(**shared).model_dump(include=set(shared))
    return {number: book.parameters | changes for number, book in books.items()}
