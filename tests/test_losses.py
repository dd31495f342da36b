"""Each loss: against its definition elsewhere, and its closed-form error against autograd."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from qcnode.ensemble.model import log_probabilities
from qcnode.errors import ConfigError
from train.config import FitConfig, read_config
from train.losses import Loss, corn, cross_entropy, focal, loss_of, severity_weights, weighted

TARGET = torch.tensor([0, 0, 1, 2, 0, 2, 1, 0])
WEIGHTS = torch.tensor([0.5, 2.0, 4.0])
CONFIGS = [FitConfig(), FitConfig(label_smoothing=0.1), *(FitConfig(loss=n) for n in ("weighted", "focal", "corn"))]


def outputs(loss: Loss, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return (3 * torch.randn(len(TARGET), 2 if loss is corn else 3)).requires_grad_()


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.loss} {c.label_smoothing}")
def test_the_error_is_autograds_derivative_and_carries_no_gradient(config: FitConfig) -> None:
    loss = loss_of(config, TARGET.numpy())
    z = outputs(loss)
    terms = loss(z, TARGET)
    (derivative,) = torch.autograd.grad(terms.losses.sum(), z)
    torch.testing.assert_close(terms.errors, derivative)
    assert not terms.errors.requires_grad
    assert not terms.mass.requires_grad


def test_cross_entropies_are_pytorchs() -> None:
    z = outputs(cross_entropy)
    torch.testing.assert_close(cross_entropy(z, TARGET).mean(), F.cross_entropy(z, TARGET))
    torch.testing.assert_close(cross_entropy(z, TARGET, 0.2).mean(), F.cross_entropy(z, TARGET, label_smoothing=0.2))
    torch.testing.assert_close(weighted(z, TARGET, WEIGHTS).mean(), F.cross_entropy(z, TARGET, WEIGHTS))


def test_focal_is_cross_entropy_without_gamma_and_by_hand_with_it() -> None:
    z = outputs(focal)
    torch.testing.assert_close(focal(z, TARGET, 0.0).mean(), F.cross_entropy(z, TARGET))
    even = focal(torch.tensor([[0.0, 0.0, math.log(2)]]), torch.tensor([2]))  # p = 1/2
    assert even.mean().item() == pytest.approx(0.25 * math.log(2))


def test_corn_by_hand() -> None:
    """Scans of 0, 1, 2: task 0 asks all three, task 1 the last two; five answers in all."""
    z = torch.tensor([[0.0, 9.0], [1.0, -1.0], [2.0, 0.5]])
    terms = corn(z, torch.tensor([0, 1, 2]))
    yes = [-math.log(1 / (1 + math.exp(-x))) for x in (0.0, 1.0, 1.0, 2.0, 0.5)]  # each is right with this logit
    assert terms.mean().item() == pytest.approx(sum(yes) / 5)
    assert terms.mass.tolist() == [1, 2, 2]


def test_corns_loss_is_the_likelihood_of_the_severities_that_its_head_gives() -> None:
    z = outputs(corn)
    found = log_probabilities(z)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(len(TARGET)))
    torch.testing.assert_close(corn(z, TARGET).losses, F.nll_loss(found, TARGET, reduction="none"))


def test_weights_make_the_severities_weigh_alike_and_the_scans_one_on_average() -> None:
    labels = np.repeat([0, 1, 2], [12, 3, 1])
    each = severity_weights(labels)[torch.from_numpy(labels)]
    assert each.mean().item() == pytest.approx(1)
    assert each[:12].sum().item() == pytest.approx(each[15].item())
    assert severity_weights(np.array([0, 0, 1]))[2].isfinite()


def test_smoothing_without_cross_entropy_is_refused() -> None:
    with pytest.raises(ConfigError, match=r'label_smoothing goes with loss = "cross-entropy", not "focal"'):
        read_config(None, loss="focal", label_smoothing=0.1)
