"""How fast instances arrive: ours beside DCMTK's storescp, Orthanc and pynetdicom's storescp, in one run.

    python benchmarks/ingest.py            all of it, some minutes
    python benchmarks/ingest.py --quick    classic slices alone, few of them

The sender is DCMTK's storescu, one process an association, with Nagle's algorithm (TCP_NODELAY=0) and without. Ours is
durable: each instance is on disk before it is acknowledged. Orthanc syncs its files too (SyncStorageArea, its default).
The other two never sync. Each figure is the median of several rounds in which the receivers take turns. Ours is as it
is configured by default, with a process for each core; a second table holds it against itself in one process.

The senders run on the same cores. The last table says what they take of the processors, start of the programs included,
and so how much they could send at most, were the receiver to cost nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from machine import described

from qcnode.artifacts import Plane
from qcnode.config import Dicom
from qcnode.imaging import phantom
from qcnode.imaging.swoop import classic_series, swoop_series, to_bytes
from qcnode.intake.listener import Listener
from qcnode.intake.spool import Spool

RECEIVERS = ("qcnode", "storescp", "Orthanc", "pynetdicom")
MOST_ASSOCIATIONS = {"pynetdicom": 10}  # that its program admits; there is no option for more
OURS, ALONE = RECEIVERS[0], "one process"


def main() -> None:
    """Measure, and print a table of 80 columns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, help="this number of associations alone")
    parser.add_argument("--quick", action="store_true", help="classic slices alone, few of them, one round")
    parser.add_argument("--receive", type=Path, help=argparse.SUPPRESS)  # be the receiver, in a process of its own
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--processes", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.receive:
        receive(arguments.receive, arguments.port, arguments.processes)
        return
    kinds = {"classic": 24} if arguments.quick else {"classic": 72, "enhanced": 4}
    rounds, associations = (1, (1, 4)) if arguments.quick else (3, (1, 4, 16))
    associations = (arguments.only,) if arguments.only else associations
    with tempfile.TemporaryDirectory(prefix="ingest-") as name, ExitStack() as stack:
        folder = Path(name)
        ports = {who: stack.enter_context(receiver(who, folder)) for who in RECEIVERS}
        print(described())
        print(f"instances/s (MB/s), median of {rounds}; ratio: qcnode to the best of the others")
        print(f"{'what':9}{'assoc':>5}  {'Nagle':6}" + "".join(f"{who:>13}" for who in RECEIVERS) + f"{'ratio':>6}")
        taken: dict[tuple[str, int], float] = {}
        for kind, count in kinds.items():
            for number in associations:
                each = max(1, count // max(1, number // 4))
                before = senders_seconds()
                for nagle in (True, False):
                    print(row(folder, ports, kind, number, each, rounds, nagle=nagle), flush=True)
                receivers = sum(number <= MOST_ASSOCIATIONS.get(who, number) for who in ports)
                taken[kind, number] = (senders_seconds() - before) / (2 * rounds * receivers * number * each)
        both = {OURS: ports[OURS], ALONE: stack.enter_context(receiver(ALONE, folder))}
        print(f"\n{'what':9}{'assoc':>5}  {'Nagle':6}" + "".join(f"{who:>13}" for who in both) + f"{'ratio':>6}")
        for number in associations:
            each = max(1, kinds["classic"] // max(1, number // 4))
            print(row(folder, both, "classic", number, each, rounds, nagle=False), flush=True)
        cores = os.cpu_count() or 1
        print(f"\nsenders   assoc   processor ms an instance   at most, on {cores} cores")
        for (kind, number), seconds in taken.items():
            print(f"{kind:9}{number:6d}{1000 * seconds:27.2f}{cores / seconds:17.0f}/s")


def row(
    folder: Path, ports: dict[str, int], kind: str, associations: int, each: int, rounds: int, *, nagle: bool
) -> str:
    """One line of the table: the receivers take turns, each round with instances that nobody has seen."""
    rates: dict[str, list[float]] = {
        who: [] for who in ports if associations <= MOST_ASSOCIATIONS.get(who, associations)
    }
    size = 0
    for _ in range(rounds):
        for who in rates:
            outgoing = folder / "outgoing"
            size = prepare(outgoing, kind, associations, each)
            rates[who].append(associations * each / send(outgoing, ports[who], associations, nagle=nagle))
            shutil.rmtree(outgoing)
    median = {who: statistics.median(found) for who, found in rates.items()}
    ratio = median[OURS] / max(rate for who, rate in median.items() if who != OURS)
    cells = "".join(
        f"{f'{median[who]:.1f} ({median[who] * size / 1e6:.1f})' if who in median else 'refuses':>13}" for who in ports
    )
    return f"{kind:9}{associations:5d}  {'on' if nagle else 'off':6}{cells}{ratio:6.1f}"


def senders_seconds() -> float:
    """Processor time of all senders so far, the only children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


_HEAD = phantom.head(np.random.default_rng(1), Plane.AXIAL)


def prepare(folder: Path, kind: str, associations: int, each: int) -> int:
    """Fresh instances, a folder for each association; the size of one in bytes."""
    size = 0
    for number in range(associations):
        made = folder / str(number)
        made.mkdir(parents=True)
        instances: list[bytes] = []
        while len(instances) < each:
            generator = np.random.default_rng()
            if kind == "classic":
                instances += map(to_bytes, classic_series(_HEAD, patient_id="BENCHMARK", generator=generator))
            else:
                instances.append(to_bytes(swoop_series(_HEAD, patient_id="BENCHMARK", generator=generator)))
        for index, data in enumerate(instances[:each]):
            (made / f"{index}.dcm").write_bytes(data)
            size = len(data)
    return size


def send(folder: Path, port: int, associations: int, *, nagle: bool) -> float:
    """Seconds until every association is done; a failure of any ends the benchmark."""
    environment = os.environ | {"TCP_NODELAY": "0" if nagle else "1"}
    began = time.perf_counter()
    senders = [
        subprocess.Popen(  # noqa: S603
            [tool("storescu"), "-aec", "ANY", "+sd", "127.0.0.1", str(port), str(folder / str(number))],
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        for number in range(associations)
    ]
    if any(code != 0 for code in [sender.wait(600) for sender in senders]):
        raise SystemExit(f"storescu failed on port {port}.")
    return time.perf_counter() - began


@contextmanager
def receiver(who: str, folder: Path) -> Iterator[int]:
    """A receiver at work in a process of its own; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    home = folder / who
    home.mkdir()
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command(who, port, home), stdout=quiet, stderr=quiet)  # noqa: S603
    try:
        echo = [tool("echoscu"), "127.0.0.1", str(port)]
        deadline = time.monotonic() + 60
        while subprocess.run(echo, capture_output=True, check=False).returncode != 0:  # noqa: S603
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit(f"{who} did not start.")
            time.sleep(0.1)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def command(who: str, port: int, home: Path) -> Sequence[str]:
    """How each receiver is started."""
    if who == "storescp":
        return [tool("storescp"), "--fork", "+B", "-od", str(home), str(port)]
    if who == "pynetdicom":
        return [sys.executable, "-m", "pynetdicom", "storescp", "-od", str(home), str(port)]
    if who == "Orthanc":
        with socket.create_server(("127.0.0.1", 0)) as probe:
            http_port = probe.getsockname()[1]
        configuration = {"StorageDirectory": str(home), "IndexDirectory": str(home), "DicomPort": port}
        configuration |= {"HttpPort": http_port, "DicomAlwaysAllowStore": True, "SyncStorageArea": True, "Plugins": []}
        file = home / "orthanc.json"
        file.write_text(json.dumps(configuration))
        return [tool("Orthanc"), str(file)]
    ours = [sys.executable, __file__, "--receive", str(home), "--port", str(port)]
    return [*ours, "--processes", "1"] if who == ALONE else ours


def receive(folder: Path, port: int, processes: int | None) -> None:
    """Be qcnode's listener over a spool, until ended."""
    settings = Dicom(host="127.0.0.1", port=port, processes=processes)
    listener = Listener(settings, Spool(folder), lambda received: None)
    listener.start()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    listener.stop()


def tool(name: str) -> str:
    """A peer's program, not pynetdicom's of the same name."""
    path = shutil.which(name, path="/usr/bin:/usr/sbin:/bin:/usr/local/bin")
    if path is None:
        raise SystemExit(f"{name} is not installed; install dcmtk and orthanc to compare with them.")
    return path


if __name__ == "__main__":
    main()
