"""The first cells of every notebook: settings checked, sets found or named."""

import os

import pytest

from klip.companion import lesson
from klip.settings import paths


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
