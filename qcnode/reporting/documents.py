"""An assessment → the DICOM files that tell about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Literal

from pydicom import Dataset

from qcnode.config import DocumentKind
from qcnode.reporting.capture import capture
from qcnode.reporting.evidence import evidence
from qcnode.reporting.key_object import recall_flag, rejection
from qcnode.reporting.structured_report import structured_report
from qcnode.verdict import Assessment, Decision


@dataclass(frozen=True)
class Document:
    """One DICOM object ready to be sent; data: the bytes of its Part 10 file."""

    kind: DocumentKind | Literal["rejection"]
    sop_class_uid: str
    sop_instance_uid: str
    data: bytes


def documents(
    assessment: Assessment, instances: Sequence[bytes], *, revision: int, at: datetime, predecessor_uid: str | None
) -> tuple[Document, ...]:
    """The report, the flag where the verdict is `rescan`, and the page: always the same bytes for the same arguments.

    instances: the series' Part 10 bytes, any order. predecessor_uid: the SOP Instance UID of the report that this one
    supersedes. An excluded series reached no verdict and gets no document. Raises PermanentError when no instance is
    readable.
    """
    if assessment.excluded is not None:
        return ()
    source = evidence(instances, revision=revision, ensemble=assessment.ensemble, at=at)
    made = [_document("report", structured_report(assessment, source, predecessor_uid))]
    if assessment.verdict.decision is Decision.RESCAN:
        made.append(_document("flag", recall_flag(assessment, source)))
    made.append(_document("capture", capture(assessment, source)))
    return tuple(made)


def rejection_document(
    assessment: Assessment, instances: Sequence[bytes], *, revision: int, at: datetime, by: str
) -> Document:
    """The key object by which this person rejects the series (Part 10 bytes, any order)."""
    source = evidence(instances, revision=revision, ensemble=assessment.ensemble, at=at)
    return _document("rejection", rejection(assessment, source, by))


def _document(kind: DocumentKind | Literal["rejection"], dataset: Dataset) -> Document:
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return Document(kind, str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), buffer.getvalue())
