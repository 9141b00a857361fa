"""Floor 4: run the notebooks of a profile in order, each only when something it depends on has changed.

A notebook depends on its code cells (not its prose), the values of the parameters it uses, the klip modules that it
imports and all that these import, the encoders klip ships, the metrics of earlier notebooks that it reads, and which
evaluation sets are at hand. Images of a user are not looked at: after changing them, `make clean`.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from klip.companion import report
from klip.settings import config, paths

PACKAGE = Path(__file__).parents[1]
VOLATILE = ("provenance", "seconds")
"""Keys of a metrics file that say when and where, not what: they make nothing out of date."""


class NotebookError(ValueError):
    """A cell failed; the message is one sentence that names it."""


@dataclass(frozen=True)
class Notebook:
    """What the runner knows of one .ipynb file: the literals of its parameters cell, its other code cells."""

    path: Path
    parameters: dict[str, Any]
    code: tuple[str, ...]
    tree: ast.Module

    @classmethod
    def read(cls, path: Path) -> Notebook:
        cells = [
            cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"
        ]
        own = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", ())]
        if len(own) != 1:
            raise ValueError(
                f"{path.name}: exactly one cell must have the tag `parameters`, {len(own)} have"
            )
        values = {}
        for node in ast.parse("".join(own[0]["source"])).body:
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.value, ast.Constant):
                raise ValueError(
                    f"{path.name}: want `name: type = literal`, got {ast.unparse(node)}"
                )
            values[ast.unparse(node.target)] = node.value.value
        code = tuple("".join(cell["source"]) for cell in cells if cell is not own[0])
        return cls(path, values, code, ast.parse("\n".join(code), filename=path.name))

    @property
    def number(self) -> str:
        return self.path.name.split("_")[0]

    def depends(self, values: Mapping[str, Any], profile: str) -> dict[str, Any]:
        """Values it takes as `settings.NAME` or by bare name; all if `settings` is handed on whole."""
        nodes = list(ast.walk(self.tree))
        taken = [
            node.attr
            for node in nodes
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "settings"
        ]
        loaded = [
            node.id
            for node in nodes
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        ]
        names = {*taken, *(set(loaded) & set(self.parameters))}
        if loaded.count("settings") > len(taken):
            names |= set(config.Settings.model_fields)
        settings = config.settings(values)
        if unknown := [
            name for name in sorted(names) if not hasattr(settings, name) and name not in values
        ]:
            raise ValueError(f"{self.path.name}: settings.{unknown[0]} is no setting")
        found = {name: getattr(settings, name, values.get(name)) for name in sorted(names)}
        if profile != "nano" and found.get("sets_folder") == "":  # nano renders its images
            found["sets_folder"] = paths.data_root().as_posix()
        return found

    def reads(self) -> list[str]:
        """Names of the metrics that it reads: the literal in `report.read_metrics("02_depth", ...)`."""
        calls = [node for node in ast.walk(self.tree) if isinstance(node, ast.Call) and node.args]
        first = [call.args[0] for call in calls if ast.unparse(call.func).endswith("read_metrics")]
        return sorted({name.value for name in first if isinstance(name, ast.Constant)})

    def key(self, depends: Mapping[str, Any], profile: str) -> str:
        """Hash of all that its results depend on."""
        stored = report.all_metrics(profile)
        upstream = {
            name: {key: value for key, value in stored.get(name, {}).items() if key not in VOLATILE}
            for name in self.reads()
        }
        files = sorted(sources(imports(self.tree)) | set(paths.WEIGHTS.glob("*.*")))
        digests = [(file.parent.name, file.name, _sha256(file.read_bytes())) for file in files]
        return _sha256(json.dumps([self.code, depends, upstream, digests]).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def imports(tree: ast.AST, package: str = "klip") -> set[str]:
    """Dotted names under klip that code imports, at its top or inside a function: {"klip.companion.report", ...}."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: 1 - node.level or None] if node.level else []
            module = ".".join([*parents, *filter(None, [node.module])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "klip"}


def sources(names: Iterable[str]) -> set[Path]:
    """Files of these modules and of all klip modules that they import in turn."""
    files, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        stem = PACKAGE.joinpath(*name.split(".")[1:])
        # Neither file exists for a thing inside a module, as klip.settings.config.Settings.
        for file in {stem.with_suffix(".py"), stem / "__init__.py"} - files:
            if file.is_file():
                files.add(file)
                package = name if file.name == "__init__.py" else name.rpartition(".")[0]
                waiting += [package, *imports(ast.parse(file.read_text()), package)]
    return files


def notebooks() -> dict[str, Notebook]:
    """Number -> notebook: the numbered ones in order, then the appendix."""
    books = map(Notebook.read, sorted(paths.NOTEBOOKS.glob("[0-9A-Z]*_*.ipynb")))
    if not (found := {book.number: book for book in books}):
        raise FileNotFoundError(
            f"reproduce: no notebook in {paths.NOTEBOOKS}; run inside a checkout of klip"
        )
    return found


def parameters_of(
    profile: str, given: Mapping[str, Any], books: Mapping[str, Notebook]
) -> dict[str, dict]:
    """Number -> parameters of that notebook: its own value, or the profile's, or the one given; checked."""
    known = {name for book in books.values() for name in book.parameters}
    report.folder(profile)  # a wrong word is told
    stored = (
        {}
        if profile == "nano"
        else yaml.safe_load((paths.PROFILES / f"{profile}.yaml").read_text())
    )
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
    values = {number: {**book.parameters, **changes} for number, book in books.items()}
    return {number: {**own, **config.settings(own).model_dump()} for number, own in values.items()}


def run(
    profile: str = "nano",
    parameters: Mapping[str, Any] | None = None,
    only: Sequence[str] | str | None = None,
    appendix: bool = False,
) -> list[str]:
    """Bring results/<profile> up to date and print its summary; returns the names of the notebooks that ran.

    `only` gives notebooks by number ("03"); what they read from earlier ones is brought up to date first.
    Evaluation sets that are not at hand and cannot be fetched are left out, in one line (`fetch.at_hand`).
    """
    from doit.cmd_base import ModuleTaskLoader
    from doit.doit_cmd import DoitMain

    from klip.data import fetch

    books = notebooks()
    values = parameters_of(profile, parameters or {}, books)
    wanted = (
        [only]
        if isinstance(only, str)
        else only or [key for key in books if key.isdigit() or appendix]
    )
    if unknown := [number for number in wanted if number not in books]:
        raise ValueError(
            f"reproduce: no notebook has number {unknown[0]!r}; there are {', '.join(books)}"
        )
    given = config.settings(values[wanted[0]])
    there, left_out = fetch.at_hand(given.eval_list, given.sets_folder)
    print(f"{left_out}\n" * bool(left_out), end="")
    ran: list[str] = []
    failures: list[Exception] = []
    tasks = [
        _task(book, values[number], profile, books, there, ran, failures)
        for number, book in books.items()
    ]
    # One memory per results folder: a run into another one must not make this one look old, or new.
    memory = (
        paths.CACHE / "reproduce" / f"{profile}-{_sha256(str(paths.RESULTS).encode())[:8]}.json"
    )
    memory.parent.mkdir(parents=True, exist_ok=True)
    options = {"dep_file": str(memory), "backend": "json", "verbosity": 2, "reporter": "zero"}
    loader = ModuleTaskLoader(
        {"DOIT_CONFIG": options, "task_notebooks": lambda: (task for task in tasks)}
    )
    code = DoitMain(loader, config_filenames=()).run(
        ["run", *(books[number].path.stem for number in wanted)]
    )
    if code or failures:
        raise (
            failures[0]
            if failures
            else RuntimeError(f"reproduce: doit ended with {code}, see above")
        )
    path = paths.RESULTS / profile / "report.md"
    if ran or not path.is_file():
        report.write_report(profile)
    print(
        f"{report.summary(profile)}\nran: {', '.join(ran) or 'nothing, all is up to date'}\n{path}"
    )
    return ran


def _task(
    book: Notebook,
    given: Mapping[str, Any],
    profile: str,
    books: Mapping[str, Notebook],
    there: list[str],
    ran: list[str],
    failures: list[Exception],
) -> dict[str, Any]:
    """doit's form of one notebook; its key is made in its turn, since it reads what earlier ones wrote.

    there: the evaluation sets at hand: a set that arrives later makes what uses them out of date.
    """
    folder, depends = paths.RESULTS / profile, book.depends(given, profile)
    depends |= {"eval_list": there} if "eval_list" in depends else {}
    needs = {name.split("_")[0] for name in book.reads()} & set(books) - {book.number}

    def current(task: Any, values: Mapping[str, Any]) -> bool:  # doit knows these two names
        same = values.get("key") == book.key(depends, profile)
        return same and all((folder / name).is_file() for name in values["files"])

    def action() -> dict[str, Any] | bool:
        start = time.time() - 2  # seconds; file systems round
        try:
            key = book.key(depends, profile)
            _execute(book, given, profile)
        except Exception as error:  # doit would print it; run() raises it
            failures.append(error)
            return False
        ran.append(book.path.stem)
        files = set(folder.glob(f"*/{book.number}_*"))
        for file in [file for file in files if file.stat().st_mtime < start]:
            file.unlink()  # an earlier version of the notebook wrote it
            files.remove(file)
        return {"key": key, "files": sorted(file.relative_to(folder).as_posix() for file in files)}

    return {
        "basename": book.path.stem,
        "actions": [action],
        "uptodate": [current],
        "verbosity": 2,
        "task_dep": sorted(books[number].path.stem for number in needs),
        "io": {"capture": False},
    }


def _execute(book: Notebook, values: Mapping[str, Any], profile: str) -> None:
    """papermill, in this interpreter's environment; the result appears whole or not at all."""
    import papermill

    # The kernel `python3` of this environment, and the folders of this process.
    os.environ.update(
        JUPYTER_PREFER_ENV_PATH="1", KLIP_CACHE=str(paths.CACHE), KLIP_RESULTS=str(paths.RESULTS)
    )
    target = paths.RESULTS / profile / "notebooks" / book.path.name
    partial = target.with_name(f".{target.name}")  # papermill asks for this ending
    target.parent.mkdir(parents=True, exist_ok=True)
    given = {name: values[name] for name, own in book.parameters.items() if values[name] != own}
    try:
        papermill.execute_notebook(
            book.path,
            partial,
            parameters=given,
            kernel_name="python3",
            extra_arguments=["--log-level=ERROR"],
            progress_bar={"desc": book.path.stem},
        )
        os.replace(partial, target)
    except papermill.PapermillExecutionError as error:
        kept = paths.CACHE / "failed" / f"{profile}-{target.name}"
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(partial, kept)
        if error.ename not in ("ValueError", "FileNotFoundError"):  # those say all in one sentence
            print(re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback)), file=sys.stderr)
        line = error.source.strip().splitlines()[0]
        where = f"notebook {book.path.stem}, cell [{error.exec_count}] `{line}`"
        raise NotebookError(
            f"{where}: {error.ename}: {error.evalue}; how far it got is in {kept}"
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def refresh(profile: str = "nano") -> list[str]:
    """Put the outputs of the last run into the committed notebooks; prose stays; returns names."""
    done = {}
    for executed in sorted((paths.RESULTS / profile / "notebooks").glob("[0-9A-Z]*.ipynb")):
        path = paths.NOTEBOOKS / executed.name
        old, new = json.loads(path.read_text()), json.loads(executed.read_text())
        mine, theirs = (
            [cell for cell in x["cells"] if cell["cell_type"] == "code"] for x in (old, new)
        )
        if ["".join(cell["source"]) for cell in mine] != [
            "".join(cell["source"]) for cell in theirs
        ]:
            raise ValueError(
                f"refresh: {path.name} differs from what {executed} ran; "
                f"run `make reproduce PROFILE={profile}` without parameters"
            )
        for cell, result in zip(mine, theirs, strict=True):
            kept = [
                output for output in result["outputs"] if output.get("name") != "stderr"
            ]  # progress bars
            cell |= {"outputs": kept, "execution_count": result["execution_count"]}
        done[path] = json.dumps(old, indent=1, ensure_ascii=False) + "\n"
    for path, text in done.items():
        path.write_text(text)
    return [path.stem for path in done]
