"""What the interface for programs answers with, and takes: its documentation is made from these."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.ledger import models
from qcnode.ledger.records import Forwarded
from qcnode.people import Word
from qcnode.states import DeliveryState, State
from qcnode.verdict import Decision

HIGHEST_REVISION = 2**31 - 1


class Shape(BaseModel):
    """An object of the interface."""

    model_config = ConfigDict(use_attribute_docstrings=True, from_attributes=True)


class Problem(Shape):
    """Why a request was not carried out."""

    detail: str
    """One sentence that says what to do."""


class Score(Shape):
    """What the machine says of one artifact."""

    severity: Severity
    """0 none, 1 moderate, 2 severe."""
    probabilities: tuple[float, float, float]
    """Of severities 0, 1 and 2."""
    slices: list[int] | None
    """Those of the volume, from 0, that carry the grade; empty where it is the whole scan's, null where nobody looked
    for them, as for the severity none."""


class Opinion(Shape):
    """What a person, or a token, said of a verdict; the last word of each stands."""

    at: datetime
    by: str
    word: Word
    artifact: Artifact | None
    """Of a correction."""
    severity: Severity | None
    """The grade it was corrected to."""


class Delivery(Shape):
    """The way of one document to one destination."""

    destination: str
    state: DeliveryState
    attempts: int
    due_at: datetime
    sent_at: datetime | None
    error: str | None


class Document(Shape):
    """What was made for others to read, and where it went."""

    kind: str
    """report, flag, capture or alert."""
    sop_instance_uid: str | None
    deliveries: list[Delivery]


class Assessment(Shape):
    """The verdict on one revision of a series."""

    revision: int
    verdict: Decision
    reasons: list[str]
    plane: Plane | None
    ensemble: str
    """Names the weights."""
    at: datetime
    scores: dict[Artifact, Score]
    """All seven, or none where the series is not assessable."""
    opinions: list[Opinion]

    @classmethod
    def of(cls, row: models.AssessmentRow) -> Self:
        """The ledger's row as an answer."""
        return cls(**_assessment(row))


class Revision(Assessment):
    """An assessment with all that followed from it."""

    seconds: dict[str, float]
    """How long each stage of the assessment took."""
    documents: list[Document]

    @classmethod
    def of(cls, row: models.AssessmentRow) -> Self:
        """The ledger's row as an answer."""
        documents = [Document.model_validate(document) for document in row.documents]
        return cls(**_assessment(row), seconds=row.seconds, documents=documents)


class Event(Shape):
    """Something that happened to the series."""

    at: datetime
    kind: str
    detail: dict[str, Any]


class Series(Shape):
    """A series and its latest assessment, which is of an earlier revision while the present one is still at work."""

    series_uid: str
    study_uid: str | None
    scanner: str
    """The sender, and the device's serial number where the header has one."""
    calling_ae: str
    state: State
    reason: str | None
    """Why it is excluded or failed, or what its last attempt met."""
    revision: int
    instances: int
    first_received_at: datetime
    last_received_at: datetime
    latest: Assessment | None

    @classmethod
    def of(cls, row: models.Series) -> Self:
        """The ledger's row as an answer."""
        return cls(**_series(row), latest=Assessment.of(row.latest) if row.latest else None)


class SeriesPage(Shape):
    """Some of the series that were asked for, newest first."""

    series: list[Series]
    next: str | None
    """What to give as `after` for those that follow; null at the end."""


class Way(Shape):
    """How far the series' own images are on their way to a destination."""

    destination: str
    images: int
    sent: int
    waiting: int
    dead: int
    last_sent_at: datetime | None
    error: str | None


class SeriesDetail(Series):
    """A series with all its revisions, and everything that happened to it."""

    revisions: list[Revision]
    """The newest first."""
    forwarded: list[Way]
    events: list[Event]

    @classmethod
    def of(cls, row: models.Series, forwarded: list[Forwarded] | None = None) -> Self:
        """The ledger's row as an answer."""
        return cls(
            **_series(row),
            latest=Assessment.of(row.latest) if row.latest else None,
            revisions=[Revision.of(one) for one in row.assessments],
            forwarded=[Way.model_validate(way) for way in forwarded or ()],
            events=[Event.model_validate(event) for event in row.events],
        )


class Said(Shape):
    """A word on the verdict of one revision."""

    word: Literal[Word.ACKNOWLEDGED, Word.AGREED, Word.CORRECTED]
    """acknowledged: seen; agreed: every grade is as I would give it; corrected: those in `grades` are others."""
    revision: int = Field(ge=1, le=HIGHEST_REVISION)
    """The revision that it is said of."""
    grades: dict[Artifact, Literal[0, 1, 2]] = Field(default_factory=dict)
    """Of a correction: the severities that differ."""

    @model_validator(mode="after")
    def _grades_belong_to_a_correction(self) -> Self:
        if bool(self.grades) is not (self.word is Word.CORRECTED):
            raise ValueError("grades come with the word corrected, and with no other")
        return self


class Stored(Shape):
    """What became of a word."""

    stored: int
    """How many rows were added; 0 where all of it was said before."""


def _assessment(row: models.AssessmentRow) -> dict[str, Any]:
    scores = {
        one.artifact: Score(severity=Severity(one.severity), probabilities=(one.p0, one.p1, one.p2), slices=one.slices)
        for one in row.scores
    }
    return {
        "revision": row.revision,
        "verdict": row.decision,
        "reasons": row.reasons,
        "plane": row.plane,
        "ensemble": row.ensemble,
        "at": row.at,
        "scores": scores,
        "opinions": [Opinion.model_validate(one) for one in row.opinions],
    }


def _series(row: models.Series) -> dict[str, Any]:
    return {
        "series_uid": row.series_instance_uid,
        "study_uid": row.study_instance_uid,
        "scanner": row.scanner,
        "calling_ae": row.calling_ae,
        "state": row.state,
        "reason": row.reason,
        "revision": row.revision,
        "instances": row.instance_count,
        "first_received_at": row.first_received_at,
        "last_received_at": row.last_received_at,
    }
