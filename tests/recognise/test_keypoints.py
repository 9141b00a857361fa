"""Votes, histograms and descriptors against loops over their definitions, and shops whose answer is known."""

import colorsys

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from klip.data.catalogue import Catalogue
from klip.data.images import read
from klip.recognise import keypoints

KEYPOINTS = [
    "sift",
    pytest.param(
        "brisk",
        marks=pytest.mark.skipif(
            not hasattr(getattr(cv2, "xfeatures2d", cv2), "BRISK_create"),
            reason="this OpenCV comes without BRISK",
        ),
    ),
]
METHODS = [*KEYPOINTS, "hsv"]


def artwork(rng, height=120, width=90):
    """Overlapping rectangles and discs of random colours: full of corners, unlike any other."""
    canvas = np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(25):
        x, y, colour = (
            int(rng.integers(width)),
            int(rng.integers(height)),
            rng.integers(0, 256, 3).tolist(),
        )
        if rng.random() < 0.5:
            cv2.rectangle(
                canvas,
                (x, y),
                (x + int(rng.integers(8, 30)), y + int(rng.integers(8, 30))),
                colour,
                -1,
            )
        else:
            cv2.circle(canvas, (x, y), int(rng.integers(4, 15)), colour, -1)
    return canvas


def shop(folder, products=7, change=lambda picture, product: picture, queries=1):
    """A catalogue: of every product a packshot, and queries that are the packshot changed by `change`."""
    rng, rows = np.random.default_rng(3), []
    for product in range(products):
        picture = artwork(rng)
        for kind, count in (("gallery", 1), ("query", queries)):
            for number in range(count):
                name = f"p{product}_{kind}{number}.png"
                shown = picture if kind == "gallery" else change(picture, product)
                Image.fromarray(shown).save(folder / name)
                rows.append((name, f"p{product}", kind))
    frame = pd.DataFrame(rows, columns=["image", "product", "split"])
    return Catalogue(frame, folder, "shop")


def dim_turned_small(picture, product):
    """A query as shops make them: half as large, turned by 15 degrees, darker."""
    height, width = picture.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 15 if product % 2 else -15, 0.9)
    turned = cv2.warpAffine(picture, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return (
        cv2.resize(turned, (width // 2, height // 2), interpolation=cv2.INTER_AREA) * 0.6
    ).astype(np.uint8)


def test_root_sift_from_its_definition():
    rows = np.random.default_rng(0).integers(0, 256, (5, 130)).astype(np.uint8)
    rows[2] = 0
    found, angles, sizes = keypoints.prepared(rows)
    assert (angles == rows[:, 128]).all() and (sizes == rows[:, 129]).all()
    rows = rows[:, :128]
    for row, mine in zip(rows.tolist(), found.tolist(), strict=True):
        total = sum(row)
        assert mine == pytest.approx([(x / total) ** 0.5 if total else 0.0 for x in row], abs=1e-6)
    assert np.linalg.norm(found, axis=1) == pytest.approx([1, 1, 0, 1, 1], abs=1e-6)
    assert keypoints.prepared(np.zeros((0, 130), np.uint8)).roots.shape == (0, 128)


def sift_votes(query, packshots):
    return keypoints.sift_votes(keypoints.prepared(query), [*map(keypoints.prepared, packshots)])


def votes_by_loop(query, gallery, distance, farthest):
    """Every descriptor against every descriptor of every product, in plain Python."""
    weights = [0.0] * len(gallery)
    for one in query:
        nearest = [
            min((distance(one, other) for other in rows), default=farthest) for rows in gallery
        ]
        order = sorted(range(len(gallery)), key=lambda product: (nearest[product], product))
        second = nearest[order[1]] if len(order) > 1 else farthest
        weights[order[0]] += second - nearest[order[0]]
    return weights


@pytest.mark.parametrize("sizes", [(4, 9, 1), (3, 0, 5, 2), (0, 4), (6,), (0, 0)], ids=str)
@pytest.mark.parametrize("count", [0, 1, 12])
def test_votes_equal_every_pair_compared(sizes, count, agreeing_votes_by_loop):
    rng = np.random.default_rng(len(sizes) + count)
    raw = [rng.gamma(0.5, 30, size=(n, 130)).clip(0, 255).astype(np.uint8) for n in (count, *sizes)]
    found = sift_votes(raw[0], raw[1:])
    assert found == pytest.approx(agreeing_votes_by_loop(raw[0], raw[1:]), abs=1e-3 * max(count, 1))
    bits = [rng.integers(0, 256, (n, 64), dtype=np.uint8) for n in (count, *sizes)]
    found = keypoints.brisk_votes(bits[0], bits[1:])
    expected = votes_by_loop(
        bits[0],
        bits[1:],
        lambda a, b: sum(
            int(x ^ y).bit_count() for x, y in zip(a.tolist(), b.tolist(), strict=True)
        ),
        512,
    )
    assert found.tolist() == expected


@pytest.mark.parametrize(
    "distances, farthest, expected",
    [
        ([[0.2, 0.9, 0.5]], 1.0, [0.3, 0, 0]),  # margin to the second product, not to the third
        ([[0.2, 0.2, 0.5]], 1.0, [0, 0, 0]),  # two equal packshots: no margin
        (
            [[0.2, 0.6], [0.8, 0.7], [0.3, 0.5]],
            1.0,
            [0.6, 0.1],
        ),  # two for the first, one for the second
        ([[0.25], [0.5]], 1.0, [1.25]),  # one product: the second is as far as can be
        (np.zeros((0, 3)), 1.0, [0, 0, 0]),  # no descriptor
    ],
)
def test_vote(distances, farthest, expected):
    matches = np.stack([distances, np.zeros_like(distances), np.zeros_like(distances)])
    assert keypoints.vote(matches, farthest) == pytest.approx(expected)


def test_equal_packshots_have_no_margin_however_the_matrix_product_rounds():
    rng = np.random.default_rng(2)
    rows, query = (
        rng.gamma(0.5, 30, size=(n, 130)).clip(0, 255).astype(np.uint8) for n in (37, 200)
    )
    assert not sift_votes(np.concatenate([query, rows]), [rows] * 5).any()


def test_descriptors_lose_nothing_by_one_byte_each():
    picture = keypoints.grey(artwork(np.random.default_rng(6)), keypoints.SIFT_SIDE)
    floats = cv2.SIFT_create(50, contrastThreshold=keypoints.SIFT_CONTRAST).detectAndCompute(
        picture, None
    )[1][:50]
    found = keypoints.sift(artwork(np.random.default_rng(6)), 50)
    assert found.dtype == np.uint8 and len(found) == 50 and (found[:, :128] == floats).all()


def test_angles_and_sizes_follow_the_picture():
    picture = cv2.GaussianBlur(artwork(np.random.default_rng(6)), (0, 0), 1.5)
    square = picture[: min(picture.shape[:2]), : min(picture.shape[:2])]
    for turned, angle in ((square, 0), (np.ascontiguousarray(np.rot90(square)), 256 - 64)):
        found = keypoints.match(
            *(keypoints.prepared(keypoints.sift(image)) for image in (turned, square))
        )
        sure = found[:, found[0] < 0.3]
        assert sure.shape[1] > 10
        assert (
            np.median(np.abs((sure[1] - angle + 128) % 256 - 128)) <= 2
            and np.median(np.abs(sure[2])) <= 1
        )


def test_matches_count_as_far_as_they_agree_across_the_circle():
    distances = np.array([[0.0, 0.5]] * 4)
    turns, growths = np.array([[120, 0], [-120, 0], [110, 0], [0, 0]]), np.zeros((4, 2))
    # 120 and -120 are 16 apart
    assert keypoints.vote(np.stack([distances, turns, growths])).tolist() == [1.5, 0]
    growths[1] = 13
    assert keypoints.vote(np.stack([distances, turns, growths])).tolist() == [1.0, 0]


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (7, 1), (2, 2), (13, 9)])
def test_histogram_by_a_loop_over_the_pixels(size):
    image = np.random.default_rng(4).choice([0, 40, 128, 200, 255], (*size, 3)).astype(np.uint8)
    bins, expected = keypoints.HSV_BINS, {}
    for row in range(size[0]):
        for column in range(size[1]):
            hue, saturation, value = colorsys.rgb_to_hsv(*(image[row, column] / 255).tolist())
            place = (
                2 * row // size[0] * 2 + 2 * column // size[1],
                int(round(hue * 180) % 180 * bins[0] / 180),
                int(round(saturation * 255) * bins[1] / 256),
                int(round(value * 255) * bins[2] / 256),
            )
            expected[place] = expected.get(place, 0) + 1 / (size[0] * size[1])
    found = keypoints.hsv_histogram(image)
    assert found.shape == (4 * np.prod(bins),) and found.sum() == pytest.approx(1)
    found = found.reshape(4, *bins)
    assert {
        tuple(map(int, place)): found[tuple(place)] for place in np.argwhere(found)
    } == pytest.approx(expected)


def test_intersection_is_the_common_share():
    a, b = np.array([0.5, 0.5, 0.0]), np.array([0.2, 0.3, 0.5])
    assert keypoints.intersections(a, [a, b]) == pytest.approx([1, 0.2 + 0.3 + 0.0])


@pytest.mark.parametrize(
    "shape, expected",
    [
        ((20, 10), (160, 80)),
        ((10, 20), (80, 160)),
        ((900, 640), (160, 114)),
        ((1, 1), (160, 160)),
        ((300, 1), (160, 8)),
        ((2, 400), (8, 160)),  # thinner than 8 is stretched
    ],
)
def test_working_size(shape, expected):
    found = keypoints.grey(np.full((*shape, 3), 77, np.uint8), 160)
    assert found.shape == expected and found.dtype == np.uint8 and (found == 77).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_packshot_finds_itself_and_permuted_owners_find_the_other(tmp_path, method):
    catalogue = shop(tmp_path)
    frame = keypoints.evaluate(catalogue, method)
    assert (
        frame["top1"].all()
        and frame["top5"].all()
        and (frame["predicted"] == frame["product"]).all()
    )
    following = {f"p{i}": f"p{(i + 1) % 7}" for i in range(7)}
    owners = catalogue["product"].where(
        catalogue["split"] == "query", catalogue["product"].map(following)
    )
    moved = keypoints.evaluate(catalogue.assign(product=owners), method)
    assert (
        not moved["top1"].any()
        and moved["predicted"].tolist() == frame["product"].map(following).tolist()
    )


@pytest.mark.parametrize("method", KEYPOINTS)
def test_keypoints_bear_turning_shrinking_and_dim_light(tmp_path, method):
    assert keypoints.evaluate(shop(tmp_path, change=dim_turned_small), method)["top1"].sum() >= 6


@pytest.mark.parametrize("method", METHODS)
def test_top5_and_similarity_from_the_scores(tmp_path, method):
    catalogue = shop(tmp_path, products=9, change=dim_turned_small, queries=2)
    frame = keypoints.evaluate(catalogue, method)
    look, compare = keypoints.METHODS[method]
    gallery = [look(read(tmp_path / f"p{i}_gallery0.png"), keypoints.PACKSHOT) for i in range(9)]
    for row in frame.itertuples():
        scores = compare(look(read(tmp_path / row.image), keypoints.QUERY), gallery).tolist()
        best = sorted(range(9), key=lambda product: (-scores[product], product))
        assert row.predicted == f"p{best[0]}" and row.similarity == pytest.approx(
            scores[best[0]], rel=1e-4
        )
        assert row.top1 == (row.predicted == row.product)
        assert row.top5 == (row.product in [f"p{product}" for product in best[:5]])


@pytest.mark.parametrize("method", METHODS)
def test_queries_are_those_of_zero_shot_evaluation_for_any_number_of_workers(tmp_path, method):
    catalogue = shop(tmp_path, queries=3)
    mixed = catalogue.of(catalogue.frame.sample(frac=1, random_state=1))
    more = mixed.split("query").first(1).assign(split="gallery")
    catalogue = mixed.of(pd.concat([mixed.frame, more.frame]))
    for rule, seed in (("web1", 0), ("largest", 0), ("random", 5)):
        frame = keypoints.evaluate(catalogue, method, rule=rule, seed=seed, workers=1)
        pd.testing.assert_frame_equal(
            frame, keypoints.evaluate(catalogue, method, rule=rule, seed=seed, workers=3)
        )
        _, queries = catalogue.pick(rule, seed)
        pd.testing.assert_frame_equal(
            frame[["image", "product"]], queries.frame[["image", "product"]]
        )
        assert frame.columns.tolist() == [
            "image",
            "product",
            "predicted",
            "top1",
            "top5",
            "similarity",
        ]
        assert (
            frame["top1"].dtype == frame["top5"].dtype == bool
            and frame["similarity"].dtype == float
        )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "shape, mode",
    [
        ((60, 60), "RGB"),
        ((1, 1), "RGB"),
        ((1, 90), "L"),
        ((400, 3), "RGB"),
        ((30, 20), "RGBA"),
        ((40, 40), "P"),
    ],
)
def test_images_without_keypoints_have_a_defined_answer(tmp_path, method, shape, mode):
    """Plain, tiny and extreme images, as query of one product and as packshot of another."""
    catalogue = shop(tmp_path)
    Image.new(mode, shape[::-1]).save(tmp_path / "p2_query0.png")
    Image.new(mode, shape[::-1]).save(tmp_path / "p4_gallery0.png")
    frame = keypoints.evaluate(catalogue, method).set_index("product")
    assert frame["top1"].drop(["p2", "p4"]).all() and np.isfinite(frame["similarity"]).all()
    if method != "hsv":
        assert (
            frame.loc["p2", ["predicted", "similarity"]].tolist() == ["p0", 0]
            and frame.loc["p2", "top5"]
        )


@pytest.mark.parametrize("method", METHODS)
def test_grey_files_and_a_gallery_of_one_product(tmp_path, method):
    catalogue = shop(tmp_path, products=1)
    Image.open(tmp_path / "p0_gallery0.png").convert("L").save(tmp_path / "p0_gallery0.png")
    frame = keypoints.evaluate(catalogue, method)
    assert frame["predicted"].tolist() == ["p0"] and (frame["similarity"] > 0).all() == (
        method != "hsv"
    )


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"method": "surf"}, "method must be one of sift, brisk, hsv, got 'surf'"),
        ({"rule": "web2"}, "first, web1, largest, random"),
    ],
)
def test_evaluate_refuses(tmp_path, arguments, word):
    with pytest.raises(ValueError, match=word):
        keypoints.evaluate(shop(tmp_path, products=2), **arguments)


def test_a_damaged_query_is_named_and_leaves_no_setting_behind(tmp_path):
    catalogue, threads = shop(tmp_path, products=3), cv2.getNumThreads()
    (tmp_path / "p1_query0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="p1_query0.png: cannot be read"):
        keypoints.evaluate(catalogue, "hsv")
    assert cv2.getNumThreads() == threads


def test_an_opencv_without_brisk_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(cv2, "xfeatures2d", object(), raising=False)
    keypoints._brisk.cache_clear()
    with pytest.raises(ImportError, match="install opencv-contrib-python-headless"):
        keypoints.evaluate(shop(tmp_path, products=2), "brisk")
