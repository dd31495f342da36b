"""The page shows the site's time and says once which that is; what programs get stays in UTC."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from page_cases import NOW, markup, received, served

from qcnode.config import StateFolder, Web
from qcnode.ledger.store import Store
from qcnode.web.times import Times

SUMMER = datetime(2026, 7, 1, 12, 0, 5, tzinfo=UTC)


@pytest.fixture
def machine_in_nepal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("zone", "winter", "summer", "called"),
    [
        ("UTC", "12:30:15", "12:00:05", "UTC"),
        ("Africa/Nairobi", "15:30:15", "15:00:05", "Africa/Nairobi, UTC+03:00"),
        ("Europe/Berlin", "13:30:15", "14:00:05", "Europe/Berlin, UTC+01:00"),
        ("America/St_Johns", "09:00:15", "09:30:05", "America/St_Johns, UTC-03:30"),
    ],
)
def test_a_moment_is_shown_as_the_site_s_clock_showed_it(zone: str, winter: str, summer: str, called: str) -> None:
    times = Times(zone)
    assert times.shown(NOW) == f"2026-03-01 {winter}"
    assert times.shown(SUMMER) == f"2026-07-01 {summer}"
    assert times.zone(NOW) == called


def test_without_a_setting_it_is_the_machine_s_zone(machine_in_nepal: None) -> None:
    times = Times(None)
    assert times.shown(NOW) == "2026-03-01 18:15:15"
    assert times.zone(NOW).endswith("UTC+05:45")


def test_the_page_says_its_zone_once_and_the_interface_stays_in_utc(tmp_path: Path) -> None:
    settings = Web(port=0, timezone="Africa/Nairobi")
    with Store.open(StateFolder(folder=tmp_path)) as store, served(store, tmp_path, settings) as page:
        received(store)
        for path in ("/", "/series/1.2.3"):
            shown = markup(page, path)
            assert "2026-03-01 15:30:15" in shown.text
            assert shown.text.count("UTC") == shown.text.count("Times: Africa/Nairobi, UTC+03:00.") == 1
            moments = {attributes["datetime"] for tag, attributes in shown.elements if tag == "time"}
            assert moments == {"2026-03-01T12:30:15+00:00"}, "for machines, the moment itself"
        assert page.get("/api/v1/series/1.2.3").json()["last_received_at"] == "2026-03-01T12:30:15Z"
