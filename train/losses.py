"""Losses of the severity head by name, scan by scan, each with its gradient at the head's outputs in closed form."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from qcnode.artifacts import Severity
from train.config import FitConfig
from train.ranks import joint

FOCAL_GAMMA = 2.0  # Lin et al.'s; BRIQA does not say which it used


class Terms(NamedTuple):
    """What a loss makes of a batch, or of one process's share; over any part, it is losses.sum() / mass.sum().

    losses: (batch,), with gradient. mass: (batch,), how much each scan counts. errors: (batch, outputs), the
    derivative of `losses` by the head's outputs, without gradient.
    """

    losses: Tensor
    mass: Tensor
    errors: Tensor

    def mean(self) -> Tensor:
        """The loss of the whole batch; among several processes, this one's part of it."""
        return self.losses.sum() / joint(self.mass.sum())


Loss = Callable[[Tensor, Tensor], Terms]  # outputs of the head (batch, 3; CORN: 2), target (batch,)


def cross_entropy(outputs: Tensor, target: Tensor, smoothing: float = 0.0) -> Terms:
    """Cross-entropy; with smoothing, against a target that gives this share to all severities alike.

    Label smoothing: arXiv 1512.00567, §7. Error: softmax(z) - target.
    """
    wanted = _onehot(target, outputs)
    wanted = (1 - smoothing) * wanted + smoothing / outputs.shape[1]
    losses = -(wanted * outputs.log_softmax(1)).sum(1)
    return Terms(losses, torch.ones_like(losses), outputs.detach().softmax(1) - wanted)


def weighted(outputs: Tensor, target: Tensor, weights: Tensor) -> Terms:
    """Cross-entropy in which a scan counts as its severity's weight. weights: (3,).

    Reweighting undoes the weights: within one severity they are all alike.
    """
    weight = weights.to(outputs)[target]
    losses, _, errors = cross_entropy(outputs, target)
    return Terms(weight * losses, weight, weight[:, None] * errors)


def focal(outputs: Tensor, target: Tensor, gamma: float = FOCAL_GAMMA) -> Terms:
    """-(1 - p)^γ log p, p being the target's probability (arXiv 1708.02002, eq. 4): what is easy counts little.

    Error: ((1 - p)^γ - γ p (1 - p)^(γ-1) log p) · (softmax(z) - onehot(y)).
    """
    log_p = outputs.log_softmax(1).gather(1, target[:, None])[:, 0]
    losses = -((1 - log_p.exp()) ** gamma) * log_p
    with torch.no_grad():
        p = log_p.exp()
        slope = (1 - p) ** gamma - gamma * p * (1 - p) ** (gamma - 1) * log_p
        errors = slope[:, None] * (outputs.softmax(1) - _onehot(target, outputs))
    return Terms(losses, torch.ones_like(losses), errors)


def corn(outputs: Tensor, target: Tensor) -> Terms:
    """CORN (arXiv 2111.08851, eq. 3): task k asks of the scans with y ≥ k whether y > k; the tasks' scans are pooled.

    outputs: (batch, 2), a logit a task. A scan's mass is the number of tasks that ask for it.
    Error: σ(z_k) - [y > k] where y ≥ k, else 0.
    """
    tasks = torch.arange(outputs.shape[1], device=outputs.device)
    asked, above = ((target[:, None] >= tasks).to(outputs), (target[:, None] > tasks).to(outputs))
    losses = (asked * F.binary_cross_entropy_with_logits(outputs, above, reduction="none")).sum(1)
    return Terms(losses, asked.sum(1), asked * (outputs.detach().sigmoid() - above))


def loss_of(config: FitConfig, labels: NDArray[np.int64]) -> Loss:
    """The configuration's loss for a member. labels: its training scans' severities, for the weighted one."""
    losses: dict[str, Loss] = {
        "cross-entropy": partial(cross_entropy, smoothing=config.label_smoothing),
        "weighted": partial(weighted, weights=severity_weights(labels)),
        "focal": focal,
        "corn": corn,
    }
    return losses[config.loss]


def shared_losses_of(config: FitConfig, labels: NDArray[np.int64]) -> list[Loss]:
    """The configuration's loss of the shared encoder for every artifact. labels: (scan, artifact)."""
    if config.shared_loss == "focal":
        return [focal] * labels.shape[1]
    return [partial(weighted, weights=severity_weights(column)) for column in labels.T]


def severity_weights(labels: NDArray[np.int64]) -> Tensor:
    """(3,): the weight of a scan by its severity: all three weigh alike together, and the scans' mean is 1."""
    counts = np.bincount(labels, minlength=len(Severity))
    return torch.from_numpy(len(labels) / (len(Severity) * np.maximum(counts, 1))).float()


def _onehot(target: Tensor, outputs: Tensor) -> Tensor:
    return F.one_hot(target, outputs.shape[1]).to(outputs)
