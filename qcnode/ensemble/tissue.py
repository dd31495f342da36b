"""An encoder that draws tissues, shading, and how much contrast is left, and names severities by what it drew.

A scan's severity is one number, from which filters learn little; what it was made with at every place teaches them at
every place. So the maps are learned from that alone, and the features are of maps that no head can bend: where heads
could, not even the brain was found.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from qcnode.ensemble.fields import unevenness_figures

SHARES = 3  # maps of places, as logits: shares of brain, of grey and of white matter
PLACE = 2  # voxels of a slice that a place spans each way: about 3.2 mm
REGION = 8  # voxels of a slice that a region spans each way: about 12.8 mm
APART = 3  # slices, so that a stack of those that are looked at is about as coarse along as within
_BRIGHTEST = 3.5  # means of the foreground
_FLOOR = 0.05  # added before a logarithm
_SHARPNESS = 40.0  # of softened maxima of the shading


class TissueUNet(nn.Module):
    """A U-Net on slices, whose coarsest maps hear of the slices beside them.

    It draws shares of brain, of grey and of white matter at every place, and two maps of regions: the logarithm of the
    shading, and the contrast of grey and white matter.

    It looks at every APARTth slice, from each of the first; features are the mean. While it trains it looks at one such
    stack, as chance has it, or is given it alone (`every_third`). Slices that are padding are left out.

    Features are a mix of figures of what was drawn, and of maps of the regions in the drawn brain.
    (batch, 1, slice, row, column) → (batch, MIXED).
    """

    MIXED = 64
    REGIONS = 2  # maps of regions
    FIGURES = 7  # of what was drawn

    def __init__(self, width: int) -> None:
        super().__init__()
        self.is_given_one = False
        fine, middle, coarse = width, 2 * width, 3 * width
        self.norm = nn.BatchNorm2d(2)
        self.fine = nn.Sequential(_convolved(2, fine, 5, 2), _convolved(fine, fine))
        self.middle = nn.Sequential(_convolved(fine, middle, stride=2), _convolved(middle, middle))
        self.coarse = nn.Sequential(_convolved(middle, coarse, stride=2), _convolved(coarse, coarse))
        self.across = _convolved_across(coarse, middle)
        self.added = _convolved_across(middle, middle)
        self.regions = nn.Conv3d(middle, self.REGIONS, 1)
        self.to_middle, self.at_middle = nn.Conv2d(middle, middle, 1), _convolved(middle, middle)
        self.to_fine, self.at_fine = nn.Conv2d(middle, fine, 1), _convolved(fine, fine)
        self.shares = nn.Conv2d(fine, SHARES, 1)
        self.laid = _Laid()
        self.deep = _convolved_across(middle + self.REGIONS, coarse)
        self.mix = nn.Sequential(nn.Dropout(0.2), nn.Linear(self.FIGURES + middle + 2 * coarse, self.MIXED), nn.ReLU())
        for weight in self.parameters():
            if weight.dim() == 4:  # of a convolution, laid out as it runs fastest on maps that are laid out so
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        scans = images[:, 0].float().clamp(0, _BRIGHTEST)
        kept = scans.amax((2, 3)) > 0  # (batch, slice)
        if self.training and self.is_given_one:
            return self._looked(scans, kept)
        firsts = [int(torch.randint(APART, ()))] if self.training else range(APART)
        stacks = [slice(first, None, APART) for first in firsts]
        return torch.stack([self._looked(scans[:, stack], kept[:, stack]) for stack in stacks]).mean(0)

    def _looked(self, scans: Tensor, there: Tensor) -> Tensor:
        """Features by the slices that are there; what it draws goes through `laid`."""
        slices = scans[there][:, None]
        seen = torch.cat([slices, torch.log(slices + _FLOOR)], 1)
        fine = self.fine(self.norm(seen).contiguous(memory_format=torch.channels_last))
        middle = self.middle(fine)
        inside = there[:, None, :, None, None]
        across = self.across(_stacked(self.coarse(middle), there)) * inside
        across = across + self.added(across) * inside
        regions = self.regions(across) * inside
        middle = self.at_middle(middle + _wider(self.to_middle(_slices_of(across, there))))
        fine = self.at_fine(fine + _wider(self.to_fine(middle)))
        with torch.autocast(scans.device.type, enabled=False):
            shares, regions = self.laid(self.shares(fine.float()), regions.float(), there)
            shares, regions, across = shares.detach(), regions.detach(), across.detach()
            brain = _stacked(F.avg_pool2d(shares[:, :1].sigmoid(), REGION // PLACE), there)[:, 0]
            share = brain / brain.sum((1, 2, 3), keepdim=True).clamp_min(1)
            figures = [figures_of(regions, brain, share), (across.float() * share[:, None]).sum((2, 3, 4))]
        halves = F.max_pool3d(torch.cat([across, regions.to(across.dtype)], 1), (1, 2, 2))
        deep = (self.deep(halves) * inside).float()
        count = inside.sum(2, keepdim=True).clamp_min(1)
        figures += [(deep / count).sum(2).mean((2, 3)), deep.amax((2, 3, 4))]
        with torch.autocast(scans.device.type, enabled=False):
            mixed: Tensor = self.mix(torch.cat(figures, 1))
            return mixed


def figures_of(regions: Tensor, brain: Tensor, share: Tensor) -> Tensor:
    """Figures (batch, FIGURES) of maps of regions (batch, REGIONS, slice, row, column).

    How uneven the shading is; of the contrast its mean over the brain, how far above that it lies where it is more (the
    mean over the brain), and how much it differs. brain: (batch, slice, row, column), its share of each region; share:
    that of the brain which lies there.
    """
    shading, contrast = regions.unbind(1)
    # What is drawn of the shading in air is nobody's: there it is made the mean, so that no end of it lies there.
    shading = brain * (shading - (share * shading).sum((1, 2, 3), keepdim=True))
    mean = (share * contrast).sum((1, 2, 3))
    off = contrast - mean[:, None, None, None]
    above = (share * off.clamp_min(0)).sum((1, 2, 3))
    spread = ((share * off**2).sum((1, 2, 3)) + 1e-4).sqrt()
    return torch.cat([unevenness_figures(shading, share, _SHARPNESS), torch.stack([mean, above, spread], 1)], 1)


def every_third(maps: NDArray[Any], first: int) -> NDArray[Any]:
    """Every APARTth slice of maps (…, slice, row, column) from the first; zeros where there are fewer than from 0."""
    its = maps[..., first::APART, :, :]
    missing = -(-maps.shape[-3] // APART) - its.shape[-3]
    return np.pad(its, [*[(0, 0)] * (maps.ndim - 3), (0, missing), (0, 0), (0, 0)]) if missing else its


def _stacked(slices: Tensor, there: Tensor) -> Tensor:
    """(slice, channel, row, column) of those that are there → (batch, channel, slice, row, column), else zero."""
    stacks = slices.new_zeros(*there.shape, *slices.shape[1:])
    stacks[there] = slices
    return stacks.transpose(1, 2).contiguous(memory_format=torch.channels_last_3d)


def _slices_of(stacks: Tensor, there: Tensor) -> Tensor:
    """The other way round."""
    return stacks.transpose(1, 2)[there].contiguous(memory_format=torch.channels_last)


def _wider(maps: Tensor) -> Tensor:
    return F.interpolate(maps, scale_factor=2.0)


class _Laid(nn.Module):
    """Passes on what was drawn: shares (slice, SHARES, row, column) and regions (batch, REGIONS, slice, row, column).

    Here it is watched while the encoder learns (`train.sampling.fields.watched`).
    """

    def forward(self, shares: Tensor, regions: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """there: (batch, slice), which of the regions' slices the shares are of."""
        return shares, regions


def _convolved(before: int, after: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, size, stride, size // 2, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )


def _convolved_across(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(before, after, 3, padding=1, bias=False),
        nn.BatchNorm3d(after),
        nn.ReLU(inplace=True),
    )


def tissue_unet(width: int) -> tuple[nn.Module, int]:
    """64 features."""
    return TissueUNet(width), TissueUNet.MIXED
