"""The head as a whole, as it lies in the field of view: an encoder for where it is and how it is turned.

Of the three ways to turn a head, two tilt the plane that mirrors it best, which is searched; the third, nodding, is
seen in the anatomy alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qcnode.ensemble.blocks import BRIGHTEST, LookingEncoder, inside
from qcnode.ensemble.mirror import FIGURES, mirror_plane_of, plane_figures
from qcnode.imaging.preprocess import BLOCKS_SHAPE

_FLOOR = 0.05  # added before a logarithm
_LAST = (5, 5, 5)  # the last map's size


class WholeHeadEncoder(LookingEncoder):
    """An encoder that looks at the blocks themselves, and at how the plane lies that mirrors the head best."""

    def look(self, blocks: Tensor) -> Tensor:
        """The blocks themselves, then the mirror plane's figures (FIGURES,), in one row."""
        return torch.cat([blocks.flatten(), plane_figures(mirror_plane_of(blocks))])


def channels_of(looks: Tensor) -> Tensor:
    """The blocks, their logarithm, and where the head is: (batch, 3, slice, block row, block column)."""
    blocks = looks[:, :-FIGURES].reshape(-1, 1, *BLOCKS_SHAPE).clamp(0, BRIGHTEST)
    channels = [blocks, torch.log(blocks + _FLOOR) / 2, inside(blocks)]
    return torch.cat(channels, 1).contiguous(memory_format=torch.channels_last_3d)


class HeadResNet(WholeHeadEncoder):
    """A small 3-D ResNet whose last map is not pooled: every place in the field of view keeps its own weights.

    It sees the blocks, their logarithm, and where the head is; a layer mixes that with the mirror plane's figures.
    (batch, 1, slice, row, column) → (batch, MIXED).
    """

    MIXED = 64
    _SEEN = 128

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, width, 5, 2, 2, bias=False), nn.BatchNorm3d(width), nn.ReLU(), _Block(width, 2 * width)
        )
        self.stages = nn.Sequential(_Block(2 * width, 4 * width), nn.Flatten(), nn.Dropout(0.2))
        self.seen = nn.Sequential(nn.Linear(4 * width * _LAST[0] * _LAST[1] * _LAST[2], self._SEEN), nn.ReLU())
        self.figures_norm = nn.BatchNorm1d(FIGURES)
        self.mix = nn.Sequential(nn.Dropout(0.2), nn.Linear(self._SEEN + FIGURES, self.MIXED), nn.ReLU())

    def features_of(self, looks: Tensor) -> Tensor:
        """See `look`."""
        maps = self.stages(self.stem(channels_of(looks)))
        mixed: Tensor = self.mix(torch.cat([self.seen(maps.float()), self.figures_norm(looks[:, -FIGURES:])], 1))
        return mixed


class _Block(nn.Module):
    """Two convolutions beside a straight way, at half the size."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(before, after, 3, 2, 1, bias=False), nn.BatchNorm3d(after), nn.ReLU())
        self.second = nn.Sequential(nn.Conv3d(after, after, 3, 1, 1, bias=False), nn.BatchNorm3d(after))
        self.straight = nn.Conv3d(before, after, 1, 2, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.relu(self.second(self.first(maps)) + self.straight(maps))


def head_resnet(width: int) -> tuple[nn.Module, int]:
    """64 features."""
    return HeadResNet(width), HeadResNet.MIXED
