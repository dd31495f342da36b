"""The units of work on a real spool and a real ledger; only the grading is a stand-in."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydicom import dcmread

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.config import Alert, Destination, Settings, StateFolder
from qcnode.errors import TransientError
from qcnode.imaging import phantom
from qcnode.imaging.swoop import classic_series, swoop_series, to_bytes
from qcnode.intake.completeness import AssociationState
from qcnode.intake.facts import read_facts
from qcnode.intake.spool import Spool
from qcnode.ledger.performed import Change
from qcnode.ledger.records import StepReport
from qcnode.ledger.store import Store
from qcnode.reporting.documents import documents
from qcnode.states import LONGEST_PAUSE, MAX_ATTEMPTS, State, StepState
from qcnode.steps import Look, adopt, assemble_once, assess_once, retain_once
from qcnode.verdict import Assessment, Decision, Grade, not_assessable, verdict
from qcnode.worker import Job, Outcome, work

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def swoop() -> bytes:
    generator = np.random.default_rng(1)
    return to_bytes(swoop_series(phantom.head(generator, Plane.AXIAL), patient_id="P1", generator=generator))


@pytest.fixture(scope="session")
def slices() -> list[bytes]:
    generator = np.random.default_rng(2)
    head = phantom.head(generator, Plane.AXIAL)
    return [to_bytes(one) for one in classic_series(head, patient_id="P1", generator=generator)]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        state=StateFolder(folder=tmp_path),
        destinations=(Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104),),
        alerts=(Alert(url="json://127.0.0.1:9/x"),),
    )


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with Store.open(settings.state) as opened:
        yield opened


@pytest.fixture
def spool(settings: Settings) -> Spool:
    return Spool(settings.state.folder)


def put(spool: Spool, instance: bytes) -> str:
    facts = read_facts(instance)
    spool.put(instance, facts.series_instance_uid, facts.sop_instance_uid)
    return facts.series_instance_uid


def released(series_uid: str) -> AssociationState:
    return AssociationState.RELEASED


def unknown(series_uid: str) -> AssociationState:
    return AssociationState.UNKNOWN


def graded(severity: int) -> Assessment:
    probabilities = (0.0, 0.1, 0.9) if severity else (0.9, 0.1, 0.0)
    grades = {artifact: Grade(Severity(severity), probabilities) for artifact in Artifact}
    return Assessment(verdict(grades), plane=Plane.AXIAL, grades=grades, ensemble="stand-in")


def answer(severity: int, job: Job) -> Outcome:
    assessment = graded(severity)
    built = documents(assessment, job.instances, revision=job.revision, at=job.at, predecessor_uid=job.predecessor_uid)
    return Outcome(assessment, built, b"a picture")


def test_adoption_makes_a_series_of_what_lies_in_the_spool(store: Store, spool: Spool, swoop: bytes) -> None:
    series_uid = put(spool, swoop)
    assert adopt(store, spool, NOW) == 1
    assert adopt(store, spool, NOW) == 0, "what is known is not adopted again"
    found = store.overview.detail(series_uid)
    assert found is not None
    assert found.state is State.RECEIVING
    assert found.instance_count == 1


def test_a_swoop_object_is_ready_the_moment_it_is_there(
    store: Store, spool: Spool, settings: Settings, swoop: bytes
) -> None:
    put(spool, swoop)
    adopt(store, spool, NOW)
    assert assemble_once(store, unknown, settings, NOW) == (1, None)


def test_slices_wait_for_the_grace_and_say_when(
    store: Store, spool: Spool, settings: Settings, slices: list[bytes]
) -> None:
    for one in slices:
        put(spool, one)
    adopt(store, spool, NOW)
    grace = timedelta(seconds=settings.completeness.grace_seconds)
    assert assemble_once(store, released, settings, NOW) == (0, NOW + grace)
    assert assemble_once(store, released, settings, NOW + grace) == (1, None)


def test_a_part_of_a_stack_is_not_taken_for_all_of_it_while_the_rest_waits_to_be_recorded(
    store: Store, spool: Spool, settings: Settings, slices: list[bytes]
) -> None:
    (series_uid,) = {put(spool, one) for one in slices[:5]}
    adopt(store, spool, NOW)
    late = NOW + timedelta(seconds=2 * settings.completeness.quiet_seconds)
    looks: dict[str, Look] = {}
    assert assemble_once(store, released, settings, late, looks, {series_uid}) == (0, None)
    assert assemble_once(store, released, settings, late, looks) == (1, None)


def test_the_scanner_s_word_is_news_about_a_series_that_stayed_as_it_was(
    store: Store, spool: Spool, settings: Settings, slices: list[bytes]
) -> None:
    facts = [read_facts(one) for one in slices]
    for one in slices:
        put(spool, one)
    adopt(store, spool, NOW)
    looks: dict[str, Look] = {}
    assert assemble_once(store, unknown, settings, NOW, looks)[0] == 0
    names = {facts[0].series_instance_uid: [one.sop_instance_uid for one in facts]}
    assert store.performed.create(StepReport("1.9", StepState.IN_PROGRESS, names), NOW)
    assert assemble_once(store, unknown, settings, NOW, looks)[0] == 0
    assert store.performed.change(StepReport("1.9", StepState.COMPLETED, None), NOW) is Change.DONE
    assert assemble_once(store, unknown, settings, NOW, looks) == (1, None)


def test_the_scanner_s_word_ends_a_series_and_what_is_missing_reaches_the_grading(
    store: Store, spool: Spool, settings: Settings, slices: list[bytes]
) -> None:
    facts = [read_facts(one) for one in slices]
    series_uid, sops = facts[0].series_instance_uid, [one.sop_instance_uid for one in facts]
    for step, names in (("1.9.1", sops[:5]), ("1.9.2", sops)):
        assert store.performed.create(StepReport(step, StepState.IN_PROGRESS, {series_uid: names}), NOW)
    for one in slices[:5]:
        put(spool, one)
    adopt(store, spool, NOW)
    assert assemble_once(store, unknown, settings, NOW)[0] == 0, "a step in progress says nothing yet"
    assert store.performed.change(StepReport("1.9.1", StepState.COMPLETED, None), NOW) is Change.DONE
    assert assemble_once(store, unknown, settings, NOW) == (1, None)

    assert store.performed.change(StepReport("1.9.2", StepState.COMPLETED, None), NOW) is Change.DONE
    quiet = NOW + timedelta(seconds=settings.completeness.quiet_seconds)
    assert assemble_once(store, unknown, settings, NOW) == (0, quiet), "it is waited for again"
    assert assemble_once(store, unknown, settings, quiet) == (1, None)
    jobs: list[Job] = []

    def submit(job: Job) -> Outcome:
        jobs.append(job)
        return answer(0, job)

    assert assess_once(store, spool, settings.state.folder, submit, settings, lambda: quiet)
    assert [(job.missing, job.announced) for job in jobs] == [(len(sops) - 5, len(sops))]


def test_a_severe_series_leaves_documents_deliveries_and_an_alert(
    store: Store, spool: Spool, settings: Settings, swoop: bytes
) -> None:
    series_uid = put(spool, swoop)
    adopt(store, spool, NOW)
    assemble_once(store, unknown, settings, NOW)
    folder = settings.state.folder
    assert assess_once(store, spool, folder, lambda job: answer(2, job), settings, lambda: NOW)
    assert not assess_once(store, spool, folder, lambda job: answer(2, job), settings, lambda: NOW), "once is enough"

    found = store.overview.detail(series_uid)
    assert found is not None
    assert found.latest is not None
    assert found.state is State.ASSESSED
    assert found.latest.decision is Decision.RESCAN
    assert {document.kind for document in found.latest.documents} == {"report", "flag", "capture", "alert"}
    for document in found.latest.documents:
        assert [delivery.destination for delivery in document.deliveries] == (
            ["alert-1"] if document.kind == "alert" else ["pacs"]
        )
        if document.path is not None:
            assert (folder / document.path).is_file()
    assert found.latest.planes is not None
    assert (folder / found.latest.planes).read_bytes() == b"a picture"


def test_a_clean_series_has_no_flag_and_no_alert(store: Store, spool: Spool, settings: Settings, swoop: bytes) -> None:
    series_uid = put(spool, swoop)
    adopt(store, spool, NOW)
    assemble_once(store, unknown, settings, NOW)
    assess_once(store, spool, settings.state.folder, lambda job: answer(0, job), settings, lambda: NOW)
    found = store.overview.detail(series_uid)
    assert found is not None
    assert found.latest is not None
    assert {document.kind for document in found.latest.documents} == {"report", "capture"}


def test_a_series_that_kills_the_grading_process_fails_after_its_attempts(
    store: Store, spool: Spool, settings: Settings, swoop: bytes
) -> None:
    series_uid = put(spool, swoop)
    adopt(store, spool, NOW)
    assemble_once(store, unknown, settings, NOW)

    def die(job: Job) -> Outcome:
        raise BrokenProcessPool

    attempts, now = 0, NOW
    while assess_once(store, spool, settings.state.folder, die, settings, lambda at=now: at):
        attempts, now = attempts + 1, now + LONGEST_PAUSE
    found = store.overview.detail(series_uid)
    assert found is not None
    assert (attempts, found.state) == (MAX_ATTEMPTS, State.FAILED)
    assert found.reason
    assert store.retry(series_uid, NOW)
    assert assess_once(store, spool, settings.state.folder, lambda job: answer(0, job), settings, lambda: NOW)
    again = store.overview.detail(series_uid)
    assert again is not None
    assert again.state is State.ASSESSED


def test_a_late_slice_voids_the_claim_and_makes_a_revision_that_supersedes(
    store: Store, spool: Spool, settings: Settings, slices: list[bytes]
) -> None:
    *early, late = slices
    for one in early:
        series_uid = put(spool, one)
    adopt(store, spool, NOW)
    later = NOW + timedelta(seconds=60)
    folder = settings.state.folder

    def interrupted(job: Job) -> Outcome:
        put(spool, late)
        adopt(store, spool, later)
        return answer(0, job)

    assemble_once(store, released, settings, later)
    assess_once(store, spool, folder, interrupted, settings, lambda: later)
    found = store.overview.detail(series_uid)
    assert found is not None
    assert found.latest is None, "the result of a void claim is thrown away"
    assert (found.state, found.revision) == (State.RECEIVING, 2)

    much_later = later + timedelta(seconds=60)
    assemble_once(store, released, settings, much_later)
    jobs: list[Job] = []
    assess_once(store, spool, folder, lambda job: jobs.append(job) or answer(0, job), settings, lambda: much_later)
    assert len(jobs[0].instances) == len(slices)
    assert jobs[0].predecessor_uid is None, "nothing was reported before"


def test_an_excluded_series_is_kept_with_its_reason(
    store: Store, spool: Spool, settings: Settings, swoop: bytes
) -> None:
    series_uid = put(spool, swoop)
    adopt(store, spool, NOW)
    assemble_once(store, unknown, settings, NOW)
    why = "A localizer is not for assessment."
    excluded = Outcome(Assessment(not_assessable(why), excluded=why), ())
    assess_once(store, spool, settings.state.folder, lambda job: excluded, settings, lambda: NOW)
    found = store.overview.detail(series_uid)
    assert found is not None
    assert (found.state, found.reason) == (State.EXCLUDED, why)


def test_retention_lets_go_of_images_only_after_their_delivery(
    store: Store, spool: Spool, settings: Settings, swoop: bytes
) -> None:
    series_uid = put(spool, swoop)
    (sop,) = spool.instances(series_uid)
    os.utime(settings.state.folder / "spool" / series_uid / f"{sop}.dcm", (NOW.timestamp(), NOW.timestamp()))
    adopt(store, spool, NOW)
    assemble_once(store, unknown, settings, NOW)
    assess_once(store, spool, settings.state.folder, lambda job: answer(2, job), settings, lambda: NOW)
    long_after = NOW + timedelta(days=400)
    assert retain_once(store, spool, 30, long_after) == 0, "its documents are still due"
    for name in ("pacs", "alert-1"):
        for due in store.deliveries.due(name, NOW):
            store.deliveries.mark_sent(due.id, NOW)
    assert retain_once(store, spool, 30, NOW + timedelta(days=29)) == 0
    assert retain_once(store, spool, 30, long_after) == 1
    assert retain_once(store, spool, 30, long_after) == 0
    assert spool.instances(series_uid) == ()
    assert adopt(store, spool, long_after) == 0


def finished_long_ago(store: Store, spool: Spool, settings: Settings, swoop: bytes) -> tuple[str, Path]:
    """A series of one instance that was graded and delivered, and its file in the spool, all a year ago."""
    at = datetime.now(UTC) - timedelta(days=365)
    series_uid = put(spool, swoop)
    (sop,) = spool.instances(series_uid)
    path = settings.state.folder / "spool" / series_uid / f"{sop}.dcm"
    os.utime(path, (at.timestamp(), at.timestamp()))
    adopt(store, spool, at)
    assemble_once(store, unknown, settings, at)
    assess_once(store, spool, settings.state.folder, lambda job: answer(2, job), settings, lambda: at)
    for name in ("pacs", "alert-1"):
        for due in store.deliveries.due(name, at):
            store.deliveries.mark_sent(due.id, at)
    return series_uid, path


def test_an_instance_that_was_sent_again_is_kept_as_long_again(
    store: Store, spool: Spool, settings: Settings, swoop: bytes
) -> None:
    _, path = finished_long_ago(store, spool, settings, swoop)
    put(spool, swoop)
    now = datetime.now(UTC)
    assert retain_once(store, spool, 30, now) == 0
    assert path.exists()
    assert retain_once(store, spool, 0, now) == 0, "the ledger may not know of it yet"
    assert retain_once(store, spool, 30, now + timedelta(days=31)) == 1
    assert not path.exists()


def test_an_instance_that_is_sent_again_while_retention_removes_it_is_not_lost(
    store: Store, spool: Spool, settings: Settings, swoop: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was marked; then its sender is told that it is here; only then would the file have gone."""
    series_uid, path = finished_long_ago(store, spool, settings, swoop)
    real = spool.remove

    def remove(*arguments: Any) -> tuple[str, ...]:
        put(spool, swoop)
        return real(*arguments)

    monkeypatch.setattr(spool, "remove", remove)
    now = datetime.now(UTC)
    assert retain_once(store, spool, 30, now) == 0
    assert path.exists()
    assert store.known_instances() == {(series_uid, path.stem)}
    assert store.retainable(now, 30) == [(series_uid, (path.stem,))]


def test_a_result_outlives_a_ledger_that_is_held_for_a_while(
    store: Store, spool: Spool, settings: Settings, swoop: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    series_uid = put(spool, swoop)
    adopt(store, spool, NOW)
    assemble_once(store, unknown, settings, NOW)
    held = iter([True, True, False])
    finish = store.finish

    def sometimes(*arguments: Any) -> bool:
        if next(held):
            raise TransientError("The ledger is locked.")
        return finish(*arguments)

    monkeypatch.setattr(store, "finish", sometimes)
    graded_jobs: list[Job] = []
    submit: Callable[[Job], Outcome] = lambda job: graded_jobs.append(job) or answer(0, job)  # noqa: E731
    assess_once(store, spool, settings.state.folder, submit, settings, lambda: NOW)
    found = store.overview.detail(series_uid)
    assert found is not None
    assert (found.state, len(graded_jobs)) == (State.ASSESSED, 1)


def test_a_series_of_another_modality_is_excluded_when_it_is_complete_and_queues_for_nothing(
    store: Store, spool: Spool, settings: Settings, slices: list[bytes]
) -> None:
    """By the same sentence as the grading process would say, and its images are forwarded none the less."""
    everything = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104, send=("report", "images"))
    settings = settings.model_copy(update={"destinations": (everything,)})
    for one in slices:
        ds = dcmread(BytesIO(one))
        ds.Modality = "CT"
        series_uid = put(spool, to_bytes(ds))
    adopt(store, spool, NOW)
    quiet = NOW + timedelta(seconds=settings.completeness.quiet_seconds)
    assert assemble_once(store, unknown, settings, quiet) == (0, None)
    found = store.overview.detail(series_uid)
    assert found is not None
    assert (found.state, found.reason, found.attempts) == (State.EXCLUDED, "The series is CT, not MR.", 0)
    assert found.complete_why == "no instance came for the quiet time"
    assert store.claim(quiet) is None
    assert len(store.deliveries.due("pacs", quiet)) == len(slices)
    assert store.retry(series_uid, quiet), "a person may have it looked at all the same"
    assert assess_once(store, spool, settings.state.folder, work, settings, lambda: quiet)
    again = store.overview.detail(series_uid)
    assert again is not None
    assert (again.state, again.reason) == (State.EXCLUDED, found.reason)


class ReadingStore:
    """The ledger, and which series' headers were asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.read: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def facts(self, series_uid: str) -> list[dict[str, Any]]:
        self.read.append(series_uid)
        return self._store.facts(series_uid)


def test_headers_are_read_again_only_when_something_changed(
    store: Store, spool: Spool, settings: Settings, slices: list[bytes]
) -> None:
    """However many series are waiting, a look costs what came since the last."""
    associations = {"now": AssociationState.OPEN}
    reading, looks = ReadingStore(store), dict[str, Look]()

    def looked(now: datetime) -> tuple[int, int]:
        reading.read.clear()
        made, _ = assemble_once(reading, lambda uid: associations["now"], settings, now, looks)  # type: ignore[arg-type]
        return made, len(reading.read)

    for one in slices[:-1]:
        put(spool, one)
    adopt(store, spool, NOW)
    assert looked(NOW) == (0, 1)
    assert looked(NOW) == (0, 0), "nothing changed"
    put(spool, slices[-1])
    adopt(store, spool, NOW)
    assert looked(NOW) == (0, 1), "an instance came, at the very same time"
    associations["now"] = AssociationState.RELEASED
    assert looked(NOW) == (0, 1), "its association ended"
    assert looked(NOW) == (0, 0)
    assert looked(NOW + timedelta(seconds=settings.completeness.grace_seconds)) == (1, 1), "its time came"
    assert looks == {}


@given(seed=st.integers(0, 2**32 - 1))
@hypothesis_settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_remembered_looks_change_nothing(settings: Settings, slices: list[bytes], tmp_path: Path, seed: int) -> None:
    """With and without them, the same series become ready at the same time, and the next look is due when it was."""
    generator = random.Random(seed)
    history: list[tuple[list[bytes], AssociationState, float]] = [
        (
            generator.sample(slices, generator.randint(0, 9)),
            generator.choice(list(AssociationState)),
            generator.random(),
        )
        for _ in range(8)
    ]

    def told(looks: dict[str, Look] | None) -> list[tuple[int, datetime | None]]:
        found = []
        now = NOW
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder, Store(f"sqlite:///{folder}/ledger.sqlite3") as store:
            spool = Spool(Path(folder))
            for arriving, association, share in history:
                for one in arriving:
                    put(spool, one)
                adopt(store, spool, now)
                found.append(assemble_once(store, lambda uid, a=association: a, settings, now, looks))
                now += timedelta(seconds=share * settings.completeness.quiet_seconds * 1.2)
        return found

    assert told({}) == told(None)
