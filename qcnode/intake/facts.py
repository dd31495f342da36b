"""Header facts of an instance: what completeness, the ledger and the page need to know, pixels untouched."""

from __future__ import annotations

import math
import re
import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.tag import Tag

from qcnode.errors import PermanentError
from qcnode.intake.nesting import check_harmless

# PS3.5 Section 9.1 allows digits and dots, 64 at most. A digit comes first, so that no UID can name a parent folder.
_UID = re.compile(r"[0-9][0-9.]{0,63}")
_SERIAL = re.compile(r"[ -~]{1,64}")  # LO, PS3.5 Section 6.2, of which plain ASCII
_CODE = re.compile(r"[A-Z0-9_ ]{1,16}")  # CS, PS3.5 Section 6.2

_TAGS: list[int | str | tuple[int, int]] = [
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "SliceThickness",
    "SpacingBetweenSlices",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "ImagesInAcquisition",
    "NumberOfSeriesRelatedInstances",
    "DeviceSerialNumber",
    "ConcatenationUID",
    "InConcatenationNumber",
    "InConcatenationTotalNumber",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]
_SPECIFIC: list[Any] = [Tag(keyword) for keyword in _TAGS]

# What pydicom raises on damaged bytes; OSError too, although they are in memory.
DAMAGE = (
    InvalidDicomError,
    BytesLengthException,
    OSError,
    AttributeError,
    EOFError,
    KeyError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

Vector = tuple[float, float, float]


class DataSetMismatch(PermanentError):  # noqa: N818 - the status's name
    """The data set is of another SOP class than the request or the file meta says (PS3.4 Section B.2.3)."""


@dataclass(frozen=True)
class Facts:
    """What the header of one instance says; plain values, so that equal headers are equal facts.

    Lengths are in mm, in the patient's coordinates (LPS, PS3.3 Section C.7.6.2). `orientation` is the direction of a
    row, then of a column; it, and `position`, are None where they are missing or implausible, and `position` also where
    the instance has several frames, each with its own.
    """

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str | None
    transfer_syntax_uid: str
    modality: str | None = None
    rows: int | None = None
    columns: int | None = None
    number_of_frames: int = 1
    frames_described: int | None = None  # items of PerFrameFunctionalGroupsSequence; None: not an enhanced object
    orientation: tuple[float, ...] | None = None
    position: tuple[float, ...] | None = None
    spacing_between_slices_mm: float | None = None
    slice_thickness_mm: float | None = None
    images_in_acquisition: int | None = None
    number_of_series_related_instances: int | None = None
    concatenation_uid: str | None = None
    in_concatenation_number: int | None = None
    in_concatenation_total_number: int | None = None
    device_serial_number: str | None = None  # of the scanner
    source_ae_title: str | None = None  # who sent it, as the file meta keeps it (PS3.10 Section 7.1)
    data_set_sop_instance_uid: str | None = None  # what the data set calls itself, where that is not sop_instance_uid

    @property
    def is_multi_frame(self) -> bool:
        """Whether this one instance holds several frames."""
        return self.number_of_frames > 1

    @property
    def has_all_frames(self) -> bool:
        """Whether the enhanced object describes as many frames as it says it has."""
        return self.frames_described is None or self.frames_described == self.number_of_frames

    @property
    def normal(self) -> Vector | None:
        """The unit vector across the slice: row direction × column direction."""
        if self.orientation is None:
            return None
        (a, b, c), (d, e, f) = self.orientation[:3], self.orientation[3:]
        return b * f - c * e, c * d - a * f, a * e - b * d

    @property
    def position_along_normal_mm(self) -> float | None:
        """How far along its normal the slice lies; neighbours of a stack differ by the slice spacing."""
        if self.normal is None or self.position is None:
            return None
        return math.fsum(n * p for n, p in zip(self.normal, self.position, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON column; from_json() is the inverse."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Facts:
        """The facts that to_json() wrote, also after JSON has turned tuples into lists."""
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**arguments)


def is_uid(text: str) -> bool:
    """Whether the text may name a series or an instance, and so a file: up to 64 digits and dots, a digit first."""
    return _UID.fullmatch(text) is not None


def read_facts(data: bytes) -> Facts:
    """Facts from the bytes of a Part 10 file, of any transfer syntax.

    The SOP Instance UID is the file meta's, which is the request's; where the data set has another, the facts say so.
    Raises DataSetMismatch for another SOP class, PermanentError where no series or instance can be told.
    """
    try:
        check_harmless(data)
        ds = pydicom.dcmread(BytesIO(data), stop_before_pixels=True, specific_tags=_SPECIFIC)
        return _facts(ds, ds.file_meta)
    except DAMAGE as error:
        raise PermanentError("The data set cannot be parsed; send it again from its source.") from error


def _facts(ds: Dataset, meta: Dataset) -> Facts:
    sop_class_uid = _required_uid(meta, "MediaStorageSOPClassUID")
    sop_instance_uid = _required_uid(meta, "MediaStorageSOPInstanceUID")
    if raw_text(ds, "SOPClassUID") not in (None, sop_class_uid):
        raise DataSetMismatch("The data set is of another SOP Class than the request; mend the sender.")
    shared, frame = _first_item(ds, "SharedFunctionalGroupsSequence"), None
    frames_described = None
    if "PerFrameFunctionalGroupsSequence" in ds:
        frames_described = len(ds.PerFrameFunctionalGroupsSequence)
        frame = _first_item(ds, "PerFrameFunctionalGroupsSequence")
    # Where an enhanced object has both, its functional groups are right and the top level is a copy, or stale.
    places = [place for place in (shared, frame) if place is not None]
    orientations = [*_macros(places, "PlaneOrientationSequence"), ds]
    positions = [*_macros(places, "PlanePositionSequence"), ds]
    measures = [*_macros(places, "PixelMeasuresSequence"), ds]
    number_of_frames = _integer(ds, "NumberOfFrames") or 1
    data_set_uid = raw_text(ds, "SOPInstanceUID")
    return Facts(
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        series_instance_uid=_required_uid(ds, "SeriesInstanceUID"),
        study_instance_uid=_uid(ds, "StudyInstanceUID"),
        transfer_syntax_uid=_required_uid(meta, "TransferSyntaxUID"),
        modality=_code(ds, "Modality"),
        rows=_integer(ds, "Rows"),
        columns=_integer(ds, "Columns"),
        number_of_frames=number_of_frames,
        frames_described=frames_described,
        orientation=_plausible(_first(orientations, "ImageOrientationPatient", 6)),
        position=_first(positions, "ImagePositionPatient", 3) if number_of_frames == 1 else None,
        spacing_between_slices_mm=_length(_first(measures, "SpacingBetweenSlices", 1)),
        slice_thickness_mm=_length(_first(measures, "SliceThickness", 1)),
        images_in_acquisition=_integer(ds, "ImagesInAcquisition"),
        number_of_series_related_instances=_integer(ds, "NumberOfSeriesRelatedInstances"),
        concatenation_uid=_uid(ds, "ConcatenationUID"),
        in_concatenation_number=_integer(ds, "InConcatenationNumber"),
        in_concatenation_total_number=_integer(ds, "InConcatenationTotalNumber"),
        device_serial_number=_serial_number(ds),
        source_ae_title=raw_text(meta, "SourceApplicationEntityTitle"),
        data_set_sop_instance_uid=None if data_set_uid == sop_instance_uid else data_set_uid,
    )


def raw_text(ds: Dataset, keyword: str) -> str | None:
    """The value as the bytes have it: pydicom's own conversion warns about, and repeats, what is not conformant."""
    if keyword not in ds:
        return None
    value = ds.get_item(keyword).value
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
    return text.strip(" \0") or None


def _uid(ds: Dataset, keyword: str) -> str | None:
    text = raw_text(ds, keyword)
    return text if text is not None and is_uid(text) else None


def _required_uid(ds: Dataset, keyword: str) -> str:
    text = raw_text(ds, keyword)
    if text is None:
        raise PermanentError(f"The instance has no {keyword}; mend the sender.")
    if not is_uid(text):
        raise PermanentError(f"The {keyword} is not a UID; mend the sender.")
    return text


def _code(ds: Dataset, keyword: str) -> str | None:
    text = raw_text(ds, keyword)
    return text if text is not None and _CODE.fullmatch(text) else None


def _serial_number(ds: Dataset) -> str | None:
    """What tells devices apart; not what stands there once somebody has emptied it, such as 0000."""
    text = raw_text(ds, "DeviceSerialNumber")
    return text if text is not None and _SERIAL.fullmatch(text) and text.strip("0Xx.- ") else None


def _integer(ds: Dataset, keyword: str) -> int | None:
    """A US or IS value; None where it is missing, empty, or negative."""
    element = ds.get_item(keyword) if keyword in ds else None
    if element is None or not element.value:
        return None
    if isinstance(element.value, bytes) and pydicom.datadict.dictionary_VR(element.tag) == "US":
        order = "little" if getattr(element, "is_little_endian", True) else "big"
        return int.from_bytes(element.value[:2], order)  # type: ignore[arg-type]
    numbers = _numbers(ds, keyword, 1)
    return int(numbers[0]) if numbers is not None and numbers[0] >= 0 else None


def _numbers(ds: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """A DS or IS value of this multiplicity; None where it is missing or not `count` finite numbers."""
    try:
        numbers = tuple(float(part) for part in (raw_text(ds, keyword) or "").split("\\"))
    except ValueError:
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def _first(places: list[Dataset], keyword: str, count: int) -> tuple[float, ...] | None:
    return next((found for place in places if (found := _numbers(place, keyword, count)) is not None), None)


def _first_item(ds: Dataset, keyword: str) -> Dataset | None:
    items = ds.get(keyword)
    return items[0] if items else None


def _macros(places: list[Dataset], keyword: str) -> list[Dataset]:
    return [item for place in places if (item := _first_item(place, keyword)) is not None]


def _length(value: tuple[float, ...] | None) -> float | None:
    """Some vendors give the direction of the stack as the sign of a spacing."""
    return abs(value[0]) or None if value is not None else None


def _plausible(orientation: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Two unit vectors at right angles, as in-plane directions are; else None."""
    if orientation is None:
        return None
    row, column = orientation[:3], orientation[3:]
    right_angle = abs(math.fsum(r * c for r, c in zip(row, column, strict=True))) < 0.01
    return orientation if right_angle and all(abs(math.hypot(*v) - 1) < 0.01 for v in (row, column)) else None
