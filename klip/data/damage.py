"""What is wrong with a set on disk: missing and damaged images, products that cannot be asked."""

import warnings
from dataclasses import replace

import pandas as pd

from klip.data import identity
from klip.data.catalogue import Catalogue
from klip.data.images import missing, read
from klip.data.words import named, natural

FEW, SHARE = 10, 0.01
"""Damaged images that may be left out, and what share of a set."""
COPY = "the very file of"


def check(catalogue: Catalogue) -> pd.DataFrame:
    """What is wrong: a frame of image, product, problem.  Opens every image.

    Also an image of one product that is the very file of another's: one of them is wrong.
    """
    problems = [("", product, "no image in its folder") for product in catalogue.empty]
    images = zip(catalogue["image"], catalogue["product"], catalogue.files, strict=True)
    for image, product, file in images:
        try:
            read(file)
        except FileNotFoundError:
            problems.append((image, product, "missing"))
        except ValueError as error:
            problems.append((image, product, str(error).removeprefix(f"image {file}: ")))
    for copy in identity.copies(catalogue).itertuples():
        same = f"{COPY} {copy.twin}, which is {copy.twin_product}"
        problems.append((copy.image, copy.product, same))
    return pd.DataFrame(problems, columns=["image", "product", "problem"])


def one_sided(catalogue: Catalogue) -> tuple[list[str], list[str]]:
    """Products that are never asked for, and products that are asked for and never
    shown (train, gallery); both empty in a set without queries of its own."""
    asked = set(catalogue.split("query")["product"])
    shown = set(catalogue.split("train", "gallery")["product"])
    if not asked:
        return [], []
    return sorted(shown - asked, key=natural), sorted(asked - shown, key=natural)


def refuse(catalogue: Catalogue) -> None:
    """ValueError if a product is empty or a file is missing; no image is opened."""
    problems = [f"{product}/ (no image in its folder)" for product in catalogue.empty]
    lost = missing(catalogue.root, catalogue["image"])
    problems += [f"{image} (missing)" for image in lost]
    if problems:
        raise ValueError(
            f"{catalogue.name}: {len(problems)} damaged in {catalogue.root}: {named(problems)}; "
            'put them right or have them left out (bad_images="skip")'
        )


def left_out(catalogue: Catalogue) -> Catalogue:
    """The catalogue without what `check` finds, which a warning counts and names, and which
    it keeps in `left_out`.  ValueError: it is more than FEW and than SHARE of the images."""
    damage = check(catalogue)
    damage = damage[~damage["problem"].str.startswith(COPY)]
    if damage.empty:
        return catalogue
    shown = damage["image"].where(damage["image"] != "", damage["product"] + "/")
    problems = named(shown + " (" + damage["problem"] + ")")
    bad = int(damage["image"].ne("").sum())
    if bad > max(FEW, SHARE * len(catalogue)):
        raise ValueError(
            f"{catalogue.name}: {bad} of {len(catalogue)} images in {catalogue.root} are damaged, "
            f"more than {SHARE:.0%} of them: {problems}; something went wrong with the whole set, "
            "`klip data check` lists them all"
        )
    warnings.warn(f"{catalogue.name}: {len(damage)} left out: {problems}", stacklevel=3)
    sound = catalogue.where(~catalogue["image"].isin(damage["image"]))
    if not len(sound):
        raise ValueError(f"{catalogue.name}: no image in {catalogue.root} can be read")
    gone = dict(zip(shown, damage["problem"], strict=True))
    return replace(sound, left_out=catalogue.left_out | gone)
