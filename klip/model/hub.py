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
from open_clip.factory import _find_checkpoint_in_dir, load_state_dict
from open_clip.model import resize_pos_embed
from torch import Tensor, nn

from klip.model import towers
from klip.model.augment import Preprocess
from klip.settings import paths
from klip.settings.config import Interpolation

SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
"""What weights put into the cache by hand may be called: NAME and one of these."""
CONFIG = "open_clip_config.json"


@dataclass(frozen=True)
class Source:
    """What `encoder.build` wants; `fetch` finds the weights (a file or tensors), `fill`
    puts them into a tower; random weights need neither."""

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
                f"encoder: {what} is damaged, or a checkpoint of another architecture than "
                f"{self.arch} ({_reason(error)})"
            ) from None


def _reason(error: Exception) -> str:
    """The last line of an error, as far as one reads it: torch names every missing tensor."""
    last = (str(error).strip() or "no reason given").splitlines()[-1].strip()
    return f"{type(error).__name__}: {last if len(last) <= 200 else last[:197] + '...'}"


def known(arch: str) -> dict[str, Any]:
    """open_clip's config of an architecture, klip's own small ones among them."""
    if "nanoclip" not in open_clip.list_models():
        open_clip.add_model_config(paths.WEIGHTS)
    models = open_clip.list_models()
    if arch not in models:
        close = difflib.get_close_matches(arch, models, n=3) or ["ViT-L-14", "ViT-B-32"]
        raise ValueError(
            f"encoder: open_clip has no architecture {arch!r}; accepted: {', '.join(close)} ..."
        )
    return open_clip.get_model_config(arch)


def _preprocess(size: int | list[int], facts: dict[str, Any]) -> Preprocess:
    """As that very checkpoint wants it: laion2b_s32b_b82k has mean = std = 0.5.  What
    is not said is OpenAI's."""
    size = size if isinstance(size, int) else size[0]
    mean = tuple(facts.get("mean") or open_clip.OPENAI_DATASET_MEAN)
    std = tuple(facts.get("std") or open_clip.OPENAI_DATASET_STD)
    how = facts.get("interpolation")
    how = how if how in get_args(Interpolation) else "bicubic"
    return Preprocess(size, mean, std, interpolation=how)


def of_open_clip(arch: str, tag: str) -> Source:
    """ARCH:TAG, ARCH:none or ARCH:FILE.  A file tells no preprocessing: the one that all
    published weights of ARCH share is taken, or else open_clip's default."""
    config, facts = known(arch), open_clip.get_pretrained_cfg(arch, tag)
    tags = open_clip.list_pretrained_tags_by_model(arch)
    accepted = ", ".join([*tags, "none"])
    is_file = not facts and (Path(tag).suffix in SUFFIXES or Path(tag).is_file())
    if is_file:
        if not Path(tag).is_file():
            raise FileNotFoundError(
                f"encoder: checkpoint {tag} of {arch} is missing; accepted is a .safetensors or "
                f".pt file of open_clip, or a tag: {accepted}"
            )
        published = {_preprocess(1, open_clip.get_pretrained_cfg(arch, other)) for other in tags}
        facts = vars(published.pop()) if len(published) == 1 else {}
    elif tag != "none" and not facts:
        raise ValueError(
            f"encoder: open_clip has no weights {tag!r} for {arch}; accepted: {accepted}"
        )
    config["quick_gelu"] = bool(config.get("quick_gelu") or facts.get("quick_gelu"))
    preprocess = _preprocess(config["vision_cfg"]["image_size"], facts)
    if tag == "none":
        return Source(arch, config, preprocess)
    fetch = partial(Path, tag) if is_file else partial(checkpoint, arch, tag)
    return Source(arch, config, preprocess, fetch, _fill_open_clip)


def of_schema(scheme: str, place: str) -> Source:
    """hf-hub:ORG/NAME and local-dir:FOLDER, as open_clip publishes models: a config and
    the weights beside it."""
    if scheme == "hf-hub":
        file, fetch = _at_hub(place, filename=CONFIG), partial(_at_hub, place)
    else:
        file, fetch = Path(place) / CONFIG, partial(_in_folder, place)
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
        size = config["vision_cfg"].get("image_size", 224)
        preprocess = _preprocess(size, facts.get("preprocess_cfg", {}))
    except Exception as error:
        raise ValueError(
            f"encoder: {file} is no config of open_clip that can be built ({_reason(error)}); "
            "accepted is one with model_cfg and preprocess_cfg"
        ) from None
    return Source(f"{scheme}:{place}", config, preprocess, fetch, _fill_open_clip)


def _at_hub(place: str, **which: str) -> Path:
    try:
        return Path(open_clip.pretrained.download_pretrained_from_hf(place, **which))
    except Exception as error:
        raise FileNotFoundError(
            f"encoder: hf-hub:{place} is not here and cannot be fetched "
            f"({type(error).__name__}); get {CONFIG} and the weights from "
            f"https://huggingface.co/{place} into a folder, take local-dir:FOLDER"
        ) from None


def _in_folder(place: str) -> Path:
    found = _find_checkpoint_in_dir(Path(place))
    if not found:
        raise FileNotFoundError(
            f"encoder: {place} holds {CONFIG} and no weights; accepted beside it is "
            "open_clip_model.safetensors (or .bin, .pth)"
        )
    return Path(found)


def visual(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The image tower's weights among those of a whole model, by its own names for them."""
    own = [name for name in state if name.startswith("visual.")]
    return {name.removeprefix("visual."): state[name] for name in own}


def _fill_open_clip(tower: nn.Module, file: Path) -> None:
    """open_clip converts the names and position tables of many publishers."""
    model = SimpleNamespace(visual=tower)
    state = convert_state_dict(model, load_state_dict(str(file), weights_only=True))
    resize_pos_embed(state, model)
    tower.load_state_dict(visual(state))


def _fetched(
    name: str, download: Callable[[], Any], where: str, build: Callable[[], nn.Module]
) -> Any:
    """The file put into CACHE/weights by hand, or else what `download` gets from
    `where`; `build` tells its size."""
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
        with torch.device("meta"):
            size = sum(parameter.numel() for parameter in build().parameters()) * 4
        told = f"{size / 1e9:.1f} GB" if size > 1e9 else f"{size / 1e6:.0f} MB"
        raise FileNotFoundError(
            f"encoder: the weights {name} are not here and cannot be fetched "
            f"({type(error).__name__}); get the weight file, {told} in fp32, from {where} and put "
            f"it at {files[0]} (or .bin, .pth, .pt, as it is)"
        ) from None


def checkpoint(arch: str, tag: str) -> Path:
    """The file of a checkpoint that open_clip has by name."""
    facts = open_clip.get_pretrained_cfg(arch, tag)
    hub = facts.get("hf_hub", "").strip("/")
    return _fetched(
        f"{arch}:{tag}",
        lambda: Path(open_clip.pretrained.download_pretrained(facts)),
        f"https://huggingface.co/{hub}" if hub else facts.get("url", "its publisher"),
        lambda: open_clip.create_model(arch, device="meta", pretrained_text=False),
    )


def of_timm(text: str) -> Source:
    """NAME, NAME.TAG (without tag: timm's default), or NAME:none; pooled by the network."""
    name, colon, none = text.partition(":")
    if colon and none != "none":
        raise ValueError(
            "encoder: after timm:NAME: only `none` is accepted, random weights, got "
            f"{none!r}; timm's tags follow a dot, as in timm:resnext101_32x8d.fb_wsl_ig1b_ft_in1k"
        )
    try:
        facts = timm.models.get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError:  # the network is known, the tag is not
        facts = None
    if facts is None or not facts.architecture:
        near = difflib.get_close_matches(name, [*timm.list_pretrained(), *timm.list_models()], 3)
        near = ", ".join(near) or "resnext101_32x8d.fb_wsl_ig1b_ft_in1k"
        raise ValueError(
            f"encoder: timm has no model {name!r}; accepted are the names of timm.list_models(), "
            f"such as {near}, each also as timm:NAME:none"
        )
    network = facts.architecture
    whole = f"{network}.{facts.tag}" if facts.tag else network
    arguments = {"model_name": network}
    with torch.device("meta"):
        config = {"embed_dim": towers.TimmTower(arguments).dim, "timm": arguments}
    preprocess = _preprocess(facts.input_size[-1], vars(facts))
    if colon:
        return Source(whole, config, preprocess)
    layers = facts.classifier or ()
    layers = (layers,) if isinstance(layers, str) else layers
    fetch = partial(
        _fetched,
        whole,
        lambda: timm.create_model(whole, pretrained=True, num_classes=0).state_dict(),
        f"https://huggingface.co/{facts.hf_hub_id}" if facts.hf_hub_id else facts.url,
        lambda: timm.create_model(network),
    )
    fill = partial(fill_timm, tuple(f"{layer}." for layer in layers))
    return Source(whole, config, preprocess, fetch, fill)


def fill_timm(classifier: str | tuple[str, ...], tower: nn.Module, found: Any) -> None:
    """From a file or a state dict, without the classifier: what its weights' names begin with."""
    if isinstance(found, Path):
        found = timm.models.load_state_dict(str(found), weights_only=True)
    kept = {name: value for name, value in found.items() if not name.startswith(classifier)}
    tower.trunk.load_state_dict(kept)
