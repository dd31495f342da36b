"""The ledger's tables: what arrived, what was made of it, where that went, and everything that happened."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    Double,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, query_expression, relationship
from sqlalchemy.types import TypeDecorator

from qcnode.artifacts import Artifact, Plane
from qcnode.people import Role, Word
from qcnode.states import DeliveryState, State, StepState
from qcnode.verdict import Decision


class Instant(TypeDecorator[datetime]):
    """A moment in UTC, aware on both sides; SQLite keeps no time zone, so it is put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The moment in UTC; ValueError for a naive one."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("the ledger takes moments with a time zone only")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """The moment with its time zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _words(of: type[StrEnum]) -> Enum:
    """A column that holds the enumeration's values as plain words, so that a new member needs no migration."""
    return Enum(
        of, native_enum=False, create_constraint=False, length=16, values_callable=lambda e: [m.value for m in e]
    )


class Row(DeclarativeBase):
    """A table of the ledger; a relationship that a query did not load raises instead of asking again."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: Instant,
        float: Double,
        dict[str, Any]: JSON,
        list[str]: JSON,
        list[int]: JSON(none_as_null=True),
        **{words: _words(words) for words in (State, DeliveryState, StepState, Decision, Artifact, Plane, Role, Word)},
    }


class Series(Row):
    """A series and where it stands; `revision` counts the sets of instances that it was assessed as, from 1."""

    __tablename__ = "series"
    __table_args__ = (
        Index(None, "state", "state_since"),
        Index(None, "last_received_at"),
        Index(None, "scanner", "last_received_at"),
    )

    series_instance_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    study_instance_uid: Mapped[str | None] = mapped_column(String(64))
    state: Mapped[State]
    state_since: Mapped[datetime]
    revision: Mapped[int]
    attempts: Mapped[int]  # claims of this revision
    not_before: Mapped[datetime | None]  # when the next attempt is due, after one that failed
    reason: Mapped[str | None] = mapped_column(Text)  # why it is excluded or failed, or what its last attempt met
    complete_why: Mapped[str | None] = mapped_column(Text)
    calling_ae: Mapped[str] = mapped_column(String(16))
    scanner: Mapped[str] = mapped_column(String(96))  # the sender, and the device's serial number where it is known
    first_received_at: Mapped[datetime]
    last_received_at: Mapped[datetime]

    instance_count: Mapped[int] = query_expression()
    instances: Mapped[list[Instance]] = relationship(lazy="raise", order_by="Instance.sop_instance_uid")
    assessments: Mapped[list[AssessmentRow]] = relationship(
        lazy="raise", order_by="AssessmentRow.revision.desc()", back_populates="series"
    )
    events: Mapped[list[Event]] = relationship(
        lazy="raise",
        order_by="Event.id",
        viewonly=True,
        primaryjoin="foreign(Event.series_uid) == Series.series_instance_uid",
    )

    @property
    def latest(self) -> AssessmentRow | None:
        """The newest assessment; one of an earlier revision while a late instance's is still to come."""
        return self.assessments[0] if self.assessments else None


class Instance(Row):
    """An instance in the spool; one SOP Instance UID may stand in two series, so both UIDs are the key."""

    __tablename__ = "instance"
    __table_args__ = (
        Index(
            None,
            "series_uid",
            "sop_instance_uid",
            sqlite_where=text("removed_at IS NULL"),
            postgresql_where=text("removed_at IS NULL"),
        ),
    )

    series_uid: Mapped[str] = mapped_column(ForeignKey("series.series_instance_uid"), primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    transfer_syntax_uid: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)  # bytes
    received_at: Mapped[datetime]
    calling_ae: Mapped[str] = mapped_column(String(16))
    facts: Mapped[dict[str, Any]]
    removed_at: Mapped[datetime | None]  # retention took its file from the spool


class Tally(Row):
    """How many rows of a table there are of one kind; the database itself keeps it, and nobody else writes it.

    On SQLite a table that triggers keep, on others a view. A migration that makes one of the counted tables anew drops
    its triggers with it: it has to make those anew too.
    """

    __tablename__ = "tally"

    counted: Mapped[str] = mapped_column(String(16), primary_key=True)  # instance, series, assessment, delivery
    word: Mapped[str] = mapped_column(String(16), primary_key=True)  # the state or the decision, else empty
    destination: Mapped[str] = mapped_column(String(40), primary_key=True)  # of deliveries, else empty
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)  # of deliveries, else empty
    rows: Mapped[int]


class AssessmentRow(Row):
    """The verdict on one revision of a series, and what it rests on."""

    __tablename__ = "assessment"
    __table_args__ = (UniqueConstraint("series_uid", "revision"), Index(None, "decision"))

    id: Mapped[int] = mapped_column(primary_key=True)
    series_uid: Mapped[str] = mapped_column(ForeignKey("series.series_instance_uid"))
    revision: Mapped[int]
    decision: Mapped[Decision]
    reasons: Mapped[list[str]]
    plane: Mapped[Plane | None]
    ensemble: Mapped[str] = mapped_column(String(128))
    seconds: Mapped[dict[str, Any]]
    at: Mapped[datetime]
    predecessor_uid: Mapped[str | None] = mapped_column(String(64))  # the report that this one supersedes

    series: Mapped[Series] = relationship(lazy="raise", back_populates="assessments")
    scores: Mapped[list[ScoreRow]] = relationship(lazy="raise", order_by="ScoreRow.id")
    documents: Mapped[list[DocumentRow]] = relationship(
        lazy="raise", order_by="DocumentRow.id", back_populates="assessment"
    )
    opinions: Mapped[list[Opinion]] = relationship(lazy="raise", order_by="Opinion.id", back_populates="assessment")
    escalations: Mapped[list[Escalation]] = relationship(lazy="raise")

    @property
    def acknowledged_by(self) -> list[str]:
        """The people who have seen it, the first one first."""
        return [opinion.by for opinion in self.opinions if opinion.word is Word.ACKNOWLEDGED]

    @property
    def rejected_by(self) -> str | None:
        """Who rejected the images of this revision; None when nobody did."""
        return next((opinion.by for opinion in self.opinions if opinion.word is Word.REJECTED), None)


class ScoreRow(Row):
    """One artifact's severity and the probability of severities 0, 1 and 2."""

    __tablename__ = "score"
    __table_args__ = (
        UniqueConstraint("assessment_id", "artifact"),
        Index(
            None, "assessment_id", "artifact", sqlite_where=text("severity > 0"), postgresql_where=text("severity > 0")
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    assessment_id: Mapped[int] = mapped_column(ForeignKey("assessment.id"))
    artifact: Mapped[Artifact]
    severity: Mapped[int]
    p0: Mapped[float]
    p1: Mapped[float]
    p2: Mapped[float]
    slices: Mapped[list[int] | None]  # as Grade.slices has them; None in rows of earlier versions


class Opinion(Row):
    """What a person said of the verdict on one revision; rows are added, never changed or removed."""

    __tablename__ = "opinion"
    __table_args__ = (Index(None, "assessment_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    assessment_id: Mapped[int] = mapped_column(ForeignKey("assessment.id"))
    at: Mapped[datetime]
    by: Mapped[str] = mapped_column(String(40))  # no foreign key: a word outlives the account of who said it
    word: Mapped[Word]
    artifact: Mapped[Artifact | None]  # of a correction
    severity: Mapped[int | None]  # what the person grades it

    assessment: Mapped[AssessmentRow] = relationship(lazy="raise", back_populates="opinions")


class ShadowAssessment(Row):
    """What weights on trial say of the images of an assessment; nothing that is reported looks at it."""

    __tablename__ = "shadow_assessment"
    __table_args__ = (UniqueConstraint("assessment_id", "ensemble"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    assessment_id: Mapped[int] = mapped_column(ForeignKey("assessment.id"))
    ensemble: Mapped[str] = mapped_column(String(128))
    at: Mapped[datetime]
    decision: Mapped[Decision | None]  # what the policy would have made of its grades
    reason: Mapped[str | None] = mapped_column(Text)  # why it has none

    scores: Mapped[list[ShadowScore]] = relationship(lazy="raise", order_by="ShadowScore.id")


class ShadowScore(Row):
    """One artifact's severity by weights on trial, and the probability of severities 0, 1 and 2."""

    __tablename__ = "shadow_score"
    __table_args__ = (UniqueConstraint("shadow_assessment_id", "artifact"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    shadow_assessment_id: Mapped[int] = mapped_column(ForeignKey("shadow_assessment.id"))
    artifact: Mapped[Artifact]
    severity: Mapped[int]
    p0: Mapped[float]
    p1: Mapped[float]
    p2: Mapped[float]


class Escalation(Row):
    """An address that is told of a verdict unless somebody answers it; the row goes once that is settled."""

    __tablename__ = "escalation"

    assessment_id: Mapped[int] = mapped_column(ForeignKey("assessment.id"), primary_key=True)
    destination: Mapped[str] = mapped_column(String(40), primary_key=True)
    since: Mapped[datetime]  # from when the time for an answer counts


class DocumentRow(Row):
    """What was made for others to read: a DICOM file (class, UID, path) or an alert (title, body)."""

    __tablename__ = "document"
    __table_args__ = (Index(None, "assessment_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    assessment_id: Mapped[int] = mapped_column(ForeignKey("assessment.id"))
    kind: Mapped[str] = mapped_column(String(16))  # report, flag, capture, rejection, alert
    sop_class_uid: Mapped[str | None] = mapped_column(String(64))
    sop_instance_uid: Mapped[str | None] = mapped_column(String(64), unique=True)
    path: Mapped[str | None] = mapped_column(Text)  # relative to the state folder
    title: Mapped[str | None] = mapped_column(Text)
    body: Mapped[str | None] = mapped_column(Text)

    assessment: Mapped[AssessmentRow] = relationship(lazy="raise", back_populates="documents")
    deliveries: Mapped[list[Delivery]] = relationship(lazy="raise", order_by="Delivery.id", back_populates="document")


class Delivery(Row):
    """The way of one document or one received image to one destination, or of one alert to its address."""

    __tablename__ = "delivery"
    __table_args__ = (
        UniqueConstraint("document_id", "destination"),
        UniqueConstraint("series_uid", "sop_instance_uid", "destination"),
        ForeignKeyConstraint(["series_uid", "sop_instance_uid"], ["instance.series_uid", "instance.sop_instance_uid"]),
        Index(None, "state", "destination", "kind", "due_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    series_uid: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16))  # the document's, or images
    document_id: Mapped[int | None] = mapped_column(ForeignKey("document.id"))  # of a document or an alert
    sop_instance_uid: Mapped[str | None] = mapped_column(String(64))  # of a received image
    destination: Mapped[str] = mapped_column(String(40))
    state: Mapped[DeliveryState]
    attempts: Mapped[int]
    refusals: Mapped[int]  # attempts that the destination answered with a refusal of this document
    due_at: Mapped[datetime]
    sent_at: Mapped[datetime | None]
    error: Mapped[str | None] = mapped_column(Text)

    document: Mapped[DocumentRow | None] = relationship(lazy="raise", back_populates="deliveries")


class PerformedStep(Row):
    """A modality's performed procedure step (MPPS); of what it says, only UIDs are kept."""

    __tablename__ = "performed_step"

    sop_instance_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    state: Mapped[StepState]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]  # None while it is in progress

    series: Mapped[list[PerformedSeries]] = relationship(
        lazy="raise", order_by="PerformedSeries.series_uid", cascade="all, delete-orphan", back_populates="step"
    )


class PerformedSeries(Row):
    """The instances that a step says a series has, by UID alone: the word may come before the images."""

    __tablename__ = "performed_series"
    __table_args__ = (Index(None, "series_uid"),)

    step_uid: Mapped[str] = mapped_column(ForeignKey("performed_step.sop_instance_uid"), primary_key=True)
    series_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    sop_instance_uids: Mapped[list[str]]

    step: Mapped[PerformedStep] = relationship(lazy="raise", back_populates="series")


class Event(Row):
    """Something that happened; rows are added, never changed or removed."""

    __tablename__ = "event"
    __table_args__ = (Index(None, "series_uid"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(40))
    series_uid: Mapped[str | None] = mapped_column(String(64))  # no foreign key: the event may come before its series
    detail: Mapped[dict[str, Any]]


class Account(Row):
    """A person who may log in at the page."""

    __tablename__ = "account"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    role: Mapped[Role]
    password_hash: Mapped[str] = mapped_column(Text)
    added_at: Mapped[datetime]


class Login(Row):
    """A browser that an account is logged in with; the ledger keeps its token's digest, not the token."""

    __tablename__ = "login"
    __table_args__ = (Index(None, "account_name"),)

    token_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    account_name: Mapped[str] = mapped_column(ForeignKey("account.name"))
    began_at: Mapped[datetime]
    ends_at: Mapped[datetime]


class Token(Row):
    """What another program shows instead of a login; the ledger keeps its digest, not the token."""

    __tablename__ = "token"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    role: Mapped[Role]
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    added_at: Mapped[datetime]
