"""Volume → whether it is the scan of a head, artifacts or not, and the sentence for what is none.

It is told by a few figures of 5 mm blocks, in which noise averages out: where what is brighter than the background
lies, and how the signal is spread in it. likeness.json holds the range of each figure in simulated scans of many heads
with every artifact, and how the figures go together there (a Mahalanobis distance); `python benchmarks/unlike.py --fit`
makes it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from qcnode.errors import NotAssessable
from qcnode.imaging.volume import Volume

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_BLOCK_MM = 5.0
_LEAST_BLOCKS = 30  # of the inside; fewer tell nothing
_SHELLS = {"centre": (0.0, 0.35), "deep": (0.35, 0.55), "middle": (0.55, 0.7), "rim": (0.92, 1.02)}  # in radii
_ACROSS = ("right to left", "back to front", "foot to head")  # by RAS axis
_CUT_SHARE = 0.6  # of the largest section: a face of the field of view that shows as much of the blob cuts it
_WITHIN_SHARE = 0.3  # of the brightest slice's signal: what lies between slices that have as much is within the head
_MOST_NEGATIVE = 0.02  # share of voxels; a reconstruction may leave a few below 0
_MOST_CLIPPED = 0.02  # share of voxels that have the largest value
_MOST_BLANK = 0.5  # share of slices, of rows, or of columns

_LOGARITHMIC = frozenset(
    {"litres", "thickness", "grain", "brightest", "rim", "centre", "deep", "structure"}
    | {f"{shell} spread" for shell in _SHELLS}
)
_LEAST_MM, _WHOLE_HEAD_MM = 35.0, 80.0  # through the slices: of a stack that is graded, and of one that is judged fully
_COARSEST_MM = 8.0  # a block's longest side: voxels this large do not show what the figures are of
_PLAIN_BELOW, _PLAIN_ABOVE = frozenset({"lost"}), frozenset({"litres", "grain"})  # what any stack is judged by
_NO_HEAD = "There is no head in the image{}; check the coil and the position, and repeat the scan."
_CUT = "The head is cut off by the field of view{}; centre it, and repeat the scan."
_LOST = "Slices within the head have lost their signal{}; repeat the scan."
_OTHER = "What is in the image is not the inside of a head as the ensemble knows it{}; check what was scanned, and how."
# Which side of a figure's range matters, and what is said beyond it; a figure below or above can mean different things.
_BELOW = {
    **dict.fromkeys(_ACROSS, _CUT),
    **{"thickness": _NO_HEAD, "next": _NO_HEAD, "lost": _LOST},
    **{"grain": _OTHER, "centre spread": _OTHER, "middle": _OTHER, "middle spread": _OTHER},
}
_ABOVE = {
    **{"litres": _NO_HEAD, "grain": _NO_HEAD},
    **dict.fromkeys(("rim", "near", "far", "through", "quarter", "brightest", "structure"), _OTHER),
    **dict.fromkeys(("centre spread", "deep spread"), _OTHER),
}


class Blocks(NamedTuple):
    """mean, deviation: of the voxels in each block. mm: a block's sides. axes: the RAS axis of each array axis."""

    mean: Array
    deviation: Array
    mm: Array
    axes: tuple[int, ...]


def check_assessable(volume: Volume, minimum_slices: int) -> None:
    """NotAssessable, saying why: nothing or too little in it, values that no MR scan has, or no head."""
    array = volume.array
    if array.size == 0:
        raise NotAssessable("The volume is empty; repeat the scan.")
    if bad := int(array.size - np.isfinite(array).sum()):
        raise NotAssessable(f"{bad} of {array.size} voxels are not finite numbers; check the export.")
    if array.min() == array.max():
        raise NotAssessable("All voxels have the same value: the image is blank; repeat the scan.")
    if len(array) < minimum_slices:
        raise NotAssessable(f"The stack has {len(array)} slices; at least {minimum_slices} are needed.")
    if (covered := len(array) * volume.spacing_mm[0]) < _LEAST_MM:
        raise NotAssessable(f"The stack covers {covered:.0f} mm of the head; at least {_LEAST_MM:.0f} mm are needed.")
    if why := _odd_values(array) or _blank_planes(array) or unlike_head(blocks(volume)):
        raise NotAssessable(why)


def unlike_head(of: Blocks) -> str | None:
    """The sentence for what is no scan of a head; None for a head with whatever artifact.

    A stack too thin to hold a head, or of too large voxels, is judged by its size, its noise and its lost slices alone.
    """
    found = figures(of)
    if found is None:
        return _NO_HEAD.format("")
    known, vector = _known(), as_vector(found)
    plain = of.mean.shape[0] * of.mm[0] < _WHOLE_HEAD_MM or of.mm.max() > _COARSEST_MM
    for name, value, low, high in zip(found, vector, known.low, known.high, strict=True):
        if value < low and name in _BELOW and (not plain or name in _PLAIN_BELOW):
            return _BELOW[name].format(f" ({name})")
        if value > high and name in _ABOVE and (not plain or name in _PLAIN_ABOVE):
            return _ABOVE[name].format(f" ({name})")
    if not plain and distance(vector, known) > known.farthest:
        return _OTHER.format(" (all figures together)")
    return None


class Known(NamedTuple):
    """Figures of many heads' scans. low, high, centre: (figure,). inverse: (figure, figure), of their covariance."""

    low: Array
    high: Array
    centre: Array
    inverse: Array
    farthest: float  # distance from the centre


@cache
def _known() -> Known:
    held = json.loads(files("qcnode.imaging").joinpath("likeness.json").read_text())
    low, high, centre, inverse = (np.array(held[name]) for name in ("low", "high", "centre", "inverse"))
    return Known(low, high, centre, inverse, float(held["farthest"]))


def as_vector(found: Mapping[str, float]) -> Array:
    """The figures in their order, those that are ratios as logarithms."""
    return np.array([np.log(max(value, 1e-3)) if name in _LOGARITHMIC else value for name, value in found.items()])


def distance(vector: Array, known: Known) -> float:
    """How far from the middle of all heads' scans, in standard deviations (Mahalanobis)."""
    away = vector - known.centre
    return float(np.sqrt(away @ known.inverse @ away))


def _odd_values(array: NDArray[np.float32]) -> str | None:
    if (array < 0).mean() > _MOST_NEGATIVE:
        return "The voxels have negative values, as CT and maps of phase have; send the magnitude images."
    if (array == array.max()).mean() > _MOST_CLIPPED:
        return "The brightest voxels are clipped, as in a picture of a window; send the images as they were measured."
    return None


def _blank_planes(array: NDArray[np.float32]) -> str | None:
    """Most of the field of view without any signal, or a slice without any between two that have some."""
    for axis in range(3):
        across = tuple(other for other in range(3) if other != axis)
        blank = array.min(axis=across) == array.max(axis=across)
        if blank.mean() > _MOST_BLANK:
            return "Most of the field of view is blank; send the series again, or repeat the scan."
        if axis == 0 and (lost := np.flatnonzero(blank[(there := np.flatnonzero(~blank))[0] : there[-1]])).size:
            return (
                f"Slice {there[0] + lost[0] + 1} of {len(array)} is blank, and {lost.size - 1} more within the stack; "
                "send the series again, or repeat the scan."
            )
    return None


def blocks(volume: Volume) -> Blocks:
    """The volume in blocks of about 5 mm; what is left over at its edges is left out."""
    array, spacing = volume.array, np.array(volume.spacing_mm)
    size = np.minimum(np.maximum(np.rint(_BLOCK_MM / spacing), 1).astype(int), array.shape)
    counts = np.array(array.shape) // size
    first = (np.array(array.shape) - counts * size) // 2
    cut = array[tuple(slice(f, f + n * s) for f, n, s in zip(first, counts, size, strict=True))]
    parts = cut.reshape([int(v) for pair in zip(counts, size, strict=True) for v in pair])
    mean = parts.mean(axis=(1, 3, 5), dtype=np.float64)
    square = np.square(parts).mean(axis=(1, 3, 5), dtype=np.float64)
    axes = tuple(int(np.argmax(np.abs(volume.affine[:3, axis]))) for axis in range(3))
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    return Blocks(mean, deviation, spacing * size, axes)


def figures(of: Blocks) -> dict[str, float] | None:
    """The figures by name; None where nothing stands out of the background, or next to nothing."""
    if (standing_out := head_blocks(of)) is None:
        return None
    blob, largest = standing_out
    if blob.sum() < _LEAST_BLOCKS:
        return None
    places = np.indices(blob.shape).reshape(3, -1) * of.mm[:, None]
    inside_places = places[:, blob.ravel()]
    centre, spread = inside_places.mean(axis=1), np.cov(inside_places) + 1e-3 * np.eye(3)
    offset = places - centre[:, None]
    radius = np.sqrt(np.einsum("ij,ij->j", offset, np.linalg.solve(spread, offset)) / 5).reshape(blob.shape)
    inside = ndimage.binary_erosion(blob) & (radius < 0.9)
    if inside.sum() < _LEAST_BLOCKS:
        return None
    level = float(np.median(of.mean[inside]))
    relative = of.mean / max(level, 1e-9)
    found = {
        "largest": largest,
        "litres": float(blob.sum() * np.prod(of.mm) / 1e6),
        "thickness": float(np.sqrt(5 * np.linalg.eigvalsh(spread)[0])),
        "grain": float(np.median(of.deviation[blob] / np.maximum(of.mean[blob], 1e-9))),
        "quarter": float(np.percentile(relative[inside], 25)),
        "brightest": float(np.percentile(relative[inside], 99.8)),
        "lost": _lost(of),
    }
    for name, (low, high) in _SHELLS.items():
        shell = relative[(radius >= low) & (radius < high)]
        found[name] = float(shell.mean() / max(relative[inside].mean(), 1e-9)) if shell.size else 0.0
        found[f"{name} spread"] = float(shell.std() / max(shell.mean(), 1e-9)) if shell.size else 0.0
    return found | _extents(of, blob) | _texture(relative, inside, offset, blob.shape)


def head_blocks(of: Blocks) -> tuple[Mask, float] | None:
    """What stands out of the background: its largest piece, filled, and that piece's share of it."""
    smooth = ndimage.gaussian_filter(of.mean, 1.0, mode="nearest")
    # In the logarithm a zipper much brighter than the head does not draw the threshold up to itself.
    bright = smooth > np.exp(otsu(np.log(np.maximum(smooth, max(0.01 * np.percentile(smooth, 99), 1e-6)))))
    if not bright.any() or bright.all():
        return None
    labels, _ = ndimage.label(bright)
    sizes = np.bincount(labels.ravel())[1:]
    return ndimage.binary_fill_holes(labels == 1 + int(np.argmax(sizes))), float(sizes.max() / sizes.sum())


def _lost(of: Blocks) -> float:
    """How deep the signal falls in a slice between brighter ones before and behind it: 0 is to the background."""
    signal = np.percentile(of.mean, 90, axis=(1, 2)) - np.percentile(of.mean, 5)
    around = np.minimum(np.maximum.accumulate(signal), np.maximum.accumulate(signal[::-1])[::-1])
    within = around > _WITHIN_SHARE * signal.max()
    return float((signal[within] / around[within]).min()) if within.any() else 1.0


def _extents(of: Blocks, blob: Mask) -> dict[str, float]:
    """Along each axis of the patient: the blob's length over the mean of the two others, where a face cuts it."""
    box = ndimage.find_objects(blob.astype(np.int8))[0]
    lengths = np.array([(edge.stop - edge.start) * mm for edge, mm in zip(box, of.mm, strict=True)])
    found = dict.fromkeys(_ACROSS, 1.0)
    for axis, ras in enumerate(of.axes):
        area = blob.sum(axis=tuple(other for other in range(3) if other != axis))
        if max(area[0], area[-1]) >= _CUT_SHARE * area.max():
            found[_ACROSS[ras]] = min(float(lengths[axis] ** 1.5 / np.sqrt(lengths.prod())), found[_ACROSS[ras]])
    return found


def _texture(relative: Array, inside: Mask, offset: Array, shape: tuple[int, ...]) -> dict[str, float]:
    """What is left of the inside's logarithm without a smooth shading: its spread, and how alike neighbours are."""
    x, y, z = offset.reshape(3, *shape)[:, inside] / 80
    terms = np.stack([np.ones_like(x), x, y, z, x * x, y * y, z * z, x * y, x * z, y * z], axis=1)
    logarithm = np.log(np.maximum(relative[inside], 0.02))
    rest = logarithm - terms @ np.linalg.lstsq(terms, logarithm, rcond=None)[0]
    field = np.zeros(shape)
    field[inside] = rest
    variance = max(float(rest.var()), 1e-9)

    def alike(axis: int, blocks_apart: int) -> float:
        n = shape[axis] - blocks_apart
        if n < 1:
            return 0.0
        both = inside.take(range(n), axis) & inside.take(range(blocks_apart, shape[axis]), axis)
        product = field.take(range(n), axis) * field.take(range(blocks_apart, shape[axis]), axis)
        return float(product[both].mean() / variance) if both.sum() > _LEAST_BLOCKS else 0.0

    return {
        "structure": float(np.sqrt(variance)),
        "next": min(alike(1, 1), alike(2, 1)),
        "near": max(alike(1, 2), alike(2, 2)),
        "far": max(alike(axis, 4) for axis in range(3)),
        "through": alike(0, 2),
    }


def otsu(values: Array) -> float:
    """The threshold of the largest variance between the two classes (Otsu, doi:10.1109/TSMC.1979.4310076)."""
    lowest, highest = float(values.min()), float(values.max())
    if highest - lowest < 1e-4 * max(1.0, abs(highest)):  # one class, too narrow for bins of single precision
        return highest
    counts, edges = np.histogram(values, 128)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    sum_below = np.cumsum(counts * centres)[:-1]
    mean_below = sum_below / np.maximum(below, 1)
    mean_above = ((counts * centres).sum() - sum_below) / np.maximum(above, 1)
    return float(edges[1 + int(np.argmax(below * above * (mean_below - mean_above) ** 2))])
