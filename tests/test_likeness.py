"""What is refused before grading, and what is not: an artifact is no reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from qcnode.artifacts import Plane
from qcnode.errors import NotAssessable
from qcnode.imaging.likeness import blocks, check_assessable, figures, otsu
from qcnode.imaging.phantom import MATRIX, add_noise, grid_affine, head, head_with_brain, moved_head
from qcnode.imaging.volume import Volume, volume_from_nifti


def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.fixture(scope="module")
def axial() -> Volume:
    return head(rng(), Plane.AXIAL)


def places() -> NDArray[np.float64]:
    """(3, slice, row, column): right, front and up of each voxel of an axial scan, in mm."""
    affine, shape = grid_affine(Plane.AXIAL), MATRIX[Plane.AXIAL]
    flat = affine[:3, :3] @ np.indices(shape).reshape(3, -1) + affine[:3, 3:]
    return flat.reshape(3, *shape)


def scanned(signal: NDArray[np.float64], sigma: float = 0.04) -> Volume:
    return Volume(300 * add_noise(signal, sigma, rng()), grid_affine(Plane.AXIAL))


def refused(array: NDArray[np.float32] | Volume, like: Volume | None = None) -> str:
    """Why, in one sentence; fails where it is not refused."""
    volume = array if isinstance(array, Volume) else Volume(array.astype(np.float32), like.affine)
    with pytest.raises(NotAssessable) as caught:
        check_assessable(volume, 12)
    return str(caught.value)


def why_not(volume: Volume, minimum_slices: int) -> str | None:
    try:
        check_assessable(volume, minimum_slices)
    except NotAssessable as error:
        return str(error)
    return None


# --- heads ---


@pytest.mark.parametrize("plane", Plane)
@pytest.mark.parametrize("maturity", [0.0, 1.0])
def test_heads_are_assessable_even_in_severe_noise(plane: Plane, maturity: float) -> None:
    volume, brain = head_with_brain(rng(), plane, maturity)
    check_assessable(volume, 12)
    noisy = add_noise(volume.array, 0.3 * float(volume.array[brain].mean()), rng())
    check_assessable(Volume(noisy, volume.affine), 12)
    shaded = volume.array * np.linspace(0.4, 2.4, volume.array.shape[2], dtype=np.float32)
    check_assessable(Volume(shaded, volume.affine), 12)


def test_a_moved_head_is_assessable() -> None:
    check_assessable(moved_head(rng(), Plane.CORONAL), 12)


def test_a_quarter_of_the_head_may_be_cut(axial: Volume) -> None:
    kept = axial.array[: int(0.78 * len(axial.array))]
    check_assessable(Volume(kept, axial.affine), 12)


def test_a_thin_stack_is_judged_where_the_site_allows_it(axial: Volume) -> None:
    check_assessable(Volume(axial.array[16:26], axial.affine), 4)
    thin = axial.affine @ np.diag([0.3, 1, 1, 1])
    with pytest.raises(NotAssessable, match="covers 18 mm"):
        check_assessable(Volume(axial.array[12:24], thin), 12)


def test_neither_scale_nor_the_direction_of_an_axis_changes_a_figure(axial: Volume) -> None:
    found = figures(blocks(axial))
    assert found is not None
    flip = axial.affine.copy()
    flip[:3, 3] += (axial.array.shape[2] - 1) * flip[:3, 2]
    flip[:3, 2] *= -1
    for other in (Volume(7 * axial.array, axial.affine), Volume(np.flip(axial.array, 2), flip)):
        assert figures(blocks(other)) == pytest.approx(found, rel=1e-4, abs=1e-4)


# --- what is none ---


def test_blank_broken_and_thin_volumes_are_not_assessable(axial: Volume) -> None:
    holed = axial.array.copy()
    holed[3, 4, 5:8] = np.nan
    for array, says in (
        (np.zeros((0, 5, 5), np.float32), "empty"),
        (np.zeros_like(axial.array), "same value"),
        (np.full_like(axial.array, 7), "same value"),
        (holed, "3 of 630720 voxels are not finite"),
        (axial.array[:11], "11 slices; at least 12"),
    ):
        assert says in refused(array, axial)


def test_noise_alone_is_no_head(axial: Volume) -> None:
    noise = np.hypot(*rng().normal(size=(2, 36, 146, 120))).astype(np.float32)
    shading = np.exp(-(np.linspace(-2, 2, 120) ** 2)).astype(np.float32)
    zipper = noise.copy()
    zipper[:, :, 60:62] += 20
    for array in (noise, noise * shading, zipper):
        assert "no head" in refused(array, axial)


def test_values_that_differ_by_less_than_single_precision_can_tell_hold_no_head(axial: Volume) -> None:
    refused(axial.array + np.float32(7.7e8), axial)


@pytest.mark.parametrize("power", [2.0, 8.0])
def test_a_bottle_of_water_is_no_head(power: float) -> None:
    x, y, z = places()
    for radius in (55.0, 75.0):
        inside = (np.abs(x) ** power + np.abs(y) ** power + np.abs(z) ** power) < radius**power
        refused(scanned(inside.astype(float)))


def test_a_trunk_is_no_head() -> None:
    x, y, _ = places()
    trunk = (np.hypot(x / 92, y / 105) < 1) * 0.9
    trunk[np.hypot(x / 80, y / 92) < 1] = 0.3
    for centre, size in (((-30, 30), 35), ((40, 10), 20), ((-45, -30), 15), ((45, -35), 15), ((0, -65), 16)):
        trunk[np.hypot(x - centre[0], y - centre[1]) < size] = 0.7
    refused(scanned(trunk))


def test_ct_is_known_by_its_values(axial: Volume) -> None:
    assert "negative" in refused(axial.array - 1000, axial)
    assert "clipped" in refused(np.minimum(axial.array, np.percentile(axial.array, 90)), axial)


def test_black_for_white_is_no_head(axial: Volume) -> None:
    refused(np.percentile(axial.array, 99) * 1.1 - np.minimum(axial.array, np.percentile(axial.array, 99)), axial)


def test_half_a_head_is_not_assessable(axial: Volume) -> None:
    for axis in range(3):
        bright = np.flatnonzero(axial.array.max(axis=tuple(a for a in range(3) if a != axis)) > 0.3 * axial.array.max())
        middle = int(bright[0] + 0.55 * (bright[-1] - bright[0]))
        half = np.moveaxis(axial.array, axis, 0)[middle:]
        filled = np.concatenate([half, np.full((middle, *half.shape[1:]), np.percentile(axial.array, 5))])
        refused(np.moveaxis(filled, 0, axis), axial)


def test_lost_slices_are_named(axial: Volume) -> None:
    lost = axial.array.copy()
    lost[[14, 17]] = 0
    assert refused(lost, axial).startswith("Slice 15 of 36 is blank, and 1 more")
    dark = axial.array.copy()
    dark[16:19] = add_noise(np.zeros_like(dark[16:19]), float(np.percentile(axial.array, 5)), rng())
    assert "signal" in refused(dark, axial)
    assert "blank" in refused(np.where(np.arange(120) < 30, axial.array, 0), axial)


@pytest.mark.real_data
def test_real_heads_are_assessable(real_data: Path) -> None:
    """Whole heads of high field as they are, and thin stacks of 0.055 T where the site allows 4 slices."""
    whole = sorted((real_data / "brain" / "fullhead").glob("*.nii.gz"))
    thin = sorted((real_data / "brain" / "lowfield_0055T").glob("*.nii.gz"))
    assert len(whole) >= 5
    assert len(thin) >= 12
    why = {path.name: why_not(volume_from_nifti(path), 4) for path in (*whole, *thin)}
    assert not {name: said for name, said in why.items() if said}


def test_the_threshold_parts_two_classes() -> None:
    values = np.concatenate([rng().normal(1, 0.1, 500), rng().normal(5, 0.1, 50)])
    assert values[:500].max() <= otsu(values) + 0.01 < values[500:].min()
    assert otsu(np.full(5, 3.0)) == 3.0
