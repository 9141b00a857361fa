"""What all contenders start from: one tower in a folder, as klip reads it and as open_clip does.

TOWER is klip's file, in a folder of its own, lest open_clip take it for its checkpoint.
With open_clip's config and weights the folder is a `local-dir:FOLDER` of open_clip, and
with NETWORK a network of timm.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from open_clip.model import CLIP
from safetensors import safe_open

from klip.model import encoder as encoders, hub, weights
from klip.model.device import default_device, resolve_precision
from klip.model.encoder import Encoder
from klip.settings.files import write_json, write_tensors

TOWER, NETWORK = "klip/tower.safetensors", "timm.json"
NO_TEXT = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
"""A text tower as small as it can be: open_clip wants one, and nobody asks it."""


def write(model: str, folder: Path) -> Path:
    """Put the tower of an encoder (`weights.FORMS`; ARCH:none: random weights) into a folder,
    for all contenders.  ValueError: an embedding that is not the plain tower's."""
    encoder = encoders.load(model)
    if encoder.config.get("proj") == "drop" or encoder.config.get("also"):
        raise ValueError(
            f"contest: {model} has no projection, or sees two sizes, which peers cannot load; "
            "take another model"
        )
    folder.mkdir(parents=True, exist_ok=True)
    weights.save(encoder, folder / TOWER)
    with safe_open(folder / TOWER, "pt") as file:
        facts = file.metadata()
    if "open_clip" in facts:
        _for_open_clip(encoder, folder, how=json.loads(facts["open_clip"])["preprocess"])
    network = _network(encoder.config)
    if network:
        write_json(folder / NETWORK, network | {"preprocess": encoder.preprocess.to_dict()})
    return folder


def how(model: str, *, trained: bool) -> dict[str, str]:
    """device and precision, as klip chooses them for a model that is trained or not."""
    encoder = encoders.load(model)
    tower, device = encoder.tower if trained else None, default_device()
    precision = resolve_precision("auto", device, trained=tower)
    return {"device": device, "precision": precision}


def _for_open_clip(encoder: Encoder, folder: Path, *, how: dict[str, Any]) -> None:
    """Config and weights under open_clip's names; `how` images are prepared, in its words."""
    config = {name: encoder.config[name] for name in ("embed_dim", "vision_cfg")}
    config |= {"text_cfg": NO_TEXT, "quick_gelu": bool(encoder.config.get("quick_gelu"))}
    if encoder.config.get("pixels"):
        config["vision_cfg"] = {**config["vision_cfg"], "image_size": encoder.config["pixels"]}
    write_json(folder / hub.CONFIG, {"model_cfg": config, "preprocess_cfg": how})
    model = CLIP(**config)
    model.visual.load_state_dict(encoder.tower.state_dict())
    write_tensors(folder / "open_clip_model.safetensors", model.state_dict())


def _network(config: dict[str, Any]) -> dict[str, Any] | None:
    """What timm's create_model is given for a tower that is a network of timm and no more."""
    if "timm" in config:
        return None if config.get("lca") else dict(config["timm"])
    vision = config["vision_cfg"]
    if "timm_model_name" not in vision or vision.get("timm_proj") != "none":
        return None
    return {"model_name": vision["timm_model_name"], "global_pool": vision.get("timm_pool", "avg")}
