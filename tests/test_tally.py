"""The tally equals the counts, whatever happened: any work, rows that went, a rollback, a kill, an upgrade."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, func, select, text

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.ledger import migrations
from qcnode.ledger.models import AssessmentRow, Delivery, Instance, Series
from qcnode.ledger.records import Claim, Forwarding, NewDocument, Received, Settlement
from qcnode.ledger.store import Store
from qcnode.states import DeliveryState, State
from qcnode.verdict import Assessment, Decision, Grade, verdict

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PACS = [Forwarding("pacs", "PACS")]


def counted(store: Store) -> object:
    """What the tally should say, counted row by row."""
    way = (Delivery.destination, Delivery.kind, Delivery.state)
    with store._database.reading() as session:
        series = session.execute(select(Series.state, func.count()).group_by(Series.state))
        verdicts = session.execute(select(AssessmentRow.decision, func.count()).group_by(AssessmentRow.decision))
        return (
            session.scalar(select(func.count()).select_from(Instance)),
            dict.fromkeys(State, 0) | {row[0]: row[1] for row in series},
            dict.fromkeys(Decision, 0) | {row[0]: row[1] for row in verdicts},
            {tuple(row[:3]): row[3] for row in session.execute(select(*way, func.count()).group_by(*way))},
        )


def tallied(store: Store) -> object:
    found = store.overview.counters()
    return found.instances, found.series, found.verdicts, found.deliveries


class History:
    """Something that could happen, one after the other, as chance will have it."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store, self.random, self.claims = store, random.Random(seed), list[Claim]()

    def happens(self) -> None:
        number = self.random.randrange(6)
        uid, now = f"1.2.{number}", NOW + timedelta(minutes=self.random.randrange(60))
        self.random.choice(
            (self._arrives, self._arrives, self._ready, self._claimed, self._ended, self._sent, self._odd)
        )(uid, now)

    def _arrives(self, uid: str, now: datetime) -> None:
        image, sha = self.random.randrange(4), self.random.choice("ab")
        facts = ("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.1.2.1", sha * 64, 100, now, "SWOOP", {"image": image})
        self.store.record_instances([Received(uid, "1.1", f"{uid}.{image}", *facts)])

    def _ready(self, uid: str, now: datetime) -> None:
        for series in self.store.receiving():
            self.store.mark_ready(series.series_uid, series.revision, "quiet", now, PACS)

    def _claimed(self, uid: str, now: datetime) -> None:
        if claim := self.store.claim(now + timedelta(days=1)):
            self.claims.append(claim)

    def _ended(self, uid: str, now: datetime) -> None:
        if not self.claims:
            return
        claim, end = self.claims.pop(), self.random.randrange(4)
        if end == 0:
            self.store.fail(claim, "broken", now, permanent=self.random.random() < 0.5)
            return
        severity = Severity(self.random.randrange(3))
        grades = {artifact: Grade(severity, (0.2, 0.3, 0.5)) for artifact in Artifact}
        why = "is CT, not MR" if end == 1 else None
        assessment = Assessment(verdict(grades), plane=Plane.AXIAL, grades=grades, ensemble="e", excluded=why)
        report = NewDocument("report", "1.2", f"2.25.{self.random.getrandbits(60)}", "documents/x.dcm")
        ways = [("report", "pacs"), ("report", "archive"), ("alert", "alert-1")]
        self.store.finish(claim, assessment, [report, NewDocument("alert", title="t", body="b")], ways, now, PACS)

    def _sent(self, uid: str, now: datetime) -> None:
        name = self.random.choice(("pacs", "archive", "alert-1"))
        due = self.store.deliveries.due(name, NOW + timedelta(days=1), limit=3)
        ends = [Settlement(one.id, self.random.choice(list(DeliveryState)), "x", now) for one in due]
        self.store.deliveries.settle(ends, now)

    def _odd(self, uid: str, now: datetime) -> None:
        series = self.store.overview.detail(uid)
        if series is None:
            return
        self.random.choice(
            (
                lambda: self.store.retry(uid, now),
                lambda: self.store.recover(now),
                lambda: self.store.deliveries.revive(now),
                lambda: self.store.deliveries.bury(["pacs"], now),
                lambda: self.store.deliveries.defer("pacs", now),
                lambda: self.store.mark_removed(uid, [one.sop_instance_uid for one in series.instances], now),
            )
        )()


@given(seed=st.integers(0, 2**32 - 1))
@hypothesis_settings(max_examples=10, deadline=None)
def test_the_tally_equals_the_counts_after_any_history(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    with Store(f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'ledger.sqlite3'}") as store:
        assert tallied(store) == counted(store)
        history = History(store, seed)
        for _ in range(60):
            history.happens()
            assert tallied(store) == counted(store)
        with store._database.writing() as session:  # no code of ours removes a row; a person with a shell might
            session.execute(text("DELETE FROM delivery WHERE id % 2 = 0"))
            session.execute(text("UPDATE delivery SET destination = 'elsewhere', kind = 'flag' WHERE id % 3 = 0"))
        assert tallied(store) == counted(store)


def test_what_is_rolled_back_is_not_tallied(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path / 'ledger.sqlite3'}") as store:
        history = History(store, 1)
        history._arrives("1.2.3", NOW)
        before = tallied(store)

        def broken() -> None:
            with store._database.writing() as session:
                session.execute(text("UPDATE series SET state = 'failed'"))
                session.execute(text("DELETE FROM instance"))
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            broken()
        assert tallied(store) == counted(store) == before


def test_a_kill_at_any_moment_leaves_them_equal(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    rows = 0
    for seed in range(4):
        busy = (
            f"from test_tally import *\nwith Store({url!r}) as store:\n    history = History(store, {seed})\n"
            "    print('begun', flush=True)\n    while True: history.happens()"
        )
        process = subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE, cwd=Path(__file__).parent)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(random.Random(seed).uniform(0.2, 0.6))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
        with Store(url) as store:
            assert tallied(store) == counted(store)
            rows, before = store.overview.counters().instances, rows
            assert rows >= before
    assert rows, "nothing happened"


def test_an_earlier_version_s_rows_are_counted_when_the_tally_begins(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    plain = create_engine(url)
    with plain.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        at = "'2025-03-01 09:00:00.000000'"
        for uid, state in (("1.2", "assessed"), ("1.3", "assessed"), ("1.4", "failed")):
            connection.execute(
                text(
                    "INSERT INTO series (series_instance_uid, state, state_since, revision, attempts, calling_ae, "
                    f"first_received_at, last_received_at) VALUES ('{uid}', '{state}', {at}, 1, 1, 'A', {at}, {at})"
                )
            )
    plain.dispose()
    with Store(url) as store:
        assert tallied(store) == counted(store)
        assert store.overview.counts()[State.ASSESSED] == 2
