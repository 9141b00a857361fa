"""Faults that people reported in the field: the right value of each."""

import io
import json
import os
import subprocess
import sys
import tarfile

import numpy as np
import pandas as pd
import pytest
import torch
from kinds import JPEG
from typer.testing import CliRunner

from klip import cli
from klip.data import damage, words
from klip.data.catalogue import Catalogue
from klip.data.loading import load_catalogue
from klip.recognise.gallery import Gallery
from klip.scale import shards


def tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def klip(*args):
    return CliRunner().invoke(cli.app, [str(arg) for arg in args])


# F1: keys of shards


def test_keys_may_lie_in_folders(tmp_path):
    members = {}
    for product in ("cola", "fanta"):
        for number in ("0001", "0002"):
            members[f"{product}/{number}.jpg"] = JPEG + f"{product}{number}".encode()
            members[f"./{product}/{number}.cls"] = product.encode()
    tar(tmp_path / "wds/0.tar", members)
    shards.index(tmp_path / "wds")
    found = load_catalogue("manifest", tmp_path / "wds")
    assert len(found) == 4 and found["product"].tolist() == ["cola", "cola", "fanta", "fanta"]
    from klip.data import images

    for product, file in zip(found["product"], found.files, strict=True):
        assert product.encode() in images.content(file)
    assert "4 images of 2 products, 0 damaged" in klip("data", "check", tmp_path / "wds").stdout


@pytest.mark.parametrize(
    "members, words_of",
    [
        ({"a.jpg": JPEG, "a.png": JPEG, "a.cls": b"tea"}, "2 images of one key, a.jpg and a.png"),
        ({"a.jpg": JPEG, "a.jpg ": JPEG, "a.cls": b"tea"}, ""),
        ({"b/a.jpg": JPEG, "b/./a.jpg": JPEG, "b/a.cls": b"tea"}, "2 images of one key"),
        ({"a.1.jpg": JPEG, "a.2.jpg": JPEG, "a.cls": b"tea"}, "2 images of one key"),
        ({"a.jpg": JPEG, "a.json": b'{"product": "tea", "split": "tset"}'}, "says split 'tset'"),
        ({"a.jpg": JPEG, "a.json": b'["tea"]'}, 'must be {"product": ...}'),
        ({"a.jpg": JPEG, "a.json": b"{"}, "a.json cannot be read"),
        ({"a.jpg": JPEG, "a.cls": b"\xff\xfe"}, "a.cls cannot be read"),
        ({"a.jpg": JPEG, "a.cls": b"  "}, "names no product for a"),
        ({"a.jpg": JPEG, "a.json": b" " * 2**21}, "bytes of text"),
        ({"a.jpg": JPEG}, "names no product for a (1 of 1 images)"),
        ({"a.jpg": JPEG, "a.cls": b"x", "./a.cls": b"y"}, "has a.cls twice"),
    ],
)
def test_what_a_shard_leaves_open_is_refused_by_name(tmp_path, members, words_of):
    tar(tmp_path / "0.tar", members)
    if not words_of:  # "a.jpg " has no suffix that klip reads
        with pytest.warns(UserWarning, match="left out"):
            assert len(load_catalogue("manifest", shards.index(tmp_path))) == 1
        return
    with pytest.raises(ValueError) as caught:
        shards.index(tmp_path)
    assert words_of in str(caught.value) and "0.tar" in str(caught.value)


def test_what_stands_beside_an_image_in_a_shard(tmp_path):
    facts = {
        "product": "Cafe\N{COMBINING ACUTE ACCENT} ",
        "split": "Test",
        "image": "elsewhere.jpg",
    }
    members = {"a.jpg": JPEG, "a.json": json.dumps(facts).encode(), "._b.jpg": b"x"}
    tar(tmp_path / "0.tar", members | {"c.cls": b"soup"})
    with pytest.warns(UserWarning, match="1 left out, no image beside it: 0.tar/c.cls"):
        found = load_catalogue("manifest", shards.index(tmp_path))
    assert found["split"].tolist() == ["query"] and found["product"].tolist() == ["Café"]
    assert found["image"][0].startswith("0.tar@")


@pytest.mark.parametrize("product", [0, 7, "0", "\N{ZERO WIDTH SPACE}tea\N{NO-BREAK SPACE}"])
def test_a_number_is_a_name_and_json_says_more_than_a_caption(tmp_path, product):
    members = {"a.txt": b"a photo of a tin", "a.json": json.dumps({"product": product}).encode()}
    tar(
        tmp_path / "0.tar",
        members | {"a.jpg": JPEG, "b.txt": b"soup", "b.cls": b"3", "b.jpg": JPEG},
    )
    found = load_catalogue("manifest", shards.index(tmp_path))
    assert found["product"].tolist() == [words.name(product), "3"]
    (tmp_path / "1.tar.gz").write_bytes(b"x")
    with pytest.raises(ValueError, match="compressed tar files"):
        shards.index(tmp_path)


def test_a_packed_range_has_the_same_first_packshots(shop_root, tmp_path):
    plain = load_catalogue("folder", shop_root)
    packed = load_catalogue("manifest", shards.pack(plain, tmp_path / "packed", per_shard=4))
    from klip.data import images

    for here, there in zip(plain.pick(), packed.pick(), strict=True):
        content = [list(map(images.content, one.files)) for one in (here, there)]
        assert content[0] == content[1]


# F2: splits


@pytest.mark.parametrize("val", ["val", "valid", "Validation", "dev"])
def test_held_out_photographs_of_a_range_are_its_queries(tmp_path, picture, val):
    for product in ("cola", "tea"):
        for number in range(3):
            picture(tmp_path / f"train/{product}/{number}.jpg")
        picture(tmp_path / f"{val}/{product}/9.jpg")
    gallery, queries = load_catalogue("folder", tmp_path).pick()
    assert gallery["image"].tolist() == ["train/cola/0.jpg", "train/tea/0.jpg"]
    assert queries["image"].tolist() == [f"{val}/cola/9.jpg", f"{val}/tea/9.jpg"]
    rows = [f"train/{p}/{n}.jpg,{p},train" for p in ("cola", "tea") for n in range(3)]
    rows += [f"{val}/{p}/9.jpg,{p},{val}" for p in ("cola", "tea")]
    (tmp_path / "manifest.csv").write_text("image,product,split\n" + "\n".join(rows))
    _, again = load_catalogue("manifest", tmp_path).pick()
    assert again["image"].tolist() == queries["image"].tolist()


def test_splits_are_no_products(tmp_path, picture):
    picture(tmp_path / "train/cola/1.jpg")
    picture(tmp_path / "soup/1.jpg")
    with pytest.raises(ValueError, match=r"folders of splits \(train\) and other .*\(soup\)"):
        load_catalogue("folder", tmp_path)
    (tmp_path / "soup/1.jpg").unlink()
    (tmp_path / "soup").rmdir()
    (tmp_path / "notes").mkdir()
    assert load_catalogue("folder", tmp_path)["product"].tolist() == ["cola"]


def test_images_directly_in_folders_of_splits_are_refused(tmp_path, picture):
    picture(tmp_path / "train/1.jpg")
    picture(tmp_path / "test/1.jpg")
    with pytest.raises(ValueError, match="images directly in test, train; accepted are"):
        load_catalogue("folder", tmp_path)


# F3: one order


def test_one_order_for_every_hash_seed(tmp_path, picture):
    for product in ("1", "01", "001", "Ⅷ", "a", "A"):
        for name in ("1", "01", "001", "10", "9"):
            picture(tmp_path / product / f"{name}.jpg")
    code = (
        "from klip.data.loading import load_catalogue as load\n"
        f"c = load('folder', {str(tmp_path)!r}); g, q = c.pick()\n"
        "half = sorted(set(c.part('held-out')['product']))\n"
        "print(c['image'].tolist(), g['image'].tolist(), half)"
    )
    told = set()
    for seed in ("0", "1", "2", "3"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            check=True,
        )
        told.add(done.stdout)
    assert len(told) == 1
    catalogue = load_catalogue("folder", tmp_path)
    halves = [set(catalogue.part(part)["product"]) for part in ("tuned", "held-out")]
    assert not halves[0] & halves[1] and len(halves[0] | halves[1]) == 6
    names = ["9", "10", "01", "1", "a2", "a10"]
    assert len({words.natural(name) == words.natural("1") for name in names}) == 2
    assert sorted(names, key=words.natural) == sorted(reversed(names), key=words.natural)


# F5: what a file is written to


@pytest.fixture
def gallery(tmp_path):
    rows = torch.nn.functional.normalize(torch.randn(4, 8, generator=torch.manual_seed(0)), dim=1)
    meta = {"fingerprint": "0" * 16, "encoder": "e", "views": 1, "seed": 0, "precision": "fp32"}
    return Gallery(rows, ["a", "b", "c", "d"], list("1234"), meta)


def test_a_link_stays_a_link_and_modes_are_kept(tmp_path, gallery):
    real, link = tmp_path / "real", tmp_path / "link"
    gallery.save(real)
    assert real.stat().st_mode & 0o777 == 0o666 & ~umask()
    real.chmod(0o640)
    link.symlink_to(real)
    gallery.remove("a")
    gallery.save(link)
    assert link.is_symlink() and Gallery.load(real).products == ["b", "c", "d"]
    assert real.stat().st_mode & 0o777 == 0o640


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_pipe_gets_the_bytes_and_stays_a_pipe(tmp_path, gallery):
    pipe, copy = tmp_path / "pipe", tmp_path / "copy"
    os.mkfifo(pipe)
    with copy.open("wb") as out, subprocess.Popen(["cat", pipe], stdout=out):
        gallery.save(pipe)
    assert pipe.is_fifo() and Gallery.load(copy).products == gallery.products
    gallery.save("/dev/null")
    code = "from pathlib import Path; from klip.settings.files import write_json as w; w(Path('/dev/stdout'), 7)"
    with copy.open("wb") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert copy.read_text() == "7\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"7\n"
    assert not os.path.isfile("/dev/null")


# F6 is in tests/survival


# F7: odd names


def test_every_file_is_read_or_told(tmp_path, picture):
    for name in ("1.jfif", "2.jpe", "3.pjpeg", "no_suffix", "deep/er/4.jpg"):
        path = tmp_path / "cola" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG + name.encode())
    picture(tmp_path / "tea/1.png")
    (tmp_path / "cola/5.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(16))
    (tmp_path / "cola/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "cola/loop").symlink_to(tmp_path / "cola")
    (tmp_path / "cola/._1.jfif").write_bytes(b"x")
    (tmp_path / "cola/Thumbs.db").write_bytes(b"x")
    (tmp_path / "cola/list.txt").write_text("x")
    with pytest.warns(UserWarning, match="HEIC") as told:
        found = load_catalogue("folder", tmp_path)
    assert found["product"].value_counts().to_dict() == {"cola": 5, "tea": 1}
    said = str(told[0].message)
    assert "a link that leads nowhere: cola/gone.jpg" in said and "in a circle: cola/loop" in said
    files = sum(len(names) for _, _, names in os.walk(tmp_path)) + 1  # the link to a folder
    assert len(found) + len(found.left_out) == files
    assert set(found.left_out.values()) >= {"hidden", "no image"}
    assert "1 images lie in folders of a product's folder" in found.notes[0]


def test_links_are_followed_and_those_that_lead_out_are_told(tmp_path, picture):
    outside = picture(tmp_path / "elsewhere/1.jpg")
    (tmp_path / "range/tea").mkdir(parents=True)
    (tmp_path / "range/tea/1.jpg").symlink_to(outside)
    found = load_catalogue("folder", tmp_path / "range")
    assert len(found) == 1 and "1 images are links out of the folder: tea/1.jpg" in found.notes


# F8: the same picture twice


def test_a_packshot_is_no_query_and_no_packshot_of_two_products(tmp_path, picture):
    for product in ("cola", "tea"):
        picture(tmp_path / f"gallery/{product}/1.jpg")
        picture(tmp_path / f"query/{product}/1.jpg")
    copy = tmp_path / "query/cola/copy.jpg"
    copy.write_bytes((tmp_path / "gallery/cola/1.jpg").read_bytes())
    with pytest.warns(
        UserWarning, match="1 queries left out, the very file of .*: query/cola/copy.jpg"
    ):
        _, queries = load_catalogue("folder", tmp_path).pick()
    assert len(queries) == 2
    assert len(load_catalogue("folder", tmp_path, copies="keep").pick()[1]) == 3
    (tmp_path / "gallery/tea/2.jpg").write_bytes(copy.read_bytes())
    double = tmp_path / "query/tea/double.jpg"
    double.write_bytes((tmp_path / "query/cola/1.jpg").read_bytes())
    (tmp_path / "gallery/soup").mkdir()
    (tmp_path / "gallery/soup/1.jpg").write_bytes((tmp_path / "gallery/tea/1.jpg").read_bytes())
    with pytest.raises(ValueError) as caught:
        load_catalogue("folder", tmp_path).pick()
    for part in (
        "the very file of a packshot: query/cola/copy.jpg",
        "the very file of another product's query: query/cola/1.jpg, query/tea/double.jpg",
        "of a product whose packshot is the very file of another's: query/tea/1.jpg",
    ):
        assert part in str(caught.value)
    double.unlink()
    (tmp_path / "gallery/soup/1.jpg").unlink()
    (tmp_path / "gallery/soup").rmdir()
    problems = damage.check(load_catalogue("folder", tmp_path))
    assert problems[["image", "problem"]].values.tolist() == [
        ["gallery/tea/2.jpg", "the very file of gallery/cola/1.jpg, which is cola"]
    ]


# F11 in F7; F12 in test_odd_images


# F13: one form of names


def test_a_name_has_one_form(tmp_path, picture, gallery):
    picture(tmp_path / "Cafe\N{COMBINING ACUTE ACCENT}/1.jpg")
    picture(tmp_path / "Café /2.jpg")
    found = load_catalogue("folder", tmp_path)
    assert found["product"].tolist() == ["Café"] * 2
    assert found.notes == ("1 products have folders of several names: Café",)
    gallery.owners[0] = "Café"
    gallery.remove(" Cafe\N{COMBINING ACUTE ACCENT}")
    assert "Café" not in gallery.products
    for text in ("  ", "", "\n", "a\x00b", "a\udcffb"):
        with pytest.raises(ValueError, match="^name: "):
            words.name(text)


# F14 and F15


def test_a_gallery_made_in_python_is_used_from_the_command_line(tmp_path, picture):
    from klip.model import encoder

    for product in ("cola", "tea"):
        picture(tmp_path / product / "1.jpg")
    made = Gallery.build(encoder.load("nano"), load_catalogue("folder", tmp_path), views=1)
    made.save(tmp_path / "g")
    done = klip("gallery", "classify", tmp_path / "g", tmp_path / "tea")
    assert done.exit_code == 0 and "tea" in done.stdout
    made.meta.pop("model")
    made.save(tmp_path / "g")
    done = klip("gallery", "classify", tmp_path / "g", tmp_path / "tea")
    assert done.exit_code == 2 and "name it with --model" in done.stderr


@pytest.mark.parametrize("no", [False, 0, "False", "0", "no", "", 0.0, np.False_])
def test_what_is_false_is_false(no):
    frame = pd.DataFrame(
        {"image": ["a", "b"], "product": ["x", "y"], "split": "train", "packaged": [True, no]}
    )
    assert Catalogue(frame, name="s").part("packaged")["product"].tolist() == ["x"]
    with pytest.raises(ValueError, match="'maybe' is neither true nor false"):
        Catalogue(frame.assign(packaged="maybe"), name="s").part("packaged")


# F16: encodings


def test_a_terminal_without_a_sign_and_a_name_without_an_encoding(tmp_path, picture):
    picture(tmp_path / "Кола/1.jpg")
    picture(tmp_path / "tea/1.jpg")
    env = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "cp1252"}
    words_of = [sys.executable, "-m", "klip", "data", "check", str(tmp_path)]
    done = subprocess.run(words_of, env=env, capture_output=True, check=False)
    assert done.returncode == 0 and b"2 images of 2 products, 0 damaged" in done.stdout
    bad = os.fsencode(tmp_path / "tea") + b"/caf\xe9.jpg"
    with open(bad, "wb") as file:
        file.write(JPEG)
    with pytest.warns(UserWarning, match="its name is no UTF-8"):
        assert len(load_catalogue("folder", tmp_path)) == 2


# F18: manifests and folders as others write them


@pytest.mark.parametrize(
    "name, text",
    [
        ("UP.CSV", "image,product\nred/1.jpg,a\nred/2.jpg,a\n"),
        ("semi.csv", "image;product\nred/1.jpg;a\nred/2.jpg;a\n"),
        ("tab.tsv", "image\tproduct\nred/1.jpg\ta\nred/2.jpg\ta\n"),
        ("others.csv", "path,label\nred/1.jpg,a\nred/2.jpg,a\n"),
        ("case.csv", "Path,Class\nred/1.jpg,a\nred/2.jpg,a\n"),
        ("absolute.csv", "image,product\n{root}/red/1.jpg,a\n{root}/red/2.jpg,a\n"),
        (
            "sides.csv",
            "path,label,split,is_query,is_gallery\nred/1.jpg,a,validation,False,True\n"
            "red/2.jpg,a,validation,True,False\n",
        ),
    ],
)
def test_manifests_as_others_write_them(shop_root, name, text):
    (shop_root / name).write_text(text.replace("{root}", str(shop_root)))
    found = load_catalogue("manifest", shop_root / name)
    assert found["image"].tolist() == ["red/1.jpg", "red/2.jpg"]
    assert found["product"].tolist() == ["a", "a"]
    if name == "sides.csv":
        assert found["split"].tolist() == ["gallery", "query"]
    assert "2 images of 1 products, 0 damaged" in klip("data", "check", shop_root / name).stdout


@pytest.mark.parametrize(
    "text, part",
    [
        ("path,label,is_query,is_gallery\nred/1.jpg,a,1,1\n", "is query and gallery at once"),
        ("path,label,is_query\nred/1.jpg,a,perhaps\n", "neither true nor false"),
        ("path,file,label\nred/1.jpg,red/1.jpg,a\n", "wants columns image, product"),
        ("image,product\n/etc/passwd,a\n", "accepted are paths below"),
    ],
)
def test_manifests_that_leave_it_open_are_refused(shop_root, text, part):
    (shop_root / "m.csv").write_text(text)
    with pytest.raises(ValueError, match=part):
        load_catalogue("manifest", shop_root / "m.csv")


def test_folders_as_others_have_them(tmp_path, picture):
    for image in ("drinks/cola/1.jpg", "drinks/fanta/1.jpg", "food/soup/1.jpg"):
        picture(tmp_path / "deep" / image)
    with pytest.raises(ValueError, match="products=inner .* or products=outer"):
        load_catalogue("folder", tmp_path / "deep")
    inner = load_catalogue("folder", tmp_path / "deep", products="inner")
    assert inner["product"].tolist() == ["cola", "fanta", "soup"]
    assert inner["group"].tolist() == ["drinks", "drinks", "food"]
    outer = load_catalogue("folder", tmp_path / "deep", products="outer")
    assert outer["product"].tolist() == ["drinks", "drinks", "food"]
    for name in ("cola", "tea"):
        picture(tmp_path / "flat" / f"{name}.jpg")
    flat = load_catalogue("folder", tmp_path / "flat")
    assert flat["product"].tolist() == ["cola", "tea"]
    assert "each of 2 files names its own" in flat.notes[0]


# F19 in test_odd_images; F20 and F21 in tests/companion/test_lesson.py and tests/test_face.py


# F22: ties


def test_a_better_row_wins_and_of_equal_ones_the_first():
    query = torch.zeros(1, 4)
    query[0, 0] = 1
    near = torch.tensor([[0.9999995, 0.001, 0.0, 0.0]])
    meta = {"views": 1, "unknown": None}
    gallery = Gallery(torch.cat([near, query]), ["near", "same"], ["1", "2"], meta)
    rows, _ = gallery.search(query, 2)
    assert rows.tolist() == [[1, 0]]
    equal = Gallery(torch.cat([query, query]), ["first", "second"], ["1", "2"], meta)
    assert equal.search(query, 2)[0].tolist() == [[0, 1]]
