"""The loss, against loops over its formula, and the traps of method.md."""

import math

import pytest
import torch

from klip.model.heads import Head, initialise
from klip.settings.config import FinetuneConfig


def head_of(loss, products, dim, **settings):
    return Head(FinetuneConfig(depth=1, loss=loss, **settings), products, dim=dim)


def arcface_loop(z, centres, labels, margin, scale):
    """Deng et al. 2019, eq. 3: -log e^{s cos(t_y + m)} / (e^{s cos(t_y + m)} + sum_{j != y} e^{s cos t_j}).

    Past t_y = pi - m, where cos(t_y + m) would rise again, the target's cosine is cos t_y - m sin m.
    """
    total = 0.0
    for x, y in zip(z.tolist(), labels.tolist(), strict=True):
        cosines = [
            sum(a * b for a, b in zip(x, w, strict=True)) / math.hypot(*x) / math.hypot(*w)
            for w in centres.tolist()
        ]
        angle = math.acos(max(-1, min(1, cosines[y])))
        easy = angle <= math.pi - margin
        cosines[y] = (
            math.cos(angle + margin) if easy else math.cos(angle) - margin * math.sin(margin)
        )
        total += math.log(sum(math.exp(scale * c) for c in cosines)) - scale * cosines[y]
    return total / len(labels)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(16, 6, generator=generator) * 3
    return z, torch.randint(0, 5, (16,), generator=generator)


@pytest.mark.parametrize(
    "margin_deg, scale", [(28.6, 30.0), (28.6, 64.0), (0.0, 10.0), (60.0, 8.0)]
)
def test_arcface_equals_its_formula(batch, margin_deg, scale):
    torch.manual_seed(1)
    z, labels = batch
    z[0] = -z[0].norm() * torch.ones(6)  # angles past pi - m occur below
    head = head_of("arcface", 5, 6, margin_deg=margin_deg, scale=scale)
    with torch.no_grad():
        head.body.W[:, labels[0]] = torch.ones(6) + 0.1 * torch.randn(6)
    expected = arcface_loop(
        z.double(), head.centres.double(), labels, math.radians(margin_deg), scale
    )
    assert head(z, labels).item() == pytest.approx(expected, rel=1e-4)


def test_arcface_ignores_the_length_of_embeddings(batch):
    z, labels = batch
    head = head_of("arcface", 5, 6)
    assert head(z * 7, labels).item() == pytest.approx(head(z, labels).item(), rel=1e-5)


def test_softmax_is_linear_and_cross_entropy(batch):
    z, labels = batch
    head = head_of("softmax", 5, 6)
    logits = z @ head.body.weight.T + head.body.bias
    expected = (
        sum(torch.logsumexp(row, 0) - row[y] for row, y in zip(logits, labels, strict=True)) / 16
    )
    assert head(z, labels).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("entropy", [0.0, 0.3, 2.0])
def test_maxent_takes_the_entropy_of_the_prediction_off_the_cross_entropy(batch, entropy):
    """Dubey et al. 2018: L = CE(y, p) - gamma H(p), H(p) = -sum p log p."""
    z, labels = batch
    head, total = head_of("softmax", 5, 6, entropy=entropy), 0.0
    for row, y in zip(
        (z @ head.body.weight.T + head.body.bias).tolist(), labels.tolist(), strict=True
    ):
        whole = sum(math.exp(value) for value in row)
        p = [math.exp(value) / whole for value in row]
        total += -math.log(p[y]) - entropy * -sum(q * math.log(q) for q in p)
    assert head(z, labels).item() == pytest.approx(total / 16, rel=1e-5)


def test_a_triplet_head_owns_no_weights(batch):
    z, labels = batch
    head = head_of("triplet", 5, 6)
    assert head.parameter_group(1.0)["params"] == []
    assert head(z, labels).item() == pytest.approx(head.body(z, labels).item())


@pytest.mark.parametrize("loss", ["arcface", "softmax"])
def test_the_centres_move_under_adamw_and_turn_to_their_images(loss):
    torch.manual_seed(0)
    labels = torch.arange(4).repeat(8)
    z = torch.eye(8)[labels] * 2 + 0.1 * torch.randn(32, 8)
    head = head_of(loss, 4, 8)
    group = head.parameter_group(1e-2)
    assert group["lr"] == 1e-2 and group["weight_decay"] == 0.0 and group["name"] == "centres"
    assert {id(p) for p in group["params"]} == {id(p) for p in head.parameters()}
    optimiser = torch.optim.AdamW([group])
    before, first = head.centres.clone(), head(z, labels).item()
    for _ in range(100):
        optimiser.zero_grad()
        head(z, labels).backward()
        optimiser.step()
    assert (head.centres - before).abs().max() > 0.1
    assert head(z, labels).item() < 0.9 * first
    own, random = (
        torch.cosine_similarity(w, torch.eye(8)[:4]).mean() for w in (head.centres, before)
    )
    assert own > random + 0.2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("degrees", [0.0, 1e-4, 0.01, 1.0, 5.0])
def test_no_nan_near_alignment(dtype, degrees):
    """300 images near their centre, or on it, as a product's only image is on its mean.

    acos has no gradient at 1: what clamp before it makes of that is a matter of torch's version.
    """
    torch.manual_seed(0)
    head = head_of("arcface", 300, 32)
    means = torch.nn.functional.normalize(torch.randn(300, 32), dim=1)
    initialise(head, means)
    aside = torch.nn.functional.normalize(torch.randn(300, 32), dim=1)
    z = (math.cos(math.radians(degrees)) * means + math.sin(math.radians(degrees)) * aside).to(
        dtype
    )
    z.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = head(z, torch.arange(300))
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(loss)
    assert torch.isfinite(z.grad).all() and torch.isfinite(head.body.W.grad).all()
    assert head.body.W.dtype == torch.float32 and z.grad.dtype == dtype


@pytest.mark.parametrize("loss", ["arcface", "softmax"])
def test_autocast_does_not_reach_the_loss(batch, loss):
    z, labels = batch
    head = head_of(loss, 5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        inside = head(z, labels)
    assert inside.item() == head(z, labels).item()


@pytest.mark.parametrize("loss", ["arcface", "softmax"])
def test_initialise_puts_centres_on_unit_means(loss):
    head = head_of(loss, 3, 4)
    means = torch.tensor([[2.0, 0, 0, 0], [0, 0, -5, 0], [0, 3, 0, 4]])
    initialise(head, means)
    assert torch.allclose(
        head.centres, torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 0.6, 0, 0.8]])
    )
    assert all(p.requires_grad and p.is_leaf for p in head.parameters())
    assert head(means, torch.arange(3)).item() < head(means, torch.tensor([1, 2, 0])).item()


def test_a_saved_head_is_restored(batch):
    z, labels = batch
    head, other = head_of("arcface", 5, 6), head_of("arcface", 5, 6)
    other.load_state_dict(head.state_dict())
    assert other(z, labels).item() == head(z, labels).item()


def test_one_product_is_not_enough():
    with pytest.raises(ValueError, match="at least 2 products to tell apart, got 1"):
        head_of("arcface", 1, 6)


def test_no_nan_at_a_cosine_of_exactly_one():
    head = head_of("arcface", 4, 8)
    initialise(head, torch.eye(8)[:4])
    z = torch.eye(8)[:4].requires_grad_()
    head(z, torch.arange(4)).backward()
    assert torch.isfinite(z.grad).all() and torch.isfinite(head.body.W.grad).all()


def test_training_in_half_precision_embeddings_keeps_the_centres_finite_fp32(batch):
    z, labels = batch
    head = head_of("arcface", 5, 6)
    optimiser = torch.optim.AdamW([head.parameter_group(1e-2)])
    for _ in range(5):
        optimiser.zero_grad()
        head(z.half(), labels).backward()
        optimiser.step()
    assert head.body.W.dtype == torch.float32 and torch.isfinite(head.body.W).all()
