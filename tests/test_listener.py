"""The listener, with DCMTK's tools and pynetdicom as its peers."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicom_instances import SERIES, classic_slice, enhanced, files, part10, stack
from pydicom.dataset import Dataset
from pydicom.pixels import get_encoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEG2000MCLossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
)
from pynetdicom import AE, Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

from qcnode.config import Dicom
from qcnode.intake.completeness import AssociationState
from qcnode.intake.facts import read_facts
from qcnode.intake.listener import AssociationEvent, Listener, Received
from qcnode.intake.negotiation import decodable_transfer_syntaxes
from qcnode.intake.spool import Outcome, Spool

PRIVATE_STORAGE = "1.3.46.670589.11.0.0.12.1"
UNREGISTERED_STORAGE = "1.2.840.10008.5.1.4.1.1.99999"

needs_dcmtk = pytest.mark.skipif(shutil.which("storescu") is None, reason="DCMTK's tools are not installed")


@dataclass
class Running:
    """A listener at work, and what it told its node."""

    listener: Listener
    spool: Spool
    received: list[Received] = field(default_factory=list)
    events: list[AssociationEvent] = field(default_factory=list)
    connections: list[socket.socket] = field(default_factory=list)  # of our own associations

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts listeners on loopback, with the [dicom] settings given."""
    running: list[Running] = []

    def start(**settings: Any) -> Running:
        spool = Spool(tmp_path / "state")
        received: list[Received] = []
        events: list[AssociationEvent] = []
        settings = {"processes": 1} | settings
        listener = Listener(Dicom(host="127.0.0.1", port=0, **settings), spool, received.append, events.append)
        listener.start()
        running.append(Running(listener, spool, received, events))
        return running[-1]

    yield start
    for each in running:
        each.listener.stop(0.0)
        for connection in each.connections:  # pynetdicom leaves one open that its peer has reset
            connection.close()


def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until it holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def dcmtk(tool: str, node: Running, *options: str, send: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run one of DCMTK's senders against the node; what it prints is in stdout."""
    command = [tool, *options, "127.0.0.1", str(node.listener.port), *send]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False)


def associate(
    node: Running, *contexts: tuple[str, list[str]], ae_title: str = "SCANNER", **options: Any
) -> Association:
    """An association of pynetdicom's as the sender."""
    ae = AE(ae_title=ae_title)
    for uid, syntaxes in contexts or ((MRImageStorage, [ExplicitVRLittleEndian]),):
        ae.add_requested_context(uid, syntaxes)
    association = ae.associate("127.0.0.1", node.listener.port, **options)
    if association.dul.socket is not None and association.dul.socket.socket is not None:
        node.connections.append(association.dul.socket.socket)
    return association


def sendable(ds: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> Dataset:
    """The instance as it is after it was read from its file."""
    return pydicom.dcmread(BytesIO(part10(ds, transfer_syntax)))


# Storing


@needs_dcmtk
def test_dcmtk_sends_a_series(start: Start, tmp_path: Path) -> None:
    node = start()
    paths = files(tmp_path, stack(5))
    sent = dcmtk("storescu", node, "-aet", "SWOOP1", send=paths)
    assert sent.returncode == 0, sent.stdout
    assert [one.receipt.outcome for one in node.received] == [Outcome.STORED] * 5
    assert {one.calling_ae for one in node.received} == {"SWOOP1"}
    assert set(node.spool.scan()) == {(SERIES, f"{SERIES}.{n}") for n in range(1, 6)}
    for path in paths:
        original = pydicom.dcmread(path)
        kept = pydicom.dcmread(BytesIO(node.spool.read(SERIES, original.SOPInstanceUID)))
        assert kept == original
    until(lambda: node.kinds()[-2:] == ["established", "released"])


@needs_dcmtk
def test_dcmtk_verifies(start: Start) -> None:
    node = start()
    assert dcmtk("echoscu", node).returncode == 0
    until(lambda: node.kinds() == ["established", "released"])


@needs_dcmtk
def test_an_enhanced_object_arrives_whole(start: Start, tmp_path: Path) -> None:
    node = start()
    [path] = files(tmp_path, [enhanced(40)])
    assert dcmtk("storescu", node, send=[path]).returncode == 0
    [one] = node.received
    assert one.facts.sop_class_uid == EnhancedMRImageStorage
    assert one.facts.number_of_frames == 40
    assert pydicom.dcmread(BytesIO(node.spool.read(SERIES, f"{SERIES}.9000"))) == pydicom.dcmread(path)


def test_the_sender_is_kept_with_the_bytes(start: Start) -> None:
    node = start()
    association = associate(node, ae_title="SWOOP 7")
    assert association.send_c_store(sendable(classic_slice(1))).Status == 0x0000
    association.release()
    stored = read_facts(node.spool.read(SERIES, f"{SERIES}.1"))
    assert stored.source_ae_title == "SWOOP 7"
    assert node.received[0].facts == stored
    assert node.received[0].receipt == node.spool.receipt(SERIES, f"{SERIES}.1")


def compressed(transfer_syntax: UID) -> Dataset:
    """A slice in this transfer syntax; where pydicom cannot encode it, made-up bytes that nobody decodes here."""
    if not transfer_syntax.is_compressed or transfer_syntax == DeflatedExplicitVRLittleEndian:
        return sendable(classic_slice(1), transfer_syntax)
    ds = sendable(classic_slice(1))
    try:
        get_encoder(transfer_syntax)
        ds.compress(transfer_syntax, generate_instance_uid=False)
    except (NotImplementedError, RuntimeError):
        ds.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
        ds["PixelData"].VR = "OB"
        ds.file_meta.TransferSyntaxUID = transfer_syntax
    return ds


@pytest.mark.parametrize("transfer_syntax", sorted(decodable_transfer_syntaxes()), ids=lambda uid: UID(uid).keyword)
def test_every_decodable_transfer_syntax_is_stored_as_it_came(start: Start, transfer_syntax: str) -> None:
    node, ds = start(), compressed(UID(transfer_syntax))
    association = associate(node, (MRImageStorage, [transfer_syntax]))
    assert association.send_c_store(ds).Status == 0x0000
    association.release()
    assert node.received[0].facts.transfer_syntax_uid == transfer_syntax
    assert pydicom.dcmread(BytesIO(node.spool.read(SERIES, f"{SERIES}.1"))).PixelData == ds.PixelData


def test_the_transfer_syntaxes_that_matter_are_decodable() -> None:
    uncompressed = {ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian}
    uncompressed |= {DeflatedExplicitVRLittleEndian}
    jpeg = {JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless}
    assert uncompressed | jpeg | {RLELossless} <= decodable_transfer_syntaxes()


@pytest.mark.parametrize("sop_class", [PRIVATE_STORAGE, UNREGISTERED_STORAGE, "1.2.840.10008.5.1.4.1.1.88.34"])
def test_other_storage_classes_are_stored_too(start: Start, sop_class: str) -> None:
    node = start()
    association = associate(node, (sop_class, [ExplicitVRLittleEndian]))
    assert association.send_c_store(sendable(classic_slice(1, SOPClassUID=sop_class))).Status == 0x0000
    association.release()
    assert node.received[0].facts.sop_class_uid == sop_class


def test_the_peer_s_order_of_transfer_syntaxes_is_kept(start: Start) -> None:
    node = start()
    offers = [JPEG2000MCLossless, RLELossless, JPEGLSLossless, ExplicitVRLittleEndian]
    association = associate(node, (MRImageStorage, offers), (EnhancedMRImageStorage, offers[::-1]))
    accepted = {str(cx.abstract_syntax): cx.transfer_syntax[0] for cx in association.accepted_contexts}
    association.release()
    assert accepted == {MRImageStorage: RLELossless, EnhancedMRImageStorage: ExplicitVRLittleEndian}


def test_what_nobody_can_decode_or_serve_is_not_accepted(start: Start) -> None:
    node = start()
    find = "1.2.840.10008.5.1.4.1.2.1.1"
    contexts = ((MRImageStorage, [JPEG2000MCLossless]), (find, [ExplicitVRLittleEndian]))
    association = associate(node, *contexts, ("1.2.840.10008.1.1", [ImplicitVRLittleEndian]))
    assert [str(cx.abstract_syntax) for cx in association.accepted_contexts] == ["1.2.840.10008.1.1"]
    association.release()


# Again, otherwise, and never


def test_again_changes_nothing_and_other_bytes_are_a_conflict(start: Start) -> None:
    node = start()
    association = associate(node)
    for ds in (classic_slice(1), classic_slice(1), classic_slice(1, ImageComments="other")):
        assert association.send_c_store(sendable(ds)).Status == 0x0000
    association.release()
    outcomes = [one.receipt.outcome for one in node.received]
    assert outcomes == [Outcome.STORED, Outcome.DUPLICATE, Outcome.CONFLICT]
    assert list(node.spool.scan()) == [(SERIES, f"{SERIES}.1")]


def test_a_full_disk_is_out_of_resources(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    node = start()
    association = associate(node)

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as context:
        context.setattr(os, "link", full)
        answer = association.send_c_store(sendable(classic_slice(1)))
    assert answer.Status == 0xA700
    assert node.received == []
    assert association.send_c_store(sendable(classic_slice(1))).Status == 0x0000
    association.release()
    assert len(node.received) == 1


@pytest.mark.parametrize("series", [None, "", "not-a-uid"])
def test_what_belongs_to_no_series_is_not_understood(start: Start, series: str | None) -> None:
    node = start()
    association = associate(node)
    ds = classic_slice(1)
    ds.SeriesInstanceUID = "1.2.3.4.5"
    data = encode(ds, False, True)
    assert data is not None
    if series is None:
        del ds.SeriesInstanceUID
        data = encode(ds, False, True)
    else:
        data = data.replace(b"1.2.3.4.5\0", series.encode().ljust(10, b"\0"))
    assert data is not None
    answer = _store_raw(association, MRImageStorage, f"{SERIES}.1", data)
    association.release()
    assert answer.Status == 0xC000
    assert "SeriesInstanceUID" in str(answer.ErrorComment)
    assert node.received == []
    assert list(node.spool.scan()) == []


def test_another_sop_class_inside_is_a_mismatch(start: Start) -> None:
    node = start()
    association = associate(node)
    other = classic_slice(1, SOPClassUID=EnhancedMRImageStorage)
    answer = _store_raw(association, MRImageStorage, f"{SERIES}.1", other)
    association.release()
    assert answer.Status == 0xA900
    assert node.received == []


@pytest.mark.filterwarnings("ignore:Expected explicit VR:UserWarning")  # pydicom's, about the rubbish
def test_rubbish_instead_of_a_data_set_is_not_understood(start: Start) -> None:
    node = start()
    association = associate(node)
    for rubbish in (b"\x00\x01", b"rubbish" * 100):
        assert _store_raw(association, MRImageStorage, "1.2.3", rubbish).Status == 0xC000
    assert association.send_c_store(sendable(classic_slice(1))).Status == 0x0000
    association.release()
    assert [one.facts.sop_instance_uid for one in node.received] == [f"{SERIES}.1"]


def test_the_request_s_uid_names_an_instance_that_calls_itself_otherwise(start: Start) -> None:
    node = start()
    association = associate(node)
    assert _store_raw(association, MRImageStorage, "1.2.3", classic_slice(1)).Status == 0x0000
    association.release()
    assert list(node.spool.scan()) == [(SERIES, "1.2.3")]
    assert node.received[0].facts.data_set_sop_instance_uid == f"{SERIES}.1"


def test_a_failure_of_the_node_is_never_success(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(received: Received) -> None:
        raise RuntimeError("the node's own fault, on Doe^Jane")

    listener = Listener(Dicom(host="127.0.0.1", port=0, processes=1), spool := Spool(tmp_path), broken)
    listener.start()
    association = associate(Running(listener, spool))
    answer = association.send_c_store(sendable(classic_slice(1)))
    association.release()
    listener.stop()
    assert answer.Status == 0xC001
    assert "RuntimeError" in caplog.text
    assert Path(__file__).name in caplog.text, "the log says where"
    assert "Doe" not in caplog.text, "and never what the message quotes"


def _store_raw(association: Association, sop_class: str, sop_instance_uid: str, data_set: Dataset | bytes) -> C_STORE:
    """Send a C-STORE request whose UIDs and data set need not agree, as pynetdicom's own sender would not."""
    data = data_set if isinstance(data_set, bytes) else encode(data_set, False, True)
    assert data is not None
    request = C_STORE()
    request.MessageID = 1
    request.AffectedSOPClassUID = UID(sop_class)
    request.AffectedSOPInstanceUID = UID(sop_instance_uid)
    request.Priority = 2
    request.DataSet = BytesIO(data)
    context = association.accepted_contexts[0].context_id
    association._reactor_checkpoint.clear()
    time.sleep(0.02)  # its reactor may be just past the checkpoint, and would take the answer for a request
    until(lambda: association._is_paused)
    association.dimse.send_msg(request, context)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    assert isinstance(answer, C_STORE)
    return answer


# Refusing associations


@needs_dcmtk
@pytest.mark.parametrize(
    ("settings", "arguments", "printed", "reason"),
    [
        ({"require_called_ae_title": True}, ["-aec", "OTHER"], "Called AE Title Not Recognized", "called AE title"),
        ({"calling_ae_titles": ("SWOOP1",)}, ["-aet", "OTHER"], "Calling AE Title Not Recognized", "calling AE title"),
        ({"peer_networks": ("10.0.0.0/8",)}, [], "Calling AE Title Not Recognized", "peer network not allowed"),
        ({"peer_networks": ("2001:db8::/32",)}, [], "Calling AE Title Not Recognized", "peer network not allowed"),
    ],
    ids=["called", "calling", "network", "network-of-the-other-kind"],
)
@pytest.mark.parametrize("tool", ["echoscu", "storescu"])
def test_a_peer_that_is_not_allowed_reads_why(
    start: Start, tmp_path: Path, tool: str, settings: dict[str, Any], arguments: list[str], printed: str, reason: str
) -> None:
    node = start(**settings)
    paths = files(tmp_path, [classic_slice(1)]) if tool == "storescu" else []
    tried = dcmtk(tool, node, *arguments, send=paths)
    assert tried.returncode != 0
    assert "Result: Rejected Permanent, Source: Service User" in tried.stdout
    assert f"Reason: {printed}" in tried.stdout
    until(lambda: node.kinds() == ["rejected"])
    assert reason in node.events[0].reason
    assert list(node.spool.scan()) == []


def test_a_peer_that_could_not_be_checked_can_store_nothing(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(address: str) -> None:
        raise ValueError(address)

    node = start()
    monkeypatch.setattr("qcnode.intake.reception.ip_address", broken)
    association = associate(node)
    assert association.accepted_contexts == []
    assert not association.is_established


@needs_dcmtk
def test_a_peer_that_is_allowed_comes_in(start: Start) -> None:
    networks = tuple(map(ip_network, ("10.0.0.0/8", "127.0.0.0/8")))
    node = start(require_called_ae_title=True, calling_ae_titles=("SWOOP1", "PACS"), peer_networks=networks)
    assert dcmtk("echoscu", node, "-aec", "QCNODE", "-aet", "PACS").returncode == 0


@needs_dcmtk
def test_one_association_too_many_is_refused_for_now(start: Start) -> None:
    node = start(maximum_associations=2)
    first, second = associate(node), associate(node)
    tried = dcmtk("echoscu", node)
    assert "Result: Rejected Transient, Source: Service Provider (Presentation Related)" in tried.stdout
    assert "Reason: Local Limit Exceeded" in tried.stdout
    first.release()
    until(lambda: dcmtk("echoscu", node).returncode == 0)
    second.release()
    assert {event.reason for event in node.events if event.kind == "rejected"} == {"local limit exceeded"}


# How associations end


def test_the_association_s_end_is_the_series_state(start: Start) -> None:
    node = start()
    state = node.listener.associations.state
    assert state(SERIES) is AssociationState.UNKNOWN
    first = associate(node)
    assert first.send_c_store(sendable(classic_slice(1))).Status == 0x0000
    assert state(SERIES) is AssociationState.OPEN
    second = associate(node)
    assert second.send_c_store(sendable(classic_slice(2))).Status == 0x0000
    first.release()
    until(lambda: "released" in node.kinds())
    assert state(SERIES) is AssociationState.OPEN  # the second one still carries it
    second.abort()
    until(lambda: state(SERIES) is AssociationState.ABORTED)
    third = associate(node)
    assert third.send_c_store(sendable(classic_slice(3))).Status == 0x0000
    assert state(SERIES) is AssociationState.OPEN
    third.release()
    until(lambda: state(SERIES) is AssociationState.RELEASED)
    assert state("1.2.3") is AssociationState.UNKNOWN
    assert len(node.received) == 3


def test_a_silent_association_is_closed_and_what_arrived_is_kept(start: Start) -> None:
    node = start(network_timeout_seconds=1.0)
    association = associate(node)
    assert association.send_c_store(sendable(classic_slice(1))).Status == 0x0000
    until(lambda: node.listener.associations.state(SERIES) is AssociationState.ABORTED)
    until(lambda: association.is_aborted)
    assert list(node.spool.scan()) == [(SERIES, f"{SERIES}.1")]
    assert node.kinds() == ["established", "aborted"]


def test_a_connection_that_says_nothing_or_half_a_pdu_does_not_stay(start: Start) -> None:
    node = start(network_timeout_seconds=0.3, maximum_associations=1)
    for said in (b"", b"\x01\x00\x00\x00\x01\x00half of a request"):
        with socket.create_connection(("127.0.0.1", node.listener.port)) as peer:
            peer.sendall(said)
            peer.settimeout(10.0)
            while peer.recv(4096):
                pass  # an A-ABORT may come first
    until(lambda: (association := associate(node)).is_established and (association.release() or True))


def test_stop_lets_an_open_association_come_to_its_end(start: Start) -> None:
    node = start()
    association = associate(node)
    assert association.send_c_store(sendable(classic_slice(1))).Status == 0x0000
    port = node.listener.port
    began = time.monotonic()
    node.listener.stop(drain_seconds=0.2)
    assert time.monotonic() - began < 5
    until(lambda: association.is_aborted)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    assert node.kinds() == ["established", "aborted"]
    node.listener.stop()  # again is nothing


def test_a_taken_port_is_an_oserror(start: Start, tmp_path: Path) -> None:
    node = start()
    other = Listener(Dicom(host="127.0.0.1", port=node.listener.port), node.spool, node.received.append)
    with pytest.raises(OSError, match="in use"):
        other.start()
    other.stop()


# What is said of it


def test_the_log_names_peers_and_uids_and_no_patient(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    node = start()
    association = associate(node)
    for ds in (classic_slice(1), classic_slice(1, ImageComments="other"), classic_slice(2, SeriesInstanceUID=None)):
        association.send_c_store(sendable(ds))
    association.release()
    until(lambda: node.kinds() == ["established", "released"])
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("qcnode")]
    text = "\n".join(ours)
    assert "association_established calling='SCANNER' called='ANY-SCP' address=127.0.0.1" in text
    assert f"instance_conflict series={SERIES} sop={SERIES}.1" in text
    assert f"instance_refused sop={SERIES}.2 why=The instance has no SeriesInstanceUID" in text
    assert all(word not in caplog.text for word in ("Doe", "Jane", "0815"))


@pytest.mark.real_data
@needs_dcmtk
def test_every_real_transfer_syntax_is_taken_from_dcmtk(start: Start, real_data: Path, tmp_path: Path) -> None:
    """Each file as it is: one presentation context with its own transfer syntax (storescu -R)."""
    node = start()
    paths = sorted((real_data / "dicom" / "transfer_syntaxes_one_image").glob("*.dcm"))
    for path in paths:
        syntax = str(pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID)
        configuration = tmp_path / f"{path.stem}.cfg"
        configuration.write_text(
            f"[[TransferSyntaxes]]\n[Own]\nTransferSyntax1 = {syntax}\n"
            f"[[PresentationContexts]]\n[MR]\nPresentationContext1 = {MRImageStorage}\\Own\n"
            "[[Profiles]]\n[Send]\nPresentationContexts = MR\n"
        )
        sent = dcmtk("storescu", node, "-xf", str(configuration), "Send", send=[str(path)])
        assert sent.returncode == 0, sent.stdout
    assert len(node.received) == len(paths) > 5


def test_receiving_is_nicer_to_the_processor_than_all_else(start: Start) -> None:
    """Linux gives each thread a niceness of its own: a verdict does not wait for those who send as fast as they can."""
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    node, seen = start(), list[int]()
    node.listener._on_event = lambda event: seen.append(os.getpriority(os.PRIO_PROCESS, 0))
    associate(node).release()
    until(lambda: len(seen) == 2)
    assert seen == [min(ours + 5, 19)] * 2
    assert os.getpriority(os.PRIO_PROCESS, 0) == ours, "of its thread alone"
