"""Encoders that others publish: timm's and open_clip's, by name and from files, whole, missing, damaged, foreign."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from klip.data.catalogue import Catalogue
from klip.model import encoder, hub
from klip.model.augment import Preprocess
from klip.model.weights import save
from klip.recognise import evaluation
from klip.settings import paths

WSL = "resnext101_32x8d.fb_wsl_ig1b_ft_in1k"
SMALL = "resnet10t.c3_in1k"
"""A small network of timm, quick to build."""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """A test never goes to the network, nor to what was downloaded before."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_the_papers_network_has_its_size():
    with torch.device("meta"):
        made = encoder.load(f"timm:{WSL}:none")
    count = sum(parameter.numel() for parameter in made.parameters())
    assert count == 86_742_336 and made.dim == 2048
    assert count + 2048 * 1000 + 1000 == 88_791_336  # with its classifier
    maps = made.tower.trunk.forward_features(torch.empty(1, 3, 224, 224, device="meta"))
    assert maps.shape == (1, 2048, 7, 7)
    assert made.preprocess.to_dict() == {
        "size": 224,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "resize": "squash",
        "interpolation": "bilinear",
    }


@pytest.mark.parametrize("name", [WSL, "resnext101_32x8d.fb_swsl_ig1b_ft_in1k"])
def test_missing_weights_are_one_sentence_of_what_and_where(name):
    with pytest.raises(FileNotFoundError) as caught:
        encoder.load(f"timm:{name}")
    text = str(caught.value)
    assert f"weights {name} are not here" in text and f"huggingface.co/timm/{name}" in text
    assert str(paths.CACHE / "weights" / f"{name}.safetensors") in text and "\n" not in text


@pytest.mark.parametrize("suffix", hub.SUFFIXES)
def test_a_file_put_into_the_cache_by_hand_is_taken_without_its_classifier(suffix):
    import timm

    torch.manual_seed(3)
    whole = timm.create_model(SMALL).eval()
    file = paths.CACHE / "weights" / f"{SMALL}{suffix}"
    file.parent.mkdir(parents=True)
    save_file(whole.state_dict(), file) if suffix == ".safetensors" else torch.save(
        whole.state_dict(), file
    )
    read = encoder.load(f"timm:{SMALL}", resize="pad")
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(whole.fc(read(images)), whole(images))
    assert read.preprocess.resize == "pad" and read.name == f"timm:{SMALL}" and not read.training
    assert encoder.fingerprint(read) == encoder.fingerprint(
        encoder.load("timm:resnet10t", "pad")
    )  # its default tag


def test_files_that_do_not_fit_are_refused():
    import timm

    file = paths.CACHE / "weights" / f"{SMALL}.pth"
    file.parent.mkdir(parents=True)
    for content in (timm.create_model("resnet14t").state_dict(), {"conv1.weight": torch.ones(1)}):
        torch.save(content, file)
        with pytest.raises(
            ValueError, match=f"{SMALL}.pth is damaged, or .* than resnet10t"
        ) as caught:
            encoder.load(f"timm:{SMALL}")
        assert "\n" not in str(caught.value)
    file.write_bytes(b"no weights")
    with pytest.raises(ValueError, match=f"{SMALL}.pth is damaged"):
        encoder.load(f"timm:{SMALL}")


@pytest.mark.parametrize(
    "name, words",
    [
        ("nano-resnet", "no model 'nano-resnet'.*timm:NAME:none"),
        (
            "resnext101_32x8d.fb_wsl",
            "no model 'resnext101_32x8d.fb_wsl'.*resnext101_32x8d.fb_wsl_ig1b_ft_in1k",
        ),
        ("resnet10t:c3_in1k", "only `none` is accepted.*follow a dot"),
        ("", "no model ''"),
    ],
)
def test_wrong_names_are_told_what_there_is(name, words):
    with pytest.raises(ValueError, match=words) as caught:
        encoder.load(f"timm:{name}")
    assert "\n" not in str(caught.value)


def test_a_network_without_published_weights_can_only_be_random():
    with torch.device("meta"):
        assert encoder.load("timm:resnet50t:none").dim == 2048
    with pytest.raises(
        ValueError, match="timm has no weights for resnet50t.*; use timm:resnet50t:none"
    ):
        encoder.load("timm:resnet50t")


def test_random_weights_are_always_the_same_and_leave_the_callers_alone():
    state = torch.get_rng_state()
    first, second = (encoder.load(f"timm:{SMALL}:none") for _ in range(2))
    assert (
        encoder.fingerprint(first) == encoder.fingerprint(second)
        and first.name == f"timm:{SMALL}:none"
    )
    assert torch.equal(torch.get_rng_state(), state)


def test_embedding_evaluation_and_saving_take_a_network_of_timm(tmp_path):
    for product in range(3):
        for number in range(2):
            pixels = np.full((40, 30, 3), (80 * product, 200 - 60 * product, 40 + number), np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{product}-{number}.png")
    rows = [(f"{p}-{n}.png", str(p), ("gallery", "query")[n]) for p in range(3) for n in range(2)]
    frame = pd.DataFrame(rows, columns=["image", "product", "split"])
    three = Catalogue(frame, tmp_path, "three")
    made = encoder.load(f"timm:{SMALL}:none")
    found = encoder.embed(made, three, precision="fp32")
    assert found.shape == (6, made.dim) and torch.allclose(found.norm(dim=1), torch.ones(6))
    assert evaluation.evaluate(made, three, views=2)[
        "top1"
    ].all()  # a query is all but its packshot
    again = encoder.load(save(made, tmp_path / "tower.safetensors"))
    assert encoder.fingerprint(again) == encoder.fingerprint(made)


VIT = {
    "embed_dim": 16,
    "text_cfg": {"width": 32, "heads": 2, "layers": 1, "vocab_size": 64, "context_length": 8},
    "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32},
}


class Mischief:
    """What a pickled checkpoint may carry: code that runs while it is read."""

    def __reduce__(self):
        return open, ("ran", "w")


@pytest.fixture
def tinyclip(monkeypatch):
    """open_clip knows one small model, with two tags that want the same preprocessing."""
    import open_clip

    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {"tinyclip": VIT, "nanoclip": VIT})
    facts = {
        "mean": (0.1, 0.2, 0.3),
        "std": (1.0, 1.0, 1.0),
        "interpolation": "bilinear",
        "quick_gelu": True,
    }
    monkeypatch.setattr(
        open_clip.pretrained, "_PRETRAINED", {"tinyclip": {"a": facts, "b": dict(facts)}}
    )
    return open_clip.create_model("tinyclip")


@pytest.mark.parametrize(
    "suffix, form", [(".pt", "plain"), (".pt", "trainer"), (".safetensors", "plain")]
)
def test_a_checkpoint_file_of_open_clip_is_taken_as_arch_file(tinyclip, tmp_path, suffix, form):
    file = tmp_path / f"epoch_1{suffix}"
    state = {name: value.contiguous() for name, value in tinyclip.state_dict().items()}
    if suffix == ".safetensors":
        save_file(state, file)
    elif form == "plain":
        torch.save(state, file)
    else:  # what open_clip's training script writes, of several processes
        torch.save(
            {"epoch": 1, "state_dict": {f"module.{name}": value for name, value in state.items()}},
            file,
        )
    read = encoder.load(f"tinyclip:{file}", resize="pad")
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(read(images), tinyclip.eval().visual(images))
    assert read.preprocess.to_dict() == {
        "size": 32,
        "mean": [0.1, 0.2, 0.3],
        "std": [1.0] * 3,
        "resize": "pad",
        "interpolation": "bilinear",
    }  # what both published tags want
    assert read.config["quick_gelu"] is False  # a file does not say it: ARCH does


def test_code_in_a_checkpoint_is_never_run(tinyclip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"visual.proj": Mischief()}, "evil.pt")
    torch.save({"conv1.weight": Mischief()}, "evil.pth")
    (paths.CACHE / "weights").mkdir(parents=True)
    (tmp_path / "evil.pth").rename(paths.CACHE / "weights" / f"{SMALL}.pth")
    for name in ("tinyclip:evil.pt", f"timm:{SMALL}"):
        with pytest.raises(ValueError, match="evil.pt is damaged|c3_in1k.pth is damaged") as caught:
            encoder.load(name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def folder(tinyclip, tmp_path):
    """A folder as open_clip publishes models, and the model in it."""
    place = tmp_path / "published"
    place.mkdir()
    facts = {
        "model_cfg": {**VIT, "quick_gelu": True},
        "preprocess_cfg": {
            "size": 32,
            "mean": [0.5] * 3,
            "std": [0.25] * 3,
            "interpolation": "bilinear",
            "resize_mode": "squash",
        },
    }
    (place / hub.CONFIG).write_text(json.dumps(facts))
    save_file(
        {k: v.contiguous() for k, v in tinyclip.state_dict().items()},
        place / "open_clip_model.safetensors",
    )
    return place


def test_a_local_dir_is_read_as_open_clip_reads_it(folder, tmp_path):
    import open_clip

    read, whole = (
        encoder.load(f"local-dir:{folder}"),
        open_clip.create_model(f"local-dir:{folder}").eval(),
    )
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(read(images), whole.encode_image(images))
    theirs = whole.visual.preprocess_cfg
    assert read.preprocess == Preprocess(
        size=32, mean=theirs["mean"], std=theirs["std"], interpolation=theirs["interpolation"]
    )
    again = encoder.load(save(read, tmp_path / "mine.safetensors"))  # the folder may go
    assert encoder.fingerprint(again) == encoder.fingerprint(read)


def test_hf_hub_is_a_folder_fetched(folder, monkeypatch):
    def fetched(name, filename="open_clip_model.safetensors"):
        assert name == "org/tiny"
        return str(folder / filename)

    monkeypatch.setattr("open_clip.pretrained.download_pretrained_from_hf", fetched)
    read = encoder.load("hf-hub:org/tiny")
    assert read.name == "hf-hub:org/tiny"
    assert encoder.fingerprint(read) == encoder.fingerprint(encoder.load(f"local-dir:{folder}"))


def test_what_is_missing_or_wrong_is_one_sentence(folder, tmp_path):
    bare, odd = tmp_path / "bare", tmp_path / "odd"
    for place, text in (
        (bare, (folder / hub.CONFIG).read_text()),
        (odd, '{"model_cfg": {"embed_dim": 4}}'),
    ):
        place.mkdir()
        (place / hub.CONFIG).write_text(text)
    (odd / "model.pth").touch()
    for name, error, words in (
        (
            "hf-hub:org/tiny",
            FileNotFoundError,
            "hf-hub:org/tiny is not here.*huggingface.co/org/tiny.*local-dir",
        ),
        (
            f"local-dir:{tmp_path}",
            FileNotFoundError,
            "lacks open_clip_config.json or weights; local-dir:FOLDER takes both",
        ),
        (f"local-dir:{bare}", FileNotFoundError, "bare lacks .* or weights"),
        (f"local-dir:{odd}", ValueError, "no config of open_clip that can be built .KeyError"),
        (
            "tinyclip:gone.pt",
            FileNotFoundError,
            "gone.pt of tinyclip is missing; .* or a tag: a, b, none",
        ),
        (
            str(folder / "open_clip_model.safetensors"),
            ValueError,
            "of open_clip is called ARCH:FILE",
        ),
    ):
        with pytest.raises(error, match=words) as caught:
            encoder.load(name)
        assert "\n" not in str(caught.value)
    other = tmp_path / "other.pt"
    torch.save({"visual.proj": torch.zeros(3, 3)}, other)
    with pytest.raises(
        ValueError,
        match="other.pt is damaged, or a checkpoint of another architecture than tinyclip",
    ):
        encoder.load(f"tinyclip:{other}")
