"""The page *System*: what it shows, who may do what there, and that a retry and a C-ECHO reach what they name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from delivery_peers import free_port
from page_cases import NOW, Markup, received
from page_people import visit
from page_series import graded, series
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from qcnode.config import Alert, Destination, Dicom, Settings, StateFolder, Web
from qcnode.intake.listener import Listener
from qcnode.intake.spool import Spool
from qcnode.ledger.store import Store
from qcnode.people import Role
from qcnode.states import DeliveryState
from qcnode.web.running import Running
from qcnode.web.server import WebServer

HOSTILE = '<b x="&">AE</b>'


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(StateFolder(folder=tmp_path)) as opened:
        yield opened


@pytest.fixture
def peer() -> Iterator[tuple[int, list[str]]]:
    """A destination that answers C-ECHO: its port, and who called."""
    called: list[str] = []
    ae = AE("PACS")
    ae.add_supported_context(Verification)
    handlers = [(evt.EVT_C_ECHO, lambda event: called.append(event.assoc.requestor.ae_title) or 0x0000)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)  # type: ignore[arg-type]
    yield server.server_address[1], called
    server.shutdown()


@pytest.fixture
def woken() -> list[str]:
    return []


@pytest.fixture
def page(store: Store, tmp_path: Path, peer: tuple[int, list[str]], woken: list[str]) -> Iterator[httpx.Client]:
    there = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=peer[0])
    gone = Destination(name="archive", ae_title="ARCHIVE", host="127.0.0.1", port=free_port())
    settings = Settings(
        dicom=Dicom(host="127.0.0.1", port=0, minimum_free_mb=1),
        web=Web(port=0),
        destinations=(there, gone),
        alerts=(Alert(url="json://user:secret@127.0.0.1:1/x", name="chat"),),
    )
    listener = Listener(settings.dicom, Spool(tmp_path), lambda received: None)
    listener.start()
    running = Running(settings, listener, lambda: "ensemble-1", lambda: woken.append("deliver"))
    server = WebServer(settings.web, store, tmp_path, running=running)
    server.start()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client
    server.stop()
    listener.stop()


def dead_letters(store: Store) -> int:
    """Two series of which nothing was delivered; how many dead letters they have."""
    for uid in ("1.2.3", "1.2.4"):
        series(store, uid, graded(Motion=2), destination="pacs")
    for due in store.deliveries.due("pacs", NOW + timedelta(minutes=1)):
        store.deliveries.mark_dead(due.id, f"It does not take {HOSTILE}.", NOW)
    return store.deliveries.counts()[DeliveryState.DEAD]


def actions(shown: Markup) -> Counter[str]:
    """Where the page's forms go, but the header's."""
    return Counter(
        str(attributes["action"])
        for tag, attributes in shown.elements
        if tag == "form" and str(attributes["action"]).startswith("/system")
    )


def test_it_shows_the_node_its_queues_its_destinations_and_what_is_dead(
    store: Store, page: httpx.Client, peer: tuple[int, list[str]]
) -> None:
    count = dead_letters(store)
    received(store, "1.2.9")
    store.event("association_rejected", None, {"calling": HOSTILE, "address": "10.1.2.3", "why": "too many"}, NOW)
    shown = Markup(page.get("/system").text)
    for said in (
        "✓ Ready",
        "Associations 0 of 64 open",
        "Receiving 1 series",
        f"Dead letters {count} deliveries",
        "Weights ensemble-1",
        f"pacs PACS 127.0.0.1:{peer[0]} 0 0 {count}",
        "chat an alert 0 0 0",
        f"It does not take {HOSTILE}.",
        f"{HOSTILE} 10.1.2.3 rejected too many",
    ):
        assert said in shown.text, said
    assert "secret" not in page.get("/system").text
    assert "b" not in {tag for tag, _ in shown.elements}
    assert not actions(shown), "nobody is logged in: nothing to press"


def test_a_fault_is_shown_with_its_remedy(store: Store, page: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qcnode.intake.room.Room._measured", lambda self: (100, 200))
    shown = Markup(page.get("/system").text).text
    assert "✕ Not ready." in shown
    assert "minimum_free_mb; make room." in shown


@pytest.mark.parametrize(
    ("role", "may"),
    [
        (Role.VIEWER, {}),
        (Role.TECHNOLOGIST, {"/system/echo": 2}),
        (Role.ADMIN, {"/system/echo": 2, "/system/retry": 1 + 6}),
    ],
)
def test_each_role_has_its_buttons(role: Role, may: dict[str, int], store: Store, page: httpx.Client) -> None:
    assert dead_letters(store) == 6, "three documents of each series, each a line of its own"
    assert actions(Markup(visit(store, page, role).get("/system").text)) == may


def test_a_c_echo_goes_to_the_destination_and_its_answer_is_shown(
    store: Store, page: httpx.Client, peer: tuple[int, list[str]]
) -> None:
    technologist = visit(store, page, Role.TECHNOLOGIST)
    assert "pacs: It answered in" in Markup(technologist.post("/system/echo", destination="pacs").text).text
    assert peer[1] == ["QCNODE"]
    assert "archive: " in Markup(technologist.post("/system/echo", destination="archive").text).text
    assert technologist.post("/system/echo", destination="nobody").status_code == 404
    events = [event for event in store.overview.events(10) if event.kind == "echo"]
    assert [(e.detail["destination"], e.detail["answered"], e.detail["by"]) for e in events] == [
        ("archive", False, "a.technologist"),
        ("pacs", True, "a.technologist"),
    ]


def test_an_admin_sends_dead_letters_again_of_one_series_or_all(
    store: Store, page: httpx.Client, woken: list[str]
) -> None:
    count = dead_letters(store)
    admin = visit(store, page, Role.ADMIN)
    answer = admin.post("/system/retry", series="1.2.3")
    assert (answer.status_code, answer.headers["location"]) == (303, "/system#dead")
    assert store.deliveries.counts()[DeliveryState.DEAD] == count / 2
    assert woken == ["deliver"], "and the node looks at once"
    assert admin.post("/system/retry").status_code == 303
    assert store.deliveries.counts()[DeliveryState.DEAD] == 0
    asked = [event for event in store.overview.events(20) if event.kind == "retry"]
    assert [(event.series_uid, event.detail) for event in asked] == [
        (None, {"deliveries": count // 2, "by": "a.admin"}),
        ("1.2.3", {"deliveries": count // 2, "by": "a.admin"}),
    ]


def test_nobody_does_what_is_not_for_them(
    store: Store, page: httpx.Client, peer: tuple[int, list[str]], woken: list[str]
) -> None:
    count = dead_letters(store)
    viewer, technologist = visit(store, page, Role.VIEWER), visit(store, page, Role.TECHNOLOGIST)
    for visitor in (viewer, technologist):
        assert visitor.post("/system/retry").status_code == 403
    assert viewer.post("/system/echo", destination="pacs").status_code == 403
    assert page.post("/system/retry", data={}).status_code == 403
    assert page.get("/system").status_code == 303, "there are accounts"
    assert store.deliveries.counts()[DeliveryState.DEAD] == count
    assert peer[1] == woken == []
