"""How a series gets from one state to the next, inside the caller's transaction."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy.orm import InstrumentedAttribute, Session

from qcnode.ledger.database import record
from qcnode.ledger.models import Series
from qcnode.ledger.records import Claim
from qcnode.states import ATTEMPT_PAUSES, MAX_ATTEMPTS, TRANSITIONS, State


def move(session: Session, series: Series, to: State, now: datetime, **detail: Any) -> None:
    """Make one of the moves of `states.TRANSITIONS`, and record it."""
    if to not in TRANSITIONS[series.state]:
        raise ValueError(f"a series does not go from {series.state} to {to}")
    series.state, series.state_since, series.not_before = to, now, None
    record(session, to.value, series.series_instance_uid, {"revision": series.revision, **detail}, now)


def reopen(session: Session, series: Series, now: datetime, why: str) -> None:
    """Back to RECEIVING, for what the series still lacks."""
    if series.attempts > 0:  # this revision was claimed: its verdict would not speak of what is to come
        series.revision, series.attempts = series.revision + 1, 0
    series.reason = series.complete_why = None
    move(session, series, State.RECEIVING, now, why=why)


def stamped_by_the_old_clock(
    moment: InstrumentedAttribute[datetime], by: timedelta, now: datetime
) -> ColumnElement[bool]:
    """Whether a moment was taken before the clock was set forward by so much (or back: negative), which is just now."""
    return moment <= now - by if by > timedelta(0) else moment > now


def held(session: Session, claim: Claim) -> Series | None:
    """The claimed series, locked; None when it is no longer this claim's."""
    series = session.get(Series, claim.series_uid, with_for_update=True)
    if series is None or series.state is not State.ASSESSING:
        return None
    return series if (series.revision, series.attempts) == (claim.revision, claim.attempts) else None


def give_up(session: Session, series: Series, reason: str, now: datetime, *, permanent: bool) -> State:
    """Return a claimed series to the queue, after a pause, unless another attempt is of no use."""
    to = State.FAILED if permanent or series.attempts >= MAX_ATTEMPTS else State.READY
    series.reason = reason
    move(session, series, to, now, attempts=series.attempts, reason=reason)
    if to is State.READY:
        series.not_before = now + ATTEMPT_PAUSES[series.attempts - 1]
    return to
