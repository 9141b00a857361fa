"""Tags of rendered products, the loss of WSL, and a pre-training of two steps from corpus to file."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors import safe_open

from klip import backbones, encoder, nano, paths, tags
from klip.augment import evaluation
from klip.shop.design import CATEGORIES, FRUIT, Product, design

pytestmark = pytest.mark.usefixtures("one_thread")

TEA = Product("mio-0-gold-ice_tea-mint-0", "Mio", "Gold", "mint", "tea", "ice tea", "carton", 1, 2,
              ((0.96, 0.94, 0.95), (0.8, 0.1, 0.1), (0.1, 0.1, 0.1), (0.0, 0.0, 0.0)), (0.14, 0.6, 0.22))
ORANGE = Product("zed-1-variety-orange-orange-0", "Zed", "variety", "orange", "produce", "orange", "produce", 3, 4,
                 ((0.96, 0.5, 0.1), (0.96, 0.85, 0.15), (0.4, 0.3, 0.1), (0.1, 0.6, 0.2)), (0.95, 0.52, 0.08))


def test_tags_of_a_product_are_its_words_and_the_names_of_its_colours():
    assert tags.of(TEA) == {"package": "carton", "goods": "ice tea", "category": "tea", "ground": "white",
                            "second": "red", "accent": "green", "flavour": "mint", "line": "Gold"}
    assert "ground: white" in tags.written(TEA) and len(tags.written(TEA)) == 8


def test_produce_has_no_line_and_its_orange_is_three_things():
    assert "line" not in tags.of(ORANGE) and len(tags.written(ORANGE)) == 7
    assert {"goods: orange", "ground: orange", "accent: orange", "flavour: orange"} <= set(tags.written(ORANGE))


def test_no_tag_gives_a_brand_away():
    products = design("pretrain", 60, (1, 2), 0)
    names = tags.vocabulary(products)
    assert names == sorted(set(names)) and {name.split(": ")[0] for name in names} == set(tags.KINDS)
    assert not {product.brand for product in products} & {name.split(": ")[1] for name in names}
    goods = {word for _, words in CATEGORIES.values() for word in words.split("|")} | set(FRUIT)
    assert {name.split(": ")[1] for name in names if name.startswith("goods")} <= goods


def test_an_image_shares_its_weight_among_its_tags():
    names = tags.vocabulary([TEA, ORANGE])
    rows = tags.targets([tags.written(TEA), tags.written(ORANGE)], names)
    assert rows.shape == (2, 15)
    for row, product, k in zip(rows, (TEA, ORANGE), (8, 7), strict=True):
        for column, name in enumerate(names):
            assert row[column].item() == pytest.approx(1 / k if name in tags.written(product) else 0)


@pytest.mark.parametrize("own, word", [(["line: Silver"], "line: Silver"), ([], "none at all")])
def test_unknown_and_missing_tags_are_refused(own, word):
    with pytest.raises(ValueError, match=f"among the 8 of the vocabulary, got '{word}'"):
        tags.targets([own], tags.vocabulary([TEA]))


def test_the_loss_is_the_mean_over_images_of_the_mean_over_their_tags():
    torch.manual_seed(0)
    names, products = tags.vocabulary([TEA, ORANGE]), [TEA, ORANGE, TEA]
    logits = torch.randn(3, len(names), dtype=torch.bfloat16)
    total = 0.0
    for row, product in zip(logits.double().tolist(), products, strict=True):
        whole = math.log(sum(math.exp(value) for value in row))
        own = [row[names.index(tag)] for tag in tags.written(product)]
        total += sum(whole - value for value in own) / len(own) / 3
    wanted = tags.targets([tags.written(product) for product in products], names)
    assert tags.loss(logits, wanted).item() == pytest.approx(total, rel=1e-5)


def test_the_loss_is_lowest_where_every_tag_has_its_share():
    wanted = tags.targets([tags.written(TEA)], tags.vocabulary([TEA, ORANGE]))
    best = tags.loss(wanted.clamp(min=1e-9).log(), wanted)
    assert best.item() == pytest.approx(math.log(8), abs=1e-5)
    assert best < tags.loss(torch.zeros_like(wanted), wanted)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder of weights of its own with one tiny ResNeXt in it; the arguments of a run of two steps."""
    facts = json.loads((paths.WEIGHTS / "nanoresnext.json").read_text())
    facts["timm"] |= {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16], "cardinality": 2}
    facts["preprocess"]["size"] = 64
    monkeypatch.setattr(paths, "WEIGHTS", tmp_path / "weights")
    paths.WEIGHTS.mkdir()
    (paths.WEIGHTS / "nanoresnext.json").write_text(json.dumps(facts | {"embed_dim": 64}))
    return tags.TagConfig(lines=6, views=2, steps=2, batch=5, warmup=1)


def test_batches_have_the_size_asked_for_and_come_again_the_same(small):
    products, packshots = nano.corpus(small, workers=1, progress=False)
    names = tags.vocabulary(products)
    batches = tags.Batches(small, products, packshots, tags.Targets(names), 64)
    assert len(batches) == 2
    clean, shop, wanted = batches[1]
    assert clean.shape == shop.shape == (5, 64, 64, 3) and clean.dtype == shop.dtype == np.uint8
    assert wanted.shape == (5, len(names)) and torch.allclose(wanted.sum(dim=1), torch.ones(5))
    rows = batches.rows(np.random.default_rng((small.seed, 1)))
    assert torch.equal(wanted, tags.targets([tags.written(products[row]) for row in rows], names))
    assert all(np.array_equal(a, b) for a, b in zip(batches[1], (clean, shop, wanted), strict=True))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_steps_write_a_file_that_reads_back_with_equal_features(small, monkeypatch):
    kept, build = [], backbones.build
    monkeypatch.setattr(backbones, "build", lambda *given: kept.append(build(*given)) or kept[0])
    file = paths.WEIGHTS / "nanoresnext.safetensors"
    history = tags.pretrain(small, file, progress=False, log_every=1)
    assert history["images"].tolist() == [10, 20] and np.isfinite(history).all(axis=None)
    read = backbones.load("nano-resnext")
    trained = kept[0].eval()
    trained.tower.half().float()  # what a file keeps of it
    images = torch.rand(3, 3, 64, 64)
    assert torch.equal(read(images), trained(images)) and read.preprocess == trained.preprocess
    assert encoder.fingerprint(read) != encoder.fingerprint(build("nanoresnext"))  # it has learnt something
    facts = nano.provenance("nanoresnext")
    assert facts["recipe"]["steps"] == 2 and len(facts["renderer"]) == 64 and len(facts["history"]) == 2
    with safe_open(file, "pt") as found:
        names = json.loads(found.metadata()["tags"])
        assert found.get_tensor("head.weight").shape == (len(names), 64)
    table = tags.held_out(lines=4).set_index("tag")
    assert table.index.tolist() == list(tags.KINDS) and table.loc["goods", "total"] == 4
    assert (table["correct"] <= table["total"]).all()


def test_a_head_that_always_says_the_same_earns_what_is_the_same(small):
    products, _ = nano.unseen(12, 0, 64)
    names = tags.vocabulary(products)
    said = tags.written(products[0])
    made = backbones.build("nanoresnext")
    tensors = {f"visual.{name}": value for name, value in made.tower.state_dict().items()}
    bias = torch.tensor([float(name in said) for name in names])
    tensors |= {"head.weight": torch.zeros(len(names), 64), "head.bias": bias}
    facts = {"config": made.config, "preprocess": made.preprocess.to_dict(), "tags": names}
    nano.store(tensors, small, [], paths.WEIGHTS / "nanoresnext.safetensors", facts)
    read, probable = tags.predict(torch.rand(2, 3, 64, 64))
    assert read == names and torch.allclose(probable, bias.softmax(0).expand(2, -1))
    table = tags.held_out(lines=12).set_index("tag")
    for kind, word in tags.of(products[0]).items():
        own = [tags.of(product)[kind] for product in products if kind in tags.of(product)]
        assert table.loc[kind, ["correct", "total"]].tolist() == [own.count(word), len(own)]
        assert table.loc[kind, "chance"] == pytest.approx(max(map(own.count, own)) / len(own))


def test_the_towers_pixels_are_those_it_is_trained_on():
    preprocess = backbones.build("nanoresnext").preprocess
    assert (preprocess.mean, preprocess.std, preprocess.resize) == (nano.MEAN, nano.STD, "squash")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), np.uint8)
    seen = nano.normalise(torch.from_numpy(pixels))[0]
    torch.testing.assert_close(seen, torch.from_numpy(evaluation(pixels[0], preprocess)))
