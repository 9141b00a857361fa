"""A triplet loss that knows the hierarchy of products: DIHE's (Tonioni & Di Stefano
2019), but for the GAN that made its store-like images: ours come from the augmentation.

Axes: B images, D numbers per embedding, C products.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn


def kinship(groups: Sequence[str]) -> np.ndarray:
    """How much of product i's place in the hierarchy product j shares, from 0 to 1: (C, C).
    A group is a path from the general to the special, "tea/brand-line"; empty: no kin."""
    places = []
    for group in groups:
        path = group.split("/") if group else []
        places.append({tuple(path[: n + 1]) for n in range(len(path))})
    return np.array([[len(a & b) / max(1, len(a)) for b in places] for a in places], np.float32)


class HierarchyTriplet(nn.Module):
    """max(0, d(a, p) - d(a, n) + m(a, n)), d = 1 - cosine: mean over triplets above 0.

    m = 0.1 + 0.4 (1 - kinship), as in DIHE (A): a product of another kind has to be
    further away than a flavour of the same line.  kin (C, C): `kinship`, or all 0.
    Without a positive pair or a second product in a batch the loss is 0.
    """

    def __init__(self, kin: Tensor) -> None:
        super().__init__()
        self.register_buffer("margins", 0.1 + (1 - kin) * 0.4)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Scalar, in fp32; embeddings (B, D) of any length, labels (B,) in 0 .. C-1."""
        unit = nn.functional.normalize(embeddings.float(), dim=1)
        distance = 1 - unit @ unit.T  # (B, B)
        same = labels[:, None] == labels[None, :]
        others = ~torch.eye(len(labels), dtype=torch.bool, device=same.device)
        anchor, positive = torch.nonzero(same & others, as_tuple=True)
        margin = self.margins[labels[anchor]][:, labels]  # (pairs, B)
        losses = (distance[anchor, positive, None] - distance[anchor] + margin).relu()
        losses = losses.masked_fill(same[anchor], 0)
        return losses.sum() / (losses > 0).sum().clamp(min=1)
