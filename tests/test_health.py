"""What monitors ask: alive, ready, and the figures; without a login they learn nothing of anybody."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from page_cases import NOW, assessed, received
from prometheus_client.parser import text_string_to_metric_families
from reporting_cases import ASSESSMENTS

from qcnode.config import Dicom, Settings, StateFolder, Web
from qcnode.intake.listener import Listener
from qcnode.intake.spool import Spool
from qcnode.ledger.store import Store
from qcnode.people import Role
from qcnode.web import health
from qcnode.web.running import Running
from qcnode.web.server import WebServer


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(StateFolder(folder=tmp_path)) as opened:
        yield opened


@contextmanager
def node(store: Store, folder: Path, *, listens: bool = True, ensemble: str | None = "e-1") -> Iterator[httpx.Client]:
    """The page of a node that has these parts."""
    settings = Settings(dicom=Dicom(host="127.0.0.1", port=0, minimum_free_mb=1), web=Web(port=0))
    listener = Listener(settings.dicom, Spool(folder), lambda received: None)
    if listens:
        listener.start()
    server = WebServer(settings.web, store, folder, running=Running(settings, listener, lambda: ensemble, lambda: None))
    server.start()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client
    server.stop()
    listener.stop()


def figures(page: httpx.Client) -> dict[str, float]:
    """Each sample by its name and labels, as Prometheus reads them."""
    answer = page.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_a_node_whose_parts_are_well_is_ready(store: Store, tmp_path: Path) -> None:
    with node(store, tmp_path) as page:
        answer = page.get("/readyz")
        assert (answer.status_code, answer.text) == (200, "ready")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"listens": False}, "The DICOM listener is not up"),
        ({"ensemble": None}, "The weights are not loaded"),
        ({}, "less free space than"),
    ],
)
def test_a_fault_is_a_sentence_and_503(
    fault: dict[str, Any], said: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fault:
        monkeypatch.setattr("qcnode.intake.room.Room._measured", lambda self: (100, 200))
    with node(store, tmp_path, **fault) as page:
        answer = page.get("/readyz")
        assert answer.status_code == 503
        assert said in answer.text
        assert len(answer.text.splitlines()) == 1, "nothing else is wrong"
        assert page.get("/healthz").text == "ok", "the process lives"


def test_a_ledger_that_somebody_holds_is_not_ready_and_one_request_alone_waits_for_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "PATIENCE_SECONDS", 0.05)
    listener = Listener(Dicom(host="127.0.0.1", port=0, minimum_free_mb=0), Spool(tmp_path), lambda received: None)
    listener.start()
    asked = health.Health(store, Running(Settings(), listener, lambda: "e-1", lambda: None))
    other = sqlite3.connect(tmp_path / "ledger.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    faults: list[list[str]] = []
    first = threading.Thread(target=lambda: faults.append(asked.faults()))
    first.start()
    deadline = time.monotonic() + 20
    while not asked._asking.locked() and time.monotonic() < deadline:
        time.sleep(0.001)
    (fault,) = asked.faults()
    assert "The ledger takes no entry" in fault
    assert not faults, "the first still waits"
    other.execute("ROLLBACK")
    other.close()
    first.join()
    assert faults == [[]]
    assert asked.faults() == []
    listener.stop()


def test_a_page_without_its_node_is_not_ready(store: Store, tmp_path: Path) -> None:
    server = WebServer(Web(port=0), store, tmp_path)
    server.start()
    assert "qcnode serve" in httpx.get(f"{server.url}readyz").text
    server.stop()


def test_the_figures_are_the_ledger_s_and_name_nobody(store: Store, tmp_path: Path) -> None:
    assessed(store, tmp_path, ASSESSMENTS["rescan"])
    received(store, "1.2.4")
    for due in store.deliveries.due("pacs", NOW)[:1]:
        store.deliveries.mark_dead(due.id, "refused", NOW)
    with node(store, tmp_path) as page:
        found = figures(page)
        text = page.get("/metrics").text
    assert found["qcnode_instances_total"] == 2
    assert found["qcnode_series assessed"] == found["qcnode_series receiving"] == 1
    assert found["qcnode_verdicts_total rescan"] == 1
    assert found["qcnode_queue_length deliver"] == 2
    assert found["qcnode_dead_letters"] == sum(
        v for k, v in found.items() if k.startswith("qcnode_deliveries pacs") and k.endswith("dead")
    )
    assert found["qcnode_associations"] == 0
    assert 1 <= found["qcnode_receiving_processes"] <= 4
    assert found["qcnode_weights_loaded"] == 1
    assert found["qcnode_disk_free_bytes"] > found["qcnode_disk_floor_bytes"] > 0
    assert any(name.startswith("process_") for name in found)
    assert "1.2.3" not in text
    assert "SWOOP1" not in text


def test_figures_need_a_login_where_there_are_accounts(store: Store, tmp_path: Path) -> None:
    with node(store, tmp_path) as page:
        assert page.get("/metrics").status_code == 200
        store.people.add("mira", Role.VIEWER, "a hash", NOW)
        assert "qcnode_series" not in page.get("/metrics").text
        assert page.get("/readyz").status_code == page.get("/healthz").status_code == 200
