"""The names of encoders, each of them a `hub.Source`, and klip's own weight files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from klip.model import hub, imagenet
from klip.model.augment import Preprocess
from klip.model.hub import Source
from klip.settings import paths
from klip.settings.files import write_tensors

SHIPPED = {"nano": "nanoclip", "nano-vit": "nanovit", "nano-tuned": "nanoclip-tuned"}
"""Name -> file in klip/weights; nano-tuned is nano after notebook 03, its JSON says how."""
NAMES = (*SHIPPED, "imagenet")
"""What needs nothing but klip and its pins."""
FORMS = (
    "nano, nano-vit, nano-tuned, imagenet, a .safetensors file of klip, timm:NAME, and of "
    "open_clip ARCH:TAG, ARCH:FILE, hf-hub:ORG/NAME, local-dir:FOLDER (ARCH:none, "
    "timm:NAME:none: random weights)"
)


def source(model: str) -> Source:
    """The source of an encoder called by one of FORMS; its weights are not read yet.
    FileNotFoundError: a file is missing; ValueError: everything else."""
    scheme, _, rest = model.partition(":")
    file = paths.WEIGHTS / f"{SHIPPED[model]}.safetensors" if model in SHIPPED else Path(model)
    if file.is_file():
        return _of_klip(file)
    if model in SHIPPED:
        how = "notebook A_nano_backbone makes them: run `klip reproduce --appendix`"
        if model == "nano-tuned":
            how = f"{file.with_suffix('.json').name} beside them has the command that makes them"
        raise FileNotFoundError(f"encoder: weights {file} of {model} are missing; {how}")
    if model == "imagenet":
        timms = hub.of_timm(f"{imagenet.ARCH}:none")
        return replace(timms, arch=imagenet.ARCH, fetch=imagenet.state_dict)
    if scheme == "timm":
        return hub.of_timm(rest)
    if scheme in ("hf-hub", "local-dir"):
        return hub.of_schema(scheme, rest)
    if rest:
        return hub.of_open_clip(scheme, rest)
    if file.suffix == ".safetensors":
        wrote = "`klip finetune` and notebook 03 write such"
        raise FileNotFoundError(f"encoder: {file} is missing; {wrote}")
    raise ValueError(f"encoder: unknown model {model!r}; accepted are {FORMS}")


def _of_klip(path: Path) -> Source:
    """Tensors `visual.*` of any float type; metadata arch, preprocess and, but for
    shipped ones whose arch open_clip knows from a JSON beside them, config."""
    try:
        with safe_open(path, "pt") as file:
            facts, names = file.metadata() or {}, file.keys()
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"encoder: {path} is damaged, half-written or no safetensors file ({error}); "
            "make or fetch it again"
        ) from None
    if "preprocess" not in facts or not any(name.startswith("visual.") for name in names):
        raise ValueError(
            f"encoder: {path} holds no image tower with its preprocessing; klip.model.weights.save "
            "writes both; a checkpoint of open_clip is called ARCH:FILE"
        )
    arch = facts.get("arch", path.stem)
    config = json.loads(facts["config"]) if "config" in facts else hub.known(arch)
    preprocess = Preprocess(**json.loads(facts["preprocess"]))
    return Source(arch, config, preprocess, lambda: path)


def save(encoder: nn.Module, path: str | Path, *, half: bool = False, **provenance: Any) -> Path:
    """Write an `Encoder`, atomically: tensors `visual.*`; metadata arch, config,
    preprocess, provenance and, for the recipe of docs/use.md for plain open_clip, `open_clip`:
    the arguments of its create_model and of its PreprocessCfg.  half: in fp16, as those
    that klip ships; half the size, and `encoder.load` computes in fp32 all the same."""
    config, preprocess = encoder.config, encoder.preprocess
    provenance = {"name": encoder.name, **provenance}
    facts = {"config": config, "preprocess": preprocess.to_dict(), "provenance": provenance}
    if "timm" not in config:
        quick, modes = config.get("quick_gelu"), {"pad": "longest", "crop": "shortest"}
        model = {"model_name": encoder.arch, "force_quick_gelu": bool(quick)}
        model["force_image_size"] = config.get("pixels")
        how = {name: getattr(preprocess, name) for name in ("size", "mean", "std", "interpolation")}
        how["resize_mode"] = modes.get(preprocess.resize, preprocess.resize)
        how["fill_color"] = preprocess.fill
        facts["open_clip"] = {"model": model, "preprocess": how}
    texts = {name: json.dumps(value, default=str) for name, value in facts.items()}
    tensors = {f"visual.{name}": value for name, value in encoder.tower.state_dict().items()}
    write_tensors(Path(path), tensors, facts={"arch": encoder.arch, **texts}, half=half)
    return Path(path)
