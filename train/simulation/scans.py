"""A head inside the scanner: planes, poses, and the low-field voxel grid through which it is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from qcnode.artifacts import Plane
from train.simulation.contrasts import Head

SUBSLICES = 4  # samples through the thickness of a slice, of a scan that is to be seen as it is

# Columns: the RAS directions of (slice, row, column), each along its growing index, as DICOM lays these planes out.
DIRECTIONS: dict[Plane, NDArray[np.float64]] = {
    Plane.AXIAL: np.array([[0, 0, 1], [0, -1, 0], [-1, 0, 0]], float).T,
    Plane.CORONAL: np.array([[0, -1, 0], [0, 0, -1], [-1, 0, 0]], float).T,
    Plane.SAGITTAL: np.array([[1, 0, 0], [0, 0, -1], [0, -1, 0]], float).T,
}
TYPICAL_MATRIX = {Plane.AXIAL: (146, 120), Plane.CORONAL: (134, 120), Plane.SAGITTAL: (120, 146)}  # rows, columns
SLICES = (28, 44)  # the fewest and the most, as the definition of the severities has them

Displacement = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Grid:
    """A scan's voxels, (slice, row, column), centred on the scanner's origin."""

    plane: Plane
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4): (slice, row, column) → RAS mm."""
        affine = np.eye(4)
        affine[:3, :3] = DIRECTIONS[self.plane] * self.spacing_mm
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(self.shape) - 1) / 2)
        return affine


@dataclass(frozen=True)
class Pose:
    """Where the head lies: Euler angles about x, y, z (degrees), then the brain centre's offset (RAS mm)."""

    angles_degrees: tuple[float, float, float]
    offset_mm: tuple[float, float, float]

    @property
    def rotation(self) -> NDArray[np.float64]:
        """(3, 3), from the head's axes to the scanner's."""
        (sx, sy, sz), (cx, cy, cz) = (f(np.radians(self.angles_degrees)) for f in (np.sin, np.cos))
        about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
        about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
        return np.asarray(about_z @ about_y @ about_x)


@dataclass(frozen=True)
class CleanScan:
    """What a scan is before any artifact is applied: a head, a grid, a level-0 pose and the resolution's blur.

    contrast: the clean scan's difference of grey and white, relative to S.
    """

    head: Head
    grid: Grid
    pose: Pose
    blur_voxels: float
    contrast: float


@dataclass(frozen=True)
class Rendered:
    """A noise-free scan: signal and tissue shares, each (slice, row, column) float32."""

    signal: NDArray[np.float32]
    brain: NDArray[np.float32]
    grey: NDArray[np.float32]
    white: NDArray[np.float32]


def clean_scan(head: Head, plane: Plane, generator: np.random.Generator) -> CleanScan:
    """Place a head in a typical field of view, within the positioning of severity 0, in slices that hold its brain."""
    in_plane = generator.uniform(1.5, 1.7)
    pose = Pose(_uniform3(generator, 4.8), _offset(generator, 5.8))
    inside = np.ptp((head.brain_points_mm @ pose.rotation.T) @ DIRECTIONS[plane], axis=0)[0]
    needed = int(np.ceil((inside + 16) / 5.0))
    slices = int(generator.integers(np.clip(needed, *SLICES), SLICES[1], endpoint=True))
    rows, columns = (2 * int(n / 2 + generator.integers(-3, 4)) for n in TYPICAL_MATRIX[plane])
    grid = Grid(plane, (slices, rows, columns), (5.0, in_plane, in_plane))
    return CleanScan(head, grid, pose, generator.uniform(0.15, 0.9), generator.uniform(0.22, 0.32))


def render(
    scan: CleanScan, pose: Pose, displacement: Displacement | None = None, subslices: int = SUBSLICES
) -> Rendered:
    """See the head on the scan's grid: box profile through the slice, mild blur in the plane.

    displacement: scanner point (n, 3) → its shift in mm, of a deformation that pulls the anatomy from point + shift.
    subslices: samples through the thickness of a slice.
    """
    grid = scan.grid
    fine = (grid.shape[0] * subslices, *grid.shape[1:])
    fine_mm = (grid.spacing_mm[0] / subslices, *grid.spacing_mm[1:])
    to_scanner = DIRECTIONS[grid.plane] * fine_mm
    # scanner point p → head index: R^T (p - offset) / spacing + centre, then to grid_sample's [-1, 1], z first
    size = np.array(scan.head.channels.shape[1:])
    to_unit = (2 / (size - 1))[:, None] * pose.rotation.T / scan.head.spacing_mm[:, None]
    centre = 2 * scan.head.centre / (size - 1) - 1 - to_unit @ np.array(pose.offset_mm)
    matrix = (to_unit @ to_scanner)[::-1]
    steps = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in fine]
    points = torch.from_numpy(centre[::-1].astype(np.float32)).expand(1, 1, 1, 3)
    for axis, step in enumerate(steps):
        along = torch.from_numpy(matrix[:, axis].astype(np.float32))
        points = points + (step[:, None] * along).reshape([-1 if a == axis else 1 for a in range(3)] + [3])
    if displacement is not None:
        points = points + _displaced(displacement, to_scanner, fine, to_unit)
    seen = torch.nn.functional.grid_sample(scan.head.channels[None], points[None], align_corners=True)[0]
    seen = seen.reshape(4, grid.shape[0], subslices, *grid.shape[1:]).mean(dim=2)
    signal, brain, grey, white = seen.numpy()
    for axis in (1, 2):
        signal = ndimage.gaussian_filter1d(signal, scan.blur_voxels, axis=axis)
    return Rendered(signal, brain, grey, white)


def _displaced(
    displacement: Displacement, to_scanner: NDArray[np.float64], fine: tuple[int, ...], to_unit: NDArray[np.float64]
) -> Tensor:
    """The displacement in grid_sample's units, computed on every fourth sample (it is smooth) and interpolated."""
    coarse = [np.linspace(-(n - 1) / 2, (n - 1) / 2, n // 4) for n in fine]
    index = np.stack(np.meshgrid(*coarse, indexing="ij"), axis=-1).reshape(-1, 3)
    shift = (displacement(index @ to_scanner.T) @ to_unit.T)[:, ::-1].astype(np.float32)
    shift = shift.T.reshape(1, 3, *(len(c) for c in coarse))
    full = torch.nn.functional.interpolate(torch.from_numpy(shift), size=fine, mode="trilinear", align_corners=True)
    return full[0].permute(1, 2, 3, 0)


def moved(
    signal: NDArray[np.float32], grid: Grid, pose: Pose, centre_mm: NDArray[np.float64], every: int = 1
) -> NDArray[np.float32]:
    """A rendered scan after a rigid movement about a point (scanner mm), on the same grid.

    every: give only each so-many-th slice, from the first.
    """
    to_scanner = DIRECTIONS[grid.plane] * grid.spacing_mm
    half = (np.array(grid.shape) - 1) / 2
    # index i → scanner p = to_scanner (i - half); source = R^T (p - centre - offset) + centre
    turn = np.linalg.inv(to_scanner) @ pose.rotation.T @ to_scanner
    shift = np.linalg.inv(to_scanner) @ (centre_mm - pose.rotation.T @ (centre_mm + pose.offset_mm))
    slices = -(-grid.shape[0] // every)
    reach = np.array([every * (slices - 1) / 2, half[1], half[2]])  # of the wanted slices, around their own middle
    shift = shift + turn @ np.array([reach[0] - half[0], 0, 0])
    theta = np.concatenate([(turn * reach)[:, ::-1], shift[:, None]], axis=1)[::-1] / half[::-1, None]
    points = torch.nn.functional.affine_grid(
        torch.from_numpy(theta.astype(np.float32))[None], [1, 1, slices, *grid.shape[1:]], align_corners=True
    )
    seen = torch.nn.functional.grid_sample(torch.from_numpy(signal)[None, None], points, align_corners=True)
    return seen[0, 0].numpy()


def _uniform3(generator: np.random.Generator, limit: float) -> tuple[float, float, float]:
    x, y, z = generator.uniform(-limit, limit, 3)
    return float(x), float(y), float(z)


def _offset(generator: np.random.Generator, limit: float) -> tuple[float, float, float]:
    direction = generator.standard_normal(3)
    x, y, z = direction / np.linalg.norm(direction) * generator.uniform(0, limit)
    return float(x), float(y), float(z)
