"""Distortion drawn anew, of every kind that `simulate` draws, with what it is at every region of the scan."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from qcnode.artifacts import Artifact, Severity
from qcnode.ensemble.bend import DISPLACEMENT_MM, STRAIN
from qcnode.ensemble.regions import APART, PLACE, REGION
from train import deformation, draws, physics
from train.deformation import Deformation
from train.fading import noise_level, with_noise
from train.redraw import SPACING_MM, field_of_view, is_bare, largest_mm
from train.severity import SMALLEST_JACOBIAN, OutOfContract, severity_of

Image = NDArray[np.float32]
Box = tuple[slice, ...]
_CELL = 6  # voxels of a slice, whose displacement is computed; between them it is interpolated
_POINTS = 1500  # of the brain, on which a deformation is measured
_TRIES = 20
# Another bend would make these untrue, or show in them: bands and lines lie along the scan's axes, ghosts along one.
_SPOILT = (Artifact.NOISE, Artifact.ZIPPER, Artifact.BANDING, Artifact.MOTION, Artifact.DISTORTION)


class Bent(NamedTuple):
    """image: (slice, row, column), shares: (share, slice, row, column) of places, regions: as `bend_of` gives them.

    All of every APARTth slice. measured: as `simulate` names it.
    """

    image: Image
    shares: Image
    regions: Image
    measured: dict[str, float]


def can_be_bent(labels: NDArray[np.int64], measured: Mapping[str, float]) -> bool:
    """Whether a scan of these severities (artifact,) is not bent at all, and shows nothing that a bend would."""
    return is_bare(Artifact.DISTORTION, measured) and not any(
        labels[list(Artifact).index(artifact)] for artifact in _SPOILT
    )


def bent_anew(
    image: Image, shares: Image, sigma: float, severity: Severity, generator: np.random.Generator, first: int
) -> Bent:
    """A network input (slice, row, column) bent at this severity, with some noise that is not.

    first: of every APARTth slice, of which alone the result is. shares: (share, slice, row, column) of places, the
    first of brain. sigma: of its noise, relative to the brain's mean. Raises OutOfContract where no deformation of
    several has the severity.
    """
    found, measured = _drawn(shares[0], severity, generator)
    slices = np.arange(first, first + len(image), APART)  # one of them beyond the last, maybe
    cells = [n // _CELL for n in image.shape[1:]]
    centres = [(np.arange(n) + 0.5) * _CELL - 0.5 for n in cells]
    nodes = np.stack(np.meshgrid(slices, *centres, indexing="ij"), -1).reshape(-1, 3)
    moved = found((nodes - _middle(image.shape)) * SPACING_MM) / SPACING_MM  # voxels
    coarse = torch.from_numpy(moved.reshape(len(slices), *cells, 3).astype(np.float32)).permute(3, 0, 1, 2)

    box = field_of_view(image)
    pulled = _pulled(image[None], coarse, slices, box)[0]
    # As much noise beside its own, which interpolation made less here and there.
    level = float(image[shares[0].repeat(PLACE, 1).repeat(PLACE, 2) > 0.5].mean())
    seen = (slice(*np.searchsorted(slices, (box[0].start, box[0].stop))), *box[1:])
    noisy = np.zeros((len(slices), *image.shape[1:]), np.float32)
    sigma = level * max(sigma, noise_level(generator))
    noisy[seen] = with_noise(pulled[seen], np.float32(sigma), generator)
    of_places = coarse / torch.tensor([1, PLACE, PLACE])[:, None, None, None]
    laid = _pulled(shares, of_places, slices, None)
    return Bent(noisy, laid, bend_of(found, slices, image.shape), measured)


def bend_of(found: Deformation, slices: NDArray[np.int64], shape: tuple[int, ...]) -> Image:
    """The maps of `BendUNet` (map, slice, row, column) on the regions of these slices of an input of this shape."""
    rows, columns = (np.arange((REGION - 1) / 2, n, REGION) for n in shape[1:])
    grid = np.stack(np.meshgrid(slices, rows, columns, indexing="ij"), -1).reshape(-1, 3)
    points = (grid - _middle(shape)) * SPACING_MM
    displaced, jacobian = found(points) / DISPLACEMENT_MM, found.jacobian(points)
    gradient = (jacobian - np.eye(3)) / STRAIN
    symmetric = (gradient + gradient.swapaxes(1, 2)) / 2
    squares = np.linalg.eigvalsh(jacobian.swapaxes(1, 2) @ jacobian)
    stretch = np.abs(np.sqrt(np.maximum(squares, 0)) - 1).max(1) / STRAIN
    maps = [np.linalg.norm(displaced, axis=1), stretch, *displaced.T]
    maps += [symmetric[:, i, j] for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))]
    return np.stack(maps).reshape(-1, len(slices), len(rows), len(columns)).astype(np.float32)


def _drawn(brain: Image, severity: Severity, generator: np.random.Generator) -> tuple[Deformation, dict[str, float]]:
    """A deformation of this severity of a brain (slice, row, column) of places, and what was measured of it."""
    inside = np.argwhere(brain > 0.5)
    if not len(inside):
        raise OutOfContract("no brain is known in the scan; take another")
    where = inside[generator.integers(len(inside), size=_POINTS)].astype(float)
    where[:, 1:] = (where[:, 1:] + 0.5) * PLACE - 0.5
    shape = brain.shape[0], brain.shape[1] * PLACE, brain.shape[2] * PLACE
    points = (where - _middle(shape)) * SPACING_MM
    for _ in range(_TRIES):
        drawn = draws.draw(generator, dict.fromkeys(Artifact, Severity.NONE) | {Artifact.DISTORTION: severity})
        most_mm = largest_mm(drawn, generator)
        kind, strained = drawn.distortion_kind, drawn.strain
        found = deformation.drawn(kind, points, most_mm, strained, np.eye(3)[1:], generator)
        jacobian = found.jacobian(points)
        measured = {"displacement_mm": most_mm, "strain": physics.strain(jacobian)}
        with suppress(OutOfContract):
            its = severity_of(Artifact.DISTORTION, measured)
            if its is severity and np.linalg.det(jacobian).min() > SMALLEST_JACOBIAN:
                return found, measured
    raise OutOfContract("no deformation of several has this severity on the scan; take another")


def _middle(shape: tuple[int, ...]) -> NDArray[np.float64]:
    return (np.array(shape) - 1) / 2


def _pulled(maps: Image, coarse: Tensor, slices: NDArray[np.int64], box: Box | None) -> Image:
    """These slices of maps (map, slice, row, column), each voxel taken from where it is displaced to.

    coarse: (3, slice, …), the displacement in voxels on larger cells of a slice. box: the field of view, which is
    mirrored at its ends; None: there is nothing beyond the maps.
    """
    moved = F.interpolate(coarse, size=maps.shape[2:], mode="bilinear", align_corners=False)
    moved[0] += torch.from_numpy(slices)[:, None, None]
    moved[1] += torch.arange(maps.shape[2])[:, None]
    moved[2] += torch.arange(maps.shape[3])
    within = maps
    if box is not None:
        within = maps[(slice(None), *box)]
        moved -= torch.tensor([float(its.start) for its in box])[:, None, None, None]
    moved = (moved + 0.5) * (2 / torch.tensor(within.shape[1:]))[:, None, None, None] - 1
    sampling = moved.flip(0).permute(1, 2, 3, 0)[None]  # grid_sample takes (column, row, slice)
    padding = "reflection" if box is not None else "zeros"
    source = torch.from_numpy(np.ascontiguousarray(within))[None]
    pulled: Image = F.grid_sample(source, sampling, padding_mode=padding, align_corners=False)[0].numpy()
    return pulled
