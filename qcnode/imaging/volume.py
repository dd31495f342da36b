"""Instances → Volume: what the network and the eye both look at."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from dicom2nifti import convert_generic
from dicom2nifti.exceptions import ConversionError, ConversionValidationError
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from scipy import ndimage

from qcnode.artifacts import Plane
from qcnode.errors import Excluded, NotAssessable
from qcnode.imaging.stack import UNREADABLE, Slice, ordered_stack, read_instances

# A head, newborn to adult: its blob's extents and volume, and how far it stands out of the background.
_COARSE_MM = 5.0
_HEAD_EXTENT_MM = (60.0, 290.0)
_HEAD_LITRES = (0.15, 9.0)
_LARGEST_SHARE = 0.6
_LEAST_CONTRAST = 1.3
_MOST_GRAIN = 0.44


@dataclass(frozen=True)
class Volume:
    """One stack of slices.

    array: (slice, row, column) float32, rescaled values. affine: (4, 4), from (slice, row, column) indices to RAS mm.
    """

    array: NDArray[np.float32]
    affine: NDArray[np.float64]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbours along (slice, row, column)."""
        slice_mm, row_mm, column_mm = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(slice_mm), float(row_mm), float(column_mm)

    @property
    def plane(self) -> Plane:
        """The anatomical plane that the slices are closest to."""
        normal = np.abs(self.affine[:3, 0])  # RAS components of the slice direction
        return (Plane.SAGITTAL, Plane.CORONAL, Plane.AXIAL)[int(np.argmax(normal))]


def volume_from_instances(instances: Sequence[bytes]) -> Volume:
    """The volume that a series' instances (Part 10 files, in any order, duplicates allowed) make up.

    Raises Excluded for what is no stack of MR slices, NotAssessable for a stack with a fault; the message names it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # pydicom warns of odd values that either do not matter here or become a sentence
        stack = ordered_stack(read_instances(instances))
    slices = [_classic(slice_, pixels, number) for number, (slice_, pixels) in enumerate(stack, 1)]
    try:
        image = convert_generic.dicom_to_nifti(slices, None)["NII"]
    except (ConversionError, ConversionValidationError) as cause:
        raise NotAssessable(f"The slices do not make up a volume ({cause}); check the export.") from cause
    return _volume(np.asanyarray(image.dataobj), image.affine, slice_axis=2)


def volume_from_nifti(path: Path) -> Volume:
    """The volume in a NIfTI file; its slices lie along the axis of the largest spacing, the last of them when equal."""
    try:
        image = nibabel.load(path)
        array = np.asanyarray(image.dataobj)
        affine = np.asarray(image.affine, np.float64)
    except (ImageFileError, *UNREADABLE) as cause:
        raise NotAssessable(f"{path.name} cannot be read as NIfTI; check the file.") from cause
    if array.dtype.names or np.iscomplexobj(array):
        raise Excluded(f"{path.name} holds colour or complex values, not MR magnitude.")
    array = array.reshape([n for i, n in enumerate(array.shape) if i < 3 or n > 1])
    if array.ndim > 3:
        raise Excluded(f"{path.name} holds {array.shape[3]} volumes, not one scan.")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if array.ndim < 3 or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise NotAssessable(f"{path.name} holds no volume with a place in space; check the file.")
    return _volume(array, affine, slice_axis=2 - int(np.argmax(np.round(spacing[::-1], 3))))


def check_assessable(volume: Volume, minimum_slices: int) -> None:
    """NotAssessable, saying why: empty or constant, voxels that are not finite, too few slices, or no head in it."""
    array = volume.array
    if array.size == 0:
        raise NotAssessable("The volume is empty; repeat the scan.")
    if bad := int(array.size - np.isfinite(array).sum()):
        raise NotAssessable(f"{bad} of {array.size} voxels are not finite numbers; check the export.")
    if array.min() == array.max():
        raise NotAssessable("All voxels have the same value: the image is blank; repeat the scan.")
    if len(array) < minimum_slices:
        raise NotAssessable(f"The stack has {len(array)} slices; at least {minimum_slices} are needed.")
    if not _holds_head(volume):
        raise NotAssessable("There is no head in the image; check the coil and the position, and repeat the scan.")


def _classic(slice_: Slice, pixels: NDArray[np.generic], number: int) -> Dataset:
    """The slice as the plainest classic dataset: what dicom2nifti stacks, scales and places; nothing of the patient."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.Modality, ds.InstanceNumber = "MR", number
    ds.ImagePositionPatient = [_decimal(v) for v in slice_.position]
    ds.ImageOrientationPatient = [_decimal(v) for v in slice_.orientation]
    ds.PixelSpacing = [_decimal(v) for v in slice_.pixel_spacing]
    ds.RescaleSlope, ds.RescaleIntercept = _decimal(slice_.slope), _decimal(slice_.intercept)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated = ds.BitsStored = 8 * pixels.dtype.itemsize
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    return ds


def _decimal(value: float) -> str:
    """A decimal string of at most 16 characters (PS3.5 Section 6.2), to far less than a micrometre."""
    return f"{float(value):.9g}"


def _volume(array: NDArray[np.generic], affine: NDArray[np.float64], slice_axis: int) -> Volume:
    column_axis, row_axis = (axis for axis in range(3) if axis != slice_axis)
    order = (slice_axis, row_axis, column_axis)
    return Volume(
        np.ascontiguousarray(array.transpose(order), np.float32), np.asarray(affine, np.float64)[:, [*order, 3]]
    )


def _holds_head(volume: Volume) -> bool:
    """Whether what stands out of the background is one blob with a head's size, and more than bright noise."""
    coarse, coarse_mm = _coarse(volume.array, np.array(volume.spacing_mm))
    smooth = ndimage.gaussian_filter(coarse, 1.0, mode="nearest")
    # In the logarithm a zipper much brighter than the head does not draw the threshold up to itself.
    inside = smooth > np.exp(_otsu(np.log(np.maximum(smooth, max(0.01 * np.percentile(smooth, 99), 1e-6)))))
    if not inside.any() or smooth[inside].mean() < _LEAST_CONTRAST * smooth[~inside].mean():
        return False
    labels, _ = ndimage.label(inside)
    sizes = np.bincount(labels.ravel())[1:]
    blob = ndimage.binary_fill_holes(labels == 1 + int(np.argmax(sizes)))
    box = ndimage.find_objects(blob.astype(np.int8))[0]
    extents = np.sort([(edge.stop - edge.start) * mm for edge, mm in zip(box, coarse_mm, strict=True)])
    litres = blob.sum() * np.prod(coarse_mm) / 1e6
    return bool(
        sizes.max() / sizes.sum() >= _LARGEST_SHARE
        and extents[1] >= _HEAD_EXTENT_MM[0]  # a thin stack may hold less of the head's third extent
        and extents[2] <= _HEAD_EXTENT_MM[1]
        and _HEAD_LITRES[0] <= litres <= _HEAD_LITRES[1]
        and _graininess(volume.array, blob) <= _MOST_GRAIN
    )


def _graininess(array: NDArray[np.float32], blob: NDArray[np.bool_]) -> float:
    """Median within the blob of the standard deviation of 3 × 3 neighbours over their mean; higher is worse.

    The magnitude of noise alone (Rayleigh) gives 0.49 for nine samples, whatever its shading.
    """
    mean = ndimage.uniform_filter(array, (1, 3, 3))
    variance = ndimage.uniform_filter(array**2, (1, 3, 3)) - mean**2
    where = np.ix_(*(np.arange(n) * m // n for n, m in zip(array.shape, blob.shape, strict=True)))
    inside = blob[where] & (mean > 0)
    return float(np.median(np.sqrt(np.maximum(variance[inside], 0)) / mean[inside])) if inside.any() else np.inf


def _coarse(
    array: NDArray[np.float32], spacing: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Means over blocks of about 5 mm: noise averages out, a head stays."""
    block = np.maximum(np.rint(_COARSE_MM / spacing), 1).astype(int)
    block = np.minimum(block, array.shape)
    counts = np.array(array.shape) // block
    cut = array[tuple(slice(0, n * b) for n, b in zip(counts, block, strict=True))]
    shape = [int(v) for pair in zip(counts, block, strict=True) for v in pair]
    return cut.reshape(shape).mean(axis=(1, 3, 5), dtype=np.float32), spacing * block


def _otsu(values: NDArray[np.float32]) -> float:
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
