"""The page in a real browser, over a real node that a real sender feeds: what two people at two tablets see and do."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from peers import NodeProcess, nodes, qcnode, storescu
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from senders import files

from qcnode.artifacts import Artifact, Plane, Severity
from qcnode.clock import utc_now
from qcnode.imaging import phantom
from qcnode.imaging.swoop import classic_series
from qcnode.imaging.volume import Volume
from qcnode.ledger.store import Store
from qcnode.passwords import hashed
from qcnode.people import Role
from train.dataset import read_scans

PATIENCE = 90.0  # seconds, for what a node and a browser do together
PASSWORD = "correct horse battery"
HOSTILE = "<b>Doe</b>&amp;"
TABLET = {"width": 800, "height": 1280}
SOFTWARE_WEBGL = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")

# Every word that stood in a sign, noted in the page itself: one that was reloaded would have forgotten it.
NOTE_SIGNS = """() => {
    window.signs = new Set();
    const note = () => document.querySelectorAll("#series .sign").forEach((sign) => window.signs.add(sign.innerText));
    new MutationObserver(note).observe(document.body, {subtree: true, childList: true, characterData: true});
    note();
}"""
NOTE_TONES = """window.tones = 0;
const start = OscillatorNode.prototype.start;
OscillatorNode.prototype.start = function (...at) { window.tones += 1; return start.apply(this, at); };"""


@dataclass
class Person:
    """Somebody at a tablet of their own."""

    page: Page
    url: str
    faults: list[str] = field(default_factory=list)

    def open(self, path: str) -> Page:
        self.page.goto(self.url + path)
        return self.page

    def signs(self) -> set[str]:
        return {word.split("\n")[-1].strip().lower() for word in self.page.evaluate("[...window.signs]")}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed; .ci/run installs it")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=[*SOFTWARE_WEBGL])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def tended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A node with two accounts: mira may speak, omar may look."""
    with nodes(tmp_path_factory.mktemp("tended")) as start:
        node = start("[completeness]\ngrace_seconds = 3\nquiet_seconds = 10\n")
        kept = hashed(PASSWORD)
        with Store(f"sqlite:///{node.state / 'ledger.sqlite3'}") as store:
            store.people.add("mira", Role.TECHNOLOGIST, kept, utc_now())
            store.people.add("omar", Role.VIEWER, kept, utc_now())
        yield node


def person(browser: Browser, node: NodeProcess, name: str) -> Person:
    """A browser of their own, logged in; what its console calls an error is kept."""
    page = browser.new_context(viewport=TABLET).new_page()
    page.set_default_timeout(PATIENCE * 1000)
    page.add_init_script(NOTE_TONES)
    one = Person(page, f"http://127.0.0.1:{node.web_port}")
    page.on("pageerror", lambda error: one.faults.append(str(error)))
    page.on("console", lambda said: one.faults.append(said.text) if "Content Security Policy" in said.text else None)
    page.on("dialog", lambda dialog: one.faults.append(dialog.message))
    one.open("/")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Now")).to_be_visible(timeout=PATIENCE * 1000)
    return one


@pytest.fixture(scope="module")
def mira(browser: Browser, tended: NodeProcess) -> Person:
    return person(browser, tended, "mira")


@pytest.fixture(scope="module")
def omar(browser: Browser, tended: NodeProcess) -> Person:
    return person(browser, tended, "omar")


def seen(what: Locator) -> None:
    expect(what).to_be_visible(timeout=PATIENCE * 1000)


def gone(what: Locator) -> None:
    expect(what).to_have_count(0, timeout=PATIENCE * 1000)


def send(node: NodeProcess, folder: Path, head: Volume, seed: int, calling: str = "SWOOP1", **elements: str) -> str:
    """One series, slice by slice, over an association of its own; its UID."""
    slices = classic_series(head, patient_id=f"P-{seed}", generator=np.random.default_rng(seed))
    for one in slices:
        for keyword, value in elements.items():
            setattr(one, keyword, value)
    done = storescu(node.port, *files(folder, *slices), calling=calling)
    assert done.returncode == 0, done.stderr
    return str(slices[0].SeriesInstanceUID)


@pytest.fixture(scope="module")
def moved(tended: NodeProcess, mira: Person, omar: Person, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A scan to be repeated, sent while both have the first page open; its series UID."""
    for one in (mira, omar):
        one.page.evaluate(NOTE_SIGNS)
    mira.page.get_by_role("button", name="Sound is off").click()
    mira.page.wait_for_function("window.tones === 3")  # so she knows what it will be like
    head = phantom.moved_head(np.random.default_rng(65), Plane.AXIAL)
    folder = tmp_path_factory.mktemp("moved")
    uid = send(tended, folder, head, 65, PatientName=HOSTILE, SeriesDescription=HOSTILE, calling="<b>AE</b>")
    for one in (mira, omar):
        seen(one.page.locator("#series .sign.rescan"))
    return uid


def test_a_series_appears_and_changes_without_a_reload(mira: Person, omar: Person, moved: str) -> None:
    for one in (mira, omar):
        assert {"receiving", "rescan"} <= one.signs()
        assert {"ready", "assessing"} & one.signs()
        seen(one.page.locator("#series").get_by_text("Severe motion. Repeat this scan; settle the child first."))
        assert one.page.locator("#series .seven li").count() == 7


def test_a_rescan_is_heard_where_a_person_asked_for_sound(mira: Person, omar: Person, moved: str) -> None:
    mira.page.wait_for_function("window.tones === 6")
    assert omar.page.evaluate("window.tones") == 0
    assert mira.page.get_by_role("button", name="Sound is on").get_attribute("aria-pressed") == "true"


def test_hostile_text_is_text(mira: Person, omar: Person, moved: str) -> None:
    for path in ("/", f"/series/{moved}"):
        page = omar.open(path)
        seen(page.get_by_text("<b>AE</b>").first)
        assert page.locator("b").count() == 0


def test_the_volume_is_in_the_viewer_and_its_slices_under_the_keyboard(omar: Person, moved: str) -> None:
    page = omar.open(f"/series/{moved}")
    page.locator("#picture.replaced").wait_for(state="attached")
    with Image.open(BytesIO(page.locator("#volume").screenshot())) as picture:
        assert np.asarray(picture.convert("L")).std() > 5, "there is a head in it"
    first, slices = page.locator("#slice-of").inner_text().split(" of ")
    page.locator("#slice").press("ArrowRight")
    assert page.locator("#slice-of").inner_text() == f"{int(first) + 1} of {slices}"
    page.get_by_role("button", name="Three planes").click()
    assert page.get_by_role("button", name="Three planes").get_attribute("aria-pressed") == "true"


def test_a_rescan_calls_until_it_is_acknowledged_by_name_and_a_viewer_may_not(
    mira: Person, omar: Person, moved: str
) -> None:
    for one in (mira, omar):
        one.open("/")
        seen(one.page.get_by_role("alert").get_by_text("Repeat this scan"))
    assert omar.page.get_by_role("button", name="Acknowledge").count() == 0
    mira.page.get_by_role("button", name="Acknowledge").click()
    seen(mira.page.get_by_text("Acknowledged by mira."))
    for one in (mira, omar):
        gone(one.page.get_by_role("alert"))
    seen(omar.page.get_by_text("acknowledged by mira"))


def test_a_corrected_grade_shows_at_the_other_tablet_and_is_a_label_of_the_export(
    tended: NodeProcess, mira: Person, omar: Person, moved: str, tmp_path: Path
) -> None:
    for one in (mira, omar):
        one.open(f"/series/{moved}")
    assert omar.page.get_by_text("Correct a grade").count() == 0
    mira.page.locator("summary", has_text="Correct a grade").click()
    mira.page.get_by_role("group", name="Motion").get_by_label("moderate").check()
    mira.page.get_by_role("button", name="Store my grades").click()
    for one in (mira, omar):
        seen(one.page.locator("#graded tr", has_text="Motion").get_by_text("mira: moderate"))
    done = qcnode("export", tmp_path / "labels", "--config", tended.config)
    assert done.returncode == 0, done.stderr
    series = tended.series(moved)
    assert series is not None
    assert series.latest is not None
    machine = {score.artifact: score.severity for score in series.latest.scores}
    assert machine[Artifact.MOTION] == Severity.SEVERE, "what the machine said stays"
    (scan,) = read_scans(tmp_path / "labels")
    assert dict(zip(Artifact, scan.labels, strict=True)) == machine | {Artifact.MOTION: Severity.MODERATE}
    with (tmp_path / "labels" / "ratings.csv").open(newline="") as ratings:
        assert [(row["rater"], row["corrected"]) for row in csv.DictReader(ratings)] == [("mira", "Motion")]


def test_a_page_outlives_the_node_s_restart_and_misses_nothing(
    tended: NodeProcess, mira: Person, moved: str, clean_head: Volume, tmp_path: Path
) -> None:
    mira.open("/").evaluate(NOTE_SIGNS)
    tended.kill()
    seen(mira.page.get_by_text("The node does not answer."))
    tended.start()
    uid = send(tended, tmp_path, clean_head, 64)
    seen(mira.page.locator("#series li", has_text=uid[-8:]).get_by_text("No artifact that matters. Go on."))
    gone(mira.page.get_by_text("The node does not answer."))
    assert "accept" in mira.signs(), "it was not loaded anew"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_accessibility_fault(scheme: str, browser: Browser, mira: Person, moved: str) -> None:
    mira.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    for path in ("/", f"/series/{moved}"):
        page = mira.open(path)
        seen(page.get_by_role("heading").first)
        for element in page.locator("summary").all():
            element.click()
        found = Axe().run(page).response["violations"]
        grave = [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]
        assert not grave
    stranger = browser.new_context(viewport=TABLET).new_page()
    stranger.goto(mira.url)
    assert [one["id"] for one in Axe().run(stranger).response["violations"]] == []


def test_nothing_failed_and_nothing_had_to_be_blocked(mira: Person, omar: Person, moved: str) -> None:
    assert mira.faults == []
    assert omar.faults == []
