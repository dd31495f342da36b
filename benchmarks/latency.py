"""How long after the last byte is the verdict known? A Swoop series to a warm node, one after the other.

python benchmarks/latency.py [--series 20] [--load 4] [--moved]

From the last byte sent to (a) the verdict in the ledger, (b) the report accepted by the archive, (c) the alert posted,
and what each stage takes of (b). --load: as many other senders (DCMTK's storescu) store slices of another modality all
the while, as fast as the node takes them. --moved: of scans with severe motion, whose slices are looked for, and whose
report names them; else of clean ones.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests" / "acceptance"))

import numpy as np
from machine import described
from peers import NodeProcess, free_port, nodes, tool, wait_until
from pydicom.uid import Comprehensive3DSRStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, AllStoragePresentationContexts, evt

from qcnode.artifacts import Plane
from qcnode.imaging import phantom
from qcnode.imaging.swoop import classic_series, swoop_series, to_bytes
from qcnode.ledger.models import Series
from qcnode.states import State

WARM_UP = 2  # series whose figures do not count
Times = dict[str, float]  # seconds since the epoch, by what happened then


@dataclass
class Seen:
    """When what reached the world outside the node."""

    reports: Times = field(default_factory=dict)  # by series
    alerts: list[float] = field(default_factory=list)


def main() -> None:
    """Print medians, 95th percentiles, and the stages' shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=20)
    parser.add_argument("--load", type=int, default=0, help="other senders")
    parser.add_argument("--moved", action="store_true", help="scans with severe motion")
    arguments = parser.parse_args()
    print(described())
    head = (phantom.moved_head if arguments.moved else phantom.head)(np.random.default_rng(1), Plane.AXIAL)
    seen = Seen()
    with tempfile.TemporaryDirectory(prefix="qcnode-latency-") as folder, ExitStack() as running:
        archive = running.enter_context(_archive(seen))
        alerts = running.enter_context(_webhook(seen))
        start = running.enter_context(nodes(Path(folder)))
        node = start(
            f'[[destinations]]\nname = "pacs"\nae_title = "ARCHIVE"\nhost = "127.0.0.1"\nport = {archive}\n'
            f'[[alerts]]\nurl = "json://127.0.0.1:{alerts}/"\non = ["accept", "review", "rescan", "not_assessable"]\n'
        )
        load = running.enter_context(_load(node, Path(folder), head, arguments.load))
        measured = [_one(node, seen, head, number) for number in range(arguments.series + WARM_UP)][WARM_UP:]
        stored = sum(1 for _ in (node.state / "spool").glob("*/*.dcm")) - arguments.series - WARM_UP
        lasted = time.monotonic() - load
    kind, beside = "moved" if arguments.moved else "clean", f", beside {arguments.load} senders"
    print(f"{arguments.series} Swoop series, {kind}, warm" + (beside if arguments.load else ""))
    if arguments.load:
        print(f"the other senders stored {stored / lasted:.0f} instances/s")
    _print(measured)


def _print(measured: list[Times]) -> None:
    whole = statistics.median(one["b"] - one["sent"] for one in measured)
    print(f"{'seconds from the last byte sent':44s}{'median':>10s}{'p95':>10s}{'share of (b)':>14s}")
    for name, begin, end in (
        ("(a) verdict in the ledger", "sent", "assessed"),
        ("(b) report accepted by the archive", "sent", "b"),
        ("(c) alert posted", "sent", "c"),
        ("  durable, answered, and in the ledger", "sent", "recorded"),
        ("  found complete", "recorded", "ready"),
        ("  claimed", "ready", "assessing"),
        ("  volume", "0", "volume"),
        ("  network input and seven networks", "0", "grading"),
        ("  slices that carry a grade", "0", "slices"),
        ("  preview", "0", "preview"),
        ("  documents, their files, one transaction", "0", "documents"),
        ("  delivered", "assessed", "b"),
    ):
        seconds = [one[end] - one[begin] for one in measured]
        share = "" if name.startswith("(") else f"{100 * statistics.median(seconds) / whole:12.0f} %"
        print(f"{name:44s}{statistics.median(seconds):10.3f}{float(np.percentile(seconds, 95)):10.3f}{share}")


def _one(node: NodeProcess, seen: Seen, head: phantom.Volume, number: int) -> Times:
    dataset = swoop_series(head, patient_id="LATENCY", generator=np.random.default_rng(1000 + number))
    uid, alerts = str(dataset.SeriesInstanceUID), len(seen.alerts)
    written: list[float] = []
    entity = AE(ae_title="SWOOP1")
    entity.add_requested_context(EnhancedMRImageStorage, ExplicitVRLittleEndian)
    handlers = [(evt.EVT_DATA_SENT, lambda event: written.append(time.time()))]
    association = entity.associate("127.0.0.1", node.port, ae_title="QCNODE", evt_handlers=handlers)
    assert association.send_c_store(dataset).Status == 0x0000
    times = {"0": 0.0, "sent": written[-1]}
    association.release()
    wait_until(lambda: uid in seen.reports and len(seen.alerts) > alerts, 300, "the report and the alert")
    series = node.series(uid)
    assert isinstance(series, Series)
    assert series.latest is not None
    happened = {event.kind: event.at.timestamp() for event in series.events}
    times |= {state.value: happened[state.value] for state in (State.READY, State.ASSESSING)}
    # The verdict's row bears the time before its transaction; the transaction is over when its event can be read, and
    # the first who reads it is the delivery. What lies between is part of the delivery's share here.
    times |= {"recorded": happened[State.RECEIVING.value], "assessed": happened[State.ASSESSED.value]}
    times |= {"b": seen.reports[uid], "c": seen.alerts[-1]}
    times |= {stage: float(seconds) for stage, seconds in series.latest.seconds.items()}
    inside = sum(float(seconds) for seconds in series.latest.seconds.values())
    return times | {"documents": times["assessed"] - times["assessing"] - inside}


@contextmanager
def _archive(seen: Seen) -> Iterator[int]:
    def keep(event: evt.Event) -> int:
        if event.request.AffectedSOPClassUID == Comprehensive3DSRStorage:
            [study] = event.dataset.CurrentRequestedProcedureEvidenceSequence
            seen.reports[str(study.ReferencedSeriesSequence[0].SeriesInstanceUID)] = time.time()
        return 0x0000

    entity = AE(ae_title="ARCHIVE")
    entity.supported_contexts = AllStoragePresentationContexts
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    assert server is not None  # block=False returns it
    yield int(server.server_address[1])
    server.shutdown()


@contextmanager
def _webhook(seen: Seen) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.alerts.append(time.time())
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@contextmanager
def _load(node: NodeProcess, folder: Path, head: phantom.Volume, senders: int) -> Iterator[float]:
    """So many storescu that send slices of 31 KB over one association each, a series of 36 at a time."""
    [instance, *_] = classic_series(head, patient_id="LOAD", generator=np.random.default_rng(2))
    instance.Modality = "CT"
    (folder / "slice.dcm").write_bytes(to_bytes(instance))
    command = [tool("storescu"), "-q", "+IR", "36", "--repeat", "1000000", "-aec", "QCNODE", "127.0.0.1"]
    processes = [
        subprocess.Popen([*command, str(node.port), str(folder / "slice.dcm")], stdout=subprocess.DEVNULL)  # noqa: S603
        for _ in range(senders)
    ]
    try:
        yield time.monotonic()
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
