"""Loaders on small copies of the official layouts, with their quirks; images of every kind; bad input."""

import shutil
import sys
import types

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from klip.data import damage
from klip.data.catalogue import SHOPS
from klip.data.images import read as read_image
from klip.data.loading import load_catalogue
from klip.data.words import natural
from klip.settings import paths
from klip.shop.plan import ShopPlan


def by_split(catalogue):
    return catalogue.frame.groupby("split").size().to_dict()


@pytest.fixture
def grocery(tmp_path, picture):
    """Three products, one packaged, in GroceryStoreDataset's layout: CRLF, spaces, leading slashes."""
    root = tmp_path / "grocery-store"
    products = [
        ("Golden-Delicious", 0, "Fruit/Apple", 0),
        ("Oatly-Oat-Milk", 7, "Packages/Oat-Milk", 3),
        ("Leek", 10, "Vegetables", 4),
    ]
    lines = [
        "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),"
        "Iconic Image Path (str),Product Description Path (str)"
    ]
    for name, fine, folder, coarse in products:
        icon = f"/iconic-images-and-descriptions/{folder}/{name}/{name}_Iconic.jpg"
        picture(root / icon[1:])
        lines.append(f"{name},{fine},{folder[:4]},{coarse},{icon},/iconic/{name}_Description")
    (root / "classes.csv").write_bytes("\r\n".join(lines).encode() + b"\r\n")
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        rows = []
        for name, fine, folder, coarse in products:
            for number in range(count):
                image = f"{split}/{folder}/{name}/{name}_{number:03}.jpg"
                picture(root / image)
                rows.append(f"{image}, {fine}, {coarse}\n")
        (root / f"{split}.txt").write_text("".join(rows))
    return root


@pytest.fixture
def grozi(tmp_path, picture):
    """Products 1 and 2 as they are at hand, 10 as in the official archive; web1 of 2 is missing."""
    root = tmp_path / "grozi-120"
    for product, numbers in ((1, (1, 2, 10)), (2, (2, 3)), (10, (1,))):
        for number in numbers:
            picture(
                root / f"inVitro/{product}/web/JPEG/web{number}.jpg",
                size=(10 * number, 20),
                mode="L" if number == 3 else "RGB",
            )
    for beside in ("PNG/web1.png", "masks/mask1.png"):
        picture(root / "inVitro/10/web" / beside)
    for product, suffix in ((1, "jpg"), (2, "JPG"), (10, "png")):
        for number in (1, 2, 11):
            picture(root / f"inSitu/{product}/video/video{number}.{suffix}")
    (root / "inSitu/10/video/out.txt").write_text("boxes")
    (root / "inVitro/readme").mkdir()
    return root


def test_grocery_store(grocery):
    catalogue = load_catalogue("grocery-store", grocery)
    assert by_split(catalogue) == {"gallery": 3, "query": 6, "train": 9, "val": 3}
    assert catalogue["product"].unique().tolist() == ["Golden-Delicious", "Oatly-Oat-Milk", "Leek"]
    assert catalogue.root == grocery and catalogue.name == "grocery-store"
    leek = catalogue.split("query").frame.query("product == 'Leek'")
    assert leek["image"].tolist() == [f"test/Vegetables/Leek/Leek_00{n}.jpg" for n in (0, 1)]
    packaged = load_catalogue("grocery-store:packaged", grocery)
    assert set(packaged["product"]) == {"Oatly-Oat-Milk"} and len(packaged) == 7
    assert damage.check(catalogue).empty


def test_grocery_store_where_it_is_looked_for(grocery, monkeypatch):
    monkeypatch.setenv("KLIP_DATA", str(grocery.parent))
    assert len(load_catalogue("grocery-store")) == 21
    (grocery.parent / "clone").mkdir()
    shutil.move(grocery, grocery.parent / "clone" / "dataset")  # a clone of the repository
    assert load_catalogue("grocery-store", grocery.parent / "clone").root.name == "dataset"
    with pytest.raises(
        FileNotFoundError, match="missing; run `klip data fetch grocery-store`, or put"
    ):
        load_catalogue("grocery-store")


def test_grocery_store_damage(grocery):
    (grocery / "test/Vegetables/Leek/Leek_001.jpg").unlink()
    with pytest.raises(
        ValueError, match=r"1 damaged in .*Leek_001.jpg \(missing\); put them right"
    ):
        load_catalogue("grocery-store", grocery)
    kept = damage.check(load_catalogue("grocery-store", grocery, bad_images="keep"))
    assert kept[["product", "problem"]].values.tolist() == [["Leek", "missing"]]
    with (grocery / "val.txt").open("a") as lines:
        lines.write("val/x.jpg, 99, 4\n")
    with pytest.raises(ValueError, match="row 4 of .*val.txt wants .* got 'val/x.jpg, 99, 4'"):
        load_catalogue("grocery-store", grocery)
    whole = (grocery / "classes.csv").read_text()
    (grocery / "classes.csv").write_text(whole + whole.splitlines()[1] + "\n")
    with pytest.raises(ValueError, match="row 4 of .*classes.csv has id .* a second time"):
        load_catalogue("grocery-store", grocery)
    (grocery / "classes.csv").write_text("name,id\nLeek,3\n")
    with pytest.raises(ValueError, match="classes.csv wants columns for product, .* got name, id"):
        load_catalogue("grocery-store", grocery)
    (grocery / "classes.csv").write_text(whole)
    (grocery / "val.txt").unlink()
    with pytest.raises(FileNotFoundError, match="val.txt is missing; put the contents of dataset/"):
        load_catalogue("grocery-store", grocery)


def test_grozi(grozi):
    catalogue = load_catalogue("grozi-120", grozi)
    assert by_split(catalogue) == {"gallery": 6, "query": 9}
    assert catalogue["product"].unique().tolist() == ["1", "2", "10"]  # numbers, not words
    gallery = catalogue.split("gallery")
    assert gallery["packshot"].tolist() == [1, 2, 10, 2, 3, 1]
    assert not catalogue["image"].str.contains("PNG|masks|txt").any()
    crops = catalogue.split("query").frame.query("product == '10'")
    assert crops["image"].tolist() == [f"inSitu/10/video/video{n}.png" for n in (1, 2, 11)]
    assert damage.check(catalogue).empty


def test_grozi_counts_a_crop_once_that_is_there_twice(grozi, picture):
    picture(grozi / "inSitu/1/video/video1.png")
    crops = load_catalogue("grozi-120", grozi).frame.query("split == 'query' and product == '1'")
    assert crops["image"].tolist() == [
        "inSitu/1/video/video1.png",
        "inSitu/1/video/video2.jpg",
        "inSitu/1/video/video11.jpg",
    ]


def test_grozi_without_crops(grozi):
    shutil.rmtree(grozi / "inSitu")
    with pytest.raises(
        FileNotFoundError, match=r"no image inSitu/.* unpack inVitro.zip and inSitu.zip"
    ):
        load_catalogue("grozi-120", grozi)


@pytest.mark.parametrize(
    "rule, images",
    [
        ("first", ["web1", "web2", "web1"]),
        ("web1", ["web1", "web2", "web1"]),
        ("largest", ["web10", "web3", "web1"]),
    ],
)
def test_gallery_rules(grozi, rule, images):
    gallery, queries = load_catalogue("grozi-120", grozi).pick(rule)
    assert gallery["product"].tolist() == ["1", "2", "10"]
    assert [image.rpartition("/")[2][:-4] for image in gallery["image"]] == images
    assert by_split(gallery) == {"gallery": 3} and by_split(queries) == {"query": 9}
    assert gallery.name == queries.name == "grozi-120" and gallery.root == grozi


def test_random_gallery_is_seeded(grozi):
    catalogue = load_catalogue("grozi-120", grozi)
    picks = [catalogue.pick("random", seed)[0]["image"][0] for seed in range(20)]
    assert set(picks) == {f"inVitro/1/web/JPEG/web{n}.jpg" for n in (1, 2, 10)}
    assert picks == [catalogue.pick("random", seed)[0]["image"][0] for seed in range(20)]
    with pytest.raises(
        ValueError, match="must be one of first, web1, largest, random, index, got 'best'"
    ):
        catalogue.pick("best")


def test_gallery_of_training_images_and_products_without_packshot(tmp_path, picture):
    for image in (
        "train/a/1.jpg",
        "train/a/2.jpg",
        "test/a/1.jpg",
        "test/b/1.jpg",
        "train/c/1.jpg",
    ):
        picture(tmp_path / "rp2k" / "all" / image)
    picture(tmp_path / "rp2k/all/train/others/1.jpg")
    (tmp_path / "rp2k/all/train/empty").mkdir()
    catalogue = load_catalogue("rp2k", tmp_path / "rp2k")
    assert by_split(catalogue) == {"train": 3, "query": 2} and "others" not in set(
        catalogue["product"]
    )
    dropped = load_catalogue("rp2k", tmp_path / "rp2k", test_only="drop")
    with pytest.warns(UserWarning, match="rp2k: 1 queries left out, there is no packshot of b"):
        gallery, queries = dropped.pick()
    assert gallery["image"].tolist() == ["train/a/1.jpg", "train/c/1.jpg"]
    assert queries["image"].tolist() == ["test/a/1.jpg"]


def test_plain_folder(shop_root):
    catalogue = load_catalogue("folder", shop_root)
    assert by_split(catalogue) == {"train": 13}
    assert catalogue["product"].value_counts().to_dict() == {"red": 6, "green": 4, "blue": 3}
    gallery, queries = catalogue.pick()  # no queries: one packshot each, all others are asked
    assert by_split(gallery) == {"gallery": 3} and by_split(queries) == {"query": 10}
    assert not set(gallery["image"]) & set(queries["image"])
    assert gallery["image"][0] == "blue/1.jpg"
    with pytest.raises(ValueError, match="set 'folder' has no queries of its own"):
        catalogue.queries()


def test_folder_names_and_endings(tmp_path, picture):
    cafe = "cafe\N{COMBINING ACUTE ACCENT}"  # as macOS writes it
    for image in (
        f"{cafe}/10.JPG",
        f"{cafe}/2.PNG",
        "\N{CJK UNIFIED IDEOGRAPH-5C0F}/1.webp",
        "10/1.jpeg",
        "9/1.jpg",
        ".git/1.jpg",
        "__MACOSX/1.jpg",
    ):
        picture(tmp_path / image)
    (tmp_path / cafe / "Thumbs.db").write_bytes(b"x")
    catalogue = load_catalogue("folder", tmp_path)
    assert catalogue["product"].unique().tolist() == [
        "caf\N{LATIN SMALL LETTER E WITH ACUTE}",
        "\N{CJK UNIFIED IDEOGRAPH-5C0F}",
        "9",
        "10",
    ]
    assert catalogue["image"][0].endswith("2.PNG") and damage.check(catalogue).empty


def test_folder_seeks_products(tmp_path, picture):
    with pytest.raises(
        ValueError, match="one folder of images per product, found 0 product folders"
    ):
        load_catalogue("folder", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="found 1 product folders and no image in them"):
        load_catalogue("folder", tmp_path)
    with pytest.raises(
        FileNotFoundError, match="nowhere is missing; it has to be a folder of products"
    ):
        load_catalogue("folder", tmp_path / "nowhere")
    with pytest.raises(ValueError, match="folder: no root was given"):
        load_catalogue("folder")


def test_damage_is_fatal_or_skipped(shop_root):
    (shop_root / "yellow").mkdir()
    with pytest.raises(
        ValueError, match=r"folder: 1 damaged in .*: yellow/ \(no image in its folder\)"
    ):
        load_catalogue("folder", shop_root)
    (shop_root / "red/2.jpg").write_bytes(b"no picture")
    (shop_root / "red/3.jpg").write_bytes((shop_root / "red/4.jpg").read_bytes()[:300])
    (shop_root / "blue/1.jpg").write_bytes(b"")
    words = "folder: 4 left out: yellow/ .*blue/1.jpg .*red/2.jpg .*red/3.jpg"
    with pytest.warns(UserWarning, match=words) as told:
        catalogue = load_catalogue("folder", shop_root, bad_images="skip")
    assert len(told) == 1 and str(shop_root) not in str(told[0].message)
    assert len(catalogue) == 10 and catalogue.frame.index.tolist() == list(range(10))
    with pytest.raises(ValueError, match="bad_images must be stop, skip or keep, got 'maybe'"):
        load_catalogue("folder", shop_root, bad_images="maybe")
    for image in shop_root.glob("*/*.jpg"):
        image.write_bytes(b"no picture")
    with pytest.raises(ValueError, match="13 of 13 images in .* are damaged, more than 1%"):
        load_catalogue("folder", shop_root, bad_images="skip")


def manifest(folder, text):
    (folder / "images.csv").write_text(text, encoding="utf-8")
    return folder / "images.csv"


def test_manifest(shop_root):
    text = (
        "\N{BYTE ORDER MARK}image, product ,split,note\nred/1.jpg, 007 ,Gallery,a\n"
        '"red/2.jpg",007, test,b\nred\\3.jpg,NA,,\n./blue/1.jpg,"a, b",val,c\n'
    )
    catalogue = load_catalogue("manifest", manifest(shop_root, text))
    assert catalogue.frame[["image", "product", "split", "note"]].values.tolist() == [
        ["red/1.jpg", "007", "gallery", "a"],
        ["red/2.jpg", "007", "query", "b"],
        ["red/3.jpg", "NA", "train", ""],
        ["./blue/1.jpg", "a, b", "val", "c"],
    ]
    assert catalogue.root == shop_root
    (shop_root / "images.csv").rename(shop_root / "manifest.csv")
    assert len(load_catalogue("manifest", shop_root)) == 4


@pytest.mark.parametrize(
    "text, words",
    [
        (
            "picture,product\nred/1.jpg,a\n",
            "wants columns image, product.* got columns picture, product",
        ),
        ("image,product\n", "at least one row, .* 0 rows"),
        ("", "is no CSV file in UTF-8"),
        ("image,product\nred/1.jpg,a,b\nred/2.jpg,a,b\n", "is no CSV file"),
        (
            "image,product\nred/1.jpg,a\n../secret.jpg,a\n",
            "row 2 of .* has image '../secret.jpg', accepted are",
        ),
        ("image,product\nred/../../secret.jpg,a\n", "row 1 .* accepted are paths below"),
        ("image,product\n/etc/passwd,a\n", "row 1 .* accepted are paths below"),
        ("image,product\nC:\\secret.jpg,a\n", "row 1 .* accepted are paths below"),
        ("image,product\n,a\n", "row 1 .* has image ''"),
        ("image,product\nred/1.jpg,\n", "row 1 .* has no product"),
        ("image,product\nred/1.jpg\n", "row 1 .* has no product"),
        ("image,product,split\nred/1.jpg,a,trian\n", "has split 'trian', accepted are train, val"),
        ("image,product\nred/1.jpg,a\nred/1.jpg,b\n", "several products to one image: red/1.jpg"),
        ("image,product\nred/77.jpg,a\n", r"1 damaged in .*red/77.jpg \(missing\)"),
    ],
)
def test_manifest_refuses(shop_root, text, words):
    with pytest.raises(ValueError, match=words) as caught:
        load_catalogue("manifest", manifest(shop_root, text))
    assert "\n" not in str(caught.value)


def test_manifest_other_ways(shop_root):
    with pytest.raises(
        FileNotFoundError, match="it has to be a CSV or Parquet file with columns image, product"
    ):
        load_catalogue("manifest", shop_root / "none.csv")
    with pytest.raises(FileNotFoundError, match="manifest.csv is missing; it has columns"):
        load_catalogue("manifest", shop_root)
    with pytest.warns(UserWarning, match="1 duplicate rows of .* left out: red/1.jpg"):
        catalogue = load_catalogue(
            "manifest", manifest(shop_root, "image,product\n" + 2 * "red/1.jpg,a\n")
        )
    assert len(catalogue) == 1
    (shop_root / "images.csv").write_bytes("image,product\nred/1.jpg,é\n".encode("latin-1"))
    with pytest.raises(ValueError, match="is no CSV file in UTF-8"):
        load_catalogue("manifest", shop_root / "images.csv")


def test_halves_are_disjoint_and_whole(grozi):
    halves = [
        set(load_catalogue(f"grozi-120:{part}", grozi)["product"]) for part in ("tuned", "held-out")
    ]
    assert halves == [{"1", "10"}, {"2"}]
    with pytest.raises(ValueError, match="does not say which products are packaged"):
        load_catalogue("grozi-120:packaged", grozi)
    with pytest.raises(ValueError, match="no set is called 'grozi-120:other'; there are shop, "):
        load_catalogue("grozi-120:other", grozi)


def test_validation_has_equal_numbers(shop_root, grocery):
    split = load_catalogue("folder", shop_root, seed=1, validation=3)  # blue has no more than 3
    assert by_split(split) == {"train": 7, "val": 6}
    assert split.split("val")["product"].value_counts().to_dict() == {"red": 3, "green": 3}
    again = load_catalogue("folder", shop_root, seed=1, validation=3)
    pd.testing.assert_frame_equal(split.frame, again.frame)
    assert not split["split"].equals(
        load_catalogue("folder", shop_root, seed=2, validation=3)["split"]
    )
    (grocery / "val.txt").write_text(
        "".join(sorted((grocery / "val.txt").read_text().splitlines(True))[:2])
    )
    own = load_catalogue("grocery-store", grocery, validation=1)
    assert by_split(own) == {"gallery": 3, "query": 6, "train": 9, "val": 2}


def test_every_rendered_set_has_a_name():
    from klip.shop import sets

    assert {"finetune", *(name.replace("-", "_") for name in SHOPS[1:])} == set(sets.SETS)


def test_shop_is_rendered_by_its_plan(monkeypatch, tmp_path):
    def catalogues(root):
        frame = pd.DataFrame({"image": [], "product": [], "split": []}, dtype=str)
        return {"finetune": frame, "grozi_like": frame}

    calls = []
    sets = types.SimpleNamespace(
        catalogues=catalogues,
        render=lambda plan, root: calls.append((plan, root)) or catalogues(root),
    )
    monkeypatch.setitem(sys.modules, "klip.shop.sets", sets)
    monkeypatch.setattr("klip.shop.sets", sets, raising=False)
    shop = load_catalogue("shop")
    assert shop.root == paths.CACHE / "shop" and shop.name == "shop" and not shop.photographs
    load_catalogue("grozi-like", tmp_path)
    assert calls == [(ShopPlan(), paths.CACHE / "shop"), (ShopPlan(), tmp_path)]
    (tmp_path / "plan.json").write_text("another plan")
    load_catalogue("grozi-like", tmp_path)
    assert len(calls) == 2


def test_read_turns_every_kind_into_rgb(tmp_path):
    red = np.zeros((4, 6, 3), np.uint8)
    red[..., 0] = 255
    image, clear = Image.fromarray(red), np.zeros((4, 6, 4), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    palette = image.quantize(4)
    for name, picture, options in (
        ("rgb.png", image, {}),
        ("palette.png", palette, {}),
        ("turned.png", image, {"exif": exif}),
        ("cmyk.tif", image.convert("CMYK"), {}),
        ("grey.png", image.convert("L"), {}),
        ("deep.png", Image.fromarray(np.full((4, 6), 0x8000, np.uint16)), {}),
        ("clear.png", Image.fromarray(clear), {}),
        ("la.png", Image.new("LA", (6, 4), (0, 0)), {}),
        ("hole.png", palette, {"transparency": int(np.asarray(palette)[0, 0])}),
        ("one.gif", palette, {}),
        ("bits.png", Image.new("1", (6, 4), 1), {}),
    ):
        picture.save(tmp_path / name, **options)
        read = read_image(tmp_path / name)
        assert read.dtype == np.uint8 and read.flags.writeable and read.flags.c_contiguous
        assert read.shape == ((6, 4, 3) if name == "turned.png" else (4, 6, 3)), name
        wanted = {
            "grey.png": 76,
            "deep.png": 128,
            "clear.png": 255,
            "la.png": 255,
            "hole.png": 255,
            "bits.png": 255,
        }.get(name, (255, 0, 0))
        assert np.abs(read.astype(int) - wanted).max() <= 1, name


def test_read_names_what_it_cannot_read(tmp_path, picture):
    whole = picture(tmp_path / "cut.jpg", size=(64, 64)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("text")
    for name, words in (("cut.jpg", "truncated"), ("text.png", "cannot identify image file")):
        with pytest.raises(
            ValueError, match=rf"^image .*{name}: cannot be read \(.*{words}"
        ) as caught:
            read_image(tmp_path / name)
        assert str(caught.value).count(str(tmp_path)) == 1
    with pytest.raises(FileNotFoundError, match="none.jpg: there is no such file"):
        read_image(tmp_path / "none.jpg")


def test_natural_order():
    assert sorted(["b10", "b9", "10", "9", "a", ""], key=natural) == [
        "",
        "a",
        "b9",
        "b10",
        "9",
        "10",
    ]


def test_counts_splits_and_rules(grozi, shop_root):
    catalogue = load_catalogue("grozi-120", grozi)
    assert catalogue.counts("query").to_dict() == {"1": 3, "2": 3, "10": 3}
    assert {rule: len(seeds) for rule, seeds in catalogue.rules().items()} == {
        "web1": 1,
        "largest": 1,
        "random": 5,
    }
    assert list(load_catalogue("folder", shop_root).rules()) == ["first"]
    two = catalogue.first(2)
    assert by_split(two.split("gallery")) == {"gallery": 5} and two.root == catalogue.root
    assert catalogue.photographs and catalogue.files[0] == grozi / catalogue["image"][0]
