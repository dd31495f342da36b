"""Every page in a real browser, of a node that has nothing yet and of one that has everything, in light and in dark."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))  # what the other tests share
from page_cases import claimed, received, served, spooled
from page_people import visit
from page_series import graded, series, ungraded
from reporting_cases import ASSESSMENTS, MODERATE, SEVERE, assessment

from qcnode.artifacts import Plane
from qcnode.clock import utc_now
from qcnode.config import StateFolder
from qcnode.imaging import phantom
from qcnode.imaging.planes import planes
from qcnode.imaging.swoop import swoop_series, to_bytes
from qcnode.imaging.volume import Volume, volume_from_instances
from qcnode.ledger.shadows import ToShadow
from qcnode.ledger.store import Store
from qcnode.people import Role
from qcnode.verdict import Assessment, not_assessable
from qcnode.web.forms import COOKIE

TABLET, DESKTOP, PHONE = ({"width": w, "height": h} for w, h in ((800, 1280), (1280, 900), (390, 844)))
SOFTWARE_WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
PAGES = ("/", "/scanners", "/system", "/shadow")
STATES = {
    "receiving": "1.2.1",
    "excluded": "1.2.2",
    "failed": "1.2.3",
    "not assessable": "1.2.4",
    "rescan": "1.2.5",
    "accept": "1.2.6",
}


@dataclass
class Place:
    """A page server over one ledger, and a browser that is logged in there as an admin."""

    url: str
    cookie: str

    def opened(self, browser: Browser, path: str) -> Page:
        context = browser.new_context(viewport=TABLET)  # type: ignore[arg-type]
        context.add_cookies([{"name": COOKIE, "value": self.cookie, "url": self.url}])
        page = context.new_page()
        page.set_default_timeout(90_000)
        answer = page.goto(self.url + path)
        assert answer is not None
        assert answer.status == 200, path
        return page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed; .ci/run installs it")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", *SOFTWARE_WEBGL])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("empty")
    with Store.open(StateFolder(folder=folder)) as store, served(store, folder) as client:
        yield Place(str(client.base_url).rstrip("/"), visit(store, client, Role.ADMIN).cookie)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("full")
    with Store.open(StateFolder(folder=folder)) as store, served(store, folder) as client:
        _fill(store, folder)
        yield Place(str(client.base_url).rstrip("/"), visit(store, client, Role.ADMIN).cookie)


def _fill(store: Store, folder: Path) -> None:
    now = utc_now()
    for number in range(40):
        severities = {"Zipper": int(number > 30), "Motion": 2 * int(number == 39)}
        at = now - timedelta(days=number % 20, minutes=number)
        series(store, f"1.3.{number}", graded(noise=0.03 + 0.001 * (number % 7), **severities), at=at)
    series(store, "1.4.1", ungraded(), at=now, destination="pacs")
    for due in store.deliveries.due("pacs", now):
        store.deliveries.mark_dead(due.id, "The peer refused the document (0xC000); see its log.", now)
    series(store, "1.4.2", graded(Motion=1), at=now)
    series(store, "1.4.3", graded(), at=now)
    for number, uid in enumerate(("1.4.2", "1.4.3")):
        found = store.overview.detail(uid)
        assert found is not None
        assert found.latest is not None
        of = ToShadow(found.latest.id, uid, 1, ())
        assert store.shadows.keep(of, "candidate-1", graded(Motion=2 * number), now)
    store.opinions.agree("1.4.2", 1, "mira", now)
    received(store, STATES["receiving"])
    received(store, STATES["excluded"])
    why = "The series is a localizer: its slices point in 3 directions."
    store.finish(claimed(store, STATES["excluded"]), Assessment(not_assessable(why), excluded=why), [], [], now)
    received(store, STATES["failed"])
    store.fail(claimed(store, STATES["failed"]), "Grading took too long.", now, permanent=True)
    (folder / "planes.png").write_bytes(planes(ASSESSMENTS["rescan"].preview))
    for name in ("not assessable", "rescan", "accept"):
        said = ASSESSMENTS[name.replace(" ", "_")]
        series(store, STATES[name], said, at=now, destination="pacs", planes="planes.png")


def look(place: Place, browser: Browser, path: str) -> None:
    """Nothing grave for those who see, hear or point otherwise; nothing sticks out sideways; one heading says where."""
    page = place.opened(browser, path)
    for element in page.locator("summary").all():
        element.click()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        found = Axe().run(page).response["violations"]
        grave = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
        assert not grave, f"{path}, {scheme}"
    for size in (PHONE, TABLET, DESKTOP):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} at {size['width']}"
    assert page.locator("h1").count() == 1
    assert page.locator("#main").inner_text().strip()
    page.context.close()


@pytest.mark.parametrize("path", PAGES)
def test_a_node_that_has_nothing_yet_reads_well(path: str, empty: Place, browser: Browser) -> None:
    look(empty, browser, path)


@pytest.mark.parametrize("path", PAGES)
def test_a_node_that_has_everything_reads_well(path: str, full: Place, browser: Browser) -> None:
    look(full, browser, path)


@pytest.mark.parametrize("state", STATES)
def test_a_series_reads_well_in_every_state(state: str, full: Place, browser: Browser) -> None:
    look(full, browser, f"/series/{STATES[state]}")


def test_empty_pages_say_what_to_do(empty: Place, browser: Browser) -> None:
    says = {
        "/": "Send a series to this node's AE title and port",
        "/scanners": "No series got a verdict in this period.",
        "/system": "Name one in the configuration",
        "/shadow": "Name a folder of weights as shadow",
    }
    for path, words in says.items():
        page = empty.opened(browser, path)
        assert words in page.locator("#main").inner_text()
        page.context.close()


@pytest.mark.parametrize("plane", Plane)
def test_the_marks_lead_to_the_slices_that_carry_the_artifact(plane: Plane, browser: Browser, tmp_path: Path) -> None:
    """Three slices shine: whoever goes to the marked ones sees them, however the stack runs through the patient."""
    head = phantom.head(np.random.default_rng(5), plane)
    bright = head.array.copy()
    bright[8:11] *= 4
    scan = swoop_series(Volume(bright, head.affine), patient_id="P", generator=np.random.default_rng(5))
    means = volume_from_instances([to_bytes(scan)]).array.mean(axis=(1, 2))
    shining = tuple(sorted(int(number) for number in np.argsort(means)[-3:]))
    noisy = assessment(Noise=replace(SEVERE, slices=shining), Motion=replace(MODERATE, slices=(0,)))
    with Store.open(StateFolder(folder=tmp_path)) as store, served(store, tmp_path) as client:
        uid = spooled(store, tmp_path, scan)
        assert store.finish(claimed(store, uid), replace(noisy, plane=plane), [], [], utc_now())
        place = Place(str(client.base_url).rstrip("/"), visit(store, client, Role.VIEWER).cookie)
        page = place.opened(browser, f"/series/{uid}")
        page.locator("#picture.replaced").wait_for(state="attached")

        def brightness() -> float:
            with Image.open(BytesIO(page.locator("#volume").screenshot())) as picture:
                return float(np.asarray(picture.convert("L")).mean())

        of, number = f" of {len(head.array)}", page.locator("#slice-of")
        assert number.inner_text() == f"{shining[1] + 1}{of}", "it begins at the worst"
        there = brightness()
        to_noise, to_motion = (page.get_by_role("button", name=name) for name in ("Noise: slices", "Motion: slice 1"))
        assert (to_noise.get_attribute("aria-pressed"), to_motion.get_attribute("aria-pressed")) == ("true", "false")
        for expected in (shining[2], shining[0], shining[1]):
            to_noise.press("Enter")
            assert number.inner_text() == f"{expected + 1}{of}"
        assert page.locator("#marks rect").count() == 4
        to_motion.press("Enter")
        assert number.inner_text() == f"1{of}"
        assert brightness() < there / 2
        other = next(one for one in Plane if one is not plane)
        page.get_by_role("button", name=other.value.capitalize()).click()
        assert not page.locator("#marks").is_visible()
        to_noise.press("Enter")
        assert number.inner_text().endswith(of)
        assert brightness() > there / 2
        page.context.close()
