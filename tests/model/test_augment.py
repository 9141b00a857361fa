"""Views: the plain one against torchvision, the random ones against their promises."""

import json

import cv2
import numpy as np
import pytest

from klip.model.augment import Preprocess, evaluation, training, views

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
POLICIES = ("squash", "pad", "crop")
SHAPES = [(40, 64), (64, 40), (33, 33), (11, 333), (150, 20), (1, 1), (479, 97)]


def speckled(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def rng(*seed):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    "policy, theirs", [("squash", "squash"), ("pad", "longest"), ("crop", "shortest")]
)
def test_the_plain_view_is_the_one_of_open_clip(policy, theirs, interpolation):
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from PIL import Image

    for size in (32, 47):
        ours = Preprocess(size=size, mean=MEAN, std=STD, resize=policy, interpolation=interpolation)
        how = PreprocessCfg(size, "RGB", MEAN, STD, interpolation, theirs, fill_color=ours.fill)
        transform = image_transform_v2(how, is_train=False)
        thin = (
            [(11, 333)] if policy == "pad" else []
        )  # 1.06 pixels; thinner ones open_clip cannot pad
        for shape in [*SHAPES[:3], *SHAPES[4:], (50, 21), (63, 22), *thin]:
            image = speckled(*shape)
            view = torch.from_numpy(evaluation(image, ours))
            torch.testing.assert_close(view, transform(Image.fromarray(image)), atol=1e-6, rtol=0)


def test_bilinear_is_another_view_than_bicubic():
    image = speckled(80, 80)
    one, other = (
        evaluation(image, Preprocess(size=32, mean=MEAN, std=STD, interpolation=how))
        for how in ("bicubic", "bilinear")
    )
    assert np.abs(one - other).max() > 0.01


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("policy", POLICIES)
def test_every_view_is_finite_normalised_and_square(policy, shape):
    preprocess, image = Preprocess(size=32, mean=MEAN, std=STD, resize=policy), speckled(*shape)
    stack = np.stack(
        [evaluation(image, preprocess)]
        + [
            training(image, preprocess, rng=rng(seed), strength=strength)
            for seed in range(6)
            for strength in (0.5, 1, 2)
        ]
    )
    assert stack.shape == (19, 3, 32, 32) and stack.dtype == np.float32
    pixels = stack * np.array(STD)[:, None, None] + np.array(MEAN)[:, None, None]
    assert -1e-5 <= pixels.min() and pixels.max() <= 1 + 1e-5


def test_pad_keeps_the_shape_and_squash_the_whole():
    tall = np.zeros((100, 20, 3), np.uint8)
    padded = evaluation(tall, Preprocess(size=50, mean=MEAN, std=STD, resize="pad"))
    inside = (np.abs(padded) > 0.05).all(axis=0)  # the mean colour is 0, rounded to 1/255
    assert inside.sum(axis=1).tolist() == [10] * 50  # 20/100 of 50, over the whole height
    assert np.flatnonzero(inside[0]).tolist() == list(range(20, 30))
    half = speckled(60, 30)
    half[:30], half[30:] = 0, 255
    squashed = evaluation(half, Preprocess(size=20, mean=(0, 0, 0), std=(1, 1, 1)))
    assert squashed[:, :8].max() < 0.1 and squashed[:, 12:].min() > 0.9


@pytest.mark.parametrize("policy", POLICIES)
def test_the_generator_decides_everything(policy):
    preprocess, image = Preprocess(size=48, mean=MEAN, std=STD, resize=policy), speckled(70, 50)
    before = image.copy()
    assert np.array_equal(evaluation(image, preprocess), evaluation(image, preprocess))
    same = [training(image, preprocess, rng=rng(3, 1, 7)) for _ in range(2)]
    assert np.array_equal(*same)
    assert same[0].flags.c_contiguous and evaluation(image, preprocess).flags.c_contiguous
    assert not np.array_equal(same[0], training(image, preprocess, rng=rng(3, 1, 8)))
    assert np.array_equal(image, before)
    assert np.array_equal(
        training(image, preprocess, rng=rng(0), strength=0), evaluation(image, preprocess)
    )


def test_strength_moves_views_away_from_the_plain_one():
    preprocess, image = (
        Preprocess(size=48, mean=MEAN, std=STD),
        cv2.GaussianBlur(speckled(96, 96), (0, 0), 4),
    )
    plain = evaluation(image, preprocess)
    away = [
        np.mean(
            [
                np.abs(training(image, preprocess, rng=rng(seed), strength=strength) - plain).mean()
                for seed in range(40)
            ]
        )
        for strength in (0.25, 0.5, 1, 2)
    ]
    assert away == sorted(away) and away[-1] > 1.5 * away[0]


def test_never_mirrored():
    left = np.full((64, 64, 3), 250, np.uint8)
    left[:, :20] = 5  # a mark on the left stays on the left
    preprocess = Preprocess(size=32, mean=(0, 0, 0), std=(1, 1, 1))
    for seed in range(60):
        view = training(left, preprocess, rng=rng(seed), strength=0.5)
        assert view[:, :, :4].mean() < view[:, :, -4:].mean() + 0.02


def test_gallery_views_begin_plain_and_are_nested():
    preprocess, image = Preprocess(size=32, mean=MEAN, std=STD), speckled(50, 40)
    eight = views(image, preprocess, k=8, seed=5)
    assert eight.shape == (8, 3, 32, 32) and eight.dtype == np.float32
    assert np.array_equal(eight[0], evaluation(image, preprocess))
    assert np.array_equal(eight[:3], views(image, preprocess, k=3, seed=5))
    assert not np.array_equal(eight[1:], views(image, preprocess, k=8, seed=6)[1:])
    assert len({view.tobytes() for view in eight}) == 8


def test_preprocess_survives_json():
    preprocess = Preprocess(size=96, mean=MEAN, std=STD, resize="pad")
    assert Preprocess(**json.loads(json.dumps(preprocess.to_dict()))) == preprocess
    assert (
        Preprocess(size=96, mean=list(MEAN), std=list(STD), resize="pad") == preprocess
    )  # what JSON gives
    assert (
        "interpolation" not in preprocess.to_dict()
    )  # fingerprints of files older than the word stay
    bilinear = Preprocess(size=96, mean=MEAN, std=STD, interpolation="bilinear")
    assert Preprocess(**json.loads(json.dumps(bilinear.to_dict()))) == bilinear != preprocess


@pytest.mark.parametrize(
    "values, words",
    [
        ({"size": 0}, "size must be greater than or equal to 1, got 0"),
        ({"resize": "stretch"}, "resize must be 'squash', 'pad' or 'crop', got 'stretch'"),
        ({"mean": (0.5, 0.5)}, "mean.2 must be given"),
        ({"std": (0.2, 0.0, 0.2)}, "std.1 must be greater than 0, got 0.0"),
        ({"interpolation": "nearest"}, "interpolation must be 'bicubic' or 'bilinear'"),
    ],
)
def test_preprocess_refuses(values, words):
    with pytest.raises(ValueError, match=f"^preprocess: {words}"):
        Preprocess(**{"size": 32, "mean": MEAN, "std": STD, **values})


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_images_of_another_kind_are_refused(image):
    for use in (
        lambda: evaluation(image, Preprocess(size=8, mean=MEAN, std=STD)),
        lambda: training(image, Preprocess(size=8, mean=MEAN, std=STD), rng=rng(0)),
    ):
        with pytest.raises(ValueError, match="image: wants uint8"):
            use()
