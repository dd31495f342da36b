"""An encoder that draws tissues, shading, and how much contrast is left, and names severities by what it drew."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qcnode.ensemble.fields import unevenness_figures
from qcnode.ensemble.regions import RegionUNet

_SHARPNESS = 40.0  # of softened maxima of the shading


class TissueUNet(RegionUNet):
    """Maps of regions: the logarithm of the shading, and the contrast of grey and white matter."""

    REGIONS = 2
    FIGURES = 7

    def figures_of(self, regions: Tensor, brain: Tensor, share: Tensor) -> Tensor:
        """How uneven the shading is, and the contrast.

        Of that its mean over the brain, how far above that it lies where it is more (the mean over the brain), and how
        much it differs.
        """
        shading, contrast = regions.unbind(1)
        # What is drawn of the shading in air is nobody's: there it is made the mean, so that no end of it lies there.
        shading = brain * (shading - (share * shading).sum((1, 2, 3), keepdim=True))
        mean = (share * contrast).sum((1, 2, 3))
        off = contrast - mean[:, None, None, None]
        above = (share * off.clamp_min(0)).sum((1, 2, 3))
        spread = ((share * off**2).sum((1, 2, 3)) + 1e-4).sqrt()
        return torch.cat([unevenness_figures(shading, share, _SHARPNESS), torch.stack([mean, above, spread], 1)], 1)


def tissue_unet(width: int) -> tuple[nn.Module, int]:
    """64 features."""
    return TissueUNet(width), TissueUNet.MIXED
