"""BRIQA's balanced reweighting (arXiv 2510.26661, eq. 1–3): the loudest class is turned down to the quietest."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def class_gradient_norms(features: Tensor, logits: Tensor, target: Tensor) -> Tensor:
    """Norm of the severity head's gradient that each class alone would cause (BRIQA eq. 1).

    For cross-entropy on a linear head the gradient of class c is the mean over its samples of
    (softmax(z) - onehot(y)) ⊗ [h, 1]: closed form, no backward pass.

    features: (batch, channels), the head's input h. logits: (batch, classes). target: (batch,).
    Returns (classes,); NaN for a class that the batch does not hold.
    """
    onehot = F.one_hot(target, logits.shape[1]).to(logits.dtype)  # (batch, classes)
    error = logits.softmax(1) - onehot
    inputs = torch.cat([features, features.new_ones(len(features), 1)], 1)  # [h, 1], for weight and bias
    gradients = torch.einsum("bc,bk,bf->ckf", onehot, error, inputs)  # summed over the samples of class c
    counts = onehot.sum(0)
    norms: Tensor = torch.linalg.vector_norm(gradients.flatten(1), dim=1)
    return norms / counts.where(counts > 0, torch.nan)


def class_weights(norms: Tensor) -> Tensor:
    """α_c = min φ / φ_c over the classes present (eq. 2): at most 1, and 0 for a class that the batch does not hold."""
    present = ~norms.isnan()
    smallest = norms[present].min()
    return torch.where(present, smallest / norms.clamp_min(torch.finfo(norms.dtype).tiny), 0.0).nan_to_num(nan=0.0)


def reweighted_loss(features: Tensor, logits: Tensor, target: Tensor) -> Tensor:
    """Σ_c α_c · L_c, with L_c the mean cross-entropy over the samples of class c (eq. 3); α carries no gradient."""
    weights = class_weights(class_gradient_norms(features.detach(), logits.detach(), target))
    counts = torch.bincount(target, minlength=logits.shape[1]).clamp_min(1)
    losses = F.cross_entropy(logits, target, reduction="none")
    return ((weights / counts)[target] * losses).sum()
