"""Reverse proxies that log people in themselves, and name them in a header: believed only from where they are."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any

from fastapi import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from qcnode.config import Web
from qcnode.ledger.people import Person
from qcnode.people import Role, plain_name
from qcnode.web.forms import Refused

_PEER = "qcnode.peer"  # in a request's scope: the address at the other end of its connection
_ON_THIS_MACHINE = "127.0.0.1"


@dataclass(frozen=True)
class Named:
    """Whom a trusted proxy names; without a role, the account's counts."""

    name: str
    role: Role | None

    def is_(self, person: Person) -> bool:
        """Whether that is this person, in this role."""
        return self.name == person.name and self.role in (None, person.role)


class TrustedProxies:
    """Reads the headers of the configured proxies, and of nobody else; false where none is configured."""

    def __init__(self, settings: Web) -> None:
        self._settings = settings

    def __bool__(self) -> bool:
        return bool(self._settings.trusted_proxies)

    def named(self, request: Request) -> Named | None:
        """Whom the proxy let in; None for a request that comes from elsewhere. Refused where it does not say that."""
        if not self._sent(request):
            return None
        names = request.headers.getlist(self._settings.user_header)
        name = plain_name(names[0]) if len(names) == 1 else None
        if name is None:
            raise Refused(403, "The reverse proxy does not say who you are; have it set its user header, once.")
        return Named(name, self._role(request))

    def _sent(self, request: Request) -> bool:
        peer = request.scope.get(_PEER)
        if peer is None or not self:
            return False
        address = ip_address(peer)
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address.version == of.version and address in of for of in self._settings.trusted_proxies)

    def _role(self, request: Request) -> Role | None:
        if self._settings.role_header is None:
            return None
        roles = request.headers.getlist(self._settings.role_header)
        try:
            (role,) = (Role(role.strip().lower()) for role in roles)
        except ValueError:
            raise Refused(403, "The reverse proxy gives you no role that there is here; ask whoever runs it.") from None
        return role


def behind_proxies(app: ASGIApp, settings: Web) -> Any:
    """The application, told by its proxies (any on this machine, and the trusted ones) whom each request is from.

    Who really sent a request is noted first: that address decides whom a user header is believed of.
    """
    trusted = [_ON_THIS_MACHINE, *map(str, settings.trusted_proxies)]
    told: Any = ProxyHeadersMiddleware(app, trusted_hosts=trusted)  # type: ignore[arg-type]

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("client"):
            scope[_PEER] = scope["client"][0]
        await told(scope, receive, send)

    return noting
