"""A finished series goes back to be graded once more, inside the caller's transaction."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from qcnode.errors import PermanentError
from qcnode.ledger.database import record
from qcnode.ledger.deliveries import revive
from qcnode.ledger.models import Instance, Series
from qcnode.ledger.moves import move
from qcnode.states import FINAL, State


def retry(session: Session, series_uid: str, now: datetime) -> bool:
    """Revive the series' dead deliveries; grade it again where it has none, or failed. False: it is at work already."""
    series = _known(session, series_uid)
    revived = revive(session, now, series_uid)
    if series.state not in (*FINAL, State.FAILED) or (revived and series.state in FINAL):
        return revived > 0
    _begin(session, series, now, why="retry")
    return True


def assess_again(session: Session, series_uid: str, revision: int, by: str, now: datetime) -> None:
    """Grade it again because this person asks; PermanentError where it moved on, or its images have gone."""
    series = _known(session, series_uid)
    if series.revision != revision or series.state not in (*FINAL, State.FAILED):
        raise PermanentError("The series is at work, or has moved on; look at its page again.")
    here = exists().where(Instance.series_uid == series_uid, Instance.removed_at.is_(None))
    if not session.scalar(select(here)):
        raise PermanentError("The images are not in the spool any more; send the series again.")
    record(session, "asked_again", series_uid, {"revision": revision}, now, {"by": by})
    _begin(session, series, now, why="a person asked")


def _known(session: Session, series_uid: str) -> Series:
    series = session.get(Series, series_uid, with_for_update=True)
    if series is None:
        raise PermanentError(f"The ledger knows no series {series_uid}; `qcnode status` lists those it knows.")
    return series


def _begin(session: Session, series: Series, now: datetime, why: str) -> None:
    """As a new revision, so that its documents' UIDs differ."""
    series.revision, series.attempts, series.reason = series.revision + 1, 0, None
    move(session, series, State.READY, now, why=why)
