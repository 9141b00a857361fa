"""The only writer under results/.

    results/<profile>/  tables/NN_name.csv, .md  figures/NN_name.png, .jpg
                        metrics/NN_name.json  claims.csv, .md  report.md, .html
    results/gpu/        what `klip bench` measured, a file per machine and setting

NN is the number of the notebook that writes it: the runner can tell whose it is.  Files
appear whole or not at all.  No picture that shows a real photograph is ever written.
"""

from __future__ import annotations

import functools
import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from pydantic_core import to_jsonable_python

from klip.companion import stored
from klip.settings import paths
from klip.settings.files import atomic

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from pydantic import BaseModel

PACKAGES = ("torch", "open_clip_torch", "pytorch-metric-learning", "numpy")
PACKAGES += ("opencv-contrib-python-headless",)
LONGEST = 60
"""Rows of a table that report.md and the .md file show; the .csv holds them all."""


def write(path: Path, content: str | bytes) -> Path:
    """Write a whole file, or none; returns its path."""
    content = content.encode() if isinstance(content, str) else content
    atomic(path, lambda part: part.write_bytes(content))
    return path


def write_json(path: Path, values: Mapping[str, Any]) -> Path:
    """Write numbers, frames, arrays, tensors and paths as JSON; not-a-number becomes null."""

    def plain(value: Any) -> Any:
        """What pydantic does not know."""
        if hasattr(value, "columns"):
            return value.to_dict("records")
        if hasattr(value, "to_dict"):  # Series
            return value.to_dict()
        if hasattr(value, "tolist"):
            return value.tolist()
        raise TypeError(f"report: {type(value).__name__} is not data, got {value!r}")

    data = to_jsonable_python(dict(values), inf_nan_mode="null", fallback=plain)
    return write(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def markdown(frame: pd.DataFrame, rows: int = LONGEST) -> str:
    """A frame as a Markdown table: four digits, empty where nothing is known, some rows."""

    def cell(value: Any) -> str:
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            return ""
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        return text.replace("|", "\\|").replace("\n", " ")

    rule = ["--:" if dtype.kind in "iuf" else "---" for dtype in frame.dtypes]
    lines = [list(map(str, frame)), rule]
    for row in frame.head(rows).itertuples(index=False):
        lines.append([cell(value) for value in row])
    text = "".join("| " + " | ".join(line) + " |\n" for line in lines)
    left = len(frame) - rows
    return text + (f"\n{left} more rows are in the .csv file.\n" if left > 0 else "")


def save_table(frame: pd.DataFrame, name: str, *, place: str) -> Path:
    """Write a table, a named index too, as .csv (six digits) and .md; returns the .csv."""
    path = stored.path(f"tables/{name}.csv", place)
    if any(level is not None for level in frame.index.names):
        frame = frame.reset_index()
    write(path.with_suffix(".md"), markdown(frame))
    return write(path, frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def save_figure(
    figure: Figure, name: str, *, place: str, photographs: bool = False, images: bool = False
) -> Path | None:
    """Write a figure: PNG for plots, JPEG for grids of rendered `images`.

    As `canvas.encoded` makes it, small.  photographs=True says that it shows real
    photographs: nothing is written, an older file of that name goes.
    """
    from klip.companion.canvas import encoded

    path = stored.path(f"figures/{name}.{'jpg' if images else 'png'}", place)
    if photographs:
        path.unlink(missing_ok=True)
        return None
    return write(path, encoded(figure, "jpeg" if images else "png"))


@functools.cache
def _commit() -> str | None:
    def git(*words: str) -> str:
        command = ["git", "-C", str(paths.ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "klip", "notebooks")
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):  # no git, or no checkout
        return None


def provenance() -> dict[str, Any]:
    """Versions, device, threads, commit, date; no user, host, folder; no heavy import."""
    torch = sys.modules.get("torch")
    device = torch.cuda.get_device_name(0) if torch and torch.cuda.is_available() else "CPU"
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "device": device,
        "threads": torch.get_num_threads() if torch else os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
    }


def save_metrics(
    values: Mapping[str, Any], name: str, *, place: str, settings: BaseModel | None = None
) -> Path:
    """Write numbers as JSON with the settings and the `provenance` of this run.

    settings: of the notebook; those that it was given are kept, not the others' defaults.
    Beside the numbers stands how long cores computed for them (`core_seconds`).
    """
    kept = settings.model_dump(exclude_unset=True) if settings else {}
    values = {**values, "settings": kept}
    values |= {"core_seconds": core_seconds(), "provenance": provenance()}
    return write_json(stored.path(f"metrics/{name}.json", place), values)


def core_seconds() -> float:
    """How long cores have computed for this process and for those that it has started."""
    own = psutil.Process()
    times = [own.cpu_times()]
    for child in own.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times.append(child.cpu_times())
    # Of children that have ended only Linux tells.
    return sum(
        sum(one[:2]) + getattr(one, "children_user", 0) + getattr(one, "children_system", 0)
        for one in times
    )


def save_claims(place: str) -> Path:
    """Judge the paper's claims; write claims.csv and .md, return the .csv path.

    Takes from each metrics file `evidence` and `reasons`, see `claims.verdicts`.
    """
    from klip.stats import claims

    found = stored.all_metrics(place)
    stored.of_one_run(found)
    if not found:
        raise FileNotFoundError(
            f"{stored.folder(place) / 'metrics'} has no numbers to judge the claims by: "
            f"run `{stored.command(place)}`"
        )
    ledger = claims.verdicts(stored.evidence(place), stored.reasons(place))
    write(stored.folder(place) / "claims.md", markdown(ledger))
    text = ledger.to_csv(index=False, lineterminator="\n")
    return write(stored.folder(place) / "claims.csv", text)


def save_gpu(name: str, facts: Mapping[str, Any]) -> Path:
    """Write what `klip bench` measured as results/gpu/<name>.json; it has no date."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(f"report: a gpu file is named in letters, digits, - and _, got {name!r}")
    return write_json(paths.RESULTS / "gpu" / f"{name}.json", facts)


def speeds() -> pd.DataFrame:
    """What `klip bench` measured (results/gpu/*.json), a row a file; peak of a GPU only."""
    import pandas as pd

    rows, folder = [], paths.RESULTS / "gpu"
    if not folder.is_dir():  # a notebook run by hand writes elsewhere
        folder = paths.ROOT / "results" / "gpu"
    for file in sorted(folder.glob("*.json")):
        facts = json.loads(file.read_text(encoding="utf-8"))
        how, step = facts["settings"], facts["synthetic"]
        peak = step.get("peak_reserved_bytes")
        rows.append(
            {
                "name": file.stem,
                "device": facts["device"],
                "model": facts["model"],
                "precision": how["precision"],
                "batch": f"{how['batch_size']} in {how['accumulate']}",
                "checkpointing": how["checkpointing"],
                "peak_gib": None if peak is None else peak / 2**30,
                "images_per_s": step["images_per_s"],
                "share_of_matrix_rate": facts["share_of_matrix_rate"],
                "from_jpegs": facts["jpeg_fed"]["images_per_s"],
                "over_metric_loss_only": facts["beside_metric_loss_only"]["ratio"],
            }
        )
    return pd.DataFrame(rows)
