"""Frozen blocks, proj, the optimiser, compile; states of every step; files of klip in plain open_clip."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from klip.finetuning import loop
from klip.model import augment, encoder
from klip.settings import paths

pytestmark = pytest.mark.usefixtures("one_thread")


def quiet(config, shop, cache=False, **more):
    return loop.finetune(config, shop, progress=False, cache=cache, **more)


def test_frozen_blocks_do_not_move_and_the_others_do(config, shop):
    before = encoder.load(config.model).tower.state_dict()
    run = quiet(config.changed(frozen_blocks=1), shop)
    moved = {
        name
        for name, value in run.encoder.tower.state_dict().items()
        if not torch.equal(value, before[name])
    }
    low = ("conv1", "class_embedding", "positional_embedding", "ln_pre", "transformer.resblocks.0")
    assert moved == {name for name in before if not name.startswith(low)}
    assert "lr_stem" not in run.history and "lr_block 1" in run.history
    assert all(parameter.requires_grad for parameter in run.encoder.tower.parameters())
    with pytest.raises(
        ValueError, match="frozen_blocks must be at most the 2 blocks of the tower, got 3"
    ):
        quiet(config.changed(frozen_blocks=3), shop)


def test_proj_dropped_gives_the_pooled_token_and_reloads(config, shop):
    run = quiet(config.changed(proj="drop"), shop, cache=True)
    again = encoder.load(run.path / "encoder.safetensors")
    images = torch.rand(2, 3, 16, 16)
    assert run.encoder.dim == again.dim == 32 and torch.equal(run.encoder(images), again(images))
    assert "visual.proj" not in load_file(run.path / "encoder.safetensors")
    base = encoder.load(config.model)
    whole = base(images)
    projection = base.tower.proj
    encoder.drop_projection(base)
    torch.testing.assert_close(base(images) @ projection, whole)


def test_eight_bit_moments_need_bitsandbytes(config, shop, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes.optim", None)
    with pytest.raises(ValueError, match="adamw8bit needs bitsandbytes, which is not installed"):
        quiet(config.changed(optimiser="adamw8bit"), shop)


@pytest.mark.parametrize(
    "change",
    [
        {"ema": 0.5, "accumulate": 2},
        {"loss": "softmax", "precision": "bf16"},
        {"frozen_blocks": 1, "accumulate": 3},
    ],
)
def test_a_run_interrupted_after_every_step_ends_as_if_it_had_not_been(
    config, shop, monkeypatch, change
):
    config = config.changed(save_every=1, **change)
    whole, step, done = quiet(config.changed(save_every=0), shop), loop.Loop.train_step, []

    def once(self, *batch):
        if len(done) and done[-1] == self.done:  # it has gone on from the state before
            done.append(None)
        elif self.done:
            done.append(self.done)
            raise KeyboardInterrupt
        return step(self, *batch)

    monkeypatch.setattr(loop.Loop, "train_step", once)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            quiet(config, shop, cache=True)
    resumed = quiet(config, shop, cache=True)
    assert encoder.fingerprint(resumed.encoder) == encoder.fingerprint(whole.encoder)
    assert resumed.history["loss"].tolist() == whole.history["loss"].tolist()
    assert [value for value in done if value] == [1, 2, 3]


@pytest.mark.parametrize("name, arch", [("nano", "nanoclip"), ("nano-vit", "nanovit")])
def test_a_fine_tuned_file_in_klip_and_in_plain_open_clip(config, shop, name, arch):
    import open_clip
    from PIL import Image

    run = quiet(config.changed(model=name, images=4), shop, cache=True)
    file, how = run.path / "encoder.safetensors", run.encoder.preprocess
    again = encoder.load(file)
    images = torch.rand(2, 3, how.size, how.size)
    assert again.preprocess == how and torch.equal(again(images), run.encoder(images))
    open_clip.add_model_config(paths.WEIGHTS)
    model, _, preprocess = open_clip.create_model_and_transforms(
        arch, image_mean=how.mean, image_std=how.std, image_resize_mode="squash"
    )
    found = open_clip.load_checkpoint(model, str(file), strict=False)
    assert not found.unexpected_keys and not any(
        key.startswith("visual.") for key in found.missing_keys
    )
    model.eval()
    if again.channels_last:  # klip keeps such a tower in this layout
        model.visual.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(model.encode_image(images), again(images))
    with torch.no_grad():  # where batch normalisation is folded, up to rounding
        plain, folded = model.encode_image(images), again(images)
    assert ((plain - folded).norm(dim=1) < 1e-5 * plain.norm(dim=1)).all()
    pixels = np.random.default_rng(0).integers(0, 256, (90, 61, 3), dtype=np.uint8)
    torch.testing.assert_close(
        preprocess(Image.fromarray(pixels)),
        torch.from_numpy(augment.evaluation(pixels, how)),
        atol=1e-6,
        rtol=0,
    )


def test_compiling_changes_no_name_and_hardly_a_number(config, shop, monkeypatch):
    compiled, original = [], torch.compile
    monkeypatch.setattr(
        torch,
        "compile",
        lambda module: compiled.append(module) or original(module, backend="eager"),
    )
    plain, other = quiet(config, shop), quiet(config.changed(compile=True), shop)
    assert compiled and list(plain.encoder.tower.state_dict()) == list(
        other.encoder.tower.state_dict()
    )
    assert other.history["loss"].tolist() == pytest.approx(plain.history["loss"].tolist(), rel=1e-2)
