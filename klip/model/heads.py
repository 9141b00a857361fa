"""The loss of the fine-tuning: PML's ArcFace (paper §4.1), or what it is compared with.

Axes: B images, D numbers per embedding, C products.  Always in fp32: PML casts its
weights, in place, to the type of the embeddings; AdamW on fp16 ones ends in nan.
"""

import torch
from torch import Tensor, nn

from klip.model.triplet import HierarchyTriplet
from klip.settings.config import FinetuneConfig


class Head(nn.Module):
    """Loss of B embeddings against their products; its weights belong in the optimiser.

    config.loss says which.  arcface: Deng et al. 2019, with `margin_deg` and `scale`;
    softmax: a linear layer with bias and cross entropy, less `entropy` times the entropy
    of the prediction (MaxEnt, Dubey et al. 2018: L = CE(y, p) - gamma H(p)); triplet:
    `HierarchyTriplet`, which owns no weights; kin (C, C): see `triplet.kinship`.
    """

    def __init__(
        self, config: FinetuneConfig, products: int, *, dim: int, kin: Tensor | None = None
    ) -> None:
        super().__init__()
        if products < 2:
            raise ValueError(f"head: needs at least 2 products to tell apart, got {products}")
        self.loss, self.entropy, self.products = config.loss, config.entropy, products
        if self.loss == "arcface":
            from pytorch_metric_learning.losses import ArcFaceLoss

            self.body = ArcFaceLoss(products, dim, margin=config.margin_deg, scale=config.scale)
        elif self.loss == "softmax":
            self.body = nn.Linear(dim, products)
        else:
            self.body = HierarchyTriplet(torch.zeros(products, products) if kin is None else kin)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Mean loss; embeddings (B, D) of any float type and length, labels (B,) below C."""
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings, labels = embeddings.float(), labels.long()
            if self.loss != "softmax":
                return self.body(embeddings, labels)
            logits = self.body(embeddings)  # (B, C)
            loss = nn.functional.cross_entropy(logits, labels)
            if self.entropy:
                log_p = logits.log_softmax(dim=1)
                loss = loss + self.entropy * (log_p.exp() * log_p).sum(dim=1).mean()
            return loss

    @property
    def wants_pairs(self) -> bool:
        """Does it compare images?  It has no centres, and wants a product's side by side."""
        return self.loss == "triplet"

    @property
    def centres(self) -> Tensor:
        """The products' own weights (C, D), without gradient; a triplet loss has none."""
        return (self.body.W.T if self.loss == "arcface" else self.body.weight).detach()

    def parameter_group(self, lr: float) -> dict:
        """Group for AdamW: a rate of its own (A) and no weight decay."""
        own = list(self.parameters())
        return {"params": own, "lr": lr, "weight_decay": 0.0, "name": "centres"}


@torch.no_grad()
def initialise(head: Head, means: Tensor) -> None:
    """Put the centres on the frozen encoder's class means (C, D), made unit.

    PML's N(0, 1) would keep them random: AdamW turns a centre by about lr / std(W) a
    step, 0.016° at 2e-4.
    """
    head.centres.copy_(nn.functional.normalize(means.float(), dim=1))
    if head.loss == "softmax":
        head.body.bias.zero_()
