"""Profiles `shelf` and `paper` on their own path: real architectures with random weights, a handful of images."""

import json
import os
import subprocess
import sys

import pytest
import torch
from typer.testing import CliRunner

from klip import cli
from klip.companion import reproduce
from klip.data import fetch
from klip.model import encoder
from klip.settings import paths

TINY = {
    "depths": "1",
    "seeds": 1,
    "sweep_images": 4,
    "images": 4,
    "compare_images": 4,
    "baseline_images": 4,
    "batch_size": 4,
    "accumulate": 2,
    "gallery_views": 1,
    "workers": 0,
    "executor": "here",
}
# The chain of `paper` takes a small ViT in the place of ViT-L-14, which is fine-tuned by itself below: minutes count.
GIVEN = {
    "shelf": {
        "model": "ViT-B-32:none",
        "vit": "nano-vit",
        "resnext": "timm:test_efficientnet:none",
        "resnext_semi": "nano",
        "eval_sets": "grocery-store:held-out grozi-120",
    },
    "paper": {
        "model": "ViT-S-32:none",
        "vit": "nano-vit",
        "resnext": "timm:test_efficientnet:none",
        "resnext_semi": "nano",
        "eval_sets": "capg-gp",
        "ema": 0.0,
        "breadths": "0.5",
    },
}


@pytest.fixture
def shelves(tmp_path, picture, monkeypatch):
    """Folder of four small sets in their own layouts; the range to fine-tune on is a folder per product."""
    root = tmp_path / "data"
    lines = ["name,id,coarse,coarse id,iconic,description"]
    rows = {"train": [], "val": [], "test": []}
    for fine in range(8):  # four to fine-tune on, four held out: the open set needs as many
        name, colour = f"Milk-{fine}", (40 * fine, 250 - 30 * fine, 90)
        icon = f"iconic/Packages/{name}_Iconic.jpg"
        picture(root / "grocery-store" / icon, colour)
        lines.append(f"{name},{fine},Milk,0,/{icon},/text")
        for split, own in rows.items():
            for number in range(2):
                image = f"{split}/Packages/{name}_{number}.jpg"
                picture(root / "grocery-store" / image, colour)
                own.append(f"{image}, {fine}, 0\n")
    (root / "grocery-store/classes.csv").write_text("\n".join(lines))
    for split, own in rows.items():
        (root / f"grocery-store/{split}.txt").write_text("".join(own))
    for number in range(1, 6):
        colour = (250 - 40 * number, 30 * number, 60)
        for image in ("web1", "web2"):
            picture(root / f"grozi-120/inVitro/{number}/web/JPEG/{image}.jpg", colour)
        for shot in range(4):
            picture(root / f"grozi-120/inSitu/{number}/video/video{shot}.jpg", colour)
            if shot < 3:  # as few as there can be, since the towers are large: two are held out
                picture(root / f"range/brand-{number}/{shot}.jpg", colour[::-1])
            if shot < (3 if number == 1 else 2):
                picture(
                    root / f"capg-gp/{'gallery' if shot == 0 else 'query'}/tin-{number}/{shot}.jpg",
                    colour,
                )
    monkeypatch.setenv("KLIP_DATA", str(root))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # a test never goes to the network
    return root


def given(profile, root, **more):
    return TINY | ({"finetune_root": str(root / "range")} if profile == "paper" else {}) | more


@pytest.mark.slow
@pytest.mark.parametrize("profile", GIVEN)
def test_all_notebooks_run_with_a_tower_of_random_weights(shelves, profile, capsys):
    ran = reproduce.run(profile, given(profile, shelves, **GIVEN[profile]))
    assert [name[:2] for name in ran] == [f"0{number}" for number in range(9)]
    (folder,) = paths.RESULTS.glob(f"{profile}+*")
    sets = json.loads((folder / "metrics/04_zero_shot.json").read_text())["sets"]
    assert {name.split()[0] for name in sets} == set(GIVEN[profile]["eval_sets"].split())
    assert all(
        row["low"] <= row["difference"] <= row["high"] and row["queries"] > 0
        for row in sets.values()
    )
    assert not list(folder.glob("figures/*_sheet_*"))  # no picture that shows a photograph
    printed = capsys.readouterr().out
    assert all(label in printed for label in sets)


@pytest.mark.slow
@pytest.mark.parametrize("profile", GIVEN)
def test_missing_weights_are_one_sentence_that_says_where_they_belong(shelves, profile):
    with pytest.raises(reproduce.NotebookError) as caught:
        reproduce.run(
            profile, given(profile, shelves, eval_sets=GIVEN[profile]["eval_sets"]), only=["01"]
        )
    text = str(caught.value)
    assert (
        "weights ViT-" in text
        and "huggingface.co" in text
        and "put it at" in text
        and "\n" not in text
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "profile, more, words",
    [
        (
            "shelf",
            {},
            r"evaluation sets: none is in .*: grocery-store \(cannot be downloaded\); grozi-120 \(not at hand\)",
        ),
        ("shelf", {"eval_sets": "capg-like"}, "grocery-store: .* is missing; run `klip data fetch"),
        (
            "paper",
            {"eval_sets": "capg-like"},
            "folder: no root was given; it has to be a folder of products",
        ),
    ],
)
def test_missing_images_are_one_sentence_that_says_what_to_do(
    tmp_path, monkeypatch, profile, more, words
):
    monkeypatch.setenv("KLIP_DATA", str(tmp_path / "none"))
    monkeypatch.setattr(fetch, "urlopen", lambda *given, **named: open(tmp_path / "no network"))  # noqa: SIM115
    with pytest.raises((reproduce.NotebookError, FileNotFoundError), match=words):
        reproduce.run(profile, TINY | more, only=["01"])


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["ViT-B-32", "ViT-L-14"])
def test_twenty_images_fine_tune_a_tower_of_random_weights(tmp_path, picture, arch):
    for product in range(5):
        for number in range(4):
            picture(
                tmp_path / f"range/p{product}/{number}.jpg", (50 * product, 250 - 40 * product, 90)
            )
    out = tmp_path / "tuned.safetensors"
    words = [
        "finetune",
        str(tmp_path / "range"),
        "--model",
        arch,
        "--pretrained",
        "none",
        "--out",
        str(out),
        "--images",
        "20",
        "--depth",
        "4",
        "--set",
        "batch_size=10",
        "--set",
        "accumulate=5",
        "--set",
        "workers=0",
    ]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, result.output
    assert "20 images of 5 products" in result.stdout
    tuned = encoder.load(out)
    assert tuned.arch == arch and tuned.preprocess == encoder.load(f"{arch}:none").preprocess


@pytest.mark.slow
def test_torchrun_makes_the_file_that_one_process_makes(tmp_path, shop_root):
    from safetensors.torch import load_file

    words = [
        "-m",
        "klip",
        "finetune",
        str(shop_root),
        "--model",
        "nano-vit",
        "--images",
        "12",
        "--depth",
        "2",
        "--set",
        "batch_size=4",
        "--set",
        "workers=0",
        "--set",
        "precision=fp32",
    ]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    files = {}
    for name, before in (("one", []), ("two", torchrun)):
        files[name] = tmp_path / f"{name}.safetensors"
        done = subprocess.run(
            [sys.executable, *before, *words, "--out", str(files[name])],
            cwd=paths.ROOT,
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("12 images of 3 products") == 1  # one of the processes speaks
    one, two = (load_file(file) for file in files.values())
    start = encoder.load("nano-vit").tower.state_dict()
    assert any(not torch.equal(one[f"visual.{key}"], value) for key, value in start.items())
    for key in one:
        if (
            "in_proj_bias" not in key
        ):  # the keys' third has no gradient but rounding, of which AdamW makes a step
            torch.testing.assert_close(two[key], one[key], rtol=1e-4, atol=1e-5)
