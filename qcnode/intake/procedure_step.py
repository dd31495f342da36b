"""What a modality says of a performed procedure step (MPPS, PS3.4 Annex F.7): its status, and what its series have.

Everything else in the data set, the patient above all, is passed over.
"""

from __future__ import annotations

from enum import IntEnum

from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from qcnode.errors import PermanentError
from qcnode.intake.facts import is_uid
from qcnode.intake.header import DataSet, read_header, wanted
from qcnode.ledger.records import StepReport
from qcnode.states import StepState

MOST_ITEMS = 20_000  # of all sequences of one data set; reading so many takes half a second
MOST_SERIES = 500  # each is looked up when the step ends
TRANSFER_SYNTAXES = {  # those that cannot hide how much they hold, with the tag of an item in each
    ImplicitVRLittleEndian: b"\xfe\xff\x00\xe0",
    ExplicitVRLittleEndian: b"\xfe\xff\x00\xe0",
    ExplicitVRBigEndian: b"\xff\xfe\xe0\x00",
}

_STATUS = "PerformedProcedureStepStatus"
_SERIES = "PerformedSeriesSequence"
_IMAGES = "ReferencedImageSequence"
_WANTED = wanted(_STATUS, _SERIES, _IMAGES, "SeriesInstanceUID", "ReferencedSOPInstanceUID")


class Status(IntEnum):
    """Status codes of N-CREATE and N-SET (PS3.7 Sections 10.1.3.1.9 and 10.1.5.1.6, PS3.4 Table F.7.2-2)."""

    SUCCESS = 0x0000
    INVALID_ATTRIBUTE_VALUE = 0x0106
    PROCESSING_FAILURE = 0x0110
    DUPLICATE_SOP_INSTANCE = 0x0111
    NO_SUCH_SOP_INSTANCE = 0x0112
    INVALID_SOP_INSTANCE = 0x0117
    NO_SUCH_SOP_CLASS = 0x0118
    MISSING_ATTRIBUTE = 0x0120
    MISSING_ATTRIBUTE_VALUE = 0x0121
    RESOURCE_LIMITATION = 0x0213


class Unacceptable(PermanentError):  # noqa: N818 - the peer's, of the request
    """The request cannot be granted; the message fits into an Error Comment of 64 characters."""

    def __init__(self, status: Status, why: str) -> None:
        super().__init__(why)
        self.status = status


def read_report(part10: bytes, transfer_syntax: str, step_uid: str, *, begins: bool) -> StepReport:
    """What the attribute list of an N-CREATE (`begins`) or an N-SET says, as the bytes of a Part 10 file.

    Raises Unacceptable with the status that says so.
    """
    item = TRANSFER_SYNTAXES.get(UID(transfer_syntax))
    if item is None:
        raise Unacceptable(Status.NO_SUCH_SOP_CLASS, "The presentation context is none for MPPS.")
    if part10.count(item) > MOST_ITEMS:
        raise Unacceptable(Status.RESOURCE_LIMITATION, "The step names more instances than the node takes.")
    try:
        ds = read_header(part10, _WANTED, keep=MOST_ITEMS).data_set
        state = _state(ds, begins=begins)
        return StepReport(step_uid, state, _series(ds) if _SERIES in ds else None)
    except Unacceptable:
        raise
    except PermanentError as error:
        raise Unacceptable(Status.PROCESSING_FAILURE, "The data set cannot be parsed; mend the sender.") from error


def _state(ds: DataSet, *, begins: bool) -> StepState | None:
    if _STATUS not in ds and not begins:
        return None
    text = _required(ds, _STATUS)
    if text not in tuple(StepState) or (begins and text != StepState.IN_PROGRESS):
        why = "A step begins IN PROGRESS." if begins else "The status is no Performed Procedure Step Status."
        raise Unacceptable(Status.INVALID_ATTRIBUTE_VALUE, why)
    return StepState(text)


def _series(ds: DataSet) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for item in ds.sequence(_SERIES):
        sops = found.setdefault(_required_uid(item, "SeriesInstanceUID"), set())
        # Images alone: a scanner names its raw data too, and sends it nowhere.
        sops.update(_required_uid(image, "ReferencedSOPInstanceUID") for image in item.sequence(_IMAGES))
    if len(found) > MOST_SERIES:
        raise Unacceptable(Status.RESOURCE_LIMITATION, "The step names more series than the node takes.")
    return found


def _required(ds: DataSet, keyword: str) -> str:
    if keyword not in ds:
        raise Unacceptable(Status.MISSING_ATTRIBUTE, f"{keyword} is missing.")
    text = ds.text(keyword)
    if text is None:
        raise Unacceptable(Status.MISSING_ATTRIBUTE_VALUE, f"{keyword} has no value.")
    return text


def _required_uid(ds: DataSet, keyword: str) -> str:
    text = _required(ds, keyword)
    if not is_uid(text):
        raise Unacceptable(Status.INVALID_ATTRIBUTE_VALUE, f"{keyword} is not a UID.")
    return text
