"""The chain 00 to 05 with parameters given, as a user would: what one notebook writes reaches the next."""

import json
import re

import pytest

from klip.companion import overview, reproduce
from klip.settings import paths

pytestmark = pytest.mark.slow
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
        yield ran, paths.RESULTS / "nano", overview.summary("nano")


def metrics(folder, name):
    return json.loads((folder / "metrics" / f"{name}.json").read_text())


def test_the_whole_chain_ran(chain):
    ran, folder, _ = chain
    assert [name[:2] for name in ran] == ["00", "01", "02", "03", "04", "05"]
    assert (folder / "report.md").is_file()


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
