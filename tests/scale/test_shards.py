"""Packed sets: the same pixels, products and training as the folder they were made of; damaged and foreign shards."""

import io
import json
import tarfile

import numpy as np
import pandas as pd
import pytest

from klip.data import catalogue as data, images, longtail, shards
from klip.data.images import read
from klip.finetuning import run_cache


@pytest.fixture
def packed(shop_root, tmp_path):
    catalogue = data.load("folder", shop_root)
    return catalogue, shards.pack(catalogue, tmp_path / "packed", per_shard=5)


def by_content(catalogue):
    root = catalogue.attrs["root"]
    return sorted(
        (product, split, images.content(f"{root}/{image}"))
        for image, product, split in catalogue[["image", "product", "split"]].itertuples(
            index=False
        )
    )


def test_a_packed_set_is_the_set_in_another_order(packed):
    catalogue, folder = packed
    assert sorted(path.name for path in folder.iterdir()) == [
        "000000.tar",
        "000001.tar",
        "000002.tar",
        "index.csv",
    ]
    found = data.load("shards", folder)
    assert by_content(found) == by_content(catalogue) and len(found) == 13
    assert (
        found["product"].tolist() != catalogue["product"].tolist()
    )  # mixed, for readers from front to back
    again = shards.pack(catalogue, folder.with_name("again"), per_shard=5)
    assert all((again / path.name).read_bytes() == path.read_bytes() for path in folder.iterdir())


def test_pixels_areas_hashes_and_keys_are_those_of_the_files(packed):
    catalogue, folder = packed
    found = data.load("shards", folder)
    of = {
        images.content(f"{catalogue.attrs['root']}/{image}"): f"{catalogue.attrs['root']}/{image}"
        for image in catalogue["image"]
    }
    for image in found["image"]:
        inside = folder / image
        twin = of[images.content(inside)]
        assert (
            np.array_equal(read(inside), read(twin))
            and images.area(inside) == images.area(twin) > 0
        )
    assert sorted(longtail.phashes(found)) == sorted(longtail.phashes(catalogue))
    order = [of[images.content(folder / image)] for image in found["image"]]
    same = pd.DataFrame({"image": order, "product": found["product"]})
    same.attrs["root"] = "/"
    assert run_cache.folder([], [found]) == run_cache.folder([], [same])  # one content, one run


def test_a_foreign_shard_is_read_by_its_headers(packed, tmp_path):
    catalogue, _ = packed
    content = images.content(f"{catalogue.attrs['root']}/{catalogue['image'][0]}")
    (tmp_path / "foreign").mkdir()
    members = {
        "a.jpg": content,
        "a.cls": b" tea \n",
        "b.JPEG": content,
        "b.json": json.dumps({"product": "soup", "split": "query", "caption": "x"}).encode(),
        "sub/c.jpg": content,
        "sub/c.txt": b"rice",
    }
    with tarfile.open(tmp_path / "foreign" / "x.tar", "w") as tar:
        for name, value in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(value)
            tar.addfile(member, io.BytesIO(value))
    found = data.load("shards", tmp_path / "foreign")
    assert found[["product", "split"]].values.tolist() == [
        ["tea", "train"],
        ["soup", "query"],
        ["rice", "train"],
    ]
    assert all(images.content(tmp_path / "foreign" / image) == content for image in found["image"])


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "No columns to parse from file"),
        (b"image,product,split\n", "rows or values are missing"),
        (b"image,product,split\n000000.tar@512+9,tea\n", "rows or values are missing"),
        (b'image,product,split\n"000000.tar@5', "Error tokenizing data"),
        (b"image,product\na,tea\n", "not in index"),
        (b"image,product,split\n\xff,tea,train\n", "codec can't decode"),
    ],
)
def test_a_broken_index_is_named_and_can_be_done_without(packed, content, words):
    catalogue, folder = packed
    (folder / "index.csv").write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"shards: .*index.csv is no list of image, .*{words}.*delete it"
    ) as caught:
        data.load("shards", folder)
    assert "\n" not in str(caught.value)
    (folder / "index.csv").unlink()
    assert by_content(data.load("shards", folder)) == by_content(catalogue)


def test_damage_is_one_sentence(packed, tmp_path):
    catalogue, folder = packed
    with pytest.raises(ValueError, match="packed holds something already; name an empty folder"):
        shards.pack(catalogue, folder)
    with pytest.raises(ValueError, match="per_shard must be at least 1 image, got 0"):
        shards.pack(catalogue, tmp_path / "new", per_shard=0)
    (folder / "000001.tar").unlink()
    with pytest.raises(ValueError, match="5 damaged .*000001.tar@.* put them right"):
        data.load("shards", folder)
    (folder / "index.csv").unlink()
    (folder / "000000.tar").write_bytes(b"no tar file" * 99)
    with pytest.raises(ValueError, match="000000.tar is no whole tar file.*pack or fetch it again"):
        data.load("shards", folder)
    with tarfile.open(folder / "000000.tar", "w") as tar:
        member = tarfile.TarInfo("a.jpg")
        tar.addfile(member, io.BytesIO(b""))
    with pytest.raises(ValueError, match=r"names no product for a \(1 of 1 images\)"):
        data.load("shards", folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="must hold tar files of images.*klip data pack"):
        data.load("shards", tmp_path / "empty")
