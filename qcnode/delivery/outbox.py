"""The outbox: which deliveries an assessment calls for, when the next attempt is due, and one turn of one destination.

Each destination has its turns to itself, so one that is down or slow holds up no other. A document is marked by its own
answer; sent again after a crash, it is the same object under the same UID.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from qcnode.config import Alert, Destination, Settings
from qcnode.delivery.outcome import ACCEPTED, Answer, Outcome
from qcnode.errors import PermanentError, TransientError
from qcnode.ledger.records import DueDelivery
from qcnode.ledger.store import Store
from qcnode.verdict import Decision

log = logging.getLogger("qcnode.delivery")

ALERT = "alert"
FIRST_PAUSE = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(minutes=15)
MAX_UNREACHABLE = 680  # attempts: a week of pauses, so that a long weekend costs nothing
MAX_REFUSALS = 8  # attempts: about ten minutes of pauses, so that an archive's restart costs nothing
BATCH = 50  # documents over one association

Sender = Callable[[Sequence[DueDelivery]], Sequence[Outcome]]


def deliveries(
    decision: Decision,
    kinds: Collection[str],
    calling_ae: str,
    destinations: Iterable[Destination],
    alerts: Mapping[str, Alert],
) -> list[tuple[str, str]]:
    """(document kind, destination) for a series that `calling_ae` sent; `kinds` are those of the documents made."""
    documents = [
        (kind, destination.name)
        for destination in destinations
        if not destination.from_ae or calling_ae in destination.from_ae
        for kind in destination.send
        if kind in kinds
    ]
    return list(dict.fromkeys(documents)) + [(ALERT, name) for name, alert in alerts.items() if decision in alert.on]


def pause(attempt: int, generator: random.Random) -> timedelta:
    """How long to wait after the attempt of this number, from 1: doubling up to a cap, less up to a fifth by chance.

    Chance keeps documents that failed together from coming back together.
    """
    doubled = FIRST_PAUSE * 2.0 ** min(attempt - 1, 10)
    return min(doubled, LONGEST_PAUSE) * generator.uniform(0.8, 1.0)


def deliver_once(store: Store, name: str, sender: Sender, now: datetime, generator: random.Random) -> int:
    """One turn of one destination: a batch of what is due, each marked by its own answer; how many were due."""
    due = store.deliveries.due(name, now, BATCH)
    if not due:
        return 0
    outcomes = list(zip(due, sender(due), strict=True))
    accepted = [delivery for delivery, outcome in outcomes if outcome.answer is Answer.ACCEPTED]
    for delivery in accepted:
        store.deliveries.mark_sent(delivery.id, now)
    if accepted:
        store.deliveries.hasten(name, now)
    failed = [(d, outcome) for d, outcome in outcomes if outcome.answer in (Answer.UNREACHABLE, Answer.REFUSED)]
    for delivery, outcome in failed:
        _put_off(store, delivery, outcome, now, generator)
    if failed:
        log.warning("put_off destination=%s documents=%d error=%r", name, len(failed), failed[0][1].error)
    return len(due)


def senders(settings: Settings, folder: Path) -> dict[str, Sender]:
    """How each destination and each alert is sent to, by its name; documents' paths are relative to `folder`."""
    # Imported where they are used: reading the outbox's rules needs neither pynetdicom nor Apprise.
    from qcnode.delivery import dicom, notify

    def to_destination(destination: Destination) -> Sender:
        def send(due: Sequence[DueDelivery]) -> Sequence[Outcome]:
            documents = [folder / str(delivery.path) for delivery in due]
            return dicom.send(documents, destination, settings.dicom.ae_title)

        return send

    def to_alert(alert: Alert) -> Sender:
        def send_one(delivery: DueDelivery) -> Outcome:
            try:
                notify.notify(alert.url, delivery.title or "", delivery.body or "")
            except TransientError as error:
                return Outcome(Answer.UNREACHABLE, str(error))
            except PermanentError as error:
                return Outcome(Answer.REFUSED, str(error))
            return ACCEPTED

        return lambda due: [send_one(delivery) for delivery in due]

    to_people = {name: to_alert(alert) for name, alert in settings.alert_names().items()}
    return {destination.name: to_destination(destination) for destination in settings.destinations} | to_people


def _put_off(store: Store, delivery: DueDelivery, outcome: Outcome, now: datetime, generator: random.Random) -> None:
    refused = outcome.answer is Answer.REFUSED
    attempts, refusals = delivery.attempts + 1, delivery.refusals + refused
    if refusals >= MAX_REFUSALS or attempts >= MAX_UNREACHABLE:
        store.deliveries.mark_dead(delivery.id, outcome.error, now)
    else:
        # A refusal's pause grows with the refusals: attempts on a peer that was down say nothing about the document.
        due_at = now + pause(refusals if refused else attempts, generator)
        store.deliveries.mark_later(delivery.id, due_at, outcome.error, refused=refused)
