"""Exercises of the notebooks: enough of each kind, solutions folded, checked and harmless, answers for the teacher."""

import json
import re
import symtable

import pytest

from klip.settings import paths

NAMES = sorted(path.stem for path in paths.NOTEBOOKS.glob("*.ipynb"))
LEAST = 24
"""Exercises over all notebooks; of each kind at least one in each."""
FOLDED = {"source_hidden": True, "outputs_hidden": True}
KINDS = {"predict before running", "change one parameter", "break it on purpose"}


def load(name):
    """(text, cell) of every cell."""
    cells = json.loads((paths.NOTEBOOKS / f"{name}.ipynb").read_text())["cells"]
    return [("".join(cell["source"]), cell) for cell in cells]


def exercises(name):
    """(number, kind, solution's text, its cell) of every question before a code cell."""
    cells = load(name)
    for (question, _), (solution, cell) in zip(cells, cells[1:], strict=False):
        asked = re.match(r"\*\*Exercise ([\dA-Z]+\.\d+)\*\* \(([^)]+)\)\. \S", question)
        if asked and cell["cell_type"] == "code":
            yield *asked.groups(), solution, cell


def assigned(source):
    """Names that a cell gives a value; those inside a comprehension stay inside."""
    symbols = symtable.symtable(source, "cell", "exec").get_symbols()
    return {symbol.get_name() for symbol in symbols if symbol.is_assigned()}


def test_there_are_exercises_enough():
    assert sum(len(list(exercises(name))) for name in NAMES) >= LEAST


@pytest.mark.parametrize("name", NAMES)
def test_exercises_are_numbered_and_of_every_kind(name):
    numbers, kinds, solutions, _ = zip(*exercises(name), strict=True)
    first = name.split("_")[0].lstrip("0") or "0"
    assert list(numbers) == [f"{first}.{k}" for k in range(1, len(numbers) + 1)]
    assert set(kinds) == KINDS
    for number, solution in zip(numbers, solutions, strict=True):
        assert solution.startswith(f"# Solution {number}\n# "), "its second line says why"


@pytest.mark.parametrize("name", NAMES)
def test_solutions_are_folded_checked_and_stored(name):
    for number, _, _, cell in exercises(name):
        assert cell["metadata"].get("jupyter") == FOLDED, number
        assert cell["metadata"].get("tags") == ["nbval-check-output"], number
        assert cell["execution_count"] and cell["outputs"], f"never run: {number}"


@pytest.mark.parametrize("name", NAMES)
def test_solutions_disturb_no_variable_of_the_notebook(name):
    solutions = [solution for _, _, solution, _ in exercises(name)]
    others = [text for text, cell in load(name) if cell["cell_type"] == "code"]
    theirs = assigned("\n".join(text for text in others if text not in solutions))
    for solution in solutions:
        assert not assigned(solution) & theirs, solution


@pytest.mark.parametrize("name", NAMES)
def test_it_ends_with_what_was_learned(name):
    *_, (head, _), (source, cell), (last, _) = load(name)
    assert "What we learned, what we cannot say, what to try next" in head
    assert cell["cell_type"] == "code" and cell["outputs"] and 'print(f"' in source
    assert re.match(r"\*What we cannot say\.\*.+\n\n\*Try next\.\*", last)


def test_the_teacher_has_an_answer_to_every_exercise():
    page = (paths.ROOT / "docs" / "teaching.md").read_text()
    answered = re.findall(r"^\| ([\dA-Z]+\.\d+) \| \S", page, flags=re.M)
    assert answered == [number for name in NAMES for number, *_ in exercises(name)]
    assert len(page.splitlines()) < 120
