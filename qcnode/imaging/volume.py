"""Instances → Volume: what the network and the eye both look at."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
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

from qcnode.artifacts import Plane
from qcnode.errors import Excluded, NotAssessable
from qcnode.imaging.stack import UNREADABLE, Slice, ordered_stack, read_instances
from qcnode.verdict import Source

# Where slices are counted from whose numbers grow along an axis of RAS, and against it.
_BEGINNINGS = (("the left", "the right"), ("the back", "the front"), ("the feet", "the head"))


@dataclass(frozen=True)
class Volume:
    """One stack of slices.

    array: (slice, row, column) float32, rescaled values. affine: (4, 4), from (slice, row, column) indices to RAS mm.
    sources: where each slice came from, in the same order; empty where it did not come as DICOM.
    """

    array: NDArray[np.float32]
    affine: NDArray[np.float64]
    sources: tuple[Source, ...] = ()

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

    @property
    def counted_from(self) -> str:
        """Which end of the patient the first slice is nearest to: "the feet"."""
        axis = int(np.argmax(np.abs(self.affine[:3, 0])))
        return _BEGINNINGS[axis][int(self.affine[axis, 0] < 0)]


def volume_from_instances(instances: Sequence[bytes]) -> Volume:
    """The volume that a series' instances (Part 10 files, in any order, duplicates allowed) make up.

    Raises Excluded for what is no stack of MR slices, NotAssessable for a stack with a fault; the message names it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # pydicom warns of odd values that either do not matter here or become a sentence
        stack = ordered_stack(read_instances(instances))
        origins = [(slice_.position, slice_.source()) for slice_, _ in stack]
    slices = [_classic(slice_, pixels, number) for number, (slice_, pixels) in enumerate(stack, 1)]
    try:
        image = convert_generic.dicom_to_nifti(slices, None)["NII"]
    except (ConversionError, ConversionValidationError) as cause:
        raise NotAssessable(f"The slices do not make up a volume ({cause}); check the export.") from cause
    volume = _volume(np.asanyarray(image.dataobj), image.affine, slice_axis=2)
    onwards = volume.affine[:3, 0] * (-1, -1, 1)  # as DICOM has it: LPS
    origins.sort(key=lambda origin: float(origin[0] @ onwards))
    return replace(volume, sources=tuple(source for _, source in origins))


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
