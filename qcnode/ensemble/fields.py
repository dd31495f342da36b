"""An encoder that draws what it sees: where the brain is, how the image is shaded and bent, how the head lies.

A severity is one of three numbers a scan; a simulator knows a number at every place. A network that is to name those
learns from few heads what a grade alone would not teach it, and its grade stands on what it drew.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qcnode.ensemble.heads import WholeHeadEncoder, channels_of
from qcnode.ensemble.mirror import FIGURES

SHARES = 3  # the first fields, as logits: shares of brain, of grey and of white matter
FIELDS = SHARES + 4  # then the logarithm of the shading, and the displacement along (slice, row, column)
FIELD_SHAPE = (20, 18, 18)  # places, of two blocks each way
DISPLACEMENT_MM = 5.0  # what counts as 1
POSE = 6  # rotation about (slice, row, column) in units of POSE_DEGREES, then offset along them in units of POSE_MM
POSE_DEGREES, POSE_MM = 10.0, 10.0

_PLACE_MM = (10.0, 12.8, 12.8)
_SHARPNESS = 8.0  # of softened maxima


class FieldUNet(WholeHeadEncoder):
    """A small 3-D U-Net (arXiv 1606.06650) whose coarsest maps keep their places in the field of view.

    Features are a mix of its pooled maps, of the head's pose as it names it, of figures of the fields that it drew, and
    of the mirror plane's. (batch, 1, slice, row, column) → (batch, MIXED).
    """

    MIXED = 64
    _SEEN = 128
    _DRAWN = 28  # figures of the fields

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = _convolved(3, width, 5, 2)
        self.fine = _Residual(width, width, 1)
        self.middle = nn.Sequential(_Residual(width, 2 * width, 2), _Residual(2 * width, 2 * width, 1))
        self.coarse = nn.Sequential(_Residual(2 * width, 4 * width, 2), _Residual(4 * width, 4 * width, 1))
        coarsest = (5, 5, 5)
        places = coarsest[0] * coarsest[1] * coarsest[2]
        self.seen = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(4 * width * places, self._SEEN), nn.ReLU())
        self.pose = nn.Linear(self._SEEN, POSE)
        self.told = nn.Linear(self._SEEN, 4 * width)  # what was seen of the whole, to every place
        self.to_middle = _convolved(4 * width + 2 * width, 2 * width, 3, 1)
        self.to_fine = _convolved(2 * width + width, width, 3, 1)
        self.fields = nn.Conv3d(width, FIELDS, 1)
        pooled = 2 * width * 2 + width * 2
        self.norm = nn.BatchNorm1d(pooled + self._DRAWN + POSE + FIGURES)
        self.mix = nn.Sequential(
            nn.Dropout(0.2), nn.Linear(self._SEEN + pooled + self._DRAWN + POSE + FIGURES, self.MIXED), nn.ReLU()
        )

    def features_of(self, looks: Tensor) -> Tensor:
        """See `look`."""
        return self.drawn(looks)[0]

    def drawn(self, looks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (batch, MIXED), fields (batch, FIELDS, *FIELD_SHAPE) and pose (batch, POSE)."""
        channels = channels_of(looks)
        fine = self.fine(self.stem(channels))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        seen = self.seen(coarse)
        coarse = coarse + self.told(seen)[..., None, None, None]
        middle = self.to_middle(torch.cat([_enlarged(coarse, middle), middle], 1))
        fine = self.to_fine(torch.cat([_enlarged(middle, fine), fine], 1))
        fields, pose = self.fields(fine).float(), self.pose(seen).float()
        pooled = [each.flatten(2) for each in (middle.float(), fine.float())]
        figures = [statistic for each in pooled for statistic in (each.mean(2), each.amax(2))]
        figures += [figures_of(fields, channels[:, 0]), pose.abs(), looks[:, -FIGURES:]]
        mixed: Tensor = self.mix(torch.cat([seen.float(), self.norm(torch.cat(figures, 1))], 1))
        return mixed, fields, pose


def figures_of(fields: Tensor, blocks: Tensor) -> Tensor:
    """Figures (batch, 28) of fields that were drawn of blocks (batch, slice, row, column)."""
    brain, grey, white = fields[:, :SHARES].sigmoid().unbind(1)
    share = brain / brain.sum((1, 2, 3), keepdim=True).clamp_min(1)
    shading = fields[:, SHARES].clamp(-3, 3)
    seen = F.avg_pool3d(blocks, 2) / shading.exp()
    return torch.cat(
        [
            _lying(brain),
            contrast_figures(seen, brain, grey, white),
            unevenness_figures(shading, share),
            _bent(fields[:, -3:], share),
        ],
        1,
    )


def _lying(brain: Tensor) -> Tensor:
    """Where the brain is, how it lies and where it ends: (batch, 15)."""
    volume = brain.sum((1, 2, 3)).clamp_min(1)
    places = [
        (torch.arange(n, device=brain.device) - (n - 1) / 2) * mm / 10
        for n, mm in zip(brain.shape[1:], _PLACE_MM, strict=True)
    ]
    profiles = [brain.sum(others) for others in ((2, 3), (1, 3), (1, 2))]
    centre = [(profile * place).sum(1) / volume for profile, place in zip(profiles, places, strict=True)]
    about = [place - middle[:, None] for place, middle in zip(places, centre, strict=True)]
    spread = [
        ((profile * off**2).sum(1) / volume).clamp_min(1e-2).sqrt()
        for profile, off in zip(profiles, about, strict=True)
    ]
    askew = []  # mixed second moments: a long body's own axes against the scan's
    for first, second, other in ((0, 1, 3), (0, 2, 2), (1, 2, 1)):
        mixed = torch.einsum("bij,bi,bj->b", brain.sum(other), about[first], about[second]) / volume
        askew.append(3 * mixed / (spread[first] * spread[second]))
    ends = [torch.maximum(profile[:, :2].sum(1), profile[:, -2:].sum(1)) / volume * 10 for profile in profiles]
    offset = (torch.stack(centre).square().sum(0) + 1e-3).sqrt()
    return torch.stack(
        [volume.log(), *(each.log() for each in spread), *centre, offset, *askew, *ends, torch.stack(ends).amax(0)], 1
    )


def contrast_figures(seen: Tensor, brain: Tensor, grey: Tensor, white: Tensor) -> Tensor:
    """What grey and white matter give where they fill a place, by least squares over the brain: (batch, 3).

    Their difference, its size, and their mean, relative to the brain's.
    """
    mean = (brain * seen).sum((1, 2, 3), keepdim=True) / brain.sum((1, 2, 3), keepdim=True).clamp_min(1)
    parts = torch.stack([grey, white, (brain - grey - white).clamp_min(0), 1 - brain], 1).flatten(2)
    weighted = parts * brain.flatten(1)[:, None]
    normal = weighted @ parts.transpose(1, 2) + torch.eye(4, device=seen.device)
    said = torch.linalg.solve(normal, weighted @ (seen / mean.clamp_min(0.05)).flatten(1)[..., None])[..., 0]
    difference = 3 * (said[:, 0] - said[:, 1])
    return torch.stack([difference, difference.abs(), (said[:, 0] + said[:, 1]) / 2], 1)


def unevenness_figures(shading: Tensor, share: Tensor, sharpness: float = _SHARPNESS) -> Tensor:
    """How far the shading's ends lie from its mean, and from one another, and its spread: (batch, 4)."""
    brightest, darkest = _softly_most(shading, share, sharpness), _softly_most(-shading, share, sharpness)
    off = shading - (share * shading).sum((1, 2, 3), keepdim=True)
    spread = ((share * off**2).sum((1, 2, 3)) + 1e-4).sqrt()
    return torch.stack([brightest, darkest, brightest + darkest, spread], 1)


def _bent(displacement: Tensor, share: Tensor) -> Tensor:
    """Of displacement and strain the largest and the mean; how much the first differs over the brain: (batch, 6)."""
    length = (displacement.square().sum(1) + 1e-4).sqrt()
    strain = (_strain(displacement).square().sum((1, 2)) + 1e-4).sqrt() / 0.2
    figures = [
        each for field in (length, strain) for each in (_softly_most(field, share), (share * field).sum((1, 2, 3)))
    ]
    off = displacement - (share[:, None] * displacement).sum((2, 3, 4), keepdim=True)
    spread = ((share[:, None] * off**2).sum((2, 3, 4)) + 1e-4).sqrt()
    return torch.stack([*figures, spread.amax(1), spread.mean(1)], 1)


def _softly_most(values: Tensor, share: Tensor, sharpness: float = _SHARPNESS) -> Tensor:
    """About the largest of values (batch, …), each of which counts by its share."""
    return ((share.flatten(1) + 1e-9).log() + sharpness * values.flatten(1)).logsumexp(1) / sharpness


def _strain(displacement: Tensor) -> Tensor:
    """The symmetric part of the displacement's gradient, (batch, 3, 3, …), by central differences."""
    slopes = [
        torch.gradient(displacement, spacing=mm / DISPLACEMENT_MM, dim=axis)[0]
        for axis, mm in zip((2, 3, 4), _PLACE_MM, strict=True)
    ]
    gradient = torch.stack(slopes, 2)
    return (gradient + gradient.transpose(1, 2)) / 2


def _enlarged(maps: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(maps, like.shape[2:], mode="trilinear", align_corners=False)


def _convolved(before: int, after: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(before, after, kernel, stride, kernel // 2, bias=False), nn.BatchNorm3d(after), nn.ReLU()
    )


class _Residual(nn.Module):
    """Two convolutions beside a straight way."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = _convolved(before, after, 3, stride)
        self.second = nn.Sequential(nn.Conv3d(after, after, 3, 1, 1, bias=False), nn.BatchNorm3d(after))
        same = before == after and stride == 1
        self.straight = nn.Identity() if same else nn.Conv3d(before, after, 1, stride, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.relu(self.second(self.first(maps)) + self.straight(maps))


def field_unet(width: int) -> tuple[nn.Module, int]:
    """64 features."""
    return FieldUNet(width), FieldUNet.MIXED
