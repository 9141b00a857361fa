"""Encoders that others publish: timm's and open_clip's, by name and from files, whole, missing, damaged, foreign."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from klip import encoder, hub, paths, zeroshot

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
    assert made.preprocess.to_dict() == {"size": 224, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
                                         "resize": "squash", "interpolation": "bilinear"}


@pytest.mark.parametrize("name", [WSL, "resnext101_32x8d.fb_swsl_ig1b_ft_in1k"])
def test_missing_weights_are_one_sentence_of_what_and_where(name):
    with pytest.raises(FileNotFoundError) as caught:
        encoder.load(f"timm:{name}")
    text = str(caught.value)
    assert f"weights {name} are not here" in text and "355 MB" in text and f"huggingface.co/timm/{name}" in text
    assert str(paths.CACHE / "weights" / f"{name}.safetensors") in text and "\n" not in text


@pytest.mark.parametrize("suffix", hub.SUFFIXES)
def test_a_file_put_into_the_cache_by_hand_is_taken_without_its_classifier(suffix):
    import timm

    torch.manual_seed(3)
    whole = timm.create_model(SMALL).eval()
    file = paths.CACHE / "weights" / f"{SMALL}{suffix}"
    file.parent.mkdir(parents=True)
    save_file(whole.state_dict(), file) if suffix == ".safetensors" else torch.save(whole.state_dict(), file)
    read = encoder.load(f"timm:{SMALL}", resize="pad")
    images = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(whole.fc(read(images)), whole(images))
    assert read.preprocess.resize == "pad" and read.name == f"timm:{SMALL}" and not read.training
    assert encoder.fingerprint(read) == encoder.fingerprint(encoder.load("timm:resnet10t", "pad"))  # its default tag


def test_files_that_do_not_fit_are_refused():
    import timm

    file = paths.CACHE / "weights" / f"{SMALL}.pth"
    file.parent.mkdir(parents=True)
    for content in (timm.create_model("resnet14t").state_dict(), {"conv1.weight": torch.ones(1)}):
        torch.save(content, file)
        with pytest.raises(ValueError, match=f"{SMALL}.pth is damaged, or .* than resnet10t") as caught:
            encoder.load(f"timm:{SMALL}")
        assert "\n" not in str(caught.value)
    file.write_bytes(b"no weights")
    with pytest.raises(ValueError, match=f"{SMALL}.pth is damaged"):
        encoder.load(f"timm:{SMALL}")


@pytest.mark.parametrize("name, words", [
    ("nano-resnet", "no model 'nano-resnet'.*timm:NAME:none"),
    ("resnext101_32x8d.fb_wsl", "no model 'resnext101_32x8d.fb_wsl'.*resnext101_32x8d.fb_wsl_ig1b_ft_in1k"),
    ("resnet10t:c3_in1k", "only `none` is accepted.*follow a dot"),
    ("", "no model ''"),
])
def test_wrong_names_are_told_what_there_is(name, words):
    with pytest.raises(ValueError, match=words) as caught:
        encoder.load(f"timm:{name}")
    assert "\n" not in str(caught.value)


def test_a_network_without_published_weights_can_only_be_random():
    with torch.device("meta"):
        assert encoder.load("timm:resnet50t:none").dim == 2048
    with pytest.raises(ValueError, match="timm has no weights for resnet50t.*; use timm:resnet50t:none"):
        encoder.load("timm:resnet50t")


def test_random_weights_are_always_the_same_and_leave_the_callers_alone():
    state = torch.get_rng_state()
    first, second = (encoder.load(f"timm:{SMALL}:none") for _ in range(2))
    assert encoder.fingerprint(first) == encoder.fingerprint(second) and first.name == f"timm:{SMALL}:none"
    assert torch.equal(torch.get_rng_state(), state)


def test_embedding_evaluation_and_saving_take_a_network_of_timm(tmp_path):
    for product in range(3):
        for number in range(2):
            pixels = np.full((40, 30, 3), (80 * product, 200 - 60 * product, 40 + number), np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{product}-{number}.png")
    rows = [(f"{p}-{n}.png", str(p), ("gallery", "query")[n]) for p in range(3) for n in range(2)]
    frame = pd.DataFrame(rows, columns=["image", "product", "split"])
    frame.attrs.update(root=str(tmp_path), name="three")
    made = encoder.load(f"timm:{SMALL}:none")
    found = encoder.embed(made, frame, precision="fp32")
    assert found.shape == (6, made.dim) and torch.allclose(found.norm(dim=1), torch.ones(6))
    assert zeroshot.evaluate(made, frame, views=2)["top1"].all()  # a query is all but its packshot
    again = encoder.load(encoder.save(made, tmp_path / "tower.safetensors"))
    assert encoder.fingerprint(again) == encoder.fingerprint(made)
