"""The measurements on a tiny tower: klip's own step runs, its parts add up, FLOPs are counted, PML runs beside it."""

import json

import pytest
import torch
from typer.testing import CliRunner

from klip import cli
from klip.companion import report
from klip.finetuning import loop
from klip.model import encoder
from klip.model.augment import Preprocess
from klip.model.weights import save
from klip.scale import bench, watch
from klip.scale.watch import Asked
from klip.settings import paths

VIT = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16},
}

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture
def tiny(tmp_path):
    """The file of a small random tower of 2 blocks."""
    made = encoder.build(VIT, Preprocess(size=16, mean=(0.5,) * 3, std=(0.25,) * 3), name="tiny")
    return str(save(made, tmp_path / "tower.safetensors"))


def test_all_figures_of_a_tiny_tower(tiny, monkeypatch):
    taken, step = [], loop.Loop.train_step
    monkeypatch.setattr(
        loop.Loop, "train_step", lambda self, *b: (taken.append(len(b[0])), step(self, *b))[1]
    )
    sizes = {"steps": 3, "batch": 4, "accumulate": 2, "products": 5, "workers": 0, "rounds": 2}
    found = bench.bench(Asked(model=tiny, device="cpu", precision="fp32", **sizes))
    assert taken == [4] * 3 * (
        2 + 1 + 2
    )  # synthetic twice, fed once, beside PML twice; the idle loop trains nothing
    parts = found["synthetic"]["parts_s"]
    assert set(parts) == {"copy", "forward", "backward", "optimiser"} and min(parts.values()) > 0
    assert sum(parts.values()) < 5 * found["synthetic"]["step_s"]
    assert found["share_of_matrix_rate"] == pytest.approx(
        found["synthetic"]["images_per_s"]
        * found["tower_flops_per_image"]
        / found["matrix_flops_per_s"]
    )
    beside = found["beside_metric_loss_only"]
    assert all(len(values) == 2 and min(values) > 0 for values in beside["images_per_s"].values())
    assert beside["ratio"] == beside["medians"]["klip"] / beside["medians"]["metric_loss_only"]
    fed = found["jpeg_fed"]
    assert fed["loader_bound"] == (
        fed["loader_alone_images_per_s"] < found["synthetic"]["images_per_s"]
    )
    assert found["device"] == "CPU" and found["settings"]["accumulate"] == 2
    json.dumps(found, allow_nan=False)


def test_a_batch_of_0_is_that_of_the_device():
    assert Asked(device="cpu").batch == 4 and Asked(device="cpu", batch=7).batch == 7
    assert Asked().batch == (64 if torch.cuda.is_available() else 4)


def test_a_trainer_that_runs_out_of_memory_is_told_and_ends_nothing(tiny, monkeypatch):
    def greedy(trainer):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(bench, "metric_loss_only", greedy)
    sizes = {"steps": 2, "batch": 2, "products": 3, "workers": 0, "rounds": 2}
    found = bench.bench(Asked(model=tiny, device="cpu", **sizes))
    assert found["beside_metric_loss_only"][
        "out_of_memory"
    ] and "MetricLossOnly      ran out" in bench.text(found)


def test_flops_are_those_of_the_definition(tiny):
    """Two per multiply-add; a backward pass costs twice the forward, but the images take no gradient."""
    tokens, width, hidden, patches = 5, 32, 128, 4
    block = 2 * tokens * width * (4 * width + 2 * hidden) + 2 * 2 * tokens * tokens * width
    stem = 2 * patches * (3 * 8 * 8) * width
    top = 2 * width * 16
    assert bench.step_flops(tiny) == 3 * (2 * block + top) + 2 * stem


def test_matrix_rate_counts_two_per_multiply_add(monkeypatch):
    clock = iter(range(0, 100))
    monkeypatch.setattr(watch.time, "perf_counter", lambda: float(next(clock)))
    assert bench.matrix_rate("cpu", "fp32", side=64) == 2 * 64**3


def test_the_photographs_are_jpegs_of_their_products(tmp_path):
    frame = watch.photographs(tmp_path, 3)
    assert len(frame) == frame["product"].nunique() == 3
    assert all((tmp_path / image).read_bytes()[:2] == b"\xff\xd8" for image in frame["image"])


@pytest.mark.parametrize(
    "words, message",
    [
        (("--device", "tpu"), "device must be auto, cpu, or cuda where there is a GPU, got 'tpu'"),
        (("--device", "cpu", "--steps", "1"), "steps must be greater than or equal to 2, got 1"),
        (("--device", "cpu", "--batch", "-4"), "batch must be at least 2, got -4"),
        (
            ("--device", "cpu", "--precision", "fp8"),
            "precision must be 'auto', 'fp32', 'bf16' or 'fp16', got 'fp8'",
        ),
        (("--device", "cpu", "--model", "ViT-L-41"), "no architecture 'ViT-L-41'"),
    ],
)
def test_bad_input_is_one_sentence(words, message):
    result = CliRunner().invoke(cli.app, ["bench", *words])
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1


def test_command_prints_json_and_saves_for_a_name(tiny):
    words = [
        "bench",
        "--model",
        tiny,
        "--device",
        "cpu",
        "--steps",
        "2",
        "--batch",
        "2",
        "--products",
        "3",
        "--workers",
        "0",
        "--rounds",
        "1",
        "--json",
    ]
    result = CliRunner().invoke(cli.app, [*words, "--save", "tiny_cpu"])
    assert result.exit_code == 0, result.stderr
    stored = json.loads((paths.RESULTS / "gpu" / "tiny_cpu.json").read_text())
    assert stored["torch"] == torch.__version__ and stored["device"] == "CPU"
    assert json.loads(result.stdout) == stored and "date" not in json.dumps(stored)
    with pytest.raises(ValueError, match="gpu file is named in letters"):
        report.save_gpu("../x", {})
