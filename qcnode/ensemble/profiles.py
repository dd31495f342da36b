"""Profiles across planes: encoders for what changes the image along one direction and nowhere else.

A band of a few percent drowns in anatomy wherever one looks, but it steps at the same place all over a plane. The mean
of small steps over that plane shows it, where large ones, which are anatomy's, count no more than small ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qcnode.ensemble.blocks import LookingEncoder, blocks_of

_FLOOR = 0.01  # added before a logarithm, in means of the foreground
_CLIPS = (0.05, 0.15, 0.4)  # of a step of the logarithm
_HEAD_FROM, _AIR_TO = 0.35, 0.2  # means of the foreground
_PLANE = 400  # blocks, of the size that is 1
_FEW = 8  # blocks; planes with fewer say less
_LEAST_AIR = 16000  # pairs of neighbours, a tenth of the field of view's: fewer are the rim of a background set to zero
PROFILES = (3, 2 * (len(_CLIPS) + 1), 40)
TILES = 3  # of a plane, each way
_TILE, _FEW_OF_TILE = 60, 4  # as _PLANE and _FEW


class PlaneProfiles(LookingEncoder):
    """A small 1-D network on the profiles across slices, across rows and across columns, which share it.

    (batch, 1, slice, row, column) → (batch, 12 × width).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        channels = PROFILES[1]
        self.network = nn.Sequential(
            nn.BatchNorm1d(channels),
            *_layer(channels, width),
            *_layer(width, width),
            nn.MaxPool1d(2),
            *_layer(width, 2 * width),
            *_layer(2 * width, 2 * width),
        )
        self.features = 3 * 4 * width

    def look(self, blocks: Tensor) -> Tensor:
        """The profiles of PROFILES in one row."""
        return plane_profiles(blocks).flatten()

    def features_of(self, looks: Tensor) -> Tensor:
        """See `look`."""
        maps = self.network(looks.view(-1, *PROFILES[1:])).float()
        return torch.cat([maps.mean(2), maps.amax(2)], 1).view(len(looks), -1)


def plane_profiles(blocks: Tensor) -> Tensor:
    """The mean step over every plane across each axis, in head and in air, of one scan's blocks.

    (slice, block row, block column) → PROFILES, which is (axis, channel, position). Four of the eight channels are the
    head's and four the air's: the mean step for each of _CLIPS, relative to it, and how much of the plane there is.
    The air's are 0 where there is too little of it.
    """
    return _profiles(blocks[None], 1, _PLANE, _FEW)[0, ..., 0, 0]


class TileProfiles(nn.Module):
    """A small 3-D network on profiles of tiles of the planes across slices, across rows and across columns.

    A band that lies a little oblique comes a little later in each tile than in the one before, where the mean over a
    whole plane smears it. (batch, 1, slice, row, column) → (batch, MIXED).
    """

    MIXED = 64

    def __init__(self, width: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.BatchNorm3d(PROFILES[1]),
            *_tile_layer(PROFILES[1], width),
            *_tile_layer(width, width),
            nn.MaxPool3d((2, 1, 1)),
            *_tile_layer(width, 2 * width),
            *_tile_layer(2 * width, 2 * width),
        )
        self.joined = nn.Sequential(*_layer(2 * width * TILES**2, 2 * width), *_layer(2 * width, 2 * width))
        self.mix = nn.Sequential(nn.Dropout(0.1), nn.Linear(3 * 4 * width, self.MIXED), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            profiles = tile_profiles(blocks_of(images.float()))
        maps = self.network(profiles.flatten(0, 1))  # (batch and axis, channel, position, tile, tile)
        joined = self.joined(maps.permute(0, 1, 3, 4, 2).flatten(1, 3)).float()
        pooled = torch.cat([joined.mean(2), joined.amax(2)], 1)
        mixed: Tensor = self.mix(pooled.view(len(images), -1))
        return mixed


def tile_profiles(blocks: Tensor) -> Tensor:
    """As `plane_profiles`, of each of TILES x TILES tiles of every plane, of scans (batch, slice, row, column).

    → (batch, *PROFILES, TILES, TILES).
    """
    return _profiles(blocks, TILES, _TILE, _FEW_OF_TILE)


def _profiles(blocks: Tensor, tiles: int, unit: int, few: int) -> Tensor:
    """Profiles of so many tiles of a plane, each way: (batch, *PROFILES, tiles, tiles).

    unit: blocks of a tile, of the size that is 1. few: blocks; tiles with fewer say less.
    """
    logarithm = torch.log(blocks + _FLOOR)
    head, air = blocks > _HEAD_FROM, (blocks > 0) & (blocks < _AIR_TO)
    longest = max(blocks.shape[1:])
    profiles = []
    for axis in (1, 2, 3):
        steps = torch.diff(logarithm, dim=axis).movedim(axis, 1)
        channels = []
        for tissue in (head, air):
            lying = tissue.movedim(axis, 1)
            both = lying[:, 1:] & lying[:, :-1]
            size = _of_tiles(both.float(), tiles)
            channels += [_of_tiles(steps.clamp(-c, c) * both, tiles) / (size + few) / c for c in _CLIPS]
            channels.append(size / unit)
        profile = torch.stack(channels, 1)
        profiles.append(F.pad(profile, (0, 0, 0, 0, 0, longest - profile.shape[2])))
    of_head, of_air = torch.stack(profiles, 1).chunk(2, 2)
    enough = of_air[:, :, -1].sum((1, 2, 3, 4)) * unit >= _LEAST_AIR
    return torch.cat([of_head, of_air * enough[:, None, None, None, None, None]], 2)


def _of_tiles(planes: Tensor, tiles: int) -> Tensor:
    """The sums over tiles of planes (batch, position, …): (batch, position, tiles, tiles)."""
    batch, positions, first, second = planes.shape
    padded = F.pad(planes, (0, -second % tiles, 0, -first % tiles))
    split = padded.view(batch, positions, tiles, padded.shape[2] // tiles, tiles, padded.shape[3] // tiles)
    return split.sum((3, 5))


def _tile_layer(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv3d(before, after, (5, 3, 3), padding=(2, 1, 1), bias=False), nn.BatchNorm3d(after), nn.ReLU()]


def _layer(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv1d(before, after, 5, padding=2), nn.BatchNorm1d(after), nn.ReLU()]


def plane_profile_network(width: int) -> tuple[nn.Module, int]:
    """12 × width features."""
    encoder = PlaneProfiles(width)
    return encoder, encoder.features


def tile_profile_network(width: int) -> tuple[nn.Module, int]:
    """64 features."""
    return TileProfiles(width), TileProfiles.MIXED
