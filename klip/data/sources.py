"""Where the sets of real photographs come from: what they hold, where klip looks for them,
licence and citation.

`klip data list` prints this; an empty licence text would be a guess, so what nobody
states is called "not stated".
"""

from pathlib import Path
from typing import NamedTuple

from klip.settings import paths


class Source(NamedTuple):
    """Facts of one set.  place: how it gets to its folder, KLIP_DATA/<name>, by hand; the
    end of a sentence.
    """

    holds: str
    place: str
    url: str
    licence: str
    citation: str


SOURCES = {
    "grocery-store": Source(
        "81 products, 5,421 photographs and a packshot each, about 120 MB",
        "put the contents of dataset/ of github.com/marcusklasson/GroceryStoreDataset "
        "there (classes.csv, train.txt, train/ and so on)",
        "https://github.com/marcusklasson/GroceryStoreDataset",
        "MIT",
        "Klasson, Zhang, Kjellström: A Hierarchical Grocery Store Image Dataset with "
        "Visual and Semantic Labels, WACV 2019",
    ),
    "grozi-120": Source(
        "120 products, 676 web packshots and 11,194 crops of shop video",
        "unpack inVitro.zip and inSitu.zip of grozi.calit2.net there (inVitro/ and inSitu/)",
        "http://grozi.calit2.net",
        "not stated; given for research",
        "Merler, Galleguillos, Belongie: Recognizing Groceries in situ Using in vitro "
        "Training Data, CVPR 2007 workshops",
    ),
    "capg-gp": Source(
        "102 products, 234 shelf photographs",
        "put the product crops of CAPG-GP there (train/<product>/ and test/<product>/), "
        "or shelf photographs with boxes.csv (image,x1,y1,x2,y2,product[,split])",
        "",
        "not stated; ask the authors",
        "Geng, Han, Lin, Zhu, Bai, Wang, He, Xiao, Lai: Fine-Grained Grocery Product "
        "Recognition by One-Shot Learning, ACM Multimedia 2018",
    ),
    "rp2k": Source(
        "2,388 products, 344,854 training and 39,457 test images, 6.3 GB",
        "unpack rp2k_dataset.zip there (all/train/<product>/ and all/test/<product>/)",
        "https://arxiv.org/abs/2006.12634",
        "research only",
        "Peng, Xiao, Li: RP2K: A Large-Scale Retail Product Dataset for Fine-Grained "
        "Image Classification, arXiv 2006.12634, 2020",
    ),
    "products-10k": Source(
        "about 10,000 products and 150,000 training images",
        "unpack the archives of Products-10K there (train.csv, train/, "
        "test_kaggletest.csv and test/)",
        "https://products-10k.github.io",
        "non-commercial use only",
        "Bai, Chen, Yu, Wang, Zhang: Products-10K: A Large-scale Product Recognition "
        "Dataset, arXiv 2008.10545, 2020",
    ),
    "retail-786k": Source(
        "3,298 products, 748,715 training and 37,464 test images",
        "unpack Retail-786k of Zenodo 7970567 there (train/, test/ and their index "
        "files, train*.txt and test*.txt)",
        "https://zenodo.org/records/7970567",
        "CC BY-NC-ND 4.0",
        "Lamm, Keuper: Retail-786k: a Large-Scale Dataset for Visual Entity Matching, "
        "arXiv 2309.17164, 2023",
    ),
    "stanford-online-products": Source(
        "22,634 products, 120,053 images; the products of training and test are disjoint",
        "unpack Stanford_Online_Products.zip there (Ebay_train.txt, Ebay_test.txt, "
        "bicycle_final/ and so on)",
        "https://cvgl.stanford.edu/projects/lifted_struct/",
        "not stated; used for research",
        "Song, Xiang, Jegelka, Savarese: Deep Metric Learning via Lifted Structured "
        "Feature Embedding, CVPR 2016",
    ),
}


def folder_of(name: str, root: str | Path) -> Path:
    """Where a set lies: `root`, else in its place; FileNotFoundError with what to do if it
    does not.
    """
    hint = "it has to be a folder of products"
    if name == "manifest":
        hint = "it has to be a CSV or Parquet file with columns image, product[, split]"
    elif name in SOURCES:
        hint = f"{SOURCES[name].place}: {SOURCES[name].holds}"
    if name == "grocery-store":
        hint = f"run `klip data fetch grocery-store`, or {hint}"
    if not root and name not in SOURCES:
        raise ValueError(f"{name}: no root was given; {hint}")
    folder = Path(root).expanduser() if root else paths.data_root() / name
    if folder.is_dir() or (name == "manifest" and folder.exists()):
        return folder
    raise FileNotFoundError(f"{name}: {folder} is missing; {hint}")
