"""Series with verdicts in a ledger, without the cost of their documents' making."""

from __future__ import annotations

from datetime import datetime, timedelta

from page_cases import NOW

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.ledger.records import NewDocument, Received
from qcnode.ledger.store import Store
from qcnode.verdict import Assessment, Grade, not_assessable, verdict

KINDS = ("report", "flag", "capture")


def graded(plane: Plane = Plane.AXIAL, noise: float | None = 0.03, **severities: int) -> Assessment:
    """Grades by the default policy; artifacts that are not named are clean."""
    grades = {artifact: Grade(Severity(severities.get(artifact.value, 0)), (0.2, 0.3, 0.5)) for artifact in Artifact}
    return Assessment(verdict(grades), plane=plane, grades=grades, ensemble="e-1", noise=noise)


def ungraded() -> Assessment:
    """One that holds no volume."""
    return Assessment(not_assessable("Too few slices."), ensemble="e-1")


def series(
    store: Store,
    uid: str,
    assessment: Assessment,
    *,
    calling_ae: str = "SWOOP1",
    serial: str | None = None,
    at: datetime = NOW,
    seconds: float = 3.0,
    destination: str | None = None,
    planes: str | None = None,
) -> None:
    """A series that arrived then, and whose verdict took so many seconds; its documents are due to the destination."""
    facts = {"device_serial_number": serial} if serial else {}
    store.record_instances([Received(uid, "1.2", f"{uid}.1", "1.2.840", "1.2.1", "a" * 64, 9, at, calling_ae, facts)])
    assert store.mark_ready(uid, 1, "quiet", at)
    claim = store.claim(at)
    assert claim is not None
    documents = [
        NewDocument(kind, "1.2.840", f"2.25{uid[1:]}.{n}", f"documents/{uid}.{n}.dcm") for n, kind in enumerate(KINDS)
    ]
    due = [(kind, destination) for kind in KINDS] if destination else []
    later = at + timedelta(seconds=seconds)
    assert store.finish(claim, assessment, documents if destination else [], due, later, planes=planes)
