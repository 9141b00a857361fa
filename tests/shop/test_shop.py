"""The rendered shop: one seed, one set of pixels; ranges share no brand; renders are whole or absent."""

import dataclasses

import cv2
import numpy as np
import pytest

from klip.shop import sets
from klip.shop.artwork import label
from klip.shop.design import RANGES, caption, design, range_of
from klip.shop.packshot import SHAPES, packshot, trimmed
from klip.shop.paint import axes, between, blend, grid, layer, noise, paste, pick_weighted
from klip.shop.photo import STYLES, on_white, photograph
from klip.shop.plan import ShopPlan, counts
from klip.shop.sets import render
from klip.shop.shelf import lay

TINY = ShopPlan(
    breadth=5,
    max_images=6,
    min_images=2,
    val_images=2,
    grozi_products=3,
    grozi_queries=2,
    capg_lines=2,
    capg_flavours=2,
    capg_queries=2,
    rp2k_products=3,
    rp2k_queries=2,
    rp2k_train=3,
    size=48,
    seed=7,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("shop") / "tiny"
    return root, render(TINY, root, workers=1, progress=False)


def test_the_same_seed_gives_the_same_products_and_pixels():
    first, again = design("pretrain", 6, seed=3), design("pretrain", 6, seed=3)
    assert first == again
    cut = packshot(first[0], 96, view=(20, 8), variant=2)
    label.cache_clear()
    assert np.array_equal(cut, packshot(again[0], 96, view=(20, 8), variant=2))
    cut = trimmed(cut)
    for style in STYLES:
        shots = [
            photograph(cut, np.random.default_rng(5), size=64, others=(cut,), style=style)
            for _ in range(2)
        ]
        assert np.array_equal(*shots)
    assert np.array_equal(*(on_white(cut, np.random.default_rng(5), size=64) for _ in range(2)))


def test_another_seed_gives_other_products():
    first, other = (
        {p.brand for p in design("pretrain", 9, flavours=(1, 1), seed=seed)} for seed in (0, 1)
    )
    assert first != other


def test_every_brand_belongs_to_its_own_range_only():
    brands = {
        name: {p.brand.casefold() for p in design(name, 150, flavours=(1, 1))} for name in RANGES
    }
    for name, words in brands.items():
        assert all(range_of(word) == name for word in words)
    assert sum(map(len, brands.values())) == len(set().union(*brands.values()))


def test_product_names_are_unique_and_fit_for_folders():
    names = [p.name for p in design("finetune", 400)]
    assert len(set(names)) == len(names)
    assert all(name.isascii() and not set(name) & set("/\\ :*?") for name in names)


def test_every_shape_fills_its_frame():
    found = {}
    for product in design("pretrain", 400, flavours=(1, 1)):
        found.setdefault(product.shape, product)
    assert set(found) == set(SHAPES)
    for product in found.values():
        cut = packshot(product, 96)
        assert cut.shape == (96, 96, 4) and cut.dtype == np.uint8
        seen = cut[..., 3] > 30
        assert max(np.ptp(np.flatnonzero(seen.any(axis))) for axis in (0, 1)) > 80, product.shape


def test_a_product_longer_than_its_frame_is_made_to_fit():
    """A tool that lies is drawn a pixel longer than asked for: more than a hundredth of a
    small frame, which is mended anyhow, but less of a large one.
    """
    tools = [p for p in design("finetune", 400, flavours=(1, 1)) if p.shape == "tool"]
    for product in tools:
        cut = packshot(product, 320)
        seen = [np.flatnonzero(cut[..., 3].max(axis) > 5) for axis in (1, 0)]
        assert cut.shape == (320, 320, 4)
        assert 314 <= max(np.ptp(places) for places in seen) < 320, product.name


def test_flavours_of_a_line_differ_only_in_a_part_of_the_label():
    lines = {}
    for product in design("capg_like", 30, flavours=(3, 3)):
        if product.shape != "produce":
            lines.setdefault(product.line_seed, []).append(product)
    shares = []
    for one, two, _ in lines.values():
        assert (one.brand, one.shape, one.palette) == (two.brand, two.shape, two.palette)
        change = np.abs(label(one, (150, 120)).astype(int) - label(two, (150, 120))).max(2) > 12
        shares.append(change.mean())
    assert min(shares) > 0 and np.median(shares) < 0.25 and max(shares) < 0.75


def test_captions_carry_the_attributes():
    rng = np.random.default_rng(0)
    product = next(p for p in design("pretrain", 30, flavours=(1, 1)) if p.shape == "bottle")
    said = [caption(product, rng) for _ in range(80)]
    assert len(set(said)) > 15
    for word in (product.brand, product.flavour, product.noun, product.shape):
        assert any(word in text for text in said), word


def test_photographs_cover_dark_and_bright_and_answer_to_strength():
    cut = trimmed(packshot(design("pretrain", 1, flavours=(1, 1))[0], 96))

    def spread(strength):
        rng = np.random.default_rng(0)
        how = {"size": 48, "style": "tight", "strength": strength}
        return np.std([photograph(cut, rng, **how).mean() for _ in range(60)])

    assert spread(1.0) > 1.5 * spread(0.0)


def test_counts_follow_the_definition():
    made = counts(ShopPlan(breadth=50, exponent=1.0, max_images=100, min_images=4))
    assert made[0] == 100 and made[1] == 50 and made[9] == 10 and made[-1] == 4
    assert (np.diff(made) <= 0).all()
    plan = ShopPlan()
    made = counts(plan)
    ranks = range(1, plan.breadth + 1)
    want = [max(plan.min_images, round(plan.max_images * rank**-plan.exponent)) for rank in ranks]
    assert made.tolist() == want
    # A long tail: hundreds of images at the head, under ten at its end.
    assert want[0] >= 200 and want[-1] < 10


def test_catalogues_hold_what_the_plan_asks_for(finished):
    root, frames = finished
    assert tuple(frames) == sets.SETS
    for frame in frames.values():
        assert list(frame.columns) == ["image", "product", "split"]
        assert all((root / image).is_file() for image in frame["image"])
    sizes = {name: frame.groupby("split").size().to_dict() for name, frame in frames.items()}
    assert sizes["finetune"] == {"train": counts(TINY).sum(), "val": 10}
    assert sizes["grozi_like"] == {"gallery": 3, "query": 6}
    assert sizes["capg_like"] == {"gallery": 4, "query": 8}
    assert sizes["rp2k_like"] == {"gallery": 3, "query": 6, "train": 9}


def fingerprint(root):
    return (root / "fingerprint.txt").read_text()


def test_a_finished_render_is_only_read(finished, monkeypatch):
    root, frames = finished

    def never(*_, **__):
        raise AssertionError("rendered again")

    monkeypatch.setattr(sets, "photograph", never)
    for name, frame in render(TINY, root, progress=False).items():
        assert frame.equals(frames[name])


def test_two_workers_render_the_same_bytes_as_one(finished, tmp_path):
    root, _ = finished
    render(TINY, tmp_path / "again", workers=2, progress=False)
    assert fingerprint(tmp_path / "again") == fingerprint(root)


def test_another_plan_has_another_fingerprint_and_takes_the_place(tmp_path):
    small = dataclasses.replace(TINY, breadth=2, max_images=2, grozi_products=1, capg_lines=1)
    render(small, tmp_path / "shop", workers=1, progress=False)
    first = fingerprint(tmp_path / "shop")
    render(dataclasses.replace(small, seed=8), tmp_path / "shop", workers=1, progress=False)
    assert fingerprint(tmp_path / "shop") != first
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


def test_an_interrupted_render_leaves_nothing(tmp_path, monkeypatch):
    whole, done = sets.photograph, []

    def stop_at_the_tenth(*arguments, **named):
        if len(done) == 10:
            raise KeyboardInterrupt
        done.append(whole(*arguments, **named))
        return done[-1]

    monkeypatch.setattr(sets, "photograph", stop_at_the_tenth)
    with pytest.raises(KeyboardInterrupt):
        render(TINY, tmp_path / "shop", workers=1, progress=False)
    assert len(done) == 10 and list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_render_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("do not delete")
    with pytest.raises(ValueError, match="root must be a new or empty folder"):
        render(TINY, tmp_path, progress=False)
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("field", "value", "accepted"),
    [
        ("exponent", 0, "above 0"),
        ("exponent", float("nan"), "above 0"),
        ("exponent", "1", "above 0"),
        ("breadth", 1, "at least 2"),
        ("min_images", 0, "at least 1"),
        ("max_images", 2, "at least min_images"),
        ("size", 8, "at least 48"),
        ("size", 4096, "at most 512"),
        ("seed", -1, "at least 0"),
        ("grozi_strength", 1.5, "0..1"),
        ("capg_flavours", 40, "at most 12"),
        ("val_images", 2.5, "whole number"),
    ],
)
def test_a_broken_plan_says_what_is_wrong(field, value, accepted):
    with pytest.raises(ValueError) as error:
        ShopPlan(**{field: value})
    assert str(error.value).startswith(f"shop plan: {field} must") and accepted in str(error.value)
    assert repr(value) in str(error.value)


def test_broken_arguments_say_what_is_accepted():
    with pytest.raises(ValueError, match="range must be one of pretrain, finetune"):
        design("shelf", 3)
    cut = np.zeros((32, 32, 4), np.uint8)
    with pytest.raises(ValueError, match="style must be one of tight, scene, pile"):
        photograph(cut, np.random.default_rng(0), size=32, style="wide")
    with pytest.raises(ValueError, match="strength must lie in 0..1, got 2"):
        photograph(cut, np.random.default_rng(0), size=32, strength=2)


def numbers(*shape):
    return np.random.default_rng(3).random(shape, np.float32)


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_blending_and_pasting_are_their_definitions_to_the_bit(precision):
    canvas, sprite, colour = numbers(30, 41, 3), numbers(30, 41, 4).astype(precision), (0.1, 0.5, 1)
    mask, made = sprite[..., 0], canvas.copy()
    blend(made, colour, where=mask, opacity=0.7)
    weight = (mask * np.float32(0.7))[..., None]
    want = canvas + weight * (np.float32(colour) - canvas)
    assert np.array_equal(made, want.astype(np.float32))
    made = canvas.copy()
    paste(made, sprite)
    want = canvas + sprite[..., 3:] * (sprite[..., :3] - canvas)
    assert np.array_equal(made, want.astype(np.float32))
    made, below = numbers(30, 41, 4)[::-1].copy(), numbers(30, 41, 4)[::-1]
    paste(made, sprite)
    total = sprite[..., 3:] + below[..., 3:] * (1 - sprite[..., 3:])
    share = sprite[..., 3:] / np.maximum(total, 1e-4)
    colours = below[..., :3] + share * (sprite[..., :3] - below[..., :3])
    assert np.array_equal(made, np.dstack((colours, total)).astype(np.float32))


@pytest.mark.parametrize("colour", [0.6, (0.1, 2.0, -1.0), numbers(9, 7, 3) * 2 - 0.5])
def test_a_layer_has_its_colour_and_its_mask(colour):
    made, mask = layer(colour, numbers(9, 7)), numbers(9, 7)
    assert made.dtype == np.float32 and np.array_equal(made[..., 3], mask)
    want = np.broadcast_to(np.clip(colour, 0, 1), (9, 7, 3)).astype(np.float32)
    assert np.array_equal(made[..., :3], want)


def test_axes_broadcast_to_the_grid():
    for line, whole in zip(axes(20, 33), grid(20, 33), strict=True):
        assert np.array_equal(np.broadcast_to(line, (20, 33)), whole)


def test_a_weighted_pick_is_the_choice_of_numpy():
    one, other = np.random.default_rng(4), np.random.default_rng(4)
    options, p = (1, 2, 3, 4), (0.08, 0.5, 0.34, 0.08)
    made = [pick_weighted(one, options, p=p) for _ in range(500)]
    assert made == [other.choice(options, p=p) for _ in range(500)]


def test_a_number_between_two_is_the_one_that_numpy_gives():
    one, other = (np.random.default_rng(4) for _ in range(2))
    for low, high in ((0, 1), (-0.6, 0.6), (2, 255), (0.3, 0.3)):
        for _ in range(200):
            assert between(one, low, high) == other.uniform(low, high)


def test_a_trimmed_product_ends_where_it_is_seen():
    cut = np.zeros((30, 40, 4), np.uint8)
    assert trimmed(cut).shape == cut.shape  # nothing is seen of it
    cut[5:12, 8:31, 3] = 255
    cut[2, 2, 3] = 20  # next to nothing
    assert np.array_equal(trimmed(cut), cut[5:12, 8:31])


def test_noise_wraps_around_every_256_pixels():
    field = noise(np.random.default_rng(0), (300, 300), stretch=1.0 + 1e-9)
    assert np.allclose(field[:40, :40], field[256:296, 256:296], atol=1e-4)


@pytest.mark.parametrize("size", [48, 96, 144, 200])
def test_a_product_is_laid_as_by_a_warp_of_the_whole_canvas(size):
    rng = np.random.default_rng(size)
    part = trimmed(packshot(design("pretrain", 3, flavours=(1, 1))[1], 96))
    high, wide = part.shape[:2]
    source = np.float32([(0, 0), (wide, 0), (wide, high), (0, high)])
    for _ in range(40):
        # Not much smaller than the product, which would be reduced first; some hang over.
        corners = source * rng.uniform(0.9, 1.2) + rng.uniform(-size, size, 2)
        corners = (corners + rng.normal(0, 2, (4, 2))).astype(np.float32)
        matrix = cv2.getPerspectiveTransform(source, corners)
        canvas = numbers(size, size, 3) * 255
        colours = np.ascontiguousarray(part[..., :3])
        rgb = cv2.warpPerspective(colours, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
        mask = cv2.warpPerspective(np.ascontiguousarray(part[..., 3]), matrix, (size, size))
        mask = mask.astype(np.float32) * np.float32(1 / 255)
        want = canvas + mask[..., None] * (rgb.astype(np.float32) - canvas)
        assert np.array_equal(lay(canvas, part, corners=corners), mask)
        assert np.array_equal(canvas, want)
