"""The house: who may import whom, names come from where they are made, and `import klip` needs no torch."""

import ast
import importlib.util
import subprocess
import sys

import pytest

from klip.settings import paths

ABOVE = {"settings", "shop", "stats", "data", "model", "finetuning", "recognise", "companion"}
MAY_IMPORT = {
    "settings": set(),
    "shop": {"settings"},
    "stats": {"settings"},
    "data": {"settings"},
    "model": {"settings", "data.images"},
    "finetuning": {"settings", "data", "model"},
    "recognise": {"settings", "data", "model", "stats", "finetuning"},
    "companion": {"settings", "data", "stats"},
    "pretrain": ABOVE,
    "scale": ABOVE,
    "cli": ABOVE | {"pretrain", "scale"},
}
"""Room -> the rooms, or single files of them, from which it may import; rooms are folders of klip/."""
ON_DEMAND = {("data/layouts.py", "shop")}
"""Inside a function: a rendered set that is not there yet is rendered."""
PACKAGE = paths.ROOT / "klip"
FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path):
    parts = path.relative_to(paths.ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imported(tree):
    """(module of klip, name taken from it or "", is it inside a function?) of every import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "klip":
                    yield alias.name, "", node.col_offset > 0
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "klip":
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (
                    (whole, "", node.col_offset > 0)
                    if whole in MODULES
                    else (node.module, alias.name, node.col_offset > 0)
                )


def room_of(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_room_imports_what_it_may(path):
    name, mine = path.relative_to(PACKAGE).as_posix(), room_of(module_of(path))
    if not mine or mine == "__main__":  # the package itself imports nothing at once
        return
    assert mine in MAY_IMPORT, f"klip/{mine} is no room; add it to the table above"
    for module, _, inside in imported(ast.parse(path.read_text())):
        other = room_of(module)
        allowed = MAY_IMPORT[mine] | {mine}
        if (
            other in allowed
            or module.removeprefix("klip.") in allowed
            or (inside and (name, other) in ON_DEMAND)
        ):
            continue
        pytest.fail(
            f"{name} imports {module}; {mine} may import {', '.join(sorted(MAY_IMPORT[mine])) or 'nothing'}"
        )


def test_no_file_imports_itself_in_a_circle():
    uses = {
        module: {other for other, _, inside in imported(ast.parse(path.read_text())) if not inside}
        for module, path in MODULES.items()
    }
    waiting = dict(uses)
    while waiting:
        done = [
            module for module, others in waiting.items() if not others & waiting.keys() - {module}
        ]
        assert done, f"these import each other: {', '.join(sorted(waiting))}"
        for module in done:
            del waiting[module]


def made_in(module):
    """Names that a module makes itself, at its top."""
    names = set()
    for node in ast.parse(MODULES[module].read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {
                part.id
                for target in targets
                for part in ast.walk(target)
                if isinstance(part, ast.Name)
            }
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_names_come_from_where_they_are_made(path):
    tree = ast.parse(path.read_text())
    modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("klip"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in MODULES:
                    modules[alias.asname or alias.name] = whole
                else:
                    assert alias.name in made_in(node.module), (
                        f"{node.module} only borrowed {alias.name}"
                    )
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in modules
        ):
            module = modules[node.value.id]
            assert node.attr in made_in(module), f"{module} only borrowed {node.attr}"


def test_the_encoder_does_not_reach_the_renderer():
    waiting, reached = ["klip.model.encoder"], set()
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += [other for other, _, _ in imported(ast.parse(MODULES[module].read_text()))]
    assert "klip.data.images" in reached and not any(
        room_of(module) == "shop" for module in reached
    )


@pytest.mark.parametrize(
    "module", ["klip", "klip.cli", "klip.data.catalogue", "klip.stats.metrics", "klip.shop.sets"]
)
def test_what_needs_no_torch_imports_none(module):
    code = f"import sys, {module}; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=paths.ROOT
    )
    assert done.stdout == "False\n", done.stderr


def test_the_public_face():
    import klip

    assert set(klip.__all__) == {
        "load_catalogue",
        "load_encoder",
        "FinetuneConfig",
        "finetune",
        "Gallery",
        "evaluate",
        "embed",
        "sweep",
    }
    for name in klip.__all__:
        thing = getattr(klip, name)
        assert thing.__doc__ and thing.__module__.startswith("klip."), name
    with pytest.raises(AttributeError, match="klip has no 'train'"):
        klip.train  # noqa: B018


def test_the_picture_in_the_docs_is_in_step():
    """docs/house.svg is what docs/house.py draws of these imports."""
    spec = importlib.util.spec_from_file_location("house", paths.ROOT / "docs" / "house.py")
    house = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(house)
    assert house.PICTURE.read_text() == house.draw(), "run `python docs/house.py`"
    assert set(house.PLACES) == set(MAY_IMPORT)
