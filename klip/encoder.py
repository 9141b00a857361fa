"""Encoders: the image tower of an open_clip model with the preprocessing that belongs to its weights.

Axes: B images, S pixels a side, D numbers per embedding, N images, K views.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from klip import augment, data, imagenet, paths
from klip.augment import Preprocess
from klip.files import atomic
from klip.towers import TimmTower

SHIPPED = {"nano": "nanoclip", "nano-vit": "nanovit"}
FEW = 2000
"""Views below this number are made without worker processes: starting those would take longer."""
FORMS = "nano, nano-vit, imagenet, a .safetensors file of klip, or ARCH:TAG of open_clip (TAG none: random weights)"


class Encoder(nn.Module):
    """An image tower and its preprocessing; `forward` maps (B, 3, S, S) to (B, D), fp32, not of length 1.

    `name` is what the user asked for, `arch` and `config` the open_clip model it was built as.  Batch
    normalisation keeps the statistics of pre-training in either mode: a few products are no sample for new.
    """

    def __init__(self, tower: nn.Module, preprocess: Preprocess, name: str, arch: str, config: dict) -> None:
        super().__init__()
        self.convolutional = sum(isinstance(m, nn.Conv2d) for m in tower.modules()) > 1  # a ViT has one
        self.tower = tower.to(memory_format=torch.channels_last) if self.convolutional else tower
        self.preprocess, self.name, self.arch, self.config = preprocess, name, arch, config
        self.dim: int = config["embed_dim"]
        self._stages: list[str] = []
        self.eval()

    @property
    def device(self) -> torch.device:
        return next(self.tower.parameters()).device

    def train(self, mode: bool = True) -> Encoder:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def checkpointing(self, on: bool = True) -> None:
        """Keep only the activations between blocks for the backward pass: same gradients, less memory."""
        from open_clip.modified_resnet import ModifiedResNet

        if isinstance(self.tower, ModifiedResNet):  # its own switch does nothing in open_clip 3.3
            self._stages = ["stem", "layer1", "layer2", "layer3", "layer4"] if on else []
        else:
            self.tower.set_grad_checkpointing(on)

    def forward(self, images: Tensor) -> Tensor:
        if self.convolutional:
            images = images.contiguous(memory_format=torch.channels_last)  # twice as fast on a CPU
        if not (self._stages and self.training):
            return self.tower(images).float()
        for stage in self._stages:
            images = checkpoint(getattr(self.tower, stage), images, use_reentrant=False)
        return self.tower.attnpool(images).float()


def build(config: dict, preprocess: Preprocess, name: str, arch: str = "", seed: int = 0) -> Encoder:
    """An encoder with random weights, the same for one seed, from an open_clip model config named `arch`.

    A config with `timm` (arguments of timm.create_model) and perhaps `lca` makes a `towers.TimmTower` instead.
    """
    from open_clip.model import _build_vision_tower

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if "timm" in config:
            tower = TimmTower(config["timm"], bool(config.get("lca")))
        else:
            tower = _build_vision_tower(config["embed_dim"], config["vision_cfg"], bool(config.get("quick_gelu")))
    if config.get("proj") == "drop":
        tower.proj = None
    return Encoder(tower, preprocess, name, arch or name, config)


def drop_projection(encoder: Encoder) -> None:
    """Take CLIP's `proj` away, in place: embeddings are the pooled tokens, as wide as the tower.

    ValueError for a tower that has none to take: it is a vision transformer's alone.
    """
    if encoder.config.get("proj") == "drop":
        return
    if not isinstance(getattr(encoder.tower, "proj", None), nn.Parameter):
        raise ValueError(f"encoder: {encoder.name} has no projection to drop, a vision transformer of open_clip has; "
                         "take proj keep")
    encoder.dim = encoder.tower.proj.shape[0]
    encoder.tower.proj = None
    encoder.config = {**encoder.config, "embed_dim": encoder.dim, "proj": "drop"}


def load(model: str | Path, resize: str | None = None) -> Encoder:
    """The encoder called `nano`, `nano-vit`, `imagenet`, FILE or ARCH:TAG, in eval mode and fp32, on the CPU.

    resize replaces the policy stored with the weights (open_clip's own: squash).
    FileNotFoundError: weights missing and not to be had; ValueError: everything else.
    """
    text = str(model)
    file = paths.WEIGHTS / f"{SHIPPED[text]}.safetensors" if text in SHIPPED else Path(text)
    if file.is_file():
        encoder = _from_file(file, text)
    elif text in SHIPPED:
        raise FileNotFoundError(f"encoder: weights {file} of {text} are missing; notebook A_nano_backbone "
                                "makes them: run `klip reproduce --appendix`")
    elif file.suffix == ".safetensors":
        raise FileNotFoundError(f"encoder: {file} is missing; `klip finetune` and notebook 03 write such")
    elif text == "imagenet":
        encoder = _imagenet()
    elif ":" in text:
        encoder = _from_open_clip(*text.split(":", 1))
    else:
        raise ValueError(f"encoder: unknown model {text!r}; accepted are {FORMS}")
    if resize:
        encoder.preprocess = Preprocess.from_dict({**encoder.preprocess.to_dict(), "resize": resize})
    return encoder


def _imagenet() -> Encoder:
    """Lite0's pooled 1,280 features; normalised by a half, 224 pixels, as it was trained."""
    config = {"embed_dim": 1280, "timm": {"model_name": imagenet.ARCH}}
    encoder = build(config, Preprocess(224, (0.5,) * 3, (0.5,) * 3), "imagenet", imagenet.ARCH)
    encoder.tower.trunk.load_state_dict({name: value for name, value in imagenet.state_dict().items()
                                         if not name.startswith(imagenet.CLASSIFIER)})
    return encoder


def _from_file(path: Path, name: str) -> Encoder:
    """Read tensors `visual.*` of any float type; metadata arch, preprocess, config (if shipped: a JSON)."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            facts = file.metadata() or {}
            keys = [key for key in file.keys() if key.startswith("visual.")]  # noqa: SIM118
            tensors = {key.removeprefix("visual."): file.get_tensor(key) for key in keys}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"encoder: {path} is damaged, half-written or no safetensors file ({error}); "
                         "make or fetch it again") from None
    if not tensors or "preprocess" not in facts:
        raise ValueError(f"encoder: {path} holds no image tower with its preprocessing; klip.encoder.save "
                         "writes both")
    arch = facts.get("arch", path.stem)
    config = json.loads(facts["config"]) if "config" in facts else _model_config(arch)
    encoder = build(config, Preprocess.from_dict(json.loads(facts["preprocess"])), name, arch)
    wanted = {key: tuple(value.shape) for key, value in encoder.tower.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in tensors.items()}
    if wanted != given:
        key = min(key for key in {*wanted, *given} if wanted.get(key) != given.get(key))
        raise ValueError(f"encoder: {path} is a checkpoint of another architecture than the {arch} it names: "
                         f"{key} is {given.get(key, 'missing')} there, {wanted.get(key, 'missing')} in it")
    encoder.tower.load_state_dict(tensors)
    return encoder


def _model_config(arch: str) -> dict:
    import open_clip

    if "nanoclip" not in open_clip.list_models():
        open_clip.add_model_config(paths.WEIGHTS)
    if arch not in (known := open_clip.list_models()):
        close = difflib.get_close_matches(arch, known, n=3) or ["ViT-L-14", "ViT-B-32"]
        raise ValueError(f"encoder: open_clip has no architecture {arch!r}; accepted: {', '.join(close)} ...")
    return open_clip.get_model_config(arch)


def described(arch: str, tag: str = "none") -> tuple[dict, Preprocess]:
    """open_clip's config of ARCH and the preprocessing of ARCH:TAG; no weights are read.

    Normalised as that very checkpoint wants it: laion2b_s32b_b82k has mean = std = 0.5.
    """
    import open_clip

    config, facts = _model_config(arch), open_clip.get_pretrained_cfg(arch, tag)
    if tag != "none" and not facts:
        tags = [*open_clip.list_pretrained_tags_by_model(arch), "none"]
        raise ValueError(f"encoder: open_clip has no weights {tag!r} for {arch}; accepted: {', '.join(tags)}")
    config["quick_gelu"] = bool(config.get("quick_gelu") or facts.get("quick_gelu"))
    size = config["vision_cfg"]["image_size"]
    preprocess = Preprocess(size if isinstance(size, int) else size[0],
                            tuple(facts.get("mean") or open_clip.OPENAI_DATASET_MEAN),
                            tuple(facts.get("std") or open_clip.OPENAI_DATASET_STD))
    return config, preprocess


def _from_open_clip(arch: str, tag: str) -> Encoder:
    import open_clip

    config, preprocess = described(arch, tag)
    if tag == "none":
        return build(config, preprocess, f"{arch}:none", arch)
    file = weights(arch, tag)
    try:  # the whole model: open_clip converts the names and position tables of many publishers
        tower = open_clip.create_model(arch, str(file), force_quick_gelu=config["quick_gelu"]).visual
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[-1].strip()}"
        raise ValueError(f"encoder: {file} is damaged, or a checkpoint of another architecture than {arch} "
                         f"({reason})") from None
    return Encoder(tower, preprocess, f"{arch}:{tag}", arch, config)


def weights(arch: str, tag: str) -> Path:
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
        source = f"https://huggingface.co/{hub}" if hub else facts.get("url")
        with torch.device("meta"):
            model = open_clip.create_model(arch, device="meta", pretrained_text=False)
        size = sum(parameter.numel() for parameter in model.parameters()) * 4 / 1e9
        raise FileNotFoundError(
            f"encoder: the weights {arch}:{tag} are not here and cannot be fetched ({type(error).__name__}); "
            f"get the weight file, {size:.1f} GB in fp32, from {source} and put it at "
            f"{folder / f'{arch}_{tag}.safetensors'} (or .bin, .pt, as it is)") from None


def save(encoder: Encoder, path: str | Path, **provenance) -> Path:
    """Write the tower as safetensors, atomically; metadata: arch, config, preprocess and provenance."""
    from safetensors.torch import save_file

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {f"visual.{k}": v.detach().cpu().contiguous() for k, v in encoder.tower.state_dict().items()}
    facts = {"config": encoder.config, "preprocess": encoder.preprocess.to_dict(),
             "provenance": {"name": encoder.name, **provenance}}
    texts = {key: json.dumps(value, default=str) for key, value in facts.items()}
    atomic(path, lambda part: save_file(tensors, part, {"arch": encoder.arch, **texts}))
    return path


def fingerprint(encoder: Encoder) -> str:
    """16 hex digits that change with any weight (taken in fp32) and the preprocessing, and nothing else."""
    digest = hashlib.sha256(json.dumps(encoder.preprocess.to_dict(), sort_keys=True).encode())
    for name, value in sorted(encoder.tower.state_dict().items()):
        value = value.float() if value.is_floating_point() else value
        digest.update(f"{name} {tuple(value.shape)}".encode() + value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def interpolate(zero_shot: Encoder, fine_tuned: Encoder, alpha: float) -> Encoder:
    """WiSE-FT (Wortsman et al. 2022): a new encoder of weights (1 - alpha) zero_shot + alpha fine_tuned."""
    start, end = zero_shot.tower.state_dict(), fine_tuned.tower.state_dict()
    if not 0 <= alpha <= 1:
        raise ValueError(f"WiSE-FT: alpha must lie between 0 (zero-shot) and 1 (fine-tuned), got {alpha!r}")
    if {k: v.shape for k, v in start.items()} != {k: v.shape for k, v in end.items()}:
        raise ValueError(f"WiSE-FT: wants two checkpoints of one architecture, got {zero_shot.arch} "
                         f"({zero_shot.name}) and {fine_tuned.arch} ({fine_tuned.name})")
    if zero_shot.preprocess != fine_tuned.preprocess:
        raise ValueError(f"WiSE-FT: wants one preprocessing, got {zero_shot.preprocess} and "
                         f"{fine_tuned.preprocess}")
    mixed = copy.deepcopy(fine_tuned)
    mixed.tower.load_state_dict({k: torch.lerp(start[k].to(v), v, alpha) if v.is_floating_point() else v
                                 for k, v in end.items()})
    mixed.name = f"{fine_tuned.name} (WiSE-FT {alpha:g})"
    return mixed


@contextmanager
def at_work(encoder: Encoder) -> Iterator[None]:
    """Inside, the encoder is on the GPU, if there is one; afterwards it is where it was, so that encoders which wait
    take none of a small GPU's memory.  One that is on a GPU already stays there: several calls save the way."""
    home = encoder.device
    encoder.to(default_device())
    try:
        yield
    finally:
        encoder.to(home)


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def resolve_precision(precision: str, device: str | torch.device) -> str:
    """fp32, bf16 or fp16.  auto: bf16 where the hardware computes in it, fp16 on older GPUs, else fp32."""
    if precision in ("fp32", "bf16", "fp16"):
        return precision
    if precision != "auto":
        raise ValueError(f"precision must be auto, fp32, bf16 or fp16, got {precision!r}")
    kind = torch.device(device).type
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    can = getattr(torch.cpu, "get_capabilities", dict)()  # a recent addition to torch
    return "bf16" if kind == "cpu" and (can.get("avx512_bf16") or can.get("amx_bf16")) else "fp32"


def autocast(precision: str, device: str | torch.device) -> torch.autocast:
    """The autocast context of a precision on a device; for fp32 one that does nothing."""
    precision = resolve_precision(precision, device)
    kind = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(torch.device(device).type, kind, enabled=precision != "fp32")


class _Views(Dataset):
    """Item i: the views of image i, (K, 3, S, S)."""

    def __init__(self, images: Sequence, preprocess: Preprocess, views: int, seed: int) -> None:
        self.images, self.preprocess, self.views, self.seed = images, preprocess, views, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        image = self.images[i]
        pixels = image if isinstance(image, np.ndarray) else data.read(image)
        return torch.from_numpy(augment.views(pixels, self.preprocess, self.views, self.seed))


def quiet_worker(_worker: int) -> None:
    """A loader's worker computes on one thread: the others belong to the model."""
    import cv2

    cv2.setNumThreads(1)
    torch.set_num_threads(1)


@contextmanager
def one_sentence() -> Iterator[None]:
    """Strip the traceback that a DataLoader puts around the error of a worker, e.g. an unreadable image."""
    try:
        yield
    except (ValueError, OSError) as error:
        if "DataLoader worker" not in str(error):
            raise
        raise type(error)(str(error).strip().splitlines()[-1].split(": ", 1)[-1]) from None


def image_files(catalogue: pd.DataFrame) -> list[Path]:
    return [Path(catalogue.attrs["root"], image) for image in catalogue["image"]]


@torch.no_grad()
def embed(encoder: Encoder, images: Sequence | pd.DataFrame, batch_size: int = 64, workers: int = 0,
          precision: str = "auto", progress: bool = False, views: int = 1, seed: int = 0, unit: bool = True) -> Tensor:
    """Unit rows (N * views, D), fp32, on the CPU; image i has rows i * views ..., the first one unaugmented.

    images: a catalogue, or paths or (H, W, 3) uint8 arrays.  For one seed every image gets the same views, so
    its rows do not depend on its neighbours.  Gallery and queries want one precision: bf16 and fp32 differ.
    unit=False leaves the rows as the tower gives them, as a linear layer wants them.
    """
    if isinstance(images, pd.DataFrame):
        images = image_files(images)
    few = len(images) * views < FEW
    loader = DataLoader(_Views(images, encoder.preprocess, views, seed), max(1, batch_size // max(1, views)),
                        num_workers=0 if few else workers, worker_init_fn=quiet_worker)
    was_training, rows = encoder.training, []
    encoder.eval()  # training and evaluation may take different attention kernels: always this one
    try:
        with (at_work(encoder), one_sentence(),
              tqdm(total=len(images), unit="img", desc="embed", disable=not progress) as bar):
            for batch in loader:
                with autocast(precision, encoder.device):
                    found = encoder(batch.flatten(0, 1).to(encoder.device))
                rows.append((nn.functional.normalize(found, dim=1) if unit else found).cpu())
                bar.update(len(batch))
    finally:
        encoder.train(was_training)
    return torch.cat(rows) if rows else torch.empty(0, encoder.dim)
