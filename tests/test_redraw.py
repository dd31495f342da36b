from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from qcnode.artifacts import Artifact, Severity
from qcnode.imaging.preprocess import INPUT_SHAPE
from train.sampling import redraw
from train.sampling.redraw import REDRAWN, can_be_redrawn, is_redrawn, redrawn
from train.simulation import physics
from train.simulation.draws import draw
from train.simulation.severity import BAND_DEPTH, DISPLACEMENT_MM, SHADING_RATIO, OutOfContract


def an_input(contrast: float = 0.2) -> np.ndarray:
    """A head with a textured inside in a field of view that does not fill the input."""
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in INPUT_SHAPE], indexing="ij")
    radius = np.sqrt(z**2 + (y / 0.8) ** 2 + (x / 0.65) ** 2)
    image = np.where(radius < 0.9, 1.0 + contrast * np.sin(12 * x) * np.cos(9 * y), 0.05)
    image[:, :6] = image[:, :, -10:] = 0
    return image.astype(np.float32)


IMAGE = an_input()
LIVELY = np.where(IMAGE > 0.5, np.maximum(an_input(2.0), 0.55), IMAGE)  # in which motion is seen
HEAD = IMAGE > 0.5
BRAIN = ndimage.binary_erosion(HEAD, np.ones((1, 15, 15)))  # without a rim of 11 mm


@pytest.mark.parametrize("artifact", REDRAWN)
@pytest.mark.parametrize("severity", list(Severity))
def test_the_same_draw_gives_the_same_image_and_leaves_the_input(artifact: Artifact, severity: Severity) -> None:
    image = LIVELY.copy()
    first, second = (redrawn(image, artifact, severity, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(image, LIVELY)
    assert np.isfinite(first).all()


@pytest.mark.parametrize("severity", list(Severity))
@pytest.mark.parametrize("seed", range(6))
def test_bands_change_the_brain_by_the_severitys_depth(severity: Severity, seed: int) -> None:
    changed = redrawn(IMAGE, Artifact.BANDING, severity, np.random.default_rng(seed))
    depth = np.abs(changed[BRAIN] / IMAGE[BRAIN] - 1).max()
    assert 0.95 * BAND_DEPTH[severity].low <= depth <= 1.1 * BAND_DEPTH[severity].high + 1e-3


@pytest.mark.parametrize("seed", range(6))
def test_a_drawn_bands_edge_crosses_the_brain(seed: int) -> None:
    banded = redrawn(IMAGE, Artifact.BANDING, Severity.SEVERE, np.random.default_rng(seed))
    changed = np.abs(banded[BRAIN] / IMAGE[BRAIN] - 1)
    assert 0.05 < (changed > changed.max() / 2).mean() < 0.9


def test_on_what_is_too_small_for_an_edge_no_band_is_drawn() -> None:
    image = np.full(INPUT_SHAPE, 0.05, np.float32)
    image[20, 72, 72] = 1.0
    with pytest.raises(OutOfContract, match="take another scan"):
        redrawn(image, Artifact.BANDING, Severity.SEVERE, np.random.default_rng(0))


@pytest.mark.parametrize("severity", list(Severity))
def test_shading_has_the_severitys_ratio(severity: Severity) -> None:
    changed = redrawn(IMAGE, Artifact.CONTRAST, severity, np.random.default_rng(3))
    field = changed[HEAD] / IMAGE[HEAD]
    if severity is Severity.NONE:
        np.testing.assert_array_equal(changed, IMAGE)
    else:
        assert field.max() / field.min() == pytest.approx(np.mean(SHADING_RATIO[severity]), rel=0.35)


def test_a_distortion_moves_voxels_as_far_as_its_severity_says() -> None:
    """Each coordinate, sampled through the distortion, says how far its voxels came."""
    spacing_mm = (5.0, 1.6, 1.6)
    for severity in Severity:
        moved = np.zeros(INPUT_SHAPE)
        for axis, size in enumerate(INPUT_SHAPE):
            ramp = np.broadcast_to(
                np.arange(size, dtype=np.float32).reshape([-1 if a == axis else 1 for a in range(3)]), INPUT_SHAPE
            )
            pulled = sampled(ramp + 1000, severity) - 1000
            moved += ((pulled - ramp) * spacing_mm[axis]) ** 2
        largest = np.sqrt(moved[HEAD]).max()
        assert largest <= 1.5 * DISPLACEMENT_MM[severity].high
        assert largest >= 0.6 * DISPLACEMENT_MM[severity].low


def sampled(coordinate: np.ndarray, severity: Severity) -> np.ndarray:
    """The coordinate image through the distortion that IMAGE's head and this seed draw."""
    generator = np.random.default_rng(11)
    drawn = draw(generator, dict.fromkeys(Artifact, Severity.NONE) | {Artifact.DISTORTION: severity})
    return redraw._distorted(np.asarray(coordinate, np.float32), drawn, HEAD, generator)


def test_severity_two_is_stronger_than_one_and_one_than_none() -> None:
    for artifact in [a for a in REDRAWN if a is not Artifact.DISTORTION]:
        changes = [
            np.mean(
                [np.abs(redrawn(LIVELY, artifact, s, np.random.default_rng(k)) - LIVELY)[HEAD].mean() for k in range(5)]
            )
            for s in Severity
        ]
        assert changes[0] < changes[1] < changes[2]


def test_what_is_still_cannot_be_seen_to_move() -> None:
    even = np.ones(INPUT_SHAPE, np.float32)
    before = even.copy()
    with pytest.raises(OutOfContract, match="take another scan"):
        redraw.redraw(even, Artifact.MOTION, Severity.SEVERE, np.random.default_rng(0))
    np.testing.assert_array_equal(even, before)


def test_an_artifact_is_added_only_where_the_other_labels_stay_true() -> None:
    clean = dict.fromkeys(Artifact, Severity.NONE)
    for artifact in Artifact:
        assert can_be_redrawn(artifact, clean) == (artifact in REDRAWN)
        assert not can_be_redrawn(artifact, clean | {artifact: Severity.MODERATE})
    assert not can_be_redrawn(Artifact.DISTORTION, clean | {Artifact.NOISE: Severity.MODERATE})
    assert not can_be_redrawn(Artifact.CONTRAST, clean | {Artifact.ZIPPER: Severity.SEVERE})
    assert can_be_redrawn(Artifact.BANDING, clean | {Artifact.NOISE: Severity.SEVERE})
    labels = np.array([[0] * 7, [0, 1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 2, 0, 0], [0, 0, 0, 1, 0, 0, 0]])
    assert redraw.redrawable(labels, Artifact.MOTION).tolist() == [0, 3]
    assert redraw.redrawable(labels[1:3], Artifact.MOTION).tolist() == [0]


def test_nothing_is_drawn_over_a_little_of_the_same_where_a_scan_without_it_is_known() -> None:
    """Shading of 2.4 over a scan's own of 1.3 could come to more than a moderate one's 2.5."""
    labels = np.zeros((3, 7), np.int64)
    labels[2, list(Artifact).index(Artifact.NOISE)] = 1
    little, none = {"shading_ratio": 1.3}, {"shading_ratio": 1.0}
    assert redraw.redrawable(labels, Artifact.CONTRAST, [little, none, none]).tolist() == [1]
    assert redraw.redrawable(labels, Artifact.CONTRAST, [little, {}, none]).tolist() == [1]  # not measured: as labelled
    assert redraw.redrawable(labels, Artifact.CONTRAST, [little, little, none]).tolist() == [0, 1]
    assert redraw.redrawable(labels, Artifact.CONTRAST).tolist() == [0, 1]
    assert all(redraw.is_bare(artifact, {}) for artifact in REDRAWN)
    assert not redraw.is_bare(Artifact.BANDING, {"band_depth": 0.02})


def test_fresh_shading_on_a_bare_scan_has_exactly_a_ratio_of_its_severity() -> None:
    for severity in (Severity.MODERATE, Severity.SEVERE):
        for seed in range(4):
            field = redrawn(IMAGE, Artifact.CONTRAST, severity, np.random.default_rng(seed))[HEAD] / IMAGE[HEAD]
            low, high = SHADING_RATIO[severity]
            assert 0.97 * low <= field.max() / field.min() <= 1.03 * high


def test_scans_without_bands_or_shading_stay_as_they_are() -> None:
    """Bands of severity 0 over others of that severity could be deeper than it allows."""
    kept = {
        (artifact, severity) for artifact in Artifact for severity in Severity if not is_redrawn(artifact, severity)
    }
    never = {(artifact, severity) for artifact in set(Artifact) - set(REDRAWN) for severity in Severity}
    assert kept == never | {(Artifact.BANDING, Severity.NONE), (Artifact.CONTRAST, Severity.NONE)}


def test_half_precision_is_redrawn_as_the_same_values_in_float32() -> None:
    half = LIVELY.astype(np.float16)
    for artifact in REDRAWN:
        one, other = (
            redrawn(its, artifact, Severity.SEVERE, np.random.default_rng(2)) for its in (half, half.astype(np.float32))
        )
        np.testing.assert_array_equal(one, other)


def test_the_head_is_what_the_nearest_of_every_second_slice_and_fourth_pixel_says() -> None:
    expected = ndimage.zoom(IMAGE[::2, ::4, ::4] > 0.5, (2, 4, 4), order=0)
    np.testing.assert_array_equal(redraw._head(IMAGE), expected)


@pytest.mark.parametrize("seed", range(12))
def test_looked_up_bands_are_the_bands_themselves(seed: int) -> None:
    bands = redraw._Bands.drawn(np.random.default_rng(seed))
    tallest, depth = 0.5 + 0.04 * seed, BAND_DEPTH[Severity(seed % 3)].high
    field = np.concatenate([its for _, its in redraw._banding(bands, tallest, depth, IMAGE)])

    axes = np.meshgrid(*(np.linspace(-0.5, 0.5, n) for n in IMAGE.shape), indexing="ij")
    along = sum(axis * d for axis, d in zip(axes, bands.direction, strict=True)) + 0.5
    profile = physics.bands(along.astype(np.float32), bands.profiles, bands.flat)
    expected = 1 + np.sign(sum(bands.direction)) * depth / tallest * profile
    np.testing.assert_allclose(field, expected, atol=0.01)  # of 1: a step of the bands, where they are steepest


@pytest.mark.parametrize("seed", range(4))
def test_a_bright_voxel_far_from_the_head_leaves_its_bands_as_deep(seed: int) -> None:
    image = np.full(INPUT_SHAPE, 0.05, np.float32)
    head = np.s_[:, 40:100, 60:84]
    image[head] = 1.0
    alone = redraw._seen_bands(image, np.random.default_rng(seed))
    image[0, 0, 136] = 1.0
    assert redraw._seen_bands(image, np.random.default_rng(seed)) == alone
