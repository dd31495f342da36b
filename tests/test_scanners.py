"""The page *Scanners*, its CSV and its figures: counted by hand, chosen by plane, scanner and period."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import httpx
import pytest
from page_cases import Markup, served
from page_series import graded, series, ungraded

from qcnode.artifacts import Artifact, Plane
from qcnode.clock import utc_now
from qcnode.config import StateFolder
from qcnode.ledger.listing import Wanted
from qcnode.ledger.records import Received
from qcnode.ledger.scanners import scanner_name
from qcnode.ledger.store import Store
from qcnode.people import Role
from qcnode.verdict import Decision
from qcnode.web.figures import NOISE, RESCAN, SECONDS, Period, figures

NOW = utc_now()
HOSTILE = "=1+<b>&\"'</b>"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(StateFolder(folder=tmp_path)) as opened:
        yield opened


@pytest.fixture
def page(store: Store, tmp_path: Path) -> Iterator[httpx.Client]:
    with served(store, tmp_path) as client:
        client.timeout = httpx.Timeout(60)
        yield client


def period(days: int = 30) -> Period:
    return Period(days, NOW.date())


def test_the_figures_are_those_that_one_counts_by_hand(store: Store) -> None:
    series(store, "1.1", graded(Motion=2, Zipper=1, noise=0.02), seconds=4.0, at=NOW)
    series(store, "1.2", graded(Zipper=1, noise=0.09), seconds=2.0, at=NOW)
    series(store, "1.3", graded(noise=None), seconds=9.0, at=NOW)
    series(store, "1.4", ungraded(), seconds=1.0, at=NOW)
    series(store, "1.5", graded(), at=NOW - timedelta(days=2), seconds=3.0)
    (found,) = figures(store, period())
    assert (found.scanner, found.series, found.rescans, found.seconds) == ("SWOOP1", 5, 1, 3.0)
    today = {name: chart.points[-1] for name, chart in found.charts.items()}
    assert (today[RESCAN].value, today[RESCAN].series) == (1 / 4, 4)
    assert (today["Zipper"].value, today["Zipper"].series) == (2 / 3, 3), "of the graded ones"
    assert today["Motion"].value == 1 / 3
    assert today["Noise"].value == 0
    assert today[SECONDS].value == 3.0, "the median of 4, 2, 9 and 1"
    assert today[NOISE].value == pytest.approx(0.055), "the median of 0.02 and 0.09; the others have no background"
    assert today[NOISE].series == 2
    assert [point.day for point in found.charts[RESCAN].points] == [NOW.date() - timedelta(days=2), NOW.date()]
    assert found.charts["Zipper"].mean == 2 / 4


def test_the_latest_revision_alone_counts(store: Store) -> None:
    series(store, "1.1", graded(Motion=2), at=NOW)
    late = Received("1.1", "1.2", "1.1.9", "1.2.840", "1.2.1", "b" * 64, 9, NOW, "SWOOP1", {})
    store.record_instances([late])
    assert store.mark_ready("1.1", 2, "quiet", NOW)
    claim = store.claim(NOW)
    assert claim is not None
    assert store.finish(claim, graded(), [], [], NOW + timedelta(seconds=1))
    (days,) = store.scanners.days(Wanted()).values()
    (day,) = days.values()
    assert (day.verdicts, day.flawed) == ({Decision.ACCEPT: 1}, {})


def test_a_day_is_one_of_utc(store: Store) -> None:
    zone = timezone(timedelta(hours=9))
    for uid, hour in (("1.1", 1), ("1.2", 23)):
        at = datetime(2026, 3, 1, hour, 59, tzinfo=zone)
        series(store, uid, graded(), at=at)
    (days,) = store.scanners.days(Wanted()).values()
    assert list(days) == [date(2026, 2, 28), date(2026, 3, 1)], "of which the first is March already over there"


@pytest.mark.parametrize(
    ("calling_ae", "serial", "name"),
    [("SWOOP1", None, "SWOOP1"), ("ROUTER", "HF1234", "ROUTER / HF1234"), ("ROUTER", "HF99", "ROUTER / HF99")],
)
def test_scanners_behind_one_ae_title_are_told_apart_by_their_serial_numbers(
    calling_ae: str, serial: str | None, name: str, store: Store
) -> None:
    assert scanner_name(calling_ae, serial) == name
    series(store, "1.1", graded(), calling_ae=calling_ae, serial=serial, at=NOW)
    series(store, "1.2", graded(), calling_ae="OTHER", at=NOW)
    assert name in [found.scanner for found in figures(store, period())]


def test_plane_scanner_and_period_choose(store: Store) -> None:
    series(store, "1.1", graded(Plane.AXIAL), at=NOW)
    series(store, "1.2", graded(Plane.CORONAL), calling_ae="SWOOP2", at=NOW)
    series(store, "1.3", graded(Plane.CORONAL), at=NOW - timedelta(days=20))
    assert [(f.scanner, f.series) for f in figures(store, period())] == [("SWOOP1", 2), ("SWOOP2", 1)]
    assert [f.scanner for f in figures(store, period(), Plane.AXIAL)] == ["SWOOP1"]
    assert [f.scanner for f in figures(store, period(), None, "SWOOP2")] == ["SWOOP2"]
    assert [(f.scanner, f.series) for f in figures(store, period(7))] == [("SWOOP1", 1), ("SWOOP2", 1)]
    assert figures(store, period(), Plane.SAGITTAL) == []


def test_a_long_period_has_a_point_for_each_week_and_none_before_its_first_day(store: Store) -> None:
    for number in range(200):
        series(store, f"1.{number}", graded(Zipper=number % 2), at=NOW - timedelta(days=number))
    for long in (period(150), period(365)):
        (found,) = figures(store, long)
        zipper = found.charts["Zipper"]
        assert sum(point.series for point in zipper.points) == found.series == min(long.days, 200)
        assert 0.4 < (zipper.mean or 0) < 0.6
        assert all(point.series <= 7 for point in zipper.points)
        assert zipper.points[0].day >= long.first
        assert all(point.day.weekday() == 0 for point in zipper.points[1:])


def test_the_page_shows_a_table_of_all_and_the_charts_of_one(store: Store, page: httpx.Client) -> None:
    assert "No series got a verdict in this period." in Markup(page.get("/scanners").text).text
    for number in range(3):
        series(store, f"1.1.{number}", graded(Zipper=1), at=NOW)
    series(store, "1.2", graded(Plane.CORONAL), calling_ae=HOSTILE, at=NOW)
    shown = Markup(page.get("/scanners").text)
    assert "SWOOP1 3 0 % 3.0 s" in shown.text
    assert HOSTILE in shown.text
    assert "b" not in {tag for tag, _ in shown.elements}
    pictures = [attributes for tag, attributes in shown.elements if tag == "svg"]
    assert len(pictures) == 3 + len(Artifact)
    assert any("Zipper: 100 % of series" in str(one["aria-label"]) for one in pictures), "without eyes, too"
    assert any("Noise level: 3.0 % of the head's signal" in str(one["aria-label"]) for one in pictures)
    other = Markup(page.get("/scanners", params={"scanner": HOSTILE, "plane": "coronal", "days": "7"}).text)
    chosen = {a["value"] for tag, a in other.elements if tag == "option" and "selected" in a and "value" in a}
    assert chosen == {HOSTILE, "7"}
    assert "SWOOP1" not in other.text
    assert "sent nothing" in Markup(page.get("/scanners", params={"scanner": "NOBODY"}).text).text
    for wrong in ({"days": "0"}, {"days": "9999"}, {"plane": "oblique"}, {"scanner": "x" * 200}):
        assert page.get("/scanners", params=wrong).status_code == 422


def test_the_csv_has_every_point_and_no_formula(store: Store, page: httpx.Client) -> None:
    series(store, "1.1", graded(Motion=1), at=NOW)
    series(store, "1.2", graded(), calling_ae=HOSTILE, at=NOW - timedelta(days=3))
    answer = page.get("/scanners.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(answer.text.splitlines()))
    assert len(rows) == 2 * (3 + len(Artifact))
    (motion,) = [row for row in rows if (row["scanner"], row["measure"]) == ("SWOOP1", "Motion")]
    assert (motion["day"], motion["series"], motion["value"], motion["signal"]) == (str(NOW.date()), "1", "1", "")
    (noise,) = [row for row in rows if (row["scanner"], row["measure"]) == ("SWOOP1", "Noise level")]
    assert (noise["series"], noise["value"]) == ("1", "0.03")
    assert {row["scanner"] for row in rows} == {"SWOOP1", f"'{HOSTILE}"}
    assert {row["scanner"] for row in csv.DictReader(page.get("/scanners.csv?scanner=SWOOP1").text.splitlines())} == {
        "SWOOP1"
    }


def test_with_accounts_they_need_a_login(store: Store, page: httpx.Client) -> None:
    series(store, "1.1", graded(), at=NOW)
    store.people.add("mira", Role.VIEWER, "a hash", NOW)
    for path in ("/scanners", "/scanners.csv"):
        answer = page.get(path)
        assert answer.status_code == 303
        assert "SWOOP1" not in answer.text
    assert page.get("/scanners").headers["location"] == "/login?next=/scanners"
    assert page.get("/api/v1/scanners").status_code == 401


def test_a_program_gets_the_same_figures(store: Store, page: httpx.Client) -> None:
    series(store, "1.1", graded(Motion=2), at=NOW)
    (found,) = page.get("/api/v1/scanners").json()
    (counted,) = figures(store, period())
    assert (found["scanner"], found["rescans"], found["seconds"]) == ("SWOOP1", 1, 3.0)
    assert found["charts"]["Noise level"]["points"][0]["value"] == 0.03
    assert page.get("/api/v1/series/1.1").json()["latest"]["noise"] == 0.03
    assert found["charts"]["Motion"]["points"][0]["value"] == counted.charts["Motion"].points[0].value == 1.0
