"""The fine-tuned encoder that klip ships: what it is, how it was made, that it recognises no worse than frozen."""

import json
import shlex

import pytest
from safetensors import safe_open

from klip.cli.options import pairs_of
from klip.data.loading import load_catalogue
from klip.model import encoder, weights
from klip.recognise import evaluation
from klip.settings import config, paths
from klip.shop.plan import ShopPlan
from klip.shop.sets import render

FILE = paths.WEIGHTS / "nanoclip-tuned.safetensors"
MADE = json.loads(FILE.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def tuned():
    return encoder.load("nano-tuned")


def test_it_is_nano_with_other_weights_and_the_preprocessing_of_its_run(tuned):
    frozen = encoder.load("nano", "pad", pixels=96)
    assert tuned.preprocess == frozen.preprocess and tuned.dim == frozen.dim
    assert (tuned.preprocess.size, tuned.preprocess.resize) == (96, "pad")
    assert encoder.fingerprint(tuned) != encoder.fingerprint(frozen)
    encoder.interpolate(frozen, tuned, alpha=0.5)  # one architecture


def test_its_json_says_how_it_was_made():
    """The command, the settings in the weights, and those of notebook 03 but for its budget agree."""
    with safe_open(FILE, "pt") as file:
        stored = json.loads(file.metadata()["provenance"])
        kinds = {file.get_tensor(name).dtype.itemsize for name in file.keys()}
    assert kinds <= {2, 8}  # halves, and the counters of batch normalisation
    budget = {"images": 4000, "batch_size": 64}
    run = config.Settings(**budget).finetune(depth=stored["config"]["depth"], ema=0.0)
    assert config.FinetuneConfig(**stored["config"]) == run  # fields added since: at their defaults
    assert stored["set"] == MADE["set"] == "shop"
    klip, finetune, source, *words = shlex.split(MADE["command"])
    assert (klip, finetune, source) == ("klip", "finetune", "shop") and "--half" in words
    words.remove("--half")
    pairs = list(zip(words[::2], words[1::2], strict=True))
    given = {name.removeprefix("--"): value for name, value in pairs if name != "--set"}
    assert given.pop("out").endswith(FILE.name)
    given |= pairs_of([value for name, value in pairs if name == "--set"])
    assert config.FinetuneConfig(**given) == run
    assert len(MADE["commit"]) == 12


def test_halves_are_half_the_size_and_read_as_they_were_written(tuned, tmp_path):
    half = weights.save(tuned, tmp_path / "half.safetensors", half=True)
    whole = weights.save(tuned, tmp_path / "whole.safetensors")
    assert half.stat().st_size < 0.55 * whole.stat().st_size
    prints = {encoder.fingerprint(encoder.load(file)) for file in (half, whole)}
    assert prints == {encoder.fingerprint(tuned)}  # which was read from halves


def test_missing_weights_name_the_file_that_has_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "WEIGHTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="nanoclip-tuned.json.* has the command"):
        encoder.load("nano-tuned")


def test_it_recognises_products_of_no_set_it_saw_no_worse_than_frozen(tuned, tmp_path):
    plan = {"breadth": 2, "max_images": 3, "min_images": 3, "val_images": 1, "seed": 1}
    plan |= {"capg_lines": 1, "capg_flavours": 2, "capg_queries": 1}
    plan |= {"rp2k_products": 2, "rp2k_queries": 1, "rp2k_train": 1}
    render(ShopPlan(grozi_products=40, grozi_queries=4, **plan), tmp_path / "shop", progress=False)
    catalogue = load_catalogue("grozi-like", tmp_path / "shop")
    frozen = encoder.load("nano", "pad", pixels=96)
    right = [evaluation.evaluate(one, catalogue, views=1)["top1"].sum() for one in (frozen, tuned)]
    assert len(catalogue.queries()) == 160 and right[1] >= right[0] > 160 / 40
