"""What people look at: the series with their verdicts, documents and deliveries, ready to be shown.

The rows come detached, with everything named here loaded; they are for reading only.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import exists, func, select
from sqlalchemy.orm import contains_eager, selectinload, with_expression
from sqlalchemy.orm.interfaces import ORMOption

from qcnode.ledger.counters import Counters, counters
from qcnode.ledger.database import Database
from qcnode.ledger.deliveries import IMAGES
from qcnode.ledger.models import AssessmentRow, Delivery, DocumentRow, Event, Instance, Opinion, Series
from qcnode.ledger.records import Forwarded
from qcnode.people import Word
from qcnode.states import DeliveryState, State
from qcnode.verdict import Decision

_UNUSUAL = ("association_aborted", "association_rejected")


class Overview:
    """Reads the ledger for `qcnode status` and the page."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def recent(self, limit: int = 50) -> list[Series]:
        """The series that received an instance last, newest first, with their assessments and instance counts."""
        with self._database.reading() as session:
            query = select(Series).options(*_with_assessments()).order_by(Series.last_received_at.desc()).limit(limit)
            return list(session.scalars(query))

    def detail(self, series_uid: str) -> Series | None:
        """One series with its instances and its events as well; None when the ledger does not know it."""
        also = (selectinload(Series.instances), selectinload(Series.events))
        with self._database.reading() as session:
            return session.get(Series, series_uid, options=(*_with_assessments(), *also))

    def planes(self, series_uid: str, revision: int) -> str | None:
        """The file of the revision's three planes, relative to the state folder; None where it has none."""
        of_revision = (AssessmentRow.series_uid == series_uid, AssessmentRow.revision == revision)
        with self._database.reading() as session:
            return session.scalar(select(AssessmentRow.planes).where(*of_revision))

    def forwarded(self, series_uid: str) -> list[Forwarded]:
        """Where the series' images go, and how far they are; in the order of the destinations' names."""
        images = (Delivery.series_uid == series_uid, Delivery.kind == IMAGES)
        counted = select(Delivery.destination, Delivery.state, func.count(), func.max(Delivery.sent_at))
        why = select(Delivery.destination, Delivery.error).where(
            *images, Delivery.error.is_not(None), Delivery.state != DeliveryState.SENT
        )
        with self._database.reading() as session:
            ways: dict[str, dict[DeliveryState, tuple[int, datetime | None]]] = {}
            for destination, state, count, last in session.execute(
                counted.where(*images).group_by(Delivery.destination, Delivery.state).order_by(Delivery.destination)
            ):
                ways.setdefault(destination, {})[state] = (count, last)
            by_time = why.group_by(Delivery.destination, Delivery.error).order_by(func.max(Delivery.due_at))
            errors = {row.destination: row.error for row in session.execute(by_time)}  # the latest comes last
        none = (0, None)
        return [
            Forwarded(
                destination,
                sent=way.get(DeliveryState.SENT, none)[0],
                waiting=way.get(DeliveryState.PENDING, none)[0],
                dead=way.get(DeliveryState.DEAD, none)[0],
                last_sent_at=way.get(DeliveryState.SENT, none)[1],
                error=errors.get(destination),
            )
            for destination, way in ways.items()
        ]

    def counts(self) -> dict[State, int]:
        """How many series stand in each state."""
        return self.counters().series

    def counters(self) -> Counters:
        """How much of everything there is."""
        with self._database.reading() as session:
            return counters(session)

    def dead_letters(self, limit: int = 100) -> list[tuple[Delivery, int]]:
        """What nobody took: of each series, destination, kind and reason one delivery, and how many are like it."""
        like = (Delivery.destination, Delivery.kind, Delivery.series_uid, Delivery.error)
        dead = select(func.max(Delivery.id).label("id"), func.count().label("count"))
        alike = dead.where(Delivery.state == DeliveryState.DEAD).group_by(*like).subquery()
        newest = select(Delivery, alike.c.count).join(alike, Delivery.id == alike.c.id).order_by(Delivery.id.desc())
        with self._database.reading() as session:
            return [(delivery, count) for delivery, count in session.execute(newest.limit(limit))]

    def rescans(self, limit: int = 3) -> tuple[int, list[AssessmentRow]]:
        """How many verdicts say rescan and nobody has acknowledged, and the latest of them with their series."""
        acknowledged = exists().where(Opinion.assessment_id == AssessmentRow.id, Opinion.word == Word.ACKNOWLEDGED)
        waiting = (
            select(AssessmentRow)
            .join(AssessmentRow.series)
            .where(AssessmentRow.decision == Decision.RESCAN, AssessmentRow.revision == Series.revision)
            .where(Series.state == State.ASSESSED, ~acknowledged)
        )
        latest = waiting.options(contains_eager(AssessmentRow.series)).order_by(AssessmentRow.id.desc()).limit(limit)
        with self._database.reading() as session:
            count = session.scalar(select(func.count()).select_from(waiting.subquery())) or 0
            return count, list(session.scalars(latest)) if count else []

    def version(self) -> tuple[object, ...]:
        """Another one after each event and each arrival; two look-ups in indexes, however much there is."""
        last = (
            select(func.max(Event.id)).scalar_subquery(),
            select(func.max(Series.last_received_at)).scalar_subquery(),
        )
        with self._database.reading() as session:
            return tuple(session.execute(select(*last)).one())

    def events(self, limit: int = 100) -> list[Event]:
        """What happened last, newest first."""
        with self._database.reading() as session:
            return list(session.scalars(select(Event).order_by(Event.id.desc()).limit(limit)))

    def unusual_associations(self, limit: int) -> list[Event]:
        """The associations that were refused or broken off last, newest first."""
        of_none = select(Event).where(Event.series_uid.is_(None), Event.kind.in_(_UNUSUAL))
        with self._database.reading() as session:
            return list(session.scalars(of_none.order_by(Event.id.desc()).limit(limit)))


def counting_instances() -> ORMOption:
    """Have a query of series fill in `instance_count`."""
    of_series = select(func.count()).where(Instance.series_uid == Series.series_instance_uid)
    return with_expression(Series.instance_count, of_series.correlate(Series).scalar_subquery())


def _with_assessments() -> tuple[ORMOption, ...]:
    assessments = selectinload(Series.assessments)
    return (
        counting_instances(),
        assessments.selectinload(AssessmentRow.scores),
        assessments.selectinload(AssessmentRow.opinions),
        assessments.selectinload(AssessmentRow.documents).selectinload(DocumentRow.deliveries),
    )
