"""Pages that stay up to date: a stream of server-sent events says that the ledger changed, and each page asks anew.

The stream carries no data: what a page may show is decided when it asks. It begins with the present state, so a browser
that comes back after the node's restart, or after its own sleep, has missed nothing.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from qcnode.errors import TransientError
from qcnode.ledger.store import Store
from qcnode.web.auth import AtTheDoor, LoginNeeded, Seen
from qcnode.web.forms import COOKIE, Refused

POLL_SECONDS = 0.5  # how soon a change shows
REST_SECONDS = 1.0  # after a change: while much arrives, pages that ask anew must not keep the node from its work
BEAT_SECONDS = 15.0  # of silence, after which a comment shows both ends that the other is there
_AGAIN = "retry: 1000\n\n"  # milliseconds until a browser that lost the stream comes back
_CHANGED = "event: changed\ndata: \n\n"
_BEAT = ":\n\n"


class Pulse:
    """Tells when the ledger changed. However many pages watch, it is asked at most once in POLL_SECONDS."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._version: tuple[object, ...] = ()
        self._until = 0.0

    def version(self) -> tuple[object, ...]:
        """Another one after each change; the last known while the ledger is out of reach."""
        with self._lock:
            if time.monotonic() >= self._until:
                with suppress(TransientError):  # the page shows what it has; the next look is soon
                    self._version = self._store.overview.version()
                self._until = time.monotonic() + POLL_SECONDS
            return self._version


def add_live(app: FastAPI, store: Store) -> None:
    """The stream; it ends when `app.state.ending` is set, so that the server need not wait for those who watch."""
    pulse = Pulse(store)
    ending: threading.Event = app.state.ending

    @app.get("/live")
    async def live(request: Request, door: AtTheDoor, _: Seen) -> Response:
        """One event for each change of the ledger, the first one at once."""

        def may_watch() -> bool:
            try:
                door.visitor(request.cookies.get(COOKIE))
            except (LoginNeeded, Refused):
                return False
            return True

        return StreamingResponse(_changes(pulse, ending.is_set, may_watch), media_type="text/event-stream")


async def _changes(pulse: Pulse, ended: Callable[[], bool], may_watch: Callable[[], bool]) -> AsyncIterator[str]:
    """The stream's lines. A visitor whose login ended gets one more: asking anew leads the page to the login."""
    yield _AGAIN
    seen: tuple[object, ...] | None = None
    silent_since = time.monotonic()
    while not ended():
        version = await run_in_threadpool(pulse.version)
        if version != seen:
            seen, silent_since = version, time.monotonic()
            yield _CHANGED
            if not await run_in_threadpool(may_watch):
                return
            await asyncio.sleep(REST_SECONDS - POLL_SECONDS)
        elif time.monotonic() - silent_since > BEAT_SECONDS:
            silent_since = time.monotonic()
            yield _BEAT
        await asyncio.sleep(POLL_SECONDS)
