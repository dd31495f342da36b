"""A synthetic low-field T2w scan, clean or spoilt by motion: for the demonstration, the tests and the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from scipy.spatial.transform import Rotation

from qcnode.artifacts import Plane
from qcnode.imaging.anatomy import Anatomy, draw_anatomy
from qcnode.imaging.swoop import classic_series as classic_series
from qcnode.imaging.swoop import swoop_series as swoop_series
from qcnode.imaging.swoop import to_bytes as to_bytes
from qcnode.imaging.volume import Volume

# (slice, row, column) as a Swoop writes them, and the RAS direction in which each index grows.
MATRIX: dict[Plane, tuple[int, int, int]] = {
    Plane.AXIAL: (36, 146, 120),
    Plane.CORONAL: (40, 134, 120),
    Plane.SAGITTAL: (36, 120, 146),
}
_DIRECTIONS: dict[Plane, tuple[tuple[int, int, int], ...]] = {
    Plane.AXIAL: ((0, 0, 1), (0, -1, 0), (-1, 0, 0)),
    Plane.CORONAL: ((0, -1, 0), (0, 0, -1), (-1, 0, 0)),
    Plane.SAGITTAL: ((-1, 0, 0), (0, 0, -1), (0, -1, 0)),
}
SLICE_MM = 5.0
_SUBSLICES = 3  # samples averaged over the slice's thickness

# What makes motion severe: normalised RMS difference to the unmoved scan inside the brain.
SEVERE_MOTION = (0.25, 0.45)


@dataclass(frozen=True)
class Pose:
    """A rigid displacement of the head: rotation about the x, y and z axes of RAS, then translation."""

    degrees: tuple[float, float, float] = (0.0, 0.0, 0.0)
    millimetres: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def then(self, other: Pose) -> Pose:
        """Both displacements, for the small angles of a head on its pillow."""
        degrees = tuple(a + b for a, b in zip(self.degrees, other.degrees, strict=True))
        millimetres = tuple(a + b for a, b in zip(self.millimetres, other.millimetres, strict=True))
        return Pose((degrees[0], degrees[1], degrees[2]), (millimetres[0], millimetres[1], millimetres[2]))

    def matrix(self) -> NDArray[np.float64]:
        """(4, 4), from the head's mm to the scanner's."""
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.from_euler("xyz", self.degrees, degrees=True).as_matrix()
        matrix[:3, 3] = self.millimetres
        return matrix


STILL = Pose()


def grid_affine(plane: Plane, in_plane_mm: float = 1.6) -> NDArray[np.float64]:
    """(4, 4), from (slice, row, column) of that plane's matrix to RAS mm, its middle at the origin."""
    affine = np.eye(4)
    spacing = (SLICE_MM, in_plane_mm, in_plane_mm)
    for axis, (direction, mm) in enumerate(zip(_DIRECTIONS[plane], spacing, strict=True)):
        affine[:3, axis] = np.array(direction) * mm
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(MATRIX[plane]) - 1) / 2)
    return affine


def render(
    field: NDArray[np.float32], field_affine: NDArray[np.float64], plane: Plane, pose: Pose, affine: NDArray[np.float64]
) -> NDArray[np.float32]:
    """The field as the scan of a head in that pose sees it, averaged over the slice thickness; no noise."""
    to_field = np.linalg.inv(field_affine) @ np.linalg.inv(pose.matrix()) @ affine
    slices, rows, columns = MATRIX[plane]
    thin = np.diag([1 / _SUBSLICES, 1, 1, 1.0])
    thin[0, 3] = (1 / _SUBSLICES - 1) / 2
    to_field = to_field @ thin
    fine: NDArray[np.float32] = ndimage.affine_transform(
        field, to_field[:3, :3], to_field[:3, 3], (slices * _SUBSLICES, rows, columns), order=1, output=np.float32
    )
    scan: NDArray[np.float32] = fine.reshape(slices, _SUBSLICES, rows, columns).mean(axis=1)
    return scan


def head(generator: np.random.Generator, plane: Plane = Plane.AXIAL) -> Volume:
    """A clean low-field T2w scan of a synthetic head: every artifact at level 0."""
    return head_with_brain(generator, plane)[0]


def head_with_brain(
    generator: np.random.Generator, plane: Plane = Plane.AXIAL, maturity: float | None = None
) -> tuple[Volume, NDArray[np.bool_]]:
    """The same, and the mask of the brain on the scan's grid; `maturity` is that of `draw_anatomy`."""
    subject = _Subject.draw(generator, plane, maturity)
    volume = Volume(add_noise(subject.scan(), subject.sigma, generator), subject.affine)
    return volume, subject.brain


def moved_head(generator: np.random.Generator, plane: Plane = Plane.AXIAL) -> Volume:
    """The scan of a synthetic head that moved severely, again and again, while k-space was filled."""
    subject = _Subject.draw(generator, plane, None)
    still = subject.scan()
    some = slice(None, None, 3)  # every third slice tells how far the motion has gone
    brain = subject.brain[some]
    axis = int(generator.integers(1, 3))
    least, most = SEVERE_MOTION[0] + 0.03, SEVERE_MOTION[1] - 0.03
    difference, reach = 0.0, 1.5
    while difference < least:
        poses = [still, *(subject.scan(_draw_move(generator, reach)) for _ in range(4))]
        thinned = [pose[some] for pose in poses]
        pose_of_line = np.zeros(still.shape[axis], np.int64)
        for first, last, pose in _draw_spells(generator, len(pose_of_line), len(poses)):
            trial = pose_of_line.copy()
            trial[first:last] = pose
            changed = motion_difference(thinned[0], np.abs(mix_poses(thinned, trial, axis)), brain)
            if changed <= most:
                difference, pose_of_line = changed, trial
            if difference >= least:
                break
        reach *= 1.3  # the head kept too still to be severe: a livelier one
    moved = mix_poses(poses, pose_of_line, axis)
    return Volume(add_noise(moved, subject.sigma, generator), subject.affine)


def mix_poses(
    poses: Sequence[NDArray[Any]], pose_of_line: NDArray[np.integer[Any]], axis: int
) -> NDArray[np.complexfloating[Any, Any]]:
    """The image of k-space whose lines were measured in different poses.

    poses: images of one shape, real or complex, one a pose. pose_of_line: (n,), the pose that held while a line was
    measured, in order of spatial frequency along `axis`, lowest negative first (frequency 0 is at n // 2). Returns the
    complex image. The transform along the other axes would cancel, so only `axis` is transformed.
    """
    pose_of_frequency = np.fft.ifftshift(np.asarray(pose_of_line))
    mixed = np.zeros(poses[0].shape, np.complex64)
    for pose in np.unique(pose_of_frequency):
        mine = np.flatnonzero(pose_of_frequency == pose)
        lines = (slice(None),) * (axis % mixed.ndim) + (mine,)
        mixed[lines] = fft.fft(poses[pose], axis=axis)[lines]
    image: NDArray[np.complexfloating[Any, Any]] = fft.ifft(mixed, axis=axis, overwrite_x=True)
    return image


def motion_difference(still: NDArray[Any], moved: NDArray[Any], brain: NDArray[np.bool_]) -> float:
    """RMS of the difference inside the brain over the still scan's mean there; higher is worse."""
    difference = moved[brain] - still[brain]
    return float(np.sqrt(np.mean(difference**2)) / still[brain].mean())


def add_noise(image: NDArray[Any], sigma: float, generator: np.random.Generator) -> NDArray[np.float32]:
    """Magnitude of the image in complex Gaussian noise of standard deviation `sigma` in each part: Rician."""
    real = image.real + sigma * generator.standard_normal(image.shape, np.float32)
    imaginary = image.imag + sigma * generator.standard_normal(image.shape, np.float32)
    magnitude: NDArray[np.float32] = np.hypot(real, imaginary).astype(np.float32)
    return magnitude


@dataclass(frozen=True)
class _Subject:
    """One anatomy on its pillow, and how it is scanned."""

    anatomy: Anatomy
    plane: Plane
    affine: NDArray[np.float64]
    pose: Pose
    gain: float
    brain: NDArray[np.bool_]
    sigma: float  # of the noise, in the scan's units

    @classmethod
    def draw(cls, generator: np.random.Generator, plane: Plane, maturity: float | None) -> _Subject:
        anatomy = draw_anatomy(generator, maturity)
        affine = grid_affine(plane, float(generator.uniform(1.5, 1.7)))
        # Level 0 of Positioning: at most 5 degrees, the brain's centre within 6 mm of the middle.
        degrees, shift = generator.uniform(-3, 3, 3), generator.uniform(-3, 3, 3)
        pose = Pose((degrees[0], degrees[1], degrees[2]), (shift[0], shift[1], shift[2]))
        brain = render(anatomy.brain, anatomy.affine, plane, pose, affine) > 0.5
        signal = render(anatomy.signal, anatomy.affine, plane, pose, affine)
        gain = float(generator.uniform(300.0, 900.0)) / float(signal[brain].mean())
        sigma = float(generator.uniform(0.02, 0.04)) * gain * float(signal[brain].mean())
        return cls(anatomy, plane, affine, pose, gain, brain, sigma)

    def scan(self, move: Pose = STILL) -> NDArray[np.float32]:
        """The head, moved from its pillow, without noise."""
        pose = self.pose.then(move)
        return self.gain * render(self.anatomy.signal, self.anatomy.affine, self.plane, pose, self.affine)


def _draw_move(generator: np.random.Generator, reach: float) -> Pose:
    """A child's nod or turn: some degrees about every axis, some millimetres along it."""
    degrees, shift = reach * generator.normal(0, 6.0, 3), reach * generator.normal(0, 4.0, 3)
    return Pose((degrees[0], degrees[1], degrees[2]), (shift[0], shift[1], shift[2]))


def _draw_spells(generator: np.random.Generator, lines: int, poses: int) -> list[tuple[int, int, int]]:
    """Short runs of lines (first, end) with the pose in which each was measured, most of them at low frequencies.

    The line of frequency 0 stays in pose 0, so that the scan is still that of the unmoved head.
    """
    spells = []
    for _ in range(24):
        length = int(generator.integers(2, 7))
        distance = 1 + int(generator.exponential(5.0))
        first = lines // 2 + distance if generator.uniform() < 0.5 else lines // 2 - distance - length + 1
        spells.append((max(first, 0), max(first + length, 0), int(generator.integers(1, poses))))
    return spells
