"""An encoder as an ONNX file, for programs without torch (optional: klip[onnx]).

Axes: B images, S pixels a side, D numbers per embedding.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from klip.model import encoder as encoders
from klip.model.encoder import Encoder
from klip.settings.files import atomic

CLOSE = 1e-5
"""The most by which a unit embedding of the file may differ from the encoder's, as a length."""
TRIED = (1, 2, 5)
"""Images at a time with which a file is tried before it is kept."""
NEEDED = ("onnx", "onnxscript", "onnxruntime")


class Unit(nn.Module):
    """What the file computes: preprocessed images (B, 3, S, S) -> unit embeddings (B, D)."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.normalize(self.encoder(images), dim=1)


def to_onnx(encoder: Encoder, path: str | Path) -> Path:
    """Write an encoder as an ONNX file, atomically: input `images`, float32 (B, 3, S, S),
    output `embeddings`, float32 (B, D) of length 1; metadata name, fingerprint, preprocess.

    The file is kept only if ONNX Runtime computes from it what the encoder does (CLOSE).
    ValueError: a package of klip[onnx] is missing, the encoder has a part that
    ONNX lacks, or the file computes something else.
    """
    lacking = [name for name in NEEDED if find_spec(name) is None]
    if lacking:
        raise ValueError(
            f"export: {', '.join(lacking)} not installed; run `pip install 'klip[onnx]'`"
        )
    import onnx

    plain = Unit(copy.deepcopy(encoder).cpu()).eval()
    size, path = encoder.preprocess.size, Path(path)
    images = torch.randn(max(TRIED), 3, size, size, generator=torch.Generator().manual_seed(0))
    model = _converted(plain, images[:2], name=encoder.name)
    facts = {"name": encoder.name, "fingerprint": encoders.fingerprint(encoder)}
    facts["preprocess"] = json.dumps(encoder.preprocess.to_dict())
    for key, value in facts.items():
        model.metadata_props.add(key=key, value=value)
    model.producer_name = "klip"
    content = model.SerializeToString()
    onnx.checker.check_model(content)
    off = farthest(content, plain, images, name=encoder.name)
    if not off <= CLOSE:  # nan, too
        raise ValueError(
            f"export: ONNX Runtime's embeddings of {encoder.name} are up to {off:.1e} from the "
            f"encoder's, accepted are {CLOSE:.0e}; no file was written"
        )
    atomic(path, lambda part: part.write_bytes(content))
    return path


def _converted(plain: nn.Module, images: Tensor, *, name: str):
    """The ONNX model of a module, for any number of images."""
    noise = io.StringIO()  # the exporter tells its steps
    quiet = contextlib.redirect_stdout(noise), contextlib.redirect_stderr(noise)
    try:
        # With gradients on the tower itself is traced, not its folded copy.
        with quiet[0], quiet[1], warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                plain,
                (images,),
                dynamo=True,
                input_names=["images"],
                output_names=["embeddings"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            ).model_proto
    except Exception as error:  # whatever part of torch gives up, it is the tower's
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"export: {name} cannot be written as ONNX ({reason})") from error


def farthest(content: bytes, plain: nn.Module, images: Tensor, *, name: str) -> float:
    """The largest distance of an embedding by ONNX Runtime from that of the module."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    off = 0.0
    for count in TRIED:
        with torch.no_grad():
            expected = plain(images[:count])
        try:
            (found,) = session.run(None, {"images": images[:count].numpy()})
        except Exception as error:  # its errors have no class of their own
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"export: {name} as ONNX cannot take {count} images ({reason})"
            ) from None
        off = max(off, float((torch.from_numpy(found) - expected).norm(dim=1).max()))
    return off
