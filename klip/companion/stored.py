"""What runs have stored under results/: where it lies, and whether it belongs together."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from klip.settings import config, paths


def folder(place: str) -> Path:
    """results/<place>: a profile, or a name of `notebook.place`; ValueError for another."""
    config.known_profile(profile_of(place))
    return paths.RESULTS / place


def profile_of(place: str) -> str:
    """The profile whose values, or changes of them, a place is for."""
    return place.split("+")[0]


def command(place: str) -> str:
    """The command that makes the results of its profile."""
    return f"make reproduce PROFILE={profile_of(place)}"


def path(name: str, place: str) -> Path:
    """File of a name as tables/02_depths.csv."""
    if not re.fullmatch(r"\w+/((\d\d|[A-Z])_[a-z0-9_]+|cost)\.\w+", name):
        raise ValueError(
            f"report: a name begins with its notebook's number, as 02_depth_curve, got {name!r}"
        )
    return folder(place) / name


def read_metrics(name: str, place: str) -> dict[str, Any]:
    """What another notebook wrote; FileNotFoundError where it has not run."""
    file = path(f"metrics/{name}.json", place)
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} is missing; notebook {name.split('_')[0]} writes it: run `{command(place)}`"
        )
    return json.loads(file.read_text(encoding="utf-8"))


def all_metrics(place: str) -> dict[str, dict[str, Any]]:
    """What the notebooks of a profile have written so far, by name."""
    files = sorted((folder(place) / "metrics").glob("*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def sets(place: str) -> dict[str, dict[str, Any]]:
    """Set and gallery rule -> numbers (results/README.md): `sets` of 04_zero_shot.json, and
    what 05_baselines.json has of the same rows."""
    found = all_metrics(place)
    own = found.get("04_zero_shot", {}).get("sets", {})
    beside = found.get("05_baselines", {}).get("sets", {})
    return {label: row | beside.get(label, {}) for label, row in own.items()}


def evidence(place: str) -> list[dict[str, Any]]:
    """The rows that all notebooks stored for the claims, see `klip.stats.claims`."""
    return [row for metrics in all_metrics(place).values() for row in metrics.get("evidence", ())]


def reasons(place: str) -> dict[str, str]:
    """Claim -> why it, or a part of it, could not be tested, from all notebooks."""
    told: dict[str, str] = {}
    for metrics in all_metrics(place).values():
        for number, reason in metrics.get("reasons", {}).items():
            told[number] = f"{told[number]}; {reason}" if number in told else reason
    return told


def lost(metrics: Mapping[str, Any]) -> list[Path]:
    """Encoders that some metrics name and that are not in the cache any more."""
    named = [*metrics.get("checkpoints", ()), *metrics.get("averages", ())]
    return [paths.CACHE / file for file in named if not (paths.CACHE / file).is_file()]


def made_with(metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether some metrics hold their settings, and none of them is another now."""
    before = metrics.get("settings", {})
    return bool(before) and all(before[key] == settings.get(key, before[key]) for key in before)


def of_one_run(found: Mapping[str, Mapping[str, Any]]) -> None:
    """ValueError where metrics of different settings lie together: no report mixes them."""
    first: dict[str, tuple[str, Any]] = {}
    for name, metrics in found.items():
        for key, value in metrics.get("settings", {}).items():
            other, before = first.setdefault(key, (name, value))
            if value != before:
                raise ValueError(
                    f"report: {other} was made with {key}={before} and {name} with "
                    f"{key}={value}; bring them together: run `make reproduce`"
                )


def unlike_profile(place: str) -> str:
    """A sentence on the settings of a run that are not its profile's; "" if all are."""
    usual = config.Settings(**config.profile_values(profile_of(place))).model_dump()
    changes = {
        name: value
        for metrics in all_metrics(place).values()
        for name, value in metrics.get("settings", {}).items()
        if name in usual and value != usual[name]
    }
    told = ", ".join(f"{name}={value}" for name, value in changes.items())
    return f"Made with settings unlike the profile's: {told}." if told else ""
