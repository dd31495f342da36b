"""Distortion is drawn anew as it is measured, with what it is at every region, and learned from so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional as F

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.ensemble.bend import DISPLACEMENT_MM, STRAIN, BendUNet
from qcnode.ensemble.regions import APART, PLACE, REGION
from qcnode.imaging.preprocess import INPUT_SHAPE
from train import bending
from train.bending import bend_of, bent_anew, can_be_bent
from train.config import FitConfig
from train.dataset import Scan, inputs
from train.deformation import Waves
from train.fading import Tissues
from train.feed import fed
from train.redraw import SPACING_MM
from train.severity import DISPLACEMENT_MM as INTERVALS_MM
from train.severity import STRAIN as STRAINS
from train.severity import OutOfContract

SIGMA = 0.01
MEASURED = {"noise_sigma": SIGMA, "displacement_mm": 0.0, "strain": 0.0}


def a_head() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A smooth head in a field of view that does not fill the input, and its shares of brain, grey and white matter."""
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in INPUT_SHAPE], indexing="ij")
    radius = np.sqrt(z**2 + (y / 0.7) ** 2 + (x / 0.6) ** 2)
    ribbons = 1 + 0.3 * np.sin(20 * x) * np.cos(18 * y)
    image = ribbons / (1 + np.exp((radius - 0.85) * 25))
    image[:3] = image[:, :9] = image[:, :, -12:] = 0
    brain = 1 / (1 + np.exp((radius - 0.7) * 25))
    places = np.stack([brain, 0.6 * brain, 0.4 * brain]).reshape(3, 40, 72, 2, 72, 2).mean((3, 5))
    return image.astype(np.float32), places.astype(np.float32)


HEAD, SHARES = a_head()


@pytest.mark.parametrize("severity", list(Severity))
@pytest.mark.parametrize("seed", range(6))
def test_it_is_bent_as_it_is_said(severity: Severity, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bending, "noise_level", lambda _: 0.0)
    image = HEAD.copy()
    bent = bent_anew(image, SHARES, 0.0, severity, np.random.default_rng(seed), seed % 3)
    np.testing.assert_array_equal(image, HEAD)
    assert bent.image.shape == (14, *INPUT_SHAPE[1:])
    assert bent.regions.shape == (BendUNet.REGIONS, 14, *(n // REGION for n in INPUT_SHAPE[1:]))
    assert bent.measured["displacement_mm"] in INTERVALS_MM[severity]
    assert bent.measured["strain"] in STRAINS[severity]
    slices = np.arange(seed % 3, INPUT_SHAPE[0], APART)
    count = len(slices)
    displaced = ndimage.zoom(bent.regions[2:5, :count], (1, 1, REGION, REGION), order=1, mode="nearest", grid_mode=True)
    voxels = displaced * DISPLACEMENT_MM / SPACING_MM[:, None, None, None]
    places = np.stack(np.meshgrid(slices, *(np.arange(n) for n in INPUT_SHAPE[1:]), indexing="ij")) + voxels
    expected = ndimage.map_coordinates(HEAD, places, order=1)
    inside = np.zeros(HEAD.shape, bool)
    inside[6:-3, 24:-15, 15:-27] = True
    inside = inside[slices]
    error = np.abs(bent.image[:count] - expected)[inside]
    moved = np.abs(HEAD[slices] - expected)[inside]
    assert np.quantile(error, 0.99) < 0.05, "between regions a displacement bends a little"
    if severity:
        assert moved.max() > 0.1, "or nothing was tested"
    assert not bent.image[:, :9].any(), "beyond the field of view there is nothing"
    assert not bent.image[:, :, -12:].any()
    nearer = ndimage.map_coordinates(SHARES[0].repeat(PLACE, 1).repeat(PLACE, 2), places, order=1)
    brain = nearer.reshape(count, 72, 2, 72, 2).mean((2, 4))
    np.testing.assert_allclose(bent.shares[0, :count], brain, atol=0.15)


def test_noise_is_added_that_is_not_bent() -> None:
    bent = bent_anew(HEAD, SHARES, 0.1, Severity.NONE, np.random.default_rng(0), 0)
    air = bent.image[3:10, 12:20, 12:60]
    assert air.mean() > 0.1 * HEAD[SHARES[0].repeat(2, 1).repeat(2, 2) > 0.5].mean()


def test_the_maps_of_a_stretch_are_its_own() -> None:
    points = np.random.default_rng(0).uniform(-60, 60, (500, 3))
    along_rows = np.array([[0.0, 1.0, 0.0]])
    waves = Waves(along_rows, along_rows, np.array([0.3]), points, 120.0, 6.0)
    maps = bend_of(waves, np.array([5, 20]), (40, 144, 144))
    length, stretch, *others = maps
    np.testing.assert_allclose(length, np.abs(others[1]), atol=1e-5)
    np.testing.assert_allclose(stretch, np.abs(others[4]), atol=1e-5)
    for nothing in (0, 2, 3, 5, 6, 7, 8):
        np.testing.assert_allclose(others[nothing], 0, atol=1e-5)
    rises = np.diff(others[1][0, :, 0]) * DISPLACEMENT_MM / (REGION * SPACING_MM[1]) / STRAIN
    np.testing.assert_allclose(rises, (others[4][0, 1:, 0] + others[4][0, :-1, 0]) / 2, atol=0.15)


def test_scans_that_would_tell_are_left_alone() -> None:
    none = np.zeros(len(Artifact), np.int64)
    assert can_be_bent(none, MEASURED)
    assert not can_be_bent(none, MEASURED | {"displacement_mm": 0.4})
    for artifact in Artifact:
        some = none.copy()
        some[list(Artifact).index(artifact)] = 1
        assert can_be_bent(some, MEASURED) is (artifact in (Artifact.POSITIONING, Artifact.CONTRAST))
    with pytest.raises(OutOfContract, match="no brain is known"):
        bent_anew(HEAD, SHARES * 0, SIGMA, Severity.SEVERE, np.random.default_rng(0), 0)


def test_a_batch_has_the_maps_and_the_measures_of_what_was_drawn() -> None:
    def scan(severity: int) -> Scan:
        return Scan(Path("LISA_0001_LF_axi.nii.gz"), "LISA_0001", Plane.AXIAL, (0, 0, 0, 0, 0, 0, severity))

    maps = np.concatenate([SHARES * 127, 0 * SHARES[:1]])
    tissues = [Tissues(np.rint(maps).astype(np.int8), None)] * 2 + [None]
    its = [MEASURED, MEASURED | {"displacement_mm": 6.0, "strain": 0.2}, {}]
    data = inputs([scan(0), scan(1), scan(2)], [HEAD.astype(np.float16)] * 3, (), its, tissues)
    config = FitConfig(encoder="bend-unet", truth_weight=1, measure_weight=1, redraw=1, intensity_jitter=0)
    found = []
    for batch in fed(
        data, [np.arange(3)] * 3, frozenset({Artifact.DISTORTION}), config, np.random.default_rng(1), "test"
    ):
        assert batch.labels[:, -1].tolist() == [0, 1, 2]
        assert batch.truth is not None
        assert batch.measures is not None
        assert batch.truth.known.all(), "all three are drawn on the first"
        for severity, (shares, regions, measures) in enumerate(
            zip(batch.truth.shares, batch.truth.regions, batch.measures, strict=True)
        ):
            brain = F.avg_pool2d(shares[0], REGION // PLACE) > 0.5
            most = float(regions[0][brain].max()) * DISPLACEMENT_MM
            millimetres = float(measures[0]) * 5
            assert INTERVALS_MM[severity].low < millimetres < INTERVALS_MM[severity].high
            assert most > 0.4 * millimetres
            found.append(millimetres)
    assert len(set(found)) == 9, "each is another draw"
    as_they_are = config.model_copy(update={"redraw": 0.0})
    (batch,) = fed(
        data, [np.arange(3)], frozenset({Artifact.DISTORTION}), as_they_are, np.random.default_rng(1), "test"
    )
    assert batch.truth is not None
    assert batch.truth.known.tolist() == [True, True, False]
    assert not batch.truth.regions[0].any(), "nothing is bent"
    assert batch.truth.regions[1].isnan().all(), "it is not written down how"
