"""Products-10K, the index files of Stanford Online Products and Retail-786k, Parquet, and manifests in bulk."""

import pandas as pd
import pytest

from klip.data import damage, images
from klip.data.loading import load_catalogue

HEADER = "image_id class_id super_class_id path\n"


@pytest.fixture
def products_10k(tmp_path, picture):
    for image in ("train/1.jpg", "train/2.jpg", "train/3.jpg", "test/1.jpg", "test/2.jpg"):
        picture(tmp_path / image)
    (tmp_path / "train.csv").write_text("name,class,group\n1.jpg,0,7\n2.jpg,0,7\n3.jpg, 5,8\n")
    (tmp_path / "test_kaggletest.csv").write_text(
        "name,class,Usage\n1.jpg,0,Public\n2.jpg,9,Private\n"
    )
    return tmp_path


def test_products_10k(products_10k):
    catalogue = load_catalogue("products-10k", products_10k)
    assert catalogue.frame[["image", "product", "split", "group"]].values.tolist() == [
        ["train/1.jpg", "0", "train", "7"],
        ["train/2.jpg", "0", "train", "7"],
        ["train/3.jpg", "5", "train", "8"],
        ["test/1.jpg", "0", "query", "7"],
        ["test/2.jpg", "9", "query", ""],
    ]
    assert damage.one_sided(catalogue) == (["5"], ["9"]) and damage.check(catalogue).empty


def test_products_10k_without_labels_or_groups(products_10k):
    (products_10k / "test_kaggletest.csv").unlink()
    (products_10k / "train.csv").write_text("name,class\n1.jpg,0\n")
    catalogue = load_catalogue("products-10k", products_10k)
    assert (
        set(catalogue["split"]) == {"train"}
        and "group" not in catalogue.frame
        and "no queries" in catalogue.notes[0]
    )
    for text, words in (
        ("name,class\n1.jpg,\n", "row 1 of .* lacks its name or class"),
        ("file,class\n1.jpg,0\n", "wants columns name, class.* got columns file, class"),
        ("name,class\n9.jpg,0\n", r"train/9.jpg \(missing\)"),
    ):
        (products_10k / "train.csv").write_text(text)
        with pytest.raises(ValueError, match=words):
            load_catalogue("products-10k", products_10k)
    (products_10k / "train.csv").unlink()
    with pytest.raises(
        FileNotFoundError, match="train.csv is missing; unpack the archives of Products-10K there"
    ):
        load_catalogue("products-10k", products_10k)


def test_stanford_has_disjoint_products(tmp_path, picture):
    rows = {
        "train": [(1, 1, "bicycle_final/1_0.JPG"), (2, 1, "bicycle_final/1_1.JPG")],
        "test": [
            (3, 2, "chair_final/2_0.JPG"),
            (4, 2, "chair_final/2_1.JPG"),
            (5, 3, "chair_final/3_0.JPG"),
            (6, 2, "chair_final/2_2.JPG"),
        ],
    }
    for split, own in {**rows, "info": rows["train"] + rows["test"]}.items():
        text = HEADER + "".join(
            f"{i} {product} {1 + (split == 'test')} {path}\r\n" for i, product, path in own
        )
        (tmp_path / f"Ebay_{split}.txt").write_text(text)
    for _, _, path in rows["train"] + rows["test"]:
        picture(tmp_path / path)
    (tmp_path / "readme.txt").write_text("not an index")
    catalogue = load_catalogue("stanford-online-products", tmp_path)
    assert catalogue.frame.sort_values("image")[["product", "split", "group"]].values.tolist() == [
        ["1", "train", "1"],
        ["1", "train", "1"],
        ["2", "gallery", "2"],
        ["2", "query", "2"],
        ["2", "query", "2"],
        ["3", "gallery", "2"],
    ]
    assert "Ebay_info.txt left out" in catalogue.notes and "packshot" in catalogue.notes[1]
    gallery, queries = catalogue.pick()
    assert len(gallery) == 2 and len(queries) == 2
    for split in ("train", "test"):
        (tmp_path / f"Ebay_{split}.txt").unlink()
    assert load_catalogue("stanford-online-products", tmp_path)["split"].eq("train").all()


def test_retail_786k_shares_products(tmp_path, picture):
    for image in ("train/4/1.jpg", "train/4/2.jpg", "test/4/1.jpg"):
        picture(tmp_path / image)
    (tmp_path / "train.txt").write_text(HEADER + "1 4 0 train/4/1.jpg\n2 4 0 train/4/2.jpg\n")
    (tmp_path / "test.txt").write_text(HEADER + "1 4 0 test/4/1.jpg\n")
    catalogue = load_catalogue("retail-786k", tmp_path)
    assert sorted(catalogue.frame[["image", "split"]].values.tolist()) == [
        ["test/4/1.jpg", "query"],
        ["train/4/1.jpg", "train"],
        ["train/4/2.jpg", "train"],
    ]
    (tmp_path / "test.txt").write_text(HEADER + "1 4\n")
    with pytest.raises(ValueError, match="row 1 of .*test.txt wants image_id class_id"):
        load_catalogue("retail-786k", tmp_path)
    for file in ("train.txt", "test.txt"):
        (tmp_path / file).unlink()
    with pytest.raises(FileNotFoundError, match="no index file .* unpack Retail-786k of Zenodo"):
        load_catalogue("retail-786k", tmp_path)


def test_parquet(shop_root, monkeypatch):
    file = shop_root / "images.parquet"
    file.write_bytes(b"PAR1")
    with monkeypatch.context() as patch:
        patch.setattr(
            pd, "read_parquet", lambda path: (_ for _ in ()).throw(ImportError("no engine"))
        )
        with pytest.raises(
            ValueError, match="needs a reader of Parquet files; run `pip install pyarrow`"
        ):
            load_catalogue("manifest", file)
    table = pd.DataFrame(
        {"image": ["red/1.jpg", "red/2.jpg"], "product": [7, 8], "split": ["test", None]}
    )
    monkeypatch.setattr(pd, "read_parquet", lambda path: table)
    catalogue = load_catalogue("manifest", file)
    assert catalogue[["product", "split"]].values.tolist() == [["7", "query"], ["8", "train"]]
    file.rename(shop_root / "manifest.parquet")
    assert len(load_catalogue("manifest", shop_root)) == 2


def test_parquet_for_real(shop_root):
    pytest.importorskip("pyarrow")
    file = shop_root / "images.parquet"
    pd.DataFrame({"image": ["red/1.jpg"], "product": ["007"]}).to_parquet(file)
    assert load_catalogue("manifest", file)["product"].tolist() == ["007"]
    file.write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="is no Parquet file"):
        load_catalogue("manifest", file)


def test_the_first_wrong_row_is_named(shop_root):
    rows = ["red/1.jpg,a,", "red/2.jpg,,", "../x.jpg,a,", "red/3.jpg,a,odd"]
    for first, words in (
        (1, "row 2 of .* has no product"),
        (2, "row 2 of .* has image '../x.jpg'"),
        (3, "row 2 of .* has split 'odd'"),
    ):
        (shop_root / "images.csv").write_text(
            "\n".join(["image,product,split", rows[0], *rows[first:]])
        )
        with pytest.raises(ValueError, match=words):
            load_catalogue("manifest", shop_root / "images.csv")


@pytest.mark.parametrize("count", [1, 30])
def test_missing_files_are_found_in_small_and_large_folders(tmp_path, count):
    (tmp_path / "p").mkdir()
    names = [f"p/{number}.jpg" for number in range(count)]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "p/folder.jpg").mkdir()
    (tmp_path / "p/link.jpg").symlink_to(tmp_path / "p/0.jpg")
    (tmp_path / "p/dead.jpg").symlink_to(tmp_path / "p/nothing.jpg")
    asked = [
        "p/gone.jpg",
        *names,
        "./p/0.jpg",
        "q/0.jpg",
        "p/folder.jpg",
        "p/link.jpg",
        "p/dead.jpg",
        str(tmp_path / "p/0.jpg"),
        str(tmp_path / "none.jpg"),
    ]
    assert images.missing(tmp_path, pd.Series(asked)) == [
        name for name in asked if not (tmp_path / name).is_file()
    ]
