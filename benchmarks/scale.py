"""Does the node slow down with what it remembers? With 0, 10,000 and 1,000,000 finished series in the ledger.

python benchmarks/scale.py [--series 0 10000 1000000] [--repeat 15] [--processor]

Each finished series has one instance (its file already gone by retention), an assessment, seven scores, two documents,
their deliveries and six events: one real series, copied with UIDs, numbers and times of its own.

--processor: the processor's time instead of the clock's, ours and our children's, for a machine that others use too.
"""

from __future__ import annotations

import argparse
import random
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests" / "acceptance"))

import numpy as np
from machine import described
from peers import NodeProcess, free_port

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
from qcnode.status import snapshot
from qcnode.steps import adopt, assemble_once, assess_once, retain_once
from qcnode.verdict import Assessment, Grade, verdict
from qcnode.worker import Job, Outcome

PORTION = 50_000  # copies made in one transaction, so that the write-ahead log stays small
STEP = 1000  # between one copy's numbers and the next's
Clock = Callable[[], float]  # seconds
TABLES = ("series", "instance", "assessment", "score", "document", "delivery", "event")


def main() -> None:
    """Print a table: rows are what was measured (median, milliseconds), columns the numbers of finished series."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, nargs="+", default=[0, 10_000, 1_000_000])
    parser.add_argument("--repeat", type=int, default=15, help="series, and queries")
    parser.add_argument("--starts", type=int, default=3, help="starts of the node, pages, and status commands")
    parser.add_argument("--processor", action="store_true")
    arguments = parser.parse_args()
    print(described() + (", processor time" if arguments.processor else ""))
    clock = _processor_seconds if arguments.processor else time.perf_counter
    columns: dict[int, dict[str, float]] = {}
    for count in arguments.series:
        with tempfile.TemporaryDirectory(prefix="qcnode-scale-") as folder:
            columns[count] = _measured(Path(folder), count, arguments.repeat, arguments.starts, clock)
    names = list(next(iter(columns.values())))
    print(f"{'milliseconds (median)':28s}" + "".join(f"{count:>12,d}" for count in columns) + f"{'last/first':>12s}")
    for name in names:
        values = [column[name] for column in columns.values()]
        print(f"{name:28s}" + "".join(f"{value:12.1f}" for value in values) + f"{values[-1] / values[0]:12.2f}")


def _measured(folder: Path, count: int, repeat: int, starts: int, clock: Clock) -> dict[str, float]:
    settings = Settings(
        state=StateFolder(folder=folder / "state"),
        destinations=(Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=104),),
    )
    head = phantom.head(np.random.default_rng(1), Plane.AXIAL)
    series = [_instance(head, seed) for seed in range(repeat + 1)]
    found: dict[str, list[float]] = {}
    with Store.open(settings.state) as store:
        spool = Spool(settings.state.folder)
        for number, instance in enumerate(series):
            if number == 1 and count:
                print(f"{count:,d} finished series made in {_copied(folder / 'state', count):.0f} s", flush=True)
            for name, seconds in _one_series(store, spool, settings, instance, clock).items():
                if number:
                    found.setdefault(name, []).append(seconds)
        for _ in range(repeat):
            _timed(found, "status, the query", lambda: snapshot(settings, 20), clock)
    node = NodeProcess(folder, free_port(), free_port())
    node.start_seconds = 600.0
    for _ in range(starts):
        if clock is _processor_seconds:  # a child's is known when it has ended
            _timed(found, "start and stop", lambda: node.start().stop(600), clock)
            _timed(found, "qcnode status", lambda: _status(node), clock)
            continue
        _timed(found, "start to first answer", node.start, clock)
        _timed(found, "the page", lambda: node.get("/"), clock)
        _timed(found, "qcnode status", lambda: _status(node), clock)
        node.stop(600)
    node.end()
    return {name: 1000 * statistics.median(values) for name, values in found.items()}


def _one_series(store: Store, spool: Spool, settings: Settings, instance: bytes, clock: Clock) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    facts = read_facts(instance)
    spool.put(instance, facts.series_instance_uid, facts.sop_instance_uid)
    _timed(found, "record (adopt at start)", lambda: adopt(store, spool, _now()), clock)
    _timed(
        found, "assemble", lambda: assemble_once(store, lambda uid: AssociationState.RELEASED, settings, _now()), clock
    )
    folder = settings.state.folder
    _timed(found, "assess, but the networks", lambda: assess_once(store, spool, folder, _graded, settings, _now), clock)
    _timed(
        found,
        "deliver, but the network",
        lambda: outbox.deliver_once(store, "pacs", lambda due: [ACCEPTED] * len(due), _now(), random.Random(1)),
        clock,
    )
    _timed(found, "retain", lambda: retain_once(store, spool, 0.0, _now() + timedelta(seconds=1)), clock)
    return {name: values[0] for name, values in found.items()}


def _graded(job: Job) -> Outcome:
    grades = {artifact: Grade(Severity.NONE, (0.9, 0.1, 0.0)) for artifact in Artifact}
    assessment = Assessment(verdict(grades, job.policy), plane=Plane.AXIAL, grades=grades, ensemble="stand-in")
    return Outcome(assessment, documents(assessment, job.instances, revision=1, at=job.at, predecessor_uid=None))


def _instance(head: phantom.Volume, seed: int) -> bytes:
    return to_bytes(swoop_series(head, patient_id="SCALE", generator=np.random.default_rng(seed)))


def _copied(state: Path, count: int) -> float:
    """Copy the ledger's one series so many times; the seconds that took."""
    started = time.monotonic()
    ledger = sqlite3.connect(state / "ledger.sqlite3", isolation_level=None)
    for pragma in ("synchronous = OFF", "cache_size = -2000000", "foreign_keys = OFF"):
        ledger.execute(f"PRAGMA {pragma}")
    for table in TABLES:
        # The names come from this file and from the schema.
        columns = [row[1] for row in ledger.execute(f"PRAGMA table_info({table})")]
        ledger.execute(f"CREATE TEMP TABLE first_{table} AS SELECT * FROM {table}")  # noqa: S608
        values = ", ".join(map(_own, columns))
        numbers = "WITH RECURSIVE n(i) AS (SELECT ? UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
        into = f"INSERT INTO {table} ({', '.join(columns)})"
        for begin in range(1, count + 1, PORTION):
            portion = (begin, min(begin + PORTION - 1, count))
            ledger.execute(f"{numbers} {into} SELECT {values} FROM n, first_{table}", portion)  # noqa: S608
    ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger.close()
    return time.monotonic() - started


def _own(column: str) -> str:
    """The copy's value of the column: UIDs and numbers of its own, and an earlier time."""
    if column == "id" or column.endswith("_id"):
        return f"{column} + i * {STEP}"
    if column in ("series_instance_uid", "series_uid", "sop_instance_uid", "study_instance_uid"):
        return f"{column} || '.' || i"
    if column in ("at", "state_since") or column.endswith("_at"):
        return f"strftime('%Y-%m-%d %H:%M:%f000', {column}, (-10 * i) || ' seconds')"
    return column


def _status(node: NodeProcess) -> None:
    command = [sys.executable, "-m", "qcnode", "status", "--config", str(node.config)]
    subprocess.run(command, capture_output=True, check=True)  # noqa: S603


def _timed(found: dict[str, list[float]], name: str, work: Callable[[], object], clock: Clock) -> None:
    started = clock()
    work()
    found.setdefault(name, []).append(clock() - started)


def _processor_seconds() -> float:
    of_children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + of_children.ru_utime + of_children.ru_stime


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    main()
