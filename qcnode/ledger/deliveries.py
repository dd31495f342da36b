"""The outbox's part of the ledger: which document is due where, and what became of it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CursorResult, func, select, update
from sqlalchemy.orm import Session

from qcnode.ledger.database import Database, record
from qcnode.ledger.models import AssessmentRow, Delivery, DocumentRow
from qcnode.ledger.records import DueDelivery
from qcnode.states import DeliveryState


class Deliveries:
    """One row for each document and destination; a row that is not pending is never touched by a sender."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, destination: str, now: datetime, limit: int = 100) -> list[DueDelivery]:
        """What the destination should be sent now, what waits longest first."""
        with self._database.reading() as session:
            rows = session.execute(
                select(Delivery, DocumentRow, AssessmentRow.series_uid)
                .join(DocumentRow, Delivery.document_id == DocumentRow.id)
                .join(AssessmentRow, DocumentRow.assessment_id == AssessmentRow.id)
                .where(
                    Delivery.destination == destination,
                    Delivery.state == DeliveryState.PENDING,
                    Delivery.due_at <= now,
                )
                .order_by(Delivery.due_at, Delivery.id)
                .limit(limit)
            )
            return [
                DueDelivery(
                    id=delivery.id,
                    destination=delivery.destination,
                    attempts=delivery.attempts,
                    refusals=delivery.refusals,
                    series_uid=series_uid,
                    kind=document.kind,
                    sop_instance_uid=document.sop_instance_uid,
                    path=document.path,
                    title=document.title,
                    body=document.body,
                )
                for delivery, document, series_uid in rows
            ]

    def mark_sent(self, delivery_id: int, now: datetime) -> None:
        """PENDING → SENT: the destination accepted it."""
        with self._database.writing() as session:
            if delivery := _pending(session, delivery_id):
                delivery.state, delivery.sent_at, delivery.error = DeliveryState.SENT, now, None
                delivery.attempts += 1
                _record(session, delivery, "delivered", now)

    def mark_later(self, delivery_id: int, due_at: datetime, error: str, *, refused: bool = False) -> None:
        """PENDING → PENDING, due again at `due_at`; `refused` when the destination answered, and the answer was no."""
        with self._database.writing() as session:
            if delivery := _pending(session, delivery_id):
                delivery.due_at, delivery.error = due_at, error
                delivery.attempts += 1
                delivery.refusals += refused

    def mark_dead(self, delivery_id: int, error: str, now: datetime) -> None:
        """PENDING → DEAD: nobody tries again until a person says so."""
        with self._database.writing() as session:
            if delivery := _pending(session, delivery_id):
                delivery.state, delivery.error = DeliveryState.DEAD, error
                delivery.attempts += 1
                _record(session, delivery, "undeliverable", now)

    def hasten(self, destination: str, now: datetime) -> int:
        """The destination is back: what only waited for that is due now. Refused documents keep their pause."""
        with self._database.writing() as session:
            return _changed(
                session.execute(
                    update(Delivery)
                    .where(
                        Delivery.destination == destination,
                        Delivery.state == DeliveryState.PENDING,
                        Delivery.refusals == 0,
                        Delivery.due_at > now,
                    )
                    .values(due_at=now)
                )
            )

    def revive(self, now: datetime, series_uid: str | None = None) -> int:
        """DEAD → PENDING, of one series or of all, with attempts from 0; how many."""
        with self._database.writing() as session:
            return revive(session, now, series_uid)

    def counts(self) -> dict[DeliveryState, int]:
        """How many deliveries stand in each state."""
        with self._database.reading() as session:
            rows = session.execute(select(Delivery.state, func.count()).group_by(Delivery.state))
            return dict.fromkeys(DeliveryState, 0) | {row[0]: row[1] for row in rows}

    def next_due(self) -> datetime | None:
        """When the next pending delivery is due; None when none is pending."""
        with self._database.reading() as session:
            return session.scalar(select(func.min(Delivery.due_at)).where(Delivery.state == DeliveryState.PENDING))


def revive(session: Session, now: datetime, series_uid: str | None) -> int:
    """DEAD → PENDING within the caller's transaction."""
    dead = select(Delivery).where(Delivery.state == DeliveryState.DEAD).with_for_update()
    if series_uid is not None:
        dead = dead.join(DocumentRow).join(AssessmentRow).where(AssessmentRow.series_uid == series_uid)
    deliveries = session.scalars(dead).all()
    for delivery in deliveries:
        delivery.state, delivery.due_at = DeliveryState.PENDING, now
        delivery.attempts = delivery.refusals = 0
        _record(session, delivery, "revived", now)
    return len(deliveries)


def _pending(session: Session, delivery_id: int) -> Delivery | None:
    delivery = session.get(Delivery, delivery_id, with_for_update=True)
    return delivery if delivery is not None and delivery.state is DeliveryState.PENDING else None


def _record(session: Session, delivery: Delivery, kind: str, now: datetime) -> None:
    document, series_uid = session.execute(
        select(DocumentRow, AssessmentRow.series_uid).join(AssessmentRow).where(DocumentRow.id == delivery.document_id)
    ).one()
    detail = {"document": document.kind, "destination": delivery.destination, "attempts": delivery.attempts}
    if delivery.error:
        detail["error"] = delivery.error
    record(session, kind, series_uid, detail, now)


def _changed(result: object) -> int:
    return result.rowcount if isinstance(result, CursorResult) else 0
