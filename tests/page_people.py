"""People at the page who are logged in already, without the cost of a password."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import httpx

from qcnode.clock import utc_now
from qcnode.ledger.store import Store
from qcnode.passwords import digest
from qcnode.people import Role
from qcnode.web.forms import COOKIE, TOKEN, form_token


@dataclass(frozen=True)
class Visit:
    """A browser that one account is logged in with."""

    page: httpx.Client
    cookie: str

    def get(self, path: str) -> httpx.Response:
        return self.page.get(path, headers={"cookie": f"{COOKIE}={self.cookie}"})

    def post(self, path: str, **fields: str) -> httpx.Response:
        """Send a form of the page."""
        data = {TOKEN: form_token(self.cookie), **fields}
        return self.page.post(path, data=data, headers={"cookie": f"{COOKIE}={self.cookie}"})


def visit(store: Store, page: httpx.Client, role: Role, at: datetime | None = None) -> Visit:
    """Somebody of this role at the page, by the name a.ROLE."""
    name = f"a.{role.value}"
    if store.people.password_hash(name) is None:
        store.people.add(name, role, "a hash", at or utc_now())
    cookie = f"cookie-of-{name}"
    assert store.people.log_in(name, "a hash", digest(cookie), at or utc_now())
    return Visit(page, cookie)
