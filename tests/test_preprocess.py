"""Laws of the network input: what must not change it, and what it must not repair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qcnode.artifacts import Plane
from qcnode.errors import NotAssessable
from qcnode.imaging.preprocess import (
    BLOCK,
    BLOCKS,
    CUBE,
    INPUT_SHAPE,
    INPUT_SHAPES,
    INTENSITY_RANGE,
    network_input,
    placed,
    shown_slices,
)
from qcnode.imaging.volume import Volume

# Columns are the RAS directions of slice, row and column as the network sees each plane.
CANONICAL = {
    Plane.AXIAL: [[0, 0, -1], [0, -1, 0], [1, 0, 0]],
    Plane.CORONAL: [[0, 0, -1], [1, 0, 0], [0, -1, 0]],
    Plane.SAGITTAL: [[-1, 0, 0], [0, 0, -1], [0, -1, 0]],
}


def head(
    plane: Plane = Plane.AXIAL, shape: tuple[int, int, int] = (36, 146, 120), spacing: tuple[float, ...] = (5, 1.6, 1.6)
) -> Volume:
    """An ellipsoid with an off-centre bright core in faint noise; asymmetric along each axis."""
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    array = 5 * np.random.default_rng(0).random(shape)
    array[sum(g**2 for g in grid) < 0.6] += 100
    array[sum((g - c) ** 2 for g, c in zip(grid, (0.1, 0.2, 0.3), strict=True)) < 0.05] += 120
    affine = np.eye(4)
    affine[:3, :3] = np.array(CANONICAL[plane]) * spacing
    return Volume(array.astype(np.float32), affine)


def stored_otherwise(volume: Volume, flips: tuple[int, ...], transpose: bool) -> Volume:
    """The same anatomy with some axes stored backwards, or rows and columns exchanged."""
    array, affine = volume.array, volume.affine.copy()
    for axis in flips:
        array = np.flip(array, axis)
        affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
        affine[:3, axis] *= -1
    if transpose:
        array, affine = array.transpose(0, 2, 1), affine[:, [0, 2, 1, 3]]
    return Volume(array, affine)


def centre_of(image: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.argwhere(image > 0.5 * image.max()).mean(axis=0)


@pytest.mark.parametrize("plane", list(Plane))
@pytest.mark.parametrize("flips", [(0,), (1,), (2,), (0, 1, 2)])
@pytest.mark.parametrize("transpose", [False, True])
def test_the_stored_axis_order_changes_nothing(plane: Plane, flips: tuple[int, ...], transpose: bool) -> None:
    volume = head(plane)
    assert volume.plane is plane
    other = stored_otherwise(volume, flips, transpose)
    np.testing.assert_array_equal(network_input(other), network_input(volume))


def test_a_mirrored_head_is_another_input() -> None:
    volume = head()
    mirrored = Volume(volume.array[:, :, ::-1], volume.affine)
    assert not np.allclose(network_input(mirrored), network_input(volume), atol=0.1)


@pytest.mark.parametrize("scale", [2.0**-10, 0.37, 2.0**12])
def test_the_intensity_scale_changes_nothing(scale: float) -> None:
    volume = head()
    scaled = Volume((volume.array * scale).astype(np.float32), volume.affine)
    np.testing.assert_allclose(network_input(scaled), network_input(volume), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((36, 146, 120), (5, 1.6, 1.6)),
        ((192, 180, 200), (1, 1, 1)),
        ((20, 64, 64), (8, 3, 3)),
        ((60, 200, 90), (4, 1.5, 2)),
    ],
)
def test_every_size_comes_out_the_same(shape: tuple[int, int, int], spacing: tuple[float, ...]) -> None:
    image = network_input(head(shape=shape, spacing=spacing))
    assert image.shape == INPUT_SHAPE
    assert image.dtype == np.float32
    assert INTENSITY_RANGE[0] <= image.min() < image.max() <= INTENSITY_RANGE[1]
    assert np.isfinite(image).all()


def test_the_kept_spacings_are_not_resampled() -> None:
    volume = head()
    inside = network_input(volume)[2:38, :, 12:132]
    expected = volume.array[:, 1:145]
    np.testing.assert_allclose(inside * expected[18, 72, 60] / inside[18, 72, 60], expected, rtol=1e-4)


def test_finer_and_usual_grids_show_the_head_at_the_same_place_and_size() -> None:
    usual, fine = network_input(head()), network_input(head(shape=(180, 292, 240), spacing=(1, 0.8, 0.8)))
    np.testing.assert_allclose(centre_of(fine), centre_of(usual), atol=0.6)
    assert np.mean(fine > 0.5) == pytest.approx(np.mean(usual > 0.5), rel=0.05)


def test_an_off_centre_head_stays_off_centre() -> None:
    volume = head()
    moved = Volume(np.roll(volume.array, 10, axis=1), volume.affine)
    np.testing.assert_allclose(centre_of(network_input(moved)) - centre_of(network_input(volume)), (0, 10, 0), atol=0.1)


def test_a_bright_line_hardly_moves_the_scale() -> None:
    volume = head()
    struck = volume.array.copy()
    struck[:, :, 30] = 5000
    ratio = network_input(Volume(struck, volume.affine))[20, 72, 72] / network_input(volume)[20, 72, 72]
    assert ratio == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("value", [0.0, 7.0, -3.0])
def test_a_constant_volume_is_not_assessable(value: float) -> None:
    with pytest.raises(NotAssessable, match="same value"):
        network_input(Volume(np.full((36, 20, 20), value, np.float32), head().affine))


def test_voxels_that_are_not_numbers_are_not_assessable() -> None:
    volume = head()
    broken = volume.array.copy()
    broken[3, 4, 5] = np.nan
    with pytest.raises(NotAssessable, match="not numbers"):
        network_input(Volume(broken, volume.affine))


@pytest.mark.parametrize("plane", list(Plane))
def test_the_cube_is_z_scored_and_does_not_depend_on_storage_or_scale(plane: Plane) -> None:
    volume = head(plane)
    cube = network_input(volume, CUBE)
    assert cube.shape == INPUT_SHAPES[CUBE]
    assert cube.mean() == pytest.approx(0, abs=1e-4)
    assert cube.std() == pytest.approx(1, abs=1e-4)
    stored = stored_otherwise(volume, (0, 2), transpose=True)
    np.testing.assert_allclose(network_input(stored, CUBE), cube, atol=1e-5)
    scaled = Volume(volume.array * np.float32(37), volume.affine)
    np.testing.assert_allclose(network_input(scaled, CUBE), cube, atol=1e-3)


def test_the_cube_holds_the_whole_field_of_view() -> None:
    volume = head()
    marked = volume.array.copy()
    marked[0, 0, 0] = marked[-1, -1, -1] = 10_000
    cube = network_input(Volume(marked, volume.affine), CUBE)
    corners = cube[[0, -1]][:, [0, -1]][:, :, [0, -1]]
    assert (corners > 20).sum() == 2


@pytest.mark.parametrize("plane", list(Plane))
def test_blocks_are_means_of_the_usual_input(plane: Plane) -> None:
    volume = head(plane)
    blocks, whole = network_input(volume, BLOCKS), network_input(volume)
    assert blocks.shape == INPUT_SHAPES[BLOCKS] == tuple(n // m for n, m in zip(INPUT_SHAPE, BLOCK, strict=True))
    assert blocks[20, 9, 25] == pytest.approx(whole[20, 36:40, 100:104].mean(), rel=1e-5)
    assert blocks.mean() == pytest.approx(whole.mean(), rel=1e-5)
    assert placed(volume, BLOCKS).mean() == pytest.approx(placed(volume).mean(), rel=1e-5)


@pytest.mark.parametrize("preprocessing", INPUT_SHAPES)
@given(count=st.integers(4, 60), slice_mm=st.floats(1, 9), backwards=st.booleans())
@settings(max_examples=10, deadline=None)
def test_each_slice_of_the_volume_is_shown_by_the_input_s_slice_that_holds_its_voxels(
    preprocessing: str, count: int, slice_mm: float, backwards: bool
) -> None:
    affine = np.diag([1.6, 1.6, 1.6, 1.0])
    affine[:3, :3] = np.array([[0, 0, 1.6], [0, 1.6, 0], [slice_mm, 0, 0]]) * (-1 if backwards else 1)
    shown = shown_slices(Volume(np.zeros((count, 20, 20), np.float32), affine), preprocessing)
    assert len(shown) == count
    assert shown.max() < INPUT_SHAPES[preprocessing][0]
    seen = shown[shown >= 0]
    steps = np.diff(seen)
    assert (steps <= 0).all() if backwards else (steps >= 0).all()
    bright = int(np.flatnonzero(shown >= 0)[len(seen) // 2])
    array = np.zeros((count, 20, 20), np.float32)
    array[bright] = 1
    there = placed(Volume(array, affine), preprocessing).max(axis=(1, 2))
    assert there[shown[bright]] > 0.45 * there.max()  # between two, where slices are resampled
