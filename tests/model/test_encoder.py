"""Encoders: building, files, names, WiSE-FT, embeddings."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from klip.data.catalogue import Catalogue
from klip.model import augment, encoder, readers, weights
from klip.model.augment import Preprocess
from klip.model.weights import save
from klip.settings import paths

CONV = {
    "embed_dim": 16,
    "text_cfg": {"width": 32, "heads": 2, "layers": 1, "vocab_size": 64, "context_length": 8},
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 64, "image_size": 32},
}
VIT = {
    **CONV,
    "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32},
}
PREPROCESS = Preprocess(size=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=["conv", "vit"])
def tiny(request):
    return encoder.build({"conv": CONV, "vit": VIT}[request.param], PREPROCESS, name=request.param)


@pytest.fixture
def pictures(tmp_path):
    """A catalogue of five images of different shapes."""
    rng = np.random.default_rng(0)
    for i in range(5):
        pixels = rng.integers(0, 256, (40 + 8 * i, 48, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    names = [f"{i}.png" for i in range(5)]
    frame = pd.DataFrame({"image": names, "product": list("aabbc"), "split": "train"})
    return Catalogue(frame, tmp_path)


def test_a_file_keeps_weights_preprocessing_and_provenance(tiny, tmp_path):
    path = save(tiny, tmp_path / "new" / "tower.safetensors", seed=3, note="tried")
    again = encoder.load(path)
    assert encoder.fingerprint(again) == encoder.fingerprint(tiny)
    assert again.preprocess == tiny.preprocess and again.arch == tiny.arch and again.dim == 16
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(x), tiny(x)) and again(x).dtype == torch.float32 and not again.training
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["provenance"]) == {
            "name": tiny.name,
            "seed": 3,
            "note": "tried",
        }
    assert [found.name for found in path.parent.iterdir()] == [
        "tower.safetensors"
    ]  # and nothing beside


def test_fingerprint_changes_with_weights_and_preprocessing_only(tiny):
    before = encoder.fingerprint(tiny)
    tiny.train().name = "other"
    assert encoder.fingerprint(tiny) == before and len(before) == 16
    tiny.preprocess = Preprocess(**{**PREPROCESS.to_dict(), "resize": "pad"})
    padded = encoder.fingerprint(tiny)
    with torch.no_grad():
        next(tiny.tower.parameters())[0] += 1e-3
    assert len({before, padded, encoder.fingerprint(tiny)}) == 3


def test_shipped_weights_are_half_precision_with_a_json_config_and_a_text_tower(
    tmp_path, monkeypatch
):
    import open_clip

    monkeypatch.setattr(paths, "WEIGHTS", tmp_path)
    (tmp_path / "nanoclip.json").write_text(json.dumps(CONV))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    monkeypatch.setattr(
        open_clip.factory, "_MODEL_CONFIG_PATHS", list(open_clip.factory._MODEL_CONFIG_PATHS)
    )
    open_clip.factory._MODEL_CONFIGS.pop("nanoclip", None)
    with pytest.raises(FileNotFoundError, match="A_nano_backbone"):
        encoder.load("nano")
    made = encoder.build(CONV, PREPROCESS, name="nanoclip", seed=5)
    tensors = {
        f"visual.{k}": v.half() if v.is_floating_point() else v
        for k, v in made.tower.state_dict().items()
    }
    tensors = {k: v.contiguous() for k, v in tensors.items()} | {
        "text_projection": torch.ones(3, 3).half()
    }
    save_file(
        tensors,
        tmp_path / "nanoclip.safetensors",
        {"arch": "nanoclip", "preprocess": json.dumps(PREPROCESS.to_dict()), "provenance": "{}"},
    )
    nano = encoder.load("nano", resize="pad")
    assert (
        nano.name == "nano"
        and nano.preprocess.resize == "pad"
        and nano.preprocess.mean == PREPROCESS.mean
    )
    assert {v.dtype for v in nano.parameters()} == {torch.float32}
    weight = nano.tower.layer1[0].conv1.weight
    assert torch.equal(weight, made.tower.layer1[0].conv1.weight.half().float())


@pytest.mark.parametrize(
    "model, error, words",
    [
        ("nonesuch", ValueError, "unknown model 'nonesuch'.*nano-vit.*ARCH:TAG"),
        ("ViT-L14:none", ValueError, "no architecture 'ViT-L14'.*ViT-L-14"),
        (
            "ViT-L-14:laion9b",
            ValueError,
            "no weights 'laion9b' for ViT-L-14.*laion2b_s32b_b82k.*none",
        ),
        ("gone.safetensors", FileNotFoundError, "gone.safetensors is missing"),
    ],
)
def test_wrong_names_are_told_what_there_is(model, error, words):
    with pytest.raises(error, match=words) as caught:
        encoder.load(model)
    assert "\n" not in str(caught.value)


def test_offline_says_what_to_fetch_from_where_to_where(monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    monkeypatch.setattr(
        "open_clip.pretrained.download_pretrained", lambda facts: open(tmp_path / "hub")
    )
    with pytest.raises(
        FileNotFoundError,
        match=r"weight file from .*laion/CLIP-ViT-L-14-laion2B-s32B-b82K.*put it at",
    ):
        encoder.load("ViT-L-14:laion2b_s32b_b82k")


def test_the_papers_checkpoint_is_normalised_by_a_half():
    found = weights.source("ViT-L-14:laion2b_s32b_b82k").preprocess
    assert found == Preprocess(size=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), resize="squash")
    assert weights.source("ViT-B-32:laion2b_s34b_b79k").preprocess.mean[0] == pytest.approx(
        0.48145466
    )


def test_a_checkpoint_put_into_the_cache_by_hand_is_taken(monkeypatch, tmp_path):
    import open_clip

    (tmp_path / "tinyclip.json").write_text(json.dumps(VIT))
    monkeypatch.setattr(paths, "CACHE", tmp_path)
    configs = {"tinyclip": VIT, "other": CONV, "nanoclip": VIT}
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", configs)
    facts = {"tag": {"mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0)}}
    monkeypatch.setattr(open_clip.pretrained, "_PRETRAINED", {"tinyclip": facts, "other": facts})
    model = open_clip.create_model("tinyclip")
    (tmp_path / "weights").mkdir()
    for name in ("tinyclip", "other"):
        torch.save(model.state_dict(), tmp_path / "weights" / f"{name}_tag.pt")
    found = encoder.load("tinyclip:tag")
    assert found.preprocess.mean == (0.1, 0.2, 0.3) and found.name == "tinyclip:tag"
    assert torch.equal(found.tower.proj, model.visual.proj)
    with pytest.raises(
        ValueError, match="other_tag.pt is damaged, or a checkpoint of another architecture"
    ):
        encoder.load("other:tag")


def test_random_towers_are_always_the_same(monkeypatch):
    import open_clip

    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {"tinyclip": VIT, "nanoclip": VIT})
    state = torch.get_rng_state()
    first, second = (encoder.fingerprint(encoder.load("tinyclip:none")) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)  # and leave the caller's random numbers alone


def test_damaged_and_foreign_files_are_refused(tiny, tmp_path):
    path = save(tiny, tmp_path / "tower.safetensors")
    (tmp_path / "half.safetensors").write_bytes(path.read_bytes()[:-100])
    (tmp_path / "text.safetensors").write_text("no weights at all")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    for name in ("half", "text", "empty"):
        with pytest.raises(ValueError, match=f"{name}.safetensors is damaged, half-written or no"):
            encoder.load(tmp_path / f"{name}.safetensors")
    save_file(load_file(path), tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match="holds no image tower with its preprocessing"):
        encoder.load(tmp_path / "bare.safetensors")
    with safe_open(path, "pt") as file:
        facts = {**file.metadata(), "arch": "wide", "config": json.dumps({**VIT, "embed_dim": 24})}
    save_file(load_file(path), tmp_path / "foreign.safetensors", facts)
    with pytest.raises(
        ValueError, match="foreign.safetensors is .* of another architecture than wide"
    ):
        encoder.load(tmp_path / "foreign.safetensors")


def test_wise_ft_is_a_straight_line_between_weights(tiny):
    end = encoder.build(tiny.config, PREPROCESS, name=tiny.name, seed=1)
    for alpha in (0.0, 0.3, 1.0):
        mixed = dict(encoder.interpolate(tiny, end, alpha=alpha).tower.named_parameters())
        for name, start in tiny.tower.named_parameters():
            wanted = (1 - alpha) * start + alpha * end.tower.get_parameter(name)
            torch.testing.assert_close(mixed[name], wanted)
    assert encoder.fingerprint(encoder.interpolate(tiny, end, alpha=1.0)) == encoder.fingerprint(
        end
    )
    assert encoder.fingerprint(encoder.interpolate(tiny, end, alpha=0.0)) == encoder.fingerprint(
        tiny
    )


def test_wise_ft_refuses_what_does_not_match():
    vit, conv = (
        encoder.build(VIT, PREPROCESS, name="v", arch="arch-v"),
        encoder.build(CONV, PREPROCESS, name="c", arch="arch-c"),
    )
    with pytest.raises(ValueError, match=r"arch-v \(v, .*\) and arch-c \(c, "):
        encoder.interpolate(vit, conv, alpha=0.5)
    padded = encoder.build(
        VIT, Preprocess(size=32, mean=(0, 0, 0), std=(1, 1, 1), resize="pad"), name="p"
    )
    with pytest.raises(ValueError, match="one preprocessing"):
        encoder.interpolate(vit, padded, alpha=0.5)


def test_embeddings_are_unit_rows_in_the_order_of_the_images(tiny, pictures):
    rows = encoder.embed(tiny.train(), pictures, precision="fp32")
    assert (
        tiny.training
        and rows.shape == (5, 16)
        and rows.dtype == torch.float32
        and not rows.requires_grad
    )
    tiny.eval()
    for row, file in zip(rows, pictures.files, strict=True):
        pixels = np.asarray(Image.open(file))
        alone = tiny(torch.from_numpy(augment.evaluation(pixels, PREPROCESS))[None])[0].detach()
        torch.testing.assert_close(row, alone / alone.norm(), atol=1e-5, rtol=1e-4)
    paths_and_arrays = [*pictures.files[:4], pixels]
    torch.testing.assert_close(encoder.embed(tiny, paths_and_arrays, precision="fp32"), rows)


def test_views_start_with_the_plain_image_and_know_no_neighbours(tiny, pictures):
    plain = encoder.embed(tiny, pictures, precision="fp32")
    views = encoder.embed(tiny, pictures, precision="fp32", views=3, seed=4)
    assert views.shape == (15, 16)
    torch.testing.assert_close(views[::3], plain)
    assert not torch.allclose(views[1::3], plain, atol=1e-4)
    alone = encoder.embed(tiny, pictures.files[3:4], precision="fp32", views=3, seed=4)
    torch.testing.assert_close(views[9:12], alone)
    assert encoder.embed(tiny, []).shape == (0, 16)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("beside", [False, True], ids=["threads", "processes"])
def test_workers_change_nothing_but_who_reads(pictures, monkeypatch, beside):
    real = readers.batches

    def chosen(*given, workers, **how):
        return real(*given, workers=workers, **how | {"beside": beside})

    monkeypatch.setattr(readers, "batches", chosen)
    tiny, files = encoder.build(VIT, PREPROCESS, name="vit"), pictures.files * 2
    alone, helped = (encoder.embed(tiny, files, workers=workers) for workers in (0, 2))
    assert torch.equal(alone, helped)
    files[7].write_bytes(b"no image")
    with pytest.raises(ValueError, match="2.png.*cannot be read") as caught:
        encoder.embed(tiny, files, workers=2)
    assert "\n" not in str(caught.value)


def test_a_second_view_is_averaged_and_known_by_the_fingerprint(pictures, tmp_path):
    both, plain = (encoder.load("nano", pixels=96, also=also) for also in (64, 0))
    images, unit = torch.randn(2, 3, 96, 96), torch.nn.functional.normalize
    small = torch.nn.functional.interpolate(images, (64, 64), mode="bicubic", antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(both(images), (unit(plain(images)) + unit(plain(small))) / 2)
        assert torch.equal(both.train()(images), plain.train()(images))  # training sees one size
    assert encoder.fingerprint(both) != encoder.fingerprint(plain)
    again = encoder.load(save(both, tmp_path / "both.safetensors"))
    assert torch.equal(encoder.embed(again, pictures), encoder.embed(both, pictures))


def test_statistics_of_batch_normalisation_stay():
    tiny = encoder.build(CONV, PREPROCESS, name="conv").train()
    before = {k: v.clone() for k, v in tiny.tower.named_buffers()}
    tiny(torch.randn(4, 3, 32, 32)).sum().backward()
    assert before and all(torch.equal(v, before[k]) for k, v in tiny.tower.named_buffers())
    assert tiny.tower.bn1.weight.grad is not None  # scale and shift are trained


def test_checkpointing_gives_the_same_gradients(tiny):
    x, grads = torch.randn(2, 3, 32, 32), []
    for on in (False, True):
        tiny.train().checkpointing(on)
        tiny.zero_grad()
        tiny(x).square().sum().backward()
        grads.append([parameter.grad.clone() for parameter in tiny.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_checkpointing_reruns_the_stages_of_a_convolutional_tower():
    tiny, calls = encoder.build(CONV, PREPROCESS, name="conv").train(), []
    tiny.tower.layer2.register_forward_pre_hook(lambda *_: calls.append(1))
    tiny.checkpointing()
    tiny(torch.randn(2, 3, 32, 32)).sum().backward()
    assert len(calls) == 2
