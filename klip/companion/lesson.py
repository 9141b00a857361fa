"""What every notebook begins with: its settings, and the sets that they name."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from klip.data import fetch
from klip.data.catalogue import Catalogue
from klip.data.loading import load_catalogue
from klip.settings import config, paths
from klip.settings.config import Settings


def settings(namespace: Mapping[str, Any]) -> Settings:
    """Checked settings out of a notebook's `globals()`; their folder of sets becomes KLIP_DATA."""
    found = config.settings(namespace)
    if found.sets_folder:
        os.environ["KLIP_DATA"] = found.sets_folder
    return found


def finetuning_set(given: Settings) -> Catalogue:
    """The set to fine-tune on; two images of each product are kept for validation (§4.1.3)."""
    return load_catalogue(given.finetune_set, given.finetune_folder, validation=2)


def relative(files: Sequence[Path]) -> list[str]:
    """Files of the cache as metrics name them: the cache may move."""
    return [file.relative_to(paths.CACHE).as_posix() for file in files]


def cached(files: Sequence[str]) -> list[Path]:
    """Files of encoders that another notebook keeps, by what its metrics say."""
    return [paths.CACHE / file for file in files]


def evaluation_sets(given: Settings) -> tuple[dict[str, Catalogue], str]:
    """The evaluation sets that are at hand, by name, and one line on the others, or ""."""
    present, left_out = fetch.at_hand(given.eval_list)
    return {name: load_catalogue(name) for name in present}, left_out
