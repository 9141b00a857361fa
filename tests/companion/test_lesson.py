"""The first cells of every notebook: settings checked, sets found or named."""

import json
import os

import pytest

from klip.companion import lesson, report, reproduce, stored
from klip.settings import config, paths


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("KLIP_DATA", "elsewhere")
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")


def test_settings_are_checked_and_their_folder_holds_the_sets(tmp_path):
    given = {"depths": [4, 1], "data_root": str(tmp_path), "other": 3}
    assert lesson.settings("03", given).depth_list == [1, 4]
    assert os.environ["KLIP_DATA"] == str(tmp_path)
    with pytest.raises(ValueError, match="seeds must be greater than or equal to 1, got 0"):
        lesson.settings("03", {"seeds": 0})


def test_without_a_folder_the_environment_decides():
    lesson.settings("03", {})
    assert os.environ["KLIP_DATA"] == "elsewhere"


def test_the_sets_of_the_settings(tmp_path, shop_root, picture):
    own = {"finetune_set": "folder", "finetune_root": str(shop_root), "data_root": str(tmp_path)}
    for image in ("inVitro/1/web/JPEG/web1.jpg", "inSitu/1/video/video1.png"):
        picture(tmp_path / "grozi-120" / image)
    given = lesson.settings("03", {**own, "eval_sets": "grozi-120 rp2k"})
    tuned = lesson.finetuning_set(given)
    assert tuned["split"].value_counts().to_dict() == {"train": 7, "val": 6}
    sets, left_out = lesson.evaluation_sets(given)
    assert list(sets) == ["grozi-120"] and len(sets["grozi-120"]) == 2
    assert left_out.startswith("left out: rp2k (not at hand)")


CELL = "# What one would change first\nprofile: str = 'nano'\nseeds: int = 3"


@pytest.mark.parametrize(
    "cells, sentence",
    [
        (
            [CELL, "# Parameters\ndephts = 8\n"],
            "notebook 03: dephts is not a parameter; did you mean depths",
        ),
        ([CELL + "\nseed: int = 3"], "seed is not a parameter; did you mean seeds"),
        ([CELL, "# Parameters\nxyz = 8\n"], "xyz is not a parameter; it has profile, images"),
    ],
)
def test_a_name_that_no_setting_has_is_refused_wherever_it_was_written(cells, sentence):
    with pytest.raises(ValueError, match=sentence):
        lesson.settings("03", {"In": ["", *cells, "import time"]})


def test_what_a_notebook_names_later_or_was_mended_is_no_parameter():
    wrong, other = CELL + "\nseed: int = 3", "depth = 4\nname = 'web1'"
    assert lesson.settings("03", {"In": ["", wrong, CELL, other], "depth": 4}).seeds == 3


def test_other_values_than_the_profiles_have_a_place_of_their_own(capsys):
    assert lesson.settings("03", {}).place == "nano" and not capsys.readouterr().out
    other = lesson.settings("03", {"images": 640, "seeds": 1})
    assert other.place.startswith("nano+images=640+seeds=1+")
    told = capsys.readouterr().out
    assert "unlike profile nano: images=640, seeds=1" in told and other.place in told
    assert lesson.settings("04", {"seeds": "1", "images": 640.0}).place == other.place
    # Text as it is typed, and as it is understood.
    assert lesson.settings("03", {"depths": [1, 4, 16]}).place == "nano"
    long = lesson.settings("03", {"eval_sets": "a/../b " * 40}).place
    assert "/" not in long and len(long) < 80
    # Parameters of a notebook alone count as well.
    assert lesson.settings("A", {"steps": 7}).place.startswith("nano+steps=7+")


def test_a_profiles_own_values_are_its_place():
    values = config.Settings(**config.profile_values("real")).model_dump()
    assert lesson.settings("04", values).place == "real"
    assert lesson.settings("04", values | {"wise": 1.0}).place.startswith("real+wise=1.0+")


def test_a_run_by_hand_writes_to_the_cache(monkeypatch, capsys):
    monkeypatch.delenv("KLIP_RESULTS")
    monkeypatch.setattr(paths, "RESULTS", paths.ROOT / "results")
    given = lesson.settings("02", {})
    assert paths.RESULTS == paths.CACHE / "results"
    assert "run by hand: results go to" in capsys.readouterr().out
    written = report.save_metrics({"depth": 4}, "02_depth", place=given.place, settings=given)
    assert written.is_relative_to(paths.CACHE)


def test_what_was_made_before_is_found_or_made(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    given, asked = lesson.settings("04", {"seeds": 2}), []

    def bring(number, parameters, *, place):
        asked.append((number, parameters["seeds"]))
        (paths.CACHE / "tuned").touch()
        found = {"checkpoints": ["tuned"], "depth": 1}
        made = lesson.settings("03", {"seeds": parameters["seeds"]})
        report.save_metrics(found, "03_finetune", place=place, settings=made)

    monkeypatch.setattr(reproduce, "bring", bring)
    paths.CACHE.mkdir(parents=True, exist_ok=True)
    assert lesson.made_before("03_finetune", given)["depth"] == 1 and asked == [("03", 2)]
    assert capsys.readouterr().out.count("03_finetune has not run with these settings here") == 1
    assert lesson.made_before("03_finetune", given)["depth"] == 1 and len(asked) == 1
    (paths.CACHE / "tuned").unlink()  # an emptied cache
    lesson.made_before("03_finetune", given)
    assert len(asked) == 2
    # Other settings do not find it.
    lesson.made_before("03_finetune", lesson.settings("04", {"seeds": 4}))
    assert asked[2:] == [("03", 4)]


def test_what_a_profile_stores_is_taken_over_only_if_its_settings_are_the_same(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    given, asked = lesson.settings("08", {}), []
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    report.save_metrics({"depth": 4}, "02_depth", place="nano", settings=given)
    monkeypatch.setattr(paths, "RESULTS", paths.CACHE / "results")
    assert lesson.made_before("02_depth", given)["depth"] == 4
    # A report made now finds it among the others.
    assert stored.read_metrics("02_depth", "nano")["depth"] == 4

    def bring(number, parameters, *, place):
        asked.append(number)
        report.save_metrics({"depth": 9}, "02_depth", place=place, settings=given)

    monkeypatch.setattr(reproduce, "bring", bring)
    for root in (tmp_path / "results", paths.RESULTS):  # a profile's value has changed since
        file = root / "nano/metrics/02_depth.json"
        found = json.loads(file.read_text())
        file.write_text(json.dumps(found | {"settings": found["settings"] | {"workers": 7}}))
    assert lesson.made_before("02_depth", given)["depth"] == 9 and asked == ["02"]
