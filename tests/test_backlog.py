"""The backlog knows of which series it holds instances, until they are recorded."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

from dicom_instances import SERIES, classic_slice, part10
from hypothesis import given
from hypothesis import strategies as st

from qcnode.intake.associations import AssociationEvent
from qcnode.intake.backlog import Backlog
from qcnode.intake.facts import read_facts
from qcnode.intake.spool import Outcome, Receipt
from qcnode.intake.storing import Received

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
RECEIVED = Received(
    read_facts(part10(classic_slice(1))), Receipt(Outcome.STORED, Path("x"), "0" * 64, 1), "SWOOP1", NOW
)
EVENT = AssociationEvent("established", "SWOOP1", "QCNODE", "127.0.0.1", NOW)


@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(1, 8))
def test_what_came_is_taken_once_in_order_and_its_series_is_known_until_it_is_recorded(
    instances: list[bool], most: int
) -> None:
    backlog, left = Backlog(), sum(instances)
    came = [RECEIVED if instance else EVENT for instance in instances]
    for one in came:
        backlog.add(one)
    backlog.end()
    taken, ended = [], False
    while not ended:
        assert backlog.series() == ({SERIES} if left else set())
        batch, ended = backlog.take(most)
        assert len(batch) <= most
        assert backlog.series() == ({SERIES} if left else set())
        taken += batch
        left -= sum(one is RECEIVED for one in batch)
        backlog.recorded(batch)
    assert taken == came
    assert backlog.series() == frozenset()


def test_it_waits_for_what_comes() -> None:
    backlog = Backlog()
    threading.Timer(0.05, backlog.add, (EVENT,)).start()
    assert backlog.take(8) == ([EVENT], False)
