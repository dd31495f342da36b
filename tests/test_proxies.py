"""A reverse proxy that logs people in: believed from its own address alone, and only when it names one person."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from page_cases import NOW, Markup

from qcnode.config import StateFolder, Web, parse
from qcnode.errors import ConfigError
from qcnode.ledger.store import Store
from qcnode.people import Role
from qcnode.web.server import WebServer

HERE, ELSEWHERE = "127.0.0.0/8", "10.1.2.3/32"
Serve = Callable[..., httpx.Client]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(StateFolder(folder=tmp_path)) as opened:
        yield opened


@pytest.fixture
def serve(store: Store, tmp_path: Path) -> Iterator[Serve]:
    with ExitStack() as stack:

        def started(proxies: str, **more: str) -> httpx.Client:
            server = WebServer(Web(port=0, trusted_proxies=(proxies,), **more), store, tmp_path)  # type: ignore[arg-type]
            server.start()
            stack.callback(server.stop)
            client = httpx.Client(base_url=server.url, follow_redirects=True, timeout=60)
            return stack.enter_context(client)

        yield started


def people(store: Store) -> list[tuple[str, Role]]:
    return [(person.name, person.role) for person in store.people.all()]


def who(answer: httpx.Response) -> str:
    """Whom the page greets."""
    assert answer.status_code == 200
    return Markup(answer.text).text


def test_whom_it_names_is_in_with_the_account_s_role(store: Store, serve: Serve) -> None:
    store.people.add("mira", Role.TECHNOLOGIST, "a hash", NOW)
    page = serve(HERE)
    assert "mira, technologist" in who(page.get("/", headers={"X-Remote-User": "Mira"}))
    assert page.get("/system", headers={"X-Remote-User": "mira"}).url.path == "/system", "and goes where she wanted to"
    for nobody in ({}, {"X-Remote-User": ""}, {"X-Remote-User": "<b>"}, {"X-Remote-User": "stranger"}):
        page.cookies.clear()
        answer = page.get("/", headers=nobody)
        assert answer.status_code == 403
        assert "mira" not in answer.text
    assert people(store) == [("mira", Role.TECHNOLOGIST)]


def test_two_names_are_none(store: Store, serve: Serve) -> None:
    store.people.add("mira", Role.ADMIN, "a hash", NOW)
    answer = serve(HERE).get("/", headers=[("X-Remote-User", "mira"), ("X-Remote-User", "jo")])
    assert answer.status_code == 403, "one of them came from the browser"


def test_another_user_in_the_same_browser_is_another_login(store: Store, serve: Serve) -> None:
    for name in ("mira", "jo"):
        store.people.add(name, Role.VIEWER, "a hash", NOW)
    page = serve(HERE)
    assert "mira, viewer" in who(page.get("/", headers={"X-Remote-User": "mira"}))
    assert "jo, viewer" in who(page.get("/", headers={"X-Remote-User": "jo"}))
    store.people.remove("jo", NOW)
    assert page.get("/", headers={"X-Remote-User": "jo"}).status_code == 403, "at once"


def test_it_may_give_the_role_which_makes_the_account(store: Store, serve: Serve) -> None:
    page = serve(HERE, role_header="X-Remote-Role", user_header="X-User")
    assert "mira, viewer" in who(page.get("/", headers={"X-User": "mira", "X-Remote-Role": "Viewer"}))
    assert people(store) == [("mira", Role.VIEWER)]
    assert "mira, admin" in who(page.get("/", headers={"X-User": "mira", "X-Remote-Role": "admin"}))
    assert people(store) == [("mira", Role.ADMIN)]
    for wrong in ({}, {"X-Remote-Role": "emperor"}):
        assert page.get("/", headers={"X-User": "jo", **wrong}).status_code == 403
    store.tokens.add("ris", Role.ADMIN, "d" * 64, NOW)
    assert page.get("/", headers={"X-User": "ris", "X-Remote-Role": "admin"}).status_code == 403
    assert people(store) == [("mira", Role.ADMIN)]
    assert store.people.password_hash("mira") == "", "no password opens it"


def test_the_header_of_anybody_else_is_not_read(store: Store, serve: Serve) -> None:
    store.people.add("mira", Role.ADMIN, "a hash", NOW)
    page = serve(ELSEWHERE)
    for forged in ({}, {"X-Forwarded-For": "10.1.2.3"}):
        answer = page.get("/", headers={"X-Remote-User": "mira", **forged})
        assert answer.url.path == "/login", "and is asked for a password, as ever"
        assert "mira" not in answer.text
    plain = serve(HERE)
    answer = plain.get("/series/1.2.3", headers={"X-Remote-User": "mira", "X-Forwarded-For": "192.0.2.7"})
    assert answer.status_code == 404, "the proxy's own address counts, not that of whom it speaks for"


def test_what_monitors_and_programs_ask_needs_no_header(store: Store, serve: Serve) -> None:
    page = serve(HERE)
    assert page.get("/healthz").text == "ok"
    assert page.get("/api/v1/series").status_code == 403, "nobody is named"
    assert page.get("/api/v1/series", headers={"X-Remote-User": "mira"}).status_code == 401
    store.tokens.add("ris", Role.VIEWER, "6b2f3b9b", NOW)
    assert page.get("/metrics", headers={"Authorization": "Bearer x"}).status_code == 401


def test_with_a_trusted_proxy_the_page_may_leave_loopback(store: Store, tmp_path: Path) -> None:
    WebServer(Web(host="0.0.0.0", trusted_proxies=(ELSEWHERE,)), store, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="accounts"):
        WebServer(Web(host="0.0.0.0"), store, tmp_path)


@pytest.mark.parametrize("wrong", ['trusted_proxies = ["proxy"]', 'user_header = "X User"', 'role_header = "X:"'])
def test_a_setting_that_cannot_be_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError, match="web"):
        parse(f"[web]\n{wrong}\n", "site.toml")
