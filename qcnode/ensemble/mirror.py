"""The head beside its own reflection: an encoder for what makes a head unlike its mirror image.

A convolution cannot compare the left of a tilted head with its right. So the plane that mirrors the head best is
searched first, and the network sees both halves as they lie from that plane outwards, voxel beside voxel.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from monai.networks.nets.resnet import ResNet, ResNetBlock
from torch import Tensor, nn
from torch.nn import functional as F

from qcnode.ensemble.blocks import BLOCK_MM, BRIGHTEST, LookingEncoder, inside

_HALF = (16, 32, 32)  # of a half: from the plane outwards, and along it
_HALF_MM = 6.4
HALVES = (4, *_HALF)  # channels: mean and difference of the halves, and of where they are head
FIGURES = 8  # of the plane

_TILTS = (-36.0, -24.0, -12.0, 0.0, 12.0, 24.0, 36.0)  # degrees from a scan axis, each way, tried first
_OFFSETS_MM = (-8.0, 0.0, 8.0)  # from the head's centre
_STEP = (6.0, 6.0, 4.0)  # degrees, degrees, mm: of the first refinement; each one after it halves them


class MirrorPlane(NamedTuple):
    """likeness: correlation of the image with its reflection. normal: (3,), a unit vector. origin, centre: (3,) mm.

    origin: the plane's point nearest the head's centre. Axes are (slice, row, column), from the image's centre.
    """

    likeness: float
    normal: Tensor
    origin: Tensor
    centre: Tensor


class MirrorResNet(LookingEncoder):
    """A small 3-D ResNet on mean and difference of a head's halves, and of their outlines.

    Beside its pooled maps stand the plane's figures: how alike the halves are, how far the plane is tilted and off
    centre. A layer mixes the two. (batch, 1, slice, row, column) → (batch, MIXED).
    """

    MIXED = 64

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.resnet = ResNet(
            ResNetBlock,
            [1, 1, 1, 1],
            widths,
            n_input_channels=HALVES[0],
            conv1_t_size=3,
            conv1_t_stride=(1, 2, 2),
            no_max_pool=True,
            shortcut_type="B",
            feed_forward=False,
        )
        self.resnet.avgpool = MeanAndMaximum()
        self.figures_norm = nn.BatchNorm1d(FIGURES)
        self.mix = nn.Sequential(nn.Dropout(0.3), nn.Linear(2 * widths[-1] + FIGURES, self.MIXED), nn.ReLU())

    def look(self, blocks: Tensor) -> Tensor:
        """The channels of the halves (HALVES), then the plane's figures (FIGURES,), in one row."""
        coarse = blocks.clamp(0, BRIGHTEST)
        plane = mirror_plane(coarse)
        left, right = halves_of(coarse, plane)
        inside_left, inside_right = inside(left), inside(right)
        channels = [left + right, (left - right).abs() * 2, inside_left + inside_right]
        channels.append((inside_left - inside_right).abs() * 2)
        return torch.cat([torch.stack(channels).flatten() / 2, plane_figures(plane)])

    def features_of(self, looks: Tensor) -> Tensor:
        """See `look`."""
        halves, figures = looks[:, :-FIGURES].reshape(-1, *HALVES), looks[:, -FIGURES:]
        maps = self.resnet(halves.contiguous(memory_format=torch.channels_last_3d)).float()
        mixed: Tensor = self.mix(torch.cat([maps, self.figures_norm(figures)], 1))
        return mixed


def plane_figures(plane: MirrorPlane) -> Tensor:
    """How alike the halves are, how far the plane is tilted, how far the head and the plane are off: (FIGURES,)."""
    beside = ((plane.origin - plane.centre) @ plane.normal / 5).abs()
    likeness = beside.new_tensor([plane.likeness])
    return torch.cat([likeness, plane.normal.abs(), plane.centre.abs() / 20, beside[None]])


class MeanAndMaximum(nn.Module):
    """(batch, channels, …) → (batch, 2 × channels): each map's mean and its maximum."""

    def forward(self, maps: Tensor) -> Tensor:
        flat = maps.float().flatten(2)
        return torch.cat([flat.mean(2), flat.amax(2)], 1)


def mirror_plane_of(blocks: Tensor) -> MirrorPlane:
    """The plane of a scan's blocks, the brightest of which do not decide it alone."""
    return mirror_plane(blocks.clamp(0, BRIGHTEST))


def mirror_plane(image: Tensor) -> MirrorPlane:
    """The plane that mirrors a coarse image (slice, row, column) best: sought coarsely everywhere, then finely there.

    Its normal is within some 46 degrees, each way, of one of the three axes.
    """
    thirds, halves = (F.avg_pool3d(image[None, None], factor)[0, 0] for factor in (3, 2))
    centre = _head_centre(image)
    everywhere = torch.tensor(list(product(_TILTS, _TILTS, _OFFSETS_MM)), device=image.device)
    best = max((_best(thirds, 3, 2, centre, axis, everywhere) for axis in range(3)), key=lambda found: found.likeness)
    step = torch.tensor(_STEP, device=image.device)
    around = torch.tensor(list(product((-1.0, 0.0, 1.0), repeat=3)), device=image.device)
    for coarse, factor, every in ((halves, 2, 2), (image, 1, 8), (image, 1, 8)):
        best = _best(coarse, factor, every, centre, best.axis, best.parameters + step * around)
        step = step / 2
    return MirrorPlane(best.likeness, best.normal, centre + best.parameters[2] * best.normal, centre)


class _Candidate(NamedTuple):
    """A plane across an axis: parameters (3,) in degrees, degrees, mm from the head's centre."""

    likeness: float
    axis: int
    normal: Tensor
    parameters: Tensor


def _best(image: Tensor, factor: int, every: int, centre: Tensor, axis: int, candidates: Tensor) -> _Candidate:
    """The best of candidates (n, 3) across an axis, by one in `every` voxels of an image coarser by `factor`."""
    spacing = torch.tensor(BLOCK_MM, device=image.device) * factor
    chosen = _chosen(image.numel(), every).to(image.device)
    points, normals = _places(image, spacing)[chosen], _normals(candidates[:, :2], axis)
    distance = points @ normals.T - (normals @ centre + candidates[:, 2])  # (point, candidate)
    reflected = points[:, None] - 2 * distance[..., None] * normals
    likeness = _correlation(image.flatten()[chosen], _sample(image, reflected, spacing))
    best = int(likeness.argmax())
    return _Candidate(float(likeness[best]), axis, normals[best], candidates[best])


@lru_cache
def _chosen(voxels: int, every: int) -> Tensor:
    """One in `every` of so many indices, scattered, and the same ones each time."""
    return torch.from_numpy(np.sort(np.random.default_rng(0).permutation(voxels)[: voxels // every]))


def halves_of(image: Tensor, plane: MirrorPlane) -> Tensor:
    """A coarse image's two halves (2, *_HALF) from the plane outwards, each voxel of one at its mirror's place."""
    axis = int(plane.normal.abs().argmax())
    first, second = (other for other in range(3) if other != axis)
    along = torch.eye(3, device=image.device)[first]
    along = F.normalize(along - (along @ plane.normal) * plane.normal, dim=0)
    across = torch.linalg.cross(plane.normal, along)
    across = across * across[second].sign()
    out = (torch.arange(_HALF[0], device=image.device) + 0.5) * _HALF_MM
    u, v = ((torch.arange(n, device=image.device) - (n - 1) / 2) * _HALF_MM for n in _HALF[1:])
    on_plane = plane.origin + u[:, None, None] * along + v[:, None] * across
    outwards = out[:, None, None, None] * plane.normal
    places = torch.stack([on_plane - outwards, on_plane + outwards])
    return _sample(image, places.flatten(0, 2), torch.tensor(BLOCK_MM, device=image.device)).view(2, *_HALF)


def _normals(tilts: Tensor, axis: int) -> Tensor:
    """Unit vectors (n, 3) along an axis, tilted towards the two others by (n, 2) degrees."""
    towards = torch.tan(torch.deg2rad(tilts))
    others = [towards[:, 0], towards[:, 1]]
    others.insert(axis, torch.ones(len(tilts), device=tilts.device))
    return F.normalize(torch.stack(others, 1), dim=1)


def _places(image: Tensor, spacing: Tensor) -> Tensor:
    """Every voxel's place (voxel, 3) in mm from the image's centre."""
    axes = [
        (torch.arange(n, device=image.device) - (n - 1) / 2) * mm for n, mm in zip(image.shape, spacing, strict=True)
    ]
    return torch.cartesian_prod(*axes)


def _head_centre(image: Tensor) -> Tensor:
    """The centre (3,) of what is brighter than air, in mm from the image's centre."""
    weights = inside(image).flatten()
    return weights @ _places(image, torch.tensor(BLOCK_MM, device=image.device)) / weights.sum().clamp_min(1)


def _sample(image: Tensor, places: Tensor, spacing: Tensor) -> Tensor:
    """The image at places (…, 3) in mm from its centre, between voxels linearly; zero outside."""
    half = (torch.tensor(image.shape, device=image.device) - 1) / 2 * spacing
    grid = (places / half).flip(-1).view(1, 1, -1, 1, 3)  # grid_sample takes (column, row, slice)
    return F.grid_sample(image[None, None], grid, align_corners=True).view(places.shape[:-1])


def _correlation(values: Tensor, others: Tensor) -> Tensor:
    """Pearson's correlation of values (point,) with each column of others (point, column)."""
    values, others = values - values.mean(), others - others.mean(0)
    scale = (values.square().sum() * others.square().sum(0)).sqrt()
    return values @ others / scale.clamp_min(1e-6)


def mirror_resnet(width: int) -> tuple[nn.Module, int]:
    """64 features."""
    return MirrorResNet(width), MirrorResNet.MIXED
