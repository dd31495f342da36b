"""Encoders by name: network input → pooled features."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.networks.nets.resnet import ResNet, ResNetBlock
from torch import Tensor, nn
from torch.nn import functional as F

from qcnode.errors import ConfigError


class MeanAndMaximum(nn.Module):
    """Pools each channel's map to its mean and its maximum: (batch, channels, …) → (batch, 2 × channels)."""

    def forward(self, maps: Tensor) -> Tensor:
        flat = maps.flatten(2)
        return torch.cat([flat.mean(2), flat.amax(2)], 1)


class Moments(nn.Module):
    """Pools each channel's map to its mean, its maximum, and how far it is off centre and askew.

    Off centre: the size of the first moment along each axis; askew: that of the mixed second moments, which a tilt of
    the head changes first. Coordinates run from -1 to 1. (batch, channels, …) → (batch, 8 × channels).
    """

    def forward(self, maps: Tensor) -> Tensor:
        maps = maps.float()
        z, y, x = (torch.linspace(-1, 1, n, device=maps.device) for n in maps.shape[2:])
        z, y, x = z[:, None, None], y[:, None], x
        weighted = [(maps * weight).mean((2, 3, 4)).abs() for weight in (z, y, x, z * y, z * x, y * x)]
        return torch.cat([maps.mean((2, 3, 4)), maps.amax((2, 3, 4)), *weighted], 1)


def _resnet(width: int, pool: nn.Module) -> ResNet:
    """A 3-D ResNet of four single-block stages with 1, 2, 4 and 8 × `width` channels.

    The stem's filters overlap and take every fourth pixel of every second slice: what they say of noise, lines and
    edges goes on in channels, not in pixels, which costs a third of the time. No max pool follows, which would hide
    noise and thin lines.
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
    encoder.avgpool = pool
    return encoder


def compact_resnet(width: int) -> tuple[nn.Module, int]:
    """Pooled to mean and maximum, since a zipper's line is a small part of the scan; 16 × width features."""
    return _resnet(width, MeanAndMaximum()), 16 * width


def placed_resnet(width: int) -> tuple[nn.Module, int]:
    """Pooled to moments, since a mean does not know where the head is; 64 × width features."""
    return _resnet(width, Moments()), 64 * width


class LineProfiles(nn.Module):
    """Fixed differences between neighbours, pooled along rows and along columns, then a small network.

    A tone leaves a line that runs the whole image along one axis: in the profile across it, a line is a peak in every
    slice, where a network that pools over the image would find it diluted a hundredfold. The two directions share the
    network, so that it does not matter along which axis the scanner encoded the phase.
    (batch, 1, slice, row, column) → (batch, 8 × width).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        widths, strides = (width, width, 2 * width, 2 * width), ((1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 1))
        layers: list[nn.Module] = [nn.BatchNorm3d(18)]
        for before, after, stride in zip((18, *widths), widths, strides, strict=False):
            layers += [nn.Conv3d(before, after, (3, 5, 1), stride, (1, 2, 0)), nn.BatchNorm3d(after), nn.ReLU()]
        self.network = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            profiles = _profiles(images[:, 0].float())
        first, second = (self.pooled(each) for each in profiles)
        return torch.cat([torch.maximum(first, second), first + second], 1)

    def pooled(self, profiles: Tensor) -> Tensor:
        """Mean and maximum of what the network makes of the profiles (batch, 18, slice, position, 1)."""
        maps = self.network(profiles).flatten(2)
        return torch.cat([maps.mean(2), maps.amax(2)], 1)


def _profiles(images: Tensor) -> tuple[Tensor, Tensor]:
    """Profiles along rows and along columns of (batch, slice, row, column): each (batch, 18, slice, position, 1).

    The 18 are mean, maximum and root mean square of the image and of its differences: first along the line and across
    it, second along and across, and between slices.
    """
    in_row, in_column, between = (torch.diff(images, dim=axis) for axis in (2, 3, 1))
    again_in_row, again_in_column = torch.diff(in_row, dim=2), torch.diff(in_column, dim=3)
    maps = [images, *(m.abs_() for m in (in_row, in_column, again_in_row, again_in_column, between))]
    swapped = [maps[index] for index in (0, 2, 1, 4, 3, 5)]
    return _profile(maps, 2, images.shape), _profile(swapped, 3, images.shape)


def _profile(maps: Sequence[Tensor], along: int, shape: Sequence[int]) -> Tensor:
    found = []
    for one in maps:
        spread = torch.linalg.vector_norm(one, dim=along) / one.shape[along] ** 0.5
        for figure in (one.mean(along), one.amax(along), spread):
            missing = (0, shape[5 - along] - figure.shape[2], 0, shape[1] - figure.shape[1])
            found.append(F.pad(figure, missing))
    return torch.stack(found, 1)[..., None]


def line_profiles(width: int) -> tuple[nn.Module, int]:
    """For lines across the whole image; 8 × width features."""
    return LineProfiles(width), 8 * width


# A builder takes the width; returns the module, (batch, 1, slice, row, column) → (batch, features), and their number.
ENCODERS: dict[str, Callable[[int], tuple[nn.Module, int]]] = {
    "compact-resnet": compact_resnet,
    "placed-resnet": placed_resnet,
    "line-profiles": line_profiles,
}


def encoder(name: str, width: int) -> tuple[nn.Module, int]:
    """A new encoder and the number of its features; raises ConfigError for a name that is not among ENCODERS."""
    if name not in ENCODERS:
        raise ConfigError(f'There is no encoder "{name}"; this version has {", ".join(ENCODERS)}.')
    return ENCODERS[name](width)
