"""Sets whose folders say what an image shows: a folder per product, RP2K, GroZi-120,
GroceryStore, rendered shops.

Every parser takes the set's name and its folder and returns a `Catalogue`.
"""

import re
import unicodedata
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd

from klip.data import lists
from klip.data.catalogue import Catalogue
from klip.data.images import IMAGES, files_in
from klip.data.sources import SOURCES
from klip.data.words import named, natural
from klip.settings import paths

SPLITS = ("train", "val", "test", "gallery", "query")
COLUMNS = ["image", "product", "split"]


def shop(name: str, root: Path) -> Catalogue:
    """The default shop, rendered if need be; or the shop that is in a folder of one's own."""
    from klip.shop import sets
    from klip.shop.plan import ShopPlan

    if root != paths.CACHE / "shop" and (root / "plan.json").is_file():
        found = sets.catalogues(root)
    else:
        found = sets.render(ShopPlan(), root)
    frame = found["finetune" if name == "shop" else name.replace("-", "_")]
    return Catalogue(frame, root, name).assign(group=frame["product"].map(_shelf))


def _shelf(product: str) -> str:
    """category/kind/brand-number of a product, named brand-number-line-kind-flavour-number."""
    from klip.shop.goods import CATEGORIES

    brand, number, _, kind, *_ = product.split("-")
    for category, (_, kinds) in CATEGORIES.items():
        if kind.replace("_", " ") in kinds.split("|"):
            return f"{category}/{kind}/{brand}-{number}"
    return f"produce/{kind}/{brand}-{number}"


def grocery_store(name: str, root: Path) -> Catalogue:
    """GroceryStore: iconic packshots are the gallery, test photos the queries."""
    root = root / "dataset" if (root / "dataset" / "classes.csv").is_file() else root
    listed = lists.read(name, root / "classes.csv", needs=(), root=root)
    classes, columns = listed.table.iloc[:, :5], ["product", "id", "group", "coarse id", "image"]
    if classes.shape[1] < len(columns):
        raise ValueError(
            f"{name}: {listed.path} wants columns for {', '.join(columns)}, got "
            f"{', '.join(classes.columns)}"
        )
    classes.columns = columns
    again = classes["id"].duplicated()
    replace(listed, table=classes).refuse({"has id {id} a second time": again})
    tables = [classes.assign(split="gallery")]
    for split in ("train", "val", "test"):
        needs = ("image", "id", "coarse id")
        found = lists.read(name, root / f"{split}.txt", needs=needs, root=root, names=needs)
        wanted = "wants `path, id, coarse id` with an id of classes.csv"
        unknown = ~found.table["id"].isin(classes["id"])
        found.refuse({wanted + ", got '{image}, {id}, {coarse id}'": unknown})
        tables.append(found.table.assign(split=split.replace("test", "query")))
    table = pd.concat(tables, ignore_index=True)
    of_id = classes.set_index("id")
    table["product"] = table["id"].map(of_id["product"])
    table["group"] = table["id"].map(of_id["group"])
    table["image"] = table["image"].str.lstrip("/")
    table["packaged"] = table["image"].str.contains("/Packages/")
    return Catalogue(table[[*COLUMNS, "packaged", "group"]], root, name)


def grozi(name: str, root: Path) -> Catalogue:
    """GroZi-120, any number of its products: web packshots as gallery candidates, video
    crops as queries.

    Split "index", for the gallery rule of that name: inVitro/<product>/Index/* and
    Index/<product>.* (where that folder lies in the official archive could not be
    confirmed).
    """
    webs = _numbered(name, root, pattern="inVitro/*/web/JPEG/web*")
    videos = _numbered(name, root, pattern="inSitu/*/video/video*")
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


def _numbered(name: str, root: Path, *, pattern: str) -> list[tuple[int, int, Path]]:
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


def folders(name: str, root: Path, *, tops: list[Path] | None = None) -> Catalogue:
    """<root>/<product>/<image>, or <root>/<split>/<product>/<image> with a split of SPLITS
    (test = query).  tops: the folders of splits, where others lie beside them."""
    found = _listed(root, inner(root) if tops is None else tops)
    catalogue = _of_folders(name, root, found=found)
    products = found["product"].drop_duplicates()
    return replace(catalogue, empty=tuple(products[~products.isin(catalogue["product"])]))


def rp2k(name: str, root: Path, *, others: bool = False) -> Catalogue:
    """RP2K: all/train/ and all/test/, names decoded where unpacking has mangled them.

    Left out are empty folders and, unless `others`, the folder of that name, which holds
    what no product name fits.
    """
    inside = (root / "rp2k_dataset" / "all", root / "all", root)
    top = next(path for path in inside if path.is_dir())
    found = _listed(top, inner(top))
    found["product"] = found["product"].map(decoded)
    notes = []
    rest = found["product"] == "others"
    if rest.any() and not others:
        notes.append(f"others/ left out, {found['file'][rest].ne('').sum()} images")
        found = found[~rest]
    empty = found["folder"][found["file"] == ""] + "/"
    if len(empty):
        notes.append(f"{len(empty)} folders are empty: {named(empty)}")
    last = found["folder"].str.rpartition("/")[2]  # without the split
    names = last.groupby(found["product"], sort=False).nunique()
    twice = names.index[names > 1]
    if len(twice):
        notes.append(f"{len(twice)} products have folders of several names: {named(twice)}")
    return replace(_of_folders(name, top, found=found), notes=tuple(notes))


def _of_folders(name: str, root: Path, *, found: pd.DataFrame) -> Catalogue:
    images = found[found["file"] != ""]
    if images.empty:
        raise ValueError(
            f"{name}: {root} must hold one folder of images per product, found "
            f"{found['product'].nunique()} product folders and no image in them"
        )
    table = images.assign(image=images["folder"] + "/" + images["file"])
    return Catalogue(table[COLUMNS].reset_index(drop=True), root, name)


def _listed(root: Path, tops: list[Path]) -> pd.DataFrame:
    """The images in the folders of products, which lie in folders of splits or in `root`
    itself: folder (posix, below `root`), file, product, split; of an empty folder one row
    with file ""."""
    places = [(root, "train")]
    if tops and all(top.name.lower() in SPLITS for top in tops):
        places = [(top, top.name.lower().replace("test", "query")) for top in tops]
    rows = []
    for place, split in places:
        for folder in inner(place):
            product = unicodedata.normalize("NFC", folder.name)  # macOS writes accents otherwise
            within = folder.relative_to(root).as_posix()
            files = sorted(filter(_is_image, files_in(folder)), key=natural)
            rows += [(within, file, product, split) for file in files or [""]]
    return pd.DataFrame(rows, columns=["folder", "file", "product", "split"], dtype=str)


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
