"""MPPS over real associations, pynetdicom's own client as the modality, a real ledger behind the listener."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from dicom_instances import SERIES
from performed_steps import (
    COMPLETED,
    DISCONTINUED,
    IN_PROGRESS,
    PATIENT_ID,
    PATIENT_NAME,
    STEP,
    associated,
    begin,
    beginning,
    change,
    encoded,
    ending,
    perform,
    release,
    rest,
)
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
)
from pynetdicom import AE, Association
from pynetdicom.sop_class import ModalityPerformedProcedureStep, Verification
from test_hostile_peers import connected, data_pdu, read_pdu

from qcnode.config import Dicom, StateFolder
from qcnode.errors import PermanentError, TransientError
from qcnode.intake.dimse import Element
from qcnode.intake.listener import Listener
from qcnode.intake.mpps import LARGEST_BYTES, ProcedureSteps
from qcnode.intake.procedure_step import MOST_ITEMS
from qcnode.intake.spool import Spool
from qcnode.ledger.performed import PerformedSteps
from qcnode.ledger.store import Store

N_SET, N_CREATE = 0x0120, 0x0140
MPPS = str(ModalityPerformedProcedureStep)


@dataclass
class Node:
    """A listener with a ledger behind it."""

    listener: Listener
    store: Store
    told: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.listener.port

    def announced(self) -> set[str]:
        found = self.store.performed.announced([SERIES]).get(SERIES)
        return set(found.sop_instance_uids) if found else set()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    told: list[str] = []
    with Store.open(StateFolder(folder=tmp_path)) as store:
        steps = ProcedureSteps(store.performed, lambda: told.append("changed"))
        settings = Dicom(host="127.0.0.1", port=0, minimum_free_mb=0, processes=1)
        listener = Listener(settings, Spool(tmp_path), lambda received: None, steps=steps)
        listener.start()
        yield Node(listener, store, told)
        listener.stop(0.0)


@pytest.fixture
def modality(node: Node) -> Iterator[Association]:
    association = associated(node.port)
    yield association
    release(association)


@pytest.mark.parametrize("status", [COMPLETED, DISCONTINUED])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_step_begins_goes_on_and_ends(node: Node, status: str, syntax: str) -> None:
    association = associated(node.port, syntax)
    assert begin(association).Status == 0x0000
    assert change(association, ending({SERIES: ["1.1"]}, IN_PROGRESS)).Status == 0x0000
    assert node.announced() == set()
    assert change(association, ending({SERIES: ["1.1", "1.2"]}, status)).Status == 0x0000
    release(association)
    assert node.announced() == {"1.1", "1.2"}
    assert node.told == ["changed"] * 2


def test_twice_is_a_duplicate_and_what_nobody_created_is_unknown(modality: Association) -> None:
    assert begin(modality).Status == 0x0000
    assert begin(modality).Status == 0x0111
    assert change(modality, ending({}), "1.2.3").Status == 0x0112


@pytest.mark.parametrize("status", [COMPLETED, DISCONTINUED])
def test_after_its_end_a_step_is_not_changed(node: Node, modality: Association, status: str) -> None:
    begin(modality)
    assert change(modality, ending({SERIES: ["1.1"]}, status)).Status == 0x0000
    for again in (ending({SERIES: ["1.2"]}), ending({SERIES: ["1.1"]}, status), ending({}, None)):
        answer = change(modality, again)
        assert answer.Status == 0x0110
        assert answer.ErrorID == 0xA710
        assert answer.ErrorComment == "Performed Procedure Step Object may no longer be updated"
    assert node.announced() == {"1.1"}


def without(ds: Dataset, keyword: str) -> Dataset:
    delattr(ds, keyword)
    return ds


def test_what_is_wrong_or_missing_is_answered_so_and_changes_nothing(node: Node, modality: Association) -> None:
    assert begin(modality, ds=beginning(COMPLETED)).Status == 0x0106
    assert begin(modality, ds=beginning("")).Status == 0x0121
    answer = begin(modality, ds=without(beginning(), "PerformedProcedureStepStatus"))
    assert (answer.Status, answer.ErrorComment) == (0x0120, "PerformedProcedureStepStatus is missing.")
    assert change(modality, ending({SERIES: ["1.1"]})).Status == 0x0112, "none of these created it"
    assert begin(modality).Status == 0x0000
    nameless = ending({SERIES: ["1.1"]})
    del nameless.PerformedSeriesSequence[0].SeriesInstanceUID
    assert change(modality, nameless).Status == 0x0120
    assert change(modality, ending({SERIES: ["1.1"]}, "DONE")).Status == 0x0106
    assert node.announced() == set()
    assert change(modality, ending({SERIES: ["1.1"]})).Status == 0x0000


@pytest.mark.parametrize(("error", "status"), [(TransientError("locked"), 0x0213), (PermanentError("no"), 0x0110)])
def test_what_the_ledger_does_not_take_is_never_success(
    modality: Association, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def broken(*arguments: object) -> None:
        raise error

    with monkeypatch.context() as context:
        context.setattr(PerformedSteps, "create", broken)
        assert begin(modality).Status == status
    assert begin(modality).Status == 0x0000


def test_images_and_steps_share_an_association(node: Node) -> None:
    entity = AE(ae_title="SWOOP1")
    for sop_class in (Verification, MRImageStorage, ModalityPerformedProcedureStep):
        entity.add_requested_context(sop_class)
    association = entity.associate("127.0.0.1", node.port)
    assert len(association.accepted_contexts) == 3
    assert begin(association).Status == 0x0000
    rest()
    assert association.send_c_echo().Status == 0x0000
    assert change(association, ending({SERIES: ["1.1"]})).Status == 0x0000
    release(association)


def test_a_listener_without_a_ledger_and_a_deflated_context_offer_nothing(node: Node, tmp_path: Path) -> None:
    bare = Listener(
        Dicom(host="127.0.0.1", port=0, minimum_free_mb=0, processes=1), Spool(tmp_path), lambda received: None
    )
    bare.start()
    try:
        for port, syntax in ((bare.port, ImplicitVRLittleEndian), (node.port, DeflatedExplicitVRLittleEndian)):
            entity = AE()
            entity.add_requested_context(Verification)
            entity.add_requested_context(ModalityPerformedProcedureStep, syntax)
            association = entity.associate("127.0.0.1", port)
            assert [str(context.abstract_syntax) for context in association.accepted_contexts] == [str(Verification)]
            release(association)
    finally:
        bare.stop()


def test_nothing_of_the_patient_stays(node: Node, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    perform(node.port, {SERIES: ["1.1"]})
    association = associated(node.port)
    assert begin(association, "1.2.4", ds=beginning("")).Status == 0x0121
    release(association)
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert STEP.encode() in kept
    for secret in (PATIENT_NAME.split("^")[0], PATIENT_ID, "DOC^TOR", "of the child"):
        assert secret.encode() not in kept
        assert secret not in caplog.text
    assert f"step_began step={STEP}" in caplog.text
    assert f"step_ended step={STEP} state=COMPLETED series=1" in caplog.text


# Peers that lie


def request(field: int, sop_class: str = MPPS, step: str | None = STEP, data_set: int = 0) -> bytes:
    """An N-CREATE's or an N-SET's command set."""
    names = (0x0002, 0x1000) if field == N_CREATE else (0x0003, 0x1001)
    elements = [(names[0], sop_class), (names[1], step)]
    values = [(tag, text.encode() + b"\0" * (len(text) % 2)) for tag, text in elements if text is not None]
    values += [(0x0100, struct.pack("<H", field)), (0x0110, b"\x07\0"), (0x0800, struct.pack("<H", data_set))]
    body = b"".join(struct.pack("<HHL", 0, tag, len(value)) + value for tag, value in sorted(values))
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def said(node: Node, command: bytes, *pieces: bytes) -> int:
    """The status of the answer, over an association that proposed storage alone."""
    with connected(node, ImplicitVRLittleEndian) as peer:  # type: ignore[arg-type]
        peer.sendall(data_pdu(command, 3))
        for number, piece in enumerate(pieces, 1):
            peer.sendall(data_pdu(piece, 2 if number == len(pieces) else 0))
        answer = read_pdu(peer)
        at = answer.index(struct.pack("<HHL", 0, Element.STATUS, 2)) + 8
        return int.from_bytes(answer[at : at + 2], "little")


DATA = encoded(beginning())
SERIES_TAG = b"\x40\x00\x40\x03\xff\xff\xff\xff"


@pytest.mark.parametrize(
    ("command", "pieces", "status"),
    [
        (request(N_CREATE, step=None), [DATA], 0x0117),
        (request(N_CREATE, step="../../etc"), [DATA], 0x0117),
        (request(N_SET, step=""), [DATA], 0x0117),
        (request(N_CREATE, sop_class="1.2.840.10008.5.1.4.34.6.1"), [DATA], 0x0118),
        (request(N_SET, sop_class=MRImageStorage), [DATA], 0x0118),
        (request(N_CREATE, data_set=0x0101), [], 0x0110),
        (request(N_CREATE), [b""], 0x0120),
        (request(N_CREATE), [b"rubbish" * 100], 0x0120),
        (request(N_CREATE), [bytes(100_000)] * (LARGEST_BYTES // 100_000 + 1), 0x0213),
        (request(N_CREATE), [SERIES_TAG + b"\xfe\xff\x00\xe0\0\0\0\0" * (MOST_ITEMS + 1)], 0x0213),
        (request(N_CREATE), [(SERIES_TAG + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 1000], 0x0110),
    ],
    ids=[
        "nameless",
        "path",
        "empty",
        "other-class",
        "storage",
        "bare",
        "nothing",
        "rubbish",
        "large",
        "flood",
        "nested",
    ],
)
def test_a_request_that_is_not_right_is_answered_and_the_next_one_served(
    node: Node, command: bytes, pieces: list[bytes], status: int
) -> None:
    cut = [piece[at : at + 100_000] for piece in pieces for at in range(0, max(1, len(piece)), 100_000)]
    assert said(node, command, *cut) == status
    perform(node.port, {SERIES: ["1.1"]})
    assert node.announced() == {"1.1"}
