"""A member: one encoder, a head that grades one artifact, a head that names the plane."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qcnode.artifacts import Plane, Severity
from qcnode.ensemble.networks import encoder as built_encoder

Module = TypeVar("Module", bound=nn.Module)


class Output(NamedTuple):
    """features: (batch, channels), what both heads see. severity, plane: (batch, 3) logits.

    outputs: what the severity head says itself; `severity`, but for an ordinal head.
    """

    features: Tensor
    severity: Tensor
    plane: Tensor
    outputs: Tensor


class Member(nn.Module):
    """Grades one artifact; naming the plane is a second task that helps the first while training.

    ordinal: the severity head has two outputs (CORN, arXiv 2111.08851): whether the artifact is more than none, and
    whether it is then more than moderate. dropout: the share of features that training leaves out.
    """

    def __init__(self, encoder: str, width: int, *, ordinal: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder, channels = built_encoder(encoder, width)
        self.ordinal = ordinal
        self.dropout = nn.Dropout(dropout)
        self.severity = nn.Linear(channels, len(Severity) - ordinal)
        self.plane = nn.Linear(channels, len(Plane))

    def forward(self, images: Tensor) -> Output:
        """images: (batch, 1, slice, row, column), made by `network_input`."""
        features = self.dropout(self.encoder(images).float())
        with torch.autocast(images.device.type, enabled=False):  # bfloat16 would leave a logit three digits
            outputs = self.severity(features)
            severity = log_probabilities(outputs) if self.ordinal else outputs
            return Output(features, severity, self.plane(features), outputs)


def log_probabilities(outputs: Tensor) -> Tensor:
    """An ordinal head's outputs z (batch, 2) → the logarithms of P(0), P(1), P(2): (batch, 3).

    P(y > 0) = σ(z₀) and P(y > 1) = σ(z₀) σ(z₁).
    """
    yes, no = F.logsigmoid(outputs), F.logsigmoid(-outputs)
    return torch.stack([no[:, 0], yes[:, 0] + no[:, 1], yes[:, 0] + yes[:, 1]], 1)


def channels_last(module: Module) -> Module:
    """The module with its weights laid out as CPU convolutions run fastest, about 1.7 times the default's speed."""
    for weight in module.parameters():
        if weight.dim() == 5:  # of a 3-D convolution
            weight.data = weight.data.contiguous(memory_format=torch.channels_last_3d)
    return module
