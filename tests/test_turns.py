"""Writers of one process take turns: one at a time, in the order in which they came, the patient ones last."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from qcnode.errors import TransientError
from qcnode.ledger import database, turns
from qcnode.ledger.database import Database, connect
from qcnode.ledger.turns import Turns

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def until(true: object, what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.001)


class Crowd:
    """Threads that come one after the other while the turn is taken, and what they did with theirs."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.had: list[int] = []
        self.threads: list[threading.Thread] = []

    def comes(self, patient: bool, seconds: float = 20) -> None:
        number, waiting = len(self.threads), len(self.turns._queue)

        def take() -> None:
            with self.turns.turn(patient=patient, seconds=seconds):
                self.had.append(number)

        self.threads.append(threading.Thread(target=take))
        self.threads[-1].start()
        until(lambda: len(self.turns._queue) > waiting, "the next in the queue")

    def goes(self) -> None:
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()


@given(st.lists(st.booleans(), max_size=6))
def test_who_came_first_is_first_and_the_patient_are_last(patience: list[bool]) -> None:
    crowd = Crowd(Turns())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "PATIENCE_SECONDS", 60.0)
        with crowd.turns.turn(patient=True, seconds=1):
            for patient in patience:
                crowd.comes(patient)
            assert crowd.had == []
        crowd.goes()
    assert crowd.had == sorted(range(len(patience)), key=lambda number: (patience[number], number))


def test_the_patient_give_way_to_nobody_who_comes_long_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE_SECONDS", 0.01)
    crowd = Crowd(Turns())
    with crowd.turns.turn(patient=False, seconds=1):
        crowd.comes(patient=True)
        time.sleep(0.02)
        crowd.comes(patient=False)
    crowd.goes()
    assert crowd.had == [0, 1]


def test_one_at_a_time_and_none_is_forgotten() -> None:
    taken, inside, most, done = Turns(), [0], [0], [0]

    def work(patient: bool) -> None:
        for _ in range(200):
            with taken.turn(patient=patient, seconds=20):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0)
                inside[0] -= 1
                done[0] += 1

    threads = [threading.Thread(target=work, args=(number % 2 == 0,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (most, done, taken._queue, taken._taken) == ([1], [800], [], False)


def test_who_waits_in_vain_is_told_and_holds_up_nobody() -> None:
    crowd = Crowd(Turns())
    with crowd.turns.turn(patient=False, seconds=1):
        with pytest.raises(TimeoutError), crowd.turns.turn(patient=False, seconds=0.01):
            pass
        crowd.comes(patient=True)
    crowd.goes()
    assert crowd.had == [0]


def test_a_turn_that_fails_is_handed_on() -> None:
    failing = Turns()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), failing.turn(patient=False, seconds=1):
            raise ZeroDivisionError


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Database]:
    opened = Database(connect(f"sqlite:///{tmp_path / 'ledger.sqlite3'}"))
    yield opened
    opened.engine.dispose()


def test_a_writer_among_busy_ones_waits_for_one_transaction_at_most(ledger: Database) -> None:
    """SQLite alone lets the waiting one poll, and the busy one that comes back at once wins nearly every time."""
    ending = threading.Event()
    transactions: list[float] = []

    def arrivals() -> None:
        while not ending.is_set():
            with ledger.writing(patient=True) as session:
                database.record(session, "arrived", None, {}, NOW)
                time.sleep(0.02)  # holds the lock: what is measured is who comes next
            transactions.append(time.monotonic())

    busy = threading.Thread(target=arrivals)
    busy.start()
    try:
        until(lambda: transactions, "the first arrival")
        for _ in range(5):
            asked = time.monotonic()
            with ledger.writing() as session:
                database.record(session, "assessed", None, {}, NOW)
                came = time.monotonic()
            assert sum(asked < at < came for at in transactions) <= 1
    finally:
        ending.set()
        busy.join(20)
    with ledger.reading() as session:
        assert session.scalar(text("SELECT count(*) FROM event")) == len(transactions) + 5


def test_a_turn_that_does_not_come_is_a_ledger_out_of_reach(ledger: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_MILLISECONDS", 10)
    with ledger.writing(), pytest.raises(TransientError, match="locked"), ledger.writing():
        pass
