"""Encoders that others publish: open_clip's and timm's, by name or from files.

Files are read as tensors only: code that a pickled checkpoint carries is never run.
"""

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import open_clip
import timm
import torch
from open_clip.convert import convert_state_dict
from open_clip.factory import _find_checkpoint_in_dir
from open_clip.model import resize_pos_embed
from torch import Tensor, nn

from klip.model import towers
from klip.model.augment import Preprocess
from klip.settings import paths
from klip.settings.config import Interpolation

SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
"""What weights put into the cache by hand may be called: NAME and one of these."""
CONFIG = "open_clip_config.json"
Weights = Path | dict[str, Tensor]


@dataclass(frozen=True)
class Source:
    """What `encoder.build` wants; `fetch` finds the weights, None: random ones."""

    arch: str
    config: dict[str, Any]
    preprocess: Preprocess
    fetch: Callable[[], Weights] | None = None

    def fill(self, tower: nn.Module, found: Weights) -> None:
        """Put what `fetch` found into a tower; ValueError: it does not fit, or is damaged."""
        model = SimpleNamespace(visual=tower)
        try:
            state = found
            if isinstance(found, Path):  # trained by several processes, compiled: its names too
                state = timm.models.load_state_dict(str(found), weights_only=True)
            # open_clip converts the names and position tables of many publishers
            state = convert_state_dict(model, state)
            resize_pos_embed(state, model)
            own = [name for name in state if name.startswith("visual.")]
            if isinstance(tower, towers.TimmTower) and not own:
                fill_trunk(tower.trunk, state)
            else:
                tower.load_state_dict({name.removeprefix("visual."): state[name] for name in own})
        except Exception as error:
            what = found if isinstance(found, Path) else "what was fetched"
            raise ValueError(
                f"encoder: {what} is damaged, or a checkpoint of another architecture than "
                f"{self.arch} ({_reason(error)})"
            ) from None


def fill_trunk(trunk: nn.Module, state: dict[str, Tensor]) -> None:
    """Put weights of timm into its network, without those of the classifier."""
    layers = trunk.pretrained_cfg["classifier"] or ()
    layers = (layers,) if isinstance(layers, str) else layers
    dropped = tuple(f"{layer}." for layer in layers)
    trunk.load_state_dict({k: v for k, v in state.items() if not k.startswith(dropped)})


def _reason(error: Exception) -> str:
    """The last line of an error, its start: torch names every missing tensor."""
    last = (str(error).strip() or "no reason given").splitlines()[-1].strip()
    return f"{type(error).__name__}: {last if len(last) <= 200 else last[:197] + '...'}"


def known(arch: str) -> dict[str, Any]:
    """open_clip's config of an architecture, klip's own small ones among them."""
    if "nanoclip" not in open_clip.list_models():
        open_clip.add_model_config(paths.WEIGHTS)
    models = open_clip.list_models()
    if arch not in models:
        near = ", ".join(difflib.get_close_matches(arch, models) or ["ViT-L-14", "ViT-B-32"])
        raise ValueError(f"encoder: open_clip has no architecture {arch!r}; accepted: {near} ...")
    return open_clip.get_model_config(arch)


def _preprocess(size: int | list[int], facts: dict[str, Any]) -> Preprocess:
    """As that very checkpoint wants it: laion2b_s32b_b82k has mean = std = 0.5.  What
    is not said is OpenAI's."""
    mean = facts.get("mean") or open_clip.OPENAI_DATASET_MEAN
    std = facts.get("std") or open_clip.OPENAI_DATASET_STD
    how = facts.get("interpolation")
    how = how if how in get_args(Interpolation) else "bicubic"
    side = size if isinstance(size, int) else size[0]
    return Preprocess(size=side, mean=mean, std=std, interpolation=how)


def of_open_clip(arch: str, tag: str) -> Source:
    """ARCH:TAG, ARCH:none or ARCH:FILE.  A file tells no preprocessing: the one that all
    published weights of ARCH share is taken, or else open_clip's default."""
    config, facts = known(arch), open_clip.get_pretrained_cfg(arch, tag)
    tags = open_clip.list_pretrained_tags_by_model(arch)
    accepted, fetch = ", ".join([*tags, "none"]), None
    if facts:
        fetch = partial(checkpoint, arch, tag)
    elif Path(tag).is_file():
        fetch = partial(Path, tag)
        published = {_preprocess(1, open_clip.get_pretrained_cfg(arch, other)) for other in tags}
        facts = published.pop().model_dump() if len(published) == 1 else {}
    elif Path(tag).suffix in SUFFIXES:
        raise FileNotFoundError(
            f"encoder: checkpoint {tag} of {arch} is missing; accepted is a .safetensors or "
            f".pt file of open_clip, or a tag: {accepted}"
        )
    elif tag != "none":
        wrong = f"encoder: open_clip has no weights {tag!r} for {arch}"
        raise ValueError(f"{wrong}; accepted: {accepted}")
    config["quick_gelu"] = bool(config.get("quick_gelu") or facts.get("quick_gelu"))
    return Source(arch, config, _preprocess(config["vision_cfg"]["image_size"], facts), fetch)


def of_schema(scheme: str, place: str) -> Source:
    """hf-hub:ORG/NAME and local-dir:FOLDER, as open_clip publishes models: a config and
    the weights beside it."""
    if scheme == "hf-hub":
        file, fetch = _at_hub(place, filename=CONFIG), partial(_at_hub, place)
    else:
        file, weights = Path(place) / CONFIG, _find_checkpoint_in_dir(Path(place))
        fetch = partial(Path, weights)
        if not (file.is_file() and weights):
            raise FileNotFoundError(
                f"encoder: {place} lacks {CONFIG} or weights; local-dir:FOLDER takes both, as "
                "open_clip publishes them (open_clip_model.safetensors, or .bin, .pth)"
            )
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        config = {"quick_gelu": False, **facts["model_cfg"]}
        with torch.device("meta"):
            towers.build(config)
        size = config["vision_cfg"].get("image_size", 224)
        preprocess = _preprocess(size, facts.get("preprocess_cfg", {}))
    except Exception as error:
        raise ValueError(
            f"encoder: {file} is no config of open_clip that can be built ({_reason(error)}); "
            "accepted is one with model_cfg and preprocess_cfg"
        ) from None
    return Source(f"{scheme}:{place}", config, preprocess, fetch)


def _at_hub(place: str, **which: str) -> Path:
    try:
        return Path(open_clip.pretrained.download_pretrained_from_hf(place, **which))
    except Exception as error:
        raise FileNotFoundError(
            f"encoder: hf-hub:{place} is not here and cannot be fetched "
            f"({type(error).__name__}); get {CONFIG} and the weights from "
            f"https://huggingface.co/{place} into a folder, take local-dir:FOLDER"
        ) from None


def _fetched(name: str, where: str, *, download: Callable[[], Weights]) -> Weights:
    """The file put into CACHE/weights by hand, or else what `download` gets from `where`."""
    files = [paths.CACHE / "weights" / f"{name.replace(':', '_')}{suffix}" for suffix in SUFFIXES]
    for file in files:
        if file.is_file():
            return file
    if not where:
        raise ValueError(
            f"encoder: timm has no weights for {name}; use timm:{name.partition('.')[0]}:none, "
            "or a name of timm.list_pretrained()"
        )
    try:
        return download()
    except Exception as error:
        raise FileNotFoundError(
            f"encoder: the weights {name} are not here and cannot be fetched "
            f"({type(error).__name__}); get the weight file from {where} and put it at "
            f"{files[0]} (or .bin, .pth, .pt, as it is)"
        ) from None


def checkpoint(arch: str, tag: str) -> Path:
    """The file of a checkpoint that open_clip has by name."""
    facts = open_clip.get_pretrained_cfg(arch, tag)
    place = facts.get("hf_hub", "").strip("/")
    where = f"https://huggingface.co/{place}" if place else facts.get("url", "its publisher")
    download = partial(open_clip.pretrained.download_pretrained, facts)
    return _fetched(f"{arch}:{tag}", where, download=lambda: Path(download()))


def of_timm(text: str) -> Source:
    """NAME, NAME.TAG (without tag: timm's default), or NAME:none; pooled by the network."""
    name, colon, none = text.partition(":")
    if colon and none != "none":
        raise ValueError(
            "encoder: after timm:NAME: only `none` is accepted, random weights, got "
            f"{none!r}; timm's tags follow a dot, as in timm:resnext101_32x8d.fb_wsl_ig1b_ft_in1k"
        )
    try:
        facts = timm.models.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:  # the network, or the tag of a network, is not known
        names = [*timm.list_pretrained(), *timm.list_models()]
        near = difflib.get_close_matches(name, names) or ["resnext101_32x8d.fb_wsl_ig1b_ft_in1k"]
        raise ValueError(
            f"encoder: timm has no model {name!r}; accepted are the names of timm.list_models(), "
            f"such as {', '.join(near)}, each also as timm:NAME:none"
        ) from None
    whole = f"{facts.architecture}.{facts.tag}" if facts.tag else facts.architecture
    arguments = {"model_name": facts.architecture}
    with torch.device("meta"):
        config = {"embed_dim": towers.TimmTower(arguments).dim, "timm": arguments}
    preprocess = _preprocess(facts.input_size[-1], vars(facts))
    if colon:
        return Source(whole, config, preprocess)
    where = f"https://huggingface.co/{facts.hf_hub_id}" if facts.hf_hub_id else facts.url
    network = partial(timm.create_model, whole, pretrained=True, num_classes=0)
    fetch = partial(_fetched, whole, where, download=lambda: network().state_dict())
    return Source(whole, config, preprocess, fetch)
