"""Header facts of an instance: what completeness, the ledger and the page need to know, pixels untouched."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qcnode.errors import PermanentError
from qcnode.intake.header import DataSet, Header, read_header, wanted

# PS3.5 Section 9.1 allows digits and dots, 64 at most. A digit comes first, so that no UID can name a parent folder.
_UID = re.compile(r"[0-9][0-9.]{0,63}")
_SERIAL = re.compile(r"[ -~]{1,64}")  # LO, PS3.5 Section 6.2, of which plain ASCII
_CODE = re.compile(r"[A-Z0-9_ ]{1,16}")  # CS, PS3.5 Section 6.2

_WANTED = wanted(
    "MediaStorageSOPClassUID",
    "MediaStorageSOPInstanceUID",
    "TransferSyntaxUID",
    "SourceApplicationEntityTitle",
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "SliceThickness",
    "SpacingBetweenSlices",
    "DeviceSerialNumber",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "ImagesInAcquisition",
    "NumberOfSeriesRelatedInstances",
    "ConcatenationUID",
    "InConcatenationNumber",
    "InConcatenationTotalNumber",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "PlaneOrientationSequence",
    "PlanePositionSequence",
    "PixelMeasuresSequence",
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
    header = read_header(data, _WANTED)
    meta, ds = header.meta, header.data_set
    sop_class_uid = _required_uid(meta, "MediaStorageSOPClassUID")
    sop_instance_uid = _required_uid(meta, "MediaStorageSOPInstanceUID")
    if ds.text("SOPClassUID") not in (None, sop_class_uid):
        raise DataSetMismatch("The data set is of another SOP Class than the request; mend the sender.")
    # Where an enhanced object has both, its functional groups are right and the top level is a copy, or stale.
    places = [*ds.sequence("SharedFunctionalGroupsSequence"), *ds.sequence("PerFrameFunctionalGroupsSequence")]
    orientations = [*_macros(places, "PlaneOrientationSequence"), ds]
    positions = [*_macros(places, "PlanePositionSequence"), ds]
    measures = [*_macros(places, "PixelMeasuresSequence"), ds]
    number_of_frames = _count(ds, "NumberOfFrames") or 1
    data_set_uid = ds.text("SOPInstanceUID")
    return Facts(
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        series_instance_uid=_required_uid(ds, "SeriesInstanceUID"),
        study_instance_uid=_uid(ds, "StudyInstanceUID"),
        transfer_syntax_uid=_required_uid(meta, "TransferSyntaxUID"),
        modality=_code(ds, "Modality"),
        rows=_unsigned(header, "Rows"),
        columns=_unsigned(header, "Columns"),
        number_of_frames=number_of_frames,
        frames_described=ds.count("PerFrameFunctionalGroupsSequence"),
        orientation=_plausible(_first(orientations, "ImageOrientationPatient", 6)),
        position=_first(positions, "ImagePositionPatient", 3) if number_of_frames == 1 else None,
        spacing_between_slices_mm=_length(_first(measures, "SpacingBetweenSlices", 1)),
        slice_thickness_mm=_length(_first(measures, "SliceThickness", 1)),
        images_in_acquisition=_count(ds, "ImagesInAcquisition"),
        number_of_series_related_instances=_count(ds, "NumberOfSeriesRelatedInstances"),
        concatenation_uid=_uid(ds, "ConcatenationUID"),
        in_concatenation_number=_unsigned(header, "InConcatenationNumber"),
        in_concatenation_total_number=_unsigned(header, "InConcatenationTotalNumber"),
        device_serial_number=_serial_number(ds),
        source_ae_title=meta.text("SourceApplicationEntityTitle"),
        data_set_sop_instance_uid=None if data_set_uid == sop_instance_uid else data_set_uid,
    )


def _uid(ds: DataSet, keyword: str) -> str | None:
    text = ds.text(keyword)
    return text if text is not None and is_uid(text) else None


def _required_uid(ds: DataSet, keyword: str) -> str:
    text = ds.text(keyword)
    if text is None:
        raise PermanentError(f"The instance has no {keyword}; mend the sender.")
    if not is_uid(text):
        raise PermanentError(f"The {keyword} is not a UID; mend the sender.")
    return text


def _code(ds: DataSet, keyword: str) -> str | None:
    text = ds.text(keyword)
    return text if text is not None and _CODE.fullmatch(text) else None


def _serial_number(ds: DataSet) -> str | None:
    """What tells devices apart; not what stands there once somebody has emptied it, such as 0000."""
    text = ds.text("DeviceSerialNumber")
    return text if text is not None and _SERIAL.fullmatch(text) and text.strip("0Xx.- ") else None


def _unsigned(header: Header, keyword: str) -> int | None:
    """A US value of the data set; None where it is missing or empty."""
    value = header.data_set.get(keyword)
    return int.from_bytes(value[:2], header.byte_order) if value and isinstance(value, bytes) else None


def _count(ds: DataSet, keyword: str) -> int | None:
    """An IS value; None where it is missing, empty, or negative."""
    numbers = _numbers(ds, keyword, 1)
    return int(numbers[0]) if numbers is not None and numbers[0] >= 0 else None


def _numbers(ds: DataSet, keyword: str, count: int) -> tuple[float, ...] | None:
    """A DS or IS value of this multiplicity; None where it is missing or not `count` finite numbers."""
    try:
        numbers = tuple(float(part) for part in (ds.text(keyword) or "").split("\\"))
    except ValueError:
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def _first(places: Sequence[DataSet], keyword: str, count: int) -> tuple[float, ...] | None:
    return next((found for place in places if (found := _numbers(place, keyword, count)) is not None), None)


def _macros(places: Sequence[DataSet], keyword: str) -> list[DataSet]:
    return [item for place in places for item in place.sequence(keyword)]


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
