"""Fine-tuning: the same run whatever workers, micro-batches and interruptions; rates; validation; errors."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from klip.data import balance
from klip.data.catalogue import Catalogue
from klip.finetuning import loop, run_cache
from klip.finetuning.prepare import Batches
from klip.finetuning.validation import top1
from klip.model import augment, blocks, encoder, heads
from klip.model.augment import Preprocess
from klip.model.weights import save
from klip.settings import paths
from klip.settings.config import FinetuneConfig

VIT = {
    "embed_dim": 16,
    "vision_cfg": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 16},
}
CONV = {
    "embed_dim": 16,
    "vision_cfg": {"layers": [1, 1, 1, 1], "width": 4, "head_width": 64, "image_size": 32},
}
LONG_TAIL = {"apple": 7, "bread": 4, "cocoa": 2, "dates": 1}

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Four products of one colour each, 7 + 4 + 2 + 1 training images, two validation images of each."""
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    rng, rows = np.random.default_rng(0), []
    for product, count in LONG_TAIL.items():
        colour = rng.integers(30, 226, 3)
        for i in range(count + 2):
            pixels = (colour + rng.integers(-25, 25, (24, 24, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{product}{i}.png")
            rows.append((f"{product}{i}.png", product, "train" if i < count else "val"))
    frame = pd.DataFrame(rows, columns=["image", "product", "split"])
    return Catalogue(frame, tmp_path, "shop")


def tower(tmp_path, config=VIT):
    """The file of a small random tower."""
    preprocess = Preprocess(
        size=config["vision_cfg"]["image_size"], mean=(0.5,) * 3, std=(0.25,) * 3
    )
    made = encoder.build(config, preprocess, name="tiny")
    return str(save(made, tmp_path / "tower.safetensors"))


@pytest.fixture
def config(shop, tmp_path):
    """Seven steps, the last one of two images."""
    model = tower(tmp_path)
    return FinetuneConfig(
        model=model, images=26, depth=3, batch_size=4, precision="fp32", workers=0
    )


def weights(run):
    return run.encoder.tower.state_dict()


def same(a, b):
    return same_tower(a.encoder, b.encoder)


def same_tower(a, b):
    theirs = b.tower.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in a.tower.state_dict().items())


def quiet(config, shop, **more):
    return loop.finetune(config, shop, progress=False, **{"cache": False, **more})


def test_one_seed_gives_one_result_whatever_the_workers(config, shop):
    runs = [quiet(config.changed(workers=workers), shop) for workers in (0, 0, 2)]
    assert same(runs[0], runs[1]) and same(runs[0], runs[2])
    assert runs[0].history["loss"].tolist() == runs[2].history["loss"].tolist()
    assert not same(runs[0], quiet(config.changed(seed=1), shop))


def test_the_caller_keeps_its_random_numbers(config, shop):
    state = torch.get_rng_state()
    quiet(config, shop)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "balanced, strength, strengths",
    [(True, 0.5, {0.5, 0.75}), (False, 0.5, {0.5}), (True, 1.6, {1.6, 2.0}), (True, 0.0, {0.0})],
)
def test_every_draw_is_seen_once_and_repeats_are_harder(
    config, shop, monkeypatch, balanced, strength, strengths
):
    seen, original = [], augment.training

    def spy(image, preprocess, *, rng, strength):
        seen.append((image.mean().round(6), rng.bit_generator.seed_seq.entropy, strength))
        return original(image, preprocess, rng=rng, strength=strength)

    monkeypatch.setattr(augment, "training", spy)
    quiet(config.changed(balanced=balanced, images=24 if balanced else 28, strength=strength), shop)
    epoch = len(seen) // 2
    assert [entropy for _, entropy, _ in seen] == [(0, e, i) for e in (0, 1) for i in range(epoch)]
    assert {strength for _, _, strength in seen} == strengths
    if (
        balanced and strength
    ):  # depth 3: three draws of each of the 4 products; cocoa repeats once, dates twice
        assert epoch == 12 and sum(used > strength for _, _, used in seen[:epoch]) == 3


def test_history_tells_the_rates_that_were_used(config, shop, tmp_path):
    history = quiet(config, shop).history
    assert history["step"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert history["images"].tolist() == [4, 8, 12, 16, 20, 24, 26]
    table = blocks.table(encoder.load(config.model).tower)
    for name, lr in [*zip(table["group"], table["lr"], strict=True), ("centres", config.head_lr)]:
        factors = [loop.rate_factor(step, 7, warmup=0.1) for step in range(7)]
        assert history[f"lr_{name}"].tolist() == pytest.approx([lr * factor for factor in factors])
    assert history["val_top1"].isna().tolist() == [True] * 6 + [False]
    assert (history["images_per_s"] > 0).all() and np.isfinite(history["loss"]).all()


def test_rates_rise_in_a_line_and_fall_as_a_cosine():
    factors = [loop.rate_factor(step, 100, warmup=0.1) for step in range(100)]
    assert factors[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert factors[10:] == pytest.approx([(1 + math.cos(math.pi * i / 90)) / 2 for i in range(90)])
    assert loop.rate_factor(0, 1, warmup=0.1) == loop.rate_factor(0, 3, warmup=0.0) == 1.0


def test_micro_batches_and_checkpointing_change_memory_only(config, shop, monkeypatch):
    """Gradients: AdamW makes a whole step of one that is 0 but for rounding (the bias of the keys)."""
    clip, found = torch.nn.utils.clip_grad_norm_, []

    def spy(parameters, most):
        found.append(torch.cat([parameter.grad.flatten() for parameter in parameters]))
        return clip(parameters, most)

    monkeypatch.setattr(loop.nn.utils, "clip_grad_norm_", spy)
    losses = quiet(config, shop).history["loss"].tolist()
    for change in (
        {"accumulate": 2},
        {"accumulate": 3},
        {"accumulate": 99},
        {"checkpointing": True},
    ):
        first, found = found[0], []
        other = quiet(config.changed(**change), shop)
        assert (found[0] - first).norm() < 1e-4 * first.norm(), change
        assert other.history["loss"].tolist() == pytest.approx(losses, rel=1e-2)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_an_interrupted_run_ends_as_if_it_had_not_been(config, shop, monkeypatch, ema):
    config = config.changed(save_every=2, validate_every=3, ema=ema)
    whole = quiet(config.changed(save_every=0), shop)
    step = loop.Loop.train_step

    def fail_at_six(self, images, labels):
        if self.done == 5:
            raise KeyboardInterrupt
        return step(self, images, labels)

    monkeypatch.setattr(loop.Loop, "train_step", fail_at_six)
    with pytest.raises(KeyboardInterrupt):
        quiet(config, shop, cache=True)
    files = sorted(path.name for path in (paths.CACHE / "runs").glob("*/*"))
    assert files == ["state.pt"]
    monkeypatch.setattr(
        loop.Loop, "train_step", lambda self, *b: step(self, *b) if self.done >= 4 else 1 / 0
    )
    resumed = quiet(config, shop, cache=True)
    assert same(whole, resumed)
    timing = ["images_per_s"]
    pd.testing.assert_frame_equal(
        resumed.history.drop(columns=timing), whole.history.drop(columns=timing)
    )
    kept = {"encoder.safetensors", "head.safetensors", "history.csv", "run.json"} | (
        {"average.safetensors"} if ema else set()
    )
    if ema:
        assert same_tower(whole.average, resumed.average)
    assert {path.name for path in resumed.path.iterdir()} == kept


def test_a_damaged_state_is_named(config, shop, monkeypatch):
    monkeypatch.setattr(run_cache, "folder", lambda facts, used: paths.CACHE / "run")
    (paths.CACHE / "run").mkdir(parents=True)
    (paths.CACHE / "run" / "state.pt").write_bytes(b"PK\x03\x04half")
    with pytest.raises(
        ValueError, match="state.pt is damaged or missing .*delete .*run to make it anew"
    ):
        quiet(config.changed(save_every=2), shop, cache=True)


def test_a_finished_run_is_found_again_by_content(config, shop, monkeypatch, tmp_path):
    first = quiet(config, shop, cache=True)
    monkeypatch.setattr(loop.Loop, "run", lambda *given, **more: 1 / 0)
    again = quiet(config.changed(workers=1, save_every=5), shop, cache=True)
    assert same(first, again) and again.path == first.path and again.seconds == first.seconds
    assert again.encoder.name == first.encoder.name
    assert encoder.fingerprint(again.encoder) == encoder.fingerprint(first.encoder)
    pd.testing.assert_frame_equal(again.history, first.history)
    with pytest.raises(ZeroDivisionError):
        quiet(config.changed(top_lr=1e-4), shop, cache=True)
    Image.new("RGB", (24, 24), "red").save(tmp_path / "apple0.png")  # same name, other picture
    Image.new("RGB", (24, 24), "red").save(tmp_path / "dates0.png")
    with pytest.raises(ZeroDivisionError):
        quiet(config, shop, cache=True)


def test_the_key_of_a_run_covers_the_code_that_decides_it(monkeypatch, tmp_path):
    names = {source.relative_to(run_cache.KLIP).as_posix() for source in run_cache.SOURCES}
    assert {"data/images.py", "data/balance.py", "model/heads.py", "finetuning/loop.py"} < names
    before = run_cache.folder([], [])
    (tmp_path / "changed.py").write_text("# other code")
    monkeypatch.setattr(run_cache, "SOURCES", [*run_cache.SOURCES[:-1], tmp_path / "changed.py"])
    assert run_cache.folder([], []) != before


@pytest.mark.parametrize("together", [False, True])
def test_batches_are_the_plans_draws(shop, together):
    plan = balance.plan(shop, 4)
    draws = list(plan.draws(67, together))
    made = Batches(plan, 67, size=10, together=together)
    assert [len(batch) for batch in made] == [10] * 6 + [7] and len(made) == 7
    assert torch.cat(list(made)).tolist() == [list(draw) for draw in draws]
    assert torch.equal(made[5], list(made)[5])  # in any order
    with pytest.raises(IndexError):
        made[7]


def test_what_the_frozen_encoder_sees_is_computed_once_for_all_runs(config, shop, seen, tmp_path):
    def of_run(change, **how):
        seen.clear()
        run = quiet(config.changed(validate_every=100, **change), shop, **how)
        return run, sum(seen)

    # Centres (3 + 3 + 2 + 1 images), validation (4 packshots, 8 queries) before and after.
    alone, images = of_run({"loss": "softmax"})
    assert images == 9 + 12 + 12
    # Three of the four packshots of the validation are among the images of the centres.
    assert of_run({}, cache=True)[1] == 9 + 12 - 3 + 12
    kept, images = of_run({"loss": "softmax"}, cache=True)
    assert same(alone, kept) and images == 12  # what is trained has to be embedded
    assert of_run({"seed": 1}, cache=True)[1] <= 12 + 4  # other images of apple and bread
    Image.new("RGB", (24, 24), "red").save(tmp_path / "dates0.png")
    assert of_run({}, cache=True)[1] == 1 + 12  # only what has changed


def test_what_is_kept_lies_between_frozen_and_last_weights(config, shop):
    run, frozen = (
        quiet(config.changed(ema=0.8), shop, cache=True),
        encoder.load(config.model, "squash"),
    )
    assert same_tower(encoder.load(run.keep(frozen)), run.encoder)
    file = run.keep(frozen, wise=0.25)
    mixed, start = encoder.load(file).tower.state_dict(), frozen.tower.state_dict()
    for name, value in run.encoder.tower.state_dict().items():
        torch.testing.assert_close(mixed[name], 0.75 * start[name] + 0.25 * value)
    assert file.parent == run.path and file == run.keep(frozen, wise=0.25)
    assert same_tower(encoder.load(run.keep(frozen, wise=0.0)), frozen)
    with pytest.raises(ValueError, match="cache=True"):
        quiet(config, shop).keep(frozen)


@pytest.mark.parametrize("most", [0, 1, 3, 99])
def test_few_queries_of_each_product_and_the_whole_gallery(shop, most):
    split = (
        shop["split"]
        .mask(shop["split"].eq("train"), "query")
        .mask(~shop["product"].duplicated(), "gallery")
    )
    whole = shop.assign(split=split.mask(split.eq("val"), "query"))  # 8, 5, 3 and 2 queries
    few = whole.few_queries(most)
    assert few.root == whole.root and few["split"].eq("gallery").sum() == 4
    counts = few.split("query")["product"].value_counts().to_dict()
    full = {"apple": 8, "bread": 5, "cocoa": 3, "dates": 2}
    assert counts == {product: min(count, most or count) for product, count in full.items()}
    pd.testing.assert_frame_equal(few.frame, whole.few_queries(most).frame)
    assert most != 3 or set(few["image"]) != set(whole.few_queries(most, seed=1)["image"])


def test_without_cache_nothing_is_written(config, shop):
    assert quiet(config, shop).path is None and not paths.CACHE.exists()


def test_moving_average_of_the_weights(config, shop, monkeypatch):
    step, after = loop.Loop.train_step, []

    def spy(self, images, labels):
        loss = step(self, images, labels)
        after.append(self.encoder.tower.proj.detach().clone())
        return loss

    monkeypatch.setattr(loop.Loop, "train_step", spy)
    run = quiet(config.changed(ema=0.8), shop)
    average = after[0]
    for weight in after[1:]:
        average = 0.8 * average + 0.2 * weight
    torch.testing.assert_close(run.average.tower.state_dict()["proj"], average)
    assert (
        same(run, quiet(config, shop)) and quiet(config, shop).average is None
    )  # averaging changes no step


def test_blocks_move_by_their_rates_and_centres_move_too(config, shop, monkeypatch):
    begun = []
    original = heads.initialise
    monkeypatch.setattr(
        heads,
        "initialise",
        lambda head, means: (original(head, means), begun.append((head, head.centres + 0))),
    )
    before = encoder.load(config.model).tower.state_dict()
    after = weights(quiet(config.changed(decay=0.1, weight_decay=0.0), shop))
    moved = {name: (after[name] - before[name]).abs().max().item() for name in after}
    assert moved["proj"] > 5 * moved["transformer.resblocks.0.mlp.c_fc.weight"]
    assert moved["transformer.resblocks.0.mlp.c_fc.weight"] > 5 * moved["conv1.weight"] > 0
    head, centres = begun[0]
    assert (head.centres - centres).abs().max() > 1e-3


def test_first_centres_are_the_class_means_of_the_frozen_encoder(config, shop, monkeypatch):
    means = []
    monkeypatch.setattr(heads, "initialise", lambda head, found: means.append(found))
    quiet(config.changed(depth=7), shop)
    base = encoder.load(config.model)
    cocoa = shop.where(shop["product"].eq("cocoa") & shop["split"].eq("train"))
    rows = encoder.embed(base, cocoa, precision="fp32")
    torch.testing.assert_close(
        torch.nn.functional.normalize(means[0][2], dim=0),
        torch.nn.functional.normalize(rows.mean(dim=0), dim=0),
    )


def test_a_convolutional_tower_keeps_its_batch_statistics(shop, tmp_path):
    model = tower(tmp_path, CONV)
    before = encoder.load(model).tower
    config = FinetuneConfig(
        model=model, images=8, depth=2, batch_size=4, precision="fp32", workers=0
    )
    run = quiet(config, shop)
    after = run.encoder.tower
    assert all(torch.equal(value, before.get_buffer(name)) for name, value in after.named_buffers())
    assert (
        not torch.equal(before.bn1.weight, run.encoder.tower.bn1.weight)
        and not run.encoder.training
    )


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("loss", ["arcface", "softmax"])
def test_low_precision_keeps_whole_weights_and_a_finite_loss(config, shop, precision, loss):
    run = quiet(config.changed(precision=precision, loss=loss), shop)
    assert np.isfinite(run.history["loss"]).all()
    assert {value.dtype for value in weights(run).values()} == {torch.float32}


def test_it_learns(config, shop):
    change = {
        "images": 320,
        "batch_size": 16,
        "top_lr": 1e-3,
        "rates": "common",
        "validate_every": 10,
    }
    run = quiet(config.changed(**change), shop)
    assert run.history["loss"].iloc[-3:].mean() < 0.75 * run.history["loss"].iloc[1:4].mean()
    seen = run.history.dropna(subset="val_top1")
    assert seen["step"].tolist() == [0, 10, 20] and seen["val_top1"].iloc[-1] >= 0.75


def test_validation_has_as_many_queries_of_each_product_and_one_gallery_image(shop):
    first = ((shop["product"] == "cocoa") & (shop["split"] == "val")).idxmax()
    uneven = shop.of(shop.frame.drop(first))
    gallery, queries = uneven.held_out()
    assert queries["product"].value_counts().to_dict() == dict.fromkeys(LONG_TAIL, 1)
    assert gallery["image"].tolist() == [f"{product}0.png" for product in LONG_TAIL]
    assert gallery.root == queries.root == shop.root
    assert shop.split("train").held_out() is None
    with pytest.raises(
        ValueError, match="1 products have no image to be compared with, first 'dates'"
    ):
        shop.where((shop["product"] != "dates") | (shop["split"] == "val")).held_out()


def test_validation_is_nearest_neighbour_by_brute_force(config, shop):
    gallery, queries = shop.held_out()
    tiny, right = encoder.load(config.model), 0
    packshots, rows = (encoder.embed(tiny, frame, precision="fp32") for frame in (gallery, queries))
    for row, product in zip(rows, queries["product"], strict=True):
        best = max(range(len(packshots)), key=lambda i: float(row @ packshots[i]))
        right += gallery["product"].iloc[best] == product
    assert top1(torch.cat([packshots, rows]), (gallery, queries)) == right / len(queries)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"depth": 0}, "depth must be greater than or equal to 1, got 0"),
        (
            {"loss": "contrastive"},
            "loss must be 'arcface', 'softmax' or 'triplet', got 'contrastive'",
        ),
        ({"rates": "upside-down"}, "rates must be 'blockwise'.*got 'upside-down'"),
        ({"breadth": 9}, "breadth must be at most the 4 products"),
        ({"model": "nonesuch"}, "unknown model 'nonesuch'"),
        (
            {"top_lr": 1e30, "precision": "fp32"},
            "the loss became nan at step .*try fp32 or a lower rate",
        ),
    ],
)
def test_wrong_settings_are_one_sentence_and_leave_nothing(config, shop, change, words):
    with pytest.raises(ValueError, match=words) as caught:
        quiet(config.changed(**change), shop, cache=True)
    # First centres may stay, a lock that nobody holds, and of a loss that is none the images and
    # the last state before it.
    stays = {"embeddings", "not_finite.json", "state.pt"}
    left = [file for file in paths.CACHE.rglob("*.*") if not stays & {file.parent.name, file.name}]
    assert "\n" not in str(caught.value) and all(file.suffix == ".lock" for file in left)


def test_wrong_images_are_named(config, shop, tmp_path):
    named = shop["product"].astype("category").cat.add_categories("eggs")
    with pytest.raises(ValueError, match="1 products have no training image, first 'eggs'"):
        quiet(config, shop.assign(product=named))
    (tmp_path / "bread1.png").write_bytes(b"no picture")
    for workers in (0, 1):
        with pytest.raises(ValueError, match="bread1.png.*cannot be read") as caught:
            quiet(config.changed(workers=workers, depth=4), shop, cache=True)
        assert "\n" not in str(caught.value)
    (tmp_path / "bread1.png").unlink()
    with pytest.raises(
        FileNotFoundError, match="bread1.png of product 'bread' cannot be read.*data check"
    ):
        quiet(config.changed(depth=4), shop, cache=True)
    assert not [file for file in paths.CACHE.rglob("*.*") if file.parent.name != "runs"]


def test_a_checkpoint_of_another_architecture_is_refused(config, shop, tmp_path):
    run = quiet(config, shop)
    other = encoder.build(CONV, run.encoder.preprocess, name="other", arch="conv")
    with pytest.raises(ValueError, match="one architecture"):
        encoder.interpolate(other, run.encoder, alpha=0.5)
    run.encoder.config = CONV
    save(run.encoder, tmp_path / "wrong.safetensors")
    with pytest.raises(
        ValueError, match="wrong.safetensors is .* of another architecture than tiny"
    ):
        quiet(config.changed(model=str(tmp_path / "wrong.safetensors")), shop)


def test_a_cached_run_keeps_its_head_and_its_averaged_weights(config, shop):
    config = config.changed(loss="softmax", ema=0.5)
    made, found = quiet(config, shop, cache=True), quiet(config, shop, cache=True)
    assert found.products == made.products == sorted(LONG_TAIL) and found.path == made.path
    assert torch.equal(made.head.body.weight, found.head.body.weight) and same_tower(
        made.average, found.average
    )
    (found.path / "head.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="head.safetensors is damaged or missing"):
        quiet(config, shop, cache=True)


def test_frozen_rates_train_the_head_alone(config, shop):
    run = quiet(config.changed(loss="softmax", rates="frozen"), shop)
    assert same_tower(run.encoder, encoder.load(config.model))
    assert (run.head.body.bias != 0).all() and "lr_proj" not in run.history


def test_a_base_encoder_takes_the_place_of_the_model_and_is_not_changed(config, shop):
    base = encoder.load(config.model)
    run = quiet(config.changed(model="anything"), shop, base=base)
    assert same(run, quiet(config, shop)) and same_tower(base, encoder.load(config.model))


def test_the_triplet_loss_gets_pairs_and_the_hierarchy(config, shop, monkeypatch):
    seen = []
    forward = heads.Head.forward
    monkeypatch.setattr(
        heads.Head,
        "forward",
        lambda self, z, labels: (seen.append(labels), forward(self, z, labels))[1],
    )
    groups = {"apple": "fruit", "dates": "fruit", "bread": "", "cocoa": "drink"}
    shop = shop.assign(group=shop["product"].map(groups))
    run = quiet(config.changed(loss="triplet", depth=2, images=24), shop)
    assert all((labels[::2] == labels[1::2]).all() for labels in seen) and len(seen) == 6
    margins = run.head.body.margins  # apple, bread, cocoa, dates
    assert margins[0, 3].item() == pytest.approx(0.1) and margins[0, 1].item() == pytest.approx(0.5)
    assert not same_tower(run.encoder, encoder.load(config.model))
    with pytest.raises(
        ValueError,
        match="wants pairs, so balanced draws, an even depth .* got balanced True, 3 and 4",
    ):
        quiet(config.changed(loss="triplet"), shop)


def test_steps_may_see_smaller_images_than_the_encoder_is_asked_with(
    config, shop, tmp_path, monkeypatch
):
    network = {"embed_dim": 256, "timm": {"model_name": "test_efficientnet"}}
    small = encoder.build(
        network, Preprocess(size=64, mean=(0.5,) * 3, std=(0.5,) * 3), name="tiny"
    )
    seen, original = set(), augment.training

    def spy(image, preprocess, *, rng, strength):
        seen.add(preprocess.size)
        return original(image, preprocess, rng=rng, strength=strength)

    monkeypatch.setattr(augment, "training", spy)
    run = quiet(config.changed(train_pixels=32), shop, base=small)
    assert seen == {32} and run.encoder.preprocess.size == 64
    with pytest.raises(ValueError, match="table of positions.*train_pixels 0"):
        quiet(config.changed(train_pixels=32), shop)
