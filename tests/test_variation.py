"""How scans are varied while training: what every kind of variation leaves as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from qcnode.artifacts import Artifact, Plane
from train.config import FitConfig
from train.dataset import Scan, inputs
from train.sampling.variation import Image, Variation, also_as_trained, drawn, varied, without_air

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


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_without_air_a_head_keeps_its_voxels_and_nothing_is_around_it(kind: type) -> None:
    generator = np.random.default_rng(3)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (12, 48, 48)), indexing="ij")
    radius = np.hypot(np.hypot(x, y), 0.5 * z)
    inside, ventricle = radius < 0.6, radius < 0.15
    scan = np.where(inside & ~ventricle, 1.0, 0.0) + 0.05 * generator.random(inside.shape)
    emptied = without_air(scan.astype(kind), 0.15)
    assert emptied.dtype == kind
    assert not emptied[radius > 0.85].any()
    core = radius < 0.55  # the ventricle with it
    np.testing.assert_array_equal(emptied[core], scan.astype(kind)[core])
    np.testing.assert_array_equal(without_air(np.zeros((2, 4, 4), kind) + 1, 2.0), np.ones((2, 4, 4)))


def test_some_scans_are_seen_without_their_air_where_that_is_asked_for() -> None:
    config, noise = FitConfig(emptied=0.25), frozenset({Artifact.NOISE})
    seen = [drawn(noise, config, np.random.default_rng(seed)).air for seed in range(400)]
    assert 60 < sum(air is not None for air in seen) < 140
    assert drawn(noise, FitConfig(), np.random.default_rng(0)).air is None
    with pytest.raises(ValidationError, match="emptied goes with"):
        FitConfig(emptied=0.25, variation="none")


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_a_variation_is_its_steps_one_after_the_other(image: Image, kind: type) -> None:
    config, source = FitConfig(), (image - image.min()).astype(kind)
    for seed, artifacts in enumerate([ALL, frozenset({Artifact.NOISE}), frozenset({Artifact.POSITIONING})] * 4):
        variation = drawn(artifacts, config, np.random.default_rng(seed))
        expected = np.flip(source.astype(np.float32), variation.mirrored)
        if variation.transposed:
            expected = expected.swapaxes(1, 2)
        expected = (expected * np.float32(variation.scale)) ** np.float32(variation.exponent)
        assert variation.shift_voxels is not None
        for axis, voxels in enumerate(variation.shift_voxels):
            expected = np.roll(expected, voxels, axis)
            gone = slice(0, voxels) if voxels >= 0 else slice(voxels, None)
            expected[tuple(gone if a == axis else slice(None) for a in range(3))] = 0
        np.testing.assert_array_equal(variation.of(source), expected)


def test_scans_are_sharper_or_softer_where_no_trained_artifact_is_a_matter_of_details(image: Image) -> None:
    config, motion = FitConfig(sharpness_jitter=0.5), frozenset({Artifact.MOTION})
    seen = [drawn(motion, config, np.random.default_rng(seed)).details for seed in range(400)]
    assert np.std(np.log(seen)) == pytest.approx(0.5, abs=0.05)
    assert drawn(motion, FitConfig(), np.random.default_rng(0)).details == 1
    for artifact in (Artifact.NOISE, Artifact.ZIPPER, Artifact.CONTRAST):
        assert drawn(motion | {artifact}, config, np.random.default_rng(0)).details == 1

    bright = image - image.min() + 1  # so that nothing reaches the darkest
    for strength in (0.5, 2.0):
        one = Variation(details=strength).of(bright)
        np.testing.assert_allclose(one.mean(), bright.mean(), rtol=1e-3)
        around = ndimage.uniform_filter(bright.astype(np.float64), (0, 3, 3))
        expected = around + strength * (bright - around)
        np.testing.assert_allclose(one[:, 1:-1, 1:-1], np.maximum(expected, 1)[:, 1:-1, 1:-1], rtol=1e-4)
        np.testing.assert_array_equal(Variation(details=strength).of_mask(bright), bright)
    for its in ({"variation": "none"}, {"encoder": "mirror-resnet"}):
        with pytest.raises(ValidationError, match="sharpness_jitter"):
            FitConfig.model_validate({"sharpness_jitter": 0.5, **its})


def test_scans_are_judged_as_they_are_and_changed_as_in_training(image: Image) -> None:
    half = (image - image.min()).astype(np.float16)
    labels = tuple(int(artifact is Artifact.MOTION) for artifact in Artifact)
    data = inputs([Scan(Path("a.nii.gz"), "A", Plane.AXIAL, labels)], [half])
    own, emptied, sharper = also_as_trained(data, Artifact.MOTION, emptied=0.1, sharpness_jitter=0.5).images
    np.testing.assert_array_equal(own, half)
    np.testing.assert_array_equal(emptied, without_air(half, 0.15))
    np.testing.assert_array_equal(sharper, Variation(details=np.exp(0.5)).of(half).astype(np.float16))
    assert also_as_trained(data, Artifact.MOTION, emptied=0.0, sharpness_jitter=0.0) is data
    assert also_as_trained(data, Artifact.NOISE, emptied=0.0, sharpness_jitter=0.5) is data


def test_a_turn_and_a_shift_of_a_half_precision_scan_are_those_of_the_widened_one(image: Image) -> None:
    variation = Variation(mirrored=(1,), scale=1.1, exponent=0.9, turn=(0.2, 1.05), shift_voxels=(1, -3, 4))
    half = (image - image.min()).astype(np.float16)
    one = variation.of(half)
    np.testing.assert_array_equal(one, variation.of(half.astype(np.float32)))
    assert not one[0].any()
    assert not one[:, -3:].any()
    turned = Variation(mirrored=(1,), scale=1.1, exponent=0.9, turn=(0.2, 1.05)).of(half)
    np.testing.assert_array_equal(one[1:, :-3, 4:], turned[:-1, 3:, :-4])
