"""The outbox's part of the ledger: which document or image is due where, and what became of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, Row, Select, Update, func, insert, literal, select, update
from sqlalchemy.orm import Session, aliased

from qcnode.ledger.counters import counters
from qcnode.ledger.database import Database, record
from qcnode.ledger.models import Delivery, DocumentRow, Instance, Instant
from qcnode.ledger.records import DueDelivery, Forwarding, Settlement
from qcnode.states import LONGEST_PAUSE, DeliveryState

IMAGES = "images"  # the kind of a delivery of a received image
DOCUMENTS = ("report", "flag", "capture", "rejection", "alert")


class Deliveries:
    """One row for each document or image and destination; a row that is not pending is never touched by a sender."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, destination: str, now: datetime, limit: int = 100) -> list[DueDelivery]:
        """What the destination should be sent now: documents before images, then what waits longest first."""
        found: list[DueDelivery] = []
        with self._database.reading() as session:
            for query in _due(destination, now):
                if len(found) < limit:
                    found += map(_handed_out, session.execute(query.limit(limit - len(found))))
        return found

    def settle(self, settlements: Iterable[Settlement], now: datetime) -> None:
        """Write down what the attempts of one turn made of their deliveries; one transaction."""
        by_id = {settlement.delivery_id: settlement for settlement in settlements}
        with self._database.writing() as session:
            rows = session.scalars(
                select(Delivery)
                .where(Delivery.id.in_(by_id), Delivery.state == DeliveryState.PENDING)
                .order_by(Delivery.id)
                .with_for_update()
            ).all()
            for delivery in rows:
                made = by_id[delivery.id]
                delivery.state, delivery.error = made.state, made.error
                delivery.attempts += 1
                delivery.refusals += made.refused
                if made.state is DeliveryState.SENT:
                    delivery.sent_at = now
                delivery.due_at = made.due_at or delivery.due_at
            _record(session, "delivered", [row for row in rows if row.state is DeliveryState.SENT], now)
            _record(session, "undeliverable", [row for row in rows if row.state is DeliveryState.DEAD], now)

    def mark_sent(self, delivery_id: int, now: datetime) -> None:
        """PENDING → SENT: the destination accepted it."""
        self.settle([Settlement(delivery_id, DeliveryState.SENT)], now)

    def mark_later(self, delivery_id: int, due_at: datetime, error: str, *, refused: bool = False) -> None:
        """PENDING → PENDING, due again at `due_at`; `refused` when the destination answered, and the answer was no."""
        self.settle([Settlement(delivery_id, DeliveryState.PENDING, error, due_at, refused)], due_at)

    def mark_dead(self, delivery_id: int, error: str, now: datetime) -> None:
        """PENDING → DEAD: nobody tries again until a person says so."""
        self.settle([Settlement(delivery_id, DeliveryState.DEAD, error)], now)

    def defer(self, destination: str, until: datetime) -> int:
        """The destination is down: nothing that waits for it is due before; it counts as an attempt of each."""
        waiting = self._waiting(destination, Delivery.due_at < until)
        with self._database.writing() as session:
            return _changed(session.execute(waiting.values(due_at=until, attempts=Delivery.attempts + 1)))

    def hasten(self, destination: str, now: datetime) -> int:
        """The destination is back: what only waited for that is due now. What it refused keeps its pause."""
        with self._database.writing() as session:
            return _changed(session.execute(self._waiting(destination, Delivery.due_at > now).values(due_at=now)))

    def _waiting(self, destination: str, when: ColumnElement[bool]) -> Update:
        return update(Delivery).where(
            Delivery.destination == destination,
            Delivery.state == DeliveryState.PENDING,
            Delivery.kind.in_((*DOCUMENTS, IMAGES)),  # all there are: the index leads from the kind to the due time
            Delivery.refusals == 0,
            when,
        )

    def bury(self, destinations: Collection[str], now: datetime) -> int:
        """PENDING → DEAD for what is due to others than these: the configuration names them no more; how many."""
        with self._database.writing() as session:
            strays = session.scalars(
                select(Delivery)
                .where(Delivery.state == DeliveryState.PENDING, Delivery.destination.not_in(destinations))
                .order_by(Delivery.id)
                .with_for_update()
            ).all()
            for stray in strays:
                stray.state = DeliveryState.DEAD
                stray.error = "The configuration names it no more; name it again, then run: qcnode retry --dead"
            _record(session, "undeliverable", strays, now)
            return len(strays)

    def revive(self, now: datetime, series_uid: str | None = None) -> int:
        """DEAD → PENDING, of one series or of all, with attempts from 0; how many."""
        with self._database.writing() as session:
            return revive(session, now, series_uid)

    def counts(self) -> dict[DeliveryState, int]:
        """How many deliveries stand in each state."""
        with self._database.reading() as session:
            return counters(session).delivery_states

    def next_due(self) -> datetime | None:
        """When the next pending delivery is due; None when none is pending."""
        with self._database.reading() as session:
            return session.scalar(select(func.min(Delivery.due_at)).where(Delivery.state == DeliveryState.PENDING))


def forward(session: Session, series_uid: str, forwardings: Iterable[Forwarding], now: datetime) -> int:
    """Have the series' images delivered that are not yet on their way, within the caller's transaction; how many.

    One statement for a destination, however many images there are.
    """
    added = 0
    for to in forwardings:
        earlier = aliased(Delivery)
        on_its_way = select(earlier.id).where(
            earlier.series_uid == Instance.series_uid,
            earlier.sop_instance_uid == Instance.sop_instance_uid,
            earlier.destination == to.destination,
        )
        images = select(
            Instance.series_uid,
            literal(IMAGES),
            Instance.sop_instance_uid,
            literal(to.destination),
            literal(DeliveryState.PENDING, Delivery.state.type),
            literal(0),
            literal(0),
            literal(now, Instant()),
        ).where(
            Instance.series_uid == series_uid,
            Instance.removed_at.is_(None),
            Instance.calling_ae != to.ae_title,
            ~on_its_way.exists(),
        )
        if to.only_from:
            images = images.where(Instance.calling_ae.in_(to.only_from))
        columns = ["series_uid", "kind", "sop_instance_uid", "destination", "state", "attempts", "refusals", "due_at"]
        chosen = images.order_by(Instance.received_at, Instance.sop_instance_uid)
        added += _changed(session.execute(insert(Delivery).from_select(columns, chosen)))
    return added


def revive(session: Session, now: datetime, series_uid: str | None) -> int:
    """DEAD → PENDING within the caller's transaction."""
    dead = select(Delivery).where(Delivery.state == DeliveryState.DEAD).order_by(Delivery.id).with_for_update()
    if series_uid is not None:
        dead = dead.where(Delivery.series_uid == series_uid)
    deliveries = session.scalars(dead).all()
    for delivery in deliveries:
        delivery.state, delivery.due_at = DeliveryState.PENDING, now
        delivery.attempts = delivery.refusals = 0
    _record(session, "revived", deliveries, now)
    return len(deliveries)


def _due(destination: str, now: datetime) -> Iterator[Select[Delivery, Any]]:
    """The queries for what is due, in the order of their urgency; each reads one range of the index.

    A due time further off than any pause was set by a clock that has been set back since.
    """
    times: tuple[ColumnElement[bool], ...] = (Delivery.due_at <= now, Delivery.due_at > now + LONGEST_PAUSE)
    pending = (Delivery.destination == destination, Delivery.state == DeliveryState.PENDING)
    order = (Delivery.due_at, Delivery.id)
    for time in times:
        documents = select(Delivery, DocumentRow).join(DocumentRow, Delivery.document_id == DocumentRow.id)
        yield documents.where(*pending, Delivery.kind.in_(DOCUMENTS), time).order_by(*order)
    for time in times:
        images = select(Delivery, Instance).join(
            Instance,
            (Instance.series_uid == Delivery.series_uid) & (Instance.sop_instance_uid == Delivery.sop_instance_uid),
        )
        yield images.where(*pending, Delivery.kind == IMAGES, time).order_by(*order)


def _handed_out(row: Row[Delivery, Any]) -> DueDelivery:
    delivery: Delivery = row[0]
    what: DocumentRow | Instance = row[1]
    return DueDelivery(
        id=delivery.id,
        destination=delivery.destination,
        attempts=delivery.attempts,
        refusals=delivery.refusals,
        series_uid=delivery.series_uid,
        kind=delivery.kind,
        sop_instance_uid=what.sop_instance_uid,
        path=what.path if isinstance(what, DocumentRow) else None,
        title=what.title if isinstance(what, DocumentRow) else None,
        body=what.body if isinstance(what, DocumentRow) else None,
        sop_class_uid=what.sop_class_uid,
        transfer_syntax_uid=what.transfer_syntax_uid if isinstance(what, Instance) else None,
    )


def _record(session: Session, kind: str, deliveries: Sequence[Delivery], now: datetime) -> None:
    """One event for each document, and one for all images of a series that took the same way."""
    images: dict[tuple[str, str, str | None], int] = {}
    for delivery in deliveries:
        if delivery.kind == IMAGES:
            way = (delivery.series_uid, delivery.destination, delivery.error)
            images[way] = images.get(way, 0) + 1
            continue
        detail: dict[str, Any] = {
            "document": delivery.kind,
            "destination": delivery.destination,
            "attempts": delivery.attempts,
        }
        record(session, kind, delivery.series_uid, _with_error(detail, delivery.error), now)
    for (series_uid, destination, error), count in images.items():
        detail = {"document": IMAGES, "destination": destination, "instances": count}
        record(session, kind, series_uid, _with_error(detail, error), now)


def _with_error(detail: dict[str, Any], error: str | None) -> dict[str, Any]:
    return {**detail, "error": error} if error else detail


def _changed(result: object) -> int:
    return result.rowcount if isinstance(result, CursorResult) else 0
