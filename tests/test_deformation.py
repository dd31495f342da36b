"""Every kind of deformation reaches displacement and strain, and neither shifts nor turns nor folds the brain."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from train.simulation.deformation import Deformation, Kind, drawn
from train.simulation.physics import strain

KINDS = get_args(Kind)
IN_PLANE = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])


def _brain() -> NDArray[np.float64]:
    points = np.random.default_rng(1).uniform(-1, 1, (4000, 3))
    return points[np.linalg.norm(points, axis=1) < 1] * (65, 82, 60) + (4.0, -3.0, 2.0)


def _drawn(kind: Kind, seed: int, largest_mm: float = 6.5, strained: float = 0.24) -> Deformation:
    return drawn(kind, _brain(), largest_mm, strained, IN_PLANE, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_displacement_and_strain_are_those_that_were_asked_for(kind: Kind) -> None:
    for seed, (largest_mm, strained) in enumerate([(6.5, 0.24), (13.0, 0.48)]):
        made, brain = _drawn(kind, seed, largest_mm, strained), _brain()
        assert np.linalg.norm(made(brain), axis=1).max() == pytest.approx(largest_mm)
        assert strain(made.jacobian(brain)) == pytest.approx(strained, rel=0.25)


@pytest.mark.parametrize("kind", KINDS)
def test_the_brain_as_a_whole_neither_shifts_nor_turns(kind: Kind) -> None:
    made, brain = _drawn(kind, 3), _brain()
    np.testing.assert_allclose(made(brain).mean(axis=0), 0, atol=1e-6)
    mean = made.jacobian(brain).mean(axis=0)
    np.testing.assert_allclose(mean, mean.T, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_jacobian_is_the_displacements_slope(kind: Kind) -> None:
    made, points = _drawn(kind, 4), _brain()[:200]
    for axis, step in enumerate(np.eye(3) * 1e-4):
        slope = (made(points + step) - made(points - step)) / 2e-4
        np.testing.assert_allclose(slope, made.jacobian(points)[:, :, axis] - np.eye(3)[axis], atol=1e-5)


def test_a_field_displaces_along_one_axis_of_the_slice_alone() -> None:
    shifts = np.concatenate([_drawn("axis", seed)(_brain()) for seed in range(4)])
    np.testing.assert_allclose(shifts[:, 2], 0, atol=1e-9)
    np.testing.assert_allclose(shifts[:, 0] * shifts[:, 1], 0, atol=1e-9)


def test_bumps_are_local_and_what_is_radial_grows_outwards() -> None:
    brain = _brain()
    order = np.linalg.norm(brain, axis=1).argsort()
    for seed in range(4):
        bumps, radial = (np.linalg.norm(_drawn(kind, seed)(brain), axis=1) for kind in ("bumps", "radial"))
        assert np.median(bumps) < 0.4 * bumps.max()
        assert radial[order[:200]].mean() < 0.35 * radial[order[-200:]].mean()


@pytest.mark.parametrize("sign", [-1, 1])
def test_barrel_and_pincushion_both_occur_and_neither_folds_the_air(sign: int) -> None:
    far = np.stack(np.meshgrid(*[np.linspace(-120, 120, 9)] * 3), -1).reshape(-1, 3)
    every = [_drawn("radial", seed, 13.0, 0.46) for seed in range(8)]
    outwards = [np.sign((made(_brain()) * _brain()).sum()) for made in every]
    assert sign in outwards
    chosen = every[outwards.index(sign)]
    assert np.linalg.det(chosen.jacobian(far)).min() > 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_one_seed_is_one_deformation(kind: Kind) -> None:
    np.testing.assert_array_equal(_drawn(kind, 5)(_brain()), _drawn(kind, 5)(_brain()))
    assert np.abs(_drawn(kind, 5)(_brain()) - _drawn(kind, 7)(_brain())).max() > 0.1
