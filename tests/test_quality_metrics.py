"""Each metric goes the way that its docstring says when an artifact is added, and the forest beats always-none."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from qcnode.artifacts import Artifact, Plane
from train import metrics
from train.dataset import Inputs, Scan
from train.studies import forest
from train.studies.forest import METRICS, forest_graded, measured
from train.studies.quality_metrics import (
    Regions,
    head_share,
    off_centre,
    otsu,
    quality_metrics,
    regions_of,
    sharpness,
    slice_correlation,
    spread,
)


def head(seed: int = 0, noise: float = 0.02, shift: int = 0) -> np.ndarray:
    """Bright ventricles in a darker brain in noisy air, with a padded border."""
    generator = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in (12, 48, 48)], indexing="ij")
    brain, ventricle = (z / 0.9) ** 2 + (y / 0.7) ** 2 + (x / 0.6) ** 2 < 1, y**2 + (2 * x) ** 2 + z**2 < 0.08
    image = np.where(ventricle, 2.0, np.where(brain, 1.0, 0.0))
    image = np.roll(image, shift, axis=1)
    noisy = np.hypot(image + noise * generator.standard_normal(image.shape), noise * generator.standard_normal(z.shape))
    noisy[:, :2] = 0
    return noisy.astype(np.float32)


CLEAN = quality_metrics(head())


def changed(image: np.ndarray) -> dict[str, float]:
    after = quality_metrics(np.asarray(image, np.float32))
    assert after.keys() == CLEAN.keys()
    assert all(np.isfinite(value) for value in after.values())
    return {name: after[name] - CLEAN[name] for name in after}


def test_noise_costs_signal_to_noise_contrast_and_energy() -> None:
    change = changed(head(noise=0.2))
    assert max(change[name] for name in ("snr", "snr_dietrich", "cnr", "fber", "slice_correlation")) < 0
    assert min(change[name] for name in ("cjv", "efc", "air_std")) > 0


def test_blur_costs_sharpness() -> None:
    assert changed(ndimage.gaussian_filter(head(), (0, 2, 2)))["sharpness"] < 0


def test_shading_is_seen() -> None:
    gain = np.linspace(0.5, 1.5, 48)
    change = changed(head() * gain)
    assert change["shading"] > 0.02
    assert change["cjv"] > 0


@pytest.mark.parametrize(("axis", "name"), [(1, "spread_row"), (2, "spread_column")])
def test_a_line_stands_out_across_its_axis_alone(axis: int, name: str) -> None:
    image = head()
    image[(slice(None),) * axis + (20,)] += 0.5
    change = changed(image)
    assert max(("spread_row", "spread_column", "spread_slice"), key=lambda each: change[each]) == name


def test_a_head_that_is_moved_is_off_centre_by_as_much() -> None:
    change = changed(head(shift=6))
    assert change["off_centre_row"] == pytest.approx(6 / 24, abs=0.02)
    assert change["off_centre_column"] == pytest.approx(0, abs=0.01)


def test_ghosts_raise_the_entropy_focus() -> None:
    assert changed(head() + 0.3 * np.roll(head(), 16, axis=1))["efc"] > 0


def test_entropy_focus_is_one_for_a_flat_image() -> None:
    from train.studies.quality_metrics import entropy_focus

    assert entropy_focus(np.full(900, 0.7)) == pytest.approx(1)


def test_the_equations_of_small_images_by_hand() -> None:
    everywhere = np.ones((4, 2, 2), bool)
    planes = np.broadcast_to(np.array([1, 1, 4, 1], np.float32)[:, None, None], (4, 3, 3))
    assert spread(planes, planes > 0, 0) == pytest.approx(abs(1 - 2 * 4 + 1) / 1.75, rel=1e-4)
    assert spread(planes, planes > 0, 1) == 0
    one = np.array([[1, 2], [3, 5]], np.float32)
    slices = np.stack([one, 2 * one + 1, 7 - one, 9 - 2 * one])  # neighbours' correlations: 1, -1, 1
    assert slice_correlation(slices, everywhere) == pytest.approx(1, abs=1e-4)
    assert slice_correlation(slices[:3], everywhere[:3]) == pytest.approx(0, abs=1e-4)
    corner = np.zeros((4, 2, 8), bool)
    corner[0, :, :4] = True
    assert off_centre(Regions(corner, ~corner, 0)).tolist() == [abs(0.5 - 2) / 2, 0, abs(2 - 4) / 4]
    assert head_share(corner) == 1 / 8
    middle = np.zeros((3, 3, 5), bool)
    middle[1, 1, 1:4] = True
    ramp = np.broadcast_to(3 * np.arange(5, dtype=np.float32), (3, 3, 5))
    assert sharpness(ramp, middle) == pytest.approx(16 * 2 * 3 / 6)  # weights of 16, two steps of 3; their mean is 6


def test_regions_are_the_head_and_the_air_without_the_padding() -> None:
    regions = regions_of(head())
    assert not (regions.head & regions.air).any()
    assert not regions.air[:, :2].any()
    assert 1.0 < regions.tissue < 2.0
    assert otsu(np.array([1.0] * 50 + [3.0] * 10)) == pytest.approx(2, abs=1)


def test_the_scale_of_the_image_changes_no_ratio() -> None:
    change = changed(3 * head())
    ratios = ("snr", "snr_dietrich", "cnr", "cjv", "efc", "fber", "slice_correlation", "sharpness", "shading")
    assert [name for name in ratios if abs(change[name]) > 1e-2 * abs(CLEAN[name])] == []


def test_a_forest_of_the_metrics_grades_noise_in_heads_it_never_saw() -> None:
    severity = np.arange(36) % 3
    images = [head(seed, 0.02 + 0.06 * s) for seed, s in enumerate(severity)]
    labels = np.repeat(severity[:, None], len(Artifact), axis=1)
    scans = [Scan(Path(f"{n}.nii"), f"LISA_{n:04d}", Plane.AXIAL, tuple(row)) for n, row in enumerate(labels)]
    everything = Inputs(scans, images, labels, np.zeros(36, np.int64))
    names = [scan.subject for scan in scans]
    training, test = everything.of(names[:24]), everything.of(names[24:])
    found = forest_graded(measured(everything), [Artifact.NOISE], training, test, seed=1)
    its = found[Artifact.NOISE]
    assert its.subjects == names[24:]
    np.testing.assert_allclose(its.probabilities.sum(axis=1), 1)
    assert metrics.macro_f1(its.truth, its.named) > 0.8 > metrics.macro_f1(its.truth, metrics.majority(its.truth))


def test_metrics_are_measured_once_and_again_when_the_scan_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(CLEAN) == METRICS
    scan = Scan(tmp_path / "LISA_0001_LF_axi.nii.gz", "LISA_0001", Plane.AXIAL, (0,) * len(Artifact))
    scan.path.touch()
    data = Inputs([scan], [head().astype(np.float16)], np.zeros((1, len(Artifact)), np.int64), np.array([2]))
    plain, kept = measured(data), measured(data, tmp_path / "cache")
    np.testing.assert_array_equal(plain[scan.path.name], kept[scan.path.name])
    assert kept[scan.path.name].shape == (METRICS + 1,)
    assert kept[scan.path.name][-1] == 2  # its plane

    calls: list[int] = []
    monkeypatch.setattr(forest, "_metrics", lambda _: calls.append(1) or np.full(METRICS, 7.0))
    again = measured(data, tmp_path / "cache")
    np.testing.assert_array_equal(again[scan.path.name], kept[scan.path.name])
    assert not calls
    later = scan.path.stat().st_mtime + 100
    os.utime(scan.path, (later, later))
    assert measured(data, tmp_path / "cache")[scan.path.name][0] == 7
    assert calls == [1]
