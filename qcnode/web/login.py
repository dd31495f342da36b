"""The way in and out, and what a visitor sees who may not go on."""

from __future__ import annotations

import re
import secrets
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse

from qcnode.ledger.people import LOGIN_LASTS
from qcnode.web.auth import AtTheDoor, LoginNeeded, Visitor
from qcnode.web.forms import COOKIE, Fields, Refused, form_token
from qcnode.web.templating import Pages

_OWN_PAGE = re.compile(r"/(series/[0-9.]{1,64}|scanners|system)?")
SEE_OTHER = 303


def add_login(app: FastAPI, pages: Pages) -> None:
    """The login page, its form, the logout, and the answers to who may not."""

    def ask(request: Request, cookie: str, goes_on: str, why: str = "", status: int = 200) -> Response:
        visitor = Visitor(None, form_token(cookie))
        answer = pages.page("login.html", visitor, status, goes_on=_own(goes_on), why=why)
        _set(answer, request, cookie)
        return answer

    @app.exception_handler(LoginNeeded)
    def login_needed(request: Request, _: Exception) -> Response:
        if "hx-request" in request.headers:  # a page that brings itself up to date: it loads anew, and so asks
            return Response(status_code=401, headers={"HX-Refresh": "true"})
        if request.method == "GET":
            return RedirectResponse(f"/login?next={quote(_own(request.url.path))}", SEE_OTHER)
        sentence = "Your login has ended, and nothing was stored; log in and repeat."
        return pages.page("refused.html", Visitor(), 403, sentence=sentence)

    @app.exception_handler(Refused)
    def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return pages.page("refused.html", Visitor(), error.status, sentence=error.sentence)

    @app.get("/login")
    def login(request: Request, door: AtTheDoor, next: str = "/") -> Response:
        """The login page, but not for whom a trusted proxy names; a browser without a cookie gets one, for the form."""
        if not door.has_accounts():
            return RedirectResponse("/", SEE_OTHER)
        if (named := door.proxies.named(request)) is not None:
            answer = RedirectResponse(_own(next), SEE_OTHER)
            _set(answer, request, door.let_in(named, request.cookies.get(COOKIE)))
            return answer
        return ask(request, request.cookies.get(COOKIE) or secrets.token_urlsafe(32), next)

    @app.post("/login")
    def log_in(request: Request, door: AtTheDoor, fields: Fields) -> Response:
        """Begin a login with a new cookie, and go where the visitor wanted to."""
        cookie, goes_on = request.cookies[COOKIE], fields.get("next", "/")
        address = request.client.host if request.client else "unknown"
        try:
            token = door.log_in(fields.get("name", ""), fields.get("password", ""), address, cookie)
        except Refused as error:
            return ask(request, cookie, goes_on, error.sentence, error.status)
        answer = RedirectResponse(_own(goes_on), SEE_OTHER)
        _set(answer, request, token)
        return answer

    @app.post("/logout")
    def log_out(request: Request, door: AtTheDoor, fields: Fields) -> Response:
        """End the login."""
        door.log_out(request.cookies[COOKIE])
        answer = RedirectResponse("/login", SEE_OTHER)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer


def _own(path: str) -> str:
    """The path where it is a page of ours, else the first page: a link to us must not lead elsewhere."""
    return path if _OWN_PAGE.fullmatch(path) else "/"


def _set(answer: Response, request: Request, cookie: str) -> None:
    answer.set_cookie(
        COOKIE,
        cookie,
        max_age=int(LOGIN_LASTS.total_seconds()),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",  # as a reverse proxy on this machine says it
    )
