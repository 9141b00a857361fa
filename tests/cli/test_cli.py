"""Every command through typer's runner, with a tiny random ViT and a folder of plain patterns.

Bad input: exit code 2, one sentence on stderr, nothing written.
"""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from klip import cli
from klip.companion import reproduce
from klip.model import encoder
from klip.model.augment import Preprocess
from klip.model.weights import save
from klip.recognise.rerank import Rerank
from klip.settings import paths

VISION = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two checkpoints of one tiny ViT, and one whose tensors do not fit its architecture."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("models")
    preprocess = Preprocess(size=32, mean=(0.5,) * 3, std=(0.5,) * 3)
    for seed in (0, 1):
        config = {"embed_dim": 16, "vision_cfg": VISION}
        tiny = encoder.build(config, preprocess, name="tiny", seed=seed)
        save(tiny, folder / f"tiny{seed}.safetensors")
    config = json.dumps({"embed_dim": 16, "vision_cfg": {**VISION, "width": 48}})
    facts = {"arch": "wide", "config": config, "preprocess": json.dumps(preprocess.to_dict())}
    save_file(load_file(folder / "tiny0.safetensors"), folder / "other.safetensors", facts)
    return folder


@pytest.fixture
def work(models, tmp_path, monkeypatch):
    """The current folder: shop/<product>/<n>.png, 4 products of 3 all but equal images each; models; a cache."""
    rng = np.random.default_rng(0)
    for product in ("cola", "cola light", "soup", "tea"):
        (tmp_path / "shop" / product).mkdir(parents=True)
        pattern = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        for number in (1, 2, 3):
            image = pattern.resize((40, 40), Image.Resampling.NEAREST)
            image.putpixel((0, 0), (number, 0, 0))  # no file is a copy of another
            image.save(tmp_path / "shop" / product / f"{number}.png")
    for file in models.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("KLIP_DATA", str(tmp_path / "data"))
    return tmp_path


def klip(*words):
    """Run a command line; an error that is not the user's is raised."""
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def done(*words):
    result = klip(*words)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def refused(part, *words):
    """One sentence on stderr with this part, and exit code 2."""
    result = klip(*words)
    assert result.exit_code == 2 and part in result.stderr and not result.stdout
    assert result.stderr.startswith("klip: ") and result.stderr.count("\n") == 1


def classified(*words):
    return json.loads(done("gallery", "classify", *words, "--json"))


SMALL = ("--model", "tiny0.safetensors", "--views", 1)
ON_SHOP = ("evaluate", "--set", "./shop", *SMALL)
BUILD_G = ("gallery", "build", "g", "./shop", *SMALL)


# ------------------------------------------------------------------------------------------------ evaluate


def test_evaluate_prints_a_table_and_writes_json(work):
    words = (
        "evaluate --set folder --root shop --model tiny0.safetensors --views 2 "
        "--seed 3 --resize pad --json figures.json"
    )
    printed = done(*words.split())
    assert "8 queries, 4 products" in printed and "100.0 %" in printed
    found = json.loads((work / "figures.json").read_text())
    assert found["queries"] == found["correct"] == 8 and found["products"] == 4
    for name in ("top1", "top1_per_product", "top5"):
        assert found[name] == 1.0 and found[f"{name}_interval"] == [1.0, 1.0]
    loaded = encoder.load("tiny0.safetensors", resize="pad")
    assert found["model_fingerprint"] == encoder.fingerprint(loaded)
    assert found["preprocess"] == loaded.preprocess.to_dict()
    assert found["preprocess"]["resize"] == "pad"
    told = {"set": "folder", "gallery": "web1", "seed": 3, "views": 2}
    assert found.items() >= (told | {"model": "tiny0.safetensors"}).items()


def test_pixels_are_those_of_the_command(work):
    done(*ON_SHOP, "--pixels", 48, "--json", "figures.json")
    assert json.loads((work / "figures.json").read_text())["preprocess"]["size"] == 48
    done(*BUILD_G, "--pixels", 48)  # to be classified at 48 pixels, as the fingerprint checks
    assert classified("g", "shop/tea/2.png")[0]["product"] == "tea"
    words = (
        "finetune ./shop --out wide.safetensors --model tiny0.safetensors --images "
        "4 --depth 1 --pixels 48"
    )
    done(*words.split())
    assert encoder.load("wide.safetensors").preprocess.size == 48
    done(*"gallery build g ./shop --model nano --views 1 --pixels 64 --also 32".split())
    assert classified("g", "shop/tea/2.png")[0]["product"] == "tea"
    refused("has a table of positions and sees one size", *ON_SHOP, "--also", 16)
    for option in ("--pixels", "--also"):
        refused(f"'{option}': Input should be greater than or equal to 0", *ON_SHOP, option, -1)


@pytest.mark.parametrize("gallery", ["web1", "largest", "random"])
def test_evaluate_takes_a_folder_and_a_manifest(work, gallery):
    rows = [f"shop/{product}/{n}.png,{product}" for product in ("cola", "tea") for n in (1, 2)]
    (work / "list.csv").write_text("\n".join(["image,product", *rows]))
    model = (*SMALL, "--gallery", gallery)
    assert "8 queries, 4 products" in done("evaluate", "--set", "shop/", *model)
    assert "2 queries, 2 products" in done("evaluate", "--set", "list.csv", *model)


def test_evaluate_re_ranks_beside_cosine_alone(work):
    words = (*ON_SHOP, "--json", "o.json")
    done(*words)
    plain = json.loads((work / "o.json").read_text())
    printed = done(*words, "--rerank", "keypoints", "--weight", 0.5, "--first", 3)
    found = json.loads((work / "o.json").read_text())
    told = found.pop("rerank")
    assert found == plain and "difference" in printed
    assert "re-ranked by keypoints (weight 0.5, first 3)" in printed
    asked = {"method": "keypoints", "weight": 0.5, "first": 3, "queries": 8}
    assert told.items() >= asked.items()
    assert set(told["milliseconds"]) == {"keypoints", "votes", "embedding"}
    for name in ("top1", "top1_per_product", "top5"):
        low, high = told[f"{name}_interval"]
        assert low <= told[name] <= high
    low, high = told["difference_interval"]
    assert low <= told["difference"] == told["top1"] - plain["top1"] <= high
    done(*words, "--rerank", "keypoints", "--weight", 0)
    told = json.loads((work / "o.json").read_text())["rerank"]
    assert (told["top1"], told["first"], told["difference"]) == (plain["top1"], Rerank().first, 0)


# ------------------------------------------------------------------------------------------------ gallery


def test_a_gallery_with_keypoints_re_ranks(work):
    words = (*BUILD_G, "--views", 2)
    assert "MB" in done(*words) and "descriptors" not in done(*words)
    refused("--keypoints", "gallery", "classify", "g", "shop/tea/2.png", "--rerank", "keypoints")
    assert "% of it descriptors" in done(*words, "--keypoints")
    done("gallery", "remove", "g", "cola")
    done("gallery", "add", "g", "cola", "shop/cola")
    image = ("g", "shop/soup/2.png", "--top", 4)
    plain, zero = classified(*image), classified(*image, "--rerank", "keypoints", "--weight", 0)
    stored, same = (
        classified(*image, "--rerank", "keypoints", *more)
        for more in ((), ("--weight", Rerank().weight, "--first", Rerank().first))
    )
    assert zero == plain and stored == same and stored[0]["product"] == "soup"
    assert stored[0]["similarity"] >= plain[0]["similarity"]


def test_gallery_from_build_to_classify(work):
    words = "gallery build g.safetensors ./shop --model tiny0.safetensors --views 2 --seed 1"
    assert "4 products, 24 rows" in done(*words.split())
    rows = classified("g.safetensors", "shop/tea/2.png", "shop/soup", "--top", 2)
    soup = [f"shop/soup/{number}.png" for number in (1, 2, 3)]
    assert [row["query"] for row in rows[::2]] == ["shop/tea/2.png", *soup]
    assert [row["product"] for row in rows if row["rank"] == 1] == ["tea", "soup", "soup", "soup"]
    assert set(rows[0]) == {"query", "rank", "product", "similarity", "packshot", "unknown"}
    assert not any(row["unknown"] for row in rows)  # no threshold was chosen
    table = done("gallery", "classify", "g.safetensors", "shop/tea/2.png", "--top", 1)
    assert "tea/2.png" in table and "1.000" in table and table.count("\n") == 2

    assert "3 products, 18 rows" in done("gallery", "remove", "g.safetensors", "tea")
    assert classified("g.safetensors", "shop/tea/2.png")[0]["product"] != "tea"
    assert "4 products, 20 rows" in done("gallery", "add", "g.safetensors", "Tee", "shop/tea/1.png")
    assert classified("g.safetensors", "shop/tea/2.png")[0]["product"] == "Tee"


def test_a_gallery_remembers_model_and_resize_and_takes_no_other(work, monkeypatch):
    done(*"gallery build g ./shop --model tiny0.safetensors --views 1 --resize pad".split())
    monkeypatch.chdir(work / "shop")  # the model is found from another folder
    assert classified("../g", "tea/2.png")[0]["product"] == "tea"
    words = ("gallery", "classify", "../g", "tea/2.png")
    refused("was made by tiny0.safetensors", *words, "--model", "../tiny1.safetensors")
    (work / "tiny0.safetensors").rename(work / "moved.safetensors")
    assert klip(*words).exit_code == 2
    assert classified("../g", "tea/2.png", "--model", "../moved.safetensors")[0]["product"] == "tea"


@pytest.mark.parametrize("score", ["similarity", "margin"])
def test_calibrate_stores_a_threshold_that_classify_uses(work, score):
    from klip.recognise.gallery import Gallery

    done(*BUILD_G)
    done("gallery", "remove", "g", "tea")
    printed = done("gallery", "calibrate", "g", "./shop", "--accepts", 0.9, "--score", score)
    unknown = Gallery.load("g").meta["unknown"]
    assert unknown["accepts"] == 0.9 and unknown["score"] == score and unknown["set"] == "./shop"
    assert unknown["products"] == 4 and unknown["beside"] == 0 and "at least 0.9" in unknown["how"]
    assert f"unknown below {unknown['below']:.4f} ({score}), chosen on 4 products" in printed
    for share, part, whole in (
        ("correct_accepts", "accepted", "known"),
        ("false_accepts", "accepted_unknown", "unknown"),
    ):
        assert f"{unknown[share]:.1%}   ({unknown[part]} of {unknown[whole]})" in printed

    rows = classified("g", "shop/soup/2.png", "shop/tea/2.png", "--top", 2)
    for best, second in (rows[:2], rows[2:]):
        value = best["similarity"] - (second["similarity"] if score == "margin" else 0)
        assert best["unknown"] == second["unknown"] == (value < unknown["below"] - 1e-6)
    table = ("gallery", "classify", "g", "shop/soup/2.png", "shop/tea/2.png")
    if score == "similarity":  # photographs that all but equal their packshot, and others
        assert unknown["auroc"] == 1 and unknown["false_accepts"] == 0
        assert unknown["correct_accepts"] >= 0.9
        assert [row["unknown"] for row in rows] == [False, False, True, True]
        soup, tea = done(*table).splitlines()[1:]
        assert "unknown" not in soup and f"unknown (nearest: {rows[2]['product']})" in tea
    assert "unknown" not in done(*table, "--unknown-below", -2)
    printed = done(*table, "--unknown-below", 1.5, "--score", "similarity", "--top", 2)
    assert printed.count("unknown (nearest") == 2
    assert done(*table, "--unknown-below", 1.5, "--json").count('"unknown":true') == 2


@pytest.mark.filterwarnings("default")  # the note is a warning
def test_damaged_images_are_skipped_by_choice(work):
    (work / "shop" / "tea" / "0.png").write_bytes(b"no image")
    (work / "shop" / "empty").mkdir()
    for words in (ON_SHOP, BUILD_G):
        assert klip(*words).exit_code == 2
        result = klip(*words, "--bad-images", "skip")
        assert result.exit_code == 0 and "4 products" in result.stdout
        assert all(part in result.stderr for part in ("note:", "tea/0.png", "empty"))
    result = klip("gallery", "classify", "g", "shop/tea", "--bad-images", "skip", "--json")
    assert len(json.loads(result.stdout)) == 3 and "1 left out: shop/tea/0.png" in result.stderr


# ------------------------------------------------------------------------------------------------ finetune


def test_finetune_writes_a_checkpoint_that_evaluate_takes(work):
    words = (
        "finetune ./shop --model tiny0.safetensors --images 8 --depth 2 --seed 2 "
        "--out tuned.safetensors --set batch_size=4 --set workers=0 --set "
        "precision=fp32 --set margin_deg=20"
    )
    printed = done(*words.split())
    assert "8 images of 4 products" in printed and "loss" in printed
    first, tuned = encoder.load("tiny0.safetensors"), encoder.load("tuned.safetensors")
    assert encoder.fingerprint(first) != encoder.fingerprint(tuned)
    assert "queries" in done(*ON_SHOP, "--model", "tuned.safetensors")


def test_finetune_takes_an_architecture_and_its_pretraining(work, monkeypatch):
    from klip.finetuning import loop

    seen = []
    monkeypatch.setattr(
        loop, "finetune", lambda config, *rest, **more: seen.append(config) or 1 / 0
    )
    for words, model in (
        ((), "nano"),
        (("--model", "ViT-B-32", "--pretrained", "none"), "ViT-B-32:none"),
    ):
        with pytest.raises(ZeroDivisionError):
            klip("finetune", "./shop", "--out", "o.safetensors", *words, "--set", "decay=0.5")
        assert (seen[-1].model, seen[-1].decay) == (model, 0.5)


# ------------------------------------------------------------------------------------------------ the others


def test_reproduce_hands_everything_on(monkeypatch):
    seen = []
    monkeypatch.setattr(reproduce, "run", lambda *words, **more: seen.append((words, more)))
    done("reproduce")
    words = "--profile real --only 02 --only 03 --appendix --set seeds=1"
    done("reproduce", *words.split(), "--set", "depths=1 2")
    assert seen == [
        (("nano", {}), {"only": None, "appendix": False}),
        (("real", {"seeds": "1", "depths": "1 2"}), {"only": ["02", "03"], "appendix": True}),
    ]


def test_data_check_lists_damage(work):
    assert "12 images of 4 products, 0 damaged" in done("data", "check", "./shop")
    (work / "shop" / "tea" / "0.png").write_bytes(b"no image")
    (work / "shop" / "void").mkdir()
    result = klip("data", "check", "folder", "--root", "shop")
    assert result.exit_code == 1 and "2 damaged" in result.stdout
    assert "tea/0.png" in result.stdout and "void" in result.stdout


def test_data_check_counts_and_reports(work):
    photo, *others = sorted((work / "shop").glob("*/*.png"))
    names = ("train/tea/1", "train/tea/2", "train/cake/1", "test/tea/1", "test/jam/1")
    for name, shot in zip(names, others, strict=False):
        image = f"{name}.png"
        (work / "rp2k/all" / image).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shot, work / "rp2k/all" / image)
    (work / "rp2k/all/train/others").mkdir()
    printed = done("data", "check", "rp2k", "--root", "rp2k")
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert lines == [
        "query 2 images of 2 products",
        "train 3 images of 2 products",
        "note: others/ left out, 0 images",
        "1 products never asked for (no query): cake",
        "1 products only in test (no packshot): jam",
        "rp2k: 5 images of 3 products, 0 damaged",
    ]
    (work / "list.csv").write_text(
        f"image,product\n{photo.relative_to(work)},tea\nshop/tea/none.png,tea\n"
    )
    result = klip("data", "check", "list.csv")
    assert result.exit_code == 1
    assert "2 images of 1 products, 1 damaged (1 missing)" in result.stdout


def test_data_list_says_where_licence_and_citation(work):
    from klip.data.sources import SOURCES

    printed = done("data", "list")
    for name, source in SOURCES.items():
        facts = [f"{name}: ", str(work / "data" / name), source.place, source.licence]
        assert all(fact in printed for fact in (*facts, source.url, source.citation))


def test_data_measure_prints_figures():
    printed = json.loads(done("data", "measure", "--rows", 50, "--products", 5))
    assert (printed["rows"], printed["products"]) == (50, 5) and printed["load_s"] >= 0
    assert (paths.CACHE / "scale/50-5/manifest.csv").is_file()


def test_data_fetch_says_where_things_belong(work):
    for part in ("inVitro", str(work / "data")):
        refused(part, "data", "fetch", "grozi-120")
    (work / "data" / "grozi-120" / "inVitro").mkdir(parents=True)
    assert str(work / "data" / "grozi-120") in done("data", "fetch", "grozi-120")


def test_shop_render(work):
    values = (
        "breadth=2 max_images=2 min_images=1 val_images=1 grozi_products=2 grozi_queries=1 "
        "grozi_strength=0.5 capg_lines=1 capg_flavours=2 capg_queries=1 rp2k_products=2 "
        "rp2k_queries=1 size=64"
    )
    words = [word for value in values.split() for word in ("--set", value)]
    printed = done("shop", "render", "--root", "drawn", "--workers", 1, *words)
    assert printed.count("2 products") == 4 and (work / "drawn" / "plan.json").is_file()


# ------------------------------------------------------------------------------------------------ bad input

TUNE = ("finetune", "./shop", "--model", "tiny0.safetensors", "--out", "o.safetensors")
RERANK = ("evaluate", "--set", "./shop", "--model", "tiny0.safetensors", "--rerank")
EVALUATE = ("evaluate", "--set", "./shop", "--model", "tiny0.safetensors", "--json", "o.json")
BUILD = ("gallery", "build", "o.gallery", "./shop", "--model", "tiny0.safetensors")
BAD = {
    "unknown re-ranking": ((*RERANK, "sift"), "'--rerank': 'sift' is not one of 'keypoints'"),
    "weight without re-ranking": (
        (*EVALUATE, "--weight", "1"),
        "--weight and --first want --rerank keypoints",
    ),
    "weight below 0": (
        (*RERANK, "keypoints", "--weight", "-1"),
        "weight must be greater than or equal to 0",
    ),
    "no first": (
        (*RERANK, "keypoints", "--first", "0"),
        "first must be greater than or equal to 1",
    ),
    "missing folder": (("evaluate", "--set", "./nowhere"), "nowhere is missing"),
    "missing set": (("evaluate", "--set", "grozi-120", "--json", "o.json"), "inVitro"),
    "unknown set": (("evaluate", "--set", "grozi-121"), "grozi-120"),
    "unknown gallery": ((*EVALUATE, "--gallery", "web2"), "web1, largest"),
    "unknown resize": ((*EVALUATE, "--resize", "bend"), "'squash', 'pad' or 'crop'"),
    "unknown bad images": ((*EVALUATE, "--bad-images", "maybe"), "'--bad-images': 'maybe' is not"),
    "no views": ((*EVALUATE, "--views", "0"), "at least one packshot"),
    "unknown model": (("evaluate", "--set", "./shop", "--model", "mega"), "nano, nano-vit"),
    "missing model": (("evaluate", "--set", "./shop", "--model", "x.safetensors"), "klip finetune"),
    "other tower": (
        ("evaluate", "--set", "./shop", "--model", "other.safetensors"),
        "another architecture",
    ),
    "no checkpoint": (
        ("evaluate", "--set", "./shop", "--model", "shop/tea/1.png"),
        "no safetensors",
    ),
    "json nowhere": (
        ("evaluate", "--set", "./shop", "--json", "no/o.json"),
        "its folder is missing",
    ),
    "depth 0": ((*TUNE, "--depth", "0"), "depth must be"),
    "wrong type": ((*TUNE, "--set", "decay=steep"), "decay must be"),
    "unknown setting": ((*TUNE, "--set", "depht=3"), "did you mean depth"),
    "no value": ((*TUNE, "--set", "decay"), "NAME=VALUE"),
    "out is a folder": ((*TUNE[:-1], "shop"), "it is a folder"),
    "gallery nowhere": (("gallery", "build", "no/g", "./shop"), "its folder is missing"),
    "no gallery": (("gallery", "classify", "nothing", "shop/tea/1.png"), "klip gallery build"),
    "not a gallery": (("gallery", "remove", "tiny0.safetensors", "tea"), "is no gallery"),
    "torn gallery": (("gallery", "remove", "shop/tea/1.png", "tea"), "not a whole safetensors"),
    "unknown fetch": (("data", "fetch", "imagenet"), "grocery-store"),
    "unknown plan": (("shop", "render", "--root", "o", "--set", "brands=3"), "breadth"),
    "wrong plan": (
        ("shop", "render", "--root", "o", "--set", "breadth=x"),
        "breadth must be a valid integer",
    ),
    "wrong option": ((*TUNE, "--depth", "many"), "valid integer"),
}


@pytest.mark.parametrize("words, part", BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence_and_writes_nothing(work, words, part):
    before = sorted(work.rglob("*"))
    refused(part, *words)
    assert sorted(work.rglob("*")) == before


@pytest.mark.parametrize(
    "words", [(*TUNE, "--images", "8"), EVALUATE, BUILD], ids=lambda words: words[0]
)
@pytest.mark.parametrize("damage", ["empty product", "unreadable image"])
def test_a_damaged_folder_is_named_and_writes_nothing(work, words, damage):
    if damage == "empty product":
        (work / "shop" / "void").mkdir()
    else:
        for number in (1, 2, 3):
            (work / "shop" / "tea" / f"{number}.png").write_bytes(b"no image %d" % number)
    result = klip(*words)
    assert result.exit_code == 2
    assert ("void" if damage == "empty product" else "tea") in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("klip: ")
    assert not list(work.glob("o.*")) and not list(work.glob(".*part"))


@pytest.mark.parametrize(
    "words, part",
    [
        (("add", "g", "new", "nowhere.png"), "nowhere.png is missing"),
        (("add", "g", "new", "bad.png"), "bad.png"),
        (("add", "g", "new", "void"), "holds no image"),
        (("remove", "g", "te"), "did you mean 'tea'"),
        (("classify", "g", "bad.png"), "bad.png"),
        (("classify", "g", "shop/tea/1.png", "--top", "0"), "greater than or equal to 1"),
        (("classify", "g", "shop/tea/1.png", "--unknown-below", "95"), "between -2 and 2, got 95"),
        (("classify", "g", "shop/tea/1.png", "--score", "margin"), "no threshold for it"),
        (("calibrate", "g", "few"), "at least 4 products with a packshot and queries, got 3"),
        (("calibrate", "g", "./shop", "--accepts", "95"), "above 0 and at most 1, got 95"),
        (("calibrate", "g", "./shop", "--score", "cosine"), "similarity or margin, got 'cosine'"),
        (("calibrate", "g", "./nowhere"), "nowhere is missing"),
    ],
)
def test_a_refused_change_keeps_the_gallery(work, words, part):
    done(*BUILD_G)
    (work / "void").mkdir()
    (work / "bad.png").write_bytes(b"no image")
    shutil.copytree(work / "shop", work / "few", ignore=shutil.ignore_patterns("tea"))
    before = (work / "g").read_bytes()
    refused(part, "gallery", *words)
    assert (work / "g").read_bytes() == before


def test_unknown_profile(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(paths, "PROFILES", tmp_path)
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "seeds: int = 3"}
    (tmp_path / "01_toy.ipynb").write_text(json.dumps({"cells": [cell]}))
    for words, part in (
        (("--profile", "giant"), "'giant'"),
        (("--set", "seedz=1"), "did you mean seeds"),
        (("--only", "77"), "'77'"),
    ):
        refused(part, "reproduce", *words)


# ------------------------------------------------------------------------------------------------ start


def test_help_lists_the_commands():
    told = done("--help")
    assert all(f"  {name} " in told for name in ("reproduce", "finetune", "evaluate", "gallery"))


COMMANDS = {
    "": "reproduce report finetune evaluate plan bench",
    "gallery": "build add remove classify calibrate",
    "data": "fetch check leaks pack index list measure",
    "shop": "render",
}


@pytest.mark.parametrize(
    "words", [(group, name) for group, names in COMMANDS.items() for name in names.split()]
)
def test_every_command_has_help(words):
    assert "Usage: " in done(*filter(None, words), "--help")


def test_leaks_names_the_products_that_two_sets_share(work):
    rng = np.random.default_rng(7)
    for product in ("rice", "salt"):
        (work / "other" / product).mkdir(parents=True)
        pattern = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        pattern.resize((40, 40), Image.Resampling.NEAREST).save(work / "other" / product / "1.png")
    words = ("data", "leaks", "./shop", "./other", "--model", "none", "--workers", 0)
    assert "0 pairs of products suspected, 0 names in common" in done(*words)
    shutil.copy(work / "shop/soup/1.png", work / "other/salt/2.png")
    for more in ((), ("--model", "tiny0.safetensors")):
        found = klip(*words, *more)
        assert found.exit_code == 1 and "soup" in found.stdout and "salt" in found.stdout
    (work / "other/rice").rename(work / "other/tea")
    assert "1 names in common: tea" in klip(*words).stdout


@pytest.mark.filterwarnings("default")  # the note on a product without a packshot is a warning
def test_load_passes_a_sets_own_options(work):
    shots = ("tea/1.png", "soup/1.png", "tea/2.png", "soup/2.png")
    for folder, shot in zip(
        ("train/tea", "train/others", "test/tea", "test/soup"), shots, strict=True
    ):
        (work / "data/rp2k/all" / folder).mkdir(parents=True)
        shutil.copy(work / "shop" / shot, work / "data/rp2k/all" / folder / "1.png")
    assert "3 images of 2 products" in klip("data", "check", "rp2k").stdout
    assert "4 images of 3 products" in klip("data", "check", "rp2k", "--load", "others=true").stdout
    words = ("evaluate", "--set", "rp2k", "--model", "tiny0.safetensors", "--views", 1)
    assert "2 queries" in done(*words) and "1 queries" in done(*words, "--load", "test_only=drop")
    for option, sentence in (
        ("colour=red", "rp2k has no option 'colour'; there are test_only, copies, others"),
        ("others", "--load takes NAME=VALUE, got 'others'"),
    ):
        refused(sentence, "data", "check", "rp2k", "--load", option)


def test_a_packed_folder_is_a_source_like_any_other(work):
    assert "12 images of 4 products in 3 tar files" in done(
        "data", "pack", "./shop", "packed", "--per-shard", 5
    )
    assert "12 images of 4 products, 0 damaged" in done("data", "check", "./packed")
    (work / "packed" / "manifest.csv").unlink()
    refused("run `klip data index ./packed`", "data", "check", "./packed")
    assert "packed/manifest.csv" in done("data", "index", "./packed")
    assert "12 images of 4 products, 0 damaged" in done("data", "check", "./packed")
