"""The series' part of the ledger: each method is one transaction, and each state change is made here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import Select, and_, exists, func, or_, select, update

from qcnode import config
from qcnode.errors import ConfigError
from qcnode.ledger import again, overview
from qcnode.ledger.arrivals import record_arrivals
from qcnode.ledger.assessments import assessment_row
from qcnode.ledger.database import Database, connect, record
from qcnode.ledger.deliveries import IMAGES, Deliveries, forward
from qcnode.ledger.escalations import Escalations
from qcnode.ledger.listing import Listing
from qcnode.ledger.models import AssessmentRow, Delivery, DocumentRow, Instance, Series
from qcnode.ledger.moves import give_up, held, move, stamped_by_the_old_clock
from qcnode.ledger.opinions import Opinions
from qcnode.ledger.people import People
from qcnode.ledger.performed import PerformedSteps, announced_of
from qcnode.ledger.ratings import Ratings
from qcnode.ledger.records import Claim, Forwarding, NewDocument, Received, Receiving
from qcnode.ledger.scanners import Scanners
from qcnode.ledger.shadows import Shadows
from qcnode.ledger.tokens import Tokens
from qcnode.states import FINAL, LONGEST_PAUSE, DeliveryState, State
from qcnode.verdict import Assessment

REPORT = "report"


class Store:
    """The ledger. Threads share it; time comes in as an argument.

    Every method raises TransientError when the database stays locked or out of reach.
    """

    def __init__(self, url: str) -> None:
        """Open the ledger at a SQLAlchemy URL and bring its tables up to date; ConfigError when that cannot be."""
        self._database = Database(connect(url))
        self.deliveries = Deliveries(self._database)
        self.overview = overview.Overview(self._database)
        self.listing = Listing(self._database)
        self.scanners = Scanners(self._database)
        self.performed = PerformedSteps(self._database)
        self.people = People(self._database)
        self.tokens = Tokens(self._database)
        self.opinions = Opinions(self._database)
        self.ratings = Ratings(self._database)
        self.escalations = Escalations(self._database)
        self.shadows = Shadows(self._database)

    @classmethod
    def open(cls, state: config.StateFolder) -> Store:
        """The ledger that the configuration names, else the state folder's own; makes the folder."""
        try:
            state.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"The state folder {state.folder} cannot be made; check state.folder.") from error
        return cls(state.ledger_url or f"sqlite:///{(state.folder / 'ledger.sqlite3').resolve()}")

    def copy_to(self, file: Path) -> None:
        """Copy the ledger, which must be SQLite, as it is at one instant; nobody waits for it."""
        self._database.copy_to(file)

    def check_writable(self) -> None:
        """Nothing, or TransientError where the ledger takes no entry."""
        self._database.check_writable()

    def close(self) -> None:
        """Close every connection."""
        self._database.engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def event(
        self,
        kind: str,
        series_uid: str | None,
        detail: dict[str, Any],
        now: datetime,
        people: dict[str, str] | None = None,
    ) -> None:
        """Record that something happened; `detail` holds words and numbers, never patient data.

        people: more of the detail, of which the log gets nothing.
        """
        with self._database.writing() as session:
            record(session, kind, series_uid, detail, now, people)

    # Receiving

    def record_instances(self, batch: Iterable[Received]) -> set[str]:
        """Enter what the spool holds; the series that gained an instance, and so are `receiving` again.

        An instance that is known already changes nothing; one that retention had removed is back in the spool. The same
        UIDs with other bytes are a conflict: an event, as the spool kept the first. A late instance raises the revision
        when this one was claimed before, so that a verdict never speaks of instances that it did not see.
        """
        by_series: dict[str, list[Received]] = {}
        for received in batch:
            by_series.setdefault(received.series_uid, []).append(received)
        with self._database.writing(patient=True) as session:
            return {uid for uid, group in sorted(by_series.items()) if record_arrivals(session, uid, group)}

    def known_instances(self) -> set[tuple[str, str]]:
        """(series UID, SOP Instance UID) of each instance that should be in the spool."""
        with self._database.reading() as session:
            rows = session.execute(
                select(Instance.series_uid, Instance.sop_instance_uid).where(Instance.removed_at.is_(None))
            )
            return {(row.series_uid, row.sop_instance_uid) for row in rows}

    def receiving(self) -> list[Receiving]:
        """The series that still take instances, the one that began first before the others."""
        of_series = (Instance.series_uid == Series.series_instance_uid, Instance.removed_at.is_(None))
        columns = (Series.series_instance_uid, Series.revision, Series.calling_ae)
        times = (Series.first_received_at, Series.last_received_at)
        instances = select(func.count()).where(*of_series).correlate(Series).scalar_subquery()
        still = select(*columns, *times, instances).where(Series.state == State.RECEIVING)
        with self._database.reading() as session:
            rows = session.execute(still.order_by(Series.first_received_at, Series.series_instance_uid))
            return [Receiving(*row) for row in rows if row[-1]]

    def facts(self, series_uid: str) -> list[dict[str, Any]]:
        """What completeness needs of the headers of a series' instances in the spool."""
        of_series = select(Instance.facts).where(Instance.series_uid == series_uid, Instance.removed_at.is_(None))
        with self._database.reading() as session:
            return list(session.scalars(of_series.order_by(Instance.sop_instance_uid)))

    def mark_ready(
        self,
        series_uid: str,
        revision: int,
        why: str,
        now: datetime,
        forwardings: Sequence[Forwarding] = (),
        *,
        excluded: str | None = None,
    ) -> bool:
        """RECEIVING → READY, and its images on their way; False when the series moved on in the meantime.

        excluded: why it is not for assessment, where that is known already; it is then EXCLUDED instead.
        """
        with self._database.writing() as session:
            series = session.get(Series, series_uid, with_for_update=True)
            if series is None or (series.state, series.revision) != (State.RECEIVING, revision):
                return False
            series.complete_why, series.reason = why, excluded
            if excluded is None:
                move(session, series, State.READY, now, why=why)
            else:
                move(session, series, State.EXCLUDED, now, reason=excluded)
            forward(session, series_uid, forwardings, now)
            return True

    def clock_moved(self, by: timedelta, now: datetime) -> None:
        """The system's clock was set forward (or back: negative): the quiet time of open series moves along.

        What arrived since bears the new time already, and stays as it is.
        """
        by_old_clock = stamped_by_the_old_clock(Series.last_received_at, by, now)
        with self._database.writing() as session:
            open_series = select(Series).where(Series.state == State.RECEIVING, by_old_clock).with_for_update()
            for series in session.scalars(open_series):
                series.last_received_at += by
            record(session, "clock_moved", None, {"seconds": round(by.total_seconds())}, now)

    # Assessing

    def claim(self, now: datetime) -> Claim | None:
        """READY → ASSESSING for the series that waits longest; None when none does."""
        with self._database.writing() as session:
            series = session.scalars(next_ready(now)).first()
            if series is None:
                return None
            series.attempts += 1
            move(session, series, State.ASSESSING, now, attempts=series.attempts)
            uid = series.series_instance_uid
            predecessor = (
                select(DocumentRow.sop_instance_uid)
                .join(AssessmentRow)
                .where(AssessmentRow.series_uid == uid, DocumentRow.kind == REPORT)
                .order_by(AssessmentRow.revision.desc())
                .limit(1)
            )
            return Claim(
                series_uid=uid,
                revision=series.revision,
                attempts=series.attempts,
                study_uid=series.study_instance_uid,
                calling_ae=series.calling_ae,
                last_received_at=series.last_received_at,
                sop_instance_uids=tuple(session.scalars(_in_spool(uid))),
                predecessor_uid=session.scalar(predecessor),
                announced=announced_of(session, [uid]).get(uid),
            )

    def finish(
        self,
        claim: Claim,
        assessment: Assessment,
        documents: Sequence[NewDocument],
        deliveries: Sequence[tuple[str, str]],
        now: datetime,
        forwardings: Sequence[Forwarding] = (),
        escalations: Sequence[str] = (),
        planes: str | None = None,
    ) -> bool:
        """ASSESSING → ASSESSED with scores, verdict, documents and deliveries; or → EXCLUDED with the reason alone.

        deliveries: (document kind, destination); each document of the kind goes there. forwardings: who gets the
        images because of this verdict. escalations: who is told unless somebody answers it. planes: the file
        of the three planes. Returns False, and stores nothing, when the claim was lost. The documents' files, and that
        of the planes, must be on disk already.
        """
        if strays := {kind for kind, _ in deliveries} - {document.kind for document in documents}:
            raise ValueError(f"deliveries of a kind without a document: {', '.join(sorted(strays))}")
        with self._database.writing() as session:
            series = held(session, claim)
            if series is None:
                return False
            series.reason = assessment.excluded
            if assessment.excluded is not None:
                move(session, series, State.EXCLUDED, now, reason=assessment.excluded)
                return True
            session.add(assessment_row(claim, assessment, documents, deliveries, escalations, now, planes))
            forward(session, claim.series_uid, forwardings, now)
            move(session, series, State.ASSESSED, now, decision=assessment.verdict.decision.value)
            return True

    def fail(self, claim: Claim, reason: str, now: datetime, *, permanent: bool) -> State | None:
        """ASSESSING → READY, or → FAILED when that is permanent or the last attempt; None when the claim was lost."""
        with self._database.writing() as session:
            series = held(session, claim)
            return None if series is None else give_up(session, series, reason, now, permanent=permanent)

    def recover(self, now: datetime) -> list[str]:
        """What a stopped node had claimed → READY, or → FAILED after its last attempt; the UIDs of these series."""
        with self._database.writing() as session:
            claimed = session.scalars(select(Series).where(Series.state == State.ASSESSING).with_for_update()).all()
            for series in claimed:
                give_up(session, series, "The node stopped while it assessed this series.", now, permanent=False)
                series.not_before = None  # the stop was pause enough
            return [series.series_instance_uid for series in claimed]

    def retry(self, series_uid: str, now: datetime) -> bool:
        """Assess a finished series again, as a new revision, so that its documents' UIDs differ; revive its deliveries.

        A series that was assessed or excluded and has dead deliveries needs those alone, and is not assessed again.
        Returns False when the series is at work already and nothing was dead; PermanentError for an unknown series.
        """
        with self._database.writing() as session:
            return again.retry(session, series_uid, now)

    def assess_again(self, series_uid: str, revision: int, by: str, now: datetime) -> None:
        """Assess a finished series again because a person who saw this revision asks; PermanentError says why not."""
        with self._database.writing() as session:
            again.assess_again(session, series_uid, revision, by, now)

    # Retention

    def retainable(
        self, now: datetime, retention_days: float, destinations: Sequence[str] = ()
    ) -> list[tuple[str, tuple[str, ...]]]:
        """Series whose images may go, with the SOP Instance UIDs in the spool.

        Those that were finished, and all of theirs delivered, that many days ago. One that failed waits for a person,
        and so do images that one of the `destinations` did not take.
        """
        kept_since = now - timedelta(days=retention_days)
        not_taken = and_(
            Delivery.state == DeliveryState.DEAD, Delivery.kind == IMAGES, Delivery.destination.in_(destinations)
        )
        on_its_way = exists(
            select(Delivery.id).where(
                Delivery.series_uid == Series.series_instance_uid,
                or_(Delivery.state == DeliveryState.PENDING, Delivery.sent_at > kept_since, not_taken),
            )
        )
        # From what is in the spool to its series: the other way leads through all that ever were.
        in_spool = select(Instance.series_uid).where(Instance.removed_at.is_(None)).distinct().subquery()
        over = exists(
            select(Series.series_instance_uid)
            .where(Series.series_instance_uid == in_spool.c.series_uid, Series.state.in_(FINAL))
            .where(Series.state_since <= kept_since, ~on_its_way)
        )
        with self._database.reading() as session:
            found = session.scalars(select(in_spool.c.series_uid).where(over).order_by(in_spool.c.series_uid)).all()
            return [(uid, tuple(session.scalars(_in_spool(uid)))) for uid in found]

    def mark_removed(self, series_uid: str, sop_instance_uids: Sequence[str], now: datetime) -> bool:
        """Note that the spool is about to lose these instances; False when a late one reached the series: keep them.

        Before the files go: should the node stop in between, it adopts them at start and removes them later.
        """
        with self._database.writing(patient=True) as session:
            series = session.get(Series, series_uid, with_for_update=True)
            if series is None or series.state not in FINAL:
                return False
            session.execute(
                update(Instance)
                .where(Instance.series_uid == series_uid, Instance.sop_instance_uid.in_(sop_instance_uids))
                .values(removed_at=now)
            )
            record(session, "removed", series_uid, {"instances": len(sop_instance_uids)}, now)
            return True


def _in_spool(series_uid: str) -> Select[str]:
    """The SOP Instance UIDs of a series' instances that retention has not taken, in order."""
    of_series = select(Instance.sop_instance_uid).where(Instance.series_uid == series_uid)
    return of_series.where(Instance.removed_at.is_(None)).order_by(Instance.sop_instance_uid)


def next_ready(now: datetime) -> Select[Series]:
    """The series that waits longest for its assessment; other claimers pass it by while it is being claimed.

    SKIP LOCKED is PostgreSQL's; SQLite has one writer at a time.
    """
    # One that would have to pause longer than any does was put off by a clock that has been set back since.
    due = or_(Series.not_before.is_(None), Series.not_before <= now, Series.not_before > now + LONGEST_PAUSE)
    waiting = select(Series).where(Series.state == State.READY, due).order_by(Series.state_since)
    return waiting.limit(1).with_for_update(skip_locked=True)
