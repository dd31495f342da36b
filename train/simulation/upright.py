"""A head's own pose in its file, and the head without it.

Heads lie as they lay in a scanner, nodding by up to 35 degrees, and some files have the face where the axes say that
the back of the head is. Lean and turn are found where the brain mirrors itself best; a nod has no such plane, and is
what it takes to bring the brain onto an upright one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

Points = NDArray[np.float64]
Values = NDArray[np.float64]
Codes = NDArray[np.unsignedinteger[Any]]  # labels or intensities

PRECISION_DEGREES = 2.0  # a head that lies as straight as this is taken as it is: interpolation would only soften it
_STEPS_A_BRAIN = 24  # along the edge of a cube of the brain's volume: brains of all sizes have the same step
_SOFTNESS = 0.7  # steps, of the weights by which a shape's samples are averaged
_MARGIN = 8  # steps around the brain
_FRONT = 6  # steps from the centre: before these no brain has a cerebellum
_WEIGHTS = np.array([1.0, 0.7, 0.5])[:, None]  # of brain, white matter, fluid: not all images tell the last two apart
_NODS, _OTHERS, _FACES = (-40, -20, 0, 20, 40), (-30, -15, 0, 15, 30), (0, 180)  # degrees, tried first
_FEW, _SOME = 37, 3  # one in so many points
_DEGREES, _SHIFT = 20.0, 5.0  # of a fit's unit; steps of one
_FOLLOWED = 2  # fits to few points that go on to more
_MOST_STEPS, _DIFFERENCE, _SMALLEST_STEP = 30, 0.03, 0.004  # of a fit, the last two in its units
_UNITS = np.array([_DEGREES] * 3 + [_SHIFT] * 3 + [1.0])


@dataclass(frozen=True)
class Shape:
    """A brain as coarse as its pose needs: shares of brain, white matter and fluid (3, x, y, z), the brain centred."""

    shares: NDArray[np.float32]

    def at(self, points: Points) -> NDArray[np.float32]:
        """The shares (3, n) at points (n, 3), in steps from the centre."""
        index = (points + (np.array(self.shares.shape[1:]) - 1) / 2).T
        return np.stack([ndimage.map_coordinates(share, index, order=1) for share in self.shares])


@dataclass(frozen=True)
class Reference:
    """What an upright brain (3, n) shows at points (n, 3), in steps."""

    points: Points
    shares: NDArray[np.float32]


class _Fit(NamedTuple):
    squares: float
    at: Values


def frame_of(brain: NDArray[np.bool_]) -> tuple[float, Values]:
    """The step of a brain's shape and the brain's centre (3,), in indices of its array."""
    along = [np.count_nonzero(brain, axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    centre = [its @ np.arange(len(its)) / its.sum() for its in along]
    return float(np.cbrt(np.count_nonzero(brain))) / _STEPS_A_BRAIN, np.array(centre)


def shape_of(brain: NDArray[np.bool_], tissue: NDArray[np.uint8]) -> Shape:
    """The shape of a brain (x, y, z). tissue: 1 CSF, 2 grey, 3 white."""
    step, centres = frame_of(brain)
    weights = []
    for axis, (size, centre) in enumerate(zip(brain.shape, centres, strict=True)):
        there = np.flatnonzero(brain.any(axis=tuple({0, 1, 2} - {axis})))
        reach = int(np.ceil(np.abs(there - centre).max() / step)) + _MARGIN
        places = centre + step * np.arange(-reach, reach + 1)
        near = np.exp(-(((places[:, None] - np.arange(size)) / (_SOFTNESS * step)) ** 2) / 2)
        weights.append((near / (np.sqrt(2 * np.pi) * _SOFTNESS * step)).astype(np.float32))
    shares = []
    for part in (brain, brain & (tissue == 3), brain & (tissue == 1)):
        share = part.astype(np.float32)
        for weight in weights:  # each contracts the first axis and appends it
            share = np.tensordot(share, weight, axes=(0, 1))
        shares.append(share)
    return Shape(np.stack(shares))


def reference_of(shape: Shape, faces: float) -> Reference:
    """An upright brain to set others up by, its lean and turn taken away. faces: 180 where it looks backwards.

    What lies below it, but for its front, is not compared: some brains come with cerebellum and brainstem, others not.
    """
    lean, turn, aside = _mirrored(shape, np.array([0.0, 0.0, faces]), np.zeros(3))
    rotation = _rotation(np.array([0.0, lean, turn]))
    points = _points(max(shape.shares.shape[1:]) // 2)
    cube = (2 * (max(shape.shares.shape[1:]) // 2) + 1,) * 3
    shares = shape.at(points @ rotation.T + aside * rotation[:, 0])
    brain = shares[0].reshape(cube) > 0.5
    beneath = np.maximum.accumulate(brain[:, :, ::-1], axis=2)[:, :, ::-1] & ~brain
    front = points[:, 1].reshape(cube) > _FRONT
    near = ndimage.binary_dilation(brain, iterations=5)
    compared = (near & (front | ~ndimage.binary_erosion(beneath))).ravel()
    return Reference(points[compared], shares[:, compared])


def own_pose(shape: Shape, reference: Reference) -> Values:
    """Nod, lean and turn (degrees about x, y, z, in this order) from upright to how the brain lies in its file."""
    fits = [_fit(partial(_difference, shape, reference, _FEW), start) for start in _starts(shape, reference)]
    fits.sort(key=lambda fit: fit.squares)
    closer = [_fit(partial(_difference, shape, reference, _SOME), fit.at) for fit in fits[:_FOLLOWED]]
    best = min(closer, key=lambda fit: fit.squares).at
    angles, shift = best[:3] * _DEGREES, best[3:6] * _SHIFT
    angles[1:] = _mirrored(shape, angles, shift)[:2]

    def nodding(fitted: Values) -> Values:
        nod, *others = fitted
        return _difference(shape, reference, _SOME, np.array([nod, *(angles[1:] / _DEGREES), *others]))

    angles[0] = _fit(nodding, np.array([angles[0] / _DEGREES, *best[3:]])).at[0] * _DEGREES
    angles[2] = (angles[2] + 180) % 360 - 180
    return np.asarray(angles)


def turned(codes: Codes, angles: Values, *, labels: bool) -> Codes:
    """Codes (x, y, z) with this pose taken away, on a grid that holds all of them; outside it is 0.

    labels: the nearest one is taken; else intensities are interpolated, those of the brain (above 0) alone.
    """
    rotation = _rotation(angles)
    half = (np.array(codes.shape) - 1) / 2
    size = 2 * np.ceil(np.abs(rotation.T) @ half).astype(int) + 1
    offset = half - rotation @ ((size - 1) / 2)
    seen = partial(
        ndimage.affine_transform, matrix=rotation, offset=offset, output_shape=tuple(size), mode="grid-constant"
    )
    if labels:
        return np.asarray(seen(codes, order=0), codes.dtype)
    share = seen((codes > 0).astype(np.float32), order=1)
    mean = seen(codes.astype(np.float32), order=1) / np.maximum(share, 0.5)
    return np.where(share >= 0.5, np.maximum(np.rint(mean), 1), 0).astype(codes.dtype)


def _rotation(angles: Values) -> Values:
    """(3, 3), from the head's axes to the file's; as `train.simulation.scans.Pose` has it."""
    return np.asarray(Rotation.from_euler("xyz", angles, degrees=True).as_matrix())


def _starts(shape: Shape, reference: Reference) -> list[Values]:
    """For each way to face and each nod the lean and turn that come nearest."""
    starts = []
    for face, nod in product(_FACES, _NODS):
        tried = [np.array([nod, lean, turn + face, 0, 0, 0, 0]) / _UNITS for lean, turn in product(_OTHERS, _OTHERS)]
        starts.append(min(tried, key=lambda each: np.square(_difference(shape, reference, _FEW, each)).sum()))
    return starts


def _points(reach: int) -> Points:
    along = np.arange(-reach, reach + 1.0)
    return np.stack(np.meshgrid(along, along, along, indexing="ij"), -1).reshape(-1, 3)


def _fit(residual: Callable[[Values], Values], start: Values) -> _Fit:
    """The least sum of squares that Levenberg's and Marquardt's steps from here lead to.

    Derivatives are differences over steps as large as the shapes are smooth.
    """
    at, its = start, residual(start)
    damping = 0.01
    for _ in range(_MOST_STEPS):
        steps = np.eye(len(at)) * _DIFFERENCE
        slope = np.stack([residual(at + step) - residual(at - step) for step in steps], 1) / (2 * _DIFFERENCE)
        normal, downhill = slope.T @ slope, -slope.T @ its
        for _ in range(6):
            step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), downhill)
            there = residual(at + step)
            if there @ there < its @ its:
                break
            damping *= 6
        else:
            break
        at, its, damping = at + step, there, damping / 4
        if np.abs(step).max() < _SMALLEST_STEP:
            break
    return _Fit(float(its @ its), at)


def _difference(shape: Shape, reference: Reference, every: int, fitted: Values) -> Values:
    """What differs at one in so many points, for angles, shift and the logarithm of a size."""
    rotation = _rotation(fitted[:3] * _DEGREES)
    places = np.exp(fitted[6]) * reference.points[::every] @ rotation.T + fitted[3:6] * _SHIFT
    return np.asarray((_WEIGHTS * (shape.at(places) - reference.shares[:, ::every])).ravel())


def _mirrored(shape: Shape, angles: Values, shift: Points) -> tuple[float, float, float]:
    """Lean, turn (degrees) and the steps aside, near these, of the plane that mirrors the brain best."""
    points = _points(max(shape.shares.shape[1:]) // 2)[::_SOME]
    points = points[points[:, 0] > 0]
    points = points[np.linalg.norm(points, axis=1) < _STEPS_A_BRAIN]

    def unlike(fitted: NDArray[np.float64]) -> Values:
        rotation = _rotation(np.array([angles[0], *(fitted[:2] * _DEGREES)]))
        centre = shift + (fitted[2] * _SHIFT - shift @ rotation[:, 0]) * rotation[:, 0]
        one, other = (shape.at((points * (side, 1, 1)) @ rotation.T + centre) for side in (1, -1))
        return np.asarray((_WEIGHTS * (one - other)).ravel())

    start = np.array([*(angles[1:] / _DEGREES), shift @ _rotation(angles)[:, 0] / _SHIFT])
    lean, turn, aside = _fit(unlike, start).at
    return float(lean * _DEGREES), float(turn * _DEGREES), float(aside * _SHIFT)
