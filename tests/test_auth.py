"""Logging in at the page, and a person's word on a verdict: who may, who may not, and what is kept of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from page_cases import NOW, PASSWORD, Markup, assessed, log_in, markup, received, served, token
from reporting_cases import ASSESSMENTS

from qcnode.artifacts import Artifact
from qcnode.clock import utc_now
from qcnode.config import StateFolder, Web
from qcnode.ledger.people import LOGIN_LASTS
from qcnode.ledger.store import Store
from qcnode.passwords import hashed
from qcnode.people import Role
from qcnode.web.auth import COOKIE
from qcnode.web.server import WebServer
from qcnode.web.throttle import EACH

ACKNOWLEDGE = {"word": "acknowledged", "revision": "1"}


@pytest.fixture(scope="module")
def password_hash() -> str:
    return hashed(PASSWORD)


@pytest.fixture
def store(tmp_path: Path, password_hash: str) -> Iterator[Store]:
    with Store.open(StateFolder(folder=tmp_path)) as opened:
        for role in Role:
            opened.people.add(f"a.{role.value}", role, password_hash, NOW)
        assessed(opened, tmp_path, ASSESSMENTS["rescan"])
        yield opened


@pytest.fixture
def page(store: Store, tmp_path: Path) -> Iterator[httpx.Client]:
    with served(store, tmp_path) as client:
        yield client


def say(page: httpx.Client, **fields: str) -> httpx.Response:
    return page.post("/series/1.2.3/said", data={"form_token": token(page, "/series/1.2.3"), **fields})


def opinions(store: Store) -> list[tuple[str, str]]:
    series = store.overview.detail("1.2.3")
    assert series is not None
    return [(one.by, one.word.value) for row in series.assessments for one in row.opinions]


@pytest.mark.parametrize("path", ["/", "/series/1.2.3", "/series/1.2.3/verdict.png", "/series/1.2.3/documents/1.dcm"])
def test_with_accounts_nothing_is_seen_without_a_login(path: str, page: httpx.Client) -> None:
    answer = page.get(path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login?next=/")
    assert "1.2.3" not in answer.text
    page.cookies.set(COOKIE, "invented")
    assert page.get(path).status_code == 303
    assert page.get("/healthz").text == "ok", "a monitor needs no account"


def test_a_login_leads_to_where_one_wanted_to_go(page: httpx.Client) -> None:
    assert page.get("/series/1.2.3").headers["location"] == "/login?next=/series/1.2.3"
    answer = log_in(page, " A.Technologist ", next="/series/1.2.3")
    assert (answer.status_code, answer.headers["location"]) == (303, "/series/1.2.3")
    assert "a.technologist, technologist" in markup(page, "/").text


@pytest.mark.parametrize("elsewhere", ["https://evil.example/", "//evil.example", "/series/1.2.3/../..", "", "/\\evil"])
def test_a_login_leads_to_no_other_site(elsewhere: str, page: httpx.Client) -> None:
    assert log_in(page, "a.viewer", next=elsewhere).headers["location"] == "/"


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites_and_new_at_each_login(page: httpx.Client) -> None:
    form_token, before = token(page), page.cookies[COOKIE]
    answer = page.post("/login", data={"form_token": form_token, "name": "a.viewer", "password": PASSWORD})
    said = answer.headers["set-cookie"].lower()
    assert "httponly" in said
    assert "samesite=strict" in said
    assert "secure" not in said, "this page is plain HTTP"
    first = page.cookies[COOKIE]
    assert before != first
    log_in(page, "a.viewer")
    second = page.cookies[COOKIE]
    assert second != first
    page.cookies.set(COOKIE, first)
    page.cookies.delete(COOKIE)
    assert page.get("/", headers={"cookie": f"{COOKIE}={first}"}).status_code == 303, "the earlier login has ended"
    assert page.get("/", headers={"cookie": f"{COOKIE}={second}"}).status_code == 200


def test_the_cookie_is_secure_behind_a_proxy_that_speaks_tls(page: httpx.Client) -> None:
    assert "secure" in page.get("/login", headers={"x-forwarded-proto": "https"}).headers["set-cookie"].lower()


@pytest.mark.parametrize(
    ("name", "password"),
    [("a.viewer", "wrong horse battery"), ("nobody", PASSWORD), ("", ""), ("a.viewer", PASSWORD + "x" * 4000)],
)
def test_a_wrong_name_and_a_wrong_password_read_the_same(name: str, password: str, page: httpx.Client) -> None:
    answer = log_in(page, name, password)
    assert answer.status_code == 403
    assert "The name or the password is not right." in Markup(answer.text).text
    assert page.get("/").status_code == 303


def test_guessing_is_slowed_down_and_kept_without_what_was_typed(
    page: httpx.Client, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        for _ in range(EACH):
            assert log_in(page, "a.viewer", "wrong horse battery").status_code == 403
        answer = log_in(page, "a.viewer", PASSWORD)
    assert answer.status_code == 429, "even the right password waits"
    assert "Too many attempts; wait 5 minutes." in Markup(answer.text).text
    assert log_in(page, "a.technologist").status_code == 303, "a colleague does not"
    refused = [event for event in store.overview.events(50) if event.kind == "login_refused"]
    assert [event.detail for event in refused] == [{"address": "127.0.0.1"}] * EACH
    assert "login_refused address=127.0.0.1" in caplog.text
    for private in ("a.viewer", "wrong horse", PASSWORD, page.cookies[COOKIE]):
        assert private not in caplog.text


@pytest.mark.parametrize("spoilt", [{}, {"form_token": ""}, {"form_token": "0" * 64}, {"form_token": "ü"}])
@pytest.mark.parametrize("path", ["/login", "/logout", "/series/1.2.3/said"])
def test_no_post_is_taken_without_the_form_s_token(
    path: str, spoilt: dict[str, str], page: httpx.Client, store: Store
) -> None:
    log_in(page, "a.technologist")
    answer = page.post(path, data={**ACKNOWLEDGE, "name": "a.viewer", "password": PASSWORD, **spoilt})
    assert answer.status_code == 403
    assert "did not come from this page" in Markup(answer.text).text
    assert opinions(store) == []
    assert page.get("/").status_code == 200, "and the login goes on"


def test_another_browser_s_token_and_another_site_are_refused(page: httpx.Client, store: Store) -> None:
    log_in(page, "a.technologist")
    with httpx.Client(base_url=page.base_url) as other:
        log_in(other, "a.admin")
        stolen = token(other, "/series/1.2.3")
    assert page.post("/series/1.2.3/said", data={**ACKNOWLEDGE, "form_token": stolen}).status_code == 403
    data = {**ACKNOWLEDGE, "form_token": token(page, "/")}
    for site in ("cross-site", "same-site"):
        assert page.post("/series/1.2.3/said", data=data, headers={"sec-fetch-site": site}).status_code == 403
    assert opinions(store) == []
    same = {"sec-fetch-site": "same-origin"}
    assert page.post("/series/1.2.3/said", data=data, headers=same).status_code == 303
    assert opinions(store) == [("a.technologist", "acknowledged")]


def test_a_viewer_sees_what_was_said_and_cannot_speak(page: httpx.Client, store: Store) -> None:
    store.opinions.acknowledge("1.2.3", 1, "a.technologist", NOW)
    log_in(page, "a.viewer")
    shown = markup(page, "/series/1.2.3")
    assert "Acknowledged by a.technologist." in shown.text
    assert "acknowledged by a.technologist" in markup(page, "/").text
    actions = [attributes["action"] for tag, attributes in shown.elements if tag == "form"]
    assert actions == ["/logout"]
    answer = say(page, **ACKNOWLEDGE)
    assert answer.status_code == 403
    assert "Your account may look" in Markup(answer.text).text
    assert opinions(store) == [("a.technologist", "acknowledged")]


@pytest.mark.parametrize("name", ["a.technologist", "a.admin"])
def test_a_correction_is_stored_and_shown_beside_the_machine_s_grade(
    name: str, page: httpx.Client, store: Store
) -> None:
    log_in(page, name)
    grades = {f"grade-{artifact.value}": "0" for artifact in Artifact} | {"grade-Motion": "1"}
    answer = say(page, word="corrected", revision="1", **grades)
    assert (answer.status_code, answer.headers["location"]) == (303, "/series/1.2.3#said")
    shown = markup(page, "/series/1.2.3")
    assert f"Motion severe {name}: moderate 0.01" in shown.text, "the machine's own grade stays as it was"
    assert f"{name} Motion is moderate" in shown.text
    checked = {a["name"]: a["value"] for tag, a in shown.elements if tag == "input" and "checked" in a}
    assert checked == grades, "the form begins with what the person said last"
    assert len(opinions(store)) == 3, "Noise, Positioning and Motion differ from the machine's grades, and no other"
    assert say(page, word="agreed", revision="1").status_code == 303
    assert "Motion severe 0.01" in markup(page, "/series/1.2.3").text, "the correction is taken back"
    assert f"{name} Motion is moderate" in markup(page, "/series/1.2.3").text, "and not forgotten"


def test_a_word_on_an_earlier_revision_says_so(page: httpx.Client, store: Store) -> None:
    log_in(page, "a.technologist")
    say(page, **ACKNOWLEDGE)
    received(store, number=2)
    shown = markup(page, "/series/1.2.3")
    assert "a.technologist acknowledged, of revision 1" in shown.text
    assert "/series/1.2.3/said" not in [attributes.get("action") for _, attributes in shown.elements]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({}, 400),
        ({"word": "rejected", "revision": "1"}, 400),
        ({"word": "agreed", "revision": "one"}, 400),
        ({"word": "corrected", "revision": "1", "grade-Motion": "3"}, 400),
        ({"word": "corrected", "revision": "1", "grade-<b>": "1"}, 400),
        ({"word": "agreed", "revision": "2"}, 409),
        ({"word": "agreed", "revision": "1", **{f"f{n}": "" for n in range(50)}}, 400),
        ({"word": "agreed", "revision": "1", "much": "x" * 20000}, 413),
    ],
)
def test_what_no_form_sends_is_refused(fields: dict[str, str], status: int, page: httpx.Client, store: Store) -> None:
    log_in(page, "a.technologist")
    assert say(page, **fields).status_code == status
    data = {**ACKNOWLEDGE, "form_token": token(page, "/")}
    assert page.post("/series/9.9/said", data=data).status_code == 409
    assert page.post("/series/1.2.3/said", json=data).status_code == 415
    assert opinions(store) == []


def test_logging_out_ends_the_login_itself(page: httpx.Client) -> None:
    log_in(page, "a.technologist")
    cookie = page.cookies[COOKIE]
    assert page.get("/").status_code == 200
    assert page.post("/logout", data={"form_token": token(page, "/")}).headers["location"] == "/login"
    assert COOKIE not in page.cookies
    assert page.get("/", headers={"cookie": f"{COOKIE}={cookie}"}).status_code == 303, "a kept cookie opens nothing"


def test_a_user_who_is_removed_is_out_at_once(page: httpx.Client, store: Store, password_hash: str) -> None:
    log_in(page, "a.technologist")
    data = {**ACKNOWLEDGE, "form_token": token(page, "/series/1.2.3")}
    store.people.remove("a.technologist", NOW)
    assert page.get("/").status_code == 303
    assert page.post("/series/1.2.3/said", data=data).status_code == 403
    store.people.add("a.technologist", Role.ADMIN, password_hash, NOW)
    assert page.get("/").status_code == 303, "the same name later is another login"
    assert opinions(store) == []


def test_a_login_lasts_a_shift(store: Store) -> None:
    password_hash = store.people.password_hash("a.viewer")
    assert password_hash is not None
    assert store.people.log_in("a.viewer", password_hash, "d" * 64, NOW)
    assert store.people.logged_in("d" * 64, NOW + LOGIN_LASTS / 2) is not None
    assert store.people.logged_in("d" * 64, NOW + LOGIN_LASTS) is None
    assert not store.people.log_in("a.viewer", "the hash of an older password", "e" * 64, NOW)


def test_hostile_names_and_titles_are_text(page: httpx.Client, store: Store) -> None:
    hostile = "<script>alert(1)</script>"
    store.opinions.acknowledge("1.2.3", 1, hostile, NOW)
    store.opinions.correct("1.2.3", 1, {Artifact.MOTION: 0}, hostile, NOW)  # type: ignore[dict-item]
    answer = log_in(page, hostile, next=f'/"><b>{hostile}')
    assert not {"script", "b"} & {tag for tag, _ in Markup(answer.text).elements}
    log_in(page, "a.technologist")
    for path in ("/", "/series/1.2.3"):
        shown = markup(page, path)
        assert all(str(a["src"]).startswith("/static/") for tag, a in shown.elements if tag == "script")
        assert hostile in shown.text


def test_every_control_has_a_label_and_every_answer_the_policy(page: httpx.Client) -> None:
    for path in ("/login", "/series/1.2.3"):
        if path != "/login":
            log_in(page, "a.technologist")
        text = page.get(path).text
        controls = re.findall(r'<input (?![^>]*type="hidden")[^>]*>', text)
        labelled = re.findall(r'<label for="(\w+)">', text)
        for control in controls:
            name = re.search(r'id="(\w+)"', control)
            assert (name and name[1] in labelled) or f"<label>{control}" in text
        assert controls
    answers = [page.get("/login"), page.post("/login"), page.get("/nothing"), page.get("/")]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "form-action 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_when_the_last_account_goes_the_page_is_open_on_loopback_alone(host: str, store: Store, tmp_path: Path) -> None:
    server = WebServer(Web(host=host, port=0), store, tmp_path)
    server.start()
    try:
        with httpx.Client(base_url=server.url) as page:
            assert page.get("/").status_code == 303
            for role in Role:
                store.people.remove(f"a.{role.value}", utc_now())
            if host == "127.0.0.1":
                assert "form" not in {tag for tag, _ in markup(page, "/series/1.2.3").elements}
                assert page.get("/login").headers["location"] == "/"
            else:
                for path in ("/", "/series/1.2.3", "/login"):
                    answer = page.get(path)
                    assert answer.status_code == 403
                    assert "qcnode user add NAME" in Markup(answer.text).text
    finally:
        server.stop()
