"""An encoder that draws how a head is displaced and stretched, and names severities by what it drew."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qcnode.ensemble.regions import RegionUNet, convolved_across

DISPLACEMENT_MM, STRAIN = 5.0, 0.1  # what counts as 1
_SHARPNESS = 3.0  # of softened maxima


class BendUNet(RegionUNet):
    """Maps of regions, of a deformation along (slice, row, column).

    The length of the displacement, and the largest relative change of length; then the displacement, and the symmetric
    part of its gradient (its diagonal, then row and column, slice and column, slice and row). A bend is seen against
    the shape of the head, so that a region hears of what is far from it, too.
    """

    REGIONS = 11
    FIGURES = 12

    def __init__(self, width: int) -> None:
        super().__init__(width)
        middle, coarse, coarsest = 2 * width, 3 * width, 4 * width
        self.halved, self.of_halves = convolved_across(middle, coarse, 2), convolved_across(coarse, coarse)
        self.quartered, self.of_quarters = convolved_across(coarse, coarsest, 2), convolved_across(coarsest, coarsest)
        self.to_half, self.to_whole = (
            nn.Conv3d(before, after, 1, bias=False) for before, after in ((coarsest, coarse), (coarse, middle))
        )
        self.at_half, self.at_whole = convolved_across(coarse, coarse), convolved_across(middle, middle)

    def beside(self, across: Tensor, inside: Tensor) -> Tensor:
        """See the class."""
        half = self.of_halves(self.halved(across) * inside) * inside
        quarter = self.of_quarters(self.quartered(half) * inside) * inside
        half = self.at_half(half + F.interpolate(self.to_half(quarter), half.shape[2:])) * inside
        around: Tensor = self.at_whole(across + F.interpolate(self.to_whole(half), across.shape[2:])) * inside
        return around

    def figures_of(self, regions: Tensor, brain: Tensor, share: Tensor) -> Tensor:
        """Of each of four amounts its mean over the brain, how much it differs, and its largest, softly.

        The two that are named as such, and the lengths of the displacement and of the stretching as drawn.
        """
        displaced, stretched = (regions[:, part].square().sum(1) for part in (slice(2, 5), slice(5, 8)))
        sheared = 2 * regions[:, 8:].square().sum(1)
        lengths = (torch.stack([displaced, stretched + sheared], 1) + 1e-4).sqrt()
        amounts = torch.cat([regions[:, :2], lengths], 1) * brain[:, None]  # what is drawn in air is nobody's
        share = share[:, None]
        mean = (share * amounts).sum((2, 3, 4))
        spread = ((share * (amounts - mean[..., None, None, None]) ** 2).sum((2, 3, 4)) + 1e-4).sqrt()
        largest = torch.logsumexp(torch.log(share + 1e-9) + _SHARPNESS * amounts, (2, 3, 4)) / _SHARPNESS
        return torch.cat([mean, spread, largest], 1)


def bend_unet(width: int) -> tuple[nn.Module, int]:
    """64 features."""
    return BendUNet(width), BendUNet.MIXED
