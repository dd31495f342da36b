"""Volume → three sections that a person can look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from qcnode.imaging.preprocess import oriented
from qcnode.imaging.volume import Volume

_LARGEST_PIXELS = 256  # along either side of a section
_WINDOW_PERCENTILES = (1.0, 99.5)
_AIR_SHARE = 0.15  # of the bright end of the window: what is darker counts as air when the head is centred

# Section → the RAS axis that it is perpendicular to, and the RAS directions in which its rows and columns grow:
# radiological convention, so the patient's right is on the left of the picture, anterior or superior is up.
_SECTIONS: tuple[tuple[int, tuple[int, int, int], tuple[int, int, int]], ...] = (
    (2, (0, -1, 0), (-1, 0, 0)),  # axial: down is posterior, right is left
    (1, (0, 0, -1), (-1, 0, 0)),  # coronal: down is inferior, right is left
    (0, (0, 0, -1), (0, -1, 0)),  # sagittal: down is inferior, right is posterior
)


def sections(volume: Volume) -> tuple[NDArray[np.uint8], ...]:
    """An axial, a coronal and a sagittal section through the head's centre, uint8 (row, column) with square pixels.

    Linear interpolation on the axes of the patient, not of the scan; what the scan does not cover is black.
    """
    array = np.nan_to_num(volume.array, nan=0.0, posinf=0.0, neginf=0.0)
    if not array.size:
        return tuple(np.zeros((1, 1), np.uint8) for _ in _SECTIONS)
    low, high = (float(v) for v in np.percentile(array, _WINDOW_PERCENTILES))
    to_index = np.linalg.inv(volume.affine)
    corners = _corners(volume)
    lower, upper = corners.min(axis=0), corners.max(axis=0)
    pixel_mm = max(min(volume.spacing_mm), float((upper - lower).max()) / _LARGEST_PIXELS)
    centre = _centre(array, volume.affine, low + _AIR_SHARE * (high - low))
    pictures = []
    for axis, row, column in _SECTIONS:
        middle = (lower + upper) / 2
        middle[axis] = centre[axis]
        count = [max(int(np.ceil(abs(np.dot(d, upper - lower)) / pixel_mm)), 1) for d in (row, column)]
        steps = np.stack([np.array(row), np.array(column)]) * pixel_mm
        start = middle - steps.T @ ((np.array(count) - 1) / 2)
        points = start[:, None, None] + np.einsum("da,drc->arc", steps, np.indices(count, dtype=np.float64))
        indices = np.einsum("ij,jrc->irc", to_index[:3, :3], points) + to_index[:3, 3, None, None]
        picture = ndimage.map_coordinates(array, indices, order=1, mode="grid-constant", cval=low)
        pictures.append(_windowed(picture, low, high))
    return tuple(pictures)


def slice_pictures(volume: Volume, numbers: Sequence[int]) -> dict[int, NDArray[np.uint8]]:
    """Some slices of a finite volume by number, as radiologists look at them: uint8 (row, column), square pixels."""
    low, high = (float(v) for v in np.percentile(volume.array, _WINDOW_PERCENTILES))
    pictures = {}
    for number in numbers:
        array, (_, row_mm, column_mm) = oriented(Volume(volume.array[number : number + 1], volume.affine))
        picture = array[0]
        if abs(row_mm / column_mm - 1) > 0.01:
            finest = min(row_mm, column_mm)
            picture = ndimage.zoom(picture, (row_mm / finest, column_mm / finest), order=1)
        every = -(-max(picture.shape) // _LARGEST_PIXELS)
        pictures[number] = _windowed(picture[::every, ::every], low, high)
    return pictures


def _corners(volume: Volume) -> NDArray[np.float64]:
    """(8, 3), RAS mm, the outer corners of the volume's voxels."""
    unit = np.indices((2, 2, 2)).reshape(3, 8).T
    index = unit * np.array(volume.array.shape) - 0.5
    corners: NDArray[np.float64] = index @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    return corners


def _centre(array: NDArray[np.float32], affine: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    """RAS mm of the middle of what is brighter than air; of the volume when nothing is."""
    if not (bright := array > threshold).any():
        index = (np.array(array.shape) - 1) / 2
    else:
        index = np.array([np.median(found) for found in np.nonzero(bright)])
    centre: NDArray[np.float64] = affine[:3, :3] @ index + affine[:3, 3]
    return centre


def _windowed(picture: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    if high <= low:
        return np.zeros(picture.shape, np.uint8)
    grey: NDArray[np.uint8] = np.rint(255 * np.clip((picture - low) / (high - low), 0, 1)).astype(np.uint8)
    return grey
