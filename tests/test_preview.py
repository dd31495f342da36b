"""The sections show the head the way round that a radiologist expects."""

from __future__ import annotations

import numpy as np
import pytest

from qcnode.artifacts import Plane
from qcnode.imaging.phantom import MATRIX, grid_affine, head
from qcnode.imaging.preview import MARK, sections
from qcnode.imaging.volume import Volume


def marked(plane: Plane, mm: tuple[float, float, float]) -> Volume:
    """A ball of 70 mm radius about the origin, and a brighter spot in it at that place (RAS mm)."""
    affine = grid_affine(plane)
    points = np.einsum("ij,jabc->iabc", affine[:3, :3], np.indices(MATRIX[plane])) + affine[:3, 3, None, None, None]
    ball = np.where(np.linalg.norm(points, axis=0) < 70, 100.0, 0.0)
    near = np.linalg.norm(points - np.array(mm)[:, None, None, None], axis=0) < 25
    return Volume(np.where(near, 200.0, ball).astype(np.float32), affine)


def spot(picture: np.ndarray) -> tuple[float, float]:
    """Where the spot is, from the middle of the picture, in shares of its height and width."""
    rows, columns = np.nonzero(picture > 200)
    assert rows.size
    height, width = picture.shape
    return float(rows.mean() / (height - 1) - 0.5), float(columns.mean() / (width - 1) - 0.5)


@pytest.mark.parametrize("plane", Plane)
def test_the_patients_right_is_on_the_left_whatever_the_plane_of_the_scan(plane: Plane) -> None:
    axial, coronal, _ = sections(marked(plane, (40.0, 0.0, 0.0)))
    for picture in (axial, coronal):
        row, column = spot(picture)
        assert column < -0.1
        assert abs(row) < 0.05


@pytest.mark.parametrize("plane", Plane)
def test_anterior_is_up_in_axial_and_left_in_sagittal(plane: Plane) -> None:
    axial, _, sagittal = sections(marked(plane, (0.0, 40.0, 0.0)))
    assert spot(axial)[0] < -0.1
    assert spot(sagittal)[1] < -0.1


@pytest.mark.parametrize("plane", Plane)
def test_superior_is_up(plane: Plane) -> None:
    _, coronal, sagittal = sections(marked(plane, (0.0, 0.0, 40.0)))
    assert spot(coronal)[0] < -0.1
    assert spot(sagittal)[0] < -0.1


@pytest.mark.parametrize("plane", Plane)
def test_pixels_are_square(plane: Plane) -> None:
    for picture in sections(marked(plane, (0.0, 0.0, 0.0))):
        rows, columns = np.nonzero(picture > 80)
        assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=5)


def test_sections_go_through_the_head_and_use_the_window() -> None:
    for picture in sections(head(np.random.default_rng(3), Plane.SAGITTAL)):
        assert picture.dtype == np.uint8
        assert picture.max() == 255
        assert max(picture.shape) <= 257
        assert (picture > 40).mean() > 0.2


@pytest.mark.parametrize("plane", Plane)
@pytest.mark.parametrize("backwards", [False, True])
def test_marked_slices_are_a_band_across_two_sections_and_the_third_goes_through_them(
    plane: Plane, backwards: bool
) -> None:
    ball = marked(plane, (0.0, 0.0, 0.0))
    slices = len(ball.array)
    if backwards:
        affine = ball.affine.copy()
        affine[:3, 3] += affine[:3, 0] * (slices - 1)
        affine[:3, 0] *= -1
        ball = Volume(ball.array[::-1], affine)
    chosen = range(slices // 4, slices // 4 + 5)
    bright = ball.array.copy()
    bright[list(chosen)] += 100  # so that the slices can be seen
    along = list(Plane).index(plane)
    for number, picture in enumerate(sections(Volume(bright, ball.affine), chosen)):
        yellow = (picture == MARK).all(axis=2)
        assert picture.shape[2] == 3
        if number == along:
            assert yellow[0].all(), "it is one of them"
            assert yellow[:, 0].all()
            assert not yellow[8:-8, 8:-8].any()
            assert (picture[8:-8, 8:-8, 0] > 120).mean() > 0.9
            continue
        rows, columns = np.nonzero(yellow)
        rows, columns = rows / picture.shape[0], columns / picture.shape[1]
        share = min(np.ptp(rows), np.ptp(columns))
        assert share == pytest.approx(5 / slices, abs=0.04)
        assert max(np.ptp(rows), np.ptp(columns)) > 0.95, "from one edge of the picture to the other"


def test_without_marks_there_is_no_colour() -> None:
    volume = head(np.random.default_rng(3), Plane.SAGITTAL)
    assert all(picture.ndim == 2 for picture in sections(volume))
    assert all(picture.ndim == 2 for picture in sections(volume, []))


def test_odd_volumes_still_give_three_pictures() -> None:
    affine = grid_affine(Plane.AXIAL)
    broken = np.ones((12, 20, 20), np.float32)
    broken[0, 0, 0] = np.nan
    for array in (
        np.zeros((12, 20, 20), np.float32),
        broken,
        np.zeros((0, 4, 4), np.float32),
        np.ones((1, 1, 1), np.float32),
    ):
        pictures = sections(Volume(array, affine))
        assert len(pictures) == 3
        assert all(picture.dtype == np.uint8 and picture.ndim == 2 for picture in pictures)
