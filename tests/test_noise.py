"""The noise level: that of the noise that was put in, whatever the scanner's gain, the plane and the disturbances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qcnode.artifacts import Plane
from qcnode.imaging.noise import noise_level
from qcnode.imaging.phantom import MATRIX, add_noise, grid_affine
from qcnode.imaging.volume import Volume


def scan(share: float, plane: Plane = Plane.AXIAL, gain: float = 300.0) -> Volume:
    """A ball of 75 mm radius and signal 1 about the middle, in noise of that share of it."""
    affine, shape = grid_affine(plane), MATRIX[plane]
    places = np.einsum("ij,jabc->iabc", affine[:3, :3], np.indices(shape)) + affine[:3, 3, None, None, None]
    ball = np.where(np.linalg.norm(places, axis=0) < 75, 1.0, 0.0)
    return Volume(gain * add_noise(ball, share, np.random.default_rng(3)), affine)


@pytest.mark.parametrize("plane", Plane)
@pytest.mark.parametrize("share", [0.01, 0.03, 0.1])
def test_it_is_the_noise_over_the_head_s_signal(share: float, plane: Plane) -> None:
    assert noise_level(scan(share, plane)) == pytest.approx(share, rel=0.04)


def test_the_scanner_s_gain_changes_nothing() -> None:
    assert noise_level(scan(0.03, gain=1.0)) == pytest.approx(noise_level(scan(0.03, gain=2000.0)), rel=1e-5)


def test_a_zipper_changes_next_to_nothing() -> None:
    clean = scan(0.03)
    lines = clean.array.copy()
    lines[:, :, 20:22] += 900
    assert noise_level(replace(clean, array=lines)) == pytest.approx(noise_level(clean), rel=0.06)


def test_where_there_is_no_background_it_is_unknown_and_not_zero() -> None:
    whole = scan(0.03)
    masked = np.where(whole.array < 150, 0, whole.array).astype(np.float32)
    assert noise_level(replace(whole, array=masked)) is None
    assert noise_level(replace(whole, array=np.zeros_like(whole.array))) is None
