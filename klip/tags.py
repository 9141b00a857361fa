"""Pre-training of the small ResNeXt by the tags of rendered products: the weak supervision of WSL in small.

Mahajan et al. 2018, "Exploring the limits of weakly supervised pretraining", train ResNeXts to predict the hashtags of
photographs from the web.  Here the photographs are NanoCLIP's corpus (klip.nano), the tags what its products are.
Axis letters: B products in a batch, S pixels, C channels of a feature, T tags, N products.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from klip import backbones, nano, paths

KINDS = ("package", "goods", "category", "ground", "second", "accent", "flavour", "line")
"""What a tag speaks of; it is written as "ground: red", so that the colour orange is not the fruit."""


@dataclass(frozen=True)
class TagConfig:
    """One pre-training run.  The defaults made the shipped `nanoresnext`."""

    arch: str = "nanoresnext"  # klip/weights/<arch>.json
    lines: int = 12_000  # product lines in the corpus, the very one of NanoCLIP
    views: int = 2  # packshots rendered of a product
    steps: int = 1400
    batch: int = 128  # products a step; each gives one packshot and one photograph
    lr: float = 2e-3
    weight_decay: float = 0.1
    warmup: int = 100  # steps
    strength: tuple[float, float] = (0.2, 1.0)  # how hard the photographs are, see klip.shop.photo
    siblings: float = 0.0  # share of a batch drawn as flavours of one line: a contrastive loss wants them, this not
    precision: str = "auto"
    seed: int = 0


def of(product) -> dict[str, str]:
    """Kind -> word of one product of klip.shop: no brand, no name; fruit and vegetables have no line."""
    from klip.shop.design import colour_name

    colours = map(colour_name, (*product.palette[:2], product.accent))
    words = (product.shape, product.noun, product.category, *colours, product.flavour, product.line)
    found = dict(zip(KINDS, words, strict=True))
    if product.shape == "produce":
        del found["line"]
    return found


def written(product) -> list[str]:
    """The k tags of a product as they stand in the vocabulary."""
    return [f"{kind}: {word}" for kind, word in of(product).items()]


def vocabulary(products: Iterable) -> list[str]:
    """The T tags that occur, sorted."""
    return sorted({tag for product in products for tag in written(product)})


def targets(tagged: list[list[str]], vocabulary: list[str]) -> Tensor:
    """(B, T): 1/k for each of an image's k tags, else 0; a tag outside the vocabulary is an error."""
    column, rows = {tag: number for number, tag in enumerate(vocabulary)}, torch.zeros(len(tagged), len(vocabulary))
    for row, own in zip(rows, tagged, strict=True):
        if unknown := [tag for tag in own if tag not in column] or not own and ["none at all"]:
            raise ValueError(f"tags: each image needs tags, all of them among the {len(vocabulary)} of the vocabulary, "
                             f"got {unknown[0]!r}")
        row[[column[tag] for tag in own]] = 1 / len(own)
    return rows


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Softmax cross-entropy against targets (B, T) whose rows add up to 1, a mean over images (Mahajan et al. 2018)."""
    return torch.nn.functional.cross_entropy(logits.float(), targets)


class Batches(nano.Batches):
    """Item `step`: packshots and photographs (B, S, S, 3) uint8 and what `tokenize` makes of their tags, (B, T)."""

    def words(self, product, rng: np.random.Generator) -> list[str]:
        return written(product)


class Targets:
    """`targets` with its vocabulary, for the loader's workers."""

    def __init__(self, vocabulary: list[str]) -> None:
        self.vocabulary = vocabulary

    def __call__(self, tagged: list[list[str]]) -> Tensor:
        return targets(tagged, self.vocabulary)


def pretrain(config: TagConfig, out: str | Path, progress: bool = True, log_every: int = 50) -> pd.DataFrame:
    """Train `config.arch`, write `out` (safetensors, fp16) every 250 steps and at the end; returns the loss history."""
    from klip.encoder import autocast

    torch.manual_seed(config.seed)
    encoder = backbones.build(config.arch, config.seed)
    products, packshots = nano.corpus(config, progress=progress)
    names = vocabulary(products)
    tower, head = encoder.tower.train(), torch.nn.Linear(encoder.dim, len(names))

    def objective(clean, shop, wanted):
        with autocast(config.precision, "cpu"):
            logits = head(tower(nano.normalise(torch.cat([torch.as_tensor(clean), torch.as_tensor(shop)]))))
        packshot, photograph = (loss(part, torch.as_tensor(wanted)) for part in logits.chunk(2))
        return (packshot + photograph) / 2, {"packshot": packshot, "photograph": photograph}

    def save(history: list[dict]) -> None:
        tensors = {f"visual.{name}": value for name, value in tower.state_dict().items()}
        tensors |= {f"head.{name}": value for name, value in head.state_dict().items()}
        facts = {"config": encoder.config, "preprocess": encoder.preprocess.to_dict(), "tags": names}
        nano.store(tensors, config, history, out, facts)

    size = encoder.preprocess.size
    return nano.fit(config, Batches(config, products, packshots, Targets(names), size), objective,
                    [*tower.named_parameters(), *head.named_parameters(prefix="head")], save, progress, log_every)


def predict(images: Tensor, arch: str = "nanoresnext", file: str | Path = "") -> tuple[list[str], Tensor]:
    """The T tags of a weight file and their probabilities (B, T) for normalised images (B, 3, S, S)."""
    from safetensors import safe_open

    from klip import encoder

    file = Path(file or paths.WEIGHTS / f"{arch}.safetensors")
    tower = encoder.load(file)
    with safe_open(file, "pt") as found, torch.no_grad():
        features = torch.cat([tower(batch) for batch in images.split(64)])  # (B, C)
        weight, bias = (found.get_tensor(f"head.{name}").float() for name in ("weight", "bias"))
        return json.loads(found.metadata()["tags"]), (features @ weight.T + bias).softmax(dim=1)


def held_out(arch: str = "nanoresnext", file: str | Path = "", lines: int = 300, seed: int = 0) -> pd.DataFrame:
    """Is the most probable tag of a kind right?  For packshots of the range `spare`, never trained on.

    One row per kind: choices, correct, total, chance (always the most frequent answer, a fraction).
    """
    size = json.loads((paths.WEIGHTS / f"{arch}.json").read_text())["preprocess"]["size"]
    products, clean = nano.unseen(lines, seed, size)
    names, probable = predict(nano.normalise(torch.from_numpy(clean)), arch, file)
    rows = []
    for kind in KINDS:
        columns = [number for number, name in enumerate(names) if name.startswith(f"{kind}: ")]
        said = [names[columns[best]].split(": ", 1)[1] for best in probable[:, columns].argmax(dim=1).tolist()]
        pairs = [(word, of(product)[kind]) for word, product in zip(said, products, strict=True) if kind in of(product)]
        truth = pd.Series([right for _, right in pairs])
        rows.append({"tag": kind, "choices": len(columns), "correct": sum(word == right for word, right in pairs),
                     "total": len(pairs), "chance": truth.value_counts(normalize=True).max()})
    return pd.DataFrame(rows)
