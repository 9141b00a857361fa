"""The memory plan: counted on fake tensors as on real ones, in a line with the batch, and told in one sentence."""

import itertools
import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from typer.testing import CliRunner

from klip import cli
from klip.model import blocks, encoder
from klip.model.augment import Preprocess
from klip.model.device import resolve_precision
from klip.scale import activations, memory, watch
from klip.scale.watch import Asked

VIT = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 3, "width": 64, "head_width": 32, "patch_size": 8, "image_size": 32},
}
CONV = {
    "embed_dim": 16,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "head_width": 64, "image_size": 32},
}
PREPROCESS = Preprocess(size=32, mean=(0.5,) * 3, std=(0.5,) * 3)


def counted(images, precision, config=VIT, fake=True, frozen=0):
    with torch.device("meta"):
        tiny = encoder.build(config, PREPROCESS, name="tiny")
    with FakeTensorMode() if fake else torch.device("cpu"):
        activations.fill(tiny)
        blocks.freeze(tiny.tower, frozen)
        return activations.saved(tiny, torch.zeros(images, 3, 32, 32), precision=precision)


@pytest.fixture(scope="module")
def large():
    return activations.need("ViT-L-14", "bf16")


@pytest.mark.parametrize("config", [VIT, CONV], ids=["vit", "conv"])
def test_fake_tensors_count_as_real_ones(config):
    assert counted(4, "fp32", config) == counted(4, "fp32", config, fake=False)


def test_fake_tensors_count_as_real_ones_in_bf16():
    """But for the statistics of a layer norm: 4 bytes a number in truth, 2 in PyTorch's fake kernel for the CPU."""
    images, tokens, norms = 4, 17, 3 * 2 + 2
    fake, real = counted(4, "bf16"), counted(4, "bf16", fake=False)
    assert sum(real.sizes) - sum(fake.sizes) == norms * images * tokens * 2 * (
        4 - 2
    )  # mean and deviation


def test_the_count_is_what_the_definition_says():
    """One linear layer keeps its input, no parameter; in bf16 its cast input and its cast weight."""

    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(8, 6))

        def forward(self, images):
            return images.flatten(1) @ self.weight.T

    layer = encoder.Encoder(
        Layer(), PREPROCESS, name="layer", arch="layer", config={"embed_dim": 8}
    )
    assert activations.saved(layer, torch.zeros(5, 6), precision="fp32").sizes == [5 * 6 * 4]
    assert sorted(activations.saved(layer, torch.zeros(5, 6), precision="bf16").sizes) == [
        5 * 6 * 2
    ]  # images take no gradient


def test_bytes_are_linear_in_the_batch():
    found = {n: counted(n, "fp32") for n in (2, 4, 7)}
    for figure in (lambda s: sum(s.sizes), lambda s: s.between, lambda s: s.block):
        line = activations.Line.through(figure(found[2]), figure(found[4]))
        assert line.at(7) == figure(found[7])


def test_checkpointing_keeps_the_inputs_of_the_blocks():
    whole = counted(2, "fp32")
    tokens = 2 * 17 * 64 * 4
    kept_by_block = (sum(whole.sizes) - whole.between) // 3
    assert whole.between > 3 * tokens and whole.block == pytest.approx(kept_by_block, abs=tokens)
    assert whole.between + whole.block < sum(whole.sizes)


def test_frozen_blocks_keep_nothing():
    sizes = [sum(counted(2, "fp32", frozen=n).sizes) for n in (0, 1, 2, 3)]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 4
    with pytest.raises(ValueError, match="at most the 3 blocks of the tower, got 4"):
        counted(2, "fp32", frozen=4)


def test_parts_of_the_paper_s_model(large):
    assert large.parameters == large.trained == 303_966_208
    parts = large.parts(8, accumulate=8, ema=True)
    assert parts["weights"] == parts["averaged weights"] == 303_966_208 * 4
    assert (
        parts["optimiser"] == 303_966_208 * 8
        and parts["ArcFace head, its optimiser"] == 6500 * 768 * 12
    )
    assert parts["gradients of weights"] == (303_966_208 + 6500 * 768) * 4
    assert parts["activations"] == large.kept.at(8)
    assert large.parts(64, checkpointing=True)["activations"] < large.parts(64)["activations"] / 5
    assert large.parts(64)["gradients of weights"] == 0 < large.parts(1)["gradients of weights"]


def test_a_plan_fits_and_one_image_more_would_not(large):
    made = memory.plan("ViT-L-14", gpu_gb=11, batch=64, precision="bf16")
    budget = (11 - made.asked.reserve_gb) * 2**30
    assert made.peak <= budget
    assert made.accumulate * made.micro >= 64 > made.accumulate * (made.micro - 1)
    assert made.need == large and not made.checkpointing
    more = made.largest[False] + 1
    assert sum(large.parts(more, accumulate=2).values()) > budget
    between = (
        sum(sum(large.parts(1, accumulate=64, checkpointing=on).values()) for on in (False, True))
        / 2
        / 2**30
    )
    tight = memory.plan(
        "ViT-L-14", gpu_gb=between + 0.5, batch=64, precision="bf16", reserve_gb=0.5
    )
    assert tight.checkpointing and tight.largest[False] == 0 < tight.largest[True]


@pytest.mark.parametrize(
    "words, message",
    [
        (("--model", "ViT-L-41"), "no architecture 'ViT-L-41'"),
        (("--model", "nano", "--gpu-gb", "-1"), "gpu_gb must be greater than 0, got -1.0"),
        (("--model", "nano", "--gpu-gb", "nan"), "gpu_gb must be a finite number, got nan"),
        (("--model", "nano", "--batch", "0"), "batch must be greater than or equal to 1, got 0"),
        (
            ("--model", "nano", "--images", "-5"),
            "images must be greater than or equal to 1, got -5",
        ),
        (
            ("--model", "nano", "--products", "1"),
            "products must be greater than or equal to 2, got 1",
        ),
        (
            ("--model", "nano", "--precision", "fp8"),
            "precision must be 'auto', 'fp32', 'bf16' or 'fp16', got 'fp8'",
        ),
        (
            ("--model", "nano", "--gpu-gb", "0.1"),
            "for one image at a time even with checkpointing, got a GPU of 0.1",
        ),
        (("--model", "missing.safetensors"), "missing.safetensors is missing"),
    ],
)
def test_bad_input_is_one_sentence(words, message):
    result = CliRunner().invoke(cli.app, ["plan", *words])
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: the command would probe it")
def test_command_prints_parts_and_settings():
    result = CliRunner().invoke(
        cli.app, ["plan", "--model", "nano-vit", "--gpu-gb", "2", "--batch", "8"]
    )
    assert result.exit_code == 0, result.stderr
    assert (
        "--set batch_size=8 --set accumulate=1 --set checkpointing=false --set precision=auto"
        in result.stdout
    )
    assert "-p batch_size 8" in result.stdout and "no GPU is here" in result.stdout


@pytest.mark.usefixtures("one_thread")  # with more the libraries take room of their own
@pytest.mark.parametrize(
    "batch, accumulate, checkpointing", [(8, 1, False), (8, 2, False), (8, 1, True), (16, 4, True)]
)
def test_prediction_is_what_a_step_allocates_on_the_cpu(batch, accumulate, checkpointing):
    """Of klip's own second step, by the allocations that PyTorch's profiler saw; weights and optimiser are there."""
    how = {"accumulate": accumulate, "checkpointing": checkpointing}
    few = {"steps": 2, "batch": batch, "products": 16, "workers": 0}
    asked = Asked(model="nano-vit", device="cpu", precision="fp32", **few, **how)
    with watch.watched(asked) as loop:
        size = loop.encoder.preprocess.size
        step = torch.randn(batch, 3, size, size), torch.arange(batch) % 16
        loop.encoder.checkpointing(checkpointing)
        loop.encoder.train()
        loop.train_step(*step)
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        ) as seen:
            loop.train_step(*step)
    events = seen.profiler.kineto_results.events()
    changes = [
        event.nbytes()
        for event in sorted(events, key=lambda e: e.start_ns())
        if event.name() == "[memory]"
    ]
    need = activations.need("nano-vit", "fp32", products=16)
    parts = need.parts(math.ceil(batch / accumulate), **how)
    there = parts["weights"] + parts["optimiser"] + parts["ArcFace head, its optimiser"]
    assert 0.95 < sum(parts.values()) / (there + max(itertools.accumulate(changes))) < 1.12


@pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="needs a GPU: compares with torch.cuda.max_memory_allocated",
)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_prediction_is_what_a_gpu_allocates(checkpointing):
    precision = resolve_precision("auto", "cuda")
    how = {"accumulate": 2, "checkpointing": checkpointing}
    few = {"steps": 3, "batch": 32, "products": 100, "workers": 0}
    asked = Asked(model="ViT-B-32", device="cuda", precision=precision, **few, **how)
    with watch.watched(asked) as loop:
        found = watch.step_alone(loop, 3)
    parts = activations.need("ViT-B-32", precision, products=100).parts(16, **how)
    assert sum(parts.values()) == pytest.approx(found["peak_allocated_bytes"], rel=0.1)


@pytest.mark.parametrize("model", ["imagenet", "timm:resnet10t:none", "coca_ViT-B-32"])
def test_other_towers_are_planned_too(model):
    made = memory.plan(model, gpu_gb=11, batch=8)
    config, preprocess = activations.described(model)
    with torch.device("meta"):
        count = sum(p.numel() for p in encoder.build(config, preprocess, name=model).parameters())
    assert made.need.parameters == count and 0 < made.peak < 11 * 2**30
    assert made.need.kept.per_image > 3 * 4 * preprocess.size**2  # more than the image itself
