"""The chain 00 to 08 with parameters given, as a user would: what one notebook writes reaches the next."""

import json
import re
import shutil
import subprocess

import pytest

from klip.companion import overview, reproduce
from klip.settings import paths

pytestmark = pytest.mark.slow
CACHE = paths.CACHE
"""Of the session: its rendered images serve all tests of this file."""
TINY = {
    "depths": "1 2 4",
    "seeds": 1,
    "sweep_images": 32,
    "images": 32,
    "compare_images": 32,
    "breadth": 12,
    "breadths": "0.5 1",
    "baseline_images": 32,
    "batch_size": 16,
    "gallery_views": 1,
    "workers": 0,
    "eval_sets": "capg-like",
}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Results folder of a run with tiny values; the rendered images of the cache are used as they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "RESULTS", tmp_path_factory.mktemp("results"))
        patch.setenv("KLIP_RESULTS", str(paths.RESULTS))
        patch.setenv("KLIP_CACHE", str(paths.CACHE))
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
        ran = reproduce.run("nano", TINY)
        (folder,) = paths.RESULTS.iterdir()  # one of its own: the values are not the profile's
        yield ran, folder, overview.summary(folder.name)


def metrics(folder, name):
    return json.loads((folder / "metrics" / f"{name}.json").read_text())


def test_the_whole_chain_ran(chain):
    ran, folder, _ = chain
    assert [name[:2] for name in ran] == [f"0{number}" for number in range(9)]
    assert (folder / "report.md").is_file() and (folder / "report.html").is_file()


def test_given_values_reach_what_is_written(chain):
    _, folder, summary = chain
    depth = metrics(folder, "02_depth")["depth"]
    assert depth in (1, 2, 4) and f"chosen depth: {depth}" in summary
    (label, row), *others = metrics(folder, "04_zero_shot")["sets"].items()
    assert label.split()[0] == "capg-like" and all(
        name.split()[0] == "capg-like" for name, _ in others
    )
    assert row["difference"] == pytest.approx(row["fine_tuned"] - row["frozen"], abs=1e-6)
    assert row["low"] <= row["difference"] <= row["high"]


def test_every_file_that_a_title_cell_promises_is_written(chain):
    _, folder, _ = chain
    for path in sorted(paths.NOTEBOOKS.glob("0*.ipynb")):
        title = "".join(json.loads(path.read_text())["cells"][0]["source"])
        row = next(line for line in title.splitlines() if line.startswith("| writes"))
        kinds = re.findall(
            r"(tables|figures|metrics)/([^·|]*)", row
        )  # `tables/01_a`, `01_b` · `figures/...`
        own = re.compile(rf"{path.name[:2]}_[\w*]+")
        promised = [(kind, name) for kind, names in kinds for name in own.findall(names)]
        assert promised, f"{path.name}: the title cell names what it writes, as `tables/NN_name`"
        assert [
            item for item in promised if not list((folder / item[0]).glob(f"{item[1]}.*"))
        ] == []


def state():
    """What git sees of the checkout."""
    command = ["git", "status", "--porcelain", "--untracked-files=all"]
    return subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True).stdout


BY_HAND = {
    "01_long_tail": [{}, {"eval_sets": "capg-like", "workers": 0}, {"breadth": 12}],
    "02_depth_sweep": [TINY],
    "07_umap": [TINY],
}
"""Plain papermill runs; 07 needs what 03 makes."""


def test_runs_by_hand_with_any_values_change_nothing_tracked(chain, monkeypatch, tmp_path):
    import papermill

    _, made, _ = chain
    before = state()
    monkeypatch.setenv("KLIP_CACHE", str(CACHE))
    monkeypatch.delenv("KLIP_RESULTS")
    shutil.copytree(made, CACHE / "results" / made.name)
    for name, runs in BY_HAND.items():
        for number, values in enumerate(runs):
            out = tmp_path / f"{name}{number}.ipynb"
            source = paths.NOTEBOOKS / f"{name}.ipynb"
            papermill.execute_notebook(source, out, values, progress_bar=False)
            outputs = [
                one
                for cell in json.loads(out.read_text())["cells"]
                for one in cell.get("outputs", ())
            ]
            assert [one for one in outputs if one.get("name") == "stderr"] == []
    assert state() == before
    places = {folder.name.split("+")[1] for folder in (CACHE / "results").glob("nano+*")}
    assert {"breadth=12", "eval_sets=capg-like"} <= places
    assert len(list((CACHE / "results" / "nano").glob("metrics/01_*"))) == 1
