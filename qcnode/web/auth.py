"""Who looks at the page: logins by name and password, held by a cookie whose digest is in the ledger."""

from __future__ import annotations

import math
import secrets
import threading
import time
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from qcnode.clock import utc_now
from qcnode.ledger.people import Person
from qcnode.ledger.store import Store
from qcnode.passwords import digest, is_right
from qcnode.web.forms import COOKIE, Refused, form_token
from qcnode.web.proxies import Named, TrustedProxies
from qcnode.web.throttle import Throttle


class LoginNeeded(Exception):  # noqa: N818 - what the request lacks
    """There are accounts, and this browser is logged in with none of them."""


@dataclass(frozen=True)
class Visitor:
    """Whoever makes a request; without a person where the page is open to all."""

    person: Person | None = None
    form_token: str = ""

    @property
    def may_speak(self) -> bool:
        """Whether this person's word on a verdict is taken."""
        return self.person is not None and self.person.role.may_speak


class Door:
    """Lets people in. While there are no accounts, everybody may read where the page is open to all, and nobody else.

    The ledger is asked at each request, so an account that is removed is out at once.
    """

    def __init__(self, store: Store, *, open_to_all: bool, proxies: TrustedProxies) -> None:
        self._store, self._open_to_all, self.proxies = store, open_to_all, proxies
        self._throttle = Throttle()
        self._verifying = threading.Lock()  # a password costs 64 MiB and two cores to verify: one at a time

    def visitor(self, cookie: str | None, named: Named | None = None) -> Visitor:
        """Who this cookie belongs to; LoginNeeded where that must be known and is not.

        named: whom a trusted proxy names; a login of anybody else, or in another role, is none.
        """
        person = self._store.people.logged_in(digest(cookie), utc_now()) if cookie else None
        if person is not None and cookie is not None and (named is None or named.is_(person)):
            return Visitor(person, form_token(cookie))
        if self.has_accounts():
            raise LoginNeeded
        return Visitor()

    def token_holder(self, token: str) -> Visitor | None:
        """Whose token this is; None for one that is not known."""
        holder = self._store.tokens.holder(digest(token))
        return None if holder is None else Visitor(holder)

    def has_accounts(self) -> bool:
        """Whether there is anybody to log in as; Refused where there is not, and the page is not open to all."""
        if self.proxies or self._store.people.any():
            return True
        if self._open_to_all:
            return False
        raise Refused(403, "This page has no accounts; add one on the node's machine with: qcnode user add NAME")

    def log_in(self, name: str, password: str, address: str, cookie: str | None) -> str:
        """A new login's token, for the cookie; whatever the old cookie held ends. Refused when it is not right."""
        name = name.strip().lower()
        if wait := self._throttle.wait(name, address, time.monotonic()):
            minutes = math.ceil(wait / 60)
            raise Refused(429, f"Too many attempts; wait {minutes} {'minute' if minutes == 1 else 'minutes'}.")
        kept = self._store.people.password_hash(name)
        with self._verifying:
            right = is_right(password, kept)
        token = secrets.token_urlsafe(32)
        if not right or kept is None or not self._store.people.log_in(name, kept, digest(token), utc_now()):
            self._store.event("login_refused", None, {"address": address}, utc_now())  # a name may be a password
            raise Refused(403, "The name or the password is not right.")
        self._throttle.forgive(name, address)
        self.log_out(cookie)
        return token

    def let_in(self, named: Named, cookie: str | None) -> str:
        """A new login's token for whom a trusted proxy names; Refused where nobody knows what that person may do."""
        token = secrets.token_urlsafe(32)
        if not self._store.people.let_in(named.name, named.role, digest(token), utc_now()):
            raise Refused(403, "You have no account here yet; ask whoever runs the node for: qcnode user add")
        self.log_out(cookie)
        return token

    def log_out(self, cookie: str | None) -> None:
        """End the login of this cookie."""
        if cookie:
            self._store.people.log_out(digest(cookie), utc_now())


def door_of(request: Request) -> Door:
    """The door of the application that the request came to."""
    door = request.app.state.door
    assert isinstance(door, Door)
    return door


def visitor_of(request: Request) -> Visitor:
    """Who sends the request, by their cookie; LoginNeeded where that must be known and is not."""
    door = door_of(request)
    return door.visitor(request.cookies.get(COOKIE), door.proxies.named(request))


AtTheDoor = Annotated[Door, Depends(door_of)]
Seen = Annotated[Visitor, Depends(visitor_of)]
