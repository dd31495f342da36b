"""Performed procedure steps: what modalities say that their series have, and what that does to the series."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from qcnode.ledger.database import Database, record
from qcnode.ledger.models import Instance, PerformedSeries, PerformedStep, Series
from qcnode.ledger.moves import reopen
from qcnode.ledger.records import Announced, Change, StepReport
from qcnode.states import State, StepState

FINAL = (StepState.COMPLETED, StepState.DISCONTINUED)
_OPEN_TO_NEWS = (State.READY, State.ASSESSING, State.ASSESSED, State.FAILED)  # RECEIVING waits for them anyway


class PerformedSteps:
    """One row for each step. What a step says of its series counts from the moment it has ended."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, report: StepReport, now: datetime) -> bool:
        """Enter a step that begins; False, and nothing is changed, where it is known already."""
        with self._database.writing(patient=True) as session:
            if session.get(PerformedStep, report.step_uid) is not None:
                return False
            step = PerformedStep(sop_instance_uid=report.step_uid, state=StepState.IN_PROGRESS, created_at=now)
            step.series = _series(report)
            session.add(step)
            record(session, "step_began", None, {"step": report.step_uid}, now)
            return True

    def change(self, report: StepReport, now: datetime) -> Change:
        """Enter what a step in progress says of itself now.

        When it ends, a series that was taken to be complete without all of its instances is waited for again.
        """
        with self._database.writing(patient=True) as session:
            options = (selectinload(PerformedStep.series),)
            step = session.get(PerformedStep, report.step_uid, options=options, with_for_update=True)
            if step is None:
                return Change.UNKNOWN
            if step.state in FINAL:
                return Change.TOO_LATE
            if report.series is not None:
                step.series.clear()
                session.flush()  # the old rows go before new ones with the same key come
                step.series.extend(_series(report))
            if report.state is not None and report.state in FINAL:
                step.state, step.ended_at = report.state, now
                session.flush()
                detail = {"step": report.step_uid, "state": report.state.value, "series": len(step.series)}
                record(session, "step_ended", None, detail, now)
                for one in step.series:
                    _hold_to_it(session, one, now)
            return Change.DONE

    def announced(self, series_uids: Collection[str]) -> dict[str, Announced]:
        """What ended steps say of these series; those that none speaks of are not in it."""
        if not series_uids:
            return {}
        with self._database.reading() as session:
            return announced_of(session, series_uids)


def _series(report: StepReport) -> list[PerformedSeries]:
    return [
        PerformedSeries(series_uid=series_uid, sop_instance_uids=sorted(sops))
        for series_uid, sops in (report.series or {}).items()
        if sops  # a series without references says nothing
    ]


def announced_of(session: Session, series_uids: Collection[str]) -> dict[str, Announced]:
    """What ended steps say of these series; those that none speaks of are not in it."""
    rows = session.execute(
        select(PerformedSeries.series_uid, PerformedSeries.sop_instance_uids, PerformedStep.ended_at)
        .join(PerformedStep)
        .where(PerformedSeries.series_uid.in_(series_uids), PerformedStep.ended_at.is_not(None))
    )
    found: dict[str, Announced] = {}
    for row in rows:
        said = Announced(frozenset(row.sop_instance_uids), row.ended_at)
        if (earlier := found.get(row.series_uid)) is not None:
            said = Announced(earlier.sop_instance_uids | said.sop_instance_uids, max(earlier.at, said.at))
        found[row.series_uid] = said
    return found


def _hold_to_it(session: Session, one: PerformedSeries, now: datetime) -> None:
    """Record what is said of the series, and open it again where instances are missing that it was not asked for."""
    uid = one.series_uid
    said = announced_of(session, [uid])[uid]
    here = session.execute(
        select(Instance.sop_instance_uid, Instance.removed_at).where(Instance.series_uid == uid)
    ).all()
    missing = said.sop_instance_uids.difference(row.sop_instance_uid for row in here)
    detail: dict[str, Any] = {"step": one.step_uid, "instances": len(said.sop_instance_uids)}
    record(session, "announced", uid, detail | {"missing": len(missing)}, now)
    series = session.get(Series, uid, with_for_update=True)
    if series is None or series.state not in _OPEN_TO_NEWS or any(row.removed_at is not None for row in here):
        return
    if said.missing([row.sop_instance_uid for row in here]):
        reopen(session, series, now, why="the scanner announced more")
