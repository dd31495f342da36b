"""The stream that keeps pages up to date: it begins with the present state, and tells of each change."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from page_cases import NOW, claimed, received, served
from reporting_cases import ASSESSMENTS

from qcnode.artifacts import Artifact, Severity
from qcnode.config import StateFolder
from qcnode.ledger.store import Store
from qcnode.people import Role
from qcnode.web.forms import COOKIE


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(StateFolder(folder=tmp_path)) as opened:
        yield opened


@pytest.fixture
def page(store: Store, tmp_path: Path) -> Iterator[httpx.Client]:
    with served(store, tmp_path) as client:
        yield client


def graded(store: Store, verdict: str, series_uid: str) -> None:
    received(store, series_uid)
    assert store.finish(claimed(store, series_uid), ASSESSMENTS[verdict], [], [], NOW)


def changes(lines: Iterator[str]) -> Iterator[None]:
    """One item for each event that says that something changed."""
    return (None for line in lines if line == "event: changed")


def test_a_stream_begins_at_once_and_tells_of_each_change(store: Store, page: httpx.Client) -> None:
    with page.stream("GET", "/live", timeout=20) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        seen = changes(answer.iter_lines())
        next(seen)  # what there is now: whoever comes back has missed nothing
        received(store)
        next(seen)
        store.event("conflict", "1.2.3", {}, NOW)
        next(seen)


def test_whoever_watches_is_told_of_an_arrival_in_a_series_that_is_there(store: Store) -> None:
    received(store)
    before = store.overview.version()
    assert store.overview.version() == before
    store.event("conflict", "1.2.3", {}, NOW)
    assert store.overview.version() != before


def test_the_server_stops_while_pages_watch(store: Store, tmp_path: Path) -> None:
    began = threading.Event()

    def watch(url: httpx.URL) -> None:
        with httpx.stream("GET", url.join("/live"), timeout=20) as answer:
            for _ in answer.iter_lines():
                began.set()

    with served(store, tmp_path) as page:
        watcher = threading.Thread(target=watch, args=(page.base_url,))
        watcher.start()
        assert began.wait(20)
        stopping = time.monotonic()
    watcher.join(20)
    assert not watcher.is_alive()
    assert time.monotonic() - stopping < 15


def test_a_login_that_ended_is_led_to_the_login(store: Store, page: httpx.Client) -> None:
    store.people.add("mira", Role.TECHNOLOGIST, "a hash", NOW)
    assert page.get("/live").status_code == 303
    page.cookies.set(COOKIE, "invented")
    answer = page.get("/", headers={"HX-Request": "true"})
    assert (answer.status_code, answer.headers["hx-refresh"], answer.text) == (401, "true", "")


def test_a_rescan_calls_on_every_page_until_somebody_acknowledges_it(store: Store, page: httpx.Client) -> None:
    assert store.overview.rescans() == (0, [])
    assert 'role="alert"' not in page.get("/").text
    graded(store, "rescan", "1.2.3")
    graded(store, "accept", "1.2.4")
    for path in ("/", "/series/1.2.3", "/series/1.2.4"):
        text = page.get(path).text
        assert 'role="alert"' in text
        assert '<a href="/series/1.2.3">Severe' in text
        assert "qcnode user add NAME" in text, "nobody can acknowledge it without an account"
    store.opinions.agree("1.2.3", 1, "mira", NOW)
    assert store.overview.rescans()[0] == 1, "that is another word"
    store.opinions.acknowledge("1.2.3", 1, "mira", NOW)
    assert store.overview.rescans() == (0, [])
    assert 'role="alert"' not in page.get("/").text


def test_only_what_stands_calls_and_the_latest_first(store: Store) -> None:
    for number in range(5):
        graded(store, "rescan", f"1.2.{number}")
    count, latest = store.overview.rescans(3)
    assert (count, [row.series_uid for row in latest]) == (5, ["1.2.4", "1.2.3", "1.2.2"])
    received(store, "1.2.4", number=2)
    assert store.overview.rescans(3)[0] == 4, "a late instance is on its way to another verdict"
    claim = claimed(store, "1.2.4", 2)
    assert store.finish(claim, ASSESSMENTS["accept"], [], [], NOW)
    assert store.overview.rescans(3)[0] == 4, "the later verdict stands"
    store.opinions.correct("1.2.3", 1, {Artifact.MOTION: Severity.NONE}, "mira", NOW)
    assert store.overview.rescans(3)[0] == 4
