"""The page over a real ledger: it shows what is there, takes text for text, and carries no patient."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from page_cases import NOW, assessed, claimed, markup, received, served, spooled
from PIL import Image
from reporting_cases import ASSESSMENTS, MODERATE, assessment, swoop

from qcnode.artifacts import Artifact
from qcnode.config import StateFolder, Web
from qcnode.errors import ConfigError
from qcnode.ledger.records import Claim, Forwarding
from qcnode.ledger.store import Store
from qcnode.people import Role
from qcnode.states import DeliveryState
from qcnode.verdict import Assessment, not_assessable
from qcnode.web.server import WebServer

ELSEWHERE = ("/series/1.2.3/volume.nii.gz",)  # its images are not in this test's spool
HOSTILE_AE = '<b x="&">AE</b>'


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(StateFolder(folder=tmp_path)) as opened:
        yield opened


@pytest.fixture
def page(store: Store, tmp_path: Path) -> Iterator[httpx.Client]:
    with served(store, tmp_path) as client:
        yield client


def test_an_empty_ledger_says_what_to_do(page: httpx.Client) -> None:
    assert "Nothing has arrived yet. Send a series" in markup(page, "/").text


def test_a_series_page_shows_how_far_its_images_are_for_each_destination(store: Store, page: httpx.Client) -> None:
    for number in range(1, 6):
        received(store, number=number)
    assert "Images forwarded" not in markup(page, "/series/1.2.3").text
    to = [Forwarding(name, name.upper()) for name in ("pacs", "archive", "research")]
    assert store.mark_ready("1.2.3", 1, "all its frames are there", NOW, to)
    assert "archive 0 of 5 sent, 5 pending" in markup(page, "/series/1.2.3").text

    due = {name: [one.id for one in store.deliveries.due(name, NOW)] for name in ("pacs", "archive")}
    for one in due["pacs"]:
        store.deliveries.mark_sent(one, NOW)
    first, second, *_ = due["archive"]
    store.deliveries.mark_later(first, NOW, "It is down <1>.")
    store.deliveries.mark_later(second, NOW + timedelta(seconds=9), "It is out of resources <2>.", refused=True)
    shown = markup(page, "/series/1.2.3").text
    assert "archive 0 of 5 sent, 5 pending It is out of resources <2>." in shown, "the latest error, as text"
    assert "pacs all 5 sent, the last 2026-03-01 12:30:15" in shown
    assert "research 0 of 5 sent, 5 pending" in shown

    store.deliveries.mark_sent(second, NOW)
    store.deliveries.mark_dead(first, "It does not take this transfer syntax.", NOW)
    shown = markup(page, "/series/1.2.3").text
    assert "archive 1 of 5 sent, 3 pending, 1 dead , the last" in shown
    assert "It does not take this transfer syntax." in shown
    assert "1 delivery could not be made" in markup(page, "/").text


@pytest.mark.parametrize("name", ASSESSMENTS)
def test_each_verdict_is_a_word_a_sign_and_its_reasons_on_both_pages(
    name: str, store: Store, page: httpx.Client, tmp_path: Path
) -> None:
    assessment = ASSESSMENTS[name]
    assessed(store, tmp_path, assessment)
    word = assessment.verdict.decision.value.replace("_", " ")
    for path in ("/", "/series/1.2.3"):
        shown = markup(page, path).text
        assert any(f"{sign} {word}" in shown for sign in "✓!✕?")
        assert all(reason in shown for reason in assessment.verdict.reasons[:3])
    assert all(reason in shown for reason in assessment.verdict.reasons), "the series' own page has them all"


def test_a_series_page_shows_grades_documents_and_events(store: Store, page: httpx.Client, tmp_path: Path) -> None:
    made = assessed(store, tmp_path, ASSESSMENTS["rescan"])
    shown = markup(page, "/series/1.2.3")
    assert "Motion severe 0.01 0.03 0.96" in shown.text
    assert "Noise moderate 0.10 0.85 0.05" in shown.text
    assert shown.text.count("pacs: pending") == len(made) == 3
    assert "from SWOOP1, graded by briqa-3f9a12c4" in shown.text
    assert "assessed" in shown.text
    links = {attributes["href"] for tag, attributes in shown.elements if tag == "a"}
    for kind, document in made.items():
        path = f"/series/1.2.3/documents/{document.sop_instance_uid}.dcm"
        assert path in links
        answer = page.get(path)
        assert answer.content == (tmp_path / str(document.path)).read_bytes()
        assert answer.headers["content-type"] == "application/dicom"
        assert f'filename="{kind}.dcm"' in answer.headers["content-disposition"]


def test_the_verdict_page_is_the_secondary_capture(store: Store, page: httpx.Client, tmp_path: Path) -> None:
    assessed(store, tmp_path, ASSESSMENTS["rescan"])
    (picture,) = [a for tag, a in markup(page, "/series/1.2.3").elements if tag == "img"]
    assert "Severe motion." in str(picture["alt"]), "a reader without eyes gets the reasons"
    answer = page.get(str(picture["src"]))
    assert answer.headers["content-type"] == "image/png"
    with Image.open(BytesIO(answer.content)) as image:
        assert image.width >= 512


def test_three_planes_stand_beside_the_verdict_and_belong_to_its_revision(
    store: Store, page: httpx.Client, tmp_path: Path
) -> None:
    (tmp_path / "of-1.png").write_bytes(b"three planes")
    assessed(store, tmp_path, ASSESSMENTS["rescan"], planes="of-1.png")
    (picture,) = [a for tag, a in markup(page, "/").elements if tag == "img"]
    assert "Axial, coronal and sagittal" in str(picture["alt"])
    answer = page.get(str(picture["src"]))
    assert (answer.content, answer.headers["content-type"]) == (b"three planes", "image/png")
    assert answer.headers["cache-control"] == "no-store", "no head stays in a browser that is logged out"
    for other in ("2", "0", "-1", "99999999999999999999", "x"):
        assert page.get(f"/series/1.2.3/planes/{other}.png").status_code in (404, 422)
    received(store, number=2)
    assert not [tag for tag, _ in markup(page, "/").elements if tag == "img"], "the present revision has none yet"
    (tmp_path / "of-1.png").unlink()
    assert page.get(str(picture["src"])).status_code == 404


def test_the_slices_that_carry_an_artifact_are_said_and_marked(
    store: Store, page: httpx.Client, tmp_path: Path
) -> None:
    rescan = ASSESSMENTS["rescan"]
    slices = {Artifact.MOTION: (), Artifact.POSITIONING: None, Artifact.NOISE: (3, 11, 12, 13)}
    grades = {artifact: replace(grade, slices=slices.get(artifact)) for artifact, grade in rescan.grades.items()}
    assert store.finish(_claim(store, tmp_path), replace(rescan, grades=grades), [], [], NOW, planes="1.png")
    shown = markup(page, f"/series/{swoop().SeriesInstanceUID}")
    assert "Noise moderate slices 4, 12\N{NON-BREAKING HYPHEN}14 0.10" in shown.text
    assert "Motion severe the whole scan 0.01" in shown.text
    assert "Positioning severe 0.01" in shown.text, "nobody looked"
    marks = next(json.loads(str(a["data-marks"])) for _, a in shown.elements if "data-marks" in a)
    assert marks == [
        {"artifact": "Noise", "severity": 1, "slices": [3, 11, 12, 13], "says": "slices 4, 12-14"},
    ]


@pytest.mark.parametrize(
    ("slices", "says"),
    [((11, 12, 13), "Noise: slices 12\N{NON-BREAKING HYPHEN}14"), ((), None), (None, None)],
)
def test_the_first_page_says_where_the_worst_artifact_is(
    slices: tuple[int, ...] | None, says: str | None, store: Store, page: httpx.Client, tmp_path: Path
) -> None:
    noisy = assessment(Noise=replace(MODERATE, slices=slices))
    assert store.finish(_claim(store, tmp_path), noisy, [], [], NOW, planes="1.png")
    shown = markup(page, "/")
    assert (f" {says} " in shown.text) if says else ("Noise:" not in shown.text)
    (alt,) = [str(attributes["alt"]) for tag, attributes in shown.elements if tag == "img"]
    assert ("marked" in alt) == bool(slices)


def _claim(store: Store, folder: Path) -> Claim:
    return claimed(store, spooled(store, folder, swoop()))


def test_an_excluded_and_a_failed_series_say_why(store: Store, page: httpx.Client) -> None:
    received(store, "1.2.4")
    why = "A localizer is not for assessment."
    store.finish(claimed(store, "1.2.4"), Assessment(not_assessable(why), excluded=why), [], [], NOW)
    received(store, "1.2.5")
    store.fail(claimed(store, "1.2.5"), "Grading took too long.", NOW, permanent=True)
    for path, uid in (("/", ""), ("/series/1.2.4", "4"), ("/series/1.2.5", "5")):
        shown = markup(page, path).text
        if uid != "5":
            assert "excluded" in shown
            assert why in shown
        if uid != "4":
            assert "failed" in shown
            assert "Grading took too long." in shown


def test_a_verdict_of_an_earlier_revision_is_not_shown_as_the_present_one(
    store: Store, page: httpx.Client, tmp_path: Path
) -> None:
    assessed(store, tmp_path, ASSESSMENTS["accept"])
    received(store, number=2)
    shown = markup(page, "/").text
    assert "✓ accept" not in shown
    assert "receiving" in shown
    stale = markup(page, "/series/1.2.3")
    assert "Of revision 1: accept" in stale.text, "its old grades are told from the new ones"
    assert not [tag for tag, _ in stale.elements if tag == "img"], "and the large letters are gone"


def test_hostile_text_is_text(store: Store, page: httpx.Client) -> None:
    received(store, "1.2.6", calling_ae=HOSTILE_AE)
    why = "<script>alert(1)</script> is no contrast."
    store.finish(claimed(store, "1.2.6"), Assessment(not_assessable(why), excluded=why), [], [], NOW)
    store.event("conflict", "1.2.6", {"from": HOSTILE_AE, "<i>": "<img src=x onerror=alert(1)>"}, NOW)
    for path in ("/", "/series/1.2.6"):
        shown = markup(page, path)
        assert not {"b", "i", "img"} & {tag for tag, _ in shown.elements}
        assert all(str(a["src"]).startswith("/static/") for tag, a in shown.elements if tag == "script")
        assert HOSTILE_AE in shown.text
        assert why in shown.text


def test_a_dead_delivery_is_a_warning_with_its_remedy(store: Store, page: httpx.Client, tmp_path: Path) -> None:
    made = assessed(store, tmp_path, ASSESSMENTS["accept"])
    for due in store.deliveries.due("pacs", NOW):
        store.deliveries.mark_dead(due.id, "The peer refused the document (0xC000); see its log.", NOW)
    assert store.deliveries.counts()[DeliveryState.DEAD] == len(made)
    assert "2 deliveries could not be made; qcnode retry --dead" in markup(page, "/").text
    assert "pacs: dead (The peer refused" in markup(page, "/series/1.2.3").text


@pytest.mark.parametrize(
    "path",
    [
        "/series/9.9.9",
        "/series/9.9.9/verdict.png",
        "/series/1.2.3/verdict.png",
        "/series/1.2.3/documents/9.9.dcm",
        "/series/1.2.3/documents/..%2f..%2fledger.sqlite3",
        "/nothing",
        "/static/../app.py",
        "/docs",
        "/openapi.json",
    ],
)
def test_what_is_not_there_is_404_or_refused(path: str, store: Store, page: httpx.Client) -> None:
    received(store)
    assert page.get(path).status_code in (404, 422)


def test_a_document_whose_file_is_gone_is_404(store: Store, page: httpx.Client, tmp_path: Path) -> None:
    made = assessed(store, tmp_path, ASSESSMENTS["accept"])
    for document in made.values():
        (tmp_path / str(document.path)).unlink()
        assert page.get(f"/series/1.2.3/documents/{document.sop_instance_uid}.dcm").status_code == 404
    assert page.get("/series/1.2.3/verdict.png").status_code == 404


def test_the_page_only_reads_and_lets_nothing_in(store: Store, page: httpx.Client) -> None:
    received(store)
    for path in ("/", "/series/1.2.3", "/healthz", "/static/qcnode.css"):
        assert page.post(path).status_code == 405
        headers = page.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == ("no-cache" if path.startswith("/static/") else "no-store")
    assert page.get("/healthz").text == "ok"


def test_everything_it_loads_is_its_own(store: Store, page: httpx.Client, tmp_path: Path) -> None:
    assessed(store, tmp_path, ASSESSMENTS["rescan"])
    for path in ("/", "/series/1.2.3"):
        for tag, attributes in markup(page, path).elements:
            for key in ("src", "href"):
                target = attributes.get(key)
                if not target or target.startswith("#") or target in ELSEWHERE:
                    continue
                assert target.startswith("/"), f"{tag} loads {target}"
                assert page.get(target).status_code == 200, target


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "node.example"])
def test_it_leaves_loopback_with_accounts_only(host: str, store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not loopback, and there are no accounts; add one with `qcnode user add"):
        WebServer(Web(host=host), store, tmp_path)
    WebServer(Web(host=host, insecure=True), store, tmp_path)
    store.people.add("mira", Role.VIEWER, "a hash", NOW)
    WebServer(Web(host=host), store, tmp_path)


def test_it_serves_on_a_free_port_and_stops(store: Store, tmp_path: Path) -> None:
    first = WebServer(Web(port=0), store, tmp_path)
    first.start()
    try:
        with urllib.request.urlopen(f"{first.url}healthz", timeout=10) as answer:
            assert answer.read() == b"ok"
        url = first.url
        taken = int(url.rsplit(":", 1)[1].strip("/"))
        with pytest.raises(ConfigError, match=r"cannot listen on 127.0.0.1:\d+ .*change \[web\] port"):
            WebServer(Web(port=taken), store, tmp_path).start()
    finally:
        first.stop()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{url}healthz", timeout=10)
