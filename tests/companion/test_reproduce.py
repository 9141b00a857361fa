"""The runner on toy notebooks: what runs again, what does not, and what a failure leaves behind."""

import json
import os
import subprocess
import sys

import pytest

from klip.companion import report, reproduce
from klip.settings import paths

PARAMETERS = (
    'profile: str = "nano"  # results go to results/<profile>/\neval_sets: str = "grozi-like"\n'
    'depths: str = "1 2"\ntop_lr: float = 2e-4\nseeds: int = 3\nextra: int = 0'
)
START = """from pathlib import Path
from klip.companion import lesson, report
from klip.settings import paths
paths.NOTEBOOKS = Path({folder!r})
settings = lesson.settings({number!r}, globals())"""


def book(path, *cells):
    """Write a notebook with the shared parameters cell, the packing cell and these code cells."""
    start = START.format(folder=str(path.parent), number=path.name.split("_")[0])
    sources = [(PARAMETERS, ["parameters"]), (start, []), *((cell, []) for cell in cells)]
    path.write_text(
        json.dumps(
            {
                "nbformat": 4,
                "nbformat_minor": 5,
                "metadata": {
                    "kernelspec": {
                        "name": "python3",
                        "display_name": "Python 3",
                        "language": "python",
                    }
                },
                "cells": [
                    {"cell_type": "markdown", "id": "title", "metadata": {}, "source": "# Toy"}
                ]
                + [
                    {
                        "cell_type": "code",
                        "id": f"cell{number}",
                        "metadata": {"tags": tags},
                        "source": source,
                        "outputs": [],
                        "execution_count": None,
                    }
                    for number, (source, tags) in enumerate(sources)
                ],
            }
        )
    )


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Two notebooks: 02 depends on depths; 03 on top_lr and on what 02 wrote."""
    for name in ("NOTEBOOKS", "RESULTS", "CACHE", "WEIGHTS"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
        (tmp_path / name.lower()).mkdir()
    for name in ("KLIP_RESULTS", "KLIP_CACHE", "JUPYTER_PREFER_ENV_PATH"):
        monkeypatch.setenv(name, "")  # run() sets them; this puts them back
    book(
        paths.NOTEBOOKS / "02_depth.ipynb",
        "import sys\nprint(sys.executable)",
        'found = {"depth": max(settings.depth_list), "seconds": 1.5}',
        'report.save_metrics(found, "02_depth", place=settings.place, settings=settings)',
    )
    book(
        paths.NOTEBOOKS / "03_train.ipynb",
        'depth = lesson.made_before("02_depth", settings)["depth"]',
        'found = {"product": settings.top_lr * depth}',
        'report.save_metrics(found, "03_train", place=settings.place, settings=settings)',
    )
    return paths.NOTEBOOKS


@pytest.fixture
def quick(shop, monkeypatch):
    """The same, with the cells executed in this process: what runs when is the question, not how."""

    def execute(read, values, where):
        monkeypatch.setenv("KLIP_PLACE", where)
        space = {name: values[name] for name in read.parameters}
        exec("\n".join(read.code), space)
        target = paths.RESULTS / where / "notebooks" / read.path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()

    monkeypatch.setattr(reproduce, "execute", execute)
    monkeypatch.setenv("KLIP_RESULTS", str(paths.RESULTS))
    return shop


def metrics(name):
    """What was written last, in whatever folder of results."""
    files = paths.RESULTS.glob(f"*/metrics/{name}.json")
    return json.loads(max(files, key=lambda file: file.stat().st_mtime_ns).read_text())


def test_papermill_runs_the_chain(shop, capsys):
    given = {"top_lr": "1e-3"}  # text, as a command line gives it
    assert reproduce.run(parameters=given) == ["02_depth", "03_train"]
    assert metrics("03_train")["product"] == pytest.approx(2e-3)
    (executed,) = paths.RESULTS.glob("nano+*/notebooks/02_depth.ipynb")
    printed = capsys.readouterr()
    assert "report.md" in printed.out and "report.html" in printed.out
    assert (executed.parents[1] / "report.html").is_file()
    assert "chosen depth: 2" in printed.out
    assert "02_depth" in printed.err  # the progress bar
    executed = executed.read_text()
    assert sys.executable in executed  # the kernel is this very interpreter
    assert reproduce.run(parameters={"top_lr": 1e-3}) == []


def test_only_what_a_change_decides_runs_again(quick):
    assert reproduce.run() == ["02_depth", "03_train"]
    assert metrics("03_train")["product"] == pytest.approx(2 * 2e-4)
    assert reproduce.run() == []
    both = ["02_depth", "03_train"]  # whichever parameter changes
    assert reproduce.run(parameters={"top_lr": "1e-3"}) == both
    assert metrics("03_train")["product"] == pytest.approx(2e-3)
    assert reproduce.run(parameters={"top_lr": 1e-3}) == []  # the same as text and as a number
    assert reproduce.run(parameters={"top_lr": 1e-3, "seeds": 5}) == both
    changed = {"top_lr": 1e-3, "depths": [4, 8]}
    assert reproduce.run(parameters=changed, only=["03"]) == both  # what 03 reads comes first
    assert metrics("03_train")["product"] == pytest.approx(8e-3)
    assert reproduce.run(parameters={"seeds": 1}, only=["02"]) == ["02_depth"]


def test_metrics_that_changed_rerun_what_reads_them(quick):
    def write_02(found):
        save = f'report.save_metrics({found}, "02_depth", place=settings.place, settings=settings)'
        book(quick / "02_depth.ipynb", save)

    reproduce.run()
    write_02({"depth": 2, "seconds": 9})  # other code, the same result in another time
    assert reproduce.run() == ["02_depth"]
    write_02({"depth": 3})
    assert reproduce.run() == ["02_depth", "03_train"]
    assert metrics("03_train")["product"] == pytest.approx(3 * 2e-4)


def test_a_change_of_klip_runs_everything_again(quick, monkeypatch, tmp_path):
    (tmp_path / "klip" / "shop").mkdir(parents=True)
    file = tmp_path / "klip" / "shop" / "texture.py"
    monkeypatch.setattr(reproduce, "PACKAGE", tmp_path / "klip")
    file.write_text("x = 1")
    reproduce.run()
    assert reproduce.run() == []
    file.write_text("x = 2")
    assert reproduce.run() == ["02_depth", "03_train"]
    (paths.WEIGHTS / "nano.safetensors").write_bytes(b"other weights")
    assert reproduce.run() == ["02_depth", "03_train"]


def test_a_run_that_failed_is_not_up_to_date(quick):
    path = quick / "02_depth.ipynb"
    good = path.read_text()
    reproduce.run(only=["02"])
    save = 'report.save_metrics({"depth": 9}, "02_depth", place=settings.place, settings=settings)'
    book(path, save, 'raise ValueError("too late")')
    with pytest.raises(ValueError, match="too late"):
        reproduce.run(only=["02"])
    path.write_text(good)  # the file of the failed run lies there
    assert reproduce.run(only=["02"]) == ["02_depth"]
    assert metrics("02_depth")["depth"] == 2


def test_a_set_not_at_hand_is_left_out_in_one_line_until_it_arrives(
    quick, monkeypatch, tmp_path, capsys
):
    monkeypatch.setenv("KLIP_DATA", str(tmp_path / "photographs"))
    book(
        quick / "02_depth.ipynb",
        'report.save_metrics({"depth": len(settings.eval_list)}, "02_depth", place="nano")',
    )
    given = {"eval_sets": "grozi-like rp2k"}
    assert reproduce.run(only=["02"], parameters=given) == ["02_depth"]
    assert capsys.readouterr().out.startswith(
        "left out: rp2k (not at hand); `klip data list` says where it comes"
    )
    assert reproduce.run(only=["02"], parameters=given) == []
    (tmp_path / "photographs" / "rp2k" / "train").mkdir(parents=True)
    assert reproduce.run(only=["02"], parameters=given) == ["02_depth"]
    assert "left out" not in capsys.readouterr().out.split("nothing, all is up to date")[-1]
    with pytest.raises(
        FileNotFoundError, match=r"evaluation sets: none is in .*capg-gp \(not at hand\)"
    ):
        reproduce.run(only=["02"], parameters={"eval_sets": "capg-gp"})


def test_prose_does_not_matter_code_and_lost_files_do(quick):
    reproduce.run(only=["02"])
    path = quick / "02_depth.ipynb"
    text = path.read_text().replace("# Toy", "# A better title")
    path.write_text(text.replace('"execution_count": null', '"execution_count": 7'))
    assert reproduce.run(only=["02"]) == []
    (paths.RESULTS / "nano" / "metrics" / "02_depth.json").unlink()
    assert reproduce.run(only=["02"]) == ["02_depth"]
    # The notebook does not write this any more: the next run removes it.
    stale = report.save_metrics({"old": 1}, "02_former", place="nano")
    os.utime(stale, (1, 1))
    book(
        path,
        'report.save_metrics({"depth": 3}, "02_depth", place=settings.place, settings=settings)',
    )
    assert reproduce.run(only=["02"]) == ["02_depth"]
    assert not stale.exists()


def test_a_failing_cell_is_named_and_leaves_nothing_half_written(shop):
    book(shop / "02_depth.ipynb", "x = 1", 'raise ValueError("depth is bad")\nx = 2')
    message = r"notebook 02_depth, cell \[\d\] `raise .*: ValueError: depth is bad; how far"
    with pytest.raises(reproduce.NotebookError, match=message):
        reproduce.run()
    assert [path for path in paths.RESULTS.rglob("*") if path.is_file()] == []
    assert (paths.CACHE / "running" / "nano-02_depth.ipynb").is_file()


def test_wrong_names_and_values_are_refused_before_anything_runs(shop):
    for parameters, message in [
        ({"depht": 8}, "depht is not a setting; did you mean depths"),
        ({"depths": "0"}, "depths must be whole numbers"),
        ({"seeds": "many"}, "seeds must be a valid integer"),
        ({"profile": "real"}, "profile is nano, got 'real'"),
    ]:
        with pytest.raises(ValueError, match=message):
            reproduce.run(parameters=parameters)
    with pytest.raises(
        ValueError, match="profile must be one of nano, paper, real, shelf, got 'nanoo'"
    ):
        reproduce.run("nanoo")
    with pytest.raises(ValueError, match="no notebook '07'; there are 02, 03"):
        reproduce.run(only=["07"])
    assert list(paths.RESULTS.iterdir()) == []


def test_the_appendix_runs_only_when_asked(quick):
    (quick / "03_train.ipynb").unlink()
    book(quick / "A_backbone.ipynb", "extra + 1")
    assert reproduce.run() == ["02_depth"]
    assert reproduce.run(appendix=True) == ["A_backbone"]
    assert reproduce.run(only=["A"], parameters={"extra": 2}) == ["A_backbone"]


def test_refresh_takes_outputs_and_keeps_prose(shop):
    view = {"text/plain": "a sentence", "application/vnd.jupyter.widget-view+json": {}}
    shown = f"from IPython.display import display\ndisplay({view!r}, raw=True)"
    book(shop / "02_depth.ipynb", "import sys\nprint(sys.executable)", shown)
    reproduce.run(only=["02"])
    path = shop / "02_depth.ipynb"
    path.write_text(path.read_text().replace("# Toy", "# A better title"))
    assert reproduce.refresh() == ["02_depth"]
    text = path.read_text()
    (output,) = json.loads(text)["cells"][-1]["outputs"]
    assert list(output["data"]) == ["text/plain"]  # a control's model lives in its kernel only
    assert "A better title" in text and '"execution_count": 1' in text and sys.executable in text
    reproduce.run(only=["02"], parameters={"depths": "4"})
    assert reproduce.refresh() == ["02_depth"]  # other values have results of their own
    assert path.read_text() == text
    path.write_text(text.replace("print(sys", "print(1, sys"))
    with pytest.raises(ValueError, match="02_depth.ipynb differs .* without parameters"):
        reproduce.refresh()


def test_an_up_to_date_call_imports_nothing_heavy():
    code = "import klip.companion.reproduce, sys; print(*sorted({n.split('.')[0] for n in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "pandas", "papermill", "matplotlib", "open_clip"} & set(run.stdout.split())
