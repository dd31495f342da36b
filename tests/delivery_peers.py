"""Where documents and alerts go in the tests: DCMTK's archive, an archive that answers as told, a webhook."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from qcnode.config import Destination

STORESCP = shutil.which("storescp")
needs_dcmtk = pytest.mark.skipif(STORESCP is None, reason="DCMTK's storescp is not installed")


def document(number: int, sop_class: UID = Comprehensive3DSRStorage) -> bytes:
    """A small Part 10 file; its content is of no matter to a C-STORE."""
    dataset = Dataset()
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = f"2.25.{1000 + number}"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "2.25.1", "2.25.2"
    dataset.Modality = "SR"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def destination(port: int, **more: object) -> Destination:
    return Destination(name="pacs", ae_title="ARCHIVE", host="127.0.0.1", port=port, **more)


@contextmanager
def storescp(folder: Path, port: int, *options: str) -> Iterator[None]:
    """DCMTK's archive, up within the block."""
    folder.mkdir(exist_ok=True)
    command = [str(STORESCP), "-aet", "ARCHIVE", "+uf", "-od", str(folder), *options, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def peer(
    on_store: Callable[[evt.Event], int],
    classes: tuple[UID, ...] = (Comprehensive3DSRStorage, SecondaryCaptureImageStorage, UID(Verification)),
    syntaxes: tuple[UID, ...] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
    called: str | None = None,
) -> Iterator[int]:
    """An archive that answers as it is told; gives its port."""
    ae = AE(ae_title="ARCHIVE")
    ae.require_called_aet = called is not None
    for sop_class in classes:
        ae.add_supported_context(sop_class, list(syntaxes))
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, on_store)])
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


@contextmanager
def webhook(status: int = 200) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """An HTTP server that keeps what it is sent; gives its Apprise URL and what came."""
    came: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"json://127.0.0.1:{server.server_address[1]}/rescan", came
        finally:
            server.shutdown()
            thread.join()
