"""Kinship by hand, the loss by three loops."""

import numpy as np
import pytest
import torch

from klip.model.triplet import HierarchyTriplet, kinship


def loop(z, labels, margins):
    """Mean over the triplets (a, p, n) above 0 of d(a, p) - d(a, n) + m(a, n), d = 1 - cosine."""
    z = z / z.norm(dim=1, keepdim=True)
    found = []
    for a in range(len(z)):
        for p in range(len(z)):
            for n in range(len(z)):
                if a != p and labels[a] == labels[p] != labels[n]:
                    value = (z[a] @ z[n] - z[a] @ z[p] + margins[labels[a], labels[n]]).item()
                    found += [value] if value > 0 else []
    return sum(found) / max(1, len(found))


def test_kinship_is_the_share_of_common_places():
    kin = kinship(["tea/zola-1", "tea/zola-1", "tea/mira-1", "soap", ""])
    assert kin[0].tolist() == [1, 1, 0.5, 0, 0]
    assert kin[3].tolist() == [0, 0, 0, 1, 0] and kin[4].tolist() == [0, 0, 0, 0, 0]
    assert kinship(["a/x", "b/x"])[0, 1] == 0  # the same word under another kind is another place
    assert kinship(["a", "a/x"]).tolist() == [[1, 1], [0.5, 1]]


@pytest.mark.parametrize("seed", range(3))
def test_loss_equals_the_loop(seed):
    generator = torch.Generator().manual_seed(seed)
    z, labels = (
        torch.randn(12, 5, generator=generator) * 4,
        torch.randint(0, 4, (12,), generator=generator),
    )
    head = HierarchyTriplet(torch.from_numpy(kinship(["a/x", "a/x", "a/y", "b"])))
    assert head(z, labels).item() == pytest.approx(loop(z, labels, head.margins), rel=1e-5)


def test_kin_products_need_a_smaller_distance():
    margins = HierarchyTriplet(torch.tensor([[1.0, 0.5, 0.0]] * 3)).margins[0]
    assert margins.tolist() == pytest.approx([0.1, 0.3, 0.5])


@pytest.mark.parametrize("labels", [[0, 1, 2], [1, 1, 1], [0]])
def test_no_pair_or_no_other_product_is_no_loss(labels):
    z = torch.randn(len(labels), 4, requires_grad=True)
    loss = HierarchyTriplet(torch.zeros(3, 3))(z, torch.tensor(labels))
    loss.backward()
    assert loss.item() == 0 and np.isfinite(z.grad.numpy()).all()
