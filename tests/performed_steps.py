"""Attribute lists of a modality's performed procedure step, with a patient in them as a scanner's have."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, Association
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import ModalityPerformedProcedureStep

from qcnode.intake.dimse import Request
from qcnode.intake.storing import part10_header

STEP = "1.2.826.0.1.3680043.10.9"
PATIENT_NAME, PATIENT_ID = "QUINTARELLI^ZOE", "MRN-77120934"
IN_PROGRESS, COMPLETED, DISCONTINUED = "IN PROGRESS", "COMPLETED", "DISCONTINUED"


def beginning(status: str = IN_PROGRESS) -> Dataset:
    """An N-CREATE's attribute list."""
    scheduled = Dataset()
    scheduled.StudyInstanceUID, scheduled.AccessionNumber, scheduled.ScheduledProcedureStepID = "1.2", "A-1", "S-1"
    ds = Dataset()
    ds.ScheduledStepAttributesSequence = [scheduled]
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = PATIENT_NAME, PATIENT_ID, "20200101", "F"
    ds.PerformedProcedureStepID, ds.PerformedStationAETitle, ds.Modality = "P-1", "SWOOP1", "MR"
    ds.PerformedProcedureStepStartDate, ds.PerformedProcedureStepStartTime = "20260301", "120000"
    ds.PerformedProcedureStepStatus = status
    ds.PerformedSeriesSequence = []
    return ds


def ending(series: Mapping[str, Sequence[str]], status: str | None = COMPLETED) -> Dataset:
    """An N-SET's: the SOP Instance UIDs of each series' images."""
    ds = Dataset()
    if status is not None:
        ds.PerformedProcedureStepStatus = status
    ds.PerformedProcedureStepEndDate, ds.PerformedProcedureStepEndTime = "20260301", "121500"
    ds.PerformedSeriesSequence = [_series(uid, sops) for uid, sops in series.items()]
    return ds


def _series(uid: str, sops: Sequence[str]) -> Dataset:
    item = Dataset()
    item.PerformingPhysicianName, item.ProtocolName, item.SeriesDescription = "DOC^TOR", "T2", "of the child"
    item.SeriesInstanceUID, item.RetrieveAETitle = uid, "SWOOP1"
    item.ReferencedImageSequence = [_reference(sop) for sop in sops]
    item.ReferencedNonImageCompositeSOPInstanceSequence = []
    return item


def _reference(sop: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = MRImageStorage, sop
    return item


def encoded(ds: Dataset, *, implicit: bool = True) -> bytes:
    """As it goes over the network."""
    data = encode(ds, implicit, True)
    assert data is not None
    return data


def part10(data: bytes, syntax: str = ImplicitVRLittleEndian) -> bytes:
    """The bytes of an attribute list as read_report takes them."""
    return part10_header(Request({}), syntax, "SWOOP1") + data


def associated(port: int, *syntaxes: str) -> Association:
    """A modality's association, for MPPS alone."""
    entity = AE(ae_title="SWOOP1")
    entity.add_requested_context(ModalityPerformedProcedureStep, list(syntaxes) or None)
    association = entity.associate("127.0.0.1", port, ae_title="QCNODE")
    assert association.is_established
    return association


def rest() -> None:
    """Between two requests: pynetdicom's reactor, woken by the one, would take the other's answer for a request."""
    time.sleep(0.02)


def begin(association: Association, step: str = STEP, ds: Dataset | None = None) -> Dataset:
    """The response to an N-CREATE."""
    rest()
    status, _ = association.send_n_create(ds or beginning(), ModalityPerformedProcedureStep, step)
    return status


def change(association: Association, ds: Dataset, step: str = STEP) -> Dataset:
    """The response to an N-SET."""
    rest()
    status, _ = association.send_n_set(ds, ModalityPerformedProcedureStep, step)
    return status


def release(association: Association) -> None:
    """The end of the association."""
    rest()
    association.release()


def perform(port: int, series: Mapping[str, Sequence[str]], step: str = STEP, status: str = COMPLETED) -> None:
    """A whole step: it begins, and ends with these series."""
    association = associated(port)
    assert begin(association, step).Status == 0x0000
    assert change(association, ending(series, status), step).Status == 0x0000
    release(association)
