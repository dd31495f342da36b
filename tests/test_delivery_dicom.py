"""C-STORE and C-ECHO to real peers: DCMTK's storescp, and pynetdicom where a peer must misbehave."""

from __future__ import annotations

import os
import socket
import threading
from io import BytesIO
from pathlib import Path

import pytest
from delivery_peers import destination, document, free_port, needs_dcmtk, peer, storescp
from pydicom import dcmread
from pydicom.uid import (
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)
from pynetdicom import evt

from qcnode.config import Destination
from qcnode.delivery import dicom, requestor
from qcnode.delivery.outcome import Answer
from qcnode.errors import TransientError


def answers(outcomes: list[dicom.Outcome]) -> list[Answer]:
    return [outcome.answer for outcome in outcomes]


@needs_dcmtk
def test_documents_arrive_as_they_are(tmp_path: Path) -> None:
    port = free_port()
    file = tmp_path / "capture.dcm"
    file.write_bytes(document(2, SecondaryCaptureImageStorage))
    with storescp(tmp_path / "in", port):
        outcomes = dicom.send([document(1), file], destination(port), "QCNODE")
    assert answers(outcomes) == [Answer.ACCEPTED, Answer.ACCEPTED]
    arrived = {dcmread(path).SOPInstanceUID: dcmread(path) for path in (tmp_path / "in").iterdir()}
    assert set(arrived) == {"2.25.1001", "2.25.1002"}
    assert arrived["2.25.1001"] == dcmread(BytesIO(document(1)))


def test_a_peer_that_takes_implicit_only_gets_implicit() -> None:
    got: list[str] = []

    def on_store(event: evt.Event) -> int:
        got.append(event.context.transfer_syntax)
        return 0x0000

    with peer(on_store, syntaxes=(ImplicitVRLittleEndian,)) as port:
        assert answers(dicom.send([document(1)], destination(port), "QCNODE")) == [Answer.ACCEPTED]
    assert got == [ImplicitVRLittleEndian]


def test_nobody_there_is_unreachable_for_each_document() -> None:
    outcomes = dicom.send([document(1), document(2)], destination(free_port()), "QCNODE")
    assert answers(outcomes) == [Answer.UNREACHABLE, Answer.UNREACHABLE]
    assert "took no association" in outcomes[0].error


def test_a_host_without_an_address_is_unreachable() -> None:
    nowhere = Destination(name="pacs", ae_title="ARCHIVE", host="no-such-host.invalid", port=104)
    assert answers(dicom.send([document(1)], nowhere, "QCNODE")) == [Answer.UNREACHABLE]


def test_a_rejected_association_is_unreachable_and_says_why() -> None:
    with peer(lambda event: 0x0000, called="ARCHIVE") as port:
        other = Destination(name="pacs", ae_title="OTHER", host="127.0.0.1", port=port)
        (outcome,) = dicom.send([document(1)], other, "QCNODE")
    assert outcome.answer is Answer.UNREACHABLE
    assert "Called AE title not recognised" in outcome.error


def test_a_peer_without_the_sop_class_refuses() -> None:
    with peer(lambda event: 0x0000, classes=(SecondaryCaptureImageStorage,)) as port:
        mixed = dicom.send([document(1), document(2, SecondaryCaptureImageStorage)], destination(port), "QCNODE")
        alone = dicom.send([document(1)], destination(port), "QCNODE")
    assert answers(mixed) == [Answer.REFUSED, Answer.ACCEPTED]
    assert answers(alone) == [Answer.REFUSED]
    assert "SOP class" in alone[0].error


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (0x0000, Answer.ACCEPTED),
        (0xB000, Answer.ACCEPTED),
        (0xB007, Answer.ACCEPTED),
        (0xA700, Answer.UNREACHABLE),
        (0xA7FF, Answer.UNREACHABLE),
        (0xA900, Answer.REFUSED),
        (0xC000, Answer.REFUSED),
        (0x0124, Answer.REFUSED),
        (0x0122, Answer.REFUSED),
    ],
)
def test_each_status_has_its_outcome(status: int, answer: Answer) -> None:
    assert dicom.outcome_of(status).answer is answer
    assert bool(dicom.outcome_of(status).error) is (answer is not Answer.ACCEPTED)


def test_each_document_has_its_own_answer() -> None:
    statuses = {"2.25.1001": 0x0000, "2.25.1002": 0xC000, "2.25.1003": 0xA700, "2.25.1004": 0xB000}
    with peer(lambda event: statuses[event.request.AffectedSOPInstanceUID]) as port:
        outcomes = dicom.send([document(n) for n in (1, 2, 3, 4)], destination(port), "QCNODE")
    assert answers(outcomes) == [Answer.ACCEPTED, Answer.REFUSED, Answer.UNREACHABLE, Answer.ACCEPTED]
    assert "0xC000" in outcomes[1].error


def test_after_an_abort_the_rest_is_untried() -> None:
    def on_store(event: evt.Event) -> int:
        if event.request.AffectedSOPInstanceUID == "2.25.1002":
            event.assoc.abort()
        return 0x0000

    with peer(on_store) as port:
        outcomes = dicom.send([document(n) for n in (1, 2, 3)], destination(port), "QCNODE")
    assert answers(outcomes) == [Answer.ACCEPTED, Answer.BROKEN, Answer.UNTRIED]


def test_a_peer_that_takes_the_association_and_nothing_else_is_unreachable_for_all() -> None:
    """One attempt for all of them, not one for each."""

    def on_store(event: evt.Event) -> int:
        event.assoc.abort()
        return 0x0000

    with peer(on_store) as port:
        outcomes = dicom.send([document(n) for n in (1, 2, 3)], destination(port), "QCNODE")
    assert answers(outcomes) == [Answer.BROKEN, Answer.UNREACHABLE, Answer.UNREACHABLE]


def test_enough_leaves_the_rest_untried() -> None:
    got: list[str] = []

    def on_store(event: evt.Event) -> int:
        got.append(event.request.AffectedSOPInstanceUID)
        return 0x0000

    with peer(on_store) as port:
        documents = [document(n) for n in (1, 2, 3)]
        outcomes = dicom.send(documents, destination(port), "QCNODE", lambda: len(got) == 2)
        at_once = dicom.send(documents, destination(port), "QCNODE", lambda: True)
    assert answers(outcomes) == [Answer.ACCEPTED, Answer.ACCEPTED, Answer.UNTRIED]
    assert answers(at_once) == [Answer.ACCEPTED, Answer.UNTRIED, Answer.UNTRIED], "each turn makes headway"


def test_the_association_s_own_thread_stands_still_while_ours_sends() -> None:
    """Else it takes the peer's answer away, and an object that was accepted is sent again."""

    class Reactor(threading.Thread):
        rounds, ended = 0, False

        def run(self) -> None:
            while not self.ended:
                checkpoint.wait()
                self.rounds += 1

    reactor = Reactor()
    checkpoint = requestor.Checkpoint(reactor)
    reactor.start()
    for _ in range(300):
        checkpoint.clear()
        before = reactor.rounds
        os.sched_yield()
        assert reactor.rounds == before
        checkpoint.set()
    reactor.ended = True
    checkpoint.set()
    reactor.join(10)
    assert not reactor.is_alive()
    checkpoint.clear()  # with nobody to wait for, it returns


def test_a_silent_peer_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom, "CONNECTION_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        outcomes = dicom.send([document(1)], destination(silent.getsockname()[1]), "QCNODE")
    assert answers(outcomes) == [Answer.UNREACHABLE]


def test_an_unreadable_document_holds_up_no_other(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.dcm"
    damaged.write_bytes(b"not DICOM")
    with peer(lambda event: 0x0000) as port:
        outcomes = dicom.send([tmp_path / "gone.dcm", damaged, document(1)], destination(port), "QCNODE")
        assert answers(outcomes) == [Answer.REFUSED, Answer.REFUSED, Answer.ACCEPTED]
    assert answers(dicom.send([damaged], destination(port), "QCNODE")) == [Answer.REFUSED]


def test_echo_times_a_living_peer_and_raises_for_a_dead_one() -> None:
    with peer(lambda event: 0x0000) as port:
        assert 0 < dicom.echo(destination(port), "QCNODE") < 10
    with pytest.raises(TransientError, match="took no association"):
        dicom.echo(destination(port), "QCNODE")
