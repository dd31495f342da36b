"""The page: what arrived, what was said of it, and where that went. It only reads, but for people's own words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from PIL import Image
from pydicom import dcmread

from qcnode.ledger.models import DocumentRow, Series
from qcnode.ledger.opinions import corrections, spoken
from qcnode.ledger.store import Store
from qcnode.states import DeliveryState
from qcnode.web.auth import Door, Seen
from qcnode.web.login import add_login
from qcnode.web.said import add_words
from qcnode.web.shadow import add_shadow
from qcnode.web.templating import Pages

UID = Annotated[str, PathParameter(pattern=r"^[0-9.]{1,64}$")]
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "img-src 'self'",
        "style-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def create_app(store: Store, folder: Path, *, open_to_all: bool) -> FastAPI:
    """The page over this ledger and this state folder; open_to_all: readable by anybody while there are no accounts."""
    app = FastAPI(title="qcnode", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(directory=str(files("qcnode.web") / "static")))
    app.state.door = Door(store, open_to_all=open_to_all)
    pages = Pages()
    add_login(app, pages)
    add_words(app, store)
    add_shadow(app, store, pages)

    def series_or_404(uid: str) -> Series:
        found = store.overview.detail(uid)
        if found is None:
            raise HTTPException(404, "This node has not received that series.")
        return found

    @app.middleware("http")
    async def headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers.update(_HEADERS)
        return response

    @app.get("/")
    def now(visitor: Seen) -> Response:
        """The latest series and their verdicts."""
        dead = store.deliveries.counts().get(DeliveryState.DEAD, 0)
        return pages.page("now.html", visitor, series=store.overview.recent(100), dead=dead)

    @app.get("/series/{uid}")
    def series(uid: UID, visitor: Seen) -> Response:
        """One series: its verdict page, its grades, what people say of them, where all that went, its events."""
        found = series_or_404(uid)
        opinions = found.latest.opinions if found.latest else []
        return pages.page(
            "series.html",
            visitor,
            series=found,
            forwarded=store.overview.forwarded(uid),
            said=[(row.revision, one) for row in reversed(found.assessments) for one in row.opinions],
            spoken=spoken(opinions),
            own=corrections(opinions, visitor.person.name) if visitor.person else {},
        )

    @app.get("/series/{uid}/verdict.png")
    def picture(uid: UID, _: Seen) -> Response:
        """The secondary capture of the latest revision, as the console shows it."""
        latest = series_or_404(uid).latest
        captures = [document for document in latest.documents if document.kind == "capture"] if latest else []
        if not captures:
            raise HTTPException(404, "This series has no verdict page yet.")
        buffer = BytesIO()
        Image.fromarray(dcmread(_file(captures[0], folder)).pixel_array).save(buffer, "PNG")
        return Response(buffer.getvalue(), media_type="image/png")

    @app.get("/series/{uid}/documents/{sop_instance_uid}.dcm")
    def document(uid: UID, sop_instance_uid: UID, _: Seen) -> FileResponse:
        """A document of the series, as it was sent."""
        for assessment in series_or_404(uid).assessments:
            for row in assessment.documents:
                if row.sop_instance_uid == sop_instance_uid:
                    return FileResponse(_file(row, folder), media_type="application/dicom", filename=f"{row.kind}.dcm")
        raise HTTPException(404, "This series has no such document.")

    @app.get("/healthz", response_class=PlainTextResponse)
    def healthz() -> str:
        """Whether the node answers and its ledger does."""
        store.overview.counts()
        return "ok"

    return app


def _file(row: DocumentRow, folder: Path) -> Path:
    if row.path is None or not (folder / row.path).is_file():
        raise HTTPException(404, "The document's file is not here any more.")
    return folder / row.path
