"""What is written under results/: whole files, JSON that any program reads, and no photograph."""

import io
import json
import re
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

from klip import cli
from klip.companion import front, overview, report, stored
from klip.settings import config, paths
from klip.stats import claims

ROW = {
    "queries": 200,
    "products": 20,
    "frozen": 0.305,
    "fine_tuned": 0.4,
    "difference": 0.095,
    "low": 0.02,
    "high": 0.17,
}


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    return tmp_path


def zero_shot(**rows):
    report.save_metrics({"sets": rows, "seconds": 12.4}, "04_zero_shot", place="nano")


def test_table_is_written_for_programs_and_for_people():
    frame = pd.DataFrame({"product": ["a|b", "c"], "lr": [2e-4, np.nan], "n": [3, 4]})
    path = report.save_table(frame, "03_rates", place="nano")
    assert pd.read_csv(path).equals(frame)
    assert path.with_suffix(".md").read_text() == (
        "| product | lr | n |\n| --- | --: | --: |\n| a\\|b | 0.0002 | 3 |\n| c |  | 4 |\n"
    )
    named = report.save_table(frame.set_index("product"), "03_rates", place="nano")
    assert list(pd.read_csv(named).columns) == ["product", "lr", "n"]


@pytest.mark.parametrize("name", ["depth", "2_depth", "02-depth", "../02_depth", "02_"])
def test_names_begin_with_the_notebook(name):
    with pytest.raises(ValueError, match="begins with its notebook's number"):
        report.save_metrics({}, name, place="nano")


def test_unknown_profile_makes_no_folder(results):
    with pytest.raises(ValueError, match="profile must be one of nano, .* got 'nanoo'"):
        report.save_metrics({}, "02_depth", place="nanoo")
    assert list(results.iterdir()) == []


def test_photographs_are_never_written(results):
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2])
    path = report.save_figure(figure, "04_confusions", place="real")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    first = path.read_bytes()
    assert (
        report.save_figure(figure, "04_confusions", place="real").read_bytes() == first
    )  # no date inside
    assert report.save_figure(figure, "04_confusions", place="real", photographs=True) is None
    assert not path.exists()
    assert (
        report.save_figure(figure, "01_sheet", place="nano", images=True).read_bytes()[:2]
        == b"\xff\xd8"
    )


def test_metrics_come_back_as_plain_numbers():
    report.save_metrics(
        {
            "depth": np.int64(8),
            "top1": np.float32(0.5),
            "curve": np.array([1, 2]),
            "none": float("nan"),
            "parts": pd.Series({"head": 3}),
        },
        "02_depth",
        place="nano",
    )
    found = stored.read_metrics("02_depth", "nano")
    made = found.pop("provenance")
    assert found.pop("settings") == {} and found.pop("core_seconds") > 0
    assert found == {"depth": 8, "top1": 0.5, "curve": [1, 2], "none": None, "parts": {"head": 3}}
    assert {"date", "commit", "device", "threads", "python", "torch"} <= set(made)
    assert str(paths.ROOT) not in json.dumps(made)
    with pytest.raises(
        FileNotFoundError, match="notebook 03 writes it: run `make reproduce PROFILE=real`"
    ):
        stored.read_metrics("03_finetune", "real")


def test_cores_that_computed_are_counted_with_those_of_children():
    before = report.core_seconds()
    busy = "import time\nwhile time.process_time() < 0.4: pass\n"
    subprocess.run([sys.executable, "-c", busy], check=True)  # one that has ended
    ended = report.core_seconds()
    assert 0.35 <= ended - before < 5 or sys.platform != "linux"
    alive = [sys.executable, "-c", busy + "print(flush=True)\ninput()"]
    with subprocess.Popen(alive, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        assert 0.35 <= report.core_seconds() - ended < 5
        child.communicate(b"\n")


def test_nothing_partial_is_left(results):
    report.save_metrics({"depth": 8}, "02_depth", place="nano")
    with pytest.raises(TypeError):
        report.save_metrics({"depth": object()}, "02_depth", place="nano")
    assert [path.name for path in results.rglob("*.*")] == ["02_depth.json"]
    assert stored.read_metrics("02_depth", "nano")["depth"] == 8


def test_summary_shows_every_set_and_says_which_did_not_get_there():
    report.save_metrics({"depth": 16}, "02_depth", place="nano")
    zero_shot(**{"grozi-like": ROW, "capg-like": ROW | {"low": -0.01}})
    text = overview.summary("nano")
    assert "chosen depth: 16" in text and "04_zero_shot 12 s" in text
    lines = text.splitlines()
    good, bad = (
        next(line for line in lines if line.startswith(name)) for name in ("grozi", "capg")
    )
    assert "30.5" in good and "+9.5" in good and "+2.0 to +17.0" in good and "not above" not in good
    assert bad.endswith("-1.0 to +17.0   not above 0")
    assert "profile real" in overview.summary("real")  # nothing there yet: no error


def test_readme_gets_ours_beside_the_papers():
    end = "<!-- /results -->\n"
    text = f"<!-- results:nano -->\nold\n{end}middle\n<!-- results:real -->\n{end}"
    print_ = {"floor": 0.5621, "floor_low": 0.5, "floor_high": 0.6, "reranked": 0.744}
    zero_shot(**{"grozi-like": ROW, "grozi-120 web1": ROW | print_})
    new = front.filled(text)
    assert "old" not in new and "middle" in new and "No run of profile `real`" in new
    assert (
        "| grozi-like | 20 | 200 | 5.0 | - | 30.5 | 40.0 | +9.5 (+2.0 to +17.0) | - | 82.8 (grozi-120) |"
        in new
    )
    assert (
        "| grozi-120 web1 | 20 | 200 | 5.0 | 56.2 | 30.5 | 40.0 | +9.5 (+2.0 to +17.0) | 74.4 | 82.8 |"
        in new
    )
    head, rule, *lines = [line for line in new.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in (head, rule, *lines)} == {11} and "| SIFT |" in head
    assert front.filled(new) == new and "left out" not in new


def test_sets_left_out_are_named_under_the_table():
    line = "left out: grozi-120 (not at hand); `klip data list` says where it comes from"
    report.save_metrics(
        {"sets": {"grocery-store first": ROW}, "left_out": line}, "04_zero_shot", place="real"
    )
    assert f"| - |\n\n{line}\n<!-- /results -->" in front.filled(
        "<!-- results:real -->\n<!-- /results -->\n"
    )
    assert (
        overview.write_report("real").read_text().count(line) == 2
    )  # once more among the notebook's single values
    report.save_metrics(
        {"sets": {"grocery-store first": ROW}, "left_out": ""}, "04_zero_shot", place="real"
    )
    assert "left out" not in overview.write_report("real").read_text()


def test_report_collects_everything_in_order(results):
    report.save_table(pd.DataFrame({"n": [1]}), "02_depths", place="nano")
    report.save_figure(Figure(figsize=(1, 1)), "01_counts", place="nano")
    zero_shot(**{"grozi-like": ROW})
    text = overview.write_report("nano").read_text()
    wanted = [
        "# Results of profile nano",
        "## Notebook 01",
        "![01_counts](figures/01_counts.png)",
        "## Notebook 02",
        "| n |",
        "## Notebook 04",
        "- seconds: 12.4",
        "## Provenance",
    ]
    assert [text.index(word) for word in wanted] == sorted(text.index(word) for word in wanted)


def measured():
    """Evidence of C1 in 04 and of C7 in 03, reasons in both."""
    gain = claims.evidence(
        "C1", "RetailKLIP minus frozen encoder", place="capg-like", difference=(0.095, 0.02, 0.17)
    )
    rates = claims.evidence(
        "C7", "block-wise minus common rate", place="validation", difference=(-0.03, -0.05, -0.01)
    )
    report.save_metrics(
        {"evidence": pd.DataFrame([rates]), "reasons": {"C8": "no softmax run"}},
        "03_finetune",
        place="nano",
    )
    report.save_metrics(
        {"evidence": [gain], "reasons": {"C2": "not at hand", "C8": "no time"}},
        "04_zero_shot",
        place="nano",
    )


def test_claims_are_judged_by_what_the_notebooks_stored(results):
    measured()
    path = report.save_claims("nano")
    assert path == results / "nano" / "claims.csv"
    ledger = pd.read_csv(path, dtype=str, keep_default_na=False).set_index("id")
    found = ledger.loc[["C1", "C2", "C3", "C7", "C8"], "verdict"]
    assert list(found) == ["upheld", "not tested", "not tested", "not upheld", "not tested"]
    assert ledger.loc["C1", "ours"].endswith("capg-like +9.5 (+2.0 to +17.0)")
    assert (ledger.loc["C2", "ours"], ledger.loc["C8", "ours"]) == (
        "not at hand",
        "no softmax run; no time",
    )
    assert ledger.loc["C2", "paper"].startswith("capg-gp: RetailKLIP 88.6")
    text = path.with_suffix(".md").read_text()
    assert text.count("\n") == 11 and "| not upheld |" in text
    with pytest.raises(
        FileNotFoundError,
        match="no numbers to judge the claims by: run `make reproduce PROFILE=real`",
    ):
        report.save_claims("real")
    with pytest.raises(ValueError, match="profile must be one of"):
        report.save_claims("../nano")


def test_readme_and_report_show_the_ledger():
    text = "<!-- claims:nano -->\nold\n<!-- /claims -->\nmiddle\n<!-- claims:real -->\n<!-- /claims -->\n"
    measured()
    assert "not judged for profile `nano` yet" in front.filled(text)
    whole = overview.write_report("nano")  # judges them too
    ledger = whole.with_name("claims.md").read_text()
    new = front.filled(text)
    assert f"<!-- claims:nano -->\n{ledger}<!-- /claims -->\nmiddle\n" in new and "old" not in new
    assert "not judged for profile `real` yet: `make reproduce PROFILE=real`" in new
    assert front.filled(new) == new
    assert f"## The paper's claims\n\n{ledger}" in whole.read_text()


def test_klip_report_writes_ledger_and_report(results):
    measured()
    done = CliRunner().invoke(cli.app, ["report", "--profile", "nano"])
    assert done.exit_code == 0, done.stderr
    assert done.stdout.split() == [
        str(results / "nano" / name) for name in ("claims.csv", "report.md")
    ]
    assert {path.name for path in (results / "nano").glob("*.*")} == {
        "claims.csv",
        "claims.md",
        "report.md",
    }
    wrong = CliRunner().invoke(cli.app, ["report", "--profile", "real"])
    assert (
        wrong.exit_code == 2
        and wrong.stderr.startswith("klip: ")
        and "PROFILE=real" in wrong.stderr
    )


def test_stored_ledgers_follow_from_the_stored_numbers(results):
    for ledger in (paths.ROOT / "results").glob("*/claims.csv"):
        profile = ledger.parent.name
        shutil.copytree(ledger.parent / "metrics", results / profile / "metrics")
        made = report.save_claims(profile)
        for suffix in (".csv", ".md"):
            same = made.with_suffix(suffix).read_text() == ledger.with_suffix(suffix).read_text()
            assert same, f"the ledger is behind its metrics: run `klip report --profile {profile}`"


@pytest.mark.parametrize("name", front.FILLED)
def test_what_is_filled_from_results_is_up_to_date(name, tmp_path, monkeypatch):
    """It shows the results that lie here, or those of the last commit: a run on this machine brings times of its
    own, and on another kind of CPU other last digits."""
    text = (paths.ROOT / name).read_text()
    assert re.search(r"<!-- \w+:\w+ -->\n.", text)
    archive = subprocess.run(
        ["git", "archive", "HEAD", "results"], cwd=paths.ROOT, capture_output=True
    )
    if archive.returncode == 0:  # else this is no checkout
        tarfile.open(fileobj=io.BytesIO(archive.stdout)).extractall(tmp_path, filter="data")
    shown = []
    for folder in (paths.ROOT / "results", tmp_path / "results"):
        monkeypatch.setattr(paths, "RESULTS", folder)
        shown += [front.filled(text)] if folder.is_dir() else []
    assert text in shown, f"{name} is behind results/: run `make refresh`"


def test_the_time_of_the_notebooks_is_the_sum_of_what_they_stored():
    text = "<!-- times:nano -->\nold\n<!-- /times -->\n"
    assert "Not run yet: `make reproduce PROFILE=nano`." in front.filled(text)
    for name, seconds in {"01_long_tail": 90, "02_depth": 60.0, "A_nano": 9000}.items():
        report.save_metrics({"seconds": seconds}, name, place="nano")
    assert "The 2 notebooks of profile `nano` took 2 minutes" in front.filled(text)


def test_provenance_does_not_load_torch():
    code = "import sys; from klip.companion import report; report.provenance(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def test_what_was_measured_on_a_gpu_is_shown_with_its_device(tmp_path, monkeypatch):
    # A notebook run by hand, which has no such folder, shows what the repository holds.
    assert len(report.speeds()) == len(list((paths.ROOT / "results/gpu").glob("*.json")))
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    assert report.speeds().empty
    how = {"precision": "bf16", "batch_size": 64, "accumulate": 4, "checkpointing": False}
    facts = {
        "device": "H100",
        "torch": "2",
        "model": "ViT-L-14",
        "settings": how,
        "share_of_matrix_rate": 0.5,
        "synthetic": {"images_per_s": 300.0, "peak_reserved_bytes": 5 * 2**30},
        "jpeg_fed": {"images_per_s": 250.0},
        "beside_metric_loss_only": {"ratio": 1.25},
    }
    report.save_gpu("b", facts)
    report.save_gpu(
        "a",
        facts
        | {
            "device": "CPU",
            "synthetic": {"images_per_s": 1.0},
            "beside_metric_loss_only": {"ratio": None},
        },
    )
    found = report.speeds()
    assert found["name"].tolist() == ["a", "b"] and found["device"].tolist() == ["CPU", "H100"]
    assert found["peak_gib"].isna().tolist() == [True, False] and found["peak_gib"][1] == 5
    assert found["batch"].tolist() == ["64 in 4"] * 2 and found["over_metric_loss_only"][1] == 1.25
    shown = front.filled("<!-- speed:all -->\nold\n<!-- /speed -->\n")
    assert "H100" in shown and "old" not in shown and shown.count("speed") == 2


def test_numbers_are_rounded_gaps_are_empty_and_bars_are_escaped():
    frame = pd.DataFrame({"product": ["a|b", "c\nd"], "lr": [2e-4, np.nan], "n": [3, 4]})
    assert report.markdown(frame) == (
        "| product | lr | n |\n| --- | --: | --: |\n| a\\|b | 0.0002 | 3 |\n| c d |  | 4 |\n"
    )


def test_a_long_frame_says_how_much_it_leaves_out():
    text = report.markdown(pd.DataFrame({"n": range(5)}), rows=2)
    assert text.count("|\n") == 4 and text.endswith("\n3 more rows are in the .csv file.\n")


def test_metrics_of_different_settings_are_not_mixed(results):
    for name, images in (("02_depth", 640), ("03_finetune", 4000)):
        given = config.Settings(images=images)
        report.save_metrics({}, name, place="nano", settings=given)
    words = "02_depth was made with images=640 and 03_finetune with images=4000"
    for write in (report.save_claims, overview.write_report):
        with pytest.raises(ValueError, match=words):
            write("nano")


def test_a_report_names_the_settings_that_are_not_the_profiles(results):
    given = config.Settings(images=640)
    report.save_metrics({}, "02_depth", place="nano+images=640+abcdef", settings=given)
    text = overview.write_report("nano+images=640+abcdef").read_text()
    assert "settings unlike the profile's: images=640." in text
