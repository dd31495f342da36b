"""What the series of each scanner were like, day by day (in UTC): counts for the control charts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

from sqlalchemy import ColumnElement, Float, String, cast, extract, func, literal_column, select
from sqlalchemy.orm import Session

from qcnode.artifacts import Artifact
from qcnode.ledger.database import Database
from qcnode.ledger.listing import Wanted, latest
from qcnode.ledger.models import AssessmentRow, ScoreRow, Series
from qcnode.verdict import Decision

_FLAWED = ScoreRow.severity > literal_column("0")  # as the index of these rows has it, for SQLite to choose it


@dataclass
class Day:
    """One scanner's series of one day, or of several, by the verdict on the latest revision of each."""

    verdicts: dict[Decision, int] = field(default_factory=dict)
    flawed: dict[Artifact, int] = field(default_factory=dict)  # how many have a grade above 0
    seconds: list[float] = field(default_factory=list)  # from the last instance to the verdict, of each series
    noise: list[float] = field(default_factory=list)  # over the head's signal, of each series that tells it

    def add(self, other: Day) -> None:
        """Count another day's series in."""
        for decision, count in other.verdicts.items():
            self.verdicts[decision] = self.verdicts.get(decision, 0) + count
        for artifact, count in other.flawed.items():
            self.flawed[artifact] = self.flawed.get(artifact, 0) + count
        self.seconds += other.seconds
        self.noise += other.noise

    @property
    def graded(self) -> int:
        """How many have grades: all that are assessable."""
        return self.assessed - self.verdicts.get(Decision.NOT_ASSESSABLE, 0)

    @property
    def assessed(self) -> int:
        """How many have a verdict."""
        return sum(self.verdicts.values())


Days = Mapping[str, Mapping[date, Day]]


class Scanners:
    """Counts for the page *Scanners*; only series with a verdict are counted."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def days(self, wanted: Wanted) -> Days:
        """By scanner, in the order of their names, then by day; days without a series are not among them."""
        with self._database.reading() as session:
            columns = (Series.scanner, _day(session), AssessmentRow.decision, _seconds(session), AssessmentRow.noise)
            verdicts = latest(select(*columns)).where(AssessmentRow.id.is_not(None), *wanted.conditions())
            said = session.execute(verdicts).all()
            kinds = (Series.scanner, _day(session), ScoreRow.artifact)
            grades = latest(select(*kinds, func.count())).where(_FLAWED, *wanted.conditions())
            # + 0: SQLite shall come from the series of the period, not from every flawed grade there ever was.
            grades = grades.join(ScoreRow, ScoreRow.assessment_id == AssessmentRow.id + 0).group_by(*kinds)
            flawed = session.execute(grades).all()
        found: dict[str, dict[date, Day]] = {}
        for scanner, of, decision, seconds, noise in said:
            day = found.setdefault(scanner, {}).setdefault(date.fromisoformat(of), Day())
            day.verdicts[decision] = day.verdicts.get(decision, 0) + 1
            if seconds >= 0:
                day.seconds.append(seconds)
            if noise is not None:
                day.noise.append(noise)
        for scanner, of, artifact, count in flawed:
            if counted := found.get(scanner, {}).get(date.fromisoformat(of)):  # not what came since the query before
                counted.flawed[artifact] = count
        return {scanner: dict(sorted(days.items())) for scanner, days in sorted(found.items())}


def scanner_name(calling_ae: str, serial_number: str | None) -> str:
    """A scanner as people tell them apart: behind a router many have one AE title, and not all give a serial number."""
    return f"{calling_ae} / {serial_number}" if serial_number else calling_ae


def _day(session: Session) -> ColumnElement[str]:
    """The day of a series' last instance, as text."""
    moment: ColumnElement[datetime] = Series.last_received_at.expression
    if session.get_bind().dialect.name == "postgresql":
        moment = func.timezone(literal_column("'UTC'"), moment)
    return cast(func.date(moment), String)


def _seconds(session: Session) -> ColumnElement[float]:
    """From a series' last instance to the verdict; negative where one came after it, or a clock was set."""
    if session.get_bind().dialect.name == "postgresql":
        return cast(extract("epoch", AssessmentRow.at - Series.last_received_at), Float)
    days = func.julianday(AssessmentRow.at) - func.julianday(Series.last_received_at)
    return func.round(days * 86400, 3, type_=Float())
