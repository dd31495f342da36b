"""The series by what a program asks for, newest first, a page at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import aliased, selectinload

from qcnode.artifacts import Plane
from qcnode.ledger.database import Database
from qcnode.ledger.models import AssessmentRow, Series
from qcnode.ledger.overview import counting_instances
from qcnode.states import State
from qcnode.verdict import Decision


@dataclass(frozen=True)
class Wanted:
    """Which series; what is empty or None does not matter. A verdict and a plane are those of the latest revision."""

    states: Sequence[State] = ()
    verdicts: Sequence[Decision] = ()
    plane: Plane | None = None
    scanner: str | None = None
    since: datetime | None = None  # its last instance arrived at this time or after
    until: datetime | None = None  # and before this

    def conditions(self) -> list[ColumnElement[bool]]:
        """As SQL on a series and its latest assessment."""
        found: list[ColumnElement[bool]] = []
        if self.states:
            found.append(Series.state.in_(self.states))
        if self.scanner is not None:
            found.append(Series.scanner == self.scanner)
        if self.since is not None:
            found.append(Series.last_received_at >= self.since)
        if self.until is not None:
            found.append(Series.last_received_at < self.until)
        if self.verdicts:
            found.append(AssessmentRow.decision.in_(self.verdicts))
        if self.plane is not None:
            found.append(AssessmentRow.plane == self.plane)
        return found


@dataclass(frozen=True)
class Place:
    """Where in the order of the series a page ended: they are in order of their arrival, then of their UIDs."""

    last_received_at: datetime
    series_uid: str


class Listing:
    """Finds series; the rows come detached, with their assessments, scores and opinions, for reading only."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, wanted: Wanted, limit: int, after: Place | None = None) -> list[Series]:
        """The next series after the place, the latest first."""
        query = latest(select(Series)).where(*wanted.conditions())
        if after is not None:
            same = and_(
                Series.last_received_at == after.last_received_at, Series.series_instance_uid < after.series_uid
            )
            query = query.where(or_(Series.last_received_at < after.last_received_at, same))
        assessments = selectinload(Series.assessments)
        loaded = query.options(
            counting_instances(),
            assessments.selectinload(AssessmentRow.scores),
            assessments.selectinload(AssessmentRow.opinions),
        )
        order = (Series.last_received_at.desc(), Series.series_instance_uid.desc())
        with self._database.reading() as session:
            return list(session.scalars(loaded.order_by(*order).limit(limit)))


def latest(query: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    """The query of series with the assessment of each one's latest revision, where it has any."""
    other = aliased(AssessmentRow)
    newest = select(func.max(other.revision)).where(other.series_uid == Series.series_instance_uid)
    of_newest = (AssessmentRow.series_uid == Series.series_instance_uid) & (
        AssessmentRow.revision == newest.correlate(Series).scalar_subquery()
    )
    return query.select_from(Series).outerjoin(AssessmentRow, of_newest)
