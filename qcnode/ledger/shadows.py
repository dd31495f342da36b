"""Weights on trial: which scans they still have to grade, what they said, and how that compares."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Select, and_, exists, func, select
from sqlalchemy.orm import Session, aliased, selectinload

from qcnode.agreement import consensus
from qcnode.artifacts import Artifact, Severity
from qcnode.ledger.database import Database, record
from qcnode.ledger.models import AssessmentRow, Instance, Opinion, ScoreRow, Series, ShadowAssessment, ShadowScore
from qcnode.ledger.ratings import RATING, ratings_of
from qcnode.states import State
from qcnode.verdict import Assessment, Decision

Table = Counter[tuple[Severity, Severity]]
DIFFERENT = 20  # series that are named where both differ


@dataclass(frozen=True)
class ToShadow:
    """An assessment whose images are in the spool, and that the weights on trial have not graded."""

    assessment_id: int
    series_uid: str
    revision: int
    sop_instance_uids: tuple[str, ...]


@dataclass(frozen=True)
class Compared:
    """What the active weights and those on trial say of the same scans, counted.

    grades: of each artifact, (active, shadow). people: of each artifact, ((people, active), (people, shadow)), where
    people are the middle of those who graded. verdicts: (active, shadow). different: series with how many steps of
    severity lie between both, the most first.
    """

    active: str
    shadow: str
    scans: int
    ungraded: int  # the weights on trial could not grade them
    grades: dict[Artifact, Table] = field(default_factory=dict)
    people: dict[Artifact, tuple[Table, Table]] = field(default_factory=dict)
    verdicts: Counter[tuple[Decision, Decision]] = field(default_factory=Counter)
    different: list[tuple[str, int]] = field(default_factory=list)


class Shadows:
    """Rows beside the assessments; nothing that is reported reads them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def next(self, ensemble: str) -> ToShadow | None:
        """The newest assessment that this ensemble has not graded and whose images are all here; None without one."""
        current = and_(
            Series.series_instance_uid == AssessmentRow.series_uid,
            Series.revision == AssessmentRow.revision,
            Series.state == State.ASSESSED,
        )
        done = exists(_of(ensemble).where(ShadowAssessment.assessment_id == AssessmentRow.id))
        here = select(Instance.series_uid).where(Instance.removed_at.is_(None)).distinct()
        gone = exists(
            select(Instance.sop_instance_uid).where(
                Instance.series_uid == AssessmentRow.series_uid, Instance.removed_at.is_not(None)
            )
        )
        graded = exists(select(ScoreRow.id).where(ScoreRow.assessment_id == AssessmentRow.id))
        waiting = (
            select(AssessmentRow).join(Series, current).where(AssessmentRow.series_uid.in_(here), ~done, ~gone, graded)
        )
        with self._database.reading() as session:
            row = session.scalar(waiting.order_by(AssessmentRow.id.desc()).limit(1))
            if row is None:
                return None
            images = select(Instance.sop_instance_uid).where(Instance.series_uid == row.series_uid)
            sops = tuple(session.scalars(images.order_by(Instance.sop_instance_uid)))
            return ToShadow(row.id, row.series_uid, row.revision, sops)

    def keep(self, of: ToShadow, ensemble: str, said: Assessment | str, now: datetime) -> bool:
        """Enter what the ensemble said, or why it said nothing; False when another process has."""
        grades = {} if isinstance(said, str) else said.grades
        reason = said if isinstance(said, str) else (said.excluded or "") or " ".join(said.verdict.reasons)
        with self._database.writing(patient=True) as session:
            if session.scalar(_of(ensemble).where(ShadowAssessment.assessment_id == of.assessment_id)) is not None:
                return False
            row = ShadowAssessment(assessment_id=of.assessment_id, ensemble=ensemble, at=now)
            row.decision = said.verdict.decision if grades and isinstance(said, Assessment) else None
            row.reason = None if grades else reason
            row.scores = [
                ShadowScore(artifact=artifact, severity=int(grade.severity), p0=p0, p1=p1, p2=p2)
                for artifact, grade in grades.items()
                for p0, p1, p2 in [grade.probabilities]
            ]
            session.add(row)
            detail = {"ensemble": ensemble, "revision": of.revision} | ({} if grades else {"why": reason})
            record(session, "shadowed", of.series_uid, detail, now)
            return True

    def compared(self) -> Compared | None:
        """The weights that were last on trial, beside those that were then active; None before any was."""
        newest = select(ShadowAssessment.ensemble, AssessmentRow.ensemble).join(
            AssessmentRow, AssessmentRow.id == ShadowAssessment.assessment_id
        )
        with self._database.reading() as session:
            names = session.execute(newest.order_by(ShadowAssessment.id.desc()).limit(1)).first()
            if names is None:
                return None
            shadow, active = names
            both = _both(shadow, active)
            numbers = both.with_only_columns(func.count(), func.count(ShadowAssessment.decision))  # those with one
            everything, graded = session.execute(numbers).one()
            return Compared(
                active=active,
                shadow=shadow,
                scans=graded,
                ungraded=everything - graded,
                grades=_grades(session, both),
                people=_people(session, both),
                verdicts=_verdicts(session, both),
                different=_different(session, both),
            )


def _of(ensemble: str) -> Select[int]:
    return select(ShadowAssessment.id).where(ShadowAssessment.ensemble == ensemble)


def _both(shadow: str, active: str) -> Select[ShadowAssessment]:
    """Pairs of assessments of the same images."""
    pairs = select(ShadowAssessment).join(AssessmentRow, AssessmentRow.id == ShadowAssessment.assessment_id)
    return pairs.where(ShadowAssessment.ensemble == shadow, AssessmentRow.ensemble == active)


def _grades(session: Session, both: Select[ShadowAssessment]) -> dict[Artifact, Table]:
    mine, its = ScoreRow, aliased(ShadowScore)
    pairs = both.join(mine, mine.assessment_id == AssessmentRow.id).join(
        its, and_(its.shadow_assessment_id == ShadowAssessment.id, its.artifact == mine.artifact)
    )
    cells = (mine.artifact, mine.severity, its.severity)
    tables: dict[Artifact, Table] = {artifact: Counter() for artifact in Artifact}
    for artifact, one, other, count in session.execute(pairs.with_only_columns(*cells, func.count()).group_by(*cells)):
        tables[artifact][Severity(one), Severity(other)] = count
    return tables


def _people(session: Session, both: Select[ShadowAssessment]) -> dict[Artifact, tuple[Table, Table]]:
    spoken = exists(select(Opinion.id).where(Opinion.assessment_id == AssessmentRow.id, Opinion.word.in_(RATING)))
    rated = both.where(spoken, ShadowAssessment.decision.is_not(None)).add_columns(AssessmentRow)
    options = (
        selectinload(ShadowAssessment.scores),
        selectinload(AssessmentRow.scores),
        selectinload(AssessmentRow.opinions),
    )
    tables: dict[Artifact, tuple[Table, Table]] = {artifact: (Counter(), Counter()) for artifact in Artifact}
    for shadow, row in session.execute(rated.options(*options)):
        ratings = ratings_of(row)
        active = {score.artifact: Severity(score.severity) for score in row.scores}
        for score in shadow.scores:
            label = consensus([rating.grades[score.artifact] for rating in ratings])
            tables[score.artifact][0][label, active[score.artifact]] += 1
            tables[score.artifact][1][label, Severity(score.severity)] += 1
    return tables


def _verdicts(session: Session, both: Select[ShadowAssessment]) -> Counter[tuple[Decision, Decision]]:
    cells = (AssessmentRow.decision, ShadowAssessment.decision)
    decided = both.where(ShadowAssessment.decision.is_not(None)).with_only_columns(*cells, func.count())
    return Counter({(one, other): count for one, other, count in session.execute(decided.group_by(*cells)) if other})


def _different(session: Session, both: Select[ShadowAssessment]) -> list[tuple[str, int]]:
    mine, its = ScoreRow, aliased(ShadowScore)
    steps = func.sum(func.abs(mine.severity - its.severity))
    pairs = both.join(mine, mine.assessment_id == AssessmentRow.id).join(
        its, and_(its.shadow_assessment_id == ShadowAssessment.id, its.artifact == mine.artifact)
    )
    apart = pairs.where(mine.severity != its.severity).with_only_columns(AssessmentRow.series_uid, steps)
    most = apart.group_by(AssessmentRow.id, AssessmentRow.series_uid).order_by(steps.desc(), AssessmentRow.id.desc())
    return [(uid, int(count)) for uid, count in session.execute(most.limit(DIFFERENT))]
