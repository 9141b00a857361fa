"""Run the notebooks of a profile in order, each only when what decides it has changed.

These decide: its code cells (not prose, not outputs), all its parameters, all of klip's
source and the encoders that it ships, the metrics of other notebooks that it reads,
which evaluation sets are at hand and, but for nano, where they lie.  A notebook also
runs when a file that it wrote is gone.  Images of a user are not looked at: after
changing them, `make clean`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from klip.companion import overview, report, stored
from klip.companion.notebook import PLACE, Notebook, code_cells, notebooks, parameters_of, place
from klip.settings import config, paths

PACKAGE = Path(__file__).parents[1]
WIDGET = "application/vnd.jupyter.widget-view+json"


class NotebookError(ValueError):
    """A cell failed; the message is one sentence that names it."""


def _klip() -> str:
    """Hash of klip's source and of the encoders that it ships."""
    content = hashlib.sha256()
    for file in [*sorted(PACKAGE.rglob("*.py")), *sorted(paths.WEIGHTS.glob("*.*"))]:
        content.update(file.name.encode() + file.read_bytes())
    return content.hexdigest()


def _newer(file: Path) -> bool:
    """Than all that writes it."""
    sources = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.html")]
    return file.stat().st_mtime >= max(source.stat().st_mtime for source in sources)


def run(
    profile: str = "nano",
    parameters: Mapping[str, Any] | None = None,
    *,
    only: Sequence[str] | None = None,
    appendix: bool = False,
) -> list[str]:
    """Bring results/<profile> up to date, print its summary; returns what notebooks ran.

    `only` gives notebooks by number ("03"); what they read of earlier ones is brought up
    to date first.  Evaluation sets that cannot be had are left out, in one line.
    """
    from klip.data import fetch

    books = notebooks()
    values = parameters_of(books, profile, given=parameters or {})
    due = set(only or [number for number in books if number.isdigit() or appendix])
    for number in due - set(books):
        raise ValueError(f"reproduce: no notebook {number!r}; there are {', '.join(books)}")
    given = config.settings(values[min(due)])
    there, left_out = fetch.at_hand(given.eval_list, given.sets_folder)
    if left_out:
        print(left_out)
    changes: dict[str, Any] = {}
    for number in sorted(due):
        changes |= books[number].unlike(values[number])
    where = place(profile, changes)
    ran = _bring(books, values, due=due, where=where, there=there)
    written = [stored.folder(where) / f"report.{kind}" for kind in ("html", "md")]
    if ran or not all(path.is_file() and _newer(path) for path in written):
        from klip.companion import page  # brings pandas, which a call for nothing need not

        overview.write_report(where)
        page.write_page(where)
    names = ", ".join(ran) or "nothing, all is up to date"
    print(overview.summary(where), f"ran: {names}", *written, sep="\n")
    return ran


def bring(number: str, parameters: Mapping[str, Any], *, place: str) -> list[str]:
    """Bring one notebook, and what it reads, up to date with some parameters, as a notebook
    that needs it does; returns what ran.  Writes no report."""
    from klip.data import fetch

    books = notebooks()
    values = {
        other: {name: parameters.get(name, own) for name, own in book.parameters.items()}
        for other, book in books.items()
    }
    given = config.settings(values[number])
    there, _ = fetch.at_hand(given.eval_list, given.sets_folder)
    return _bring(books, values, due={number}, where=place, there=there)


def _bring(
    books: Mapping[str, Notebook],
    values: Mapping[str, Mapping[str, Any]],
    *,
    due: set[str],
    where: str,
    there: Sequence[str],
) -> list[str]:
    """Run those of the notebooks, and of what they read, that are not up to date.

    there: the evaluation sets at hand.
    """
    # nano renders its images, wherever others lie.
    nano = values[min(due)]["profile"] == "nano"
    images = "" if nano else paths.data_root().as_posix()
    around = [_klip(), there, images]
    due = due | _of_other_settings(values, where)
    # From the last to the first: what a notebook reads is due as well, and what that reads.
    for number in reversed(books):
        if number in due:
            due = due | {name.split("_")[0] for name in books[number].reads}
    ran = []
    for number, book in books.items():
        if number in due and _bring_up_to_date(book, values[number], where=where, around=around):
            ran.append(book.path.stem)
    return ran


def _of_other_settings(values: Mapping[str, Mapping[str, Any]], where: str) -> set[str]:
    """Numbers of notebooks whose stored metrics were made with other settings than now: no
    report would mix them with what is made now."""
    found = set()
    for name, metrics in stored.all_metrics(where).items():
        number = name.split("_")[0]
        if number in values and metrics.get("settings"):
            if not stored.made_with(metrics, config.settings(values[number]).model_dump()):
                found.add(number)
    return found


def _bring_up_to_date(
    book: Notebook, values: Mapping[str, Any], *, where: str, around: Any
) -> bool:
    """Execute a notebook unless it is up to date; whether it ran.

    What is remembered of it, beside the executed one: its key, and the files that it
    wrote.
    """
    folder = stored.folder(where)
    memory = folder / "notebooks" / f"{book.path.stem}.json"
    key, known = book.key(values, place=where, around=around), {"key": "", "files": []}
    if memory.is_file():
        known = json.loads(memory.read_text(encoding="utf-8"))
    whole = all((folder / file).is_file() for file in known["files"])
    encoders = [file for file in known["files"] if file.startswith("metrics/")]
    if known["key"] == key and whole:
        if not any(
            stored.lost(json.loads((folder / file).read_text(encoding="utf-8")))
            for file in encoders
        ):
            return False
    memory.unlink(missing_ok=True)  # forgotten first: it may fail half-way
    start = time.time() - 2  # seconds; file systems round
    execute(book, values, where)
    files = []
    for file in sorted(folder.glob(f"*/{book.number}_*")):
        if file.stat().st_mtime < start:
            file.unlink()  # an earlier version of the notebook wrote it
        else:
            files.append(file.relative_to(folder).as_posix())
    report.write_json(memory, {"key": key, "files": files})
    return True


def execute(book: Notebook, values: Mapping[str, Any], where: str) -> None:
    """papermill, in this interpreter's environment; the result appears whole or not.

    NotebookError for a cell that fails; how far it got is kept in the cache.
    """
    import papermill

    # The kernel `python3` of this environment, and the folders of this process.
    os.environ.update(JUPYTER_PREFER_ENV_PATH="1")
    os.environ.update(KLIP_CACHE=str(paths.CACHE), KLIP_RESULTS=str(paths.RESULTS))
    name, before = book.path.name, os.environ.get(PLACE, "")
    os.environ[PLACE] = where
    given = {key: values[key] for key, own in book.parameters.items() if values[key] != own}
    how = {"kernel_name": "python3", "extra_arguments": ["--log-level=ERROR"]}
    how["progress_bar"] = {"desc": book.path.stem}
    running = paths.CACHE / "running" / f"{where}-{name}"
    running.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(book.path, running, given, **how)
    except papermill.PapermillExecutionError as error:
        # Two kinds say all in one sentence.
        if error.ename not in ("ValueError", "FileNotFoundError"):
            print(error, file=sys.stderr)
        line = error.source.strip().splitlines()[0]
        cell = f"notebook {book.path.stem}, cell [{error.exec_count}] `{line}`"
        what = f"{error.ename}: {error.evalue}; how far it got is in {running}"
        raise NotebookError(f"{cell}: {what}") from None
    finally:
        os.environ[PLACE] = before
    target = stored.folder(where) / "notebooks" / name
    report.write(target, running.read_bytes())
    running.unlink()


def refresh(profile: str = "nano") -> list[str]:
    """Put the outputs of the last run into the committed notebooks; prose stays."""
    done = {}
    for executed in sorted((paths.RESULTS / profile / "notebooks").glob("[0-9A-Z]*.ipynb")):
        path = paths.NOTEBOOKS / executed.name
        committed, results = json.loads(path.read_text(encoding="utf-8")), code_cells(executed)
        if [cell["source"] for cell in code_cells(path)] != [one["source"] for one in results]:
            raise ValueError(
                f"refresh: {path.name} differs from what {executed} ran; "
                f"run `make reproduce PROFILE={profile}` without parameters"
            )
        mine = (cell for cell in committed["cells"] if cell["cell_type"] == "code")
        for cell, result in zip(mine, results, strict=True):
            # A widget means nothing without a kernel: bars go, of a control its words stay.
            outputs = [one for one in result["outputs"] if one.get("name") != "stderr"]
            for one in outputs:
                if one.get("data", {}).pop(WIDGET, None) and "%|" in one["data"]["text/plain"]:
                    one["data"].clear()
            outputs = [one for one in outputs if one.get("data", True)]
            cell |= {"outputs": outputs, "execution_count": result["execution_count"]}
        done[path] = json.dumps(committed, indent=1, ensure_ascii=False) + "\n"
    for path, text in done.items():  # all of them or, after an error, none
        path.write_text(text)
    return [path.stem for path in done]
