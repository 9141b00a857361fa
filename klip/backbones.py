"""Convolutional backbones of the baselines (paper, Tables 1 and 2): timm networks with their weights, as encoders.

The paper's are `resnext101_32x8d.fb_wsl_ig1b_ft_in1k` and, semi-supervised, its siblings `fb_swsl_ig1b_ft_in1k` and
`fb_ssl_yfcc100m_ft_in1k`; in profile `nano` the shipped `nano-resnext` stands for them, see klip.tags.
Axes: B images, S pixels a side, C channels of the last map, h, w its sides.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from klip import encoder, paths
from klip.augment import Preprocess
from klip.encoder import Encoder

if TYPE_CHECKING:
    from timm.models import PretrainedCfg

SHIPPED = {"nano-resnext": "nanoresnext"}
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
"""What weights put into the cache by hand may be called: NAME and one of these."""


def load(name: str, resize: str | None = None) -> Encoder:
    """The backbone `nano-resnext`, or of a timm name, in eval mode and fp32; NAME:none has random weights of seed 0.

    `encoder(images)` is (B, C), averaged over the last map; `encoder.tower.trunk.forward_features(images)` is that
    map, (B, C, h, w).  Size, mean and deviation are those of the weights; resize replaces the policy, which is
    squash.  FileNotFoundError: weights missing and not to be had; ValueError: everything else.
    """
    base, colon, tag = str(name).partition(":")
    if colon and tag != "none":
        raise ValueError(f"backbones: after a colon only `none` is accepted, random weights, got {name!r}; timm's tags "
                         "follow a dot, as in resnext101_32x8d.fb_wsl_ig1b_ft_in1k")
    if base in SHIPPED:
        found = build(SHIPPED[base]) if tag else _shipped(SHIPPED[base], base)
    else:
        found = _of_timm(base, random=bool(tag))
    found.name = str(name)
    if resize:
        found.preprocess = Preprocess.from_dict({**found.preprocess.to_dict(), "resize": resize})
    return found


def build(arch: str, seed: int = 0) -> Encoder:
    """The network of `klip/weights/<arch>.json`, arguments of `timm.create_model`, with random weights."""
    facts = json.loads((paths.WEIGHTS / f"{arch}.json").read_text())
    preprocess = Preprocess.from_dict(facts.pop("preprocess"))
    return encoder.build(facts, preprocess, f"{arch}:none", arch, seed)


def _shipped(arch: str, name: str) -> Encoder:
    file = paths.WEIGHTS / f"{arch}.safetensors"
    if not file.is_file():
        raise FileNotFoundError(f"backbones: weights {file} of {name} are missing; notebook A_nano_backbone makes "
                                f"them: run it by papermill with `-p arch {arch} -p ship True`")
    return encoder.load(file)


def _of_timm(name: str, random: bool) -> Encoder:
    import timm

    facts = _facts(name)
    whole = f"{facts.architecture}.{facts.tag}" if facts.tag else facts.architecture
    with torch.device("meta"):
        channels = timm.create_model(facts.architecture, num_classes=0).num_features
    config = {"embed_dim": channels, "timm": {"model_name": facts.architecture}}
    found = encoder.build(config, Preprocess(facts.input_size[-1], facts.mean, facts.std), whole, whole)
    if not random:
        _fill(found.tower.trunk, whole, facts)
    return found


def _facts(name: str) -> PretrainedCfg:
    """What timm knows of NAME or NAME.TAG; a name without tag has timm's default weights."""
    import timm
    from timm.models import get_pretrained_cfg

    try:
        facts = get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError:  # the network is known, the tag is not
        facts = None
    if facts is None or not facts.architecture:
        known = [*timm.list_pretrained(), *timm.list_models()]
        near = difflib.get_close_matches(name, known, 3) or ["resnext101_32x8d.fb_wsl_ig1b_ft_in1k"]
        raise ValueError(f"backbones: timm has no model {name!r}; accepted are {', '.join(SHIPPED)} and timm's names, "
                         f"such as {', '.join(near)}, each also as NAME:none")
    return facts


def _fill(trunk: torch.nn.Module, name: str, facts: PretrainedCfg) -> None:
    """Give a network its weights: from the file put into CACHE/weights by hand, or else downloaded by timm."""
    import timm
    from timm.models import load_state_dict

    folder = paths.CACHE / "weights"
    at_hand = [file for suffix in SUFFIXES if (file := folder / f"{name}{suffix}").is_file()]
    if not (at_hand or facts.hf_hub_id or facts.url):
        raise ValueError(f"backbones: timm has no weights for {name}; use {facts.architecture}:none, or a name of "
                         "timm.list_pretrained()")
    if not at_hand:
        try:
            trunk.load_state_dict(timm.create_model(name, pretrained=True, num_classes=0).state_dict())
        except Exception as error:
            raise FileNotFoundError(_wanted(name, facts, folder, error)) from None
        return
    try:
        state = load_state_dict(str(at_hand[0]))
        classifier = tuple(f"{part}." for part in ([facts.classifier] if isinstance(facts.classifier, str)
                                                   else facts.classifier or ()))
        trunk.load_state_dict({key: value for key, value in state.items() if not key.startswith(classifier)})
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[-1].strip()}"
        raise ValueError(f"backbones: {at_hand[0]} is damaged, or a checkpoint of another architecture than "
                         f"{facts.architecture} ({reason})") from None


def _wanted(name: str, facts: PretrainedCfg, folder: Path, error: Exception) -> str:
    """Which file is needed, how large it is, where it is to be had and where it belongs."""
    import timm

    source = f"https://huggingface.co/{facts.hf_hub_id}" if facts.hf_hub_id else facts.url
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in timm.create_model(facts.architecture).parameters()) * 4 / 1e6
    return (f"backbones: the weights {name} are not here and cannot be fetched ({type(error).__name__}); get the "
            f"weight file, {size:.0f} MB in fp32, from {source} and put it at {folder / f'{name}{SUFFIXES[0]}'} "
            "(or .bin, .pth, .pt, as it is)")
