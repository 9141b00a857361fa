"""Floor 4: the only writer under results/.

    results/<profile>/  tables/NN_name.csv, .md  figures/NN_name.png, .jpg  metrics/NN_name.json
                        claims.csv, .md  report.md
    results/gpu/        what `klip bench` measured, a file per machine and setting

A name with NN begins with the number of the notebook that writes it, so that the runner can tell whose it is.
Files appear whole (temporary name, then replaced). No picture that shows a real photograph is ever written.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klip.companion.tables import markdown, plain
from klip.settings import config, paths
from klip.settings.files import atomic
from klip.stats import published

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PACKAGES = (
    "torch",
    "open_clip_torch",
    "pytorch-metric-learning",
    "numpy",
    "opencv-contrib-python-headless",
)


def _path(name: str, profile: str, kind: str, suffix: str) -> Path:
    if not re.fullmatch(r"(\d\d|[A-Z])_[a-z0-9_]+", name):
        raise ValueError(
            f"report: a name begins with its notebook's number, as 02_depth_curve, got {name!r}"
        )
    return folder(profile) / kind / (name + suffix)


def folder(profile: str) -> Path:
    """results/<profile>; ValueError for a profile that there is not."""
    if profile not in config.profiles():
        raise ValueError(f"profile must be one of {', '.join(config.profiles())}, got {profile!r}")
    return paths.RESULTS / profile


def _write(path: Path, content: str | bytes) -> Path:
    atomic(
        path,
        lambda part: part.write_bytes(content.encode() if isinstance(content, str) else content),
    )
    return path


def _write_json(path: Path, values: Mapping[str, Any]) -> Path:
    return _write(
        path, json.dumps(plain(values), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    )


def save_table(frame: pd.DataFrame, name: str, profile: str) -> Path:
    """Write a table as .csv (six digits) and .md, return the .csv path; a named index becomes columns."""
    path = _path(name, profile, "tables", ".csv")
    frame = frame.reset_index() if any(level is not None for level in frame.index.names) else frame
    _write(path.with_suffix(".md"), markdown(frame))
    return _write(path, frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def save_figure(
    figure: Figure, name: str, profile: str, *, photographs: bool = False, images: bool = False
) -> Path | None:
    """Write a figure: PNG for plots, JPEG for grids of rendered `images`; 90 dots per inch, the repository stays small.

    photographs=True says that it shows real photographs: nothing is written, an older file of that name goes.
    """
    path = _path(name, profile, "figures", ".jpg" if images else ".png")
    if photographs:
        path.unlink(missing_ok=True)
        return None
    options = {"pil_kwargs": {"quality": 80}} if images else {"metadata": {"Software": None}}
    figure.savefig(buffer := io.BytesIO(), format=path.suffix[1:], dpi=90, **options)
    return _write(path, buffer.getvalue())


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
    """Versions, device, threads, commit, date (UTC). Names no user, host or folder; imports nothing heavy."""
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


def save_metrics(values: Mapping[str, Any], name: str, profile: str) -> Path:
    """Write numbers as JSON, with the `provenance` they were made under; not-a-number becomes null."""
    return _write_json(
        _path(name, profile, "metrics", ".json"), {**values, "provenance": provenance()}
    )


def save_gpu(name: str, facts: Mapping[str, Any]) -> Path:
    """Write what `klip bench` measured as results/gpu/<name>.json: device, torch and settings, but no date."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(f"report: a gpu file is named in letters, digits, - and _, got {name!r}")
    if missing := sorted({"device", "torch", "settings"} - set(facts)):
        raise ValueError(
            f"report: facts of a GPU must name {', '.join(missing)}; `klip bench` does"
        )
    return _write_json(paths.RESULTS / "gpu" / f"{name}.json", facts)


def speeds() -> pd.DataFrame:
    """What `klip bench` has measured so far (results/gpu/*.json), a row for each file; peak in GiB, of a GPU only."""
    import pandas as pd

    columns = [
        "name",
        "device",
        "model",
        "precision",
        "batch",
        "checkpointing",
        "peak_gib",
        "images_per_s",
        "share_of_matrix_rate",
        "from_jpegs",
        "over_metric_loss_only",
    ]
    rows = []
    for file in sorted((paths.RESULTS / "gpu").glob("*.json")):
        facts = json.loads(file.read_text())
        how, step = facts["settings"], facts["synthetic"]
        peak = step.get("peak_reserved_bytes")
        rows.append(
            (
                file.stem,
                facts["device"],
                facts["model"],
                how["precision"],
                f"{how['batch_size']} in {how['accumulate']}",
                how["checkpointing"],
                None if peak is None else peak / 2**30,
                step["images_per_s"],
                facts["share_of_matrix_rate"],
                facts["jpeg_fed"]["images_per_s"],
                facts["beside_metric_loss_only"]["ratio"],
            )
        )
    return pd.DataFrame(rows, columns=columns)


def read_metrics(name: str, profile: str) -> dict[str, Any]:
    """What another notebook wrote."""
    path = _path(name, profile, "metrics", ".json")
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; notebook {name.split('_')[0]} writes it: "
            f"run `make reproduce PROFILE={profile}`"
        )
    return json.loads(path.read_text())


def all_metrics(profile: str) -> dict[str, dict[str, Any]]:
    """What the notebooks of a profile have written so far, by name."""
    files = sorted((folder(profile) / "metrics").glob("*.json"))
    return {file.stem: json.loads(file.read_text()) for file in files}


def paper_number(label: str) -> float | None:
    """RetailKLIP's published percent for the set that `label` begins with, or that it mirrors."""
    return published.of_row(label.split()[0])


def _sets(profile: str) -> dict[str, dict[str, Any]]:
    """`sets` of 04_zero_shot.json: label -> queries, products, and fractions frozen, fine_tuned, difference, low, high.

    A label is a set's name, perhaps with more words after it (the gallery rule).  Where measured there are also floor
    (SIFT, the same queries and packshots) and reranked, each with its _low and _high.
    """
    return all_metrics(profile).get("04_zero_shot", {}).get("sets", {})


def _percent(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{100 * value:{sign}.1f}"


def _interval(row: Mapping[str, Any]) -> str:
    return f"{_percent(row['low'], '+')} to {_percent(row['high'], '+')}"


def summary(profile: str) -> str:
    """The closing table of a run: fine-tuned minus frozen top-1 with 95 % interval, chosen depth, times."""
    lines = [
        f"profile {profile}: top-1 accuracy in percent, one packshot per product",
        f"{'set':<28}{'queries':>8}{'frozen':>8}{'tuned':>8}{'gain':>8}  95 % interval",
    ]
    for label, row in _sets(profile).items():
        shown = (
            _percent(row["frozen"]),
            _percent(row["fine_tuned"]),
            _percent(row["difference"], "+"),
        )
        numbers = "".join(f"{text:>8}" for text in (row["queries"], *shown))
        note = "" if row["low"] is None or row["low"] > 0 else "   not above 0"
        lines.append(f"{label:<28}{numbers}  {_interval(row)}{note}")
    found = all_metrics(profile)
    if (depth := found.get("02_depth", {}).get("depth")) is not None:
        lines.append(f"chosen depth: {depth} images per product")
    times = [
        f"{name} {values['seconds']:.0f} s"
        for name, values in found.items()
        if values.get("seconds")
    ]
    return "\n".join(lines + (["times: " + ", ".join(times)] if times else []))


def _results_table(profile: str) -> str:
    """Ours beside the paper's, in Markdown; says so when there is no run yet."""
    if not _sets(profile):
        return f"No run of profile `{profile}` is stored yet: `make reproduce PROFILE={profile}`.\n"
    lines = [
        "| set | products | queries | chance | SIFT | frozen | fine-tuned | difference (95 % interval) "
        "| re-ranked | paper |",
        "|---|--:|--:|--:|--:|--:|--:|---|--:|--:|",
    ]
    for label, row in _sets(profile).items():
        paper, mirrored = paper_number(label), published.PAPER_SET.get(label.split()[0])
        shown = "-" if paper is None else f"{paper} ({mirrored})" if mirrored else str(paper)
        gain = f"{_percent(row['difference'], '+')} ({_interval(row)})"
        size = (
            row["products"],
            row["queries"],
            _percent(1 / row["products"]),
            _percent(row.get("floor")),
        )
        ours = (
            _percent(row["frozen"]),
            _percent(row["fine_tuned"]),
            gain,
            _percent(row.get("reranked")),
        )
        lines.append("| " + " | ".join(map(str, (label, *size, *ours, shown))) + " |")
    left_out = all_metrics(profile)["04_zero_shot"].get("left_out")
    return "\n".join(lines + [f"\n{left_out}"] * bool(left_out)) + "\n"


def save_claims(profile: str) -> Path:
    """Judge the paper's claims by the stored metrics; write claims.csv and claims.md, return the .csv path.

    Takes from each metrics file `evidence` (records of `claims.evidence`) and `reasons`, see `claims.verdicts`.
    """
    from klip.stats import claims

    found = all_metrics(profile).values()
    if not found:
        raise FileNotFoundError(
            f"{folder(profile) / 'metrics'} has no numbers to judge the claims by: "
            f"run `make reproduce PROFILE={profile}`"
        )
    reasons: dict[str, list[str]] = {}
    for number, reason in (item for values in found for item in values.get("reasons", {}).items()):
        reasons.setdefault(number, []).append(reason)
    ledger = claims.verdicts(
        [row for values in found for row in values.get("evidence", [])],
        {number: "; ".join(given) for number, given in reasons.items()},
    )
    _write(folder(profile) / "claims.md", markdown(ledger))
    return _write(folder(profile) / "claims.csv", ledger.to_csv(index=False, lineterminator="\n"))


def _ledger(profile: str) -> str:
    """claims.md; says so when there is none yet."""
    path = folder(profile) / "claims.md"
    if path.is_file():
        return path.read_text()
    return f"The claims are not judged for profile `{profile}` yet: `make reproduce PROFILE={profile}`.\n"


def readme(text: str) -> str:
    """README's text with what stands between `<!-- KIND:PROFILE -->` and `<!-- /KIND -->` made anew.

    Three kinds: `results`, ours beside the paper's numbers, `claims`, the ledger, and `speed:all`, see `speeds`.
    """
    tables = {
        "results": _results_table,
        "claims": _ledger,
        "speed": lambda _: markdown(speeds().round(3)),
    }
    return re.sub(
        r"(<!-- (results|claims|speed):(\w+) -->\n).*?(<!-- /\2 -->)",
        lambda match: match[1] + tables[match[2]](match[3]) + match[4],
        text,
        flags=re.DOTALL,
    )


def fill_readme() -> None:
    """Put the stored results into README.md."""
    path = paths.ROOT / "README.md"
    _write(path, readme(path.read_text()))


def write_report(profile: str) -> Path:
    """Write results/<profile>/report.md: summary, claims (`save_claims`), each notebook's results, provenance."""
    found = all_metrics(profile)
    kinds: dict[str, Callable[[Path], str]] = {
        "tables/*.md": lambda file: file.read_text(),
        "figures/*": lambda file: f"![{file.stem}](figures/{file.name})\n",
        "metrics/*.json": lambda file: _listing(found[file.stem]),
    }
    parts = [
        f"# Results of profile {profile}\n",
        f"```\n{summary(profile)}\n```\n",
        _results_table(profile),
    ]
    if found:
        save_claims(profile)
        parts += ["## The paper's claims\n", _ledger(profile)]
    files = [
        (file.name.split("_")[0], order, file.name, show(file))
        for order, (kind, show) in enumerate(kinds.items())
        for file in folder(profile).glob(kind)
        if not file.name.startswith(".")
    ]
    for number, own in itertools.groupby(sorted(files), key=lambda file: file[0]):
        parts.append(f"## Notebook {number}\n")
        parts += [part for _, _, name, content in own for part in (f"### {name}\n", content)]
    if made := [values["provenance"] for values in found.values() if "provenance" in values]:
        parts += [
            "## Provenance of the last notebook\n",
            _listing(max(made, key=lambda item: item["date"])),
        ]
    return _write(folder(profile) / "report.md", "\n".join(parts))


def _listing(values: Mapping[str, Any]) -> str:
    """The single numbers and words of one metrics file; nested ones stay in the file."""
    single = {
        name: value
        for name, value in values.items()
        if not isinstance(value, dict | list) and value != ""
    }
    return "".join(
        f"- {name}: {f'{value:.4g}' if isinstance(value, float) else value}\n"
        for name, value in single.items()
    )
