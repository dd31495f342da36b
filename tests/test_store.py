"""The ledger's laws: what arrives twice counts once, a lost claim stores nothing, nothing pending is ever dropped."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text
from sqlalchemy.dialects import postgresql

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.config import StateFolder
from qcnode.errors import ConfigError, PermanentError, TransientError
from qcnode.ledger import database
from qcnode.ledger.assessments import assessment_of
from qcnode.ledger.models import Instant
from qcnode.ledger.records import Claim, Forwarding, NewDocument, Received
from qcnode.ledger.store import Store, next_ready
from qcnode.states import ATTEMPT_PAUSES, MAX_ATTEMPTS, DeliveryState, State
from qcnode.verdict import Assessment, Decision, Grade, Verdict, not_assessable, verdict

NOW = datetime(2025, 3, 1, 9, 0, tzinfo=UTC)
LATER = NOW + timedelta(seconds=30)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path / 'ledger.sqlite3'}") as opened:
        yield opened


def received(sop: int = 1, series: str = "1.2.3", sha: str = "a", at: datetime = NOW) -> Received:
    return Received(
        series_uid=series,
        study_uid="1.2",
        sop_instance_uid=f"{series}.{sop}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        sha256=sha * 64,
        size=1000,
        received_at=at,
        calling_ae="SWOOP",
        facts={"instance_number": sop},
    )


def graded(severity: Severity = Severity.SEVERE) -> Assessment:
    probabilities = {0: (0.7, 0.2, 0.1), 1: (0.1, 0.8, 0.1), 2: (0.0, 0.1, 0.9)}
    grades = {artifact: Grade(Severity.NONE, probabilities[0]) for artifact in Artifact}
    grades[Artifact.MOTION] = Grade(severity, probabilities[severity])
    return Assessment(verdict(grades), "1.2.3", Plane.AXIAL, grades, "ens-1", {"grade": 0.5})


def test_the_slices_that_carry_a_grade_are_kept(store: Store) -> None:
    store.record_instances([received()])
    one = graded()
    grades = {**one.grades, Artifact.MOTION: replace(one.grades[Artifact.MOTION], slices=(3, 4, 9))}
    grades[Artifact.CONTRAST] = replace(one.grades[Artifact.MOTION], slices=())
    assert store.finish(claimed(store), replace(one, grades=grades), [report()], [], NOW)
    found = store.overview.detail("1.2.3")
    assert found is not None
    assert found.latest is not None
    assert assessment_of(found.latest).grades == grades


def report(revision: int = 1, series: str = "1.2.3") -> NewDocument:
    uid = f"2.25.{revision}{series.replace('.', '')}"
    return NewDocument("report", "1.2.840.10008.5.1.4.1.1.88.34", uid, f"documents/{uid}.dcm")


def claimed(store: Store, series: str = "1.2.3", now: datetime = NOW) -> Claim:
    """A claim of a series that has just become ready."""
    revision = next(r.revision for r in store.receiving() if r.series_uid == series)
    assert store.mark_ready(series, revision, "all frames are there", now)
    claim = store.claim(now)
    assert claim is not None
    return claim


def assessed(store: Store, destinations: tuple[str, ...] = ("pacs",)) -> Claim:
    store.record_instances([received()])
    claim = claimed(store)
    assert store.finish(claim, graded(), [report()], [("report", name) for name in destinations], NOW)
    return claim


def dump(store: Store) -> list[tuple[object, ...]]:
    """Every row of every table."""
    tables = ("series", "instance", "assessment", "score", "document", "delivery", "event")
    with store._database.engine.connect() as connection:
        return [(t, *row) for t in tables for row in connection.execute(text(f"SELECT * FROM {t}"))]


def state_of(store: Store, series: str = "1.2.3") -> tuple[State, int]:
    row = store.overview.detail(series)
    assert row is not None
    return row.state, row.revision


# Arrivals


def test_a_duplicate_changes_nothing(store: Store) -> None:
    assert store.record_instances([received(1), received(2)]) == {"1.2.3"}
    before = dump(store)
    assert store.record_instances([received(2, at=LATER), received(1, at=LATER), received(1)]) == set()
    assert dump(store) == before


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.lists(st.integers(1, 6), max_size=12), cuts=st.sets(st.integers(0, 12)))
def test_order_batches_and_duplicates_do_not_matter(tmp_path_factory, order: list[int], cuts: set[int]) -> None:
    with Store(f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'l.sqlite3'}") as store:
        edges = [0, *sorted(c for c in cuts if c < len(order)), len(order)]
        for start, end in itertools.pairwise(edges):
            store.record_instances([received(n) for n in order[start:end]])
        assert store.known_instances() == {("1.2.3", f"1.2.3.{n}") for n in order}
        assert [r.instances for r in store.receiving()] == ([len(set(order))] if order else [])


def test_the_same_uid_with_other_bytes_is_an_event_and_the_first_is_kept(store: Store) -> None:
    store.record_instances([received(1)])
    assert store.record_instances([received(1, sha="b")]) == set()
    detail = store.overview.detail("1.2.3")
    assert detail is not None
    assert [i.sha256 for i in detail.instances] == ["a" * 64]
    conflict = detail.events[-1]
    assert (conflict.kind, conflict.detail["kept"], conflict.detail["refused"]) == ("conflict", "a" * 64, "b" * 64)


def test_one_sop_instance_uid_in_two_series_is_two_instances(store: Store) -> None:
    store.record_instances([received(1), replace(received(1), series_uid="9.9")])
    assert store.known_instances() == {("1.2.3", "1.2.3.1"), ("9.9", "1.2.3.1")}


def test_completeness_sees_the_facts_and_the_times(store: Store) -> None:
    store.record_instances([received(2), received(1, at=LATER)])
    (series,) = store.receiving()
    assert store.facts(series.series_uid) == [{"instance_number": 1}, {"instance_number": 2}]
    assert (series.first_received_at, series.last_received_at) == (NOW, LATER)


def test_mark_ready_loses_against_a_new_revision(store: Store) -> None:
    store.record_instances([received()])
    assert not store.mark_ready("1.2.3", 2, "quiet", NOW)
    assert not store.mark_ready("8.8", 1, "quiet", NOW)
    assert store.mark_ready("1.2.3", 1, "quiet", NOW)
    assert not store.mark_ready("1.2.3", 1, "quiet", NOW)
    assert state_of(store) == (State.READY, 1)


# Late instances


def test_a_late_instance_before_the_claim_keeps_the_revision(store: Store) -> None:
    store.record_instances([received(1)])
    store.mark_ready("1.2.3", 1, "quiet", NOW)
    assert store.record_instances([received(2, at=LATER)]) == {"1.2.3"}
    assert state_of(store) == (State.RECEIVING, 1)


def end_assessed(store: Store, claim: Claim) -> None:
    assert store.finish(claim, graded(), [report()], [], NOW)


def end_excluded(store: Store, claim: Claim) -> None:
    excluded = Assessment(not_assessable("A localizer."), excluded="A localizer.")
    assert store.finish(claim, excluded, [], [], NOW)


def end_failed(store: Store, claim: Claim) -> None:
    assert store.fail(claim, "Out of memory.", NOW, permanent=True) is State.FAILED


def end_returned(store: Store, claim: Claim) -> None:
    assert store.fail(claim, "Out of memory.", NOW, permanent=False) is State.READY


@pytest.mark.parametrize("end", [None, end_assessed, end_excluded, end_failed, end_returned])
def test_a_late_instance_after_the_claim_raises_the_revision(store: Store, end) -> None:
    store.record_instances([received(1)])
    claim = claimed(store)
    if end is not None:
        end(store, claim)
    store.record_instances([received(2, at=LATER)])
    assert state_of(store) == (State.RECEIVING, 2)
    again = claimed(store, now=LATER)
    assert (again.revision, again.attempts, again.sop_instance_uids) == (2, 1, ("1.2.3.1", "1.2.3.2"))
    assert again.predecessor_uid == (report().sop_instance_uid if end is end_assessed else None)


def test_finish_after_a_late_instance_stores_nothing(store: Store) -> None:
    store.record_instances([received(1)])
    claim = claimed(store)
    store.record_instances([received(2, at=LATER)])
    before = dump(store)
    assert not store.finish(claim, graded(), [report()], [("report", "pacs")], LATER)
    assert store.fail(claim, "late", LATER, permanent=False) is None
    assert dump(store) == before


def test_a_claim_that_was_recovered_and_claimed_again_is_lost_to_its_first_holder(store: Store) -> None:
    store.record_instances([received(1)])
    first = claimed(store)
    assert store.recover(LATER) == ["1.2.3"]
    second = store.claim(LATER)
    assert second is not None
    assert second.attempts == 2
    assert not store.finish(first, graded(), [report()], [], LATER)
    assert store.finish(second, graded(), [report()], [], LATER)


# Assessment


def test_finish_stores_all_of_it(store: Store) -> None:
    store.record_instances([received(1)])
    claim = claimed(store)
    assert (claim.study_uid, claim.calling_ae, claim.attempts, claim.predecessor_uid) == ("1.2", "SWOOP", 1, None)
    alert = NewDocument("alert", title="Repeat", body="Severe motion.")
    rows = [("report", "pacs"), ("report", "console"), ("alert", "alert-1")]
    assert store.finish(claim, graded(), [report(), alert], rows, LATER)
    (series,) = store.overview.recent()
    assert (series.state, series.instance_count, series.state_since) == (State.ASSESSED, 1, LATER)
    latest = series.latest
    assert latest is not None
    assert (latest.decision, latest.plane, latest.ensemble) == (Decision.RESCAN, Plane.AXIAL, "ens-1")
    assert latest.reasons == ["Severe motion. Repeat this scan; settle the child first."]
    assert {s.artifact: s.severity for s in latest.scores}[Artifact.MOTION] == 2
    assert [s.artifact for s in latest.scores] == list(Artifact)
    assert [(d.kind, [x.destination for x in d.deliveries]) for d in latest.documents] == [
        ("report", ["pacs", "console"]),
        ("alert", ["alert-1"]),
    ]
    assert latest.at == LATER
    assert latest.at.tzinfo is not None
    assert store.overview.counts()[State.ASSESSED] == 1
    assert store.deliveries.counts() == {DeliveryState.PENDING: 3, DeliveryState.SENT: 0, DeliveryState.DEAD: 0}


def test_an_excluded_series_keeps_its_reason_and_has_no_documents(store: Store) -> None:
    store.record_instances([received(1)])
    excluded = Assessment(not_assessable("A localizer."), excluded="A localizer.")
    assert store.finish(claimed(store), excluded, [report()], [("report", "pacs")], NOW)
    (series,) = store.overview.recent()
    assert (series.state, series.reason, series.assessments) == (State.EXCLUDED, "A localizer.", [])


def test_a_finish_that_breaks_half_way_stores_nothing(store: Store) -> None:
    """As after a power cut between the documents' files and their rows: the second try goes through."""
    store.record_instances([received(1)])
    claim = claimed(store)
    before = dump(store)
    with pytest.raises(PermanentError):
        store.finish(claim, graded(), [report(), report()], [("report", "pacs")], NOW)  # one UID twice
    assert dump(store) == before
    assert store.recover(NOW) == ["1.2.3"]
    again = store.claim(NOW)
    assert again is not None
    assert (again.revision, again.attempts) == (1, 2)  # so the documents' UIDs, derived from the revision, are the same
    assert store.finish(again, graded(), [report()], [("report", "pacs")], NOW)
    assert len(store.deliveries.due("pacs", NOW)) == 1


def test_a_delivery_needs_a_document_of_its_kind(store: Store) -> None:
    store.record_instances([received(1)])
    with pytest.raises(ValueError, match="flag"):
        store.finish(claimed(store), graded(), [report()], [("flag", "pacs")], NOW)


def test_attempts_are_used_up_with_growing_pauses(store: Store) -> None:
    store.record_instances([received(1)])
    store.mark_ready("1.2.3", 1, "quiet", NOW)
    now = NOW
    for attempt, pause in enumerate((timedelta(0), *ATTEMPT_PAUSES), 1):
        assert pause == timedelta(0) or store.claim(now) is None
        assert pause == timedelta(0) or store.claim(now + 0.9 * pause) is None
        now += pause
        claim = store.claim(now)
        assert claim is not None
        assert claim.attempts == attempt
        state = store.fail(claim, "The worker died.", now, permanent=False)
    assert attempt == MAX_ATTEMPTS
    assert state is State.FAILED
    assert store.claim(now + timedelta(days=1)) is None
    assert store.overview.recent()[0].reason == "The worker died."


def test_recovery_keeps_attempts_and_ends_in_failed(store: Store) -> None:
    store.record_instances([received(1)])
    claimed(store)
    for _ in range(MAX_ATTEMPTS - 1):
        assert store.recover(NOW) == ["1.2.3"]
        assert store.claim(NOW) is not None
    store.recover(NOW)
    assert state_of(store) == (State.FAILED, 1)
    assert store.recover(NOW) == []


def test_the_longest_waiting_series_is_claimed_first(store: Store) -> None:
    store.record_instances([received(1, "1.1"), received(1, "1.2")])
    store.mark_ready("1.2", 1, "quiet", NOW)
    store.mark_ready("1.1", 1, "quiet", LATER)
    assert [c.series_uid for c in (store.claim(LATER), store.claim(LATER)) if c] == ["1.2", "1.1"]
    assert store.claim(LATER) is None


def test_two_ledgers_on_one_file_claim_each_series_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    with Store(url) as one, Store(url) as other:
        one.record_instances([received(1, f"1.2.{n}") for n in range(20)])
        for n in range(20):
            one.mark_ready(f"1.2.{n}", 1, "quiet", NOW)
        together = threading.Barrier(4)

        def drain(store: Store) -> list[str]:
            together.wait()
            return [claim.series_uid for claim in iter(lambda: store.claim(NOW), None)]

        with ThreadPoolExecutor(4) as pool:
            claims = [uid for uids in pool.map(drain, (one, other, one, other)) for uid in uids]
    assert sorted(claims) == sorted(f"1.2.{n}" for n in range(20))


def test_threads_write_together(store: Store) -> None:
    def deliver(n: int) -> None:
        store.record_instances([received(k, f"1.{n}") for k in range(5)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(deliver, range(16)))
    assert len(store.known_instances()) == 80


# Retry


def test_retry_assesses_again_as_a_new_revision(store: Store) -> None:
    assessed(store, destinations=())
    assert store.retry("1.2.3", LATER)
    claim = store.claim(LATER)
    assert claim is not None
    assert (claim.revision, claim.attempts, claim.predecessor_uid) == (2, 1, report().sop_instance_uid)


def test_retry_of_a_failed_series_starts_its_attempts_again(store: Store) -> None:
    store.record_instances([received(1)])
    store.fail(claimed(store), "Broken.", NOW, permanent=True)
    assert store.retry("1.2.3", LATER)
    row = store.overview.detail("1.2.3")
    assert row is not None
    assert (row.state, row.attempts, row.reason) == (State.READY, 0, None)


def test_retry_revives_dead_deliveries_and_lets_the_verdict_stand(store: Store) -> None:
    assessed(store)
    (due,) = store.deliveries.due("pacs", NOW)
    store.deliveries.mark_dead(due.id, "refused", NOW)
    assert store.retry("1.2.3", LATER)
    assert state_of(store) == (State.ASSESSED, 1)
    (due,) = store.deliveries.due("pacs", LATER)
    assert due.attempts == 0


def test_retry_leaves_work_alone_and_knows_what_it_does_not_know(store: Store) -> None:
    store.record_instances([received(1)])
    assert not store.retry("1.2.3", NOW)
    claimed(store)
    assert not store.retry("1.2.3", NOW)
    with pytest.raises(PermanentError, match="no series"):
        store.retry("4.5.6", NOW)


# Deliveries


def test_one_delivery_a_document_and_destination(store: Store) -> None:
    store.record_instances([received(1)])
    with pytest.raises(PermanentError):
        store.finish(claimed(store), graded(), [report()], [("report", "pacs"), ("report", "pacs")], NOW)


def test_a_sent_delivery_is_not_due_and_not_touched_again(store: Store) -> None:
    assessed(store)
    (due,) = store.deliveries.due("pacs", NOW)
    store.deliveries.mark_sent(due.id, NOW)
    before = dump(store)
    store.deliveries.mark_later(due.id, LATER, "late answer")
    store.deliveries.mark_dead(due.id, "late answer", LATER)
    assert dump(store) == before
    assert store.deliveries.due("pacs", LATER) == []
    assert store.deliveries.next_due() is None


def test_a_postponed_delivery_waits_and_hastening_spares_the_refused(store: Store) -> None:
    assessed(store, destinations=("pacs", "console"))
    (pacs,), (console,) = store.deliveries.due("pacs", NOW), store.deliveries.due("console", NOW)
    store.deliveries.mark_later(pacs.id, LATER, "connection refused")
    store.deliveries.mark_later(console.id, LATER, "0xC000", refused=True)
    assert store.deliveries.due("pacs", NOW) == []
    assert store.deliveries.next_due() == LATER
    assert store.deliveries.hasten("pacs", NOW) == 1
    assert store.deliveries.hasten("console", NOW) == 0
    (due,) = store.deliveries.due("pacs", NOW)
    assert (due.attempts, due.refusals) == (1, 0)


# Retention


def test_retention_spares_pending_work_and_recent_deliveries(store: Store) -> None:
    assessed(store)
    month = NOW + timedelta(days=30)
    assert store.retainable(month, 30) == []  # its report is not delivered yet
    (due,) = store.deliveries.due("pacs", NOW)
    store.deliveries.mark_sent(due.id, NOW + timedelta(days=2))
    assert store.retainable(month, 30) == []
    assert store.retainable(month + timedelta(days=2), 30) == [("1.2.3", ("1.2.3.1",))]


@pytest.mark.parametrize("end", [None, end_failed, end_returned])
def test_retention_never_takes_unfinished_work(store: Store, end) -> None:
    store.record_instances([received(1)])
    claim = claimed(store)
    if end is not None:
        end(store, claim)
    assert store.retainable(NOW + timedelta(days=365), 30) == []


def test_a_removed_instance_that_is_sent_again_is_only_back(store: Store) -> None:
    assessed(store, destinations=())
    assert store.mark_removed("1.2.3", ["1.2.3.1"], LATER)
    assert store.known_instances() == set()
    assert store.retainable(NOW + timedelta(days=365), 30) == []
    assert store.record_instances([received(1, at=LATER)]) == set()
    assert store.known_instances() == {("1.2.3", "1.2.3.1")}
    assert state_of(store) == (State.ASSESSED, 1)


def test_a_series_that_came_back_to_life_keeps_its_images(store: Store) -> None:
    assessed(store, destinations=())
    ((uid, sops),) = store.retainable(NOW + timedelta(days=31), 30)
    store.record_instances([received(2, at=LATER)])
    assert not store.mark_removed(uid, sops, LATER)
    assert len(store.known_instances()) == 2


# Events, time, errors


def test_every_state_change_is_an_event_and_a_line_in_the_log(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "qcnode.ledger"):
        assessed(store)
        store.event("association_aborted", None, {"peer": "SWOOP", "why": "no answer"}, LATER)
    kinds = ["receiving", "ready", "assessing", "assessed", "association_aborted"]
    assert [event.kind for event in reversed(store.overview.events())] == kinds
    assert caplog.messages[1] == "ready series=1.2.3 revision=1 why='all frames are there'"
    assert caplog.messages[-1] == "association_aborted peer=SWOOP why='no answer'"
    assert len(caplog.messages) == len(kinds)


def test_what_was_rolled_back_is_not_logged(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.record_instances([received(1)])
    claim = claimed(store)
    with caplog.at_level("INFO", "qcnode.ledger"), pytest.raises(PermanentError):
        store.finish(claim, graded(), [report(), report()], [], NOW)
    assert caplog.messages == []


def test_naive_moments_are_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        Instant().process_bind_param(datetime(2025, 3, 1), postgresql.dialect())


def test_sqlite_is_opened_for_durability(store: Store) -> None:
    with store._database.engine.connect() as connection:
        values = {p: connection.exec_driver_sql(f"PRAGMA {p}").scalar() for p in ("journal_mode", "synchronous")}
        assert values == {"journal_mode": "wal", "synchronous": 2}
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_claims_skip_locked_rows_on_postgresql() -> None:
    assert str(next_ready(NOW).compile(dialect=postgresql.dialect())).endswith("FOR UPDATE SKIP LOCKED")


def test_a_ledger_that_stays_locked_is_a_transient_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_PRAGMAS", ("busy_timeout = 50", "journal_mode = WAL"))
    url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    with Store(url) as store:
        blocker = create_engine(url, isolation_level="AUTOCOMMIT")
        with blocker.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            with pytest.raises(TransientError, match="locked"):
                store.record_instances([received(1)])
            assert store.receiving() == []  # readers go on
            connection.exec_driver_sql("ROLLBACK")
        blocker.dispose()
        assert store.record_instances([received(1)]) == {"1.2.3"}


@pytest.mark.parametrize("url", ["no url", "oracle9000://x", "sqlite:////proc/nowhere/ledger.sqlite3"])
def test_a_ledger_that_cannot_be_opened_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError):
        Store(url)


def test_open_makes_the_state_folder(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "here"
    with Store.open(StateFolder(folder=folder)):
        assert (folder / "ledger.sqlite3").is_file()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="state folder"):
        Store.open(StateFolder(folder=tmp_path / "file"))


def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    folder = StateFolder(folder=tmp_path)
    with Store.open(folder) as store:
        assessed(store)
        before = dump(store)
    with Store.open(folder) as store:
        assert dump(store) == before


def test_a_verdict_without_grades_is_stored(store: Store) -> None:
    store.record_instances([received(1)])
    empty = Assessment(Verdict(Decision.NOT_ASSESSABLE, ("The volume is empty.",)), "1.2.3")
    assert store.finish(claimed(store), empty, [report()], [], NOW)
    latest = store.overview.recent()[0].latest
    assert latest is not None
    assert (latest.decision, latest.scores, latest.plane) == (Decision.NOT_ASSESSABLE, [], None)


# Numbers


def test_the_counters_say_what_there_is(store: Store) -> None:
    nothing = store.overview.counters()
    assert (nothing.instances, nothing.dead, set(nothing.series.values()), nothing.deliveries) == (0, 0, {0}, {})
    assessed(store, ("pacs", "console"))
    store.record_instances([received(1, "1.2.4"), received(2, "1.2.4")])
    store.mark_ready("1.2.4", 1, "quiet", NOW, [Forwarding("pacs", "ARCHIVE")])
    store.record_instances([received(1, "1.2.5")])
    (due,) = store.deliveries.due("console", NOW)
    store.deliveries.mark_dead(due.id, "refused", NOW)
    counters = store.overview.counters()
    assert counters.instances == 4
    assert {state: count for state, count in counters.series.items() if count} == {
        State.ASSESSED: 1,
        State.READY: 1,
        State.RECEIVING: 1,
    }
    assert counters.verdicts == {**dict.fromkeys(Decision, 0), Decision.RESCAN: 1}
    assert counters.deliveries == {
        ("pacs", "report", DeliveryState.PENDING): 1,
        ("pacs", "images", DeliveryState.PENDING): 2,
        ("console", "report", DeliveryState.DEAD): 1,
    }
    assert counters.dead == 1
    assert counters.queues == {"complete": 1, "assess": 1, "finish": 0, "deliver": 3}
    assert {state: sum(n for (_, _, s), n in counters.deliveries.items() if s is state) for state in DeliveryState} == (
        store.deliveries.counts()
    )
    printed = counters.to_json()
    assert printed["deliveries"][0] == {"destination": "console", "kind": "report", "state": "dead", "count": 1}


def test_dead_letters_that_are_alike_are_one_line(store: Store) -> None:
    store.record_instances([received(number) for number in range(5)])
    store.mark_ready("1.2.3", 1, "quiet", NOW, [Forwarding("pacs", "ARCHIVE")])
    for number, due in enumerate(store.deliveries.due("pacs", NOW)):
        store.deliveries.mark_dead(due.id, "refused" if number else "unreadable", NOW)
    letters = store.overview.dead_letters()
    assert sorted((str(one.error), count) for one, count in letters) == [("refused", 4), ("unreadable", 1)]
    assert {one.series_uid for one, _ in letters} == {"1.2.3"}
