"""An ONNX file computes what the encoder does, or is not written."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from klip.model import encoder, export
from klip.model.augment import Preprocess

onnxruntime = pytest.importorskip("onnxruntime")
PREPROCESS = Preprocess(size=32, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
TOWERS = {
    "convolutions": {"embed_dim": 512, "timm": {"model_name": "resnet18"}},
    "local concepts": {"embed_dim": 512, "timm": {"model_name": "resnet18"}, "lca": True},
    "transformer": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    },
}


def made(name, size=32, **more):
    preprocess = PREPROCESS.changed(size=size)
    return encoder.build(TOWERS[name] | more, preprocess, name=name)


def asked(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["embeddings"], {"images": images.numpy()})[0])


@pytest.mark.parametrize(
    "name, size", [("convolutions", 32), ("local concepts", 96), ("transformer", 32)]
)
def test_the_file_embeds_any_number_of_images_as_the_encoder(tmp_path, name, size):
    one = made(name, size)
    path = export.to_onnx(one, tmp_path / "new/one.onnx")
    for count in (1, 3, 7):
        images = torch.randn(count, 3, size, size)
        with torch.no_grad():
            expected = nn.functional.normalize(one(images), dim=1)
        assert (asked(path, images) - expected).norm(dim=1).max() <= 1e-5


def test_a_second_view_is_in_the_file(tmp_path):
    one = made("convolutions", also=16)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = nn.functional.normalize(one(images), dim=1)
    path = export.to_onnx(one, tmp_path / "one.onnx")
    assert (asked(path, images) - expected).norm(dim=1).max() <= 1e-5


def test_the_file_tells_how_it_wants_its_pixels(tmp_path):
    one = made("transformer")
    path = export.to_onnx(one, tmp_path / "one.onnx")
    facts = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    assert Preprocess(**json.loads(facts["preprocess"])) == PREPROCESS
    assert facts["fingerprint"] == encoder.fingerprint(one)
    assert one.training is False and all(w.requires_grad for w in one.parameters())


class Drawn(nn.Module):
    """A tower whose file cannot compute what it does: it adds what it draws."""

    def __init__(self, fixed):
        super().__init__()
        self.fixed, self.weight = fixed, nn.Parameter(torch.ones(1))

    def forward(self, images):
        colours = images.mean(dim=(2, 3)) * self.weight
        return colours + (torch.rand(len(images), 3) if self.fixed else torch.rand_like(colours))


@pytest.mark.parametrize(
    "fixed, reason", [(False, "from the encoder's"), (True, "cannot take 1 images")]
)
def test_a_file_that_computes_something_else_is_not_written(tmp_path, fixed, reason):
    tower = Drawn(fixed)
    one = encoder.Encoder(tower, PREPROCESS, name="drawn", arch="", config={"embed_dim": 3})
    with pytest.raises(ValueError, match=f"drawn.*{reason}"):
        export.to_onnx(one, tmp_path / "one.onnx")
    assert not list(tmp_path.iterdir())


def test_without_its_packages_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "NEEDED", ("onnx", "no_such_package"))
    with pytest.raises(
        ValueError, match=r"no_such_package not installed; run `pip install 'klip\[onnx\]'`"
    ):
        export.to_onnx(made("transformer"), tmp_path / "one.onnx")


def test_command(tmp_path):
    command = [sys.executable, "-m", "klip", "export", "--onnx", "one.onnx", "--model", "nano-vit"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "unit embeddings (B, " in done.stdout and (tmp_path / "one.onnx").stat().st_size > 1e6
    assert done.stderr == ""
