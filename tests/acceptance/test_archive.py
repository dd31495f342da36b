"""What a site's archive, consoles and people get: the right documents, once, under the right patient."""

from __future__ import annotations

import html
import json
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from archives import Orthanc, counting_archive, data_set, destination, storescp
from peers import NodeProcess, free_port, storescu, tool, wait_until
from pydicom import Dataset, dcmread

from qcnode.imaging.swoop import swoop_series, to_bytes
from qcnode.imaging.volume import Volume
from qcnode.ledger.models import AssessmentRow, DocumentRow, Series
from qcnode.states import DeliveryState, State
from qcnode.verdict import Decision

PATIENT_NAME, PATIENT_ID = "QUINTARELLI^ZOE", "MRN-77120934"
# Whatever the grades are, this site wants every scan repeated: so that there is a flag and an alert to follow.
ALWAYS_RESCAN = "[policy.Noise]\nrescan = { severity = 0, probability = 0.0 }\n"
MODALITY_OF_KIND = {"report": "SR", "flag": "KO", "capture": "OT"}


@dataclass
class Site:
    """One series that went all the way, and everybody who heard of it."""

    node: NodeProcess
    sent: Dataset
    series: Series
    orthanc: Orthanc
    dcmtk: Path
    sender: Counter[str]
    stranger: Counter[str]
    webhook: list[bytes]

    @property
    def assessment(self) -> AssessmentRow:
        assert self.series.latest is not None
        return self.series.latest

    @property
    def documents(self) -> dict[str, DocumentRow]:
        return {document.kind: document for document in self.assessment.documents}

    def bytes_of(self, kind: str) -> bytes:
        return (self.node.state / str(self.documents[kind].path)).read_bytes()


def synthetic(head: Volume, seed: int, folder: Path) -> tuple[Dataset, Path]:
    """A Swoop object of a patient, and its file."""
    generator = np.random.default_rng(seed)
    sent = swoop_series(head, patient_id=PATIENT_ID, patient_name=PATIENT_NAME, generator=generator)
    file = folder / f"{seed}.dcm"
    file.write_bytes(to_bytes(sent))
    return sent, file


@pytest.fixture(scope="module")
def webhook() -> Iterator[tuple[int, list[bytes]]]:
    """A chat's or a pager's webhook: its port, and what was posted to it."""
    posted: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            head = f"{self.requestline}\n{self.headers}".encode()
            posted.append(head + self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port, posted
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, clean_head: Volume, webhook: tuple[int, list[bytes]]
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    dcmtk_port, sender_port, stranger_port = free_port(), free_port(), free_port()
    webhook_port, posted = webhook
    sent, file = synthetic(clean_head, 1, folder)
    with ExitStack() as peers:
        orthanc = peers.enter_context(Orthanc(folder / "orthanc").running())
        dcmtk = peers.enter_context(storescp(folder / "dcmtk", dcmtk_port))
        sender = peers.enter_context(counting_archive(sender_port))
        stranger = peers.enter_context(counting_archive(stranger_port))
        extra = (
            ALWAYS_RESCAN
            + destination("pacs", "ORTHANC", orthanc.port)
            + destination("console", "DCMTK", dcmtk_port)
            + destination("sender", "SWOOP1", sender_port, 'send = ["capture"]\nfrom_ae = ["SWOOP1"]')
            + destination("stranger", "SWOOP9", stranger_port, 'from_ae = ["SWOOP9"]')
            + f'[[alerts]]\nurl = "json://127.0.0.1:{webhook_port}/rescan"\n'
        )
        node = NodeProcess(folder, free_port(), free_port(), extra)
        peers.callback(node.end)
        node.start()
        assert storescu(orthanc.port, file, called="ORTHANC").returncode == 0
        assert storescu(node.port, file).returncode == 0
        series = node.finished(str(sent.SeriesInstanceUID))
        yield Site(node, sent, series, orthanc, dcmtk, sender, stranger, posted)


def test_the_series_is_assessed_and_everything_delivered(site: Site) -> None:
    assert (site.series.state, site.assessment.decision) == (State.ASSESSED, Decision.RESCAN)
    assert set(site.documents) == {"report", "flag", "capture", "alert"}
    states = {delivery.state for document in site.documents.values() for delivery in document.deliveries}
    assert states == {DeliveryState.SENT}


def test_orthanc_shows_report_flag_and_capture_under_the_patient_and_study_of_the_images(site: Site) -> None:
    patients = site.orthanc.json("/patients?expand")
    assert [patient["MainDicomTags"]["PatientID"] for patient in patients] == [PATIENT_ID]
    assert patients[0]["MainDicomTags"]["PatientName"] == PATIENT_NAME
    studies = site.orthanc.json("/studies?expand")
    assert [study["MainDicomTags"]["StudyInstanceUID"] for study in studies] == [str(site.sent.StudyInstanceUID)]
    series = site.orthanc.json("/series?expand")
    assert sorted(one["MainDicomTags"]["Modality"] for one in series) == ["KO", "MR", "OT", "SR"]
    assert all(len(one["Instances"]) == 1 for one in series)


def test_what_orthanc_keeps_is_what_the_node_wrote(site: Site) -> None:
    kept = site.orthanc.instances()
    for kind, modality in MODALITY_OF_KIND.items():
        uid = str(site.documents[kind].sop_instance_uid)
        assert data_set(kept[uid]) == data_set(site.bytes_of(kind)), kind
        assert str(dcmread(site.node.state / str(site.documents[kind].path)).Modality) == modality


def test_dcmtk_gets_the_same_and_its_tools_find_no_fault(site: Site) -> None:
    arrived = {dcmread(path).Modality: path for path in site.dcmtk.iterdir()}
    assert sorted(arrived) == ["KO", "OT", "SR"]
    for kind, modality in MODALITY_OF_KIND.items():
        assert data_set(arrived[modality].read_bytes()) == data_set(site.bytes_of(kind)), kind
        said = run("dciodvfy", arrived[modality])
        assert not [line for line in said.splitlines() if line.startswith("Error")], said


def test_the_report_reads_well(site: Site) -> None:
    report = next(path for path in site.dcmtk.iterdir() if dcmread(path).Modality == "SR")
    read = run("dsrdump", "+Pl", report)
    assert PATIENT_NAME in read, "the reader sees whose scan it is"
    assert "rescan" in read.lower()
    for reason in site.assessment.reasons:
        assert reason in read
    percent = [float(p) for p in re.findall(r'"Probability of severe"\)="([\d.]+)" \(%', read)]
    assert percent == pytest.approx([100 * score.p2 for score in site.assessment.scores], abs=0.06)


def test_the_sender_gets_back_what_it_asked_for_and_a_stranger_nothing(site: Site) -> None:
    assert site.sender == {site.documents["capture"].sop_instance_uid: 1}
    assert not site.stranger


def test_the_alert_says_what_to_do_and_nothing_of_the_patient(site: Site) -> None:
    (posted,) = site.webhook
    message = json.loads(posted[posted.index(b"{") :])
    assert message["title"] == "Repeat this scan (axial)"
    assert "Repeat this scan;" in message["message"]
    assert str(site.sent.SeriesInstanceUID)[-8:] in message["message"]
    for secret in (*secrets(), str(site.sent.StudyInstanceUID)):
        assert secret not in posted.decode()


def test_the_page_shows_the_verdict_and_gives_the_documents(site: Site) -> None:
    uid = str(site.sent.SeriesInstanceUID)
    for path in ("/", f"/series/{uid}"):
        page = html.unescape(site.node.get(path).decode())
        assert "rescan" in page
        assert site.assessment.reasons[0] in page
        assert not [secret for secret in secrets() if secret in page]
    assert site.node.get(f"/series/{uid}/verdict.png").startswith(b"\x89PNG")
    report = site.documents["report"].sop_instance_uid
    assert site.node.get(f"/series/{uid}/documents/{report}.dcm") == site.bytes_of("report")


def test_the_log_knows_no_patient(site: Site) -> None:
    assert str(site.sent.SeriesInstanceUID) in site.node.log
    assert not [secret for secret in secrets() if secret in site.node.log]


def test_a_header_against_the_rules_is_graded_all_the_same_and_stays_out_of_the_log(
    site: Site, clean_head: Volume, tmp_path: Path
) -> None:
    sent, file = synthetic(clean_head, 4, tmp_path)
    data = file.read_bytes()
    for rightful, wrong in ((PATIENT_ID, "MRN\\77120\x1b34"), (PATIENT_NAME, "QUINTARELLI\xffZO\\")):
        assert data.count(rightful.encode()) == 1
        data = data.replace(rightful.encode(), wrong.encode("latin-1"))
    file.write_bytes(data)
    assert storescu(site.node.port, file).returncode == 0
    found = site.node.finished(str(sent.SeriesInstanceUID))
    assert found.state is State.ASSESSED, found.reason
    assert not [secret for secret in ("77120", "UINTARELLI") if secret in site.node.log]


def test_an_archive_that_is_down_holds_up_nobody_and_gets_everything_once(
    start_node: Callable[..., NodeProcess], clean_head: Volume, tmp_path: Path
) -> None:
    down, up = free_port(), free_port()
    sent = [synthetic(clean_head, seed, tmp_path) for seed in (2, 3)]
    extra = ALWAYS_RESCAN + destination("down", "COUNTER", down) + destination("up", "COUNTER", up)
    with counting_archive(up) as healthy:
        node = start_node(extra)
        started = time.monotonic()
        for number, (_, file) in enumerate(sent, 1):
            assert storescu(node.port, file).returncode == 0
            wait_until(lambda n=number: len(healthy) == 3 * n, 30, "the delivery to the archive that is up")
        wait_until(lambda: "put_off destination=down" in node.log, 15, "a failed attempt")
        pending = node.status()["deliveries"]
        assert pending == {"sent": 6, "pending": 6}
        with counting_archive(down) as late:
            for dataset, _ in sent:
                node.finished(str(dataset.SeriesInstanceUID), seconds=30)
            assert late == healthy
            assert set(late.values()) == {1}
        assert time.monotonic() - started < 60


def secrets() -> tuple[str, ...]:
    """What of the patient must stay between the scanner and the archive."""
    given_name = PATIENT_NAME.split("^")[1]
    return (PATIENT_ID, PATIENT_NAME.split("^")[0], PATIENT_NAME.split("^")[0].title(), f"^{given_name}")


def run(name: str, *arguments: str | Path) -> str:
    """What another maker's tool prints."""
    done = subprocess.run([tool(name), *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr
