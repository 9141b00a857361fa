"""Pre-training in small: batches that come again, losses by their definition, a file that reads back the same."""

import json
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file

from klip.model import augment, encoder, imagenet
from klip.pretrain import corpus as pictures, learning, nano
from klip.recognise import prompts
from klip.recognise.prompts import build
from klip.settings import paths
from klip.shop import photo

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
SMALL = nano.PretrainConfig(
    lines=6, steps=2, batch=5, pixels=64, test_pixels=64, warmup=1, text_steps=2, text_passes=2
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The corpus of SMALL, rendered once."""
    patch = pytest.MonkeyPatch()
    patch.setattr(paths, "CACHE", tmp_path_factory.mktemp("corpus"))
    yield pictures.corpus(SMALL, workers=1, progress=False)
    patch.undo()


def unit(rows):
    return rows / rows.norm(dim=1, keepdim=True)


def test_batches_have_the_size_asked_for_and_come_again_the_same(corpus):
    products, packshots = corpus
    tokenize = prompts.tokenizer()
    batches = pictures.Batches(SMALL, products, packshots=packshots, tokenize=tokenize)
    assert len(batches) == 2
    images, tokens = batches[1]
    assert images.shape == (10, 64, 64, 3) and images.dtype == np.uint8
    assert len(tokens) == 5
    assert all(np.array_equal(a, b) for a, b in zip(batches[1], (images, tokens), strict=True))
    assert not np.array_equal(images, batches[0][0])
    rows = batches.rows(np.random.default_rng(0))
    assert len(set(rows.tolist())) == 5


@pytest.mark.parametrize("width, height", [(10, 40), (40, 10), (30, 30)])
def test_a_picture_cut_out_has_the_shape_of_its_product_and_is_padded_with_grey(width, height):
    cut = np.full((height, width, 4), 255, np.uint8)
    white = np.full((64, 64, 3), 255, np.uint8)
    part = photo.cut_out(white, cut, rng=np.random.default_rng(0))
    seen = augment.padded(part, pictures.preprocess(64))
    kept = (seen == 255).all(axis=2)
    rows, columns = kept.any(axis=1).sum(), kept.any(axis=0).sum()
    assert kept.sum() == rows * columns and (seen[~kept] == 128).all()
    assert max(rows, columns) == 64 and np.log(columns / rows) == pytest.approx(
        np.log(width / height), abs=0.5
    )


def test_losses_are_the_cross_entropies_of_their_definition():
    model = build("nanoclip").eval()
    tokens, shown = prompts.tokenizer()(["a red box", "tea", "a can"]), unit(torch.randn(6, 1280))
    said = unit(model.encode_text(tokens))

    def defined(left, right, factor):
        total = 0.0
        for i in range(3):
            for own, others in ((left, right), (right, left)):
                logits = factor * (others @ own[i])
                total += (logits.logsumexp(0) - logits[i]) / 6
        return total

    scale = torch.tensor(2.0)
    left, right = shown.chunk(2)
    near = {"rtol": 1e-4, "atol": 1e-5}
    found = learning.contrastive(left, right, scale=scale)
    torch.testing.assert_close(found, defined(left, right, scale.exp()), **near)
    wanted = sum(defined(images, said, model.logit_scale.exp()) for images in (left, right)) / 2
    found = learning.captioned(model, tokens, target=shown)
    torch.testing.assert_close(found, wanted, **near)


def test_what_a_tower_sees_is_what_it_sees_in_evaluation():
    tower = encoder.load("nano", pixels=64)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    with torch.no_grad():
        torch.testing.assert_close(
            learning.seen(tower, images), encoder.embed(tower, list(images)), rtol=0, atol=2e-2
        )


def test_a_pupil_that_repeats_its_teacher_has_no_loss():
    said = unit(torch.randn(5, 4))
    assert learning.imitation(said, said).item() == pytest.approx(0, abs=1e-5)
    assert learning.imitation(-said, said).item() == pytest.approx(
        2, abs=1e-5
    )  # opposite, but alike among themselves


def test_a_teacher_is_asked_once_and_every_pass_shows_all_pictures(monkeypatch):
    asked = []
    monkeypatch.setattr(
        learning, "seen", lambda _, images: asked.append(len(images)) or torch.ones(len(images), 3)
    )
    shown = np.random.default_rng(0).integers(0, 256, (4, 2, 8, 8, 3), dtype=np.uint8)
    lessons = list(learning.answered([(one, None) for one in shown], None, passes=3, seed=0))
    assert asked == [2] * 4 and len(lessons) == 12
    for part in (lessons[:4], lessons[4:8], lessons[8:]):
        assert sorted(images.sum() for images, _, _ in part) == sorted(one.sum() for one in shown)


def test_the_image_tower_starts_as_imagenet_left_it():
    model = nano.start(SMALL)
    wanted = imagenet.state_dict()
    for name, value in model.visual.trunk.state_dict().items():
        assert torch.equal(value, wanted[name]), name
    trained = {
        name.split(".")[1]
        for name, p in model.visual.trunk.named_parameters()
        if p.requires_grad and name.startswith("blocks")
    }
    assert trained == {"3", "4", "5", "6"}


def test_two_steps_write_a_file_that_reads_back_with_equal_embeddings(
    corpus, tmp_path, monkeypatch
):
    monkeypatch.setattr(nano, "corpus", lambda *_, **__: corpus)
    file = tmp_path / "made.safetensors"
    history = nano.pretrain(SMALL, file, progress=False, log_every=1)
    assert history["images"].tolist() == [10, 20, 30, 40, 50, 60]
    assert history["caption"].isna().tolist() == [True] * 2 + [False] * 4
    assert (
        np.isfinite(history[["pair", "text"]][:2]).all(axis=None)
        and np.isfinite(history["caption"][2:]).all()
    )
    read = encoder.load(file)
    assert read.preprocess.resize == "pad" and read.preprocess.size == 64
    before, after = imagenet.state_dict(), read.tower.trunk.state_dict()
    assert not torch.equal(
        after["conv_head.weight"], before["conv_head.weight"].half().float()
    )  # has learnt
    assert torch.equal(
        after["conv_stem.weight"], before["conv_stem.weight"].half().float()
    )  # is frozen
    assert torch.equal(after["bn1.running_mean"], before["bn1.running_mean"].half().float())
    facts = nano.provenance(file=file)
    assert (
        facts["recipe"]["steps"] == 2
        and len(facts["renderer"]) == 64
        and len(facts["history"]) == 6
    )
    pupil = replace(SMALL, arch="nanovit", teacher=str(file), pixels=112, test_pixels=112)
    taught = tmp_path / "pupil.safetensors"
    assert nano.pretrain(pupil, taught, progress=False, log_every=1)["teacher"].notna().all()
    assert all(name.startswith("visual.") for name in load_file(taught))
    assert encoder.load(taught).dim == read.dim


@pytest.mark.parametrize("name, arch", [("nano", "nanoclip"), ("nano-vit", "nanovit")])
def test_plain_open_clip_gives_the_embeddings_of_a_shipped_file(name, arch, tmp_path):
    read = encoder.load(name)
    open_clip.add_model_config(paths.WEIGHTS / f"{arch}.json")
    model = open_clip.create_model(arch, load_weights=False).eval()
    state = {
        key: value.float() if value.is_floating_point() else value
        for key, value in load_file(paths.WEIGHTS / f"{arch}.safetensors").items()
    }
    lost = model.load_state_dict(state, strict=False)
    assert not lost.unexpected_keys and not any(
        key.startswith("visual.") for key in lost.missing_keys
    )
    images = torch.randn(2, 3, read.preprocess.size, read.preprocess.size)
    if read.channels_last:  # the order of the numbers in memory changes how convolutions round
        model, images = (part.to(memory_format=torch.channels_last) for part in (model, images))
    assert torch.equal(read(images), model.encode_image(images))
    with torch.no_grad():  # where batch normalisation is folded, up to rounding
        ours, plain = read(images), model.encode_image(images)
    assert ((ours - plain).norm(dim=1) < 1e-5 * plain.norm(dim=1)).all()


def test_what_is_shipped_stays_small():
    total = sum(file.stat().st_size for file in paths.WEIGHTS.iterdir())
    assert total <= 23e6
    assert json.loads((paths.WEIGHTS / "nanoclip.json").read_text())["vision_cfg"]["timm_pool"]
