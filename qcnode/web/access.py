"""Who calls the interface for programs: the holder of a bearer token (RFC 6750), or a browser that is logged in."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from qcnode.ledger.people import Person
from qcnode.web.auth import LoginNeeded, Visitor, door_of, visitor_of
from qcnode.web.forms import Refused

_BEARER = HTTPBearer(auto_error=False, description="A token that `qcnode token add NAME` made on the node's machine.")
_ASKS = {"WWW-Authenticate": "Bearer"}
Shown = Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]


def _caller(request: Request, shown: Shown) -> Visitor:
    """Whoever may see the page may see the same here; a token has to be right even where none is needed."""
    if shown is not None:
        return _holder(request, shown)
    try:
        return visitor_of(request)
    except LoginNeeded:
        raise HTTPException(401, "Send a token: Authorization: Bearer …", _ASKS) from None
    except Refused as error:
        raise HTTPException(error.status, error.sentence) from error


def _speaker(request: Request, shown: Shown) -> Person:
    """A token alone speaks: a browser's cookie is sent along by any page, and would need a form's token beside it."""
    if shown is None:
        raise HTTPException(401, "A word needs a token: Authorization: Bearer …", _ASKS)
    holder = _holder(request, shown)
    if holder.person is None or not holder.may_speak:
        raise HTTPException(403, "This token may look, but not speak of a verdict; make one with --role technologist.")
    return holder.person


def _holder(request: Request, shown: HTTPAuthorizationCredentials) -> Visitor:
    holder = door_of(request).token_holder(shown.credentials)
    if holder is None:
        raise HTTPException(
            401, "This token is not known, or was removed.", {"WWW-Authenticate": 'Bearer error="invalid_token"'}
        )
    return holder


Caller = Annotated[Visitor, Depends(_caller)]
Speaker = Annotated[Person, Depends(_speaker)]
