"""Source instances → what every document about them shares: identity, references, UIDs, time."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cached_property
from importlib.metadata import version
from io import BytesIO
from typing import Any
from uuid import UUID, uuid5

from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement

from qcnode.errors import PermanentError
from qcnode.imaging.stack import UNREADABLE

MANUFACTURER = "qcnode"
VERSION = version("qcnode")
_NAMESPACE = UUID("9d1f3f52-5f0b-4c9e-9a9a-6d0a6e0c6c17")  # never changes: every UID that we write hangs on it
_REFERENCE = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")

# Type 2 of the Patient and General Study Modules (PS3.3 C.7.1.1, C.7.2.1): empty where the source has none.
_TYPE_2 = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
_IDENTITY = (
    *("SpecificCharacterSet", "TimezoneOffsetFromUTC", *_TYPE_2),
    *("IssuerOfPatientID", "TypeOfPatientID", "PatientAge", "PatientSize", "PatientWeight", "StudyDescription"),
    *("PatientIdentityRemoved", "DeidentificationMethod"),
    *("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID"),
    *("ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID"),
)
_READ = [*_REFERENCE, *_IDENTITY, "InstanceNumber", "SeriesNumber"]


def derived_uid(*parts: str) -> str:
    """The UID that these parts always give (PS3.5 B.2, of a UUIDv5), so that writing twice writes the same object."""
    return f"2.25.{uuid5(_NAMESPACE, chr(0).join(parts)).int}"


def plain(text: str) -> str:
    """The text in ASCII, which every Specific Character Set can hold; the source's own is kept for the names in it."""
    text = text.translate({ord("–"): "-", ord("—"): "-", ord("’"): "'", ord("“"): '"', ord("”"): '"', ord("≥"): ">="})
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


@dataclass(frozen=True)
class Evidence:
    """The source series' headers, without pixels, and what each document about this revision takes from them.

    headers: ordered by instance number, each SOP Instance UID once. at: in the scanner's zone where the headers
    name it (TimezoneOffsetFromUTC), else in this machine's: beside the scanner's own times, UTC would mislead.
    """

    headers: tuple[Dataset, ...]
    revision: int
    ensemble: str
    at: datetime

    @property
    def series_uid(self) -> str:
        """The source series."""
        return str(self.headers[0].SeriesInstanceUID)

    def instance_uid(self, kind: str) -> str:
        """The SOP Instance UID of this revision's document of a kind."""
        return derived_uid(self.series_uid, str(self.revision), self.ensemble, kind)

    def document_series_uid(self, kind: str) -> str:
        """The series that holds all revisions' documents of a kind."""
        return derived_uid(self.series_uid, "series", kind)

    @cached_property
    def references(self) -> list[Dataset]:
        """What highdicom refers to: the instances' UIDs, with an empty patient and study.

        highdicom insists on type 2 attributes that a Swoop leaves out, and on values that old archives do not keep to.
        So it gets empty ones, and `identify` puts the source's own in their place.
        """
        return [_reference(header) for header in self.headers]

    def placement(self, kind: str, series_number: int) -> dict[str, Any]:
        """Arguments that each of highdicom's documents takes: its place in the study and who made it."""
        source_number = _whole_number(self.headers[0], "SeriesNumber")
        return {
            "series_instance_uid": self.document_series_uid(kind),
            "series_number": source_number % 1_000_000 * 100 + series_number,
            "sop_instance_uid": self.instance_uid(kind),
            "instance_number": self.revision,
            "manufacturer": MANUFACTURER,
            "manufacturer_model_name": MANUFACTURER,
            "device_serial_number": plain(self.ensemble)[:64] or "none",
            "software_versions": VERSION,
        }

    def identify(self, document: Dataset) -> None:
        """Give the document the source's patient and study, byte for byte, and `at` as its time.

        The elements are copied as they were read: decoding a faulty name or date would put it into a library's warning.
        """
        for keyword in _IDENTITY:
            if keyword in self.headers[0]:
                document[keyword] = self.headers[0].get_item(keyword)
        for moment in ("InstanceCreation", "Content"):
            setattr(document, f"{moment}Date", self.at.strftime("%Y%m%d"))
            setattr(document, f"{moment}Time", self.at.strftime("%H%M%S"))
        for equipment in document.get("ContributingEquipmentSequence", []):  # highdicom names itself, and its own clock
            equipment.ContributionDateTime = self.at.strftime("%Y%m%d%H%M%S%z")


def evidence(instances: Iterable[bytes], *, revision: int, ensemble: str, at: datetime) -> Evidence:
    """Read the headers of a series' instances (Part 10 bytes, any order); unreadable ones are left out.

    Raises PermanentError when none can be read.
    """
    readable = {str(header.SOPInstanceUID): header for header in map(_header, instances) if header is not None}
    if not readable:
        raise PermanentError("None of the instances has a readable header; send the series again.")
    # Of two studies that a series names, no document may refer to both: the one that more of its instances name holds.
    named = Counter(str(header.StudyInstanceUID) for header in readable.values())
    study_uid = max(named, key=lambda uid: (named[uid], uid))
    headers = [header for header in readable.values() if header.StudyInstanceUID == study_uid]
    headers.sort(key=lambda ds: (_whole_number(ds, "InstanceNumber"), str(ds.SOPInstanceUID)))
    return Evidence(tuple(headers), revision, ensemble, at.astimezone(_zone(headers[0])))


def _header(instance: bytes) -> Dataset | None:
    """The header with its type 2 attributes filled in (here only, never in the stored instance); None if unreadable."""
    try:
        header = dcmread(BytesIO(instance), stop_before_pixels=True, specific_tags=_READ)
        for keyword in ("SOPClassUID", "SOPInstanceUID"):  # the request's, where the data set has lost its own
            if not header.get(keyword):
                setattr(header, keyword, header.file_meta[f"MediaStorage{keyword}"].value)
        if not all(header.get(keyword) and isinstance(header.get(keyword), str) for keyword in _REFERENCE):
            return None  # missing, or several values where one is allowed
    except UNREADABLE:
        return None
    for keyword in (*_IDENTITY, "InstanceNumber", "SeriesNumber"):
        element = header.get_item(keyword, keep_deferred=True)
        if isinstance(element, RawDataElement):  # implicit VR has none, some archives write UN, and it may be damaged
            header[keyword] = element._replace(VR=dictionary_VR(keyword), value=element.value or b"")
    for keyword in _TYPE_2:
        if keyword not in header:
            setattr(header, keyword, "")
    return header


def _reference(header: Dataset) -> Dataset:
    reference = Dataset()
    for keyword in _REFERENCE:
        setattr(reference, keyword, str(header[keyword].value))
    for keyword in _TYPE_2:
        setattr(reference, keyword, "")
    reference.Rows = reference.Columns = 1  # says no more than that it is an image
    return reference


def _whole_number(header: Dataset, keyword: str) -> int:
    try:
        return int(header.get(keyword) or 0)
    except UNREADABLE:
        return 0


def _zone(header: Dataset) -> timezone | None:
    match = re.fullmatch(r"([+-])(\d{2})(\d{2})", str(header.get("TimezoneOffsetFromUTC", "")).strip())
    if match is None:
        return None
    sign, hours, minutes = match.groups()
    return timezone(timedelta(hours=int(hours), minutes=int(minutes)) * (-1 if sign == "-" else 1))
