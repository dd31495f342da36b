"""How scans are varied while training: what every kind of variation leaves as it is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from qcnode.artifacts import Artifact
from train.config import FitConfig
from train.variation import Image, varied

ALL = frozenset(Artifact)


@pytest.fixture(scope="module")
def image() -> Image:
    """An off-centre blob in the z-scores of a cube."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (6, 48, 48)), indexing="ij")
    blob = np.exp(-((x - 0.3) ** 2 + y**2) / 0.05) * (1 + z)
    return ((blob - blob.mean()) / blob.std()).astype(np.float32)


def test_no_variation_is_the_identity(image: Image) -> None:
    config = FitConfig(variation="none")
    assert varied(image, ALL, config, np.random.default_rng(0)).tobytes() == image.tobytes()


def test_half_turns_move_half_of_the_scans_about_the_axis_through_the_slices(image: Image) -> None:
    generator, config = np.random.default_rng(1), FitConfig(variation="half-turn")
    drawn = [varied(image, ALL, config, generator) for _ in range(200)]
    assert 70 < sum(one.tobytes() == image.tobytes() for one in drawn) < 130
    angles = []
    for one in drawn:
        assert one.min() == pytest.approx(image.min(), abs=1e-5)
        np.testing.assert_allclose(one.max(axis=(1, 2)), image.max(axis=(1, 2)), atol=0.4)  # slices stay in order
        row, column = ndimage.center_of_mass(one[-1] - one.min()) - np.array([23.5, 23.5])
        assert np.hypot(row, column) == pytest.approx(0.3 * 23.5, abs=1.0)
        angles.append(np.rad2deg(np.arctan2(row, column)))
    assert np.abs(angles).max() > 150


def test_full_variation_keeps_the_voxels_values_where_an_artifact_is_a_matter_of_noise(image: Image) -> None:
    config = FitConfig(intensity_jitter=0)
    padded = np.pad(image - image.min() + 1, ((6, 6), (10, 10), (10, 10)))
    for seed in range(5):
        one = varied(padded, frozenset({Artifact.NOISE}), config, np.random.default_rng(seed))
        np.testing.assert_array_equal(np.sort(one, axis=None), np.sort(padded, axis=None))
