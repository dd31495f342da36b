"""The page: what arrived, what was said of it, and where that went. It only reads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse, HTMLResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, PackageLoader, select_autoescape
from PIL import Image
from pydicom import dcmread

from qcnode.artifacts import Severity
from qcnode.ledger.models import DocumentRow, Series
from qcnode.ledger.store import Store
from qcnode.states import DeliveryState, State
from qcnode.verdict import Decision

UID = Annotated[str, PathParameter(pattern=r"^[0-9.]{1,64}$")]
_POLICY = "default-src 'none'; img-src 'self'; style-src 'self'; base-uri 'none'; form-action 'none'"
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def create_app(store: Store, folder: Path) -> FastAPI:
    """The page over this ledger and this state folder."""
    app = FastAPI(title="qcnode", docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(directory=str(files("qcnode.web") / "static")))
    environment = Environment(loader=PackageLoader("qcnode.web"), autoescape=select_autoescape())
    environment.globals.update(Decision=Decision, Severity=Severity, State=State, DeliveryState=DeliveryState)

    def page(template: str, **context: object) -> HTMLResponse:
        return HTMLResponse(environment.get_template(template).render(**context))

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

    @app.get("/", response_class=HTMLResponse)
    def now() -> HTMLResponse:
        """The latest series and their verdicts."""
        return page(
            "now.html", series=store.overview.recent(100), dead=store.deliveries.counts().get(DeliveryState.DEAD, 0)
        )

    @app.get("/series/{uid}", response_class=HTMLResponse)
    def series(uid: UID) -> HTMLResponse:
        """One series: its verdict page, its grades, where its documents and its images went, its events."""
        return page("series.html", series=series_or_404(uid), forwarded=store.overview.forwarded(uid))

    @app.get("/series/{uid}/verdict.png")
    def picture(uid: UID) -> Response:
        """The secondary capture of the latest revision, as the console shows it."""
        latest = series_or_404(uid).latest
        captures = [document for document in latest.documents if document.kind == "capture"] if latest else []
        if not captures:
            raise HTTPException(404, "This series has no verdict page yet.")
        buffer = BytesIO()
        Image.fromarray(dcmread(_file(captures[0], folder)).pixel_array).save(buffer, "PNG")
        return Response(buffer.getvalue(), media_type="image/png")

    @app.get("/series/{uid}/documents/{sop_instance_uid}.dcm")
    def document(uid: UID, sop_instance_uid: UID) -> FileResponse:
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
