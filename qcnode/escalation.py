"""The unit of work that calls somebody else when a verdict stays unanswered."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from qcnode.config import Settings
from qcnode.delivery import notify
from qcnode.ledger.store import Store
from qcnode.wording import Occasion


def escalate_once(store: Store, folder: Path, settings: Settings, now: datetime) -> int:
    """Put an alert into the outbox for each verdict that waited too long for an answer; returns how many."""
    escalated = 0
    for one in store.escalations.due(settings.escalations(), now):
        alert = settings.alert_names()[one.destination]
        sops = [one.sop_instance_uid] if one.sop_instance_uid else []
        occasion = Occasion(
            series_uid=one.series_uid,
            verdict=one.verdict,
            plane=one.plane,
            at=one.at,
            scanner=one.calling_ae,
            accession_number=notify.accession_number(settings.alerting, folder, one.series_uid, sops),
            unanswered_minutes=max(1, round(alert.after_minutes or 0)),
        )
        title, body = notify.message(settings.alerting, occasion)
        escalated += store.escalations.escalate(one, title, body, now)
    return escalated
