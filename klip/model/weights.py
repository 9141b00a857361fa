"""The names of encoders, and klip's own weight files.  A name is a `hub.Source`: what to build and how to fill it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from klip.model import hub, imagenet
from klip.model.augment import Preprocess
from klip.model.hub import Source
from klip.settings import paths
from klip.settings.files import write_tensors

SHIPPED = {"nano": "nanoclip", "nano-vit": "nanovit"}
NAMES = (*SHIPPED, "imagenet")
"""What needs nothing but klip and its pins."""
FORMS = (
    "nano, nano-vit, imagenet, a .safetensors file of klip, timm:NAME, and of open_clip ARCH:TAG, ARCH:FILE, "
    "hf-hub:ORG/NAME, local-dir:FOLDER (ARCH:none, timm:NAME:none: random weights)"
)


def source(model: str) -> Source:
    """The source of an encoder called by one of FORMS; its weights are not read yet.  FileNotFoundError: a file is
    missing and not to be had; ValueError: everything else."""
    scheme, _, rest = model.partition(":")
    file = paths.WEIGHTS / f"{SHIPPED[model]}.safetensors" if model in SHIPPED else Path(model)
    if file.is_file():
        return _of_klip(file)
    if model in SHIPPED:
        raise FileNotFoundError(
            f"encoder: weights {file} of {model} are missing; notebook A_nano_backbone "
            "makes them: run `klip reproduce --appendix`"
        )
    if model == "imagenet":
        # Lite0's pooled 1,280 features; normalised by a half, 224 pixels, as it was trained
        config = {"embed_dim": 1280, "timm": {"model_name": imagenet.ARCH}}
        return Source(
            imagenet.ARCH,
            config,
            Preprocess(224, (0.5,) * 3, (0.5,) * 3),
            imagenet.state_dict,
            partial(hub.fill_timm, imagenet.CLASSIFIER),
        )
    if scheme == "timm":
        return hub.of_timm(rest)
    if scheme in ("hf-hub", "local-dir"):
        return hub.of_schema(scheme, rest)
    if rest:
        return hub.of_open_clip(scheme, rest)
    if file.suffix == ".safetensors":
        raise FileNotFoundError(
            f"encoder: {file} is missing; `klip finetune` and notebook 03 write such"
        )
    raise ValueError(f"encoder: unknown model {model!r}; accepted are {FORMS}")


def _of_klip(path: Path) -> Source:
    """Tensors `visual.*` of any float type; metadata arch, preprocess, config (if shipped: a JSON of open_clip)."""
    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            names = [name for name in file.keys() if name.startswith("visual.")]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"encoder: {path} is damaged, half-written or no safetensors file ({error}); "
            "make or fetch it again"
        ) from None
    if not names or "preprocess" not in facts:
        raise ValueError(
            f"encoder: {path} holds no image tower with its preprocessing; klip.model.encoder.save "
            "writes both; a checkpoint of open_clip is called ARCH:FILE"
        )
    arch = facts.get("arch", path.stem)
    config = json.loads(facts["config"]) if "config" in facts else hub.known(arch)

    def fill(tower: nn.Module, path: Path) -> None:
        with safe_open(path, "pt") as file:
            tower.load_state_dict(
                {name.removeprefix("visual."): file.get_tensor(name) for name in names}
            )

    return Source(
        arch, config, Preprocess.from_dict(json.loads(facts["preprocess"])), lambda: path, fill
    )


def save(encoder: nn.Module, path: str | Path, **provenance: Any) -> Path:
    """Write an `Encoder`, atomically: tensors `visual.*`; metadata arch, config, preprocess, provenance and, for
    README's recipe for plain open_clip, `open_clip`: the arguments of its create_model and of its PreprocessCfg."""
    config, preprocess = encoder.config, encoder.preprocess
    facts = {
        "config": config,
        "preprocess": preprocess.to_dict(),
        "provenance": {"name": encoder.name, **provenance},
    }
    if "timm" not in config:
        modes = {"squash": "squash", "pad": "longest", "crop": "shortest"}
        facts["open_clip"] = {
            "model": {
                "model_name": encoder.arch,
                "force_quick_gelu": bool(config.get("quick_gelu")),
                "force_image_size": config.get("pixels"),
            },
            "preprocess": {
                "size": preprocess.size,
                "mean": preprocess.mean,
                "std": preprocess.std,
                "interpolation": preprocess.interpolation,
                "resize_mode": modes[preprocess.resize],
                "fill_color": preprocess.fill,
            },
        }
    texts = {"arch": encoder.arch} | {
        key: json.dumps(value, default=str) for key, value in facts.items()
    }
    write_tensors(
        Path(path),
        {f"visual.{name}": value for name, value in encoder.tower.state_dict().items()},
        texts,
    )
    return Path(path)
