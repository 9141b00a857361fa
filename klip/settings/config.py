"""Typed settings: what a notebook may be given, and what one fine-tuning run is made of.

A wrong name, type or value is one sentence in a ValueError (see `Checked`).
Assumptions (A) are values on which the paper is silent.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from klip.settings import paths
from klip.settings.checked import Checked

Resize = Literal["squash", "pad", "crop"]
Interpolation = Literal["bicubic", "bilinear"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Decode = Literal["full", "scaled"]
Executor = Literal["here", "local", "slurm"]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Decay = Annotated[float, Field(gt=0, le=1)]


def profiles() -> list[str]:
    """`nano` (the notebooks' own parameters) and the files in notebooks/profiles."""
    return sorted({"nano"} | {path.stem for path in paths.PROFILES.glob("*.yaml")})


class Settings(Checked):
    """The parameters that notebooks 01-05 share, with the values of profile `nano`."""

    profile: Text = "nano"
    model: Text = "nano"
    """A name that `klip.model.encoder.load` takes: nano, imagenet, a FILE written by klip,
    ARCH:TAG of open_clip ...
    """
    vit: Text = "nano-vit"
    """The tower of the comparisons in notebook 03."""
    resnext: Text = "imagenet"
    """The backbone of the baselines in notebook 04; the paper's are timm's ResNeXts."""
    resnext_semi: Text = "nano"
    """That of the baseline with a linear layer: semi-supervised in the paper."""
    finetune_set: Text = "shop"
    finetune_root: str = ""
    eval_sets: Text = "grozi-like capg-like rp2k-like"
    data_root: str = ""
    """Folder of the real image sets; empty means the environment variable KLIP_DATA.
    With a finetune_set of one's own (folder, manifest, shards) and no finetune_root it
    is that set's place, and KLIP_DATA holds the others."""
    breadth: CountOrNone = 0
    """Products used; 0 means all of them, as in the paper (§4.1.3)."""
    depths: Text = "1 4 16"
    """Images per product that notebook 02 tries."""
    breadths: Text = "0.25 0.5 1"
    """Shares of the products that notebook 02 tries, at equal numbers of images."""
    sweep_images: Count = 640
    images: Count = 4000
    """Images seen in a final run of notebook 03."""
    compare_images: Count = 640
    compare_queries: CountOrNone = 5
    """Queries of each product in the comparisons of notebook 03, a seeded choice; 0 means all."""
    baseline_images: Count = 300
    """The most images that a run may see while the budget of a baseline of notebook 04 is chosen.
    """
    baseline_seeds: Count = 1
    """Runs of each trained baseline."""
    seeds: Count = 3
    batch_size: Count = 64
    top_lr: Positive = 3e-4
    """Rate of the top block: 2e-4 in the paper, more for a small young tower (A)."""
    decay: Decay = 0.7
    """Each earlier block has this times the rate (§4.1.2)."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay of the averaged weights that are kept beside the last ones (A); 0 means none."""
    wise: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the fine-tuned weights in what is kept, the rest are the frozen ones
    (WiSE-FT, A); 1 means none.
    """
    gallery_views: Count = 8
    resize: Resize = "pad"
    pixels: CountOrNone = 96
    """Sides of the images that `model` sees; 0: as stored with its weights."""
    train_pixels: CountOrNone = 0
    """Their sides while it is fine-tuned; 0: the same.  Convolutions learn faster at
    fewer (Touvron et al. 2019); a tower with a table of positions sees one size."""
    ask_pixels: CountOrNone = 0
    """Their sides in notebooks 04 and 05, where all of a set is asked; 0: the same."""
    ask_also: CountOrNone = 0
    """Side of a second view of each image there, see `encoder.load`; 0: none."""
    precision: Precision = "auto"
    """auto: bf16 or fp16 where the device computes in it, but fp32 to train depthwise
    convolutions on a CPU.
    """
    workers: CountOrNone = 2
    checkpointing: bool = False
    accumulate: Count = 1
    """Parts that the batch of a step is cut into: less memory, the same step.  `klip plan`
    tells what fits.
    """
    frozen_blocks: CountOrNone = 5
    """Low blocks, and the stem, not trained: no gradient, no optimiser state; the paper's
    rates hardly move them.
    """
    decode: Decode = "full"
    """scaled: JPEGs at the smallest fraction of their sides that keeps twice the tower's:
    faster, other pixels.
    """
    compile: bool = False
    """torch.compile: faster steps after a slow first one; needs a C++ compiler."""
    save_every: CountOrNone = 0
    """Steps between the states from which an interrupted run goes on; 0 means none are kept."""
    executor: Executor = "here"
    """Where sweeps run: here, local (jobs on this machine) or slurm."""

    @field_validator("depths", "breadths", "eval_sets", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        """Lists, commas and brackets become words with one space between them."""
        if isinstance(value, list | tuple):
            value = " ".join(map(str, value))
        if isinstance(value, str):
            value = " ".join(re.sub(r"[,\[\]]", " ", value).split())
        return value

    @field_validator("profile", "depths", "breadths")
    @classmethod
    def _accepted(cls, value: str, info: Any) -> str:
        if info.field_name == "profile":
            accepted = f"one of the profiles {', '.join(profiles())}"
            good = value in profiles()
        elif info.field_name == "depths":
            accepted = "whole numbers of at least 1 image per product"
            good = all(word.isdecimal() and int(word) >= 1 for word in value.split())
        else:
            accepted = "shares of the products, above 0 and at most 1"
            good = all(_is_share(word) for word in value.split())
        if not good:
            raise ValueError(f"must be {accepted}")
        return value

    @property
    def shared(self) -> dict[str, Any]:
        """What a FinetuneConfig takes from here: all that does not differ from run to run."""
        return self.model_dump(include=set(FinetuneConfig.model_fields))

    @property
    def finetune_folder(self) -> str:
        """Where the fine-tuning set lies; one's own may be given as data_root alone."""
        return self.finetune_root or ("" if self.sets_folder else self.data_root)

    @property
    def sets_folder(self) -> str:
        """Folder of the real image sets, or empty for KLIP_DATA, where data_root is the
        range of one's own.
        """
        own = self.finetune_set in ("folder", "manifest", "shards") and not self.finetune_root
        return "" if own else self.data_root

    @property
    def breadth_list(self) -> list[float]:
        """The shares of the sweep over breadth, ascending, 1 among them."""
        return sorted({1.0, *map(float, self.breadths.split())})

    @property
    def depth_list(self) -> list[int]:
        """The depths of the sweep, ascending, each once."""
        return sorted({int(word) for word in self.depths.split()})

    @property
    def eval_list(self) -> list[str]:
        """Names of the evaluation sets."""
        return self.eval_sets.split()


def _is_share(word: str) -> bool:
    return bool(re.fullmatch(r"\d*\.?\d+", word)) and 0 < float(word) <= 1


def settings(namespace: Mapping[str, Any]) -> Settings:
    """Checked settings out of a notebook's `globals()`; other names are left alone."""
    given = {name: namespace[name] for name in Settings.model_fields if name in namespace}
    return Settings(**given)


class FinetuneConfig(Checked):
    """One fine-tuning run (paper §4.1): all that decides its weights, but the images.

    Fields that say nothing here are those of `Settings`.
    """

    called: ClassVar[str] = "fine-tuning settings"
    model: Text = "nano"
    images: Count = 6000
    """Images seen, the budget of the run."""
    depth: Count
    """Images per product and epoch (§4.1.3)."""
    breadth: CountOrNone = 0
    batch_size: Count = 32
    accumulate: Count = 1
    loss: Literal["arcface", "softmax", "triplet"] = "arcface"
    """arcface is the paper's; softmax (a linear layer) and triplet (DIHE's) are what it is
    compared with.
    """
    margin_deg: Annotated[float, Field(ge=0, lt=90)] = 8.6
    """m = 0.15 rad (A); the usual 28.6 (0.5 rad) is too much for a run of a hundred steps."""
    scale: Positive = 20.0
    """s (A)."""
    entropy: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """gamma of the MaxEnt loss, softmax only (Dubey et al. 2018); 0 is plain cross entropy."""
    rates: Literal["blockwise", "blockwise-proj", "common", "layerwise", "frozen"] = "blockwise"
    """How the rate falls from block to block; frozen trains the head alone."""
    top_lr: Positive = 2e-4
    """Rate of the top block (§4.1.2)."""
    decay: Decay = 0.7
    head_lr: Positive = 1e-3
    """Rate of the class centres (A): five times the top block's; AdamW turns a centre by
    about 1 degree a step.
    """
    frozen_blocks: CountOrNone = 0
    proj: Literal["keep", "drop"] = "keep"
    """CLIP's projection of the pooled token (A); without it an embedding is as wide as the tower.
    """
    optimiser: Literal["adamw", "adamw8bit"] = "adamw"
    """AdamW is the paper's (§4.1.1); adamw8bit needs bitsandbytes, which is not among klip's pins.
    """
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.05
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Fraction of the steps with a rising rate (A)."""
    clip: Annotated[float, Field(ge=0)] = 1.0
    """Largest norm of the gradient (A); 0 means none."""
    balanced: bool = True
    strength: Annotated[float, Field(ge=0, le=2)] = 0.5
    """Of the augmentation (A: the paper gives none); half as much again for an image that
    comes back in an epoch.
    """
    precision: Precision = "auto"
    checkpointing: bool = False
    decode: Decode = "full"
    compile: bool = False
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    resize: Resize = "squash"
    pixels: CountOrNone = 0
    train_pixels: CountOrNone = 0
    seed: CountOrNone = 0
    workers: CountOrNone = 2
    validate_every: CountOrNone = 0
    """Steps between validations; 0 means only at the end."""
    save_every: CountOrNone = 0
