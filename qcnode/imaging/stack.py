"""Instances → the slices of one stack, in order, or a sentence that says why they are not one."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue

from qcnode.errors import Excluded, NotAssessable
from qcnode.imaging.decoding import decoded_frame
from qcnode.verdict import Source

# What pydicom and its decoders raise on damaged bytes; each is translated here, where it is known what was damaged.
UNREADABLE = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
MINIMUM_SLICES = 4  # fewer tell no direction and no gap
_SAME_PLACE_MM = 0.01
_PARALLEL = 0.001  # largest difference between two slices' direction cosines
_STRAIGHT_DEGREES = 2.5  # between the stack's direction and the slices' normal
_EVEN = 0.1  # share of the slice distance by which one distance may differ
_DAMAGED = "is cut short or damaged; send the series again."


@dataclass(frozen=True)
class Slice:
    """One frame and where it lies: LPS mm, as DICOM has it."""

    dataset: Dataset
    frame: int  # from 0
    position: NDArray[np.float64]  # (3,), the centre of the first pixel
    orientation: NDArray[np.float64]  # (6,), direction of a row, then of a column
    pixel_spacing: tuple[float, float]  # between rows, between columns
    slope: float
    intercept: float

    @property
    def normal(self) -> NDArray[np.float64]:
        """(3,), perpendicular to the slice."""
        return np.cross(self.orientation[:3], self.orientation[3:])

    def pixels(self) -> NDArray[np.generic]:
        """(row, column), as stored, decoded from whatever transfer syntax."""
        return decoded_frame(self.dataset, self.frame)

    def source(self) -> Source:
        """Where others find it; without a UID where the data set has lost its own."""
        try:
            uid = str(self.dataset.get("SOPInstanceUID") or self.dataset.file_meta["MediaStorageSOPInstanceUID"].value)
        except UNREADABLE:
            uid = ""
        return Source(uid, self.frame + 1 if int(self.dataset.get("NumberOfFrames") or 1) > 1 else None)


def read_instances(instances: Sequence[bytes]) -> list[Dataset]:
    """The instances as datasets, each of the same bytes once; NotAssessable names the one that cannot be read."""
    datasets = []
    for number, data in enumerate(instances, 1):
        try:
            datasets.append(dcmread(BytesIO(data)))
        except UNREADABLE as cause:
            raise NotAssessable(f"Instance {number} of {len(instances)} {_DAMAGED}") from cause
    if not datasets:
        raise NotAssessable("The series holds no instances; send it again.")
    return list(dict(zip(instances, datasets, strict=True)).values())


def ordered_stack(datasets: Sequence[Dataset]) -> list[tuple[Slice, NDArray[np.generic]]]:
    """The slices of one stack with their pixels, in the order of their positions along the normal.

    Raises Excluded for what is not a stack of grey MR slices, NotAssessable for a stack with a fault; both name it.
    """
    slices = [slice_ for dataset in datasets for slice_ in _slices_of(dataset)]
    _check_one_direction(slices)
    normal = slices[0].normal
    slices.sort(key=lambda s: float(s.position @ normal))
    places = _by_place(slices, normal)
    stack = _one_a_place(places)
    if len(stack) < MINIMUM_SLICES:
        raise NotAssessable(f"The series has {_count(len(stack), 'slice')}; a stack has at least {MINIMUM_SLICES}.")
    if len({pixels.shape for _, pixels in stack}) > 1:
        raise NotAssessable("The slices differ in their numbers of rows and columns; send the series again.")
    if len({s.pixel_spacing for s, _ in stack}) > 1:
        raise NotAssessable("The slices differ in their pixel spacing; they are not one stack.")
    _check_even([s for s, _ in stack], normal)
    return stack


def _slices_of(dataset: Dataset) -> Iterator[Slice]:
    """The dataset's frames with their geometry, the functional groups first: top-level copies of it may be wrong."""
    try:
        _check_grey_mr(dataset)
        shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
        frames = dataset.get("PerFrameFunctionalGroupsSequence") or [Dataset()]
        count = int(dataset.get("NumberOfFrames") or 1)
    except UNREADABLE as cause:
        raise NotAssessable(f"The header of an instance {_DAMAGED}") from cause
    if count != len(frames):
        raise NotAssessable(f"An instance has {count} frames and the positions of {len(frames)}; send it again.")
    for index, frame in enumerate(frames):
        groups = (frame, shared, dataset)
        try:
            position = _numbers(groups, "PlanePositionSequence", "ImagePositionPatient", 3)
            orientation = _numbers(groups, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
            spacing = _numbers(groups, "PixelMeasuresSequence", "PixelSpacing", 2)
            slope = _numbers(groups, "PixelValueTransformationSequence", "RescaleSlope", 1, 1.0)
            intercept = _numbers(groups, "PixelValueTransformationSequence", "RescaleIntercept", 1, 0.0)
        except UNREADABLE as cause:
            what = f"Frame {index + 1} of {count}" if count > 1 else "An instance"
            raise NotAssessable(f"{what} does not say where in the patient it lies; check the export.") from cause
        lengths = np.linalg.norm(orientation.reshape(2, 3), axis=1)
        if (
            not np.allclose(lengths, 1, atol=0.01)
            or abs(orientation[:3] @ orientation[3:]) > 0.01
            or spacing.min() <= 0
        ):
            raise NotAssessable("The image orientation or the pixel spacing is not a valid one; check the export.")
        yield Slice(
            dataset, index, position, orientation, (spacing[0], spacing[1]), float(slope[0]), float(intercept[0])
        )


def _check_grey_mr(dataset: Dataset) -> None:
    modality = str(dataset.get("Modality", ""))
    if not modality:
        raise NotAssessable(f"The header of an instance {_DAMAGED}")
    if modality != "MR":
        shown = modality if modality.isalpha() and len(modality) <= 16 else "of another modality"
        raise Excluded(f"The series is {shown}, not MR.")
    if "MOSAIC" in _words(dataset.get("ImageType")):
        raise Excluded("The series is a mosaic: several volumes, as in functional or diffusion imaging.")
    if dataset.get("SamplesPerPixel", 1) != 1 or str(dataset.get("PhotometricInterpretation")) == "PALETTE COLOR":
        raise Excluded("The series holds colour images, not MR signal.")
    if str(dataset.get("PhotometricInterpretation")) == "MONOCHROME1":
        raise Excluded("The images are stored with black and white exchanged; MR signal is not.")
    if "PixelData" not in dataset:
        raise NotAssessable(f"The pixel data of an instance {_DAMAGED}")


def _words(value: object) -> tuple[str, ...]:
    return tuple(str(v).upper() for v in value) if isinstance(value, MultiValue | list) else (str(value).upper(),)


def _numbers(
    groups: Sequence[Dataset], sequence: str, keyword: str, count: int, default: float | None = None
) -> NDArray[np.float64]:
    """A functional group's element, per frame, else shared, else at the top level; ValueError if not numbers."""
    for group in groups:
        items = group.get(sequence)
        value = (items[0] if items else group).get(keyword)
        if value is not None and value != "":
            numbers = np.array(value, np.float64).reshape(-1)
            if numbers.shape != (count,) or not np.isfinite(numbers).all():
                raise ValueError(keyword)
            return numbers
    if default is None:
        raise ValueError(keyword)
    return np.array([default])


def _check_one_direction(slices: Sequence[Slice]) -> None:
    directions: list[NDArray[np.float64]] = []
    for slice_ in slices:
        if not any(np.abs(slice_.orientation - known).max() <= _PARALLEL for known in directions):
            directions.append(slice_.orientation)
    if len(directions) > 1:
        raise Excluded(f"The slices point in {len(directions)} directions, as a localizer's do.")


def _by_place(slices: Sequence[Slice], normal: NDArray[np.float64]) -> list[list[Slice]]:
    places: list[list[Slice]] = []
    for slice_ in slices:
        if places and abs((slice_.position - places[-1][0].position) @ normal) <= _SAME_PLACE_MM:
            places[-1].append(slice_)
        else:
            places.append([slice_])
    return places


def _one_a_place(places: Sequence[Sequence[Slice]]) -> list[tuple[Slice, NDArray[np.generic]]]:
    """One slice a place: the same picture again counts once, another picture there is another volume."""
    different = []
    for number, place in enumerate(places, 1):
        pictures: list[tuple[Slice, NDArray[np.generic]]] = []
        for slice_ in place:
            try:
                pixels = slice_.pixels()
            except UNREADABLE as cause:
                at = f"{float(slice_.position @ slice_.normal):.1f} mm"
                raise NotAssessable(
                    f"The pixel data of slice {number} of {len(places)} (at {at}) {_DAMAGED}"
                ) from cause
            if not any(_same_picture((slice_, pixels), other) for other in pictures):
                pictures.append((slice_, pixels))
        different.append(pictures)
    counts = {len(pictures) for pictures in different}
    if len(counts) == 1 and counts != {1} and len(places) < MINIMUM_SLICES:
        raise Excluded(
            f"The series holds {counts.pop()} pictures of {_count(len(places), 'place')}, not a stack of slices."
        )
    if len(counts) == 1 and counts != {1}:
        raise Excluded(f"The series holds {counts.pop()} volumes (echoes, time points or directions), not one scan.")
    if counts != {1}:
        number = next(i for i, pictures in enumerate(different, 1) if len(pictures) > 1)
        raise NotAssessable(
            f"Slice {number} of {len(places)} is there {len(different[number - 1])} times with different pictures; "
            "send the series again."
        )
    return [pictures[0] for pictures in different]


def _same_picture(one: tuple[Slice, NDArray[np.generic]], other: tuple[Slice, NDArray[np.generic]]) -> bool:
    scaling = (one[0].slope, one[0].intercept) == (other[0].slope, other[0].intercept)
    return scaling and np.array_equal(one[1], other[1])


def _check_even(stack: Sequence[Slice], normal: NDArray[np.float64]) -> None:
    """NotAssessable for a missing slice, uneven distances, or slices that do not lie behind one another."""
    places = np.array([s.position @ normal for s in stack])
    distances = np.diff(places)
    step = float(np.median(distances))
    ratio = distances / step
    whole = np.rint(ratio)
    if (uneven := np.flatnonzero((np.abs(ratio - whole) > _EVEN) | (whole < 1))).size:
        first = int(uneven[0])
        raise NotAssessable(
            f"The slices are unevenly spaced: {distances[first]:.1f} mm between slices {first + 1} and {first + 2}, "
            f"{step:.1f} mm elsewhere; check that the whole series was sent."
        )
    if (gaps := np.flatnonzero(whole > 1)).size:
        total = len(stack) + int((whole[gaps] - 1).sum())
        raise NotAssessable(_missing(places, whole, gaps, total))
    offset = stack[-1].position - stack[0].position
    tilt = np.degrees(np.arccos(np.clip(abs(offset @ normal) / np.linalg.norm(offset), 0, 1)))
    if tilt > _STRAIGHT_DEGREES:
        raise NotAssessable(
            f"The stack leans by {tilt:.1f}° against its slices (gantry tilt); it is not a box of voxels."
        )
    line = stack[0].position + (places - places[0])[:, None] / (places[-1] - places[0]) * offset
    sideways = np.linalg.norm(np.array([s.position for s in stack]) - line, axis=1)
    if sideways.max() > max(0.5, _EVEN * step):
        number = int(np.argmax(sideways)) + 1
        raise NotAssessable(
            f"Slice {number} of {len(stack)} lies {sideways.max():.1f} mm beside the others; check the export."
        )


def _missing(places: NDArray[np.float64], whole: NDArray[np.float64], gaps: NDArray[np.intp], total: int) -> str:
    """The sentence that names the first gap, and counts the others."""
    gap = int(gaps[0])
    first = int(whole[:gap].sum()) + 2
    missing = int(whole[gap]) - 1
    between = f"between {places[gap]:.1f} mm and {places[gap + 1]:.1f} mm"
    named = f"Slice {first}" if missing == 1 else f"Slices {first} to {first + missing - 1}"
    verb = "is" if missing == 1 else "are"
    others = int((whole[gaps[1:]] - 1).sum())
    more = f", and {others} more" if others else ""
    return f"{named} of {total} {verb} missing ({between}){more}; send the series again."


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
