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

from klip.companion import stored
from klip.settings import config, paths

PLACE = "KLIP_PLACE"
"""The environment variable by which a runner tells a notebook where its results belong."""
VOLATILE = ("provenance", "seconds", "core_seconds")
"""Keys of a metrics file that say when and where, not what: nothing reruns for them."""


def code_cells(path: Path) -> list[dict[str, Any]]:
    """The code cells of an .ipynb file, their sources as one text each."""
    cells = [
        cell
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    ]
    return [cell | {"source": "".join(cell["source"])} for cell in cells]


def literals(source: str) -> dict[str, Any]:
    """Name -> value of a cell that does nothing but name literals, as a parameters cell
    does; empty for any other cell."""
    try:
        body = ast.parse(source).body
        targets = [
            node.targets[0] if isinstance(node, ast.Assign) else node.target for node in body
        ]
        return {
            ast.unparse(target): ast.literal_eval(node.value)
            for target, node in zip(targets, body, strict=True)
        }
    except (AttributeError, SyntaxError, TypeError, ValueError):
        return {}


@dataclass(frozen=True)
class Notebook:
    """An .ipynb file: literals of its parameters cell, text of its other code cells."""

    path: Path
    parameters: dict[str, Any]
    code: list[str]

    @classmethod
    def read(cls, path: Path) -> Notebook:
        """Its parameters cell has lines `name: type = literal`, as papermill wants them."""
        values: dict[str, Any] = {}
        code = []
        for cell in code_cells(path):
            if "parameters" in cell["metadata"].get("tags", ()):
                values = literals(cell["source"])
            else:
                code.append(cell["source"])
        return cls(path, values, code)

    @property
    def number(self) -> str:
        return self.path.name.split("_")[0]

    @property
    def reads(self) -> list[str]:
        """Names of the metrics that it reads: `lesson.made_before("02_depth", ...)`."""
        return sorted(set(re.findall(r'\bmade_before\("(\w+)"', "\n".join(self.code))))

    def unlike(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Those of some checked parameters that are not as the profile has them."""
        usual = self.parameters | config.profile_values(values["profile"])
        shared = set(usual) & set(config.Settings.model_fields)
        usual |= config.settings(usual).model_dump(include=shared)
        return {
            name: values[name]
            for name in self.parameters
            if name in values and values[name] != usual[name]
        }

    def key(self, values: Mapping[str, Any], *, place: str, around: Any) -> str:
        """Hash of all that decides its results; around: what all notebooks share."""
        own = {name: values[name] for name in self.parameters}
        found_before = stored.all_metrics(place)
        upstream = {}
        for name in self.reads:
            found = found_before.get(name, {})
            upstream[name] = {key: found[key] for key in found if key not in VOLATILE}
        # The parameters cell is not hashed: its values are, whoever gives them.
        content = json.dumps([self.code, own, upstream, around])
        return hashlib.sha256(content.encode()).hexdigest()


def place(profile: str, changes: Mapping[str, Any]) -> str:
    """Name of the folder under results/ of a run.

    The profile's name; with `changes`, values unlike the profile's, a name of their own,
    `nano+images=640+4f2c1a`, so that no try ever overwrites a profile's results.
    """
    if not changes:
        return profile
    words = "+".join(f"{name}={value}" for name, value in sorted(changes.items()))
    short = re.sub(r"[^\w.=+-]+", "_", words)[:60]
    digest = hashlib.sha256(json.dumps(changes, sort_keys=True).encode()).hexdigest()
    return f"{profile}+{short}+{digest[:6]}"


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
    changes = {"profile": profile} | config.profile_values(profile) | dict(given)
    if changes["profile"] != profile:
        raise ValueError(
            f"reproduce: the profile is {profile}, got {changes['profile']!r} as its parameter"
        )
    # What is no setting must be a parameter of the appendix alone.
    known = {name for book in books.values() for name in book.parameters}
    alone = known - set(config.Settings.model_fields)
    shared = {name: value for name, value in changes.items() if name not in alone}
    changes |= config.Settings(**shared).model_dump(include=set(shared))
    return {
        number: {name: changes.get(name, own) for name, own in book.parameters.items()}
        for number, book in books.items()
    }
