"""Volume → network input: one orientation, one grid, one intensity scale, and nothing that could repair an artifact."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from qcnode.artifacts import Plane
from qcnode.errors import NotAssessable
from qcnode.imaging.volume import Volume

# In every manifest; a change below that moves a voxel needs a new name and new weights.
PREPROCESSING = "grid-1"  # voxels as the scanner made them
CUBE = "cube-1"  # BRIQA's (arXiv 2510.26661): the field of view stretched to a cube, z-scored
BLOCKS = "blocks-1"  # the first, averaged over blocks of its slices: a sixteenth of the voxels, for cheap comparisons
INPUT_SHAPE = (40, 144, 144)  # slice, row, column
BLOCK = (1, 4, 4)  # voxels averaged into one block: about 5 x 6.4 x 6.4 mm
BLOCKS_SHAPE = (40, 36, 36)
INPUT_SHAPES = {PREPROCESSING: INPUT_SHAPE, CUBE: (128, 128, 128), BLOCKS: BLOCKS_SHAPE}
INTENSITY_RANGE = (0.0, 6.0)  # in means of the foreground; ventricles reach 3, a severe tone 5

# What each plane's array axes point to, as (axis of RAS, sign): slices, then rows and columns as radiologists see them.
DIRECTIONS: dict[Plane, tuple[tuple[int, int], ...]] = {
    Plane.AXIAL: ((2, 1), (1, -1), (0, -1)),  # up; rows to the back, columns to the patient's left
    Plane.CORONAL: ((1, 1), (2, -1), (0, -1)),  # forward; rows down, columns to the patient's left
    Plane.SAGITTAL: ((0, -1), (2, -1), (1, -1)),  # to the left; rows down, columns to the back
}
# The spacing of the scans that the members learn from is kept, since resampling smooths noise; what lies outside is
# brought to the target.
_SLICE_MM, _SLICE_KEPT_MM = 5.0, (3.5, 7.0)
_PIXEL_MM, _PIXEL_KEPT_MM = 1.6, (1.4, 1.8)
_BRIGHTEST_SHARE = 0.98  # above this quantile an outlier, such as a zipper's line, would move the threshold


def network_input(volume: Volume, preprocessing: str = PREPROCESSING) -> NDArray[np.float32]:
    """The volume as every member sees it: INPUT_SHAPE, in means of the foreground, clipped to INTENSITY_RANGE.

    Neither the order in which the axes were stored nor the scanner's intensity scale changes the result. Cropping and
    padding are about the centre of the field of view, so that an off-centre head stays off centre.
    preprocessing: one of INPUT_SHAPES; with CUBE, the whole field of view in z-scores; with BLOCKS, means of blocks.
    Raises NotAssessable for voxels that are not finite, or all alike.
    """
    if not np.isfinite(volume.array).all():
        raise NotAssessable("The volume holds voxels that are not numbers; send the series again from the scanner.")
    if volume.array.size == 0 or volume.array.max() <= max(0.0, float(volume.array.min())):
        raise NotAssessable("Every voxel of the volume has the same value; check the coil, then repeat the scan.")
    if preprocessing == CUBE:
        resized = _cube(oriented(volume)[0])
        scored: NDArray[np.float32] = (resized - resized.mean()) / resized.std()
        return scored
    array = _on_grid(*oriented(volume))
    low, high = INTENSITY_RANGE
    scaled: NDArray[np.float32] = np.clip(_centred(array) / np.float32(foreground_mean(array)), low, high)
    return _blocks(scaled) if preprocessing == BLOCKS else scaled


def placed(volume: Volume, preprocessing: str = PREPROCESSING) -> NDArray[np.float32]:
    """The volume's voxels where `network_input` puts them, their values as they are: for a mask of the same scan."""
    if preprocessing == CUBE:
        return _cube(oriented(volume)[0])
    array = _centred(_on_grid(*oriented(volume)))
    return _blocks(array) if preprocessing == BLOCKS else array


def shown_slices(volume: Volume, preprocessing: str = PREPROCESSING) -> NDArray[np.intp]:
    """For each slice of the volume, the slice of the network input that shows it, from 0; -1 where none does."""
    numbers = np.arange(len(volume.array))
    # The slices' own numbers, one more so that padding is none of them, take the way of their voxels.
    thin = np.broadcast_to(np.float32(numbers[:, None, None] + 1), (len(numbers), 2, 2))
    grid = PREPROCESSING if preprocessing == BLOCKS else preprocessing  # whose slices are the same
    places = placed(Volume(thin, volume.affine), grid).max(axis=(1, 2)) - 1
    there = np.flatnonzero(places > -1)
    distances = np.abs(numbers[:, None] - places[there])
    reach = max(1.0, float(np.abs(np.diff(places[there])).max(initial=0.0))) / 2
    return np.where(distances.min(axis=1) <= reach, there[distances.argmin(axis=1)], -1)


def oriented(volume: Volume) -> tuple[NDArray[np.float32], tuple[float, float, float]]:
    """The array with its axes along its plane's DIRECTIONS, and its spacing (slice, row, column) in mm."""
    directions = DIRECTIONS[volume.plane]
    unit = volume.affine[:3, :3] / np.linalg.norm(volume.affine[:3, :3], axis=0)
    array, (slice_mm, row_mm, column_mm) = volume.array, volume.spacing_mm
    row_axis, column_axis = directions[1][0], directions[2][0]
    straight = abs(unit[row_axis, 1]) + abs(unit[column_axis, 2])
    if abs(unit[row_axis, 2]) + abs(unit[column_axis, 1]) > straight:
        array, unit = array.transpose(0, 2, 1), unit[:, [0, 2, 1]]
        row_mm, column_mm = column_mm, row_mm
    backwards = [axis for axis, (ras, sign) in enumerate(directions) if unit[ras, axis] * sign < 0]
    return np.flip(array, tuple(backwards)), (slice_mm, row_mm, column_mm)


def _on_grid(array: NDArray[np.float32], spacing_mm: tuple[float, float, float]) -> NDArray[np.float32]:
    """The array resampled along axes whose spacing is outside what is kept; smoothed first where that shrinks it."""
    in_plane_kept = all(_PIXEL_KEPT_MM[0] <= mm <= _PIXEL_KEPT_MM[1] for mm in spacing_mm[1:])
    slices_kept = _SLICE_KEPT_MM[0] <= spacing_mm[0] <= _SLICE_KEPT_MM[1]
    target_mm = (
        spacing_mm[0] if slices_kept else _SLICE_MM,
        *(spacing_mm[1:] if in_plane_kept else (_PIXEL_MM, _PIXEL_MM)),
    )
    zoom = [have / want for have, want in zip(spacing_mm, target_mm, strict=True)]
    if zoom == [1.0, 1.0, 1.0]:
        return array
    sigma = [0.4 * (1 / z - 1) if z < 1 else 0.0 for z in zoom]  # in voxels; a new voxel averages about 1/z old ones
    smooth = ndimage.gaussian_filter(array.astype(np.float32), sigma, mode="nearest")
    # Voxels are boxes that fill the field of view: grid_mode keeps its borders, and with them the centre.
    resampled: NDArray[np.float32] = ndimage.zoom(smooth, zoom, order=1, mode="nearest", grid_mode=True)
    return resampled


def _cube(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """The array resized to the cube."""
    zoom = [want / have for have, want in zip(array.shape, INPUT_SHAPES[CUBE], strict=True)]
    resized: NDArray[np.float32] = ndimage.zoom(array.astype(np.float32), zoom, order=1, mode="nearest", grid_mode=True)
    return resized


def _blocks(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of the blocks of an array of INPUT_SHAPE: BLOCKS_SHAPE."""
    slices, rows, columns = BLOCKS_SHAPE
    means: NDArray[np.float32] = array.reshape(slices, rows, BLOCK[1], columns, BLOCK[2]).mean((2, 4))
    return means


def _centred(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """The array cropped and padded with zeros to INPUT_SHAPE, evenly on both sides of each axis."""
    out = np.zeros(INPUT_SHAPE, np.float32)
    source, target = [], []
    for have, want in zip(array.shape, INPUT_SHAPE, strict=True):
        size = min(have, want)
        source.append(slice((have - size) // 2, (have - size) // 2 + size))
        target.append(slice((want - size) // 2, (want - size) // 2 + size))
    out[tuple(target)] = array[tuple(source)]
    return out


def foreground_mean(array: NDArray[np.float32]) -> float:
    """Mean of the voxels above Otsu's threshold (doi:10.1109/TSMC.1979.4310076), without the brightest outliers."""
    positive = array[array > 0].astype(np.float64)
    positive = positive[positive <= np.quantile(positive, _BRIGHTEST_SHARE)]
    count, edges = np.histogram(positive, bins=256, range=(0.0, float(positive.max())))
    centre = (edges[1:] + edges[:-1]) / 2
    below, total = np.cumsum(count), np.cumsum(count * centre)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    threshold = edges[1:][int(np.nanargmax(between))] if np.isfinite(between).any() else 0.0
    bright = positive[positive > threshold]
    return float(bright.mean() if bright.size else positive.mean())
