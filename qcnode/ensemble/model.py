"""A member: one encoder, a head that grades one artifact, a head that names the plane."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from qcnode.artifacts import Plane, Severity
from qcnode.ensemble.networks import encoder as built_encoder

Module = TypeVar("Module", bound=nn.Module)


class Output(NamedTuple):
    """features: (batch, channels), what both heads see. severity, plane: (batch, 3) logits."""

    features: Tensor
    severity: Tensor
    plane: Tensor


class Member(nn.Module):
    """Grades one artifact; naming the plane is a second task that helps the first while training."""

    def __init__(self, encoder: str, width: int) -> None:
        super().__init__()
        self.encoder, channels = built_encoder(encoder, width)
        self.dropout = nn.Dropout(0.3)
        self.severity = nn.Linear(channels, len(Severity))
        self.plane = nn.Linear(channels, len(Plane))

    def forward(self, images: Tensor) -> Output:
        """images: (batch, 1, slice, row, column), made by `network_input`."""
        features = self.dropout(self.encoder(images).float())
        with torch.autocast(images.device.type, enabled=False):  # bfloat16 would leave a logit three digits
            return Output(features, self.severity(features), self.plane(features))


def channels_last(module: Module) -> Module:
    """The module with its weights laid out as CPU convolutions run fastest, about 1.7 times the default's speed."""
    return module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload, no-any-return] # not in its stub
