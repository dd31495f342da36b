"""BRIQA's reweighting, held against autograd."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from train.reweight import class_gradient_norms, class_weights, reweighted_loss


def batch(seed: int, classes: list[int]) -> tuple[torch.Tensor, torch.nn.Linear, torch.Tensor]:
    torch.manual_seed(seed)
    return torch.randn(len(classes), 5), torch.nn.Linear(5, 3), torch.tensor(classes)


@pytest.mark.parametrize("seed", range(3))
def test_the_closed_form_is_autograds_gradient(seed: int) -> None:
    features, head, target = batch(seed, [0, 0, 1, 2, 0, 2, 1, 2])
    norms = class_gradient_norms(features, head(features), target)
    for c in range(3):
        loss = F.cross_entropy(head(features[target == c]), target[target == c])
        weight, bias = torch.autograd.grad(loss, [head.weight, head.bias])
        assert norms[c].item() == pytest.approx(torch.cat([weight.flatten(), bias]).norm().item(), rel=1e-5)


def test_a_class_that_is_absent_has_no_norm_and_no_weight() -> None:
    features, head, target = batch(0, [0, 2, 2])
    norms = class_gradient_norms(features, head(features), target)
    assert norms.isnan().tolist() == [False, True, False]
    weights = class_weights(norms)
    assert weights[1] == 0
    assert reweighted_loss(features, head(features), target).isfinite()


def test_the_quietest_class_keeps_its_weight_and_none_is_turned_up() -> None:
    weights = class_weights(torch.tensor([2.0, 0.5, 1.0]))
    torch.testing.assert_close(weights, torch.tensor([0.25, 1.0, 0.5]))


def test_after_reweighting_every_class_pulls_equally() -> None:
    features, head, target = batch(1, [0, 0, 0, 1, 2, 2])
    weights = class_weights(class_gradient_norms(features, head(features), target))
    for c in range(3):
        loss = weights[c].detach() * F.cross_entropy(head(features[target == c]), target[target == c])
        pull = torch.cat([g.flatten() for g in torch.autograd.grad(loss, [head.weight, head.bias])]).norm()
        assert pull.item() == pytest.approx(
            class_gradient_norms(features, head(features), target).min().item(), rel=1e-4
        )


def test_the_loss_is_the_weighted_sum_of_the_classes_and_the_weights_carry_no_gradient() -> None:
    features, head, target = batch(2, [0, 1, 1, 2])
    logits = head(features)
    weights = class_weights(class_gradient_norms(features, logits, target)).detach()
    expected = sum(weights[c] * F.cross_entropy(logits[target == c], target[target == c]) for c in range(3))
    loss = reweighted_loss(features, logits, target)
    torch.testing.assert_close(loss, expected)
    ours, theirs = (torch.autograd.grad(x, head.weight, retain_graph=True)[0] for x in (loss, expected))
    torch.testing.assert_close(ours, theirs)


def test_one_class_alone_is_plain_cross_entropy() -> None:
    features, head, target = batch(3, [1, 1, 1])
    torch.testing.assert_close(
        reweighted_loss(features, head(features), target), F.cross_entropy(head(features), target)
    )
