"""Instances that reached the spool, and what they do to their series, inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from qcnode.ledger.database import record
from qcnode.ledger.models import Instance, Series
from qcnode.ledger.moves import move, reopen
from qcnode.ledger.records import Received
from qcnode.ledger.scanners import scanner_name
from qcnode.states import State

OUT_OF_ORDER = timedelta(minutes=1)  # instances may be recorded in another order than they arrived, by less than this


def record_arrivals(session: Session, series_uid: str, group: Sequence[Received]) -> bool:
    """Enter one series' instances; True when one of them was new."""
    sops = [received.sop_instance_uid for received in group]
    known = {
        instance.sop_instance_uid: instance
        for instance in session.scalars(
            select(Instance).where(Instance.series_uid == series_uid, Instance.sop_instance_uid.in_(sops))
        )
    }
    new: list[Instance] = []
    returned: list[Received] = []
    for received in group:
        sop = received.sop_instance_uid
        if sop not in known:
            known[sop] = _instance(received)
            new.append(known[sop])
        elif known[sop].sha256 != received.sha256:
            detail = {"sop": sop, "kept": known[sop].sha256, "refused": received.sha256, "from": received.calling_ae}
            record(session, "conflict", series_uid, detail, received.received_at)
        elif known[sop].removed_at is not None:
            known[sop].removed_at = None
            returned.append(received)
    if returned:
        record(session, "returned", series_uid, {"instances": len(returned)}, returned[-1].received_at)
    if new:
        _reopen(session, series_uid, group[0], max(instance.received_at for instance in new))
        session.flush()  # the series' row before its instances'
        session.add_all(new)
    return bool(new)


def _reopen(session: Session, series_uid: str, first: Received, at: datetime) -> None:
    """Bring the series to RECEIVING: a new one, or one that a late instance reached."""
    series = session.get(Series, series_uid, with_for_update=True)
    if series is None:
        series = Series(
            series_instance_uid=series_uid,
            study_instance_uid=first.study_uid,
            state=State.RECEIVING,
            state_since=at,
            revision=1,
            attempts=0,
            calling_ae=first.calling_ae,
            scanner=scanner_name(first.calling_ae, first.facts.get("device_serial_number")),
            first_received_at=first.received_at,
            last_received_at=at,
        )
        session.add(series)
        move(session, series, State.RECEIVING, at)
        return
    set_back = series.last_received_at - at > OUT_OF_ORDER  # the clock was: the quiet time begins anew
    series.last_received_at = at if set_back else max(series.last_received_at, at)
    if series.state is State.RECEIVING:
        return
    reopen(session, series, at, why="late instance")


def _instance(received: Received) -> Instance:
    return Instance(
        series_uid=received.series_uid,
        sop_instance_uid=received.sop_instance_uid,
        sop_class_uid=received.sop_class_uid,
        transfer_syntax_uid=received.transfer_syntax_uid,
        sha256=received.sha256,
        size=received.size,
        received_at=received.received_at,
        calling_ae=received.calling_ae,
        facts=received.facts,
    )
