"""Galleries survive kills, crowds, full disks and folders that cannot be written."""

import multiprocessing
import os
import signal
import subprocess
import time

import numpy as np
import pytest
import torch

from klip.recognise import gallery_file
from klip.recognise.gallery import Gallery
from klip.settings import files

FORK = multiprocessing.get_context("fork")
META = {"fingerprint": "0" * 16, "encoder": "e", "views": 1, "seed": 0, "precision": "fp32"}

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]


def gallery(products, value=1.0):
    rows = torch.full((len(products), 256), value)
    return Gallery(rows, list(products), list(products), dict(META))


def saving(path, seed):
    """In a child: save galleries of one content and another for ever."""
    number = 0
    while True:
        products = [f"p{n}" for n in range(1000 if number % 2 else 2000)]
        gallery(products, float(number % 2)).save(path)
        number += 1


def test_killed_saves_leave_a_whole_gallery(tmp_path):
    path, rng, whole = tmp_path / "g", np.random.default_rng(0), 0
    gallery(["first"]).save(path)
    for number in range(50):
        process = FORK.Process(target=saving, args=(path, number))
        process.start()
        time.sleep(rng.uniform(0.01, 0.08))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        found = Gallery.load(path)
        assert len(found.products) in (1, 1000, 2000)
        assert found.embeddings.unique().numel() == 1  # of one save, not of two
        whole += 1
    assert whole == 50


def editing(path, number):
    with Gallery.edited(path) as found:
        if number % 4 == 3:
            found.remove(f"old{number}")
        elif number % 4 == 2:
            found.meta["unknown"] = {"below": number}
        found.owners.append(f"new{number}")
        found.images.append("x")
        found.embeddings = torch.cat([found.embeddings, torch.ones(1, 256)])


def test_of_forty_edits_at_once_none_is_lost(tmp_path):
    path = tmp_path / "g"
    gallery([f"old{number}" for number in range(40)]).save(path)
    crowd = [FORK.Process(target=editing, args=(path, number)) for number in range(40)]
    for process in crowd:
        process.start()
    reads = 0
    while any(process.is_alive() for process in crowd):
        assert len(Gallery.load(path).products) >= 30  # a reader sees a whole one
        reads += 1
    for process in crowd:
        process.join()
        assert process.exitcode == 0
    products = set(Gallery.load(path).products)
    assert {f"new{number}" for number in range(40)} <= products and reads
    assert not {f"old{number}" for number in range(3, 40, 4)} & products


def test_who_waits_too_long_is_told(tmp_path, monkeypatch):
    path = tmp_path / "g"
    gallery(["a"]).save(path)
    monkeypatch.setattr(gallery_file, "PATIENCE", 0.1)
    holder = FORK.Process(target=holding, args=(path, tmp_path / "held"))
    holder.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    with (
        pytest.raises(OSError, match="another command has been changing .* delete .*lock"),
        gallery_file.locked(path),
    ):
        pass
    holder.kill()
    holder.join()
    with gallery_file.locked(path):  # a lock dies with its process
        assert Gallery.load(path).products == ["a"]


def holding(path, sign):
    with gallery_file.locked(path):
        sign.touch()
        time.sleep(60)


def test_a_damaged_gallery_is_one_sentence(tmp_path):
    path = tmp_path / "g"
    gallery(["a", "b"]).save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for number in range(60):
        cut = bytearray(whole)
        if number % 2:
            del cut[int(rng.integers(len(cut))) :]
        else:
            for _ in range(3):
                cut[int(rng.integers(min(len(cut), 600)))] = int(rng.integers(256))
        path.write_bytes(cut)
        try:
            found = Gallery.load(path)
        except ValueError as error:
            assert str(error).startswith(f"gallery: {path} ") and "\n" not in str(error)
        else:
            assert len(found.owners) == len(found.images) == len(found.embeddings)
    head = (2**62).to_bytes(8, "little")
    path.write_bytes(head + whole[8:])  # a header longer than any memory
    with pytest.raises(ValueError, match="gallery: .*not a whole safetensors file"):
        Gallery.load(path)


@pytest.fixture
def disk(tmp_path):
    """A disk of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True
    )
    if made.returncode:
        pytest.skip("full disk: this machine does not let tests mount a disk")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_one_sentence_and_the_old_file_stays(disk):
    path = disk / "g"
    gallery(["a"]).save(path)
    with pytest.raises(OSError, match=f"cannot write {path}: the disk is full .*free some"):
        gallery([f"p{n}" for n in range(2000)]).save(path)
    assert Gallery.load(path).products == ["a"]
    assert [file.name for file in disk.iterdir()] == ["g"]
    with pytest.raises(OSError, match="the disk is full"):
        files.write_json(disk / "big.json", "x" * 2**21)
    with pytest.raises(OSError, match="the disk is full"), files.whole_folder(disk / "set") as part:
        (part / "a").write_bytes(bytes(2**21))
    assert [file.name for file in disk.iterdir()] == ["g"]


def test_a_folder_that_cannot_be_written_is_one_sentence(disk):
    path = disk / "g"
    gallery(["a"]).save(path)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(OSError, match="cannot write .*: read-only file system; change the rights"):
        gallery(["b"]).save(path)
    with (
        pytest.raises(OSError, match="cannot write .*: read-only file system"),
        gallery_file.locked(path),
    ):
        pass
    assert Gallery.load(path).products == ["a"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    place = tmp_path / "set"
    with files.whole_folder(place) as part:
        (part / "1").write_text("old")
    with pytest.raises(KeyError), files.whole_folder(place) as part:
        (part / "2").write_text("new")
        raise KeyError
    assert [file.name for file in place.iterdir()] == ["1"]
    with files.whole_folder(place) as part:
        (part / "2").write_text("new")
    assert [file.name for file in place.iterdir()] == ["2"]
    assert [file.name for file in tmp_path.iterdir()] == ["set"]
    left = tmp_path / ".set.1.partial"
    left.mkdir()
    os.utime(left, (0, 0))  # of a process that was killed long ago
    with files.whole_folder(place):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["set"]
