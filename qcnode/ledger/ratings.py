"""Which scans people graded, and how: what training learns from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import exists, select
from sqlalchemy.orm import Session, selectinload

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.ledger.database import Database
from qcnode.ledger.models import AssessmentRow, Event, Instance, Opinion, Series
from qcnode.ledger.opinions import corrections
from qcnode.people import Word
from qcnode.states import State

RATING = (Word.AGREED, Word.CORRECTED)  # the words that grade every artifact
PAGE = 200  # series that are read at once


@dataclass(frozen=True)
class Rating:
    """One person's grades of one scan: the machine's of that revision, but for those that the person corrected."""

    rater: str
    revision: int
    grades: Mapping[Artifact, Severity]
    corrected: tuple[Artifact, ...]


@dataclass(frozen=True)
class Rated:
    """A graded scan that is in one piece, with everybody's grades of it.

    images: the revision at which these images came; a scan that is assessed again keeps it. sop_instance_uids: none
    once retention took the images.
    """

    series_uid: str
    study_uid: str | None
    calling_ae: str
    images: int
    revision: int
    plane: Plane
    ensemble: str
    machine: Mapping[Artifact, Severity]
    ratings: tuple[Rating, ...]
    sop_instance_uids: tuple[str, ...]


class Ratings:
    """Reads the ledger for `qcnode export`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def scans(self, *, unrated: bool = False) -> Iterator[Rated]:
        """The scans that people graded, in the order of their UIDs. unrated: those too that only the machine graded."""
        after = ""
        while True:
            with self._database.reading() as session:
                page = _page(session, after, unrated=unrated)
            if not page:
                return
            after = page[-1][0]
            yield from (scan for _, scan in page if scan is not None)


def ratings_of(row: AssessmentRow) -> list[Rating]:
    """Everybody's grades of one revision, in the order in which they first spoke."""
    machine = machine_grades(row)
    speakers = dict.fromkeys(opinion.by for opinion in row.opinions if opinion.word in RATING)
    found = []
    for by in speakers:
        other = {
            artifact: grade
            for artifact, grade in corrections(row.opinions, by).items()
            if grade is not machine[artifact]  # one that was taken back by hand is none
        }
        found.append(Rating(by, row.revision, machine | other, tuple(a for a in Artifact if a in other)))
    return found


def machine_grades(row: AssessmentRow) -> dict[Artifact, Severity]:
    """The machine's grades of one revision; none where it could not be assessed."""
    return {score.artifact: Severity(score.severity) for score in row.scores}


def _page(session: Session, after: str, *, unrated: bool) -> list[tuple[str, Rated | None]]:
    """The next series after that one, by UID."""
    assessments = selectinload(Series.assessments)
    options = (
        assessments.selectinload(AssessmentRow.scores),
        assessments.selectinload(AssessmentRow.opinions),
        selectinload(Series.instances).load_only(Instance.removed_at),
    )
    chosen = select(Series).where(Series.series_instance_uid > after, Series.state == State.ASSESSED).options(*options)
    if not unrated:
        spoken = select(Opinion.id).join(AssessmentRow).where(Opinion.word.in_(RATING))
        chosen = chosen.where(exists(spoken.where(AssessmentRow.series_uid == Series.series_instance_uid)))
    found = list(session.scalars(chosen.order_by(Series.series_instance_uid).limit(PAGE)))
    came = _images_came(session, [one.series_instance_uid for one in found])
    pairs = ((one, _rated(one, came.get(one.series_instance_uid, 1))) for one in found)
    return [(one.series_instance_uid, rated if rated and (unrated or rated.ratings) else None) for one, rated in pairs]


def _images_came(session: Session, series_uids: list[str]) -> dict[str, int]:
    """The revision at which each series last waited for images: later ones were assessed from the same images."""
    waited = select(Event).where(Event.kind == State.RECEIVING.value, Event.series_uid.in_(series_uids))
    return {str(event.series_uid): event.detail["revision"] for event in session.scalars(waited.order_by(Event.id))}


def _rated(series: Series, came: int) -> Rated | None:
    """None where the machine has not graded the images that are here."""
    of_these_images = [row for row in series.assessments if row.revision >= came and row.scores]
    if not of_these_images:
        return None
    newest = of_these_images[0]
    if newest.plane is None:
        return None
    last = {rating.rater: rating for row in reversed(of_these_images) for rating in ratings_of(row)}
    whole = all(instance.removed_at is None for instance in series.instances)
    return Rated(
        series_uid=series.series_instance_uid,
        study_uid=series.study_instance_uid,
        calling_ae=series.calling_ae,
        images=came,
        revision=newest.revision,
        plane=newest.plane,
        ensemble=newest.ensemble,
        machine=machine_grades(newest),
        ratings=tuple(last.values()),
        sop_instance_uids=tuple(instance.sop_instance_uid for instance in series.instances) if whole else (),
    )
