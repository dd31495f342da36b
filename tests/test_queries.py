"""What the node asks its ledger each second and for each series reads no whole table: SQLite says how it would."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import event

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.config import Destination, Settings, StateFolder
from qcnode.delivery import outbox
from qcnode.delivery.outcome import ACCEPTED
from qcnode.imaging import phantom
from qcnode.imaging.swoop import swoop_series, to_bytes
from qcnode.intake.completeness import AssociationState
from qcnode.intake.facts import read_facts
from qcnode.intake.spool import Spool
from qcnode.ledger.store import Store
from qcnode.reporting.documents import documents
from qcnode.steps import adopt, assemble_once, assess_once
from qcnode.verdict import Assessment, Grade, verdict
from qcnode.worker import Job, Outcome

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def graded(job: Job) -> Outcome:
    grades = {artifact: Grade(Severity.SEVERE, (0.0, 0.1, 0.9)) for artifact in Artifact}
    assessment = Assessment(verdict(grades), plane=Plane.AXIAL, grades=grades, ensemble="stand-in")
    return Outcome(assessment, documents(assessment, job.instances, revision=1, at=job.at, predecessor_uid=None))


def scans(store: Store, work: Callable[[], object]) -> set[str]:
    """The tables of which `work` reads every row, by the plans of its statements."""
    engine = store._database.engine
    statements: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if re.match(r"SELECT|UPDATE|DELETE|WITH", statement):
            statements.append((statement, parameters[0] if many else parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        work()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert statements, "nothing was asked"
    found = set()
    with engine.connect() as connection:
        for statement, parameters in statements:
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters):
                if (scan := re.match(r"SCAN (\w+)\b(?! USING)", row[3])) and scan[1] not in ("CONSTANT", "anon_1"):
                    found.add(f"{scan[1]} in {' '.join(statement.split())[:300]}")
    return found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    pacs = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104, send=("report", "flag", "images"))
    return Settings(state=StateFolder(folder=tmp_path), destinations=(pacs,))


def test_the_work_of_each_second_and_of_each_series_reads_no_whole_table(settings: Settings) -> None:
    generator = np.random.default_rng(1)
    instance = to_bytes(swoop_series(phantom.head(generator, Plane.AXIAL), patient_id="P", generator=generator))
    facts = read_facts(instance)
    with Store.open(settings.state) as store:
        spool = Spool(settings.state.folder)

        def assemble() -> object:
            return assemble_once(store, lambda uid: AssociationState.RELEASED, settings, NOW)

        def assess() -> object:
            return assess_once(store, spool, settings.state.folder, graded, settings, lambda: NOW)

        def deliver() -> object:
            soon = NOW + timedelta(minutes=1)
            return outbox.deliver_once(store, "pacs", lambda due: [ACCEPTED] * len(due), soon, random.Random(1))

        for nothing_to_do in (assemble, assess, deliver):
            assert not scans(store, nothing_to_do), nothing_to_do.__name__
        spool.put(instance, facts.series_instance_uid, facts.sop_instance_uid)
        adopt(store, spool, NOW)
        for step in (assemble, assess, deliver):
            assert not scans(store, step), step.__name__
        assert not scans(store, lambda: store.recover(NOW))
        assert not scans(store, lambda: store.overview.recent(20))
        assert not scans(store, store.overview.version)
        assert store.overview.rescans()[0] == 1
        assert not scans(store, store.overview.rescans)
        assert not scans(store, lambda: store.overview.detail(facts.series_instance_uid))
        assert not scans(store, store.deliveries.next_due)
        assert not scans(store, lambda: store.retry(facts.series_instance_uid, NOW))


def test_the_counts_read_the_tally_alone(settings: Settings) -> None:
    with Store.open(settings.state) as store:
        for counted in (store.overview.counts, store.deliveries.counts, store.overview.counters):
            assert {found.split()[0] for found in scans(store, counted)} == {"tally"}


def test_what_asks_for_the_spool_s_instances_finds_them_by_an_index_of_those_alone(settings: Settings) -> None:
    with Store.open(settings.state) as store:
        assert not scans(store, store.known_instances)
        assert not scans(store, lambda: store.retainable(NOW, 30.0))


def test_a_whole_table_that_is_read_is_told(settings: Settings) -> None:
    with Store.open(settings.state) as store, store._database.engine.connect() as connection:
        assert scans(store, lambda: connection.exec_driver_sql("SELECT facts FROM instance").all())
