"""Typed settings: what a notebook may be given, and what one fine-tuning run is made of.

A wrong name, type or value is one sentence in a ValueError (see `Checked`).
Assumptions (A) are values on which the paper is silent.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import Field, field_validator

from klip.settings import paths
from klip.settings.checked import Checked

Resize = Literal["squash", "pad", "crop"]
Interpolation = Literal["bicubic", "bilinear"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Executor = Literal["here", "cores", "slurm"]
Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
CountOrNone = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]


class Shared(Checked):
    """What the settings of a profile and a fine-tuning run have in common."""

    model: Text = "nano"
    """A name that `klip.model.encoder.load` takes: nano, imagenet, a FILE of klip ..."""
    images: Count = 6000  # seen, the budget of a run
    breadth: CountOrNone = 0  # products used; 0 means all, as in the paper (§4.1.3)
    batch_size: Count = 32
    accumulate: Count = 1
    """Parts that the batch of a step is cut into: less memory, the same step.  `klip plan`
    tells what fits."""
    top_lr: Positive = 2e-4  # rate of the top block (§4.1.2)
    decay: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Each earlier block has this times the rate (§4.1.2)."""
    frozen_blocks: CountOrNone = 0
    """Low blocks, and the stem, not trained: no gradient, no optimiser state; the paper's
    rates hardly move them."""
    ema: BelowOne = 0.0  # decay of averaged weights kept beside the last (A); 0: none
    resize: Resize = "squash"
    pixels: CountOrNone = 0  # sides of the images `model` sees; 0: as stored with it
    train_pixels: CountOrNone = 0
    """Their sides while it is fine-tuned; 0: the same.  Convolutions learn faster at
    fewer (Touvron et al. 2019); a tower with a table of positions sees one size."""
    precision: Precision = "auto"
    """auto: bf16 or fp16 where the device computes in it, but fp32 to train depthwise
    convolutions on a CPU."""
    decode: Literal["full", "scaled"] = "full"
    """scaled: JPEGs at the smallest fraction of their sides that keeps twice the tower's:
    faster, other pixels."""
    checkpointing: bool = False
    compile: bool = False  # faster steps after a slow first one; needs a C++ compiler
    workers: CountOrNone = 2
    save_every: CountOrNone = 0
    """Steps between the states from which an interrupted run goes on; 0: about a minute."""


class FinetuneConfig(Shared):
    """One fine-tuning run (paper §4.1): all that decides its weights, but the images."""

    called: ClassVar[str] = "fine-tuning settings"
    depth: Count  # images per product and epoch (§4.1.3)
    seed: CountOrNone = 0
    loss: Literal["arcface", "softmax", "triplet"] = "arcface"
    """arcface is the paper's, softmax (a linear layer) and triplet (DIHE's) its rivals."""
    margin_deg: Annotated[float, Field(ge=0, lt=90)] = 8.6
    """m = 0.15 rad (A); the usual 28.6 (0.5 rad) is too much for a run of 100 steps."""
    scale: Positive = 20.0  # s (A)
    entropy: NotNegative = 0.0
    """gamma of the MaxEnt loss, softmax only (Dubey et al. 2018); 0: plain cross entropy."""
    rates: Literal["blockwise", "common", "layerwise", "frozen"] = "blockwise"
    """How the rate falls from block to block; frozen trains the head alone."""
    head_lr: Positive = 1e-3
    """Rate of the class centres (A): five times the top block's; AdamW turns a centre by
    about 1 degree a step."""
    proj: Literal["keep", "drop"] = "keep"
    """CLIP's projection of the pooled token (A); without it an embedding is as wide as the
    tower."""
    optimiser: Literal["adamw", "adamw8bit"] = "adamw"
    """AdamW is the paper's (§4.1.1); adamw8bit needs bitsandbytes, not among klip's pins."""
    weight_decay: NotNegative = 0.05
    warmup: BelowOne = 0.1  # fraction of the steps with a rising rate (A)
    clip: Annotated[float, Field(ge=0)] = 1.0  # largest norm of the gradient (A); 0: none
    balanced: bool = True
    strength: Annotated[float, Field(ge=0, le=2)] = 0.5
    """Of the augmentation (A: the paper gives none); half as much again for an image that
    comes back in an epoch."""
    validate_every: CountOrNone = 0  # steps between validations; 0: only at the end


class Settings(Shared):
    """The parameters that notebooks 01 to 08 share, with the values of profile `nano`."""

    profile: Text = "nano"
    vit: Text = "nano-vit"  # the tower of the comparisons in notebook 03
    resnext: Text = "imagenet"
    """The backbone of the baselines in notebook 05; the paper's are timm's ResNeXts."""
    resnext_semi: Text = "nano"
    """That of the baseline with a linear layer: semi-supervised in the paper."""
    finetune_set: Text = "shop"
    finetune_root: str = ""
    eval_sets: Text = "grozi-like capg-like rp2k-like"
    data_root: str = ""
    """Folder of the real image sets; empty means the environment variable KLIP_DATA.
    With a finetune_set of one's own (folder, manifest) and no finetune_root it
    is that set's place, and KLIP_DATA holds the others."""
    bad_images: Literal["stop", "skip"] = "stop"
    """Damaged images: stop, or skip, left out with a note if they are few."""
    depths: Text = "1 4 16"  # images per product that notebook 02 tries
    breadths: Text = "0.25 0.5 1"
    """Shares of the products that notebook 02 tries, at equal numbers of images."""
    sweep_images: Count = 320
    images: Count = 2048  # of a final run of notebook 03
    compare_images: Count = 320
    compare_queries: CountOrNone = 2
    """Queries of each product compared in notebooks 03 and 04, a seeded choice; 0 means all."""
    compare_products: Count = 120
    """Validation products that judge the comparisons of notebooks 02 and 03."""
    baseline_images: Count = 300
    """Most images of a run while the budget of a baseline of notebook 05 is chosen."""
    baseline_seeds: Count = 1  # runs of each trained baseline
    seeds: Count = 3
    top_lr: Positive = 3e-4  # more than in the paper for a small young tower (A)
    ema: BelowOne = 0.95
    wise: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the fine-tuned weights in what is kept, the rest are the frozen ones
    (WiSE-FT, A); 1 means none."""
    gallery_views: Count = 4
    resize: Resize = "pad"
    pixels: CountOrNone = 96
    ask_pixels: CountOrNone = 0
    """Sides in notebooks 04 to 07, where all of a set is asked; 0: the same."""
    ask_also: CountOrNone = 0
    """Side of a second view of each image there, see `encoder.load`; 0: none."""
    frozen_blocks: CountOrNone = 5
    executor: Executor = "cores"  # how sweeps run: here, cores (side by side) or slurm

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
        name = info.field_name
        if name == "profile" and value not in profiles():
            raise ValueError(f"must be one of the profiles {', '.join(profiles())}")
        for word in value.split():
            number = float(word) if re.fullmatch(r"\d*\.?\d+", word) else 0
            if name == "depths" and (number < 1 or "." in word):
                raise ValueError("must be whole numbers of at least 1 image per product")
            if name == "breadths" and not 0 < number <= 1:
                raise ValueError("must be shares of the products, above 0 and at most 1")
        return value

    @property
    def finetune_folder(self) -> str:
        """Where the fine-tuning set lies; one's own may be given as data_root alone."""
        return self.finetune_root or ("" if self.sets_folder else self.data_root)

    @property
    def sets_folder(self) -> str:
        """Folder of the real image sets; empty for KLIP_DATA, where data_root is the range
        of one's own."""
        own = self.finetune_set in ("folder", "manifest") and not self.finetune_root
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

    def finetune(self, **own: Any) -> FinetuneConfig:
        """A run with these settings.  own: its other fields, `depth` among them, and those
        that it has different.  ValueError: as for a FinetuneConfig."""
        shared = self.model_dump(include=set(Shared.model_fields))
        return FinetuneConfig(**shared | own)


def profiles() -> list[str]:
    """`nano` (the notebooks' own parameters) and the files in notebooks/profiles."""
    return sorted({"nano"} | {path.stem for path in paths.PROFILES.glob("*.yaml")})


def known_profile(name: str) -> None:
    """ValueError for a name that is no profile."""
    if name not in profiles():
        raise ValueError(f"profile must be one of {', '.join(profiles())}, got {name!r}")


def profile_values(name: str) -> dict[str, Any]:
    """The settings of a profile that are not those of `nano`; ValueError for no profile."""
    known_profile(name)
    if name == "nano":
        return {}
    return yaml.safe_load((paths.PROFILES / f"{name}.yaml").read_text(encoding="utf-8"))


def settings(namespace: Mapping[str, Any]) -> Settings:
    """Checked settings out of a notebook's `globals()`; other names are left alone."""
    given = {name: namespace[name] for name in Settings.model_fields if name in namespace}
    return Settings(**given)
