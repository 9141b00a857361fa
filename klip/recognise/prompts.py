"""Recognition by name: CLIP's text tower against the image tower, no packshot at all.

Radford et al. 2021.  Axes: P products, D numbers per embedding, T templates, L tokens.
"""

from __future__ import annotations

import gzip
import json
import re
from typing import Any

import open_clip
import pandas as pd
from open_clip.model import CLIP
from open_clip.tokenizer import SimpleTokenizer, default_bpe
from safetensors.torch import load_model
from torch import Tensor, nn

from klip.data.catalogue import Catalogue
from klip.model import hub
from klip.model.encoder import Encoder
from klip.recognise import evaluation
from klip.recognise.gallery import Gallery
from klip.settings import paths
from klip.settings.files import atomic

TEMPLATES = ("a photo of {}", "a packshot of {}", "{} on a shelf", "{}")
"""Embedded each, and their mean taken, as CLIP's prompt ensembles are (A)."""


def words(product: str) -> str:
    """A name as people would write it: "zola-0-Gold-ice_tea-mint-1" -> "zola Gold ice tea mint"."""
    parts = re.split(r"[\s_\-/]+", product)
    return " ".join(part for part in parts if part and not part.isdecimal())


def missing(catalogue: Catalogue) -> str:
    """Why a set cannot be asked by name: its products have numbers only; empty if it can."""
    if all(map(words, catalogue["product"].unique())):
        return ""
    return "its products have numbers, not names"


def tokenizer(arch: str = "nanoclip") -> Any:
    """open_clip's own BPE tokenizer; a tower of klip has it cut to its vocabulary."""
    file = paths.WEIGHTS / f"{arch}.json"
    if not file.is_file():
        return open_clip.get_tokenizer(arch)
    text = json.loads(file.read_text(encoding="utf-8"))["text_cfg"]
    short = paths.CACHE / f"bpe_{text['vocab_size']}.txt.gz"
    if not short.exists():
        lines = gzip.open(default_bpe()).read().decode().split("\n")
        merges = lines[: text["vocab_size"] - 514 + 1]  # line 0 is the version
        atomic(short, lambda part: part.write_bytes(gzip.compress("\n".join(merges).encode())))
    return SimpleTokenizer(bpe_path=str(short), context_length=text["context_length"])


def build(arch: str, trained: bool = False) -> nn.Module:
    """The whole open_clip model (image and text tower) of `klip/weights/<arch>.json`.

    `trained`: with the weights beside it; those of an image tower leave the text tower
    random.
    """
    # `create_model` would warn that the weights are random, which is meant.
    model = CLIP(**json.loads((paths.WEIGHTS / f"{arch}.json").read_text(encoding="utf-8")))
    if trained:
        load_model(model, paths.WEIGHTS / f"{arch}.safetensors", strict=False)
    return model


def load(model: str) -> tuple[nn.Module, Any]:
    """The open_clip model that image tower `model` belongs to, in eval mode, and its tokenizer."""
    if model == "nano":
        return build("nanoclip", trained=True).eval(), tokenizer()
    arch, _, tag = model.partition(":")
    if not tag or arch == "timm":
        raise ValueError(
            f"prompts: {model} has no text tower at hand; accepted are nano and ARCH:TAG of "
            "open_clip"
        )
    if arch in ("hf-hub", "local-dir"):
        made = open_clip.create_model(model, require_pretrained=True)
        return made.eval(), open_clip.get_tokenizer(model)
    source = hub.of_open_clip(arch, tag)
    file = str(source.fetch()) if source.fetch else None
    quick = source.config["quick_gelu"]  # the tag says it, a file does not
    return open_clip.create_model(arch, file, force_quick_gelu=quick).eval(), tokenizer(arch)


def embed(model: str, products: list[str]) -> Tensor:
    """Unit rows (P, D): the mean of each product's prompts, by the text tower of `model`."""
    names = [words(product) for product in products]
    # A name at a time, so that its row does not depend on its neighbours.
    rows = open_clip.build_zero_shot_classifier(*load(model), names, TEMPLATES, 1)  # (D, P)
    return rows.T.contiguous()


def evaluate(
    tower: Encoder,
    model: str,
    *,
    catalogue: Catalogue,
    embeddings: Tensor | None = None,
    **reading: Any,
) -> pd.DataFrame:
    """Outcome frame of a set by its product names; `tower` is the image tower of `model`.

    embeddings (Q, D) of `catalogue.queries()` spare embedding them anew.
    """
    reason = missing(catalogue)
    if reason:
        raise ValueError(f"prompts: {catalogue.name} cannot be asked by name: {reason}")
    _, asked = catalogue.pick()
    products = sorted(set(asked["product"]))
    meta = {"precision": "auto"}
    gallery = Gallery(embed(model, products), products, products, meta, tower, reading=reading)
    return evaluation.outcome(gallery, asked, embeddings=embeddings)
