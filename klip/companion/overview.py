"""What the stored results say, as text: the closing table, the tables of docs/results.md, report.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from klip.companion import report, stored
from klip.stats.published import PAPER_SET, of_row

RESULTS_HEAD = """\
| set | products | queries | chance | SIFT | frozen | fine-tuned \
| difference (95 % interval) | re-ranked | paper |
|---|--:|--:|--:|--:|--:|--:|---|--:|--:|
"""


def _percent(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{100 * value:{sign}.1f}"


def _interval(row: Mapping[str, Any]) -> str:
    return f"{_percent(row['low'], '+')} to {_percent(row['high'], '+')}"


def summary(place: str) -> str:
    """The closing table of a run: fine-tuned minus frozen top-1, chosen depth, times."""
    lines = [
        f"profile {place}: top-1 accuracy in percent, one packshot per product",
        f"{'set':<28}{'queries':>8}{'frozen':>8}{'tuned':>8}{'gain':>8}  95 % interval",
    ]
    for label, row in stored.sets(place).items():
        frozen, tuned = _percent(row["frozen"]), _percent(row["fine_tuned"])
        numbers = f"{row['queries']:>8}{frozen:>8}{tuned:>8}{_percent(row['difference'], '+'):>8}"
        note = "" if row["low"] is None or row["low"] > 0 else "   not above 0"
        lines.append(f"{label:<28}{numbers}  {_interval(row)}{note}")
    found = stored.all_metrics(place)
    if "depth" in found.get("02_depth", {}):
        lines.append(f"chosen depth: {found['02_depth']['depth']} images per product")
    taken = {name: values.get("seconds") for name, values in found.items()}
    times = [f"{name} {seconds:.0f} s" for name, seconds in taken.items() if seconds]
    if times:
        lines.append("times: " + ", ".join(times))
    return "\n".join(lines)


def results_table(place: str) -> str:
    """Ours beside the paper's, in Markdown; says so when there is no run yet."""
    if not stored.sets(place):
        return f"No run of profile `{place}` is stored yet: `{stored.command(place)}`.\n"
    text = RESULTS_HEAD
    for label, row in stored.sets(place).items():
        name = label.split()[0]
        paper = of_row(name) or "-"
        if name in PAPER_SET:
            paper = f"{paper} ({PAPER_SET[name]})"
        gain = f"{_percent(row['difference'], '+')} ({_interval(row)})"
        cells = [label, row["products"], row["queries"], _percent(1 / row["products"])]
        cells += [_percent(row.get(part)) for part in ("floor", "frozen", "fine_tuned")]
        cells += [gain, _percent(row.get("reranked")), paper]
        text += "| " + " | ".join(map(str, cells)) + " |\n"
    left_out = stored.all_metrics(place)["04_zero_shot"].get("left_out")
    return text + (f"\n{left_out}\n" if left_out else "")


def ledger(place: str) -> str:
    """claims.md; says so when there is none yet."""
    path = stored.folder(place) / "claims.md"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    return f"The claims are not judged for profile `{place}` yet: `{stored.command(place)}`.\n"


def write_report(place: str) -> Path:
    """Write results/<profile>/report.md: summary, claims (`save_claims`), results, provenance."""
    found, folder = stored.all_metrics(place), stored.folder(place)
    stored.of_one_run(found)
    parts = [f"# Results of profile {place}\n", f"```\n{summary(place)}\n```\n"]
    changes = stored.unlike_profile(place)
    if changes:
        parts.append(f"{changes}\n")
    parts.append(results_table(place))
    if found:
        report.save_claims(place)
        parts += ["## The paper's claims\n", ledger(place)]
    kinds = ("tables/[!.]*.md", "figures/[!.]*", "metrics/[!.]*")
    files = [file for kind in kinds for file in sorted(folder.glob(kind))]
    for number in sorted({file.name.split("_")[0] for file in files}):
        parts.append(f"## Notebook {number}\n")
        for file in files:
            if file.name.startswith(f"{number}_"):
                parts += [f"### {file.name}\n", _shown(file)]
    made = [values["provenance"] for values in found.values()]
    if made:
        last = max(made, key=lambda item: item["date"])
        parts += ["## Provenance of the last notebook\n", _listing(last)]
    return report.write(folder / "report.md", "\n".join(parts))


def _shown(file: Path) -> str:
    """A table, a figure, or the single numbers and words of a metrics file."""
    if file.suffix == ".md":
        return file.read_text(encoding="utf-8")
    if file.suffix == ".json":
        return _listing(json.loads(file.read_text(encoding="utf-8")))
    return f"![{file.stem}](figures/{file.name})\n"


def _listing(values: Mapping[str, Any]) -> str:
    """Nested values stay in the file."""
    lines = []
    for name, value in values.items():
        if isinstance(value, float):
            value = f"{value:.4g}"
        if not isinstance(value, dict | list) and value != "":
            lines.append(f"- {name}: {value}\n")
    return "".join(lines)
