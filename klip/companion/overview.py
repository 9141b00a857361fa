"""What the stored results say, as text: the closing table, README's tables, report.md."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from klip.companion import report
from klip.companion.tables import markdown
from klip.settings import paths
from klip.stats import published


def _sets(profile: str) -> dict[str, dict[str, Any]]:
    """`sets` of 04_zero_shot.json: label -> its numbers.

    A label is a set's name, perhaps with more words after it (the gallery rule).  Numbers:
    queries, products, and the fractions frozen, fine_tuned, difference, low, high; where
    measured also floor (SIFT, the same queries and packshots) and reranked.
    """
    return report.all_metrics(profile).get("04_zero_shot", {}).get("sets", {})


def _percent(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{100 * value:{sign}.1f}"


def _interval(row: Mapping[str, Any]) -> str:
    return f"{_percent(row['low'], '+')} to {_percent(row['high'], '+')}"


def summary(profile: str) -> str:
    """The closing table of a run: fine-tuned minus frozen top-1, chosen depth, times."""
    lines = [
        f"profile {profile}: top-1 accuracy in percent, one packshot per product",
        f"{'set':<28}{'queries':>8}{'frozen':>8}{'tuned':>8}{'gain':>8}  95 % interval",
    ]
    for label, row in _sets(profile).items():
        gain = _percent(row["difference"], "+")
        shown = (row["queries"], _percent(row["frozen"]), _percent(row["fine_tuned"]), gain)
        numbers = "".join(f"{text:>8}" for text in shown)
        note = "" if row["low"] is None or row["low"] > 0 else "   not above 0"
        lines.append(f"{label:<28}{numbers}  {_interval(row)}{note}")
    found = report.all_metrics(profile)
    depth = found.get("02_depth", {}).get("depth")
    if depth is not None:
        lines.append(f"chosen depth: {depth} images per product")
    taken = {name: values.get("seconds") for name, values in found.items()}
    times = [f"{name} {seconds:.0f} s" for name, seconds in taken.items() if seconds]
    if times:
        lines.append("times: " + ", ".join(times))
    return "\n".join(lines)


def results_table(profile: str) -> str:
    """Ours beside the paper's, in Markdown; says so when there is no run yet."""
    if not _sets(profile):
        return f"No run of profile `{profile}` is stored yet: `make reproduce PROFILE={profile}`.\n"
    lines = [
        "| set | products | queries | chance | SIFT | frozen | fine-tuned "
        "| difference (95 % interval) | re-ranked | paper |",
        "|---|--:|--:|--:|--:|--:|--:|---|--:|--:|",
    ]
    for label, row in _sets(profile).items():
        paper = report.paper_number(label)
        mirrored = published.PAPER_SET.get(label.split()[0])
        shown = "-" if paper is None else str(paper)
        if paper is not None and mirrored:
            shown = f"{paper} ({mirrored})"
        floor, reranked = _percent(row.get("floor")), _percent(row.get("reranked"))
        size = (row["products"], row["queries"], _percent(1 / row["products"]), floor)
        gain = f"{_percent(row['difference'], '+')} ({_interval(row)})"
        ours = (_percent(row["frozen"]), _percent(row["fine_tuned"]), gain, reranked)
        lines.append("| " + " | ".join(map(str, (label, *size, *ours, shown))) + " |")
    left_out = report.all_metrics(profile)["04_zero_shot"].get("left_out")
    if left_out:
        lines.append(f"\n{left_out}")
    return "\n".join(lines) + "\n"


def _ledger(profile: str) -> str:
    """claims.md; says so when there is none yet."""
    path = report.folder(profile) / "claims.md"
    if path.is_file():
        return path.read_text()
    return f"The claims are not judged for profile `{profile}` yet: `make reproduce PROFILE={profile}`.\n"


def readme(text: str) -> str:
    """README's text with what stands between `<!-- KIND:PROFILE -->` and `<!-- /KIND -->`
    made anew.

    Three kinds: `results`, ours beside the paper's numbers, `claims`, the ledger, and
    `speed:all`, see `report.speeds`.
    """

    def filled(match: re.Match[str]) -> str:
        start, kind, profile, end = match.groups()
        if kind == "speed":
            return start + markdown(report.speeds().round(3)) + end
        return start + (results_table if kind == "results" else _ledger)(profile) + end

    block = r"(<!-- (results|claims|speed):(\w+) -->\n).*?(<!-- /\2 -->)"
    return re.sub(block, filled, text, flags=re.DOTALL)


def fill_readme() -> None:
    """Put the stored results into README.md."""
    path = paths.ROOT / "README.md"
    report.write(path, readme(path.read_text()))


def write_report(profile: str) -> Path:
    """Write results/<profile>/report.md: summary, claims (`save_claims`), results, provenance."""
    found, folder = report.all_metrics(profile), report.folder(profile)
    parts = [f"# Results of profile {profile}\n", f"```\n{summary(profile)}\n```\n"]
    parts.append(results_table(profile))
    if found:
        report.save_claims(profile)
        parts += ["## The paper's claims\n", _ledger(profile)]
    shown = [*folder.glob("tables/*.md"), *folder.glob("figures/*"), *folder.glob("metrics/*")]
    numbers = {file.name.split("_")[0] for file in shown if not file.name.startswith(".")}
    for number in sorted(numbers):
        parts += [f"## Notebook {number}\n", *_of_notebook(number, folder)]
    made = [values["provenance"] for values in found.values() if "provenance" in values]
    if made:
        last = max(made, key=lambda item: item["date"])
        parts += ["## Provenance of the last notebook\n", _listing(last)]
    return report.write(folder / "report.md", "\n".join(parts))


def _of_notebook(number: str, folder: Path) -> list[str]:
    """Its tables, figures and numbers, by name."""
    parts = []
    for file in sorted(folder.glob(f"tables/{number}_*.md")):
        parts += [f"### {file.name}\n", file.read_text()]
    for file in sorted(folder.glob(f"figures/{number}_*")):
        parts += [f"### {file.name}\n", f"![{file.stem}](figures/{file.name})\n"]
    for file in sorted(folder.glob(f"metrics/{number}_*.json")):
        parts += [f"### {file.name}\n", _listing(json.loads(file.read_text()))]
    return parts


def _listing(values: Mapping[str, Any]) -> str:
    """The single numbers and words of one metrics file; nested ones stay in the file."""
    lines = []
    for name, value in values.items():
        if isinstance(value, dict | list) or value == "":
            continue
        lines.append(f"- {name}: {f'{value:.4g}' if isinstance(value, float) else value}\n")
    return "".join(lines)
