"""The conformance statement says what the code does: its tables are read and held against it."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import UID, MRImageStorage
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts
from pynetdicom.presentation import ModalityPerformedPresentationContexts, QueryRetrievePresentationContexts

import qcnode.intake
from qcnode import artifacts, tls
from qcnode.artifacts import Artifact, Concept, Plane, Severity
from qcnode.config import Dicom
from qcnode.delivery import dicom
from qcnode.delivery.dicom import outcome_of
from qcnode.delivery.outcome import Answer
from qcnode.imaging import phantom
from qcnode.imaging.swoop import classic_series, to_bytes
from qcnode.intake.listener import Listener
from qcnode.intake.mpps import LARGEST_BYTES, TOO_LATE_ID, ProcedureSteps
from qcnode.intake.procedure_step import MOST_ITEMS, MOST_SERIES, TRANSFER_SYNTAXES, Status
from qcnode.intake.spool import Spool
from qcnode.ledger.store import Store
from qcnode.reporting import key_object, structured_report
from qcnode.reporting.documents import documents, rejection_document
from qcnode.verdict import Assessment, Grade, verdict

AT = datetime(2026, 1, 1, tzinfo=UTC)
STATEMENT = (Path(__file__).parents[1] / "docs" / "conformance.md").read_text()
STATUS_NAMES = re.compile(
    r"SUCCESS|OUT_OF_RESOURCES|DATA_SET_MISMATCH|CANNOT_UNDERSTAND|UNEXPECTED|UNRECOGNIZED_OPERATION|NO_SUCH_\w+|\w+_STATUS"
)


def table(heading: str) -> list[list[str]]:
    """The cells of the table whose heading row begins so, without that row; code marks removed."""
    lines = STATEMENT.splitlines()
    [start] = [number for number, line in enumerate(lines) if line.startswith(f"| {heading}")]
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line[1:-1].split("|")])
    return rows


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("conformance")
    with Store(f"sqlite:///{folder / 'ledger.sqlite3'}") as store:
        steps = ProcedureSteps(store.performed, lambda: None)
        listener = Listener(Dicom(host="127.0.0.1", port=0), Spool(folder), lambda received: None, steps=steps)
        listener.start()
        yield listener.port
        listener.stop()


def everything_wrong() -> tuple[Assessment, list[bytes]]:
    """A series with every artifact, and its instances."""
    generator = np.random.default_rng(1)
    instances = classic_series(phantom.head(generator, Plane.AXIAL), patient_id="P", generator=generator)
    grades = dict.fromkeys(Artifact, Grade(Severity.SEVERE, (0.1, 0.2, 0.7)))
    assessment = Assessment(verdict(grades), str(instances[0].SeriesInstanceUID), Plane.AXIAL, grades, "some-1")
    return assessment, [to_bytes(one) for one in instances[:3]]


@pytest.fixture(scope="module")
def made() -> dict[str, Dataset]:
    """Each kind of document, of a series with everything wrong, in its second revision."""
    built = documents(*everything_wrong(), revision=2, at=AT, predecessor_uid="1.2")
    return {one.kind: dcmread(BytesIO(one.data)) for one in built}


@pytest.fixture(scope="module")
def rejected() -> Dataset:
    """What a person's rejection makes, which is no document of a verdict."""
    return dcmread(BytesIO(rejection_document(*everything_wrong(), revision=2, at=AT, by="mira").data))


def accepted(port: int, proposed: list[tuple[str, list[str]]]) -> dict[str, str]:
    """The transfer syntax that the listener takes for each SOP class that it takes."""
    entity = AE()
    for sop_class, syntaxes in proposed:
        entity.add_requested_context(sop_class, syntaxes)
    association = entity.associate("127.0.0.1", port)
    if not association.is_established:
        return {}  # none of them was accepted, and pynetdicom then ends it
    found = {str(c.abstract_syntax): str(c.transfer_syntax[0]) for c in association.accepted_contexts}
    association.release()
    return found


def test_the_sop_classes_that_it_provides_are_accepted_and_the_others_refused(port: int) -> None:
    little = ["1.2.840.10008.1.2.1"]
    provided = [row[1] for row in table("SOP class | UID | user") if row[1] and row[3] == "yes"]
    refused = [row[1] for row in table("SOP class | UID | why")]
    assert len(provided) >= 6
    assert len(refused) >= 4
    services = [
        str(c.abstract_syntax) for c in (*QueryRetrievePresentationContexts, *ModalityPerformedPresentationContexts)
    ]
    asked = dict.fromkeys((*provided, *refused, *services), little)
    assert set(accepted(port, list(asked.items()))) == set(provided), "list what is accepted, and nothing else"
    for row in table("SOP class | UID | user"):
        assert not row[1] or UID(row[1]).name in row[0] + " SOP Class", row


def test_every_other_storage_class_is_accepted(port: int) -> None:
    everything = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    for start in range(0, len(everything), 100):
        some = everything[start : start + 100]
        assert set(accepted(port, [(uid, ["1.2.840.10008.1.2"]) for uid in some])) == set(some)
    private, newer = "1.2.826.0.1.3680043.9.1", "1.2.840.10008.5.1.4.1.1.999999"
    assert set(accepted(port, [(uid, ["1.2.840.10008.1.2"]) for uid in (private, newer)])) == {private, newer}


def test_the_transfer_syntaxes_are_those_that_are_accepted(port: int) -> None:
    taken = {uid for uid in map(str, ALL_TRANSFER_SYNTAXES) if accepted(port, [(MRImageStorage, [uid])])}
    listed = {row[1]: row[0] for row in table("transfer syntax | UID")}
    assert set(listed) == taken
    assert {uid: UID(uid).name for uid in listed} == listed


def test_the_status_codes_are_those_that_intake_answers() -> None:
    modules = [
        importlib.import_module(f"qcnode.intake.{one.name}") for one in pkgutil.iter_modules(qcnode.intake.__path__)
    ]
    answered = {
        value
        for module in modules
        for name, value in vars(module).items()
        if STATUS_NAMES.fullmatch(name) and isinstance(value, int)
    }
    assert {int(row[0], 16) for row in table("status | meaning")} == answered


def test_mpps_has_the_transfer_syntaxes_statuses_and_bounds_that_are_listed(port: int) -> None:
    mpps = "1.2.840.10008.3.1.2.3.3"
    taken = {uid for uid in map(str, ALL_TRANSFER_SYNTAXES) if accepted(port, [(mpps, [uid])])}
    assert taken == {str(uid) for uid in TRANSFER_SYNTAXES}
    assert all(f"{UID(uid).name}" in STATEMENT for uid in taken)
    rows = table("MPPS status | meaning")
    assert {int(row[0], 16) for row in rows} == set(Status)
    [too_late] = [row for row in rows if int(row[0], 16) == Status.PROCESSING_FAILURE]
    assert f"Error ID 0x{TOO_LATE_ID:04X}" in too_late[2]
    assert f"more than {MOST_ITEMS} items, {MOST_SERIES} series or {LARGEST_BYTES // 1_000_000} MB" in STATEMENT


def test_what_follows_a_response_is_what_delivery_does() -> None:
    [delivered, again, *_] = table("response status | what follows")
    for word in delivered[0].split(", "):
        assert outcome_of(int(word.replace("xxx", "007"), 16)).answer is Answer.ACCEPTED, word
    assert again[0].startswith("0xA7xx")
    assert outcome_of(0xA701).answer is Answer.UNREACHABLE
    assert outcome_of(0xC000).answer is Answer.REFUSED
    for what, seconds in (
        ("connection and association answer", dicom.CONNECTION_SECONDS),
        ("each C-STORE response", dicom.RESPONSE_SECONDS),
    ):
        assert f"| {what} awaited for | {seconds:.0f} s |" in STATEMENT


def test_every_key_of_the_listener_is_there_with_its_default() -> None:
    def shown(value: Any) -> str:
        return "not set" if value is None else "empty" if value == () else json.dumps(value)

    listed = {row[0]: row[1] for row in table("`[dicom]` | default")}
    assert listed == {name: shown(field.default) for name, field in Dicom.model_fields.items()}


def test_the_cipher_suites_are_those_that_are_offered() -> None:
    offered = {suite["name"] for suite in tls.client_context().get_ciphers() if suite["protocol"] == "TLSv1.2"}
    assert {row[0] for row in table("TLS 1.2 cipher suite")} == offered


def test_the_documents_have_the_classes_and_the_attributes_that_are_listed(made: dict[str, Dataset]) -> None:
    sent = {row[1] for row in table("SOP class | UID | transfer syntaxes") if row[1]} - {"1.2.840.10008.1.1"}
    assert {str(one.SOPClassUID) for one in made.values()} == sent
    rows = table("attribute | report")
    for place, kind in enumerate(("report", "flag", "capture"), 1):
        listed = {re.search(r"\((\w{4},\w{4})\)", row[0])[1] for row in rows if row[place] == "yes"}  # type: ignore[index]
        found = {f"{element.tag.group:04X},{element.tag.element:04X}" for element in made[kind]}
        assert found == listed, kind


def test_a_rejection_has_a_flag_s_attributes(made: dict[str, Dataset], rejected: Dataset) -> None:
    assert {element.tag for element in rejected} == {element.tag for element in made["flag"]}


def test_the_codes_are_those_that_are_used(made: dict[str, Dataset], rejected: Dataset) -> None:
    def walked(item: Dataset) -> Iterator[tuple[str, str]]:
        sequences = [item, *item.get("MeasuredValueSequence", [])]
        for holder in sequences:
            for keyword in ("ConceptNameCodeSequence", "ConceptCodeSequence", "MeasurementUnitsCodeSequence"):
                for code in holder.get(keyword, []):
                    yield str(code.get("CodeValue") or code.get("LongCodeValue")), str(code.CodingSchemeDesignator)
        for child in item.get("ContentSequence", []):
            yield from walked(child)

    def named(module: Any) -> Iterator[tuple[str, str]]:
        for value in vars(module).values():
            for concept in [value] if isinstance(value, Concept) else value.values() if isinstance(value, dict) else ():
                if isinstance(concept, Concept):
                    yield concept.value, concept.scheme

    used = {*walked(made["report"]), *walked(made["flag"]), *walked(rejected)}
    known = {code for module in (artifacts, structured_report, key_object) for code in named(module)}
    listed = [(row[0], row[1]) for row in table("code | scheme")]
    assert len(listed) == len(set(listed))
    assert set(listed) == used | known
