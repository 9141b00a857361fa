"""Packed sets: the same pixels, products and training as the folder they were made of; damaged and foreign shards."""

import io
import json
import tarfile

import numpy as np
import pandas as pd
import pytest

from klip.data import images, longtail
from klip.data.catalogue import Catalogue
from klip.data.images import read
from klip.data.loading import load_catalogue
from klip.finetuning import run_cache
from klip.scale import shards


@pytest.fixture
def packed(shop_root, tmp_path):
    catalogue = load_catalogue("folder", shop_root)
    return catalogue, shards.pack(catalogue, tmp_path / "packed", per_shard=5)


def by_content(catalogue):
    rows = zip(catalogue["product"], catalogue["split"], catalogue.files, strict=True)
    return sorted((product, split, images.content(file)) for product, split, file in rows)


def test_a_packed_set_is_the_set_in_its_order_and_its_tar_files_are_mixed(packed):
    catalogue, folder = packed
    assert sorted(path.name for path in folder.iterdir()) == [
        "000000.tar",
        "000001.tar",
        "000002.tar",
        "manifest.csv",
    ]
    found = load_catalogue("manifest", folder)
    assert by_content(found) == by_content(catalogue) and len(found) == 13
    assert found["product"].tolist() == catalogue["product"].tolist()
    for here, there in zip(found.pick(), catalogue.pick(), strict=True):  # `first` is the first
        assert by_content(here) == by_content(there)
    places = found["image"].str.partition("@")[0]  # mixed, for readers from front to back
    assert not places.is_monotonic_increasing
    again = shards.pack(catalogue, folder.with_name("again"), per_shard=5)
    assert all((again / path.name).read_bytes() == path.read_bytes() for path in folder.iterdir())


def test_pixels_areas_hashes_and_keys_are_those_of_the_files(packed):
    catalogue, folder = packed
    found = load_catalogue("manifest", folder)
    of = {images.content(file): str(file) for file in catalogue.files}
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
    assert run_cache.folder([], [found]) == run_cache.folder(
        [], [Catalogue(same)]
    )  # one content, one run


def test_a_foreign_shard_is_read_by_its_headers(packed, tmp_path):
    catalogue, _ = packed
    content = images.content(catalogue.files[0])
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
    assert shards.index(tmp_path / "foreign") == tmp_path / "foreign" / "manifest.csv"
    found = load_catalogue("manifest", tmp_path / "foreign")
    assert found.frame[["product", "split"]].values.tolist() == [
        ["tea", "train"],
        ["soup", "query"],
        ["rice", "train"],
    ]
    assert all(images.content(tmp_path / "foreign" / image) == content for image in found["image"])


def test_damage_is_one_sentence(packed, tmp_path):
    catalogue, folder = packed
    with pytest.raises(ValueError, match="packed holds something already; name an empty folder"):
        shards.pack(catalogue, folder)
    with pytest.raises(ValueError, match="per_shard must be at least 1 image, got 0"):
        shards.pack(catalogue, tmp_path / "new", per_shard=0)
    (folder / "000001.tar").unlink()
    with pytest.raises(ValueError, match="5 damaged .*000001.tar@.* put them right"):
        load_catalogue("manifest", folder)
    (folder / "000000.tar").write_bytes(b"no tar file" * 99)
    with pytest.raises(ValueError, match="000000.tar is no whole tar file.*pack or fetch it again"):
        shards.index(folder)
    with tarfile.open(folder / "000000.tar", "w") as tar:
        member = tarfile.TarInfo("a.jpg")
        tar.addfile(member, io.BytesIO(b""))
    with pytest.raises(ValueError, match=r"names no product for a \(1 of 1 images\)"):
        shards.index(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="must hold tar files of images.*klip data pack"):
        shards.index(tmp_path / "empty")
