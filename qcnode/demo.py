"""`qcnode demo`: a whole node, two synthetic series over a real association, and what came of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pynetdicom import AE, AllStoragePresentationContexts, evt

from qcnode.artifacts import Plane
from qcnode.config import Destination, Dicom, Settings, StateFolder, Web
from qcnode.delivery import dicom
from qcnode.delivery.outcome import Answer
from qcnode.errors import TransientError
from qcnode.imaging import phantom
from qcnode.imaging.swoop import swoop_series, to_bytes
from qcnode.ledger.assessments import assessment_of
from qcnode.ledger.models import Series
from qcnode.node import Node
from qcnode.states import DeliveryState, State
from qcnode.verdict import Assessment

SCANNER = "SWOOP-DEMO"  # the AE title that the synthetic scanner calls from
DEADLINE_SECONDS = 180.0


@dataclass(frozen=True)
class Shown:
    """One series of the demo: what it was made as, and what the node's ledger says of it."""

    made_as: str
    series: Series
    assessment: Assessment
    spooled: Path  # its folder in the spool
    documents: list[tuple[str, Path | None, str]]  # kind, the archive's copy, and how its deliveries went


@contextmanager
def running(
    folder: Path, tell: Callable[[str], None], signalled: threading.Event
) -> Iterator[tuple[Node, list[Shown]]]:
    """A node in `folder` that has graded and reported the synthetic series; it runs until the context ends.

    Raises KeyboardInterrupt between two steps once `signalled` is set: raised at any line it could leave a transaction
    half done, and the node could not end.
    """
    with archive(folder / "archive") as port:
        node = Node(settings(folder, port))
        node.start()
        try:
            tell(f"node started: AE {node.settings.dicom.ae_title}, port {node.listener.port}, page {node.web.url}")
            made = []
            for name, instance in synthetic_series():
                _heed(signalled)
                send(node, instance)
                tell(f"sent {name} over a DICOM association (Enhanced MR, {len(instance) / 1e6:.1f} MB)")
                made.append(name)
            series = wait_for(node, len(made), tell, signalled)
            yield node, [_shown(name, one, folder) for name, one in zip(made, series, strict=True)]
        finally:
            node.stop()


@contextmanager
def archive(folder: Path) -> Iterator[int]:
    """A small archive that keeps what it is sent in `folder`; yields its port."""
    folder.mkdir(parents=True, exist_ok=True)

    def keep(event: evt.Event) -> int:
        path = folder / f"{event.file_meta.MediaStorageSOPInstanceUID}.dcm"
        path.write_bytes(event.encoded_dataset())
        return 0x0000

    entity = AE("ARCHIVE")
    entity.supported_contexts = AllStoragePresentationContexts
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    assert server is not None  # block=False returns it
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()


def settings(folder: Path, archive_port: int) -> Settings:
    """The defaults, on free ports of loopback, with the demo's archive as the one destination."""
    return Settings(
        dicom=Dicom(host="127.0.0.1", port=0),
        state=StateFolder(folder=folder / "node"),
        web=Web(port=0),
        destinations=(Destination(name="archive", ae_title="ARCHIVE", host="127.0.0.1", port=archive_port),),
    )


def synthetic_series(seed: int = 64) -> Iterator[tuple[str, bytes]]:
    """What each series is made as, and its one Enhanced MR object, made when it is asked for."""
    heads = {"a clean scan": phantom.head, "a scan with severe motion": phantom.moved_head}
    for number, (name, head) in enumerate(heads.items()):
        generator = np.random.default_rng(seed + number)
        dataset = swoop_series(head(generator, Plane.AXIAL), patient_id=f"DEMO-{number + 1}", generator=generator)
        yield name, to_bytes(dataset)


def send(node: Node, instance: bytes) -> None:
    """C-STORE the instance to the node, as a scanner would."""
    ours = node.settings.dicom
    listener = Destination(name="node", ae_title=ours.ae_title, host="127.0.0.1", port=node.listener.port)
    outcome = dicom.send([instance], listener, SCANNER)[0]
    if outcome.answer is not Answer.ACCEPTED:
        raise TransientError(f"The node did not take the synthetic series ({outcome.error}); run the demo again.")


def wait_for(node: Node, count: int, tell: Callable[[str], None], signalled: threading.Event) -> list[Series]:
    """The series, oldest first, once each has its verdict and its documents are delivered; see `running`."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    said: set[tuple[str, str]] = set()
    while time.monotonic() < deadline:
        series = sorted(node.store.overview.recent(count), key=lambda one: one.first_received_at)
        for one in series:
            if (one.series_instance_uid, one.state) not in said:
                said.add((one.series_instance_uid, one.state))
                tell(f"series …{one.series_instance_uid[-8:]} is {one.state.value}")
        if len(series) == count and all(map(_is_finished, series)):
            return series
        _heed(signalled)
        time.sleep(0.1)  # not by waiting for the event: a signal's handler sets it on this thread, and it has a lock
    raise TransientError(
        f"The demo's series were not graded within {DEADLINE_SECONDS:.0f} s; run it again with --debug."
    )


def _heed(signalled: threading.Event) -> None:
    if signalled.is_set():
        raise KeyboardInterrupt


def _shown(name: str, series: Series, folder: Path) -> Shown:
    assert series.latest is not None  # wait_for saw to it
    documents: list[tuple[str, Path | None, str]] = []
    for document in series.latest.documents:
        copy = folder / "archive" / f"{document.sop_instance_uid}.dcm" if document.sop_instance_uid else None
        delivered = ", ".join(f"{delivery.state.value} to {delivery.destination}" for delivery in document.deliveries)
        documents.append((document.kind, copy, delivered))
    spooled = folder / "node" / "spool" / series.series_instance_uid
    return Shown(name, series, assessment_of(series.latest), spooled, documents)


def _is_finished(series: Series) -> bool:
    if series.state is State.FAILED:
        raise TransientError(
            f"A synthetic series could not be graded: {series.reason} Run the demo again with --debug."
        )
    return series.latest is not None and all(
        delivery.state is DeliveryState.SENT for document in series.latest.documents for delivery in document.deliveries
    )
