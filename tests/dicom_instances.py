"""Small DICOM instances for the tests of intake: classic slices, and enhanced objects of several frames."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage

STUDY = "1.2.826.0.1.3680043.10.1"
SERIES = "1.2.826.0.1.3680043.10.1.1"


def classic_slice(number: int, *, series: str = SERIES, size: int = 16, **elements: Any) -> Dataset:
    """Slice `number` of an axial stack, 5 mm apart; `elements` replace or, when None, remove what it has."""
    ds = Dataset()
    ds.SOPClassUID = MRImageStorage
    ds.SOPInstanceUID = f"{series}.{number}"
    ds.StudyInstanceUID = STUDY
    ds.SeriesInstanceUID = series
    ds.Modality = "MR"
    ds.PatientName = "Doe^Jane"
    ds.PatientID = "0815"
    ds.InstanceNumber = number
    ds.ImagePositionPatient = [-100.0, -100.0, 5.0 * number]
    ds.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    ds.SliceThickness = 5.0
    ds.PixelSpacing = [1.6, 1.6]
    _pixels(ds, size, 1, number)
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def enhanced(frames: int, *, described: int | None = None, series: str = SERIES, **elements: Any) -> Dataset:
    """One Enhanced MR object, its geometry in the functional groups; `described` counts its per-frame items."""
    ds = Dataset()
    ds.SOPClassUID = EnhancedMRImageStorage
    ds.SOPInstanceUID = f"{series}.9000"
    ds.StudyInstanceUID = STUDY
    ds.SeriesInstanceUID = series
    ds.Modality = "MR"
    ds.NumberOfFrames = frames
    _pixels(ds, 16, frames, 0)
    orientation, measures = Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    measures.SliceThickness, measures.PixelSpacing = 5.0, [1.6, 1.6]
    shared = Dataset()
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.PerFrameFunctionalGroupsSequence = [_frame(z) for z in range(frames if described is None else described)]
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def stack(count: int, **elements: Any) -> list[Dataset]:
    """A gap-free axial stack of classic slices."""
    return [classic_slice(number, **elements) for number in range(1, count + 1)]


def part10(ds: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> bytes:
    """The instance as a Part 10 file."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = transfer_syntax
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def files(folder: Any, instances: Sequence[Dataset]) -> list[str]:
    """Write the instances as files for a command-line sender; their paths."""
    paths = []
    for index, ds in enumerate(instances):
        path = folder / f"{index:04d}.dcm"
        path.write_bytes(part10(ds))
        paths.append(str(path))
    return paths


def _frame(z: int) -> Dataset:
    position, frame = Dataset(), Dataset()
    position.ImagePositionPatient = [-100.0, -100.0, 5.0 * z]
    frame.PlanePositionSequence = [position]
    return frame


def _pixels(ds: Dataset, size: int, frames: int, seed: int) -> None:
    ds.Rows = ds.Columns = size
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    pixels = np.random.default_rng(seed).integers(0, 4096, (frames, size, size), dtype=np.uint16)
    ds.PixelData = pixels.tobytes()
