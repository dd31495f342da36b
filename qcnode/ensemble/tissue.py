"""An encoder that draws grey matter, white matter, brain and shading slice by slice, and says what they look like.

How much contrast is left between grey and white matter is seen in voxels, not in blocks, which mix the two: so both are
drawn first, as finely as can be afforded, and what each of them gives is measured on what was drawn.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qcnode.ensemble.fields import contrast_figures, unevenness_figures

SHARES = 3  # the first maps, as logits: shares of brain, of grey and of white matter
MAPS = SHARES + 1  # then the logarithm of the shading
PLACE = 2  # voxels of a slice that a place of the maps spans each way: about 3.2 mm
_AIR = -15.0  # the logit of a share where there is no slice
_BRIGHTEST = 3.5  # means of the foreground
_FLOOR = 0.05  # added before a logarithm
_SHARPNESS = 40.0  # of softened maxima of the shading
_REACH = 2  # slices, so that every second one of a scan is enough
_STEEPEST = 2.5  # logarithm of a shading
_FIGURES = 9  # of what was drawn


class TissueUNet(nn.Module):
    """A U-Net on slices, each beside its neighbours; slices that are padding are left out.

    Two by two voxels are one place with four channels, so that nothing is thrown away and all is drawn on a quarter
    of the places. On its coarsest maps each slice hears of those _REACH before and after, and of the whole scan: where
    white matter has to be when it looks like grey is known from anatomy alone.

    While it trains it looks at every second slice of a scan. Those between show nearly the same, and twice as many
    scans are learned from in the time.

    Features are a mix of figures of what was drawn, and of maps averaged over the drawn brain.
    (batch, 1, slice, row, column) → (batch, MIXED).
    """

    MIXED = 64

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width << level for level in range(4)]
        self.enter = nn.Sequential(_convolved(4 * PLACE**2, width), _convolved(width, width))
        self.down = nn.ModuleList(
            nn.Sequential(_convolved(fine, coarse, stride=2), _convolved(coarse, coarse))
            for fine, coarse in pairwise(widths)
        )
        self.through = nn.ModuleList(_Through(widths[-1]) for _ in range(2))
        self.whole = nn.Linear(widths[-1], widths[-1])
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairwise(widths))
        self.merged = nn.ModuleList(_convolved(fine, fine) for fine in widths[:-1])
        self.finest = _convolved(width, width)
        self.maps = nn.Linear(width, MAPS)
        self.laid = _Laid()
        seen = _FIGURES + 2 * width + widths[-1]
        self.mix = nn.Sequential(nn.Dropout(0.2), nn.Linear(seen, self.MIXED), nn.ReLU())
        for weight in self.parameters():
            if weight.dim() == 4:  # of a convolution, laid out as it runs fastest on maps that are laid out so
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        return self.drawn(images)[0]

    def drawn(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (batch, MIXED), and maps (batch, MAPS, slice, row, column) of PLACEs; padding is drawn as air."""
        scans = images[:, 0].float().clamp(0, _BRIGHTEST)
        kept = scans.amax((2, 3)) > 0  # (batch, slice)
        if self.training:
            kept = kept & _every_second(kept)
        scan = kept.nonzero()[:, 0]  # of each slice
        levels = [self.enter(_channels_of(scans, kept))]
        for down in self.down:
            levels.append(down(levels[-1]))
        rows = _rows(levels.pop())
        before, after = _neighbours(kept)
        for through in self.through:
            rows = through(rows, before, after)
        of_scan = _mean_of_scans(rows.float().mean((1, 2)), scan, len(scans))
        maps = (rows + self.whole(of_scan)[scan, None, None].to(rows.dtype)).permute(0, 3, 1, 2)
        for fine, up, merged in zip(reversed(levels), reversed(self.up), reversed(self.merged), strict=True):
            maps = merged(fine + F.interpolate(up(maps), scale_factor=2.0))
        finest = _rows(self.finest(maps))
        with torch.autocast(images.device.type, enabled=False):
            finest, rows = finest.float(), rows.float()
            drawn: Tensor = self.laid(self.maps(finest), kept)
            brain = drawn[:, 0].sigmoid()[kept]
            figures = [figures_of(drawn, F.avg_pool2d(scans, PLACE))]
            figures += _over_brain(finest, brain, scan, len(scans))
            figures += _over_brain(rows, F.avg_pool2d(brain[:, None], 8)[:, 0], scan, len(scans))[:1]
            mixed: Tensor = self.mix(torch.cat(figures, 1))
            return mixed, drawn


def figures_of(maps: Tensor, places: Tensor) -> Tensor:
    """Figures (batch, 9) of maps (batch, MAPS, slice, row, column) that were drawn of places (batch, slice, …).

    What grey and white matter give by least squares, the difference of their means, how far the brain is from what
    both make it, and how uneven the shading is.
    """
    brain, grey, white = maps[:, :SHARES].sigmoid().unbind(1)
    share = brain / brain.sum((1, 2, 3), keepdim=True).clamp_min(1)
    shading = maps[:, SHARES].clamp(-_STEEPEST, _STEEPEST)
    seen = places / shading.exp()
    seen = seen / (share * seen).sum((1, 2, 3), keepdim=True).clamp_min(0.05)
    means = [(part * seen).sum((1, 2, 3)) / part.sum((1, 2, 3)).clamp_min(1) for part in (brain * grey, brain * white)]
    spread = ((share * (seen - 1) ** 2).sum((1, 2, 3)) + 1e-4).sqrt()
    own = torch.stack([3 * (means[0] - means[1]), spread], 1)
    # What is drawn of the shading in air is nobody's: there it is made the mean, so that no end of it lies there.
    shading = brain * (shading - (share * shading).sum((1, 2, 3), keepdim=True))
    uneven = unevenness_figures(shading, share, _SHARPNESS)
    return torch.cat([contrast_figures(seen, brain, grey, white), own, uneven], 1)


def _channels_of(scans: Tensor, kept: Tensor) -> Tensor:
    """(batch, slice, row, column) → (slice, channel, …): each slice that is kept, its neighbours and its logarithm."""
    beside = F.pad(scans, (0, 0, 0, 0, 1, 1))
    stacks = [beside[:, :-2], scans, beside[:, 2:], torch.log(scans + _FLOOR) / 2]
    slices = torch.stack([each[kept] for each in stacks], -1)  # channels last, as convolutions run fastest
    count, rows, columns, channels = slices.shape
    pairs = slices.view(count, rows // PLACE, PLACE, columns // PLACE, PLACE * channels).transpose(2, 3)
    return pairs.flatten(3).permute(0, 3, 1, 2)


def _rows(maps: Tensor) -> Tensor:
    """(slice, channel, row, column) → (slice, row, column, channel), as they lie in memory already."""
    return maps.permute(0, 2, 3, 1)


def _every_second(kept: Tensor) -> Tensor:
    """Every second place along the slices, from the first or from the second as chance has it: like `kept`."""
    first = torch.randint(2, (len(kept), 1), device=kept.device)
    return (torch.arange(kept.shape[1], device=kept.device) + first) % 2 == 0


def _neighbours(kept: Tensor) -> tuple[Tensor, Tensor]:
    """Of each slice that is kept, (batch, slice), the numbers of those before and after it; their count for none."""
    count = int(kept.sum())
    number = torch.where(kept, kept.flatten().cumsum(0).view(kept.shape) - 1, count)
    beside = F.pad(number, (_REACH, _REACH), value=count)
    return beside[:, : -2 * _REACH][kept], beside[:, 2 * _REACH :][kept]


def _mean_of_scans(values: Tensor, scan: Tensor, scans: int, weight: Tensor | None = None) -> Tensor:
    """The weighted mean of slices' values (slice, channel) over each scan: (scan, channel)."""
    weight = torch.ones_like(values[:, 0]) if weight is None else weight
    total = values.new_zeros(scans, values.shape[1]).index_add(0, scan, values * weight[:, None])
    return total / values.new_zeros(scans).index_add(0, scan, weight).clamp_min(1e-2)[:, None]


def _over_brain(rows: Tensor, brain: Tensor, scan: Tensor, scans: int) -> list[Tensor]:
    """Mean over the brain, and how much that of slices differs, of (slice, row, column, channel): (scan, channel)."""
    weight = brain.sum((1, 2))
    of_slices = (brain.flatten(1)[:, None] @ rows.flatten(1, 2))[:, 0] / weight.clamp_min(1e-2)[:, None]
    mean = _mean_of_scans(of_slices, scan, scans, weight)
    return [mean, (_mean_of_scans((of_slices - mean[scan]) ** 2, scan, scans, weight) + 1e-4).sqrt()]


class _Laid(nn.Module):
    """Slices' maps (slice, row, column, MAPS) laid where their slices are: (batch, MAPS, slice, row, column)."""

    def forward(self, maps: Tensor, kept: Tensor) -> Tensor:
        """kept: (batch, slice), where there is one."""
        air = maps.new_tensor([_AIR] * SHARES + [0.0])
        laid = air.expand(*kept.shape, *maps.shape[1:]).clone()
        laid[kept] = maps
        return laid.permute(0, 4, 1, 2, 3).contiguous()


class _Through(nn.Module):
    """What a slice's neighbours add to its maps (slice, row, column, channel)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.added = nn.Linear(3 * channels, channels, bias=False)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, rows: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """before, after: see `_neighbours`."""
        with_none = torch.cat([rows, torch.zeros_like(rows[:1])])
        added = self.added(torch.cat([with_none[before], rows, with_none[after]], 3))
        return rows + torch.relu(self.norm(added.flatten(0, 2))).view(rows.shape)


def _convolved(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )


def tissue_unet(width: int) -> tuple[nn.Module, int]:
    """64 features."""
    return TissueUNet(width), TissueUNet.MIXED
