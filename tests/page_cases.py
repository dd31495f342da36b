"""Series with verdicts in a ledger, and what a page holds: shared by the tests of the page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import httpx
from pydicom import Dataset
from reporting_cases import as_bytes, swoop

from qcnode.config import Destination, Web
from qcnode.imaging.swoop import to_bytes
from qcnode.intake.spool import Spool
from qcnode.ledger.records import Claim, NewDocument, Received
from qcnode.ledger.store import Store
from qcnode.reporting.documents import documents
from qcnode.verdict import Assessment
from qcnode.web.server import WebServer

PASSWORD = "correct horse battery"
PATIENCE = 280.0  # seconds; a busy machine is no fault of the page
NOW = datetime(2026, 3, 1, 12, 30, 15, tzinfo=UTC)


def received(store: Store, series_uid: str = "1.2.3", calling_ae: str = "SWOOP1", number: int = 1) -> None:
    one = Received(series_uid, "1.2", f"{series_uid}.{number}", "1.2.840", "1.2.1", "a" * 64, 9, NOW, calling_ae, {})
    store.record_instances([one])


def claimed(store: Store, series_uid: str = "1.2.3", revision: int = 1) -> Claim:
    assert store.mark_ready(series_uid, revision, "all its frames are there", NOW)
    claim = store.claim(NOW)
    assert claim is not None
    return claim


def assessed(
    store: Store, folder: Path, assessment: Assessment, series_uid: str = "1.2.3", planes: str | None = None
) -> dict[str, NewDocument]:
    """A series with this assessment, its documents in the state folder, on their way to an archive."""
    received(store, series_uid)
    made = {}
    for document in documents(assessment, as_bytes(swoop()), revision=1, at=NOW, predecessor_uid=None):
        path = Path("documents") / f"{document.sop_instance_uid}.dcm"
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(document.data)
        made[document.kind] = NewDocument(
            document.kind, document.sop_class_uid, document.sop_instance_uid, path=str(path)
        )
    deliveries = [(kind, "pacs") for kind in made]
    assert store.finish(claimed(store, series_uid), assessment, list(made.values()), deliveries, NOW, planes=planes)
    return made


def spooled(store: Store, folder: Path, *datasets: Dataset) -> str:
    """The series in spool and ledger, as the listener puts it there; its UID."""
    spool = Spool(folder)
    for ds in datasets:
        uid, sop, data = str(ds.SeriesInstanceUID), str(ds.SOPInstanceUID), to_bytes(ds)
        receipt = spool.put(data, uid, sop)
        syntax = str(ds.file_meta.TransferSyntaxUID)
        names = (uid, str(ds.StudyInstanceUID), sop, str(ds.SOPClassUID), syntax)
        store.record_instances([Received(*names, receipt.sha256, receipt.size, NOW, "SWOOP1", {})])
    return uid


class Markup(HTMLParser):
    """The elements and the text of a page; fails on an element that is not closed."""

    VOID = ("meta", "link", "img", "br", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data.split()

    @property
    def text(self) -> str:
        return " ".join(self.words)


@contextmanager
def served(
    store: Store, folder: Path, settings: Web | None = None, destinations: Sequence[Destination] = ()
) -> Iterator[httpx.Client]:
    """A browser, as it were, at the page over this ledger and this state folder."""
    server = WebServer(settings or Web(port=0, timezone="UTC"), store, folder, destinations)
    server.start()
    try:
        with httpx.Client(base_url=server.url, timeout=PATIENCE) as client:
            yield client
    finally:
        server.stop()


def markup(page: httpx.Client, path: str) -> Markup:
    answer = page.get(path)
    assert answer.status_code == 200, answer.text
    return Markup(answer.text)


def token(page: httpx.Client, path: str = "/login") -> str:
    """What the forms of a page bring back, as a browser reads it there."""
    found = re.search(r'name="form_token" value="([0-9a-f]{64})"', page.get(path).text)
    assert found is not None, "the page has no form"
    return found[1]


def log_in(page: httpx.Client, name: str, password: str = PASSWORD, **fields: str) -> httpx.Response:
    return page.post("/login", data={"form_token": token(page), "name": name, "password": password, **fields})
