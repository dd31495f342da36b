"""What people say of verdicts: rows beside the machine's record, which stays as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from qcnode.artifacts import Artifact, Severity
from qcnode.errors import PermanentError
from qcnode.ledger.assessments import document_row
from qcnode.ledger.database import Database, record
from qcnode.ledger.models import AssessmentRow, Opinion
from qcnode.ledger.records import NewDocument
from qcnode.people import Word


class Opinions:
    """Adds words to the verdict on one revision; each word is a row and an event.

    Raises PermanentError where that revision has no verdict. What a person has said already is not said twice:
    each method returns how many rows it added.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def acknowledge(self, series_uid: str, revision: int, by: str, now: datetime) -> int:
        """This person has seen the verdict."""
        with self._database.writing() as session:
            row = _assessment(session, series_uid, revision)
            if by in row.acknowledged_by:
                return 0
            _say(session, row, Opinion(at=now, by=by, word=Word.ACKNOWLEDGED))
            return 1

    def agree(self, series_uid: str, revision: int, by: str, now: datetime) -> int:
        """This person would give every grade as the machine did; that takes back what they corrected before."""
        with self._database.writing() as session:
            row = _assessment(session, series_uid, revision)
            said = [one.word for one in row.opinions if one.by == by and one.word in (Word.AGREED, Word.CORRECTED)]
            if said and said[-1] is Word.AGREED:
                return 0
            _say(session, row, Opinion(at=now, by=by, word=Word.AGREED))
            return 1

    def correct(
        self, series_uid: str, revision: int, grades: Mapping[Artifact, Severity], by: str, now: datetime
    ) -> int:
        """This person's grades; a row for each that differs from what they said last, or else from the machine's."""
        with self._database.writing() as session:
            row = _assessment(session, series_uid, revision)
            machine = {score.artifact: Severity(score.severity) for score in row.scores}
            if not grades.keys() <= machine.keys():
                raise PermanentError("Only what the machine graded can be corrected; this revision has no such grade.")
            stands = machine | corrections(row.opinions, by)
            changed = {artifact: grade for artifact, grade in grades.items() if grade is not stands[artifact]}
            for artifact, severity in changed.items():
                opinion = Opinion(at=now, by=by, word=Word.CORRECTED, artifact=artifact, severity=int(severity))
                _say(session, row, opinion, machine=int(machine[artifact]))
            return len(changed)

    def reject(
        self,
        series_uid: str,
        revision: int,
        document: NewDocument,
        destinations: Sequence[str],
        by: str,
        now: datetime,
    ) -> None:
        """This person rejects the images, and these destinations are told by the document, whose file is on disk.

        Raises PermanentError where somebody has rejected them already.
        """
        with self._database.writing() as session:
            row = _assessment(session, series_uid, revision)
            if row.rejected_by:
                raise PermanentError(
                    f"{row.rejected_by} has rejected these images already; nothing more is to be done."
                )
            told = [(document.kind, destination) for destination in destinations]
            made = document_row(series_uid, document, told, now)
            made.assessment_id = row.id
            session.add(made)
            _say(session, row, Opinion(at=now, by=by, word=Word.REJECTED))


def corrections(opinions: Iterable[Opinion], by: str) -> dict[Artifact, Severity]:
    """The grades that stand as this person corrected them last; agreeing took earlier ones back."""
    stands: dict[Artifact, Severity] = {}
    for opinion in opinions:
        if opinion.by != by:
            continue
        if opinion.word is Word.AGREED:
            stands.clear()
        elif opinion.artifact is not None and opinion.severity is not None:
            stands[opinion.artifact] = Severity(opinion.severity)
    return stands


def spoken(opinions: Iterable[Opinion]) -> dict[Artifact, list[tuple[str, Severity]]]:
    """Who grades an artifact otherwise than the machine did, and how, as it stands."""
    said = list(opinions)
    by_artifact: dict[Artifact, list[tuple[str, Severity]]] = {}
    for by in dict.fromkeys(opinion.by for opinion in said):
        for artifact, severity in corrections(said, by).items():
            by_artifact.setdefault(artifact, []).append((by, severity))
    return by_artifact


def _assessment(session: Session, series_uid: str, revision: int) -> AssessmentRow:
    """The row to speak of, locked: what one person says at two browsers comes one after the other."""
    of_revision = select(AssessmentRow).where(
        AssessmentRow.series_uid == series_uid, AssessmentRow.revision == revision
    )
    loaded = of_revision.options(selectinload(AssessmentRow.opinions), selectinload(AssessmentRow.scores))
    row = session.scalar(loaded.with_for_update(of=AssessmentRow))
    if row is None:
        raise PermanentError(f"Revision {revision} of this series has no verdict to speak of; look at its page again.")
    return row


def _say(session: Session, row: AssessmentRow, opinion: Opinion, **also: int) -> None:
    row.opinions.append(opinion)
    detail: dict[str, str | int] = {"revision": row.revision}
    if opinion.artifact is not None and opinion.severity is not None:
        detail |= {"artifact": opinion.artifact.value, "grade": opinion.severity}
    kind = {Word.CORRECTED: "grade_corrected", Word.REJECTED: "rejection_confirmed"}.get(
        opinion.word, f"verdict_{opinion.word.value}"
    )
    record(session, kind, row.series_uid, detail | also, opinion.at, {"by": opinion.by})
