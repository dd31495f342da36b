"""The outbox: which deliveries an assessment calls for, when the next attempt is due, and one turn of one destination.

Each destination has its turns to itself, so one that is down or slow holds up no other. A document is marked by its own
answer; sent again after a crash, it is the same object under the same UID.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from qcnode.config import Alert, Destination, Settings
from qcnode.delivery.outcome import Answer, Outcome
from qcnode.errors import TransientError
from qcnode.intake.spool import instance_path
from qcnode.ledger.deliveries import IMAGES
from qcnode.ledger.records import DueDelivery, Forwarding, Settlement
from qcnode.ledger.store import Store
from qcnode.states import LONGEST_PAUSE, DeliveryState
from qcnode.verdict import Decision

__all__ = ["LONGEST_PAUSE", "deliver_once", "deliveries", "escalations", "forwardings", "pause", "senders"]

log = logging.getLogger("qcnode.delivery")

ALERT = "alert"
FIRST_PAUSE = timedelta(seconds=5)
MAX_UNREACHABLE = 680  # attempts: a week of pauses, so that a long weekend costs nothing
MAX_REFUSALS = 8  # attempts: about ten minutes of pauses, so that an archive's restart costs nothing
BATCH = 100  # objects over one association; each may need a presentation context, of which there are 128
TURN_SECONDS = 2.0  # then the rest of a batch is left for the next: a report never waits for long behind many images
SETTLE_TRIES = 4  # each waits for the ledger for a minute at the most

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
        if not destination.verdicts or decision in destination.verdicts
        for kind in destination.send
        if kind in kinds
    ]
    told = [(ALERT, name) for name, alert in alerts.items() if decision in alert.on and alert.after_minutes is None]
    return list(dict.fromkeys(documents)) + told


def escalations(decision: Decision, alerts: Mapping[str, Alert]) -> list[str]:
    """Who is told unless somebody answers the verdict first."""
    return [name for name, alert in alerts.items() if decision in alert.on and alert.after_minutes is not None]


def forwardings(destinations: Iterable[Destination], decision: Decision | None = None) -> list[Forwarding]:
    """Who gets a series' images as soon as it is complete; with its verdict: who gets them because of that."""
    return [
        Forwarding(destination.name, destination.ae_title, destination.from_ae)
        for destination in destinations
        if IMAGES in destination.send
        if (decision in destination.verdicts if decision else not destination.verdicts)
    ]


def pause(attempt: int, generator: random.Random) -> timedelta:
    """How long to wait after the attempt of this number, from 1: doubling up to a cap, less up to a fifth by chance.

    Chance keeps documents that failed together from coming back together.
    """
    doubled = FIRST_PAUSE * 2.0 ** min(attempt - 1, 10)
    return min(doubled, LONGEST_PAUSE) * generator.uniform(0.8, 1.0)


def deliver_once(store: Store, name: str, sender: Sender, now: datetime, generator: random.Random) -> int:
    """One turn of one destination: a batch of what is due, each marked by its own answer; how many were due.

    0 too where the sender tried none of them: another turn at once would be in vain.
    """
    due = store.deliveries.due(name, now, BATCH)
    if not due:
        return 0
    began = time.monotonic()
    outcomes = list(zip(due, sender(due), strict=True))
    ended = now + timedelta(seconds=time.monotonic() - began)  # a pause begins when the attempt has ended
    tried = [(delivery, outcome) for delivery, outcome in outcomes if outcome.answer is not Answer.UNTRIED]
    settled = [_settlement(delivery, outcome, ended, generator) for delivery, outcome in tried]
    _settle_patiently(store, name, settled, ended)
    if any(settlement.state is DeliveryState.SENT for settlement in settled):
        store.deliveries.hasten(name, now)
    elif tried and all(outcome.answer is Answer.UNREACHABLE for _, outcome in tried):
        # It is down: one attempt for all that waits, not one for each.
        store.deliveries.defer(name, max(settlement.due_at or ended for settlement in settled))
    if failed := [outcome.error for _, outcome in outcomes if outcome.error]:
        log.warning("put_off destination=%s documents=%d error=%r", name, len(failed), failed[0])
    return len(due) if tried else 0


def senders(settings: Settings, folder: Path, stopping: Callable[[], bool] = lambda: False) -> dict[str, Sender]:
    """How each destination and each alert is sent to, by its name; documents and images lie in the state folder.

    A turn leaves off between two objects once it took TURN_SECONDS, or the node is `stopping`.
    """
    # Imported where they are used: reading the outbox's rules needs neither pynetdicom nor Apprise.
    from qcnode.delivery import dicom
    from qcnode.delivery.crowding import AlertSender

    def turn() -> Callable[[], bool]:
        until = time.monotonic() + TURN_SECONDS
        return lambda: stopping() or time.monotonic() >= until

    def sent(delivery: DueDelivery) -> Path | dicom.Image:
        if delivery.kind != IMAGES:
            return folder / str(delivery.path)
        path = instance_path(folder, delivery.series_uid, str(delivery.sop_instance_uid))
        return dicom.Image(path, str(delivery.sop_class_uid), str(delivery.transfer_syntax_uid))

    def to_destination(destination: Destination) -> Sender:
        return lambda due: dicom.send([sent(one) for one in due], destination, settings.dicom.ae_title, turn())

    to_people = {name: AlertSender(alert, turn) for name, alert in settings.alert_names().items()}
    return {destination.name: to_destination(destination) for destination in settings.destinations} | to_people


def _settlement(delivery: DueDelivery, outcome: Outcome, ended: datetime, generator: random.Random) -> Settlement:
    """What the answer makes of the delivery."""
    if outcome.answer is Answer.ACCEPTED:
        return Settlement(delivery.id, DeliveryState.SENT)
    refused = outcome.answer in (Answer.REFUSED, Answer.BROKEN)
    attempts, refusals = delivery.attempts + 1, delivery.refusals + refused
    if attempts >= MAX_UNREACHABLE or (outcome.answer is Answer.REFUSED and refusals >= MAX_REFUSALS):
        return Settlement(delivery.id, DeliveryState.DEAD, outcome.error, refused=refused)
    # A refusal's pause grows with the refusals: attempts on a peer that was down say nothing about the document.
    due_at = ended + pause(refusals if refused else attempts, generator)
    return Settlement(delivery.id, DeliveryState.PENDING, outcome.error, due_at, refused)


def _settle_patiently(store: Store, name: str, settled: Sequence[Settlement], ended: datetime) -> None:
    """Settle, again if need be: what was accepted is not sent once more because another process held the ledger."""
    for tries_left in range(SETTLE_TRIES, 0, -1):
        try:
            store.deliveries.settle(settled, ended)
            return
        except TransientError as error:
            log.warning("settling_postponed destination=%s why=%r", name, str(error))
            if tries_left == 1:
                raise
