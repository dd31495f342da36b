"""What a browser sends: the UID in an address, and the fields of a form that this page gave to this very browser."""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from fastapi import Path as PathParameter

UID = Annotated[str, PathParameter(pattern=r"^[0-9.]{1,64}$")]  # in an address
COOKIE = "qcnode_session"
TOKEN = "form_token"  # noqa: S105 - the field's name
_MOST_BYTES, _MOST_FIELDS = 16384, 40


class Refused(Exception):  # noqa: N818 - what became of the request
    """The request is not carried out; the sentence is for the person who made it."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


def form_token(cookie: str) -> str:
    """What a form has to bring back: another site can send the cookie along, but it cannot read it to derive this."""
    return hmac.new(cookie.encode(), b"form", hashlib.sha256).hexdigest()


async def _fields(request: Request) -> dict[str, str]:
    """The form's fields, once it is certain that this page's own form sent them."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise Refused(415, "This is not the form that the page sends; use the page itself.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise Refused(413, "This is more than any form of the page sends; use the page itself.")
    try:
        fields = dict(parse_qsl(body.decode(), True, max_num_fields=_MOST_FIELDS, errors="strict"))
    except ValueError as error:
        raise Refused(400, "The form cannot be read; open the page again and repeat.") from error
    cookie = request.cookies.get(COOKIE, "")
    ours = request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
    if not (ours and cookie and hmac.compare_digest(form_token(cookie).encode(), fields.get(TOKEN, "").encode())):
        raise Refused(403, "This form did not come from this page, or is too old; open the page again and repeat.")
    return fields


Fields = Annotated[dict[str, str], Depends(_fields)]
