"""The two lists of pins agree with each other and with what is installed; README's commands exist."""

import re
import subprocess
import tomllib
from importlib import metadata

import pytest
import yaml

from klip.settings import config, paths

WHOLE = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())
PROJECT = WHOLE["project"]
CONDA = (paths.ROOT / "environment.yml").read_text()
MAKEFILE = (paths.ROOT / "Makefile").read_text()
TOLD = [paths.ROOT / "README.md", *sorted((paths.ROOT / "docs").glob("*.md"))]
README = "\n".join(path.read_text() for path in TOLD)


def test_pyproject_and_environment_hold_the_same_pins():
    *_, pip = yaml.safe_load(CONDA)["dependencies"]
    assert [pin for pin in pip["pip"] if pin != "-e ."] == PROJECT["dependencies"]


def test_every_pin_is_exact_and_has_a_reason():
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+==[0-9.]+", pin) for pin in PROJECT["dependencies"])
    lines = [
        line
        for line in CONDA.split("\ndependencies:\n")[1].splitlines()
        if not line.endswith("pip:")
    ]
    assert [line for line in lines if not re.search(r"\S  # \w", line)] == []


@pytest.mark.parametrize("pin", PROJECT["dependencies"])
def test_the_pinned_version_is_the_one_installed(pin):
    name, version = pin.split("==")
    assert metadata.version(name) == version, "run `make install`"


def test_readme_is_short():
    assert len(TOLD[0].read_text().split()) <= 900


@pytest.mark.parametrize("path", TOLD, ids=lambda path: path.name)
def test_links_of_the_docs_lead_to_files(path):
    links = re.findall(r"\]\((?!http)([^)#]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_commands_of_the_readme_exist():
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, flags=re.MULTILINE))
    assert {"reproduce", "test"} <= named <= targets
    assert targets == set(re.search(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)[1].split())


@pytest.mark.parametrize(
    "target",
    ["install", "reproduce", "test", "lint", "lab", "copies", "lab-edit", "refresh", "clean"],
)
def test_make_knows_its_targets(target):
    done = subprocess.run(["make", "-n", target], cwd=paths.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_rule_of_nbval_is_complete_and_leaves_counts_alone():
    rules = (paths.NOTEBOOKS / "nbval.cfg").read_text()
    # nbval skips any other form in silence
    pairs = re.findall(r"^regex: (.*)\nreplace: (\S.*)$", rules, flags=re.MULTILINE)
    assert len(pairs) == rules.count("regex:") == rules.count("[seconds]")
    shown = "took 12.5 s; 240 products, 8 seeds"
    for pattern, new in pairs:
        shown = re.sub(pattern, new, shown)
    assert shown == "took SECONDS; 240 products, 8 seeds"


def test_profiles_hold_what_differs_from_nano_and_are_valid():
    nano = config.Settings().model_dump()
    for name in set(config.profiles()) - {"nano"}:
        stored = yaml.safe_load((paths.PROFILES / f"{name}.yaml").read_text())
        checked = config.Settings(**stored).model_dump()
        assert {key: checked[key] for key in stored} == stored and checked["profile"] == name
        assert all(value != nano[key] for key, value in stored.items()), name
        types = {key: type(value) for key, value in checked.items()}
        assert {key: type(value) for key, value in stored.items()}.items() <= types.items(), name
    assert {"real", "shelf", "paper"} <= set(config.profiles())


def test_no_path_of_a_machine_in_what_is_committed():
    done = subprocess.run(["git", "ls-files"], cwd=paths.ROOT, capture_output=True, text=True)
    kinds = (".py", ".md", ".ipynb", ".yml", ".yaml", ".toml", ".json", ".csv", ".cfg", "Makefile")
    # Absolute paths, as they get into outputs and metadata: below a usual top folder, or of this very checkout.
    tops = "home|Users|root|tmp|work|workspace|mnt|srv|media|opt|data|var|private|builds?|repo|app"
    private = re.compile(rf"(?<![\w.:/~<>{{}}*-])/(?:{tops})/\w|" + re.escape(str(paths.ROOT)))
    files = [paths.ROOT / name for name in done.stdout.splitlines() if name.endswith(kinds)]
    found = [file.name for file in files if file.is_file() and private.search(file.read_text())]
    assert found == []


def test_the_lock_holds_every_pin_with_hashes():
    text = (paths.ROOT / "requirements.lock").read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) > 100 and all("--hash=sha256:" in entry for entry in entries)
    locked = {entry.split()[0].lower().replace("_", "-") for entry in entries}
    missing = [
        pin for pin in PROJECT["dependencies"] if pin.lower().replace("_", "-") not in locked
    ]
    assert not missing, f"run `make lock`: {missing}"
    assert "://" not in text  # no host of a registry


def test_actions_are_pinned_by_commit():
    for file in (paths.ROOT / ".github/workflows").iterdir():
        for used in re.findall(r"uses: (\S+)", file.read_text()):
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", used), used
