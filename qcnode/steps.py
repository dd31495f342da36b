"""The node's work, a unit at a time: each function finds one thing that is due, does it, and says if there was any.

None of them starts a thread or sleeps; the node's scheduler calls them, and so do the tests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from qcnode.config import Settings
from qcnode.delivery import notify, outbox
from qcnode.errors import PermanentError, QcnodeError, TransientError, trail
from qcnode.imaging.eligibility import of_other_modality
from qcnode.intake import listener
from qcnode.intake.completeness import AssociationState, Complete, completeness
from qcnode.intake.facts import Facts, read_facts
from qcnode.intake.spool import Receipt, Spool, write_durably
from qcnode.ledger.records import Announced, Claim, NewDocument, Received, Receiving
from qcnode.ledger.store import Store
from qcnode.wording import Occasion
from qcnode.worker import Job, Outcome

log = logging.getLogger(__name__)

Clock = Callable[[], datetime]
RECORDED = timedelta(minutes=1)  # by then the ledger knows of what the spool took
FINISH_TRIES = 4  # each waits for the ledger for a minute at the most


def adopt(store: Store, spool: Spool, now: datetime) -> int:
    """Tell the ledger of complete files that it does not know: what was acknowledged just before a crash.

    Returns their number. A file whose header cannot be read stays where it is, and becomes an event.
    """
    known = store.known_instances()
    return _adopt(store, spool, (found for found in spool.scan() if found not in known), now)


def _adopt(store: Store, spool: Spool, found: Iterable[tuple[str, str]], now: datetime) -> int:
    batch: list[Received] = []
    for series_uid, sop_instance_uid in found:
        if spool.drop_torn(series_uid, sop_instance_uid):
            log.warning("torn_file_dropped series=%s sop=%s", series_uid, sop_instance_uid)
            continue
        try:
            facts = read_facts(spool.read(series_uid, sop_instance_uid))
            receipt = spool.receipt(series_uid, sop_instance_uid)
            batch.append(_entry(facts, receipt, facts.source_ae_title or "", now))
        except PermanentError as error:
            store.event("adoption_failed", series_uid, {"sop": sop_instance_uid, "why": str(error)}, now)
    if batch:
        store.record_instances(batch)
        log.info("instances_adopted count=%d", len(batch))
    return len(batch)


def entry(arrived: listener.Received) -> Received:
    """What the ledger records of an instance that the listener put into the spool."""
    return _entry(arrived.facts, arrived.receipt, arrived.calling_ae, arrived.at)


@dataclass(frozen=True)
class Look:
    """What was seen of a series that was not complete; while all of it is so, it is not complete before `until`."""

    series: Receiving
    association: AssociationState
    announced: Announced | None
    until: datetime


def assemble_once(
    store: Store,
    association: Callable[[str], AssociationState],
    settings: Settings,
    now: datetime,
    looks: dict[str, Look] | None = None,
    arriving: Collection[str] = (),
) -> tuple[int, datetime | None]:
    """Mark each series ready that is complete by now, and have its images forwarded where they are asked for.

    One of another modality is excluded at once: what a node that gets everything is sent shall not queue for grading.
    Returns how many became ready, and when to look again: the earliest time at which one that waits will be complete.
    `looks` are those of the call before, by series; they are brought up to date, and spare a series' headers another
    reading while it stays as it was. Empty them when the clock was moved. `arriving` are series of which the ledger
    lacks instances that are here: they are left alone, and whoever records those calls again.
    """
    looks = {} if looks is None else looks
    receiving = store.receiving()
    for gone in looks.keys() - {series.series_uid for series in receiving}:
        del looks[gone]
    ready = 0
    words = store.performed.announced([series.series_uid for series in receiving])
    for series in receiving:
        uid, over = series.series_uid, association(series.series_uid)
        if uid in arriving:
            looks.pop(uid, None)
            continue
        last, announced = looks.get(uid), words.get(uid)
        as_it_was = last is not None and (last.series, last.association, last.announced) == (series, over, announced)
        if last is not None and as_it_was and now < last.until:
            continue
        headers = [Facts.from_json(facts) for facts in store.facts(uid)]
        found = completeness(
            headers,
            last_received=series.last_received_at,
            association=over,
            now=now,
            settings=settings.completeness,
            announced=announced,
        )
        if isinstance(found, Complete):
            forwarded = outbox.forwardings(settings.destinations)
            other = _of_other_modality(headers)
            marked = store.mark_ready(uid, series.revision, found.why, now, forwarded, excluded=other)
            ready += marked and other is None
            looks.pop(uid, None)
        else:
            looks[uid] = Look(series, over, announced, found.until)
    return ready, min((look.until for look in looks.values()), default=None)


def _of_other_modality(headers: Sequence[Facts]) -> str | None:
    """Why the series is not for grading, where its Modality alone says so; the grading process sees to all else."""
    found = (of_other_modality(facts.modality) for facts in headers if facts.modality and facts.study_instance_uid)
    why = next(filter(None, found), None)
    return f"The series {why}." if why else None


def assess_once(
    store: Store, spool: Spool, folder: Path, submit: Callable[[Job], Outcome], settings: Settings, clock: Clock
) -> bool:
    """Claim one ready series, have it graded, and store all that follows from it in one transaction.

    `submit` runs the job in the grading process and waits. A failure sends the series back for another attempt, until
    its attempts are used up; a late instance makes the claim void, and the result is then thrown away.
    """
    claim = store.claim(clock())
    if claim is None:
        return False
    try:
        instances = tuple(spool.read(claim.series_uid, sop) for sop in claim.sop_instance_uids)
        outcome = submit(_job(claim, instances, settings))
        _finish_patiently(store, folder, claim, outcome, settings, clock)
    except BrokenExecutor:
        store.fail(claim, "The grading process ended while it graded this series.", clock(), permanent=False)
    except TimeoutError:
        store.fail(claim, "Grading took too long.", clock(), permanent=False)
    except TransientError:
        raise  # the ledger is out of reach, or the node is stopping; recovery returns the claim
    except QcnodeError as error:
        store.fail(claim, str(error), clock(), permanent=isinstance(error, PermanentError))
    except Exception as error:  # the worker's boundary: one bad series must not stop the others
        log.error(
            "assessment_failed series=%s revision=%d error=%s where=%r",
            *(claim.series_uid, claim.revision, type(error).__name__, trail(error)),
        )
        store.fail(claim, f"{type(error).__name__} while grading; see the log.", clock(), permanent=False)
    return True


def _finish_patiently(
    store: Store, folder: Path, claim: Claim, outcome: Outcome, settings: Settings, clock: Clock
) -> None:
    """Finish, again if need be: a result is not thrown away because another process held the ledger for a while."""
    for tries_left in range(FINISH_TRIES, 0, -1):
        try:
            finish(store, folder, claim, outcome, settings, clock())
            return
        except TransientError as error:
            log.warning("finish_postponed series=%s why=%r", claim.series_uid, str(error))
            if tries_left == 1:
                raise


def finish(store: Store, folder: Path, claim: Claim, outcome: Outcome, settings: Settings, now: datetime) -> bool:
    """Write the documents to disk, then everything else into the ledger at once; False when the claim was void."""
    assessment = outcome.assessment
    documents: list[NewDocument] = []
    for document in outcome.documents:
        path = Path("documents") / f"{document.sop_instance_uid}.dcm"
        write_durably(folder / path, document.data)
        documents.append(NewDocument(document.kind, document.sop_class_uid, document.sop_instance_uid, path=str(path)))
    planes = None
    if outcome.planes:  # beside the documents, whose UID belongs to this revision and ensemble
        planes = str(Path("documents") / f"{documents[0].sop_instance_uid}.png")
        write_durably(folder / planes, outcome.planes)
    due: list[tuple[str, str]] = []
    if assessment.excluded is None:
        kinds = {document.kind for document in documents}
        due = outbox.deliveries(
            assessment.verdict.decision, kinds, claim.calling_ae, settings.destinations, settings.alert_names()
        )
        if any(kind == "alert" for kind, _ in due):
            number = notify.accession_number(settings.alerting, folder, claim.series_uid, claim.sop_instance_uids)
            about = Occasion(
                claim.series_uid, assessment.verdict, assessment.plane, now, claim.calling_ae, accession_number=number
            )
            title, body = notify.message(settings.alerting, about)
            documents.append(NewDocument("alert", title=title, body=body))
    forwarded = outbox.forwardings(settings.destinations, assessment.verdict.decision)
    waiting = outbox.escalations(assessment.verdict.decision, settings.alert_names())
    return store.finish(claim, assessment, documents, due, now, forwarded, waiting, planes)


def retain_once(
    store: Store, spool: Spool, retention_days: float, now: datetime, destinations: Sequence[str] = ()
) -> int:
    """Let go of the spooled images of one finished, delivered series whose time is over; returns how many instances.

    `destinations` are those that the configuration names: images that one of them did not take wait for a person. A
    series of which something was sent again since its time began stays until the time of that is over.
    """
    kept_since = now - max(timedelta(days=retention_days), RECORDED)
    for series_uid, sop_instance_uids in store.retainable(now, retention_days, destinations):
        if spool.sent_since(series_uid, kept_since):
            continue
        if store.mark_removed(series_uid, sop_instance_uids, now):
            left = spool.remove(series_uid, sop_instance_uids, kept_since)
            _adopt(store, spool, ((series_uid, uid) for uid in left), now)  # sent again in this very moment
            return len(sop_instance_uids) - len(left)
    return 0


def _job(claim: Claim, instances: tuple[bytes, ...], settings: Settings) -> Job:
    announced = claim.announced
    return Job(
        instances=instances,
        revision=claim.revision,
        at=claim.last_received_at,
        predecessor_uid=claim.predecessor_uid,
        policy=settings.full_policy(),
        eligibility=settings.eligibility,
        assessing=settings.assessing,
        announced=len(announced.sop_instance_uids) if announced else 0,
        missing=len(announced.missing(claim.sop_instance_uids)) if announced else 0,
    )


def _entry(facts: Facts, receipt: Receipt, calling_ae: str, at: datetime) -> Received:
    return Received(
        series_uid=facts.series_instance_uid,
        study_uid=facts.study_instance_uid,
        sop_instance_uid=facts.sop_instance_uid,
        sop_class_uid=facts.sop_class_uid,
        transfer_syntax_uid=facts.transfer_syntax_uid,
        sha256=receipt.sha256,
        size=receipt.size,
        received_at=at,
        calling_ae=calling_ae,
        facts=facts.to_json(),
    )
