"""The manners of the committed notebooks: readable, runnable with parameters, and checkable."""

import ast
import json
import re
import statistics

import pytest

from klip.companion.notebook import Notebook
from klip.settings import config, paths

SHARING = ["01_long_tail", "02_depth_sweep", "03_finetune", "04_zero_shot", "05_baselines",
           "06_new_products", "07_umap", "08_claims"]  # fmt: skip
"""Those with the shared parameters cell."""
NUMBERED = ["00_five_minutes", *SHARING]
NAMES = [*NUMBERED, "A_nano_backbone", "B_what_it_costs"]
SECTIONS = {"1", "2", "3", "4", "4.1", "4.1.1", "4.1.2", "4.1.3", "4.2", "5", "5.1"}
"""Sections that the paper has."""
TAGS = {"parameters", "nbval-check-output", "nbval-skip"}
FORMULAS, LINKS, DRAWINGS, BY_HAND = 12, 30, 8, 8
"""The least of each over all notebooks: a lesson has formulas, sources, pictures, and sums."""
COLUMNS = 5
"""Of a table that is shown, at most; its index comes on top."""
CHECKED = 4
"""Cells per notebook whose output a new run must repeat."""


def load(name):
    path = paths.NOTEBOOKS / f"{name}.ipynb"
    if not path.is_file():
        pytest.fail(f"notebooks/{name}.ipynb is missing")
    return json.loads(path.read_text())


def text(cell):
    return "".join(cell["source"])


def tags(cell):
    return set(cell["metadata"].get("tags", ()))


def code(name):
    return [cell for cell in load(name)["cells"] if cell["cell_type"] == "code"]


def parameters(name):
    (cell,) = [cell for cell in code(name) if "parameters" in tags(cell)]
    return cell


def test_the_notebooks_are_these():
    assert sorted(path.stem for path in paths.NOTEBOOKS.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_kernel_is_python3(name):
    assert load(name)["metadata"]["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize("name", NAMES)
def test_size_stays_under_a_megabyte(name):
    assert (paths.NOTEBOOKS / f"{name}.ipynb").stat().st_size < 1_000_000


@pytest.mark.parametrize("name", NAMES)
def test_title_cell_is_the_contract(name):
    first = load(name)["cells"][0]
    title = text(first)
    assert first["cell_type"] == "markdown" and re.match(rf"# {name.split('_')[0]} \S", title)
    assert all(word in title.lower() for word in ("reads", "writes", "time")) and "?" in title
    sections = set(re.findall(r"§\s?(\d(?:\.\d)*)", title))
    assert sections <= SECTIONS and (sections or name in ("07_umap", "A_nano_backbone"))


@pytest.mark.parametrize("name", NAMES)
def test_sections_that_are_quoted_exist(name):
    prose = "\n".join(text(cell) for cell in load(name)["cells"] if cell["cell_type"] == "markdown")
    assert set(re.findall(r"paper,? §\s?(\d(?:\.\d)*)", prose, flags=re.IGNORECASE)) <= SECTIONS


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_annotated_literals(name):
    source = text(parameters(name))
    for node in ast.parse(source).body:
        assert isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Constant), (
            ast.unparse(node)
        )
    # papermill drops a parameter whose line holds a second equals sign
    assert all(line.count("=") <= 1 for line in source.splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_papermill_sees_every_parameter(name):
    import papermill

    read = Notebook.read(paths.NOTEBOOKS / f"{name}.ipynb").parameters
    assert set(papermill.inspect_notebook(paths.NOTEBOOKS / f"{name}.ipynb")) == set(read)


def test_the_first_notebook_takes_its_settings_as_the_others_do():
    read = Notebook.read(paths.NOTEBOOKS / "00_five_minutes.ipynb").parameters
    shared = config.Settings().model_dump()
    assert read == {name: shared.get(name, "") for name in read}
    assert set(read) - set(shared) == {"photo", "products"}


@pytest.mark.parametrize("name", SHARING)
def test_parameters_are_the_settings_of_nano(name):
    read = Notebook.read(paths.NOTEBOOKS / f"{name}.ipynb").parameters
    assert read == config.Settings().model_dump()
    assert text(parameters(name)) == text(parameters(SHARING[0]))  # one cell, in all of them


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_used_through_settings(name):
    read = Notebook.read(paths.NOTEBOOKS / f"{name}.ipynb")
    tree = ast.parse("\n".join(read.code))
    loaded = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    shared = set(read.parameters) & set(config.Settings.model_fields)
    assert not shared & set(loaded), "write settings.NAME: it is checked"


@pytest.mark.parametrize("name", NAMES)
def test_cells_hold_calls_and_looks(name):
    cells = code(name)
    for number, cell in enumerate(cells):
        source = text(cell)
        for node in ast.walk(ast.parse(source)):
            what = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
            assert not isinstance(node, what), f"a definition belongs in klip/: {source}"
            imported = isinstance(node, ast.Import | ast.ImportFrom)
            assert not imported or number < 3, f"imports stand at the top: {source}"
        assert not re.search(r"""["']\.{0,2}/|^\s*[!%]""", source, flags=re.M), (
            f"path or magic: {source}"
        )
        assert not re.search(r"savefig|to_csv|mkdir|write_|open\(", source), (
            f"only report writes: {source}"
        )
    lengths = [len(text(cell).splitlines()) for cell in cells if "parameters" not in tags(cell)]
    assert max(lengths) <= 15 and statistics.median(lengths) <= 5, lengths


@pytest.mark.parametrize("name", NAMES)
def test_tags_are_the_known_ones(name):
    cells = load(name)["cells"]
    assert set().union(*map(tags, cells)) <= TAGS
    assert sum("parameters" in tags(cell) for cell in cells) == 1
    for before, cell in zip(cells, cells[1:], strict=False):
        if "nbval-skip" in tags(cell):
            assert before["cell_type"] == "markdown" and "skip" in text(before).lower(), "say why"


@pytest.mark.parametrize("name", NUMBERED)
def test_checked_cells_were_run_and_print_text(name):
    checked = [cell for cell in code(name) if "nbval-check-output" in tags(cell)]
    assert len(checked) >= CHECKED
    for cell in checked:
        assert cell["execution_count"] is not None and cell["outputs"], f"never run: {text(cell)}"
        kinds = [
            kind for output in cell["outputs"] for kind in output.get("data", {"text/plain": ""})
        ]
        assert not any("image" in kind for kind in kinds), (
            f"a figure cannot be compared: {text(cell)}"
        )


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_stored_an_error(name):
    outputs = [output for cell in code(name) for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]


@pytest.mark.parametrize("name", NAMES)
def test_every_section_says_what_was_found(name):
    section, found = "", {}
    for cell in load(name)["cells"]:
        head = re.match(r"## \S+ (.+)", text(cell)) if cell["cell_type"] == "markdown" else None
        section = head[1] if head else section
        told = found.setdefault(section, False)
        if cell["cell_type"] == "code" and text(cell).startswith("# Found: "):
            said = "".join("".join(one.get("text", ())) for one in cell["outputs"])
            assert "print(" in text(cell) and said.strip(), text(cell)
            told = True
        found[section] = told
    ends = ("Exercises", "What we learned, what we cannot say, what to try next")
    assert [name for name, told in found.items() if not told and name not in ("", *ends)] == []


@pytest.mark.parametrize("name", NAMES)
def test_tables_that_are_shown_are_narrow(name):
    for cell in code(name):
        for output in cell["outputs"]:
            page = "".join(output.get("data", {}).get("text/html", ()))
            for row in re.findall(r"<tbody>.*?</tr>", page, flags=re.S):
                assert row.count("<td") <= COLUMNS, text(cell)


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_stores_its_image(name):
    for cell in code(name):
        if text(cell).startswith(("# Figure", "# Table and figure")) and "canvas.show" in text(
            cell
        ):
            kinds = {kind for output in cell["outputs"] for kind in output.get("data", {})}
            # Where nothing may be suspicious, a sentence stands in.
            none = {"text/plain"} if "if figure else" in text(cell) else set()
            assert kinds & {"image/png", "image/jpeg", *none}, text(cell)


def prose():
    cells = [cell for name in NAMES for cell in load(name)["cells"]]
    return "\n".join(text(cell) for cell in cells if cell["cell_type"] == "markdown")


def test_ideas_have_formulas_whose_brackets_close():
    parts = prose().split("$$")
    formulas = parts[1::2]
    assert len(parts) % 2 == 1 and len(formulas) >= FORMULAS
    for formula in formulas:
        assert formula.count("{") == formula.count("}"), formula
        pairs = [len(re.findall(rf"\\{side}\b", formula)) for side in ("left", "right")]
        assert pairs[0] == pairs[1], formula


def test_works_are_cited_with_links():
    works = re.findall(
        r"\]\((https://(?:arxiv\.org/abs/\d{4}\.\d{5}|doi\.org/10\.[^)]+))\)", prose()
    )
    assert len(works) >= LINKS
    assert len(set(works)) >= LINKS / 2


def test_ideas_are_drawn_and_the_pictures_are_stored():
    cells = [cell for name in NAMES for cell in code(name)]
    drawn = [cell for cell in cells if re.search(r"\bdrawings(_answers)?\.\w+\(", text(cell))]
    assert len(drawn) >= DRAWINGS
    for cell in drawn:
        kinds = [kind for output in cell["outputs"] for kind in output.get("data", {})]
        assert "image/png" in kinds, text(cell)


@pytest.mark.parametrize("name", NAMES[1:])
def test_what_is_computed_by_hand_is_compared_with_the_library(name):
    compared = [cell for cell in code(name) if "equals the library" in text(cell)]
    computed = [cell for cell in code(name) if re.search(r"^by_hand = ", text(cell), flags=re.M)]
    assert compared
    for cell in compared:
        said = "".join(line for output in cell["outputs"] for line in output["text"])
        assert "nbval-check-output" in tags(cell) and "equals the library: True" in said
    assert all(len(text(cell).splitlines()) <= 10 for cell in computed)
