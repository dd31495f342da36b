"""The system's clock is set forward or back: nothing waits for it, nothing is hurried, nothing is lost."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apscheduler.schedulers.base
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcnode import clock
from qcnode.clock import NOTICED, Jumps
from qcnode.config import Dicom, Settings, StateFolder, Web
from qcnode.intake.completeness import AssociationState
from qcnode.ledger.records import Received
from qcnode.ledger.store import Store
from qcnode.node import Node
from qcnode.states import ATTEMPT_PAUSES
from qcnode.steps import assemble_once

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SERIES = "1.2.3"
DAY = timedelta(days=1)


class Clocks:
    """A clock that can be set, and one that only counts on."""

    def __init__(self) -> None:
        self.now, self.seconds = NOW, 1000.0

    def passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.seconds += seconds

    def jumps(self) -> Jumps:
        return Jumps(lambda: self.now, lambda: self.seconds)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(StateFolder(folder=tmp_path)) as opened:
        yield opened


def arrive(store: Store, number: int, at: datetime) -> None:
    facts = {"sop_instance_uid": f"{SERIES}.{number}"}
    store.record_instances(
        [Received(SERIES, "1.2", f"{SERIES}.{number}", "1.2.4", "1.2.1", "a" * 64, 1, at, "SWOOP", facts)]
    )


def is_ready(store: Store, now: datetime) -> bool:
    """Whether the quiet time is over."""
    (series,) = store.receiving()
    return now - series.last_received_at >= timedelta(seconds=30) or series.last_received_at > now


@given(st.lists(st.tuples(st.floats(0, 1e5), st.integers(-(10**6), 10**6))))
def test_each_jump_is_told_once_and_passing_time_is_none(steps: list[tuple[float, int]]) -> None:
    clocks = Clocks()
    jumps = clocks.jumps()
    for passing, jump in steps:
        clocks.passes(passing)
        clocks.now += timedelta(seconds=jump)
        moved = jumps.moved()
        expected = timedelta(seconds=jump) if abs(jump) >= NOTICED.total_seconds() else timedelta(0)
        assert abs(moved - expected) < timedelta(milliseconds=1)
        assert jumps.moved() == timedelta(0)


@pytest.mark.parametrize("by", [DAY, -DAY, timedelta(minutes=5), timedelta(minutes=-5)])
def test_the_quiet_time_is_as_long_as_ever(store: Store, by: timedelta) -> None:
    arrive(store, 1, NOW)
    now = NOW + timedelta(seconds=10) + by
    store.clock_moved(by, now)
    assert not is_ready(store, now)
    assert not is_ready(store, now + timedelta(seconds=19))
    assert is_ready(store, now + timedelta(seconds=20))


@pytest.mark.parametrize("by", [DAY, -DAY])
def test_what_arrived_just_after_the_jump_keeps_its_time(store: Store, by: timedelta) -> None:
    arrive(store, 1, NOW)
    now = NOW + timedelta(seconds=10) + by
    arrive(store, 2, now)
    store.clock_moved(by, now + timedelta(seconds=1))
    assert not is_ready(store, now + timedelta(seconds=29))
    assert is_ready(store, now + timedelta(seconds=30))


def test_even_unnoticed_a_clock_set_back_makes_no_revision_of_each_late_instance(store: Store, tmp_path: Path) -> None:
    """An instance that comes after the jump begins the quiet time anew, though earlier ones bear later times."""
    arrive(store, 1, NOW)
    settings = Settings(state=StateFolder(folder=tmp_path))
    for number in range(2, 6):
        now = NOW - DAY + timedelta(seconds=number)
        arrive(store, number, now)
        (series,) = store.receiving()
        assert series.last_received_at == now
    assert settings.completeness.quiet_seconds == 30


def test_a_failed_attempt_s_pause_ends_though_the_clock_was_set_back(store: Store) -> None:
    arrive(store, 1, NOW)
    store.mark_ready(SERIES, 1, "quiet", NOW)
    claim = store.claim(NOW)
    assert claim is not None
    store.fail(claim, "No room on the disk.", NOW, permanent=False)
    assert store.claim(NOW) is None
    assert store.claim(NOW - DAY) is not None


def test_a_clock_set_back_a_little_waits_no_longer_than_the_pause_and_the_jump(store: Store) -> None:
    arrive(store, 1, NOW)
    store.mark_ready(SERIES, 1, "quiet", NOW)
    claim = store.claim(NOW)
    assert claim is not None
    store.fail(claim, "No room on the disk.", NOW, permanent=False)
    back = timedelta(minutes=3)
    assert store.claim(NOW - back) is None
    assert store.claim(NOW - back + back + ATTEMPT_PAUSES[0]) is not None


def test_completeness_takes_a_series_whose_time_lies_ahead(store: Store, tmp_path: Path) -> None:
    from dicom_instances import classic_slice, part10

    from qcnode.intake.facts import read_facts

    facts = read_facts(part10(classic_slice(1, series=SERIES)))
    store.record_instances(
        [Received(SERIES, "1.2", f"{SERIES}.1", "1.2.4", "1.2.1", "a" * 64, 1, NOW, "SWOOP", facts.to_json())]
    )
    settings = Settings(state=StateFolder(folder=tmp_path))
    assert assemble_once(store, lambda uid: AssociationState.UNKNOWN, settings, NOW - DAY)[0] == 1


class Moved(datetime):
    """The system's clock, as the node and its scheduler read it."""

    by = timedelta(0)

    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        return datetime.now(UTC) + cls.by


def test_a_node_whose_clock_is_set_back_by_a_day_goes_on_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(apscheduler.schedulers.base, "datetime", Moved)
    monkeypatch.setattr(clock, "datetime", Moved)
    monkeypatch.setattr(Moved, "by", timedelta(0))
    settings = Settings(
        dicom=Dicom(host="127.0.0.1", port=0), web=Web(port=0), state=StateFolder(folder=tmp_path / "state")
    )
    node = Node(settings)
    runs = threading.Semaphore(0)
    monkeypatch.setattr(node, "_assess", lambda grading: runs.release())
    with caplog.at_level(logging.INFO):
        node.start()
        try:
            for by in (-DAY, DAY):
                Moved.by += by
                while runs.acquire(blocking=False):
                    pass  # what ran before the jump
                for _ in range(3):  # one may be on its way, one was due by the old clock
                    assert runs.acquire(timeout=10), "the scheduler waits for the old time to come round again"
        finally:
            node.stop()
    assert any(event.kind == "clock_moved" for event in _events(settings))


def _events(settings: Settings) -> list[object]:
    with Store.open(settings.state) as store:
        return list(store.overview.events())


def test_retention_rests_after_the_clock_was_set_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a wrong year would take every image that is kept."""
    monkeypatch.setattr(clock, "datetime", Moved)
    monkeypatch.setattr(Moved, "by", timedelta(0))
    node = Node(Settings(state=StateFolder(folder=tmp_path)))
    asked: list[datetime] = []

    class Ledger:
        def retainable(self, now: datetime, days: float, destinations: list[str]) -> list[object]:
            asked.append(now)
            return []

    node.store, node.spool = Ledger(), None
    node._retain()
    assert len(asked) == 1
    Moved.by = timedelta(days=365)
    node._retain()
    assert len(asked) == 1
    monkeypatch.setattr(node, "_retention_from", 0.0)  # as a day later
    node._retain()
    assert len(asked) == 2
