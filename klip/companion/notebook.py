"""What the runner knows of the notebooks: code, parameters, and what decides results."""

from __future__ import annotations

import ast
import difflib
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


def code_cells(notebook: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Notebook:
    """An .ipynb file: literals of its parameters cell, text of its other code cells."""

    path: Path
    parameters: dict[str, Any]
    code: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Notebook:
        cells = code_cells(json.loads(path.read_text()))
        own = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", ())]
        if len(own) != 1:
            raise ValueError(
                f"{path.name}: exactly one cell must have the tag `parameters`, {len(own)} have"
            )
        values = {}
        for node in ast.parse("".join(own[0]["source"])).body:
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.value, ast.Constant):
                given = ast.unparse(node)
                raise ValueError(f"{path.name}: want `name: type = literal`, got {given}")
            values[ast.unparse(node.target)] = node.value.value
        code = tuple("".join(cell["source"]) for cell in cells if cell is not own[0])
        for name in re.findall(r"(?<![\w.])settings\.(\w+)", "\n".join(code)):
            if name not in config.Settings.model_fields and not hasattr(config.Settings, name):
                raise ValueError(f"{path.name}: settings.{name} is no setting")
        return cls(path, values, code)

    @property
    def number(self) -> str:
        return self.path.name.split("_")[0]

    @property
    def reads(self) -> list[str]:
        """Names of the metrics that it reads: `report.read_metrics("02_depth", ...)`."""
        names = re.findall(r"""\bread_metrics\(\s*["'](\w+)["']""", "\n".join(self.code))
        return sorted(set(names))

    def key(self, values: Mapping[str, Any], profile: str, around: Any) -> str:
        """Hash of all that decides its results; around: what all notebooks share."""
        own = {name: values[name] for name in self.parameters}
        stored = report.all_metrics(profile)
        upstream = {}
        for name in self.reads:
            found = stored.get(name, {})
            upstream[name] = {key: found[key] for key in found if key not in VOLATILE}
        return sha256(json.dumps([self.code, own, upstream, around]).encode())


def notebooks() -> dict[str, Notebook]:
    """Number -> notebook: the numbered ones in order, then the appendix."""
    books = [Notebook.read(path) for path in sorted(paths.NOTEBOOKS.glob("[0-9A-Z]*_*.ipynb"))]
    if not books:
        raise FileNotFoundError(
            f"reproduce: no notebook in {paths.NOTEBOOKS}; run inside a checkout of klip"
        )
    return {book.number: book for book in books}


def parameters_of(
    profile: str, given: Mapping[str, Any], books: Mapping[str, Notebook]
) -> dict[str, dict]:
    """Number -> checked parameters: those given, else the profile's, else its own."""
    report.folder(profile)  # a wrong word is told
    stored = {}
    if profile != "nano":
        stored = yaml.safe_load((paths.PROFILES / f"{profile}.yaml").read_text())
    known = {name for book in books.values() for name in book.parameters}
    for name in [*stored, *given]:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1) or [", ".join(sorted(known))]
            raise ValueError(
                f"reproduce: no notebook has a parameter {name!r}; did you mean {close[0]}"
            )
    changes = {"profile": profile, **stored, **given}
    if changes["profile"] != profile:
        raise ValueError(
            f"reproduce: the profile is {profile}, got {changes['profile']!r} as its parameter"
        )
    values = {}
    for number, book in books.items():
        own = {**book.parameters, **changes}
        values[number] = {**own, **config.settings(own).model_dump()}
    return values
