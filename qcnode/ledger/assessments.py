"""An assessment as rows, and back: verdict, scores, documents and their deliveries, stored together."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from qcnode.artifacts import Artifact, Severity
from qcnode.ledger.models import AssessmentRow, Delivery, DocumentRow, Escalation, ScoreRow
from qcnode.ledger.records import Claim, NewDocument
from qcnode.states import DeliveryState
from qcnode.verdict import Assessment, Grade, Verdict


def assessment_row(
    claim: Claim,
    assessment: Assessment,
    documents: Sequence[NewDocument],
    deliveries: Sequence[tuple[str, str]],
    escalations: Sequence[str],
    now: datetime,
) -> AssessmentRow:
    """The verdict's row with all that hangs on it."""
    scores = [
        ScoreRow(artifact=artifact, severity=int(grade.severity), p0=p0, p1=p1, p2=p2, slices=_listed(grade.slices))
        for artifact, grade in assessment.grades.items()
        for p0, p1, p2 in [grade.probabilities]
    ]
    return AssessmentRow(
        series_uid=claim.series_uid,
        revision=claim.revision,
        decision=assessment.verdict.decision,
        reasons=list(assessment.verdict.reasons),
        plane=assessment.plane,
        ensemble=assessment.ensemble,
        seconds=dict(assessment.seconds),
        at=now,
        predecessor_uid=claim.predecessor_uid,
        scores=scores,
        documents=[document_row(claim.series_uid, document, deliveries, now) for document in documents],
        escalations=[Escalation(destination=destination, since=now) for destination in escalations],
    )


def assessment_of(row: AssessmentRow) -> Assessment:
    """The assessment as the ledger keeps it: everything but the preview."""
    grades = {
        Artifact(score.artifact): Grade(
            Severity(score.severity),
            (score.p0, score.p1, score.p2),
            None if score.slices is None else tuple(score.slices),
        )
        for score in row.scores
    }
    return Assessment(
        Verdict(row.decision, tuple(row.reasons)),
        row.series_uid,
        row.plane,
        {artifact: grades[artifact] for artifact in Artifact if artifact in grades},
        row.ensemble,
        row.seconds,
    )


def _listed(slices: tuple[int, ...] | None) -> list[int] | None:
    return None if slices is None else list(slices)


def document_row(
    series_uid: str, document: NewDocument, deliveries: Sequence[tuple[str, str]], now: datetime
) -> DocumentRow:
    """The document's row with a delivery for each (document kind, destination) of its kind."""
    return DocumentRow(
        kind=document.kind,
        sop_class_uid=document.sop_class_uid,
        sop_instance_uid=document.sop_instance_uid,
        path=document.path,
        title=document.title,
        body=document.body,
        deliveries=[
            Delivery(
                series_uid=series_uid,
                kind=kind,
                destination=destination,
                state=DeliveryState.PENDING,
                attempts=0,
                refusals=0,
                due_at=now,
            )
            for kind, destination in deliveries
            if kind == document.kind
        ],
    )
