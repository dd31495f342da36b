"""Encoders by name: network input → pooled features."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from monai.networks.nets.resnet import ResNet, ResNetBlock
from torch import Tensor, nn
from torch.nn import functional as F

from qcnode.ensemble import published
from qcnode.ensemble.atlas import atlas_resnet
from qcnode.ensemble.fields import field_unet
from qcnode.ensemble.heads import head_resnet
from qcnode.ensemble.mambaout import mambaout, mlmambaout
from qcnode.ensemble.mirror import mirror_resnet
from qcnode.ensemble.profiles import plane_profile_network, tile_profile_network
from qcnode.ensemble.tissue import tissue_unet
from qcnode.errors import ConfigError

_BLOCK = (2, 4, 4)  # voxels: the stem's stride, and the blocks whose statistics stand beside its channels
_FLOOR = 0.03  # added before a logarithm; about the quietest scanner's noise, in means of the foreground


class CompactResNet(nn.Module):
    """A 3-D ResNet of four single-block stages, with two kinds of fixed measurement beside its learned filters.

    Its stem's filters overlap and take every fourth pixel of every second slice: what they say of noise, lines and
    edges goes on in channels, not in pixels, which costs a third of the time. No max pool follows, which would hide
    noise and thin lines.

    Block statistics: the logarithm of each block's mean and spread. What multiplies the image, a band or a shading,
    adds to them, and a band is seen in the noise of the air as well.

    Line profiles: a zipper runs the whole image along one axis. In a profile across it, it is a peak in every slice,
    where pooling over the image would dilute it a hundredfold.

    (batch, 1, slice, row, column) → (batch, features).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.resnet = ResNet(
            ResNetBlock,
            [1, 1, 1, 1],
            [width, 2 * width, 4 * width, 8 * width],
            spatial_dims=3,
            n_input_channels=1,
            no_max_pool=True,
            shortcut_type="B",
            feed_forward=False,
        )
        self.resnet.conv1 = Stem(width)
        self.resnet.avgpool = Moments()
        self.lines = LineProfiles(width)
        self.features = 8 * width * Moments.FIGURES + self.lines.features

    def forward(self, images: Tensor) -> Tensor:
        count = len(images)
        if count == 1 and not self.training and images.device.type == "cpu":
            # PyTorch takes small convolutions of a batch of one the slow way, which costs more than a second image.
            images = images.expand(2, -1, -1, -1, -1).contiguous(memory_format=torch.channels_last_3d)
        features = torch.cat([self.resnet(images).float(), self.lines(images).float()], 1)
        return features[:count]


class Stem(nn.Module):
    """Learned filters with a stride of one block, to which a mix of each block's statistics is added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.filters = nn.Conv3d(1, width, (3, 7, 7), _BLOCK, (1, 3, 3), bias=False)
        self.statistics_norm = nn.BatchNorm3d(2)
        self.mix = nn.Conv3d(2, width, 1)

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            statistics = torch.stack([_block_statistics(image) for image in images[:, 0].float()])
            statistics = statistics.contiguous(memory_format=torch.channels_last_3d)
        mixed: Tensor = self.filters(images) + self.mix(self.statistics_norm(statistics))
        return mixed


def _block_statistics(image: Tensor) -> Tensor:
    """(slice, row, column) → (2, …): the logarithms of each block's mean and of its standard deviation."""
    with torch.autocast(image.device.type, enabled=False):
        mean = F.avg_pool3d(image[None, None], _BLOCK)[0, 0]
        square = F.avg_pool3d((image * image)[None, None], _BLOCK)[0, 0]
        variance = (square - mean * mean).clamp_min(0)
        return torch.stack([torch.log(mean + _FLOOR), torch.log(variance + _FLOOR**2) / 2])


class Moments(nn.Module):
    """Pools each channel's map to its mean, its maximum, and how far it is off centre and askew.

    A mean does not know where the head is. Off centre: the size of the first moment along each axis; askew: that of
    the mixed second moments, which a tilt of the head changes first. Both are relative to the mean. Coordinates run
    from -1 to 1; a fifth of that counts as 1, so that moments are about as large as the other figures.
    (batch, channels, …) → (batch, FIGURES × channels).
    """

    FIGURES = 8
    _UNIT = 0.2

    def forward(self, maps: Tensor) -> Tensor:
        maps = maps.float()
        size = maps.shape[2:]
        z, y, x = (torch.linspace(-1, 1, n, device=maps.device) for n in size)
        z, y, one = z[:, None, None], y[:, None], torch.ones((), device=maps.device)
        weights = torch.stack([w.expand(size).flatten() for w in (one, z, y, x, z * y, z * x, y * x)], 1)
        flat = maps.flatten(2)
        moments = flat @ (weights / len(weights))
        mean = moments[..., :1]
        relative = moments[..., 1:].abs() / (mean.abs() + 1e-3) / self._UNIT
        return torch.cat([mean.flatten(1), flat.amax(2), relative.flatten(1)], 1)


class LineProfiles(nn.Module):
    """A small network on profiles along rows and along columns.

    The two directions share it, so that it does not matter along which axis the scanner encoded the phase.
    (batch, 1, slice, row, column) → (batch, 8 × width).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = 8 * width
        widths, strides = (width, width, 2 * width, 2 * width), ((1, 1, 1), (2, 2, 1), (2, 2, 1), (2, 2, 1))
        layers: list[nn.Module] = [nn.BatchNorm3d(6)]
        for before, after, stride in zip((6, *widths), widths, strides, strict=False):
            layers += [nn.Conv3d(before, after, (3, 5, 1), stride, (1, 2, 0)), nn.BatchNorm3d(after), nn.ReLU()]
        self.network = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            profiles = zip(*(_profiles(image) for image in images[:, 0].float()), strict=True)
            first, second = (torch.stack(each)[..., None] for each in profiles)
        first, second = self._pooled(first), self._pooled(second)
        return torch.cat([torch.maximum(first, second), first + second], 1)

    def _pooled(self, profiles: Tensor) -> Tensor:
        """Mean and maximum of what the network makes of the profiles (batch, 6, slice, position, 1)."""
        maps = self.network(profiles).flatten(2)
        return torch.cat([maps.mean(2), maps.amax(2)], 1)


def _profiles(image: Tensor) -> tuple[Tensor, Tensor]:
    """Profiles along rows and along columns of (slice, row, column): each (6, slice, position).

    The six are the means along the line of the image and of its second differences across and along the line, then
    their logarithms.
    """
    in_column = F.pad((image[:, 2:] + image[:, :-2]).sub_(image[:, 1:-1], alpha=2).abs_(), (0, 0, 1, 1))
    in_row = F.pad((image[:, :, 2:] + image[:, :, :-2]).sub_(image[:, :, 1:-1], alpha=2).abs_(), (1, 1))
    across_columns = torch.stack([image.mean(1), in_row.mean(1), in_column.mean(1)])
    across_rows = torch.stack([image.mean(2), in_column.mean(2), in_row.mean(2)])
    first, second = (torch.cat([p, torch.log(p + _FLOOR)]) for p in (across_columns, across_rows))
    return first, second


def compact_resnet(width: int) -> tuple[nn.Module, int]:
    """Most shipped members' encoder; 72 × width features."""
    encoder = CompactResNet(width)
    return encoder, encoder.features


class Entry(NamedTuple):
    """An encoder's builder, which takes the width and gives the module and its features' number; and its own width."""

    build: Callable[[int], tuple[nn.Module, int]]
    own_width: int


# Each module maps (batch, 1, slice, row, column) to (batch, features).
ENCODERS: dict[str, Entry] = {
    "compact-resnet": Entry(compact_resnet, 16),
    "mirror-resnet": Entry(mirror_resnet, 16),
    "head-resnet": Entry(head_resnet, 16),
    "atlas-resnet": Entry(atlas_resnet, 20),
    "field-unet": Entry(field_unet, 16),
    "tissue-unet": Entry(tissue_unet, 16),
    "plane-profiles": Entry(plane_profile_network, 24),
    "tile-profiles": Entry(tile_profile_network, 16),
    "resnet10": Entry(partial(published.resnet, blocks=(1, 1, 1, 1), bottleneck=False), 64),
    "resnet18": Entry(partial(published.resnet, blocks=(2, 2, 2, 2), bottleneck=False), 64),
    "resnet50": Entry(partial(published.resnet, blocks=(3, 4, 6, 3), bottleneck=True), 64),
    "resnet101": Entry(partial(published.resnet, blocks=(3, 4, 23, 3), bottleneck=True), 64),
    "densenet169": Entry(partial(published.densenet, blocks=(6, 12, 32, 32)), 64),
    "densenet264": Entry(partial(published.densenet, blocks=(6, 12, 64, 48)), 64),
    "mednext_s": Entry(published.mednext, 32),
    "lou-cnn": Entry(published.lou, 8),
    "mambaout_tiny": Entry(partial(mambaout, blocks=(3, 3, 9, 3)), 96),
    "mambaout_small": Entry(partial(mambaout, blocks=(3, 4, 27, 3)), 96),
    "mambaout_base": Entry(partial(mambaout, blocks=(3, 4, 27, 3)), 128),
    "mlmambaout_tiny": Entry(partial(mlmambaout, blocks=(3, 3, 9, 3)), 96),
    "mlmambaout_small": Entry(partial(mlmambaout, blocks=(3, 4, 27, 3)), 96),
    "mlmambaout_base": Entry(partial(mlmambaout, blocks=(3, 4, 27, 3)), 128),
}
FUSED = "+dft"  # after an encoder's name: a second one of its kind sees the spectrum


def encoder(name: str, width: int) -> tuple[nn.Module, int]:
    """A new encoder and the number of its features; raises ConfigError for a name that is not among ENCODERS."""
    build = _entry(name).build
    if not name.endswith(FUSED):
        return build(width)
    (spatial, channels), (spectral, _) = build(width), build(width)
    return published.FourierFusion(spatial, spectral), 2 * channels


def own_width(name: str) -> int:
    """The width with which the encoder is the published one; raises ConfigError as `encoder` does."""
    return _entry(name).own_width


def _entry(name: str) -> Entry:
    if (entry := ENCODERS.get(name.removesuffix(FUSED))) is None:
        raise ConfigError(
            f'There is no encoder "{name}"; this version has {", ".join(ENCODERS)}, and each with {FUSED} behind it.'
        )
    return entry
