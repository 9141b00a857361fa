"""Embeddings on disk: each image once, the same bits beside any others, nothing damaged believed."""

import numpy as np
import pytest
import torch
from PIL import Image

from klip.model import encoder, kept
from klip.settings import paths


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    rng, made = np.random.default_rng(0), []
    for number in range(40):
        made.append(tmp_path / f"{number}.png")
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(made[-1])
    return made


@pytest.mark.parametrize("model", ["nano", "nano-vit"])
def test_an_image_has_the_same_bits_whatever_was_asked_before(files, seen, model):
    tower = encoder.load(model)
    whole = encoder.embed(tower, files, alike=True)
    for part in ([3], [3, 7], [9, 3, 5, 3], range(40)):
        asked = [files[k] for k in part]
        assert torch.equal(encoder.embed(tower, asked, remember=True), whole[list(part)])
    seen.clear()
    assert torch.equal(encoder.embed(tower, files[::-1], remember=True), whole.flip(0)) and not seen


def test_views_seeds_precisions_and_encoders_are_told_apart(files, seen):
    towers = [encoder.load("nano-vit"), encoder.load("nano", pixels=32)]
    ways = [{}, {"views": 3}, {"views": 3, "seed": 1}, {"unit": False}]
    for _ in range(2):
        seen.clear()
        for tower in towers:
            for way in ways:
                found = encoder.embed(tower, files[:4], remember=True, **way)
                assert torch.allclose(found, encoder.embed(tower, files[:4], **way), atol=1e-5)
        first = sum(seen)
    assert first == 4 * len(towers) * len(ways)  # the second time only what is not kept
    assert len(list((paths.CACHE / "embeddings").iterdir())) == len(towers) * len(ways)


def test_a_seed_means_nothing_to_a_plain_view(files, seen):
    tower = encoder.load("nano-vit")
    encoder.embed(tower, files[:4], remember=True)
    seen.clear()
    encoder.embed(tower, files[:4], seed=5, remember=True)
    assert not seen


def test_an_image_that_changed_is_embedded_anew_and_a_damaged_file_is_made_anew(files, seen):
    tower = encoder.load("nano-vit")
    before = encoder.embed(tower, files[:4], remember=True)
    Image.new("RGB", (20, 20), "red").save(files[0])
    seen.clear()
    after = encoder.embed(tower, files[:4], remember=True)
    assert not torch.equal(after[0], before[0]) and torch.equal(after[1:], before[1:])
    assert sum(seen) == 1
    (file,) = (paths.CACHE / "embeddings").iterdir()
    file.write_bytes(file.read_bytes()[:50])
    assert torch.equal(encoder.embed(tower, files[:4], remember=True), after)


def test_what_is_no_file_is_told_as_ever(files):
    tower = encoder.load("nano-vit")
    with pytest.raises((ValueError, OSError), match="none.png"):
        encoder.embed(tower, [files[0].with_name("none.png")], remember=True)
    assert len(encoder.embed(tower, [], remember=True)) == 0


def test_other_code_keeps_its_own(files, monkeypatch, tmp_path):
    before = kept._key([])
    (tmp_path / "changed.py").write_text("# other code")
    monkeypatch.setattr(kept, "SOURCES", [*kept.SOURCES[:-1], tmp_path / "changed.py"])
    assert kept._key([]) != before
