"""What the ledger says (`qcnode status`), and the way back for a series (`qcnode retry`); the node may be running."""

from __future__ import annotations

from typing import Any

from qcnode.clock import utc_now
from qcnode.config import Settings
from qcnode.errors import ConfigError
from qcnode.ledger.models import Delivery, Series
from qcnode.ledger.store import Store


def snapshot(settings: Settings, limit: int) -> dict[str, Any]:
    """The latest series with their verdicts, how many there are in each state, dead letters, and all counters."""
    with _ledger(settings) as store:
        counters = store.overview.counters()
        return {
            "series": [_series(one) for one in store.overview.recent(limit)],
            "states": {state.value: count for state, count in counters.series.items() if count},
            "deliveries": {state.value: count for state, count in counters.delivery_states.items() if count},
            "dead_letters": [_dead_letter(one, count) for one, count in store.overview.dead_letters(limit)],
            "counters": counters.to_json(),
        }


def revive(settings: Settings) -> str:
    """Send every dead letter on its way again; returns how many."""
    with _ledger(settings) as store:
        count = store.deliveries.revive(utc_now())
    if not count:
        return "There are no dead letters."
    return f"{count} {'delivery is' if count == 1 else 'deliveries are'} due again; a running node sends them at once."


def send_back(settings: Settings, series_uid: str) -> str:
    """Have the series graded again; returns what happened. Raises PermanentError for a series that is not known."""
    with _ledger(settings) as store:
        if store.retry(series_uid, utc_now()):
            return f"Series {series_uid} is due again; a running node takes it up within seconds."
        return f"Series {series_uid} is still at work, so it was left alone; look again with: qcnode status"


def _ledger(settings: Settings) -> Store:
    """The ledger of a node that has run before; a status command makes none."""
    if settings.state.ledger_url is None and not (settings.state.folder / "ledger.sqlite3").exists():
        raise ConfigError(
            f"There is no ledger in {settings.state.folder}; name the configuration with --config, or start the node."
        )
    return Store.open(settings.state)


def _dead_letter(one: Delivery, count: int) -> dict[str, Any]:
    return {
        "destination": one.destination,
        "kind": one.kind,
        "series_uid": one.series_uid,
        "count": count,
        "attempts": one.attempts,
        "error": one.error,
    }


def _series(one: Series) -> dict[str, Any]:
    latest = one.latest
    return {
        "series_uid": one.series_instance_uid,
        "study_uid": one.study_instance_uid,
        "calling_ae": one.calling_ae,
        "received": one.last_received_at.isoformat(timespec="seconds"),
        "instances": one.instance_count,
        "state": one.state.value,
        "reason": one.reason,
        "revision": one.revision,
        "verdict": latest.decision.value if latest else None,
        "reasons": list(latest.reasons) if latest else [],
        "plane": latest.plane.value if latest and latest.plane else None,
        "artifacts": {
            score.artifact.value: {"severity": score.severity, "probabilities": [score.p0, score.p1, score.p2]}
            for score in (latest.scores if latest else [])
        },
        "documents": [
            {
                "kind": document.kind,
                "revision": assessment.revision,
                "sop_instance_uid": document.sop_instance_uid,
                "deliveries": {delivery.destination: delivery.state.value for delivery in document.deliveries},
            }
            for assessment in one.assessments
            for document in assessment.documents
        ],
    }
