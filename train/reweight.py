"""BRIQA's balanced reweighting (arXiv 2510.26661, eq. 1–3): the loudest class is turned down to the quietest."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from qcnode.artifacts import Severity
from train.losses import Terms
from train.ranks import joint


def class_gradient_norms(features: Tensor, terms: Terms, target: Tensor) -> Tensor:
    """Norm of the severity head's gradient that each class alone would cause (BRIQA eq. 1).

    On a linear head the gradient of class c is the sum over its samples of errors ⊗ [h, 1], over their mass: closed
    form, no backward pass. For cross-entropy the errors are softmax(z) - onehot(y), and the mass is their number.

    features: (batch, channels), the head's input h. target: (batch,).
    Returns (classes,); NaN for a class that the batch does not hold.
    """
    onehot = F.one_hot(target, len(Severity)).to(features)  # (batch, classes)
    inputs = torch.cat([features, features.new_ones(len(features), 1)], 1)  # [h, 1], for weight and bias
    gradients = joint(torch.einsum("bc,bk,bf->ckf", onehot, terms.errors, inputs))  # summed over class c's samples
    mass = joint(terms.mass @ onehot)
    norms: Tensor = torch.linalg.vector_norm(gradients.flatten(1), dim=1)
    return norms / mass.where(mass > 0, torch.nan)


def class_weights(norms: Tensor) -> Tensor:
    """α_c = min φ / φ_c over the classes present (eq. 2): at most 1, and 0 for a class that the batch does not hold."""
    present = ~norms.isnan()
    smallest = norms.nan_to_num(nan=torch.inf).min()
    return torch.where(present, smallest / norms.clamp_min(torch.finfo(norms.dtype).tiny), 0.0).nan_to_num(nan=0.0)


def reweighted_loss(features: Tensor, terms: Terms, target: Tensor) -> Tensor:
    """Σ_c α_c · L_c, with L_c the loss of the samples of class c (eq. 3); α carries no gradient.

    Among several processes, α and L_c are the whole batch's, and this is one's part of the sum.
    """
    weights = class_weights(class_gradient_norms(features.detach(), terms, target))
    mass = joint(terms.mass @ F.one_hot(target, len(Severity)).to(terms.mass))
    return (weights[target] / mass[target] * terms.losses).sum()
