"""Sets whose folders say what an image shows: a folder per product, RP2K, GroZi-120,
GroceryStore, rendered shops.

Every parser takes the set's name and its folder and returns a catalogue (see `data`);
`attrs` notes are sentences on what it left out or put together.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from klip.data.images import IMAGES, files_in
from klip.data.sources import SOURCES
from klip.settings import paths

SPLITS = ("train", "val", "test", "gallery", "query")
COLUMNS = ["image", "product", "split"]


def shop(name: str, root: Path, workers: int = 2, progress: bool = True) -> pd.DataFrame:
    """The default shop, rendered if need be; or the shop that is in a folder of one's own."""
    from klip.shop import sets
    from klip.shop.plan import ShopPlan

    if root != paths.CACHE / "shop" and (root / "plan.json").is_file():
        found = sets.catalogues(root)
    else:
        found = sets.render(ShopPlan(), root, workers=workers, progress=progress)
    catalogue = found["finetune" if name == "shop" else name.replace("-", "_")]
    catalogue["group"] = catalogue["product"].map(_shelf)
    return catalogue


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


def grocery_store(name: str, root: Path, packaged: bool = False) -> pd.DataFrame:
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
    catalogue = frame(root, pd.DataFrame(rows, columns=COLUMNS))
    catalogue["image"] = catalogue["image"].str.lstrip("/")
    catalogue["packaged"] = catalogue["image"].str.contains("/Packages/")
    catalogue["group"] = catalogue["product"].map(dict(zip(names, groups, strict=True)))
    return only_packaged(catalogue, name) if packaged else catalogue


def only_packaged(catalogue: pd.DataFrame, name: str) -> pd.DataFrame:
    if "packaged" not in catalogue:
        raise ValueError(
            f"{name}: this set does not say which products are packaged; grocery-store does"
        )
    return catalogue[catalogue["packaged"].to_numpy(bool)].reset_index(drop=True)


def grozi(name: str, root: Path) -> pd.DataFrame:
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
    return frame(root, table)


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


def rp2k(name: str, root: Path, others: bool = False) -> pd.DataFrame:
    """RP2K: all/train/ and all/test/, names decoded where unpacking has mangled them.
    Left out are empty folders and, unless `others`, the folder of that name, which
    holds what no product name fits."""
    inside = (root / "rp2k_dataset" / "all", root / "all", root)
    top = next(path for path in inside if path.is_dir())
    return folders(name, top, mangled=True, dropped="" if others else "others")


def folders(
    name: str, root: Path, mangled: bool = False, dropped: str = "", tops: list[Path] | None = None
) -> pd.DataFrame:
    """<root>/<product>/<image>, or <root>/<split>/<product>/<image> with a split of SPLITS
    (test = query).

    mangled: decode the names, and do not mind folders without an image.  dropped: a
    folder that is no product.  tops: the folders of splits, where others lie beside
    them.
    """
    rows, empty, names_of, left_out = [], [], defaultdict[str, set[str]](set), Counter[str]()
    for folder, split in _product_folders(root, inner(root) if tops is None else tops):
        product = unicodedata.normalize("NFC", folder.name)  # macOS writes accents otherwise
        if mangled:
            product = unicodedata.normalize("NFC", decoded(product))
        files = sorted(filter(_is_image, files_in(folder)), key=natural)
        if product == dropped:
            left_out[product] += len(files)
            continue
        within = folder.relative_to(root).as_posix()
        rows += [(f"{within}/{file}", product, split) for file in files]
        names_of[product].add(folder.name)
        if not files:
            empty.append(f"{within}/")
    if not rows:
        raise ValueError(
            f"{name}: {root} must hold one folder of images per product, found {len(names_of)} "
            "product folders and no image in them"
        )
    catalogue = pd.DataFrame(rows, columns=COLUMNS)
    if not mangled:
        shown = set(catalogue["product"])
        catalogue.attrs["empty"] = [product for product in names_of if product not in shown]
        return frame(root, catalogue)
    notes = [f"{product}/ left out, {count} images" for product, count in left_out.items()]
    if empty:
        notes.append(f"{len(empty)} folders are empty: {named(empty)}")
    twice = [product for product, names in names_of.items() if len(names) > 1]
    if twice:
        notes.append(f"{len(twice)} products have folders of several names: {named(twice)}")
    return frame(root, catalogue, notes)


def _product_folders(root: Path, tops: list[Path]) -> Iterator[tuple[Path, str]]:
    """The folders of products, each with its split."""
    if not tops or any(top.name.lower() not in SPLITS for top in tops):
        yield from ((folder, "train") for folder in inner(root))
        return
    for top in tops:
        split = top.name.lower().replace("test", "query")
        yield from ((folder, split) for folder in inner(top))


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
            return name.encode("cp437").decode(encoding)
    return name


def frame(root: Path, table: pd.DataFrame, notes: Sequence[str] = ()) -> pd.DataFrame:
    """A table as catalogue of a folder, with notes on what was left out or put together."""
    table.attrs.update(root=str(root), notes=list(notes))
    return table


def inner(folder: Path) -> list[Path]:
    """The folders in a folder, 2 before 10, without hidden ones."""
    found = [path for path in folder.iterdir() if path.is_dir()]
    shown = [path for path in found if not path.name.startswith((".", "__"))]
    return sorted(shown, key=lambda path: natural(path.name))


def natural(text: str) -> list[Any]:
    """Sorting key under which numbers inside names count as numbers: 2 before 10."""
    pieces = re.findall(r"\d+|\D+", text)
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces]


def named(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
