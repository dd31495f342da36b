"""Where documents go: Orthanc, DCMTK's storescp, and an archive that counts."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peers import free_port, tool, wait_until
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification


@dataclass
class Orthanc:
    """Orthanc with a database of its own, without plugins; its REST API says what it holds."""

    folder: Path
    port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)

    @contextmanager
    def running(self) -> Iterator[Orthanc]:
        self.folder.mkdir(exist_ok=True)
        configuration = {
            "Name": "archive",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "index"),
            "DicomAet": "ORTHANC",
            "DicomPort": self.port,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True,
            "DicomCheckCalledAet": False,
            "Plugins": [],
        }
        file = self.folder / "orthanc.json"
        file.write_text(json.dumps(configuration))
        with (self.folder / "orthanc.log").open("wb") as log:
            process = subprocess.Popen([tool("Orthanc"), str(file)], stdout=log, stderr=log)
        try:
            wait_until(self._answers, 30, "the start of Orthanc")
            yield self
        finally:
            process.terminate()
            process.wait(30)

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=10) as answer:
            return bytes(answer.read())

    def json(self, path: str) -> Any:
        return json.loads(self.get(path))

    def instances(self) -> dict[str, bytes]:
        """The files of all that it holds, by SOP Instance UID."""
        found = self.json("/instances?expand")
        return {one["MainDicomTags"]["SOPInstanceUID"]: self.get(f"/instances/{one['ID']}/file") for one in found}

    def _answers(self) -> bool:
        try:
            return bool(self.json("/system"))
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


@contextmanager
def storescp(folder: Path, port: int) -> Iterator[Path]:
    """DCMTK's archive: a file for each instance in `folder`, bits as they came."""
    folder.mkdir(exist_ok=True)
    command = [tool("storescp"), "-aet", "DCMTK", "+B", "-od", str(folder), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listens, 10, "the start of storescp")
        yield folder
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def counting_archive(port: int) -> Iterator[Counter[str]]:
    """An archive that takes everything; how often it was sent each SOP Instance UID."""
    arrived: Counter[str] = Counter()

    def keep(event: evt.Event) -> int:
        arrived[str(event.request.AffectedSOPInstanceUID)] += 1
        return 0x0000

    entity = AE("COUNTER")
    entity.supported_contexts = AllStoragePresentationContexts
    entity.add_supported_context(Verification)
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    assert server is not None
    try:
        yield arrived
    finally:
        server.shutdown()


def destination(name: str, ae_title: str, port: int, more: str = "") -> str:
    """A destination of loopback, as the configuration names it."""
    return f'[[destinations]]\nname = "{name}"\nae_title = "{ae_title}"\nhost = "127.0.0.1"\nport = {port}\n{more}\n'


def data_set(part10: bytes) -> bytes:
    """What follows the file meta information, whose length its first element states (PS3.10 Section 7.1)."""
    assert part10[128:136] == b"DICM\x02\x00\x00\x00"
    return part10[144 + int.from_bytes(part10[140:144], "little") :]
