"""Contrast is drawn anew as it was measured, with noise that does not tell, and learned from so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy import ndimage
from torch.nn import functional as F

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.ensemble.tissue import PLACE, REGION
from qcnode.imaging.preprocess import INPUT_SHAPE
from train.config import FitConfig
from train.dataset import Scan, inputs
from train.sampling.fading import Anew, Plain, Tissues, can_be_plain, drawn_anew, plain_of
from train.sampling.feed import Fed, fed
from train.sampling.truth import brain_of_regions, widened
from train.simulation import physics
from train.simulation.severity import CONTRAST_LEFT, SHADING_RATIO, Interval

SIGMA = 0.02  # of the noise, relative to the brain's mean
MEASURED = {"contrast_left": 0.9, "clean_contrast": 0.3, "noise_sigma": SIGMA}


def maps_of_a_head() -> NDArray[np.float32]:
    """Brain, grey and white matter in ribbons, and the logarithm of a shading along the columns, of each voxel."""
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in INPUT_SHAPE], indexing="ij")
    brain = np.sqrt(z**2 + (y / 0.8) ** 2 + (x / 0.7) ** 2) < 0.9
    white = ndimage.gaussian_filter((np.sin(25 * x) * np.cos(20 * y) > 0).astype(float), (0, 1, 1))
    return np.stack([brain, brain * (1 - white), brain * white, 0.1 * x]).astype(np.float32)


MAPS = maps_of_a_head()
BRAIN, GREY, WHITE, SHADING = MAPS
REGIONS = BRAIN.reshape(40, 18, 8, 18, 8).mean((2, 4))


def a_scan(noise: float = 0.0) -> NDArray[np.float32]:
    """Grey 1.27, white 1.0, a little shaded, in a field of view that does not fill the input."""
    generator = np.random.default_rng(3)
    signal = (1.27 * GREY + 1.0 * WHITE) * np.exp(SHADING)
    noises = noise * generator.standard_normal((2, *INPUT_SHAPE))
    image = np.hypot(signal + noises[0], noises[1])
    image[:, :6] = image[:, :, -10:] = 0
    return image.astype(np.float32)


PLAIN = plain_of(a_scan(), MAPS)
NOISY = plain_of(a_scan(SIGMA * 1.13), MAPS)


@pytest.mark.parametrize("severity", list(Severity))
@pytest.mark.parametrize("seed", range(4))
def test_what_is_said_of_it_is_measured_on_it(severity: Severity, seed: int) -> None:
    anew = drawn_anew(PLAIN, REGIONS, MEASURED | {"noise_sigma": 0.0}, severity, np.random.default_rng(seed))
    voxels = ndimage.zoom(anew.shading, (1, 8, 8), order=1, mode="nearest", grid_mode=True)
    bare = anew.image / np.exp(voxels)
    inside = [part * (anew.image > 0) for part in (GREY, WHITE)]
    before = physics.contrast(PLAIN.image.astype(np.float32), *inside)
    brightness = float((bare * BRAIN).sum() / (PLAIN.image.astype(np.float32) * BRAIN * (anew.image > 0)).sum())
    left = physics.contrast(bare, *inside) / before / brightness * MEASURED["contrast_left"]
    assert left * MEASURED["clean_contrast"] == pytest.approx(anew.measured["contrast_seen"], abs=0.012)
    ratio = np.exp(np.ptp(anew.shading[REGIONS > 0.5]))
    assert ratio == pytest.approx(anew.measured["shading_ratio"], rel=1e-3)
    lost, shaded = CONTRAST_LEFT[severity], SHADING_RATIO[severity]
    of_contrast = anew.measured["contrast_seen"] / MEASURED["clean_contrast"]

    def lies(value: float, interval: Interval) -> bool:
        return interval.low - 1e-6 <= value <= interval.high + 1e-6

    assert lies(of_contrast, lost) or lies(ratio, shaded)
    assert (anew.image[:, :6] == 0).all(), "beyond the field of view there is nothing"


@pytest.mark.parametrize("severity", [Severity.NONE, Severity.SEVERE])
@pytest.mark.parametrize("seed", range(4))
def test_its_noise_is_as_even_as_it_was(severity: Severity, seed: int) -> None:
    anew = drawn_anew(NOISY, REGIONS, MEASURED, severity, np.random.default_rng(seed))
    smooth = np.diff(anew.image, axis=0)  # ribbons are alike along the slices
    deep = ndimage.binary_erosion(BRAIN > 0.5, np.ones((3, 3, 3)))[1:] & (anew.image[1:] > 0)
    deep[:, :8] = deep[:, :, -12:] = False
    columns = [smooth[..., a:b][deep[..., a:b]].std() for a, b in ((30, 60), (60, 90), (90, 120))]
    assert max(columns) < 1.25 * min(columns)
    assert min(columns) > 0.5 * SIGMA


def test_the_same_draw_is_the_same_and_the_scan_stays() -> None:
    image = NOISY.image.copy()
    first, second = (
        drawn_anew(NOISY, REGIONS, MEASURED, Severity.MODERATE, np.random.default_rng(7)) for _ in range(2)
    )
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(NOISY.image, image)
    assert first.measured == second.measured


def test_every_third_slice_is_as_it_is_among_all() -> None:
    def drawn(first: int | None) -> Anew:
        return drawn_anew(PLAIN, REGIONS, MEASURED, Severity.SEVERE, np.random.default_rng(8), first)

    whole, some = drawn(None), drawn(1)
    np.testing.assert_allclose(some.shading[:-1], whole.shading[1::3], rtol=1e-5)
    assert some.image.shape == (14, *INPUT_SHAPE[1:])
    assert some.measured == whole.measured
    for its, of_all in zip(some.image[:-1], whole.image[1::3], strict=True):
        assert abs(its.mean() - of_all.mean()) <= 0.05 * of_all.mean(), "but for another draw of noise"


def test_scans_on_which_it_would_not_be_true_are_left_alone() -> None:
    none = np.zeros(len(Artifact), np.int64)
    assert can_be_plain(none)
    for artifact in Artifact:
        some = none.copy()
        some[list(Artifact).index(artifact)] = 1
        spoils = artifact in (Artifact.NOISE, Artifact.MOTION, Artifact.BANDING, Artifact.CONTRAST)
        assert can_be_plain(some) is not spoils


def test_a_batch_has_the_truth_and_the_measures_of_what_was_drawn() -> None:
    def scan(severity: int) -> Scan:
        return Scan(Path("LISA_0001_LF_axi.nii.gz"), "LISA_0001", Plane.AXIAL, (0, 0, 0, 0, 0, severity, 0))

    places = MAPS.reshape(4, 40, 72, 2, 72, 2).mean((3, 5)) * np.array([127, 127, 127, 50])[:, None, None, None]
    maps = np.rint(places).astype(np.int8)
    tissues = [Tissues(maps, NOISY), Tissues(maps, None), None]
    image = a_scan(SIGMA).astype(np.float16)
    its = MEASURED | {"contrast_seen": 0.27, "shading_ratio": 1.2}
    data = inputs([scan(0), scan(1), scan(2)], [image] * 3, (), [its, its, {}], tissues)
    config = FitConfig(encoder="tissue-unet", truth_weight=1, measure_weight=1, redraw=1, intensity_jitter=0)
    contrasts = []
    batches = [np.arange(3)] * 3
    for batch in fed(data, batches, frozenset({Artifact.CONTRAST}), config, np.random.default_rng(1), "test"):
        assert batch.labels[:, list(Artifact).index(Artifact.CONTRAST)].tolist() == [0, 1, 2]
        assert batch.truth is not None
        assert batch.measures is not None
        assert batch.truth.known.all(), "all three are drawn on the first"
        its_contrast = batch.truth.regions[:, 1].amax((1, 2, 3))
        np.testing.assert_allclose(its_contrast, batch.measures[:, 0], rtol=1e-5)
        for places, regions, ratio in zip(batch.truth.shares, batch.truth.regions, batch.measures[:, 1], strict=True):
            brain, shading = F.avg_pool2d(places[0], REGION // PLACE) > 0.9, regions[0]
            said = float(shading[brain].max() - shading[brain].min())
            assert 0.75 < said / np.log(float(ratio)) < 1.02, "of means over regions"
        contrasts += its_contrast.tolist()
    assert len(set(contrasts)) == 9, "each is another draw"
    untold = replace(data, measured=[{}] * 3)
    for batch in fed(untold, batches, frozenset({Artifact.CONTRAST}), config, np.random.default_rng(1), "test"):
        assert batch.truth is not None
        assert batch.truth.regions[0, 1].isnan().all(), "of a scan without a record nothing is known"


def test_others_are_drawn_beside_it_and_the_truth_stays() -> None:
    places = MAPS.reshape(4, 40, 72, 2, 72, 2).mean((3, 5)) * np.array([127, 127, 127, 50])[:, None, None, None]
    scan = Scan(Path("LISA_0001_LF_axi.nii.gz"), "LISA_0001", Plane.AXIAL, (0,) * len(Artifact))
    its = MEASURED | {"contrast_seen": 0.27, "shading_ratio": 1.2}
    tissues = [Tissues(np.rint(places).astype(np.int8), NOISY)]
    data = inputs([scan], [a_scan(SIGMA).astype(np.float16)], (), [its], tissues)
    alone = FitConfig(encoder="tissue-unet", truth_weight=1, measure_weight=1, redraw=1, intensity_jitter=0)

    def batch(config: FitConfig) -> Fed:
        (its,) = fed(data, [np.zeros(4, int)], frozenset({Artifact.CONTRAST}), config, np.random.default_rng(1), "test")
        return its

    without, beside = batch(alone), batch(alone.model_copy(update={"redraw_others": 1.0}))
    assert torch.equal(without.labels, beside.labels)
    assert without.truth is not None
    assert beside.truth is not None
    assert without.measures is not None
    assert beside.measures is not None
    assert torch.equal(without.measures[0], beside.measures[0])
    assert torch.equal(without.truth.shares[0], beside.truth.shares[0]), "each scan is drawn by its own seed"
    off = (without.images - beside.images).abs()[without.images > 0.5].mean()
    assert 0.05 < off < 0.6, "moved and banded, not another head"
    as_it_is = alone.model_copy(update={"redraw": 0.0})
    left = batch(as_it_is.model_copy(update={"redraw_others": 1.0}))
    assert torch.equal(batch(as_it_is).images, left.images), "only where Contrast is drawn anew"
    with pytest.raises(ValidationError, match="compact-resnet is given no others"):
        FitConfig(redraw=0.5, redraw_others=0.5)


def test_the_brain_of_regions_is_the_mean_of_its_places() -> None:
    maps = np.zeros((4, 40, 72, 72), np.int8)
    maps[0, :, :4, :4] = 127
    brain = brain_of_regions(maps)
    assert brain.shape == (40, 18, 18)
    assert brain[:, 0, 0].tolist() == [1.0] * 40
    assert brain.sum() == pytest.approx(40)
    assert widened(maps)[0, 0, 0, 0] == pytest.approx(1)


def test_plain_is_the_scan_without_its_shading() -> None:
    assert isinstance(PLAIN, Plain)
    there = (BRAIN > 0.5) & (a_scan() > 0)
    np.testing.assert_allclose(PLAIN.image[there], (1.27 * GREY + WHITE)[there], rtol=2e-3)
    mean, share, of_brain = PLAIN.figures
    assert 1.0 < mean < 1.27
    assert 0 < share <= 1
    assert of_brain == pytest.approx(PLAIN.image[BRAIN > 0.5].astype(float).mean(), rel=1e-3)
