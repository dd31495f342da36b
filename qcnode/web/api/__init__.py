"""The interface for programs, under /api/v1: the same data as on the page, as JSON."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from qcnode import __version__
from qcnode.errors import PermanentError, TransientError
from qcnode.ledger.store import Store
from qcnode.web.api import scanners, series, system
from qcnode.web.auth import Door
from qcnode.web.running import Running

_SAYS = """The same data as on the page, under the same rules: where the page needs no login, reading needs no token.

A token is made on the node's machine: `qcnode token add NAME --role viewer`. Nothing here holds patient data; series
are named by their UIDs. Times are in UTC. A field may be added at any time; none goes or changes its meaning within v1.
"""


def create_api(store: Store, door: Door, running: Running | None) -> FastAPI:
    """The application to mount at /api/v1; its description is at openapi.json below that."""
    api = FastAPI(
        title="qcnode",
        version=__version__,
        description=_SAYS,
        docs_url=None,
        redoc_url=None,
        servers=[{"url": "/api/v1"}],
        root_path_in_servers=False,
    )
    api.state.door = door
    api.include_router(series.router(store))
    api.include_router(scanners.router(store))
    api.include_router(system.router(store, running))

    @api.exception_handler(TransientError)
    def unreachable(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 503)

    @api.exception_handler(PermanentError)
    def impossible(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 409)

    return api
