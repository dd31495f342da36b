"""The page: what arrived, what was said of it, and where that went. It only reads, but for people's own words."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from PIL import Image
from pydicom import dcmread

from qcnode.config import Destination, Web
from qcnode.ledger.models import AssessmentRow, Series
from qcnode.ledger.opinions import corrections, spoken
from qcnode.ledger.store import Store
from qcnode.verdict import slice_ranges
from qcnode.web.api import create_api
from qcnode.web.api.shapes import HIGHEST_REVISION
from qcnode.web.aside import Aside
from qcnode.web.asked import add_requests
from qcnode.web.auth import Door, Seen
from qcnode.web.forms import UID
from qcnode.web.health import health
from qcnode.web.images import add_images, in_spool
from qcnode.web.live import add_live
from qcnode.web.login import add_login
from qcnode.web.names import Names
from qcnode.web.proxies import TrustedProxies
from qcnode.web.running import Running
from qcnode.web.said import add_words
from qcnode.web.scanners import scanners
from qcnode.web.shadow import add_shadow
from qcnode.web.system import system
from qcnode.web.templating import Pages
from qcnode.web.times import Times

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "img-src 'self'",
        "style-src 'self'",
        "script-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_POLICY_OF_VIEWER = _POLICY.replace("img-src 'self'", "img-src 'self' data:")  # its letters are a picture within it
Revision = Annotated[int, PathParameter(ge=1, le=HIGHEST_REVISION)]
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def create_app(
    store: Store,
    folder: Path,
    settings: Web,
    destinations: Sequence[Destination],
    *,
    open_to_all: bool,
    running: Running | None = None,
) -> FastAPI:
    """The page over this ledger and this state folder.

    destinations: who gets a rejection, if they take flags. open_to_all: anybody may read while there are no accounts.
    running: the node that the page belongs to; without one it shows the ledger alone.
    """
    app = FastAPI(title="qcnode", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(directory=str(files("qcnode.web") / "static")))
    app.state.door = Door(store, open_to_all=open_to_all, proxies=TrustedProxies(settings))
    app.state.ending, app.state.aside = threading.Event(), Aside()
    pages = Pages(store, Times(settings.timezone), Names(folder).of if settings.patient_names else None)
    add_login(app, pages)
    add_words(app, store)
    add_live(app, store)
    add_images(app, store, folder, app.state.aside)
    add_requests(app, store, folder, app.state.aside, destinations, may_reject=settings.rejection)
    add_shadow(app, store, pages)
    app.include_router(health(store, running))
    app.include_router(scanners(store, pages))
    app.include_router(system(store, pages, running))
    app.mount("/api/v1", create_api(store, app.state.door, running))

    def series_or_404(uid: str) -> Series:
        found = store.overview.detail(uid)
        if found is None:
            raise HTTPException(404, "This node has not received that series.")
        return found

    @app.middleware("http")
    async def headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        if request.url.path.startswith("/static/"):
            response.headers["Cache-Control"] = "no-cache"  # kept, and asked for again: the viewer is large
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    @app.get("/")
    def now(visitor: Seen) -> Response:
        """The latest series and their verdicts."""
        return pages.page("now.html", visitor, series=store.overview.recent(100), counters=store.overview.counters())

    @app.get("/series/{uid}")
    def series(uid: UID, visitor: Seen) -> Response:
        """One series: its verdict page, its grades, what people say of them, where all that went, its events."""
        found = series_or_404(uid)
        opinions = found.latest.opinions if found.latest else []
        page = pages.page(
            "series.html",
            visitor,
            series=found,
            forwarded=store.overview.forwarded(uid),
            said=[(row.revision, one) for row in reversed(found.assessments) for one in row.opinions],
            spoken=spoken(opinions),
            own=corrections(opinions, visitor.person.name) if visitor.person else {},
            in_spool=len(in_spool(found)),
            marks=_marks(found.latest) if found.latest else [],
            may_reject=settings.rejection,
        )
        page.headers["Content-Security-Policy"] = _POLICY_OF_VIEWER
        return page

    @app.get("/series/{uid}/verdict.png")
    def picture(uid: UID, _: Seen) -> Response:
        """The secondary capture of the latest revision, as the console shows it."""
        latest = series_or_404(uid).latest
        captures = [document for document in latest.documents if document.kind == "capture"] if latest else []
        if not captures:
            raise HTTPException(404, "This series has no verdict page yet.")
        buffer = BytesIO()
        Image.fromarray(dcmread(_file(captures[0].path, folder)).pixel_array).save(buffer, "PNG")
        return Response(buffer.getvalue(), media_type="image/png")

    @app.get("/series/{uid}/planes/{revision}.png")
    def planes(uid: UID, revision: Revision, _: Seen) -> FileResponse:
        """Three planes of the scan, as they are shown beside the verdict on this revision."""
        return FileResponse(_file(store.overview.planes(uid, revision), folder), media_type="image/png")

    @app.get("/series/{uid}/documents/{sop_instance_uid}.dcm")
    def document(uid: UID, sop_instance_uid: UID, _: Seen) -> FileResponse:
        """A document of the series, as it was sent."""
        for assessment in series_or_404(uid).assessments:
            for row in assessment.documents:
                if row.sop_instance_uid == sop_instance_uid:
                    return FileResponse(
                        _file(row.path, folder), media_type="application/dicom", filename=f"{row.kind}.dcm"
                    )
        raise HTTPException(404, "This series has no such document.")

    return app


def _marks(latest: AssessmentRow) -> list[dict[str, Any]]:
    """The slices that carry a grade, the worst grade first, as the viewer takes them."""
    carried = [score for score in latest.scores if score.slices]
    return [
        {
            "artifact": one.artifact,
            "severity": one.severity,
            "slices": one.slices,
            "says": slice_ranges(one.slices or ()),
        }
        for one in sorted(carried, key=lambda score: -score.severity)
    ]


def _file(path: str | None, folder: Path) -> Path:
    if path is None or not (folder / path).is_file():
        raise HTTPException(404, "There is no such file, or not any more.")
    return folder / path
