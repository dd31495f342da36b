"""The reckoning after each round: what the node promised its senders, held against its spool and its archives."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields

from archives import data_set
from destinations import Destination, Report
from peers import FINAL, NodeProcess, wait_until
from scanners import Shipment

from qcnode.ledger.models import Series
from qcnode.ledger.store import Store
from qcnode.states import DeliveryState, State

STUCK_SECONDS = 120.0  # on a loaded machine; a round's work is a few seconds


@dataclass
class Counts:
    """What was counted; those whose name is in FAULTS must be zero."""

    acknowledged: int = 0  # instances answered Success
    lost: int = 0  # … that are not in the spool
    changed: int = 0  # … that are there with another SHA-256
    series: int = 0
    stuck: int = 0  # series that reached no end, or whose documents reached none
    not_assessed: int = 0  # series that ended failed or excluded
    unseen: int = 0  # acknowledged instances of which their series' last report does not speak
    revisions: int = 0  # assessments in the ledger
    reports: int = 0  # structured reports at the destinations, each counted once
    missing: int = 0  # revision and destination without a report
    doubled: int = 0  # revision and destination with two different ones, or one that the ledger does not know
    altered: int = 0  # documents that arrived twice with different bytes
    sent_again: int = 0  # documents that arrived twice, the same: a kill between the archive's answer and the ledger

    FAULTS = ("lost", "changed", "stuck", "not_assessed", "unseen", "missing", "doubled", "altered")

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    @property
    def faults(self) -> dict[str, int]:
        """What should be zero and is not."""
        return {name: count for name in self.FAULTS if (count := getattr(self, name))}

    def __str__(self) -> str:
        return " ".join(f"{one.name}={getattr(self, one.name)}" for one in fields(self))


def reckon(
    node: NodeProcess, shipments: Sequence[Shipment], destinations: Sequence[Destination], seconds: float | None = None
) -> Counts:
    """Wait until each series came to its end, and count; one without an instance acknowledged is left out."""
    counts = kept(node, shipments)
    with Store(f"sqlite:///{node.state / 'ledger.sqlite3'}") as ledger:
        for shipment in shipments:
            if shipment.acknowledged:
                counts += _series(ledger, shipment, destinations, seconds or STUCK_SECONDS)
    return counts


def transfers(destinations: Sequence[Destination]) -> Counts:
    """What arrived more than once, the same or not; to be counted once, at the end."""
    counts = Counts()
    for destination in destinations:
        counts.altered += sum(len(digests) > 1 for digests in destination.contents.values())
        counts.sent_again += sum(times - 1 for times in destination.kept.values())
    return counts


def kept(node: NodeProcess, shipments: Sequence[Shipment]) -> Counts:
    """Of every instance answered Success: is it in the spool, with the bytes that were sent."""
    counts = Counts()
    for shipment in shipments:
        for sop in shipment.acknowledged.copy():  # a scanner that nothing stopped goes on
            counts.acknowledged += 1
            try:
                part10 = (node.state / "spool" / shipment.series_uid / f"{sop}.dcm").read_bytes()
            except FileNotFoundError:
                counts.lost += 1
                continue
            counts.changed += hashlib.sha256(data_set(part10)).hexdigest() != shipment.digests[sop]
    return counts


def _series(ledger: Store, shipment: Shipment, destinations: Sequence[Destination], seconds: float) -> Counts:
    def ended() -> Series | None:
        one = ledger.overview.detail(shipment.series_uid)
        if one is None or one.state not in FINAL or one.instance_count < len(shipment.acknowledged):
            return None
        rows = [d for a in one.assessments for document in a.documents for d in document.deliveries]
        return one if all(row.state is not DeliveryState.PENDING for row in rows) else None

    counts = Counts(series=1)
    try:
        series = wait_until(ended, seconds, f"the end of series {shipment.series_uid}")
    except AssertionError:
        counts.stuck = 1
        return counts
    counts.not_assessed = series.state is not State.ASSESSED
    counts.revisions = len(series.assessments)
    expected = {
        (a.revision, str(d.sop_instance_uid)) for a in series.assessments for d in a.documents if d.kind == "report"
    }
    for destination in destinations:
        arrived = [report for report in destination.reports.copy() if report.series_uid == shipment.series_uid]
        found = {(report.revision, report.sop_instance_uid) for report in arrived}
        counts.reports += len(found)
        counts.missing += len(expected - found)
        counts.doubled += len(found - expected) + len(expected) - len({revision for revision, _ in expected})
        counts.unseen += len(shipment.acknowledged - _last(arrived))
    return counts


def _last(reports: Sequence[Report]) -> frozenset[str]:
    return max(reports, key=lambda report: report.revision).instances if reports else frozenset()
