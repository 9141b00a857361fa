"""Encoders that others publish: open_clip's and timm's, by their names for them or from their files.

Files are read as tensors only: code that a pickled checkpoint carries is never run.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import torch
from torch import nn

from klip.model import towers
from klip.model.augment import Preprocess
from klip.settings import paths
from klip.settings.config import Interpolation

SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
"""What weights put into the cache by hand may be called: NAME and one of these."""
CONFIG = "open_clip_config.json"


@dataclass(frozen=True)
class Source:
    """What `encoder.build` wants; `fetch` finds the weights (a file or tensors), `fill` puts them in; else random."""

    arch: str
    config: dict[str, Any]
    preprocess: Preprocess
    fetch: Callable[[], Any] | None = None
    fill: Callable[[nn.Module, Any], None] | None = None

    def fill_in(self, tower: nn.Module, found: Any) -> None:
        """Fill a tower with what `fetch` found; ValueError: it does not fit, or is damaged."""
        try:
            self.fill(tower, found)
        except Exception as error:
            what = found if isinstance(found, Path) else "what was fetched"
            raise ValueError(
                f"encoder: {what} is damaged, or a checkpoint of another architecture than {self.arch} "
                f"({_reason(error)})"
            ) from None


def known(arch: str) -> dict[str, Any]:
    """open_clip's config of an architecture, klip's own small ones among them."""
    import open_clip

    if "nanoclip" not in open_clip.list_models():
        open_clip.add_model_config(paths.WEIGHTS)
    if arch not in (models := open_clip.list_models()):
        close = difflib.get_close_matches(arch, models, n=3) or ["ViT-L-14", "ViT-B-32"]
        raise ValueError(
            f"encoder: open_clip has no architecture {arch!r}; accepted: {', '.join(close)} ..."
        )
    return open_clip.get_model_config(arch)


def _preprocess(size: int | list[int], facts: dict[str, Any]) -> Preprocess:
    """As that very checkpoint wants it: laion2b_s32b_b82k has mean = std = 0.5.  What is not said is OpenAI's."""
    import open_clip

    how = facts.get("interpolation")
    return Preprocess(
        size if isinstance(size, int) else size[0],
        tuple(facts.get("mean") or open_clip.OPENAI_DATASET_MEAN),
        tuple(facts.get("std") or open_clip.OPENAI_DATASET_STD),
        interpolation=how if how in get_args(Interpolation) else "bicubic",
    )


def of_open_clip(arch: str, tag: str) -> Source:
    """ARCH:TAG, ARCH:none or ARCH:FILE.  A file says nothing of its preprocessing: the one that all published weights
    of ARCH share is taken, or else open_clip's default."""
    import open_clip

    config, facts = known(arch), open_clip.get_pretrained_cfg(arch, tag)
    tags = open_clip.list_pretrained_tags_by_model(arch)
    is_file = not facts and (Path(tag).suffix in SUFFIXES or Path(tag).is_file())
    if is_file and not Path(tag).is_file():
        raise FileNotFoundError(
            f"encoder: checkpoint {tag} of {arch} is missing; accepted is a .safetensors or .pt "
            f"file of open_clip, or a tag: {', '.join([*tags, 'none'])}"
        )
    if is_file:
        published = {_preprocess(1, open_clip.get_pretrained_cfg(arch, other)) for other in tags}
        facts = vars(published.pop() if len(published) == 1 else _preprocess(1, {}))
    elif tag != "none" and not facts:
        raise ValueError(
            f"encoder: open_clip has no weights {tag!r} for {arch}; accepted: "
            f"{', '.join([*tags, 'none'])}"
        )
    config["quick_gelu"] = bool(config.get("quick_gelu") or facts.get("quick_gelu"))
    made = Source(arch, config, _preprocess(config["vision_cfg"]["image_size"], facts))
    return (
        made
        if tag == "none"
        else replace(
            made,
            fetch=lambda: Path(tag) if is_file else checkpoint(arch, tag),
            fill=_fill_open_clip,
        )
    )


def of_schema(scheme: str, place: str) -> Source:
    """hf-hub:ORG/NAME and local-dir:FOLDER, as open_clip publishes models: a config and the weights beside it."""
    from open_clip.factory import _find_checkpoint_in_dir
    from open_clip.pretrained import download_pretrained_from_hf

    def at_hub(**which: str) -> Path:
        try:
            return Path(download_pretrained_from_hf(place, **which))
        except Exception as error:
            raise FileNotFoundError(
                f"encoder: hf-hub:{place} is not here and cannot be fetched ({type(error).__name__}); get {CONFIG} "
                f"and the weights from https://huggingface.co/{place} into a folder, take local-dir:FOLDER"
            ) from None

    def in_folder() -> Path:
        if found := _find_checkpoint_in_dir(Path(place)):
            return Path(found)
        raise FileNotFoundError(
            f"encoder: {place} holds {CONFIG} and no weights; accepted beside it is "
            "open_clip_model.safetensors (or .bin, .pth)"
        )

    file, weights = (
        (at_hub(filename=CONFIG), at_hub)
        if scheme == "hf-hub"
        else (Path(place) / CONFIG, in_folder)
    )
    if not file.is_file():
        raise FileNotFoundError(
            f"encoder: {file} is missing; local-dir:FOLDER takes a folder with {CONFIG} and "
            "weights beside it, as open_clip publishes them"
        )
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        config = {"quick_gelu": False, **facts["model_cfg"]}
        with torch.device("meta"):
            towers.build(config)
        preprocess = _preprocess(
            config["vision_cfg"].get("image_size", 224), facts.get("preprocess_cfg", {})
        )
    except Exception as error:
        raise ValueError(
            f"encoder: {file} is no config of open_clip that can be built ({_reason(error)}); "
            "accepted is one with model_cfg and preprocess_cfg"
        ) from None
    return Source(f"{scheme}:{place}", config, preprocess, weights, _fill_open_clip)


def _reason(error: Exception) -> str:
    """The last line of an error, as far as one reads it: torch names every tensor that is missing."""
    last = (str(error).strip() or "no reason given").splitlines()[-1].strip()
    return f"{type(error).__name__}: {last if len(last) <= 200 else last[:197] + '...'}"


def _fill_open_clip(tower: nn.Module, file: Path) -> None:
    """The image tower of a whole model; open_clip converts the names and position tables of many publishers."""
    from open_clip.convert import convert_state_dict
    from open_clip.factory import load_state_dict
    from open_clip.model import resize_pos_embed

    model = SimpleNamespace(visual=tower)
    state = convert_state_dict(model, load_state_dict(str(file), weights_only=True))
    resize_pos_embed(state, model)
    tower.load_state_dict(
        {
            name.removeprefix("visual."): value
            for name, value in state.items()
            if name.startswith("visual.")
        }
    )


def _fetched(
    name: str, download: Callable[[], Any], where: str, build: Callable[[], nn.Module]
) -> Any:
    """The file put into CACHE/weights by hand, or else what `download` gets from `where`; `build` tells its size."""
    files = [paths.CACHE / "weights" / f"{name.replace(':', '_')}{suffix}" for suffix in SUFFIXES]
    if at_hand := next(filter(Path.is_file, files), None):
        return at_hand
    if not where:
        raise ValueError(
            f"encoder: timm has no weights for {name}; use timm:{name.partition('.')[0]}:none, or a name "
            "of timm.list_pretrained()"
        )
    try:
        return download()
    except Exception as error:
        with torch.device("meta"):
            size = sum(parameter.numel() for parameter in build().parameters()) * 4
        told = f"{size / 1e9:.1f} GB" if size > 1e9 else f"{size / 1e6:.0f} MB"
        raise FileNotFoundError(
            f"encoder: the weights {name} are not here and cannot be fetched ({type(error).__name__}); get the weight "
            f"file, {told} in fp32, from {where} and put it at {files[0]} (or .bin, .pth, .pt, as it is)"
        ) from None


def checkpoint(arch: str, tag: str) -> Path:
    """The file of a checkpoint that open_clip has by name."""
    import open_clip
    from open_clip.pretrained import download_pretrained

    facts = open_clip.get_pretrained_cfg(arch, tag)
    hub = facts.get("hf_hub", "").strip("/")
    return _fetched(
        f"{arch}:{tag}",
        lambda: Path(download_pretrained(facts)),
        f"https://huggingface.co/{hub}" if hub else facts.get("url", "its publisher"),
        lambda: open_clip.create_model(arch, device="meta", pretrained_text=False),
    )


def of_timm(text: str) -> Source:
    """NAME, NAME.TAG (a name without tag has timm's default weights), or NAME:none: pooled by the network itself."""
    import timm
    from timm.models import get_pretrained_cfg

    name, colon, none = text.partition(":")
    if colon and none != "none":
        raise ValueError(
            f"encoder: after timm:NAME: only `none` is accepted, random weights, got {none!r}; timm's "
            "tags follow a dot, as in timm:resnext101_32x8d.fb_wsl_ig1b_ft_in1k"
        )
    try:
        facts = get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError:  # the network is known, the tag is not
        facts = None
    if facts is None or not facts.architecture:
        near = difflib.get_close_matches(name, [*timm.list_pretrained(), *timm.list_models()], 3)
        raise ValueError(
            f"encoder: timm has no model {name!r}; accepted are the names of timm.list_models(), such as "
            f"{', '.join(near or ['resnext101_32x8d.fb_wsl_ig1b_ft_in1k'])}, each also as timm:NAME:none"
        )
    whole = f"{facts.architecture}.{facts.tag}" if facts.tag else facts.architecture
    arguments = {"model_name": facts.architecture}
    with torch.device("meta"):
        config = {"embed_dim": towers.TimmTower(arguments).dim, "timm": arguments}
    made = Source(whole, config, _preprocess(facts.input_size[-1], vars(facts)))
    where = f"https://huggingface.co/{facts.hf_hub_id}" if facts.hf_hub_id else facts.url
    classifier = (
        (facts.classifier,) if isinstance(facts.classifier, str) else facts.classifier or ()
    )
    return (
        made
        if colon
        else replace(
            made,
            fill=partial(fill_timm, tuple(f"{part}." for part in classifier)),
            fetch=lambda: _fetched(
                whole,
                lambda: timm.create_model(whole, pretrained=True, num_classes=0).state_dict(),
                where,
                lambda: timm.create_model(facts.architecture),
            ),
        )
    )


def fill_timm(classifier: str | tuple[str, ...], tower: nn.Module, found: Any) -> None:
    """From a file or a state dict, without the classifier: what names of its weights begin with."""
    from timm.models import load_state_dict

    state = load_state_dict(str(found), weights_only=True) if isinstance(found, Path) else found
    tower.trunk.load_state_dict(
        {key: value for key, value in state.items() if not key.startswith(classifier)}
    )
