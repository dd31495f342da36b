"""A brain's pose is found whichever way it lies in its file, and taken away."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from train.simulation.brains import anatomy, phantoms
from train.simulation.scans import Pose
from train.simulation.upright import Reference, own_pose, reference_of, shape_of, turned

UPRIGHT = np.zeros(3)


@lru_cache
def _head(number: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.uint8]]:
    """Intensities, brain and tissue of a synthetic head; as of a stripped image, nothing lies around the brain."""
    its = anatomy(phantoms(number)[-1])
    return np.where(its.brain, np.maximum(its.codes, 1), 0).astype(np.uint8), its.brain, its.tissue


@lru_cache
def _reference(faces: float = 0.0) -> Reference:
    _, brain, tissue = _head(1)
    posed = (brain, tissue) if not faces else (brain[::-1, ::-1], tissue[::-1, ::-1])
    return reference_of(shape_of(*posed), faces)


def _lying(array: NDArray[np.uint8], angles: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The array as a file would hold it, had the head this pose in the scanner."""
    array = np.pad(array, 30)
    back = Rotation.from_euler("xyz", angles, degrees=True).as_matrix().T
    centre = (np.array(array.shape) - 1) / 2
    return np.asarray(ndimage.affine_transform(array, back, centre - back @ centre, order=0))


def _found(number: int, angles: NDArray[np.float64], reference: Reference) -> NDArray[np.float64]:
    _, brain, tissue = _head(number)
    posed = _lying(brain.astype(np.uint8), angles) > 0
    return own_pose(shape_of(posed, _lying(tissue, angles)), reference)


def test_angles_are_those_of_a_scans_pose() -> None:
    angles = (20.0, 6.0, 9.0)
    brain = _head(1)[0]
    forward = Pose(angles, (0, 0, 0)).rotation
    direction = forward @ np.array([0, 0, 1.0])  # where the vertex goes, once the head lies so
    lying = np.argwhere(_lying((np.indices(brain.shape)[2] > brain.shape[2] * 0.9).astype(np.uint8), np.array(angles)))
    towards = lying.mean(axis=0) - (np.array(brain.shape) + 59) / 2
    np.testing.assert_allclose(towards / np.linalg.norm(towards), direction, atol=0.02)


@pytest.mark.parametrize("angles", [(0, 0, 0), (20, 6, 9), (-35, -12, 20), (8, 25, -25), (5, -4, 172)])
def test_a_pose_is_found(angles: tuple[float, float, float]) -> None:
    found = _found(1, np.array(angles, float), _reference())
    np.testing.assert_allclose(found, angles, atol=2.0)


def test_another_head_is_set_up_as_the_reference_is() -> None:
    lying = np.array([15.0, -5.0, 10.0])
    as_it_is = _found(2, UPRIGHT, _reference())
    np.testing.assert_allclose(as_it_is[1:], 0, atol=2.0)
    assert abs(as_it_is[0]) < 6, "synthetic heads are of many shapes, and all drawn upright"
    np.testing.assert_allclose(_found(2, lying, _reference()) - lying, as_it_is, atol=2.0)


def test_a_reference_may_look_backwards() -> None:
    found = _found(1, np.array([12.0, 0.0, 0.0]), _reference(180.0))
    np.testing.assert_allclose(found, [12, 0, 0], atol=2.0)


def test_what_lies_below_the_reference_is_not_compared() -> None:
    _, brain, tissue = _head(1)
    bottom = int(np.flatnonzero(brain.any(axis=(0, 1)))[0])
    half = brain.shape[0] // 2, brain.shape[1] // 2
    with_a_cord = brain.copy()
    with_a_cord[half[0] - 8 : half[0] + 8, half[1] - 18 : half[1] - 4, max(0, bottom - 15) : bottom + 15] = True
    np.testing.assert_allclose(own_pose(shape_of(with_a_cord, tissue), _reference()), 0, atol=2.0)


def test_a_pose_is_taken_away() -> None:
    codes, _, _ = _head(1)
    angles = np.array([25.0, -8.0, 14.0])
    upright = turned(_lying(codes, angles), angles, labels=False)
    one, other = (array[ndimage.find_objects((array > 0).astype(int))[0]] for array in (upright, codes))
    np.testing.assert_allclose(one.shape, other.shape, atol=3)
    size = np.minimum(one.shape, other.shape)
    middle = [
        tuple(slice((n - s) // 2, (n - s) // 2 + s) for n, s in zip(array.shape, size, strict=True))
        for array in (one, other)
    ]
    one, other = one[middle[0]], other[middle[1]]
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.8
    assert np.count_nonzero(upright) == pytest.approx(np.count_nonzero(codes), rel=0.03)


def test_turning_cuts_nothing_off_and_makes_no_new_labels() -> None:
    labels = np.full((30, 40, 50), 7, np.uint16)
    labels[10:20, 10:20, 10:20] = 511
    upright = turned(labels, np.array([30.0, 20.0, -40.0]), labels=True)
    assert upright.dtype == np.uint16
    assert set(np.unique(upright)) == {0, 7, 511}
    for label in (7, 511):
        assert np.count_nonzero(upright == label) == pytest.approx(np.count_nonzero(labels == label), rel=0.03)


def test_a_brains_rim_does_not_fade_into_the_air() -> None:
    codes = np.zeros((20, 20, 20), np.uint8)
    codes[6:14, 6:14, 6:14] = 120
    upright = turned(codes, np.array([20.0, 10.0, 5.0]), labels=False)
    assert set(np.unique(upright)) == {0, 120}
