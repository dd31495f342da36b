"""Encoders by name: network input → pooled features."""

from __future__ import annotations

from collections.abc import Callable

import torch
from monai.networks.nets.resnet import ResNet, ResNetBlock
from torch import Tensor, nn

from qcnode.errors import ConfigError


class MeanAndMaximum(nn.Module):
    """Pools each channel's map to its mean and its maximum: (batch, channels, …) → (batch, 2 × channels)."""

    def forward(self, maps: Tensor) -> Tensor:
        flat = maps.flatten(2)
        return torch.cat([flat.mean(2), flat.amax(2)], 1)


def compact_resnet(width: int) -> tuple[nn.Module, int]:
    """A 3-D ResNet of four single-block stages with 1, 2, 4 and 8 × `width` channels.

    The stem's filters overlap and take every fourth pixel of every second slice: what they say of noise, lines and
    edges goes on in channels, not in pixels, which costs a third of the time. No max pool follows, which would hide
    noise and thin lines. Both mean and maximum leave the last stage, since a zipper's line is a small part of the scan.
    (batch, 1, slice, row, column) → (batch, 16 × width).
    """
    encoder = ResNet(
        ResNetBlock,
        [1, 1, 1, 1],
        [width, 2 * width, 4 * width, 8 * width],
        spatial_dims=3,
        n_input_channels=1,
        conv1_t_size=(3, 7, 7),
        conv1_t_stride=(2, 4, 4),
        no_max_pool=True,
        shortcut_type="B",
        feed_forward=False,
    )
    encoder.avgpool = MeanAndMaximum()
    return encoder, 16 * width


# A builder takes the width and returns the module and the number of its features.
ENCODERS: dict[str, Callable[[int], tuple[nn.Module, int]]] = {"compact-resnet": compact_resnet}


def encoder(name: str, width: int) -> tuple[nn.Module, int]:
    """A new encoder and the number of its features; raises ConfigError for a name that is not among ENCODERS."""
    if name not in ENCODERS:
        raise ConfigError(f'There is no encoder "{name}"; this version has {", ".join(ENCODERS)}.')
    return ENCODERS[name](width)
