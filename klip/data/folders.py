"""Sets whose folders say what an image shows: a folder per product, RP2K, GroZi-120,
GroceryStore, rendered shops.

Every parser takes the set's name and its folder and returns a `Catalogue`.
"""

import re
import unicodedata
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from klip.data.catalogue import Catalogue
from klip.data.images import IMAGES, files_in
from klip.data.sources import SOURCES
from klip.data.words import named, natural
from klip.settings import paths

SPLITS = ("train", "val", "test", "gallery", "query")
COLUMNS = ["image", "product", "split"]


def shop(name: str, root: Path, *, workers: int = 2, progress: bool = True) -> Catalogue:
    """The default shop, rendered if need be; or the shop that is in a folder of one's own."""
    from klip.shop import sets
    from klip.shop.plan import ShopPlan

    if root != paths.CACHE / "shop" and (root / "plan.json").is_file():
        found = sets.catalogues(root)
    else:
        found = sets.render(ShopPlan(), root, workers=workers, progress=progress)
    frame = found["finetune" if name == "shop" else name.replace("-", "_")]
    return Catalogue(frame, root, name).assign(group=frame["product"].map(_shelf))


def _shelf(product: str) -> str:
    """category/kind/brand-number of a product, named brand-number-line-kind-flavour-number."""
    from klip.shop.goods import CATEGORIES

    brand, number, _, kind, *_ = product.split("-")
    shelf = "produce"
    for category, (_, kinds) in CATEGORIES.items():
        if kind.replace("_", " ") in kinds.split("|"):
            shelf = category
            break
    return f"{shelf}/{kind}/{brand}-{number}"


def grocery_store(name: str, root: Path, *, packaged: bool = False) -> Catalogue:
    """GroceryStore: iconic packshots are the gallery, test photos the queries."""
    root = root / "dataset" if (root / "dataset" / "classes.csv").is_file() else root
    lists = [root / "classes.csv", *(root / f"{split}.txt" for split in ("train", "val", "test"))]
    for path in lists:
        if not path.is_file():
            raise FileNotFoundError(f"{name}: {path} is missing; {SOURCES[name].place}")
    classes = pd.read_csv(lists[0], dtype=str, skipinitialspace=True, keep_default_na=False)
    classes = classes.map(str.strip)
    names, numbers, groups, _, icons = (classes.iloc[:, column] for column in range(5))
    products = dict(zip(numbers, names, strict=True))
    rows = [(icon, product, "gallery") for icon, product in zip(icons, names, strict=True)]
    for path in lists[1:]:
        split = path.stem.replace("test", "query")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            image, product = [*map(str.strip, line.split(",")), ""][:2]
            if product not in products:
                raise ValueError(
                    f"{name}: line {number} of {path} wants `path, id, coarse id` with an id of "
                    f"classes.csv, got {line!r}"
                )
            rows.append((image, products[product], split))
    table = pd.DataFrame(rows, columns=COLUMNS)
    table["image"] = table["image"].str.lstrip("/")
    table["packaged"] = table["image"].str.contains("/Packages/")
    table["group"] = table["product"].map(dict(zip(names, groups, strict=True)))
    catalogue = Catalogue(table, root, name)
    return catalogue.part("packaged") if packaged else catalogue


def grozi(name: str, root: Path) -> Catalogue:
    """GroZi-120, any number of its products: web packshots as gallery candidates, video
    crops as queries.

    Split "index", for the gallery rule of that name: inVitro/<product>/Index/* and
    Index/<product>.* (where that folder lies in the official archive could not be
    confirmed).
    """
    webs = _numbered(name, root, "inVitro/*/web/JPEG/web*")
    videos = _numbered(name, root, "inSitu/*/video/video*")
    rows = [(path, product, "gallery", number) for product, number, path in webs]
    rows += [(path, product, "query", 0) for product, _, path in videos]
    index = [(path, path.parent.parent.name) for path in root.glob("inVitro/*/Index/*")]
    index += [(path, path.stem) for path in root.glob("Index/*")]
    for path, product in sorted(index, key=lambda pair: natural(str(pair[0]))):
        if product.isdecimal() and path.suffix.lower() in IMAGES:
            rows.append((path, int(product), "index", 0))
    table = pd.DataFrame(rows, columns=[*COLUMNS, "packshot"]).astype({"product": str})
    table["image"] = [path.relative_to(root).as_posix() for path in table["image"]]
    return Catalogue(table, root, name)


def _numbered(name: str, root: Path, pattern: str) -> list[tuple[int, int, Path]]:
    """Product, number and path of web<number> or video<number>, sorted by the numbers."""
    found = {}
    # .png comes after .jpg: of two copies the lossless one counts.
    for path in sorted(root.glob(pattern)):
        product = path.relative_to(root).parts[1]
        number = re.fullmatch(r"(?:web|video)(\d+)", path.stem)
        if number and product.isdecimal() and path.suffix.lower() in IMAGES:
            found[int(product), int(number[1])] = path
    if not found:
        raise FileNotFoundError(f"{name}: no image {pattern} in {root}; {SOURCES[name].place}")
    return sorted((product, number, path) for (product, number), path in found.items())


class ProductFolder(NamedTuple):
    """A folder of one product's images."""

    within: str
    """Its posix path below the root."""
    product: str
    split: str
    files: list[str]


def folders(name: str, root: Path, *, tops: list[Path] | None = None) -> Catalogue:
    """<root>/<product>/<image>, or <root>/<split>/<product>/<image> with a split of SPLITS
    (test = query).  tops: the folders of splits, where others lie beside them."""
    found = _product_folders(root, inner(root) if tops is None else tops)
    catalogue = _of_folders(name, root, found)
    shown = set(catalogue["product"])
    empty = dict.fromkeys(one.product for one in found if one.product not in shown)
    return replace(catalogue, empty=tuple(empty))


def rp2k(name: str, root: Path, *, others: bool = False) -> Catalogue:
    """RP2K: all/train/ and all/test/, names decoded where unpacking has mangled them.

    Left out are empty folders and, unless `others`, the folder of that name, which holds
    what no product name fits.
    """
    inside = (root / "rp2k_dataset" / "all", root / "all", root)
    top = next(path for path in inside if path.is_dir())
    found = _product_folders(top, inner(top))
    found = [one._replace(product=decoded(one.product)) for one in found]
    notes = []
    if not others:
        dropped = [len(one.files) for one in found if one.product == "others"]
        found = [one for one in found if one.product != "others"]
        if dropped:
            notes.append(f"others/ left out, {sum(dropped)} images")
    empty = [f"{one.within}/" for one in found if not one.files]
    if empty:
        notes.append(f"{len(empty)} folders are empty: {named(empty)}")
    names_of = defaultdict[str, set[str]](set)
    for one in found:
        names_of[one.product].add(one.within.rpartition("/")[2])
    twice = [product for product, names in names_of.items() if len(names) > 1]
    if twice:
        notes.append(f"{len(twice)} products have folders of several names: {named(twice)}")
    return replace(_of_folders(name, top, found), notes=tuple(notes))


def _of_folders(name: str, root: Path, found: list[ProductFolder]) -> Catalogue:
    rows = []
    for one in found:
        rows += [(f"{one.within}/{file}", one.product, one.split) for file in one.files]
    if not rows:
        raise ValueError(
            f"{name}: {root} must hold one folder of images per product, found "
            f"{len({one.product for one in found})} product folders and no image in them"
        )
    return Catalogue(pd.DataFrame(rows, columns=COLUMNS), root, name)


def _product_folders(root: Path, tops: list[Path]) -> list[ProductFolder]:
    """The folders of products in the folders of splits, or in `root` itself."""
    places = [(root, "train")]
    if tops and all(top.name.lower() in SPLITS for top in tops):
        places = [(top, top.name.lower().replace("test", "query")) for top in tops]
    found = []
    for place, split in places:
        for folder in inner(place):
            product = unicodedata.normalize("NFC", folder.name)  # macOS writes accents otherwise
            files = sorted(filter(_is_image, files_in(folder)), key=natural)
            within = folder.relative_to(root).as_posix()
            found.append(ProductFolder(within, product, split, files))
    return found


def _is_image(file: str) -> bool:
    return Path(file).suffix.lower() in IMAGES and not file.startswith(".")


def decoded(name: str) -> str:
    """A Chinese name that was unpacked as if it were in code page 437, put right; any other
    name as it is.

    RP2K's archive holds UTF-8 without the flag that says so, in copies GBK.  GBK is
    tried only on names with line drawings, which that reading makes of Chinese and
    which no name has otherwise.
    """
    drawn = any("\u2500" <= sign <= "\u259f" for sign in name)
    for encoding in ("utf-8", "gbk") if drawn else ("utf-8",):
        with suppress(UnicodeError):  # Chinese already, or in another encoding
            return unicodedata.normalize("NFC", name.encode("cp437").decode(encoding))
    return name


def inner(folder: Path) -> list[Path]:
    """The folders in a folder, 2 before 10, without hidden ones."""
    found = [path for path in folder.iterdir() if path.is_dir()]
    shown = [path for path in found if not path.name.startswith((".", "__"))]
    return sorted(shown, key=lambda path: natural(path.name))
