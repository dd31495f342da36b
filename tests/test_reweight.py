"""BRIQA's reweighting, held against autograd."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from train.losses import Loss, corn, cross_entropy, focal, weighted
from train.reweight import class_gradient_norms, class_weights, reweighted_loss

LOSSES: dict[str, Loss] = {
    "cross-entropy": cross_entropy,
    "smoothed": lambda z, y: cross_entropy(z, y, 0.1),
    "weighted": lambda z, y: weighted(z, y, torch.tensor([0.4, 2.0, 5.0])),
    "focal": focal,
    "corn": corn,
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def batch(seed: int, classes: list[int], name: str = "") -> tuple[torch.Tensor, torch.nn.Linear, torch.Tensor]:
    torch.manual_seed(seed)
    return torch.randn(len(classes), 5), torch.nn.Linear(5, 2 if name == "corn" else 3), torch.tensor(classes)


def norm_of(loss: torch.Tensor, head: torch.nn.Linear) -> float:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(head.parameters()))]).norm().item()


@every_loss
@pytest.mark.parametrize("classes", [[0, 0, 1, 2, 0, 2, 1, 2], [0, 2, 2], [1, 2], [0, 0, 0]])
def test_the_closed_form_is_autograds_gradient_for_the_classes_present(name: str, classes: list[int]) -> None:
    features, head, target = batch(len(classes), classes, name)
    norms = class_gradient_norms(features, LOSSES[name](head(features), target), target)
    for c in range(3):
        if c not in classes:
            assert norms[c].isnan()
            continue
        loss = LOSSES[name](head(features[target == c]), target[target == c]).mean()
        assert norms[c].item() == pytest.approx(norm_of(loss, head), rel=1e-5)


@every_loss
def test_a_missing_class_weighs_nothing_and_the_loss_stays_finite(name: str) -> None:
    features, head, target = batch(0, [0, 2, 2], name)
    terms = LOSSES[name](head(features), target)
    assert class_weights(class_gradient_norms(features, terms, target))[1] == 0
    assert reweighted_loss(features, terms, target).isfinite()


def test_the_quietest_class_keeps_its_weight_and_none_is_turned_up() -> None:
    weights = class_weights(torch.tensor([2.0, 0.5, 1.0]))
    torch.testing.assert_close(weights, torch.tensor([0.25, 1.0, 0.5]))


@every_loss
def test_after_reweighting_every_class_pulls_equally(name: str) -> None:
    features, head, target = batch(1, [0, 0, 0, 1, 2, 2], name)
    norms = class_gradient_norms(features, LOSSES[name](head(features), target), target)
    for c in range(3):
        loss = class_weights(norms)[c] * LOSSES[name](head(features[target == c]), target[target == c]).mean()
        assert norm_of(loss, head) == pytest.approx(norms.min().item(), rel=1e-4)


@every_loss
def test_the_loss_is_the_weighted_sum_of_the_classes_and_the_weights_carry_no_gradient(name: str) -> None:
    features, head, target = batch(2, [0, 1, 1, 2], name)
    terms = LOSSES[name](head(features), target)
    weights = class_weights(class_gradient_norms(features, terms, target)).detach()
    expected = sum(weights[c] * LOSSES[name](head(features[target == c]), target[target == c]).mean() for c in range(3))
    loss = reweighted_loss(features, terms, target)
    torch.testing.assert_close(loss, expected)
    ours, theirs = (torch.autograd.grad(x, head.weight, retain_graph=True)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs)


def test_reweighting_undoes_class_weights() -> None:
    features, head, target = batch(4, [0, 0, 1, 2])
    plain, heavy = (LOSSES[name](head(features), target) for name in ("cross-entropy", "weighted"))
    torch.testing.assert_close(reweighted_loss(features, heavy, target), reweighted_loss(features, plain, target))


def test_one_class_alone_is_plain_cross_entropy() -> None:
    features, head, target = batch(3, [1, 1, 1])
    terms = cross_entropy(head(features), target)
    torch.testing.assert_close(reweighted_loss(features, terms, target), F.cross_entropy(head(features), target))
