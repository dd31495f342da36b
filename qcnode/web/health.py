"""For monitors: whether the node lives, whether it can do its work, and its figures for Prometheus."""

from __future__ import annotations

import threading

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from qcnode.errors import QcnodeError
from qcnode.ledger.store import Store
from qcnode.web.access import Caller
from qcnode.web.metrics import CONTENT_TYPE, exposition
from qcnode.web.running import Running

NOT_READY = 503
PATIENCE_SECONDS = 5.0


class Health:
    """Asks the node's parts how they are."""

    def __init__(self, store: Store, running: Running | None) -> None:
        self._store, self._running = store, running
        self._asking = threading.Lock()  # a locked ledger answers late: one request waits for it, the others for this

    def faults(self) -> list[str]:
        """Why the node cannot do its work, a sentence for each fault; empty when it can. For anybody to read."""
        running, found = self._running, []
        if running is None:
            return ["This page is served without its node; start it with: qcnode serve"]
        if not running.listener.listens:
            found.append("The DICOM listener is not up; see the log, and start the node again.")
        if not self._ledger_is_writable():
            found.append("The ledger takes no entry; check the disk, and that nobody else holds it locked.")
        if running.ensemble() is None:
            found.append("The weights are not loaded; wait a minute, then run: qcnode check")
        if not running.listener.room.has():
            found.append("The disk has less free space than [dicom] minimum_free_mb; make room.")
        return found

    def _ledger_is_writable(self) -> bool:
        if not self._asking.acquire(timeout=PATIENCE_SECONDS):
            return False
        try:
            self._store.check_writable()
        except QcnodeError:
            return False
        finally:
            self._asking.release()
        return True


def health(store: Store, running: Running | None) -> APIRouter:
    """The three addresses that a monitor asks; the first two need no login, and tell nothing of anybody."""
    router, asked = APIRouter(), Health(store, running)

    @router.get("/healthz")
    def healthz() -> PlainTextResponse:
        """Whether the process answers: one that does not has to be started again."""
        return PlainTextResponse("ok")

    @router.get("/readyz")
    def readyz() -> PlainTextResponse:
        """Whether the node can do its work; 503 with a sentence for each fault."""
        faults = asked.faults()
        return PlainTextResponse("\n".join(faults) or "ready", NOT_READY if faults else 200)

    @router.get("/metrics")
    def metrics(_: Caller) -> Response:
        """The ledger's counters and the node's state, for Prometheus."""
        return Response(exposition(store, running), media_type=CONTENT_TYPE)

    return router
