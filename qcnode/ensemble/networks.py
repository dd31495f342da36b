"""Encoders by name: network input → pooled features."""

from __future__ import annotations

from collections.abc import Callable

from monai.networks.nets.resnet import ResNet, ResNetBlock
from torch import nn

from qcnode.errors import ConfigError


def compact_resnet(width: int) -> tuple[nn.Module, int]:
    """A 3-D ResNet of four single-block stages with 1, 4, 8 and 16 × `width` channels, halving the grid four times.

    Narrow where the grid is fine, since that stage costs two thirds of the time; without a max pool, which would hide
    noise and thin lines. (batch, 1, slice, row, column) → (batch, 16 × width).
    """
    encoder = ResNet(
        ResNetBlock,
        [1, 1, 1, 1],
        [width, 4 * width, 8 * width, 16 * width],
        spatial_dims=3,
        n_input_channels=1,
        conv1_t_size=5,
        conv1_t_stride=2,
        no_max_pool=True,
        shortcut_type="B",
        feed_forward=False,
    )
    return encoder, 16 * width


# A builder takes the width and returns the module and the number of its features.
ENCODERS: dict[str, Callable[[int], tuple[nn.Module, int]]] = {"compact-resnet": compact_resnet}


def encoder(name: str, width: int) -> tuple[nn.Module, int]:
    """A new encoder and the number of its features; raises ConfigError for a name that is not among ENCODERS."""
    if name not in ENCODERS:
        raise ConfigError(f'There is no encoder "{name}"; this version has {", ".join(ENCODERS)}.')
    return ENCODERS[name](width)
