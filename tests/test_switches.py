"""Frozen blocks, proj, the optimiser, compile; states of every step; files of klip in plain open_clip."""

import pytest
import torch
from safetensors.torch import load_file
from test_ranks import config, shop  # noqa: F401  (fixtures)

from klip import encoder, paths, train

pytestmark = pytest.mark.usefixtures("one_thread")


def quiet(config, shop, cache=False, **more):  # noqa: F811
    return train.finetune(config, shop, progress=False, cache=cache, **more)


def test_frozen_blocks_do_not_move_and_the_others_do(config, shop):  # noqa: F811
    before = encoder.load(config.model).tower.state_dict()
    run = quiet(config.changed(frozen_blocks=1), shop)
    moved = {name for name, value in run.encoder.tower.state_dict().items() if not torch.equal(value, before[name])}
    low = ("conv1", "class_embedding", "positional_embedding", "ln_pre", "transformer.resblocks.0")
    assert moved == {name for name in before if not name.startswith(low)}
    assert "lr_stem" not in run.history and "lr_block 1" in run.history
    assert all(parameter.requires_grad for parameter in run.encoder.tower.parameters())
    with pytest.raises(ValueError, match="frozen_blocks must be at most the 2 blocks of the tower, got 3"):
        quiet(config.changed(frozen_blocks=3), shop)


def test_proj_dropped_gives_the_pooled_token_and_reloads(config, shop):  # noqa: F811
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


def test_eight_bit_moments_need_bitsandbytes(config, shop, monkeypatch):  # noqa: F811
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes.optim", None)
    with pytest.raises(ValueError, match="adamw8bit needs bitsandbytes, which is not installed"):
        quiet(config.changed(optimiser="adamw8bit"), shop)


@pytest.mark.parametrize("change", [
    {"ema": 0.5, "accumulate": 2}, {"loss": "softmax", "precision": "bf16"}, {"frozen_blocks": 1, "accumulate": 3}])
def test_a_run_interrupted_after_every_step_ends_as_if_it_had_not_been(config, shop, monkeypatch, change):  # noqa: F811
    config = config.changed(save_every=1, **change)  # noqa: F811
    whole, step, done = quiet(config.changed(save_every=0), shop), train._Trainer._step, []

    def once(self, *batch):
        if len(done) and done[-1] == self.step:  # it has gone on from the state before
            done.append(None)
        elif self.step:
            done.append(self.step)
            raise KeyboardInterrupt
        return step(self, *batch)

    monkeypatch.setattr(train._Trainer, "_step", once)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            quiet(config, shop, cache=True)
    resumed = quiet(config, shop, cache=True)
    assert encoder.fingerprint(resumed.encoder) == encoder.fingerprint(whole.encoder)
    assert resumed.history["loss"].tolist() == whole.history["loss"].tolist()
    assert [value for value in done if value] == [1, 2, 3]


def test_a_file_of_klip_in_plain_open_clip(tmp_path):
    import open_clip

    made = encoder.load("nano")
    file = encoder.save(made, tmp_path / "mine.safetensors")
    open_clip.add_model_config(paths.WEIGHTS)
    how = made.preprocess
    model, _, preprocess = open_clip.create_model_and_transforms(
        "nanoclip", image_mean=how.mean, image_std=how.std, image_resize_mode="squash")
    found = open_clip.load_checkpoint(model, str(file), strict=False)
    assert not found.unexpected_keys and not any(key.startswith("visual.") for key in found.missing_keys)
    images = torch.rand(2, 3, how.size, how.size)
    model.eval()
    model.visual.to(memory_format=torch.channels_last)  # as klip keeps a convolutional tower
    with torch.no_grad():
        assert torch.equal(model.encode_image(images.contiguous(memory_format=torch.channels_last)), made(images))
    assert preprocess.transforms[-1].mean == how.mean and preprocess.transforms[-1].std == how.std


def test_compiling_changes_no_name_and_hardly_a_number(config, shop, monkeypatch):  # noqa: F811
    compiled, original = [], torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: compiled.append(module) or original(module, backend="eager"))
    plain, other = quiet(config, shop), quiet(config.changed(compile=True), shop)
    assert compiled and list(plain.encoder.tower.state_dict()) == list(other.encoder.tower.state_dict())
    assert other.history["loss"].tolist() == pytest.approx(plain.history["loss"].tolist(), rel=1e-2)
