"""What a person asks the node to do from a series' page: to grade it again, and to reject its images."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from page_cases import NOW, PASSWORD, Markup, claimed, log_in, markup, served, spooled, token
from pydicom import dcmread
from reporting_cases import ASSESSMENTS, swoop

from qcnode.config import Destination, StateFolder, Web
from qcnode.ledger.models import Series
from qcnode.ledger.store import Store
from qcnode.passwords import hashed
from qcnode.people import Role
from qcnode.states import State

SCAN = swoop(patient_name="Doe^Secret")
UID = str(SCAN.SeriesInstanceUID)
DESTINATIONS = (
    Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=4242),
    Destination(name="reports", ae_title="RIS", host="127.0.0.1", port=4243, send=("report",)),
    Destination(name="other", ae_title="OTHER", host="127.0.0.1", port=4244, from_ae=("SWOOP9",)),
)


@pytest.fixture(scope="module")
def password_hash() -> str:
    return hashed(PASSWORD)


@pytest.fixture
def store(tmp_path: Path, password_hash: str) -> Iterator[Store]:
    with Store.open(StateFolder(folder=tmp_path)) as opened:
        opened.people.add("mira", Role.TECHNOLOGIST, password_hash, NOW)
        opened.people.add("omar", Role.VIEWER, password_hash, NOW)
        spooled(opened, tmp_path, SCAN)
        assert opened.finish(claimed(opened, UID), ASSESSMENTS["rescan"], [], [], NOW)
        yield opened


@pytest.fixture
def page(store: Store, tmp_path: Path) -> Iterator[httpx.Client]:
    with served(store, tmp_path, Web(port=0, rejection=True), DESTINATIONS) as client:
        yield client


def ask(page: httpx.Client, what: str, name: str = "mira", revision: str = "1") -> httpx.Response:
    log_in(page, name)
    data = {"form_token": token(page, f"/series/{UID}"), "revision": revision}
    return page.post(f"/series/{UID}/{what}", data=data)


def series(store: Store) -> Series:
    found = store.overview.detail(UID)
    assert found is not None
    return found


def test_grading_again_is_a_new_revision_and_an_event_with_its_user(
    page: httpx.Client, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert ask(page, "again").status_code == 303
    found = series(store)
    assert (found.state, found.revision) == (State.READY, 2)
    (event,) = [event for event in found.events if event.kind == "asked_again"]
    assert event.detail == {"revision": 1, "by": "mira"}
    assert f"asked_again series={UID} revision=1" in caplog.text
    assert "mira" not in caplog.text
    claim = store.claim(NOW)
    assert claim is not None
    assert claim.sop_instance_uids == (str(SCAN.SOPInstanceUID),)


def test_what_is_at_work_or_was_not_seen_is_not_graded_again(page: httpx.Client, store: Store) -> None:
    assert ask(page, "again", revision="2").status_code == 409
    assert ask(page, "again").status_code == 303
    for revision in ("1", "2"):
        answer = ask(page, "again", revision=revision)
        assert answer.status_code == 409
        assert "at work, or has moved on" in Markup(answer.text).text
    assert series(store).revision == 2


def test_without_images_nothing_is_graded_or_rejected(page: httpx.Client, store: Store) -> None:
    assert store.mark_removed(UID, [str(SCAN.SOPInstanceUID)], NOW)
    answer = ask(page, "again")
    assert answer.status_code == 409
    assert "not in the spool any more; send the series again" in Markup(answer.text).text
    assert ask(page, "rejected").status_code == 409
    assert "have left the spool" in markup(page, f"/series/{UID}").text


@pytest.mark.parametrize("what", ["again", "rejected"])
def test_a_viewer_may_not_ask(what: str, page: httpx.Client, store: Store) -> None:
    answer = ask(page, what, name="omar")
    assert answer.status_code == 403
    assert "Your account may look" in Markup(answer.text).text
    assert f"/series/{UID}/{what}" not in page.get(f"/series/{UID}").text
    assert ask(page, what, revision="one").status_code == 400
    found = series(store)
    assert (found.state, found.revision, found.latest and found.latest.documents) == (State.ASSESSED, 1, [])


def test_a_rejection_is_a_person_s_key_object_on_its_way_to_those_who_take_flags(
    page: httpx.Client, store: Store, tmp_path: Path
) -> None:
    assert ask(page, "rejected").status_code == 303
    latest = series(store).latest
    assert latest is not None
    (document,) = latest.documents
    assert [delivery.destination for delivery in document.deliveries] == ["pacs"]
    (due,) = store.deliveries.due("pacs", NOW + timedelta(days=999))
    assert (due.kind, due.sop_instance_uid) == ("rejection", document.sop_instance_uid)
    key_object = dcmread(tmp_path / str(document.path))
    assert key_object.ConceptNameCodeSequence[0].CodeValue == "113001"
    assert "mira" in {str(item.get("PersonName", "")).strip("^") for item in key_object.ContentSequence}
    assert key_object.PatientName == SCAN.PatientName
    references = key_object.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert references.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == SCAN.SOPInstanceUID
    shown = markup(page, f"/series/{UID}").text
    assert "Rejected by mira." in shown
    assert "mira rejected the images" in shown
    assert "rejection pacs: pending" in shown
    (event,) = [event for event in series(store).events if event.kind == "rejection_confirmed"]
    assert event.detail == {"revision": 1, "by": "mira"}

    before = (tmp_path / str(document.path)).read_bytes()
    answer = ask(page, "rejected")
    assert answer.status_code == 409
    assert "mira has rejected these images already." in Markup(answer.text).text
    assert (tmp_path / str(document.path)).read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "destinations", "status", "why"),
    [
        (Web(port=0), DESTINATIONS, 403, "This site does not let the page reject images"),
        (Web(port=0, rejection=True), DESTINATIONS[1:], 409, "No destination takes flags"),
    ],
)
def test_nothing_is_rejected_where_the_site_does_not_want_it_or_nobody_would_learn_of_it(
    settings: Web, destinations: tuple[Destination, ...], status: int, why: str, store: Store, tmp_path: Path
) -> None:
    with served(store, tmp_path, settings, destinations) as page:
        answer = ask(page, "rejected")
        assert answer.status_code == status
        assert why in Markup(answer.text).text
        assert ("Reject these images" in page.get(f"/series/{UID}").text) is settings.rejection
    assert not list(tmp_path.glob("documents/*"))
