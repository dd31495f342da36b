"""Peers that stall, lie, flood, or send data sets made to harm: answered or aborted; the next one is served."""

from __future__ import annotations

import socket
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dicom_instances import SERIES, classic_slice, part10
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, MRImageStorage
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import build_context

from qcnode.config import Dicom
from qcnode.intake.dimse import Element
from qcnode.intake.listener import AssociationEvent, Listener, Received
from qcnode.intake.spool import Spool

ABORT, ACCEPTED, REJECTED, DATA, RELEASED = 7, 2, 3, 4, 6


class Node:
    """A listener on loopback, and what it told."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.received: list[Received] = []
        self.events: list[AssociationEvent] = []
        self.spool = Spool(folder)
        settings = {"host": "127.0.0.1", "port": 0, "minimum_free_mb": 0, "processes": 1} | settings
        self.listener = Listener(Dicom(**settings), self.spool, self.received.append, self.events.append)  # type: ignore[arg-type]
        self.listener.start()


@pytest.fixture
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    made = Node(tmp_path, **getattr(request, "param", {}))
    yield made
    made.listener.stop(0.0)


def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until it holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def request_pdu(*syntaxes: str, abstract: str = MRImageStorage) -> bytes:
    """An A-ASSOCIATE-RQ that proposes to store MR images: contexts 1, 3, … in these transfer syntaxes."""
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"
    request.calling_ae_title, request.called_ae_title = "HOSTILE", "QCNODE"
    contexts = [build_context(abstract, syntax) for syntax in syntaxes or (ExplicitVRLittleEndian,)]
    for number, context in enumerate(contexts):
        context.context_id = 2 * number + 1
    request.presentation_context_definition_list = contexts
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received, implementation.implementation_class_uid = 16384, "1.2.3"
    request.user_information = [length, implementation]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(request)
    return pdu.encode()


def read_pdu(peer: socket.socket) -> bytes:
    """One PDU; what there is of it where the connection ends."""
    data = b""
    while len(data) < 6 or len(data) < 6 + int.from_bytes(data[2:6], "big"):
        want = 6 - len(data) if len(data) < 6 else 6 + int.from_bytes(data[2:6], "big") - len(data)
        try:
            more = peer.recv(want)
        except ConnectionResetError:
            return data
        if not more:
            return data
        data += more
    return data


def connected(node: Node, *syntaxes: str, abstract: str = MRImageStorage) -> socket.socket:
    """An association."""
    peer = socket.create_connection(("127.0.0.1", node.listener.port), timeout=20)
    peer.sendall(request_pdu(*syntaxes, abstract=abstract))
    assert read_pdu(peer)[0] == ACCEPTED
    return peer


def data_pdu(value: bytes, control: int, context: int = 1) -> bytes:
    pdv = struct.pack(">LBB", len(value) + 2, context, control) + value
    return struct.pack(">BxL", DATA, len(pdv)) + pdv


def command(sop_instance_uid: str | None, field: int = 0x0001, data_set: int = 0) -> bytes:
    """A C-STORE-RQ's command set."""
    elements = [(0x0002, MRImageStorage.encode() + b"\0"), (0x0100, struct.pack("<H", field)), (0x0110, b"\x07\0")]
    elements += [(0x0700, b"\0\0"), (0x0800, struct.pack("<H", data_set))]
    if sop_instance_uid is not None:
        elements.append((0x1000, sop_instance_uid.encode() + b"\0" * (len(sop_instance_uid) % 2)))
    body = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in elements)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def store(peer: socket.socket, data: bytes, sop: str | None = f"{SERIES}.1", context: int = 1) -> int:
    """The status of a C-STORE of these bytes, cut into PDUs."""
    peer.sendall(data_pdu(command(sop), 3, context))
    for at in range(0, len(data), 100_000):
        peer.sendall(data_pdu(data[at : at + 100_000], 0, context))
    return store_answer(peer, data_pdu(b"", 2, context))


def store_answer(peer: socket.socket, last: bytes) -> int:
    """The status after the last fragment of a data set."""
    peer.sendall(last)
    answer = read_pdu(peer)
    assert answer[0] == DATA, answer
    at = answer.index(struct.pack("<HHL", 0, Element.STATUS, 2)) + 8
    return int.from_bytes(answer[at : at + 2], "little")


def data_set(syntax: str = ExplicitVRLittleEndian, number: int = 1) -> bytes:
    file = part10(classic_slice(number), syntax)
    return file[144 + int.from_bytes(file[140:144], "little") :]


def still_serves(node: Node) -> None:
    before = len(node.received)
    with connected(node) as peer:
        assert store(peer, data_set(number=9), f"{SERIES}.9") == 0x0000
    assert len(node.received) == before + 1


# The upper layer


@pytest.mark.parametrize(
    "said",
    [
        struct.pack(">BxL", DATA, 0xFFFFFFFF),
        struct.pack(">BxL", DATA, 131073),
        struct.pack(">BxL", 9, 4) + bytes(4),
        struct.pack(">BxL", ACCEPTED, 0xFFFFFFFF),
        struct.pack(">BxL", DATA, 6) + struct.pack(">LBB", 0xFFFFFFFF, 1, 0),
        struct.pack(">BxL", DATA, 6) + struct.pack(">LBB", 1, 1, 0),
        struct.pack(">BxL", DATA, 3) + bytes(3),
        data_pdu(b"no command", 3),
        data_pdu(b"", 3),
        data_pdu(command("1.2.3"), 3, context=5),
        data_pdu(command("1.2.3"), 3) + data_pdu(command("1.2.3"), 3),
        data_pdu(b"data without a command", 2),
        data_pdu(bytes(70_000), 1),
        request_pdu(),
    ],
    ids=lambda said: said[:14].hex(),
)
def test_a_peer_that_lies_about_lengths_or_order_is_aborted(node: Node, said: bytes) -> None:
    with connected(node) as peer:
        peer.sendall(said)
        assert read_pdu(peer)[0] == ABORT
    still_serves(node)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", struct.pack(">BxL", 1, 0xFFFFFFFF), data_pdu(b"", 3)])
def test_what_begins_without_a_request_is_aborted(node: Node, said: bytes) -> None:
    with socket.create_connection(("127.0.0.1", node.listener.port), timeout=20) as peer:
        peer.sendall(said)
        assert read_pdu(peer)[:1] in (bytes([ABORT]), b"")
    still_serves(node)


def test_a_damaged_request_is_aborted(node: Node) -> None:
    request = request_pdu()
    for cut in range(74, len(request) - 6, 9):
        with socket.create_connection(("127.0.0.1", node.listener.port), timeout=20) as peer:
            peer.sendall(struct.pack(">BxL", 1, cut) + request[6 : 6 + cut])
            assert read_pdu(peer)[:1] in (bytes([ABORT]), bytes([ACCEPTED]))
    still_serves(node)


@pytest.mark.parametrize("node", [{"network_timeout_seconds": 0.3}], indirect=True)
@pytest.mark.parametrize("said", [b"", b"\x04", data_pdu(command("1.2.3"), 3), data_pdu(command("1.2.3"), 3)[:-5]])
def test_a_peer_that_falls_silent_anywhere_is_aborted(node: Node, said: bytes) -> None:
    with connected(node) as peer:
        peer.sendall(said)
        assert read_pdu(peer)[0] == ABORT
    until(lambda: [event.reason for event in node.events if event.kind == "aborted"] == ["the peer fell silent"])


def test_an_association_whose_thread_fails_is_aborted_and_is_one_line_in_the_log(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("PATIENT^NAME")

    with monkeypatch.context() as context, connected(node) as peer:
        context.setattr(node.listener._behind, "perform", broken)
        peer.sendall(data_pdu(command(f"{SERIES}.1"), 3) + data_pdu(data_set(), 2))
        assert read_pdu(peer) == struct.pack(">BxL4x", ABORT, 4)
        assert peer.recv(1) == b"", "and the connection is closed"
    until(
        lambda: [event.reason for event in node.events if event.kind == "aborted"] == ["the node failed; see its log"]
    )
    until(lambda: "association_failed" in caplog.text)
    assert [r.getMessage().split()[:2] for r in caplog.records if r.levelname == "ERROR"] == [
        ["association_failed", "why=ZeroDivisionError"]
    ]
    assert "PATIENT" not in caplog.text
    still_serves(node)


def test_stop_does_not_wait_for_who_never_asked_for_an_association(node: Node) -> None:
    with socket.create_connection(("127.0.0.1", node.listener.port)) as peer:
        until(lambda: bool(node.listener._behind.connections))
        began = time.monotonic()
        node.listener.stop(drain_seconds=5.0)
        assert time.monotonic() - began < 3
        peer.settimeout(10)
        while peer.recv(100):
            pass


def test_sixty_four_associations_at_once_and_no_more(node: Node) -> None:
    peers = [connected(node) for _ in range(64)]
    try:
        with socket.create_connection(("127.0.0.1", node.listener.port), timeout=20) as late:
            late.sendall(request_pdu())
            assert tuple(read_pdu(late)[7:]) == (2, 3, 2), "transient, presentation related, local limit exceeded"
        for number, peer in enumerate(peers, 1):
            assert store(peer, data_set(number=number), f"{SERIES}.{number}") == 0x0000
        assert len(node.spool.instances(SERIES)) == 64
    finally:
        for peer in peers:
            peer.close()


# Instances


def test_a_request_without_an_instance_uid_is_answered(node: Node) -> None:
    with connected(node) as peer:
        for sop in (None, "", "../../etc/passwd"):
            assert store(peer, data_set(), sop) == 0xC000
        assert store(peer, data_set()) == 0x0000


def test_an_operation_that_nobody_offered_is_answered(node: Node) -> None:
    with connected(node) as peer:
        peer.sendall(data_pdu(command("1.2.3", field=0x0150, data_set=0x0101), 3))
        assert struct.pack("<H", 0x0211) in read_pdu(peer)
        assert store(peer, data_set()) == 0x0000


@pytest.mark.parametrize("node", [{"maximum_instance_mb": 1}], indirect=True)
def test_an_instance_that_is_too_large_is_refused_and_not_kept_in_memory(node: Node) -> None:
    piece = data_pdu(bytes(100_000), 0)
    with connected(node) as peer:
        tracemalloc.start()
        try:
            peer.sendall(data_pdu(command(f"{SERIES}.1"), 3))
            for _ in range(240):
                peer.sendall(piece)
            assert store_answer(peer, data_pdu(b"", 2)) == 0xA700
            assert tracemalloc.get_traced_memory()[1] < 10_000_000
        finally:
            tracemalloc.stop()
        assert store(peer, data_set()) == 0x0000


def nested(depth: int, syntax: str, *, defined: bool) -> bytes:
    """A data set with ReferencedImageSequence within itself so often, after the UIDs."""
    header = {
        ImplicitVRLittleEndian: struct.pack("<HH", 0x0008, 0x1140),
        ExplicitVRLittleEndian: struct.pack("<HH2sxx", 0x0008, 0x1140, b"SQ"),
    }[syntax]
    inner = b""
    for _ in range(depth):
        length = len(inner) if defined else 0xFFFFFFFF
        item_end = b"" if defined else struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
        sequence_end = b"" if defined else struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
        item = struct.pack("<HHL", 0xFFFE, 0xE000, length) + inner + item_end
        inner = header + struct.pack("<L", len(item) if defined else 0xFFFFFFFF) + item + sequence_end
    whole = data_set(syntax)
    at = whole.index(struct.pack("<HH", 0x0010, 0x0010))
    return whole[:at] + inner + whole[at:]


@pytest.mark.parametrize("defined", [True, False], ids=["defined", "undefined"])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_sequences_nested_to_harm_are_refused_at_once(node: Node, syntax: str, defined: bool) -> None:
    with connected(node, syntax) as peer:
        began = time.monotonic()
        assert store(peer, nested(3000, syntax, defined=defined)) == 0xC000
        assert time.monotonic() - began < 5
        assert store(peer, nested(10, syntax, defined=defined)) == 0x0000


def test_a_deflated_bomb_is_refused_at_once(node: Node) -> None:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = deflater.compress(data_set()) + b"".join(deflater.compress(bytes(1 << 22)) for _ in range(64))
    bomb += deflater.flush()
    assert len(bomb) < 1_000_000
    with connected(node, DeflatedExplicitVRLittleEndian) as peer:
        assert store(peer, bomb) == 0xC000
        assert store(peer, data_set(DeflatedExplicitVRLittleEndian)) == 0x0000


# The disk


class Disk:
    """What statvfs says."""

    f_frsize, f_blocks, f_bavail = 4096, 10**9, 10**8


def test_below_the_floor_instances_and_associations_are_refused_until_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    node = Node(tmp_path, minimum_free_mb=500)
    disk = Disk()
    monkeypatch.setattr("qcnode.intake.room.os.statvfs", lambda folder: disk)
    try:
        with connected(node) as peer:
            assert store(peer, data_set()) == 0x0000
            disk.f_bavail = 1000  # 4 MB
            files = sorted(tmp_path.rglob("*"))
            assert store(peer, data_set(number=2), f"{SERIES}.2") == 0xA700
            assert sorted(tmp_path.rglob("*")) == files, "nothing was written"
            with socket.create_connection(("127.0.0.1", node.listener.port), timeout=20) as late:
                late.sendall(request_pdu())
                assert tuple(read_pdu(late)[7:]) == (2, 3, 2)
            disk.f_bavail = 10**8
            assert store(peer, data_set(number=2), f"{SERIES}.2") == 0x0000
        still_serves(node)
    finally:
        node.listener.stop(0.0)
    assert caplog.text.count("intake_refused free_mb=4 floor_mb=500") == 1
    assert caplog.text.count("intake_resumed") == 1


def test_a_small_disk_has_a_small_floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk()
    disk.f_blocks, disk.f_bavail = 6000, 500  # 24 MB, 2 of them free
    monkeypatch.setattr("qcnode.intake.room.os.statvfs", lambda folder: disk)
    node = Node(tmp_path, minimum_free_mb=500)
    try:
        still_serves(node)
    finally:
        node.listener.stop(0.0)
