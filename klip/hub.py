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
from torch import Tensor, nn

from klip import paths, towers
from klip.augment import Preprocess
from klip.config import Interpolation

SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
"""What weights put into the cache by hand may be called: NAME and one of these."""
CONFIG = "open_clip_config.json"


@dataclass(frozen=True)
class Source:
    """What `encoder.build` wants; `fetch` finds the weights (a file or tensors), `fill` gives them to a tower.

    Without the two they stay random.
    """

    arch: str
    config: dict[str, Any]
    preprocess: Preprocess
    fetch: Callable[[], Any] | None = None
    fill: Callable[[nn.Module, Any], None] | None = None


def known(arch: str) -> dict[str, Any]:
    """open_clip's config of an architecture, klip's own small ones among them."""
    import open_clip

    if "nanoclip" not in open_clip.list_models():
        open_clip.add_model_config(paths.WEIGHTS)
    if arch not in (models := open_clip.list_models()):
        close = difflib.get_close_matches(arch, models, n=3) or ["ViT-L-14", "ViT-B-32"]
        raise ValueError(f"encoder: open_clip has no architecture {arch!r}; accepted: {', '.join(close)} ...")
    return open_clip.get_model_config(arch)


def _preprocess(size: int | list[int], facts: dict[str, Any]) -> Preprocess:
    """As that very checkpoint wants it: laion2b_s32b_b82k has mean = std = 0.5.  What is not said is OpenAI's."""
    import open_clip

    how = facts.get("interpolation")
    return Preprocess(size if isinstance(size, int) else size[0],
                      tuple(facts.get("mean") or open_clip.OPENAI_DATASET_MEAN),
                      tuple(facts.get("std") or open_clip.OPENAI_DATASET_STD),
                      interpolation=how if how in get_args(Interpolation) else "bicubic")


def of_open_clip(arch: str, tag: str) -> Source:
    """ARCH:TAG, ARCH:none or ARCH:FILE.  A file says nothing of its preprocessing: the one that all published weights
    of ARCH share is taken, or else open_clip's default."""
    import open_clip

    config, tags = known(arch), open_clip.list_pretrained_tags_by_model(arch)
    facts = open_clip.get_pretrained_cfg(arch, tag)
    is_file = not facts and (Path(tag).suffix in SUFFIXES or Path(tag).is_file())
    if is_file and not Path(tag).is_file():
        raise FileNotFoundError(f"encoder: checkpoint {tag} of {arch} is missing; accepted is a .safetensors or .pt "
                                f"file of open_clip, or a tag: {', '.join([*tags, 'none'])}")
    if is_file:
        published = [_preprocess(1, open_clip.get_pretrained_cfg(arch, other)) for other in tags]
        one = published[0] if len(set(published)) == 1 else _preprocess(1, {})
        facts = {"mean": one.mean, "std": one.std, "interpolation": one.interpolation}
    elif tag != "none" and not facts:
        raise ValueError(f"encoder: open_clip has no weights {tag!r} for {arch}; accepted: "
                         f"{', '.join([*tags, 'none'])}")
    config["quick_gelu"] = bool(config.get("quick_gelu") or facts.get("quick_gelu"))
    made = Source(arch, config, _preprocess(config["vision_cfg"]["image_size"], facts))
    return made if tag == "none" else replace(
        made, fetch=lambda: Path(tag) if is_file else checkpoint(arch, tag), fill=partial(_fill_open_clip, arch))


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
                f"and the weights from https://huggingface.co/{place} into a folder, take local-dir:FOLDER") from None

    def weights() -> Path:
        found = at_hub() if scheme == "hf-hub" else _find_checkpoint_in_dir(Path(place))
        if not found:
            raise FileNotFoundError(f"encoder: {place} holds {CONFIG} and no weights; accepted beside it is "
                                    "open_clip_model.safetensors (or .bin, .pth)")
        return Path(found)

    file = at_hub(filename=CONFIG) if scheme == "hf-hub" else Path(place) / CONFIG
    if not file.is_file():
        raise FileNotFoundError(f"encoder: {file} is missing; local-dir:FOLDER takes a folder with {CONFIG} and "
                                "weights beside it, as open_clip publishes them")
    arch = f"{scheme}:{place}"
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        config = {"quick_gelu": False, **facts["model_cfg"]}
        with torch.device("meta"):
            towers.build(config)
        preprocess = _preprocess(config["vision_cfg"].get("image_size", 224), facts.get("preprocess_cfg", {}))
    except Exception as error:
        raise ValueError(f"encoder: {file} is no config of open_clip that can be built ({type(error).__name__}: "
                         f"{_last_line(error)}); accepted is one with model_cfg and preprocess_cfg") from None
    return Source(arch, config, preprocess, weights, partial(_fill_open_clip, arch))


def _last_line(error: Exception) -> str:
    return (str(error).strip() or "no reason given").splitlines()[-1].strip()


def _fill_open_clip(arch: str, tower: nn.Module, file: Path) -> None:
    """The image tower of a whole model; open_clip converts the names and position tables of many publishers."""
    from open_clip.convert import convert_state_dict
    from open_clip.factory import load_state_dict
    from open_clip.model import resize_pos_embed

    try:
        model = SimpleNamespace(visual=tower)
        state = convert_state_dict(model, load_state_dict(str(file), weights_only=True))
        resize_pos_embed(state, model)
        tower.load_state_dict({name.removeprefix("visual."): value for name, value in state.items()
                               if name.startswith("visual.")})
    except Exception as error:
        raise ValueError(f"encoder: {file} is damaged, or a checkpoint of another architecture than {arch} "
                         f"({type(error).__name__}: {_last_line(error)})") from None


def checkpoint(arch: str, tag: str) -> Path:
    """The file of a named checkpoint: put into CACHE/weights by hand, or else downloaded by open_clip."""
    import open_clip
    from open_clip.pretrained import download_pretrained

    folder, facts = paths.CACHE / "weights", open_clip.get_pretrained_cfg(arch, tag)
    if at_hand := sorted(folder.glob(f"{arch}_{tag}.*")):
        return at_hand[0]
    try:
        return Path(download_pretrained(facts))
    except Exception as error:
        hub = facts.get("hf_hub", "").strip("/")
        where = f"https://huggingface.co/{hub}" if hub else facts.get("url")
        with torch.device("meta"):
            model = open_clip.create_model(arch, device="meta", pretrained_text=False)
        size = sum(parameter.numel() for parameter in model.parameters()) * 4 / 1e9
        raise FileNotFoundError(
            f"encoder: the weights {arch}:{tag} are not here and cannot be fetched ({type(error).__name__}); "
            f"get the weight file, {size:.1f} GB in fp32, from {where} and put it at "
            f"{folder / f'{arch}_{tag}.safetensors'} (or .bin, .pt, as it is)") from None


def of_timm(text: str) -> Source:
    """NAME, NAME.TAG (a name without tag has timm's default weights), or NAME:none: pooled by the network itself."""
    import timm
    from timm.models import get_pretrained_cfg

    name, colon, none = text.partition(":")
    if colon and none != "none":
        raise ValueError(f"encoder: after timm:NAME: only `none` is accepted, random weights, got {none!r}; timm's "
                         "tags follow a dot, as in timm:resnext101_32x8d.fb_wsl_ig1b_ft_in1k")
    try:
        facts = get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError:  # the network is known, the tag is not
        facts = None
    if facts is None or not facts.architecture:
        near = difflib.get_close_matches(name, [*timm.list_pretrained(), *timm.list_models()], 3)
        raise ValueError(f"encoder: timm has no model {name!r}; accepted are the names of timm.list_models(), such as "
                         f"{', '.join(near or ['resnext101_32x8d.fb_wsl_ig1b_ft_in1k'])}, each also as timm:NAME:none")
    whole = f"{facts.architecture}.{facts.tag}" if facts.tag else facts.architecture
    arguments = {"model_name": facts.architecture}
    with torch.device("meta"):
        config = {"embed_dim": towers.TimmTower(arguments).dim, "timm": arguments}
    preprocess = _preprocess(facts.input_size[-1], vars(facts))
    made = Source(whole, config, preprocess)
    return made if colon else replace(
        made, fetch=lambda: _fetch_timm(whole, facts), fill=partial(_fill_timm, facts))


def _fetch_timm(name: str, facts: Any) -> Path | dict[str, Tensor]:
    """The file put into CACHE/weights by hand, or else the tensors that timm downloads."""
    import timm

    folder = paths.CACHE / "weights"
    at_hand = [file for suffix in SUFFIXES if (file := folder / f"{name}{suffix}").is_file()]
    if not (at_hand or facts.hf_hub_id or facts.url):
        raise ValueError(f"encoder: timm has no weights for {name}; use timm:{facts.architecture}:none, or a name of "
                         "timm.list_pretrained()")
    if at_hand:
        return at_hand[0]
    try:
        return timm.create_model(name, pretrained=True, num_classes=0).state_dict()
    except Exception as error:
        where = f"https://huggingface.co/{facts.hf_hub_id}" if facts.hf_hub_id else facts.url
        with torch.device("meta"):
            size = sum(p.numel() for p in timm.create_model(facts.architecture).parameters()) * 4 / 1e6
        raise FileNotFoundError(
            f"encoder: the weights {name} are not here and cannot be fetched ({type(error).__name__}); get the "
            f"weight file, {size:.0f} MB in fp32, from {where} and put it at {folder / f'{name}{SUFFIXES[0]}'} "
            "(or .bin, .pth, .pt, as it is)") from None


def _fill_timm(facts: Any, tower: nn.Module, found: Path | dict[str, Tensor]) -> None:
    """A file may hold a classifier, which is left out."""
    from timm.models import load_state_dict

    try:
        state = load_state_dict(str(found), weights_only=True) if isinstance(found, Path) else found
        named = [facts.classifier] if isinstance(facts.classifier, str) else facts.classifier or ()
        classifier = tuple(f"{part}." for part in named)
        tower.trunk.load_state_dict({key: value for key, value in state.items() if not key.startswith(classifier)})
    except Exception as error:
        what = found if isinstance(found, Path) else "what timm fetched"
        raise ValueError(f"encoder: {what} is damaged, or a checkpoint of another architecture than "
                         f"{facts.architecture} ({type(error).__name__}: {_last_line(error)})") from None
