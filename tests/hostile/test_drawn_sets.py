"""Folders, lists and shards with odd names, drawn at random, against a plain model of them."""

import io
import json
import tarfile
import tempfile
import unicodedata
import warnings
from pathlib import Path

import pandas as pd
from hypothesis import HealthCheck, given, settings, strategies as st
from kinds import JPEG

from klip.data import images, scan, words
from klip.data.loading import load_catalogue
from klip.scale import shards

EXAMPLES = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
NAMES = st.sampled_from(
    ["cola", "Cola", "1", "01", "10", "9", "té", "te\N{COMBINING ACUTE ACCENT}", "可乐", "a b", "train",
     "test.jpg", "a.b", "x" * 60, "'q'", '"', "#", "%20", "semi;colon", "comma,", "-", "~"]
)  # fmt: skip
FILES = st.sampled_from(
    ["1.jpg", "01.jpg", "1.JPG", "10.jpg", "9.jpg", "a.jfif", "no_suffix", "é.png", "a,b.jpg",
     "a;b.jpg", "notes.txt", ".hidden.jpg", "._1.jpg", "Thumbs.db", "x.json", " .jpg", "a@1+2.jpg"]
)  # fmt: skip
SPLITS = st.sampled_from(["", "train", "Train", "val", "valid", "test", "QUERY", "gallery"])
UNSEEN = (".", "Thumbs.db")


def form(name):
    return unicodedata.normalize("NFC", name).strip()


def is_image(file):
    return not file.startswith(UNSEEN) and not file.endswith((".txt", ".json"))


def content(number):
    return JPEG + str(number).encode()


@EXAMPLES
@given(st.dictionaries(NAMES, st.sets(FILES, min_size=1), min_size=1, max_size=6))
def test_a_folder_of_products(tree):
    model, total = set(), 0
    with tempfile.TemporaryDirectory() as work:
        root = Path(work)
        for product, files in tree.items():
            (root / product).mkdir()
            for file in files:
                (root / product / file).write_bytes(
                    content(total) if is_image(file) else b"no picture"
                )
                total += 1
                if is_image(file):
                    model.add((form(product), f"{product}/{file}", "train"))
        found = scan.scan(root)
        assert len(found.images) + len(found.left_out) == total
        lacking = {form(p) for p in tree} - {product for product, _, _ in model}
        if not model or lacking:
            return
        catalogue = load_catalogue("folder", root)
        rows = catalogue.frame[["product", "image", "split"]].itertuples(index=False)
        assert {tuple(row) for row in rows} == model and len(catalogue) == len(model)
        order = list(zip(catalogue["product"], catalogue["image"], strict=True))
        assert order == sorted(order, key=lambda row: tuple(map(words.natural, row)))
        assert len(catalogue) + len(catalogue.left_out) == total


@EXAMPLES
@given(
    st.lists(st.tuples(FILES.filter(is_image), NAMES, SPLITS), min_size=1, max_size=8, unique_by=lambda r: r[0]),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from([("image", "product", "split"), ("path", "label", "set"), ("File", "SKU", "Split")]),
)  # fmt: skip
def test_a_list(rows, separator, header):
    words_of = {"train": "train", "val": "val", "valid": "val", "test": "query", "query": "query"}
    with tempfile.TemporaryDirectory() as work:
        for number, (file, _, _) in enumerate(rows):
            Path(work, file).write_bytes(content(number))
        table = pd.DataFrame(rows, columns=header)
        if separator != "," and table.map(lambda cell: "," in cell).to_numpy().any():
            pass  # only the first line tells the separator
        table.to_csv(Path(work, "list.csv"), index=False, sep=separator)
        try:
            found = load_catalogue("manifest", Path(work, "list.csv"))
        except ValueError as error:  # a name that is no path below the folder
            assert any(file.strip() != file for file, _, _ in rows), error
            return
        for (file, product, split), row in zip(rows, found.frame.itertuples(), strict=True):
            wanted = words_of.get(split.lower(), split.lower() or "train")
            assert (row.image, row.product, row.split) == (file, form(product), wanted)


@EXAMPLES
@given(
    st.lists(
        st.tuples(
            NAMES, st.sampled_from(["1", "01", "2"]), NAMES, st.sampled_from([".cls", ".json"])
        ),
        min_size=1,
        max_size=8,
        unique_by=lambda row: (row[0].partition(".")[0], row[1]),
    )
)
def test_shards(samples):
    with tempfile.TemporaryDirectory() as work, warnings.catch_warnings():
        warnings.simplefilter("error")
        with tarfile.open(Path(work, "0.tar"), "w") as file:
            for number, (folder, key, product, kind) in enumerate(samples):
                said = product if kind == ".cls" else json.dumps({"product": product})
                for suffix, text in ((".jpg", content(number)), (kind, said.encode())):
                    info = tarfile.TarInfo(f"{folder}/{key}{suffix}")
                    info.size = len(text)
                    file.addfile(info, io.BytesIO(text))
        found = load_catalogue("manifest", shards.index(work))
        assert found["product"].tolist() == [form(product) for _, _, product, _ in samples]
        for number, place in enumerate(found.files):
            assert images.content(place) == content(number)
