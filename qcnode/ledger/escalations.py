"""Verdicts that nobody has answered yet, and whom that calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Select, and_, delete, exists, or_, select

from qcnode.artifacts import Plane
from qcnode.ledger.database import Database, record
from qcnode.ledger.models import AssessmentRow, Delivery, DocumentRow, Escalation, Instance, Opinion, Series
from qcnode.ledger.moves import stamped_by_the_old_clock
from qcnode.states import DeliveryState
from qcnode.verdict import Verdict

ALERT = "alert"


@dataclass(frozen=True)
class Unanswered:
    """A verdict of which nobody has said a word for so long that somebody else is to know."""

    assessment_id: int
    destination: str
    series_uid: str
    verdict: Verdict
    plane: Plane | None
    at: datetime
    calling_ae: str
    sop_instance_uid: str | None  # one that is in the spool


class Escalations:
    """One row for each verdict and address that is to be told unless somebody speaks first."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, after: Mapping[str, timedelta], now: datetime) -> list[Unanswered]:
        """What is due now, by how long each address waits. Rows that have become pointless go on the way.

        Those are the ones that somebody answered, that another verdict supersedes, and whose address is no more.
        """
        with self._database.reading() as session:
            if not session.scalar(select(exists(select(Escalation.assessment_id)))):
                return []
        with self._database.writing(patient=True) as session:
            pointless = or_(Escalation.destination.not_in(list(after)), Escalation.assessment_id.not_in(_open()))
            session.execute(delete(Escalation).where(pointless))
            found = []
            for row in session.scalars(select(Escalation).order_by(Escalation.since, Escalation.assessment_id)):
                if row.since > now:  # the clock was set back while the node stood still
                    row.since = now
                if now - row.since >= after[row.destination]:
                    found.append(row)
            named = {row.assessment_id for row in found}
            about = select(AssessmentRow, Series).join(Series).where(AssessmentRow.id.in_(named))
            verdicts = {assessment.id: (assessment, series) for assessment, series in session.execute(about)}
            uids = {series.series_instance_uid for _, series in verdicts.values()}
            spooled = Instance.series_uid.in_(uids) & Instance.removed_at.is_(None)
            here = select(Instance.series_uid, Instance.sop_instance_uid).where(spooled)
            images = {row.series_uid: row.sop_instance_uid for row in session.execute(here)}
        return [_unanswered(row.destination, *verdicts[row.assessment_id], images) for row in found]

    def escalate(self, unanswered: Unanswered, title: str, body: str, now: datetime) -> bool:
        """Put the alert into the outbox; False when somebody has answered in the meantime, or it is there already."""
        key = (unanswered.assessment_id, unanswered.destination)
        with self._database.writing() as session:
            row = session.get(Escalation, key, with_for_update=True)
            if row is None or session.scalar(_open().where(AssessmentRow.id == row.assessment_id)) is None:
                return False
            session.delete(row)
            delivery = Delivery(
                series_uid=unanswered.series_uid,
                kind=ALERT,
                destination=unanswered.destination,
                state=DeliveryState.PENDING,
                attempts=0,
                refusals=0,
                due_at=now,
            )
            session.add(
                DocumentRow(assessment_id=row.assessment_id, kind=ALERT, title=title, body=body, deliveries=[delivery])
            )
            minutes = round((now - row.since).total_seconds() / 60, 1)
            detail = {"destination": unanswered.destination, "unanswered_minutes": minutes}
            record(session, "escalated", unanswered.series_uid, detail, now)
            return True

    def clock_moved(self, by: timedelta, now: datetime) -> None:
        """The system's clock was set forward (or back: negative): what has waited has waited as long as before."""
        with self._database.writing() as session:
            old = select(Escalation).where(stamped_by_the_old_clock(Escalation.since, by, now)).with_for_update()
            for row in session.scalars(old):
                row.since += by


def _open() -> Select[int]:
    """The assessments that are the last word on their series, and of which nobody has said one."""
    answered = exists(select(Opinion.id).where(Opinion.assessment_id == AssessmentRow.id))
    current = and_(Series.series_instance_uid == AssessmentRow.series_uid, Series.revision == AssessmentRow.revision)
    return select(AssessmentRow.id).join(Series, current).where(~answered)


def _unanswered(destination: str, row: AssessmentRow, series: Series, images: Mapping[str, str]) -> Unanswered:
    return Unanswered(
        assessment_id=row.id,
        destination=destination,
        series_uid=row.series_uid,
        verdict=Verdict(row.decision, tuple(row.reasons)),
        plane=row.plane,
        at=row.at,
        calling_ae=series.calling_ae,
        sop_instance_uid=images.get(row.series_uid),
    )
