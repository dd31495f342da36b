"""Scans as blocks of voxels, for encoders that look at a head as a whole, and the part of them that does not learn."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qcnode.imaging.preprocess import BLOCK, BLOCKS_SHAPE

BLOCK_MM = (5.0, 6.4, 6.4)  # near enough
BRIGHTEST = 2.5  # means of the foreground; what is brighter would decide alone how a head lies
SKIN = 0.35  # means of the foreground: where the air ends
_SKIN_WIDTH = 0.06  # and how softly


def blocks_of(images: Tensor) -> Tensor:
    """(batch, 1, slice, row, column), whole or blocks already → (batch, slice, block row, block column)."""
    return (images if images.shape[2:] == BLOCKS_SHAPE else F.avg_pool3d(images, BLOCK))[:, 0]


def inside(coarse: Tensor) -> Tensor:
    """Where the head is, 0 to 1, in blocks or what was interpolated between them."""
    return torch.sigmoid((coarse - SKIN) / _SKIN_WIDTH)


class LookingEncoder(nn.Module):
    """An encoder whose first part is fixed, so that training makes its look at a scan once and keeps it."""

    @abstractmethod
    def look(self, blocks: Tensor) -> Tensor:
        """What the fixed part makes of one scan: (slice, block row, block column) → (figure,)."""

    @abstractmethod
    def features_of(self, looks: Tensor) -> Tensor:
        """What the learned part makes of looks: (batch, figure) → (batch, feature)."""

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 1, slice, row, column), or looks that were made before (batch, figure), → (batch, feature)."""
        if images.dim() > 2:
            with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
                images = torch.stack([self.look(blocks) for blocks in blocks_of(images.float())])
        return self.features_of(images)
