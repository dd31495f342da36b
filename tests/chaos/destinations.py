"""Destinations with a fault: what they accepted they keep, and how they fail is chosen by the test."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from peers import free_port
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification

SUCCESS, CANNOT_UNDERSTAND = 0x0000, 0xC000
Fault = Callable[["Destination", evt.Event], int]  # keeps the object or not, and answers


@dataclass(frozen=True)
class Report:
    """A structured report as it arrived: of which series and revision, and of which instances it speaks."""

    sop_instance_uid: str
    series_uid: str
    revision: int
    instances: frozenset[str]


@dataclass
class Destination:
    """What one archive holds."""

    name: str
    port: int = field(default_factory=free_port)
    requests: int = 0  # C-STORE requests, whatever became of them
    kept: Counter[str] = field(default_factory=Counter)  # how often each SOP Instance UID was kept
    contents: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # SHA-256 of each
    reports: set[Report] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, event: evt.Event) -> int:
        """Store the object."""
        uid = str(event.request.AffectedSOPInstanceUID)
        with self.lock:
            self.kept[uid] += 1
            self.contents[uid].add(hashlib.sha256(event.encoded_dataset(include_meta=False)).hexdigest())
            if event.request.AffectedSOPClassUID == Comprehensive3DSRStorage:
                self.reports.add(_report(event.dataset))
        return SUCCESS

    @property
    def configuration(self) -> str:
        """The table of the node's configuration that names it."""
        return (
            f'[[destinations]]\nname = "{self.name}"\nae_title = "{self.name.upper()}"\n'
            f'host = "127.0.0.1"\nport = {self.port}\n'
        )

    @contextmanager
    def running(self, fault: Fault | None = None) -> Iterator[None]:
        """Listen, with the fault, until the context ends."""
        answer = fault or (lambda destination, event: destination.keep(event))

        def on_store(event: evt.Event) -> int:
            with self.lock:
                self.requests += 1
            return answer(self, event)

        entity = AE(ae_title=self.name.upper())
        entity.supported_contexts = AllStoragePresentationContexts
        entity.add_supported_context(Verification)
        handlers = [(evt.EVT_C_STORE, on_store)]
        server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)
        assert server is not None  # block=False returns it
        try:
            yield
        finally:
            server.shutdown()


def refuses_every_third(destination: Destination, event: evt.Event) -> int:
    """Answer a failure for each third object that is asked for."""
    return CANNOT_UNDERSTAND if destination.requests % 3 == 0 else destination.keep(event)


def accepts_then_aborts(destination: Destination, event: evt.Event) -> int:
    """Abort inside the first two objects: before it is kept, then after it is kept and before it is acknowledged."""
    if destination.requests == 1:
        event.assoc.abort()
        return CANNOT_UNDERSTAND
    destination.keep(event)
    if destination.requests == 2:
        event.assoc.abort()
    return SUCCESS


def slow(destination: Destination, event: evt.Event) -> int:
    """Take a second and a half for each object."""
    time.sleep(1.5)  # the fault itself
    return destination.keep(event)


def _report(dataset: Dataset) -> Report:
    [study] = dataset.CurrentRequestedProcedureEvidenceSequence
    [series] = study.ReferencedSeriesSequence
    return Report(
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_uid=str(series.SeriesInstanceUID),
        revision=int(dataset.InstanceNumber),
        instances=frozenset(str(item.ReferencedSOPInstanceUID) for item in series.ReferencedSOPSequence),
    )
