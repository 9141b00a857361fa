"""The house: imports go strictly down, and the lower floors need no torch."""

import ast
import subprocess
import sys

import pytest

from klip import paths, reproduce

FLOORS = [
    {"paths", "config", "published", "sources", "images", "files"},
    {"longtail", "balance", "metrics", "outcomes", "claims", "shop"},
    {"shards", "layouts", "crops", "lists", "data", "fetch", "augment", "device", "towers", "imagenet", "hub",
     "weights", "encoder", "blocks", "arcface", "triplet", "checkpoint", "keypoints", "ranks", "heldout",
     "nearest", "rerank"},
    {"train", "sweep", "gallery", "zeroshot", "openset", "baselines", "budgets", "prompts", "arrival",
     "projection", "measure",
     "activations", "memory"},
    {"figures", "tables", "report", "reproduce", "cli", "nano", "corpus", "bench", "__main__"},
]
WITHIN = {("config", "paths"), ("fetch", "data"), ("lists", "layouts"), ("lists", "crops"), ("data", "layouts"),
          ("data", "lists"), ("data", "shards"), ("encoder", "augment"), ("encoder", "data"),
          ("encoder", "towers"), ("encoder", "device"), ("encoder", "weights"), ("weights", "hub"),
          ("weights", "imagenet"), ("weights", "augment"), ("hub", "towers"), ("hub", "augment"),
          ("baselines", "train"), ("baselines", "zeroshot"), ("budgets", "baselines"), ("prompts", "zeroshot"),
          ("arrival", "zeroshot"),
          ("blocks", "towers"), ("heldout", "encoder"), ("heldout", "data"), ("arcface", "triplet"),
          ("keypoints", "data"), ("nano", "corpus"),
          ("rerank", "data"), ("rerank", "keypoints"), ("zeroshot", "gallery"), ("openset", "zeroshot"),
          ("reproduce", "report"), ("report", "tables"), ("cli", "reproduce"),
          ("cli", "report"), ("cli", "bench"), ("__main__", "cli"), ("sweep", "train"), ("memory", "activations")}
"""The few imports inside a floor; anything else there would soon be a knot."""
FLOOR = {module: number for number, modules in enumerate(FLOORS) for module in modules}
PACKAGE = paths.ROOT / "klip"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def part(path):
    """shop/design.py -> shop; report.py -> report."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_strictly_down(path):
    mine = part(path)
    assert mine in FLOOR, f"{path.name} has no floor; add it to the table above"
    package = ".".join(["klip", *path.relative_to(PACKAGE).parts[:-1]])
    for name in reproduce.imports(ast.parse(path.read_text()), package):
        other = name.split(".")[1] if "." in name else mine
        if other != mine and other in FLOOR and (mine, other) not in WITHIN:
            assert FLOOR[other] < FLOOR[mine], f"{mine} imports {other}, which is not below it"


def test_no_two_modules_import_each_other():
    assert not {(low, high) for high, low in WITHIN} & WITHIN


def test_the_lower_floors_import_without_torch():
    low = [path.relative_to(paths.ROOT).with_suffix("") for path in FILES if FLOOR[part(path)] <= 1]
    names = [".".join(path.parts) for path in low]
    code = f"import sys\nfor name in {names}: __import__(name)\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=paths.ROOT)
    assert done.stdout == "False\n", done.stderr
