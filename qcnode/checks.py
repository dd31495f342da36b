"""What `qcnode check` looks at: each finding says what is well, or what to do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from qcnode.config import Assessing, Settings
from qcnode.delivery import dicom, notify
from qcnode.errors import QcnodeError
from qcnode.ledger.store import Store

ROOM_BYTES = 2 * 1024**3  # about 1,500 Swoop series


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    ok: bool
    says: str


def findings(settings: Settings) -> Iterator[Finding]:
    """Configuration (it was read, or we would not be here), weights, ledger, disk, and each destination and alert."""
    yield Finding("configuration", True, f"AE {settings.dicom.ae_title}, port {settings.dicom.port}")
    yield _weights("weights", settings.assessing)
    if (trial := settings.assessing.on_trial()) is not None:
        yield _weights("weights in shadow", trial)
    yield _ledger(settings)
    yield _disk(settings)
    for destination in settings.destinations:
        subject = f"destination {destination.name}"
        try:
            seconds = dicom.echo(destination, settings.dicom.ae_title)
        except QcnodeError as error:
            yield Finding(subject, False, str(error))
        else:
            yield Finding(subject, True, f"C-ECHO answered in {seconds * 1000:.0f} ms")
    for name, alert in settings.alert_names().items():
        known = notify.recognised(alert.url)
        yield Finding(f"alert {name}", known, "a URL that Apprise knows" if known else "no Apprise URL; see its list")


def _weights(subject: str, assessing: Assessing) -> Finding:
    from qcnode.ensemble.runtime import Ensemble

    try:
        ensemble = Ensemble.load(assessing.weights, assessing.device, assessing.threads)
    except QcnodeError as error:
        return Finding(subject, False, str(error))
    return Finding(subject, True, f"{ensemble.id}, for {', '.join(sorted(ensemble.contrasts))}; the hashes are right")


def _ledger(settings: Settings) -> Finding:
    try:
        with Store.open(settings.state) as store:
            series = sum(store.overview.counts().values())
    except QcnodeError as error:
        return Finding("ledger", False, str(error))
    return Finding("ledger", True, f"{series} series")


def _disk(settings: Settings) -> Finding:
    free = shutil.disk_usage(settings.state.folder).free
    enough = free >= ROOM_BYTES
    says = f"{free / 1024**3:.0f} GiB free at {settings.state.folder}"
    return Finding("disk", enough, says if enough else f"{says}: make room, or move [state] folder")
