"""Encoders by name: network input → pooled features."""

from __future__ import annotations

from collections.abc import Callable

from monai.networks.nets.resnet import ResNet, ResNetBlock
from torch import nn

from qcnode.errors import ConfigError


def compact_resnet(width: int) -> tuple[nn.Module, int]:
    """A 3-D ResNet of four single-block stages with 1, 2, 4 and 8 × `width` channels.

    The stem's filters overlap and take every fourth pixel of every second slice: what they say of noise, lines and edges
    goes on in channels, not in pixels, which costs a third of the time. No max pool, which would hide noise and thin
    lines. (batch, 1, slice, row, column) → (batch, 8 × width).
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
    return encoder, 8 * width


# A builder takes the width and returns the module and the number of its features.
ENCODERS: dict[str, Callable[[int], tuple[nn.Module, int]]] = {"compact-resnet": compact_resnet}


def encoder(name: str, width: int) -> tuple[nn.Module, int]:
    """A new encoder and the number of its features; raises ConfigError for a name that is not among ENCODERS."""
    if name not in ENCODERS:
        raise ConfigError(f'There is no encoder "{name}"; this version has {", ".join(ENCODERS)}.')
    return ENCODERS[name](width)
