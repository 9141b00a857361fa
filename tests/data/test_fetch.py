"""Fingerprints, and the download with archives from this disk in place of the network."""

import hashlib
import zipfile

import pytest

from klip.data import fetch
from klip.data.loading import load_catalogue
from klip.settings import paths


@pytest.fixture
def archive(tmp_path, picture, monkeypatch):
    """archive(name, mark): a zip like GitHub's of one product in place of it, and the fingerprint of its content."""

    def build(name="good.zip", mark="same", **more):
        source = tmp_path / name / "GroceryStoreDataset-abc"
        icon, files = "iconic/Packages/Milk/Milk_Iconic.jpg", []
        picture(source / "dataset" / icon)
        head = "Name,ID,Coarse,CID,Icon,Text"
        (source / "dataset/classes.csv").write_text(f"{head}\nMilk,0,Milk,0,/{icon},/{mark}\n")
        for split in ("train", "val", "test"):
            image = f"{split}/Packages/Milk/Milk_001.jpg"
            picture(source / "dataset" / image)
            (source / f"dataset/{split}.txt").write_text(f"{image}, 0, 0\n")
            files += [image, f"{split}.txt"]
        (source / "README.md").write_text("not data")
        with zipfile.ZipFile(tmp_path / f"packed-{name}", "w") as packed:
            for path in sorted(source.rglob("*")):
                packed.write(path, path.relative_to(source.parent))
            for member, content in more.items():
                packed.writestr(member, content, zipfile.ZIP_DEFLATED)
        monkeypatch.setattr(fetch, "URL", (tmp_path / f"packed-{name}").as_uri())
        monkeypatch.setattr(
            fetch, "CONTENT", fetch.fingerprint(source / "dataset", [*files, icon, "classes.csv"])
        )

    return build


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(fetch, "URL", "file:///nowhere.zip")


def test_fingerprint_is_its_definition(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b/x").write_bytes(b"1")
    (tmp_path / "a").write_bytes(b"2")
    lines = [
        f"{name}\0{hashlib.sha256(text).hexdigest()}\n"
        for name, text in (("a", b"2"), ("b/x", b"1"))
    ]
    assert (
        fetch.fingerprint(tmp_path, ["b/x", "a", "a"])
        == hashlib.sha256("".join(lines).encode()).hexdigest()
    )
    (tmp_path / "a").rename(tmp_path / "c")
    assert (
        fetch.fingerprint(tmp_path, ["b/x", "c"])
        != hashlib.sha256("".join(lines).encode()).hexdigest()
    )


def test_fetches_checks_and_is_done(archive, workspace, monkeypatch):
    archive()
    folder = fetch.fetch("grocery-store")
    assert folder == paths.data_root() / "grocery-store"
    assert len(load_catalogue("grocery-store")) == 4 and not (folder / "README.md").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["grocery-store"]
    monkeypatch.setattr(fetch, "URL", "file:///nowhere.zip")
    assert fetch.fetch("grocery-store") == folder
    monkeypatch.setattr(fetch, "CONTENT", "0" * 64)
    with pytest.raises(ValueError, match="is not GroceryStoreDataset fc80ba9: .* move it away"):
        fetch.fetch("grocery-store")


def test_other_content_is_not_kept(archive, tmp_path, monkeypatch):
    archive()
    content = fetch.CONTENT
    archive("other.zip", "other")
    monkeypatch.setattr(fetch, "CONTENT", content)
    with pytest.raises(
        ValueError, match="what came from .* is not GroceryStoreDataset .* nothing was kept"
    ):
        fetch.fetch("grocery-store", tmp_path / "here")
    assert not (tmp_path / "here").exists() and not list(tmp_path.glob(".here*"))


@pytest.mark.parametrize("spoil", ["missing", "text", "cut", "damaged", "empty"])
def test_no_network_or_a_bad_archive_is_one_sentence(archive, tmp_path, spoil):
    archive()
    packed = tmp_path / "packed-good.zip"
    whole = packed.read_bytes()
    if spoil == "missing":
        packed.unlink()
    elif spoil == "empty":
        with zipfile.ZipFile(packed, "w"):
            pass
    else:
        damaged = whole[:200] + bytes(100) + whole[300:]
        packed.write_bytes({"text": b"<html>", "cut": whole[:2000], "damaged": damaged}[spoil])
    with pytest.raises(FileNotFoundError) as caught:
        fetch.fetch("grocery-store", tmp_path / "here")
    assert "\n" not in str(caught.value) and not (tmp_path / "here").exists()
    assert "check the network, or put the contents of dataset/" in str(caught.value)


def test_sets_to_be_got_by_hand(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="grozi-120 has to be got by hand: unpack inVitro.zip"
    ):
        fetch.fetch("grozi-120", tmp_path)  # empty
    (tmp_path / "inVitro").mkdir()
    assert fetch.fetch("grozi-120", tmp_path) == tmp_path
    with pytest.raises(
        ValueError, match="no set is called 'groceries'; there are grocery-store, grozi-120"
    ):
        fetch.fetch("groceries")


def test_the_pins():
    assert len(fetch.COMMIT) == 40 and fetch.COMMIT in fetch.URL and len(fetch.CONTENT) == 64


def test_what_is_at_hand_and_what_was_left_out(archive, no_network, tmp_path, monkeypatch):
    names = ["grozi-like", "grozi-120", "grocery-store", "grocery-store:packaged"]
    assert fetch.at_hand(["grozi-like", "shop"]) == (["grozi-like", "shop"], "")
    (tmp_path / "grozi-120").mkdir()  # empty: nothing in it
    found, line = fetch.at_hand(names, tmp_path)
    assert found == ["grozi-like"]
    assert line == (
        "left out: grozi-120 (not at hand); grocery-store (cannot be downloaded); `klip data list` says "
        "where it comes from"
    )
    (tmp_path / "grozi-120" / "inVitro").mkdir()
    found, line = fetch.at_hand(names, tmp_path)
    assert found == names[:2] and line.startswith("left out: grocery-store (cannot be downloaded);")
    archive()
    assert fetch.at_hand(names, tmp_path) == (names, "")  # fetched
    assert len(load_catalogue("grocery-store", tmp_path / "grocery-store")) == 4
    monkeypatch.setattr(fetch, "URL", "file:///nowhere.zip")
    assert fetch.at_hand(names, tmp_path) == (names, "")  # it is there now


def test_no_set_at_hand_is_one_sentence(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"none is in .*: rp2k \(not at hand\); `klip data list` says .* --set",
    ):
        fetch.at_hand(["rp2k"], tmp_path)


@pytest.mark.parametrize(
    "member",
    ["d/dataset/../../../escaped.txt", "/escaped.txt", "d\\..\\..\\escaped.txt", "C:/escaped"],
)
def test_an_archive_that_leads_out_is_refused_and_nothing_is_kept(archive, workspace, member):
    archive(**{member: "out"})
    with pytest.raises(FileNotFoundError, match="its member .*escaped.* leads out of the folder"):
        fetch.fetch("grocery-store", workspace / "data/grocery-store")
    assert not list(workspace.rglob("escaped*")) and not list((workspace / "data").iterdir())


def test_an_archive_too_large_is_refused(archive, workspace, monkeypatch):
    archive(**{"d/dataset/zeros": bytes(2**20)})
    monkeypatch.setattr(fetch, "MOST_BYTES", 2**19)
    with pytest.raises(FileNotFoundError, match="it unpacks to 0.0 GB in .* more than the set has"):
        fetch.fetch("grocery-store", workspace / "data/grocery-store")
    monkeypatch.setattr(fetch, "MOST_BYTES", 1000)
    with pytest.raises(FileNotFoundError, match="it is longer than"):
        fetch.fetch("grocery-store", workspace / "data/grocery-store")
    assert not list((workspace / "data").iterdir())
