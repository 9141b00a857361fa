"""What every notebook begins with: its settings, the sets that they name, and what earlier
notebooks made."""

import difflib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from klip.companion import notebook, stored
from klip.companion.notebook import Notebook
from klip.data import fetch
from klip.data.catalogue import Catalogue
from klip.data.loading import load_catalogue
from klip.settings import config, paths
from klip.settings.config import Settings
from klip.settings.files import atomic

INJECTED = "# Parameters\n"
"""How papermill begins the cell of the values that it was given."""


class Lesson(Settings):
    """The checked settings of a notebook, and where its results belong."""

    place: str = ""
    """Name of its folder of results, see `notebook.place`."""


def settings(number: str, namespace: Mapping[str, Any]) -> Lesson:
    """Checked settings out of the `globals()` of a notebook, "03".

    Results of a notebook that is run by hand go to the cache (unless KLIP_RESULTS names
    a folder): only the runner writes results/.  data_root becomes KLIP_DATA.
    ValueError for a parameter that the notebook has not.
    """
    book = notebook.notebooks()[number]
    _no_other_names(book, namespace)
    found = config.settings(namespace)
    values = {name: namespace.get(name, own) for name, own in book.parameters.items()}
    values |= found.model_dump(include=set(values) & set(Settings.model_fields))
    given = found.model_dump(include=found.model_fields_set)
    changes = book.unlike(values)
    # A run of several notebooks has one folder for all of them.
    place = os.environ.get(notebook.PLACE) or notebook.place(found.profile, changes)
    made = Lesson(**given, place=place)
    if made.sets_folder:
        os.environ["KLIP_DATA"] = made.sets_folder
    if not os.environ.get("KLIP_RESULTS"):
        paths.RESULTS = paths.CACHE / "results"
        print(f"run by hand: results go to {_near(paths.RESULTS / made.place)}")
    if changes:
        words = ", ".join(f"{name}={value}" for name, value in changes.items())
        print(f"unlike profile {made.profile}: {words}; results go to {made.place}")
    return made


def _near(path: Path) -> Path:
    """A path as one sees it from the repository."""
    return path.relative_to(paths.ROOT) if path.is_relative_to(paths.ROOT) else path


def _no_other_names(book: Notebook, namespace: Mapping[str, Any]) -> None:
    """ValueError for a name in the parameters cell, or put below it by papermill, that the
    committed notebook does not have.  `In` holds the cells run so far."""
    given: set[str] = set()
    for source in namespace.get("In", ()):
        names = notebook.literals(source)
        # The cell as it was run last, and what was injected after that.
        if "profile" in names and not source.startswith(INJECTED):
            given = set(names)
        elif source.startswith(INJECTED):
            given |= set(names)
    for name in sorted(given - set(book.parameters)):
        close = difflib.get_close_matches(name, book.parameters, n=1)
        hint = f"did you mean {close[0]}" if close else f"it has {', '.join(book.parameters)}"
        raise ValueError(f"notebook {book.number}: {name} is not a parameter; {hint}")


def made_before(name: str, settings: Lesson) -> dict[str, Any]:
    """The metrics that another notebook makes, `02_depth`, with these very settings.

    They are those of the last run, by hand or by the runner, if the files that they name
    are still in the cache, and are then kept beside the results of this notebook.  Else
    the notebook runs now, after one sentence.
    """
    own = stored.path(f"metrics/{name}.json", settings.place)
    others = paths.ROOT / "results" / settings.place / "metrics" / own.name
    files = {file.resolve() for file in (own, others) if file.is_file()}
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        found = json.loads(file.read_text(encoding="utf-8"))
        if stored.made_with(found, settings.model_dump()) and not stored.lost(found):
            if file != own.resolve():
                atomic(own, lambda part, file=file: shutil.copy2(file, part))
            return found
    print(f"{name} has not run with these settings here: it runs now, which takes minutes")
    from klip.companion import reproduce

    reproduce.bring(name.split("_")[0], settings.model_dump(), place=settings.place)
    return stored.read_metrics(name, settings.place)


def reading(given: Settings) -> dict[str, Any]:
    """How images are embedded in a notebook: each once by an encoder, whichever notebook
    asks (`klip.model.kept`)."""
    return {"workers": given.workers, "precision": given.precision, "remember": True}


def finetuning_set(given: Settings) -> Catalogue:
    """The set to fine-tune on; two images of each product are kept for validation (§4.1.3)."""
    how = {"validation": 2, "bad_images": given.bad_images}
    return load_catalogue(given.finetune_set, given.finetune_folder, **how)


def relative(files: Sequence[Path]) -> list[str]:
    """Files of the cache as metrics name them: the cache may move."""
    return [file.relative_to(paths.CACHE).as_posix() for file in files]


def cached(files: Sequence[str]) -> list[Path]:
    """Files of encoders that another notebook keeps, by what its metrics say."""
    return [paths.CACHE / file for file in files]


def evaluation_sets(given: Settings) -> tuple[dict[str, Catalogue], str]:
    """The evaluation sets that are at hand, by name, and one line on the others, or ""."""
    present, left_out = fetch.at_hand(given.eval_list)
    how = {"bad_images": given.bad_images}
    return {name: load_catalogue(name, **how) for name in present}, left_out
