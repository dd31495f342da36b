"""The short form of the chaos script: senders that are cut off, a round of SIGKILL, and the reckoning itself."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from destinations import Destination
from kills import QUICK, Chaos
from peers import nodes
from reckoning import STUCK_SECONDS, kept, reckon, transfers
from scanners import shipment
from scenarios import cut_off

SEED = 20


@pytest.fixture
def decisions() -> Iterator[list[str]]:
    """The log of what was decided; it is printed when the test fails."""
    lines: list[str] = []
    yield lines
    print("\n".join([f"seed {SEED}", *lines]))


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # of refused connections, by pynetdicom
def test_a_kill_at_any_moment_loses_nothing_and_doubles_nothing(tmp_path: Path, decisions: list[str]) -> None:
    generator = random.Random(SEED)
    pacs = Destination("pacs")
    with pacs.running(), nodes(tmp_path) as start:
        chaos = Chaos(start(QUICK + pacs.configuration), [pacs], decisions.append, latest_kill_seconds=3.0)
        cut_off(chaos.node, [shipment(generator)], generator, decisions.append, 6)
        counts = chaos.round(generator, "everything")
        assert not counts.faults, counts
        assert counts.acknowledged == sum(len(one.instances) for one in chaos.sent)
        assert counts.series == len(chaos.sent) == len({report.series_uid for report in pacs.reports})
        assert "Traceback" not in chaos.node.log
        assert not transfers([pacs]).faults

        # The reckoning itself: it sees what was never sent, what is gone, and what is not as it was.
        never, one, other = shipment(generator), *chaos.sent[:2]
        never.acknowledged |= set(never.digests)
        assert kept(chaos.node, [never]).lost == len(never.instances)
        assert reckon(chaos.node, [never], [pacs], seconds=0.1).faults == {"lost": len(never.instances), "stuck": 1}
        spooled = [chaos.node.state / "spool" / s.series_uid / f"{max(s.acknowledged)}.dcm" for s in (one, other)]
        spooled[0].unlink()
        spooled[1].write_bytes(spooled[1].read_bytes()[:-1] + b"?")
        pacs.reports -= {report for report in pacs.reports if report.series_uid == other.series_uid}
        faults = reckon(chaos.node, [one, other], [pacs], STUCK_SECONDS).faults
        assert faults.pop("unseen") == len(other.instances)
        assert faults.pop("missing") >= 1
        assert faults == {"lost": 1, "changed": 1}
