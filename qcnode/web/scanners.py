"""The page *Scanners*: a control chart for each scanner and artifact, and the same figures as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from io import StringIO
from typing import Annotated

from fastapi import APIRouter, Query, Response

from qcnode.artifacts import Plane
from qcnode.clock import utc_now
from qcnode.ledger.store import Store
from qcnode.web.auth import Seen
from qcnode.web.drawing import drawing
from qcnode.web.figures import PERIODS, SECONDS, Figures, Period, figures
from qcnode.web.templating import Pages

Chosen = Annotated[str, Query(max_length=120)]
PlaneWord = Annotated[str, Query(pattern=f"^({'|'.join(Plane)})?$")]
Length = Annotated[int, Query(ge=1, le=366)]
_COLUMNS = ("scanner", "measure", "day", "series", "value", "centre", "lower", "upper", "signal")


def scanners(store: Store, pages: Pages) -> APIRouter:
    """The page and its CSV; an empty plane or scanner is all of them, as a form sends it."""
    router = APIRouter()

    @router.get("/scanners")
    def charts(visitor: Seen, scanner: Chosen = "", plane: PlaneWord = "", days: Length = PERIODS[1]) -> Response:
        """All scanners in a table, and the charts of one."""
        period, chosen_plane = Period(days, utc_now().date()), _plane(plane)
        found = figures(store, period, chosen_plane)
        shown = next((one for one in found if one.scanner == scanner), found[0] if found and not scanner else None)
        drawn = {
            name: drawing(chart, period.first, period.last, percent=name != SECONDS)
            for name, chart in (shown.charts.items() if shown else ())
        }
        return pages.page(
            "scanners.html",
            visitor,
            found=found,
            shown=shown,
            drawn=drawn,
            scanner=scanner,
            plane=chosen_plane,
            period=period,
            periods=PERIODS,
            planes=list(Plane),
        )

    @router.get("/scanners.csv")
    def table(_: Seen, scanner: Chosen = "", plane: PlaneWord = "", days: Length = PERIODS[1]) -> Response:
        """Every point of every chart."""
        found = figures(store, Period(days, utc_now().date()), _plane(plane), scanner or None)
        headers = {"Content-Disposition": 'attachment; filename="scanners.csv"'}
        return Response(_csv(found), media_type="text/csv; charset=utf-8", headers=headers)

    return router


def _plane(word: str) -> Plane | None:
    return Plane(word) if word else None


def _csv(found: Iterable[Figures]) -> str:
    text = StringIO()
    rows = csv.writer(text)
    rows.writerow(_COLUMNS)
    for one in found:
        for name, chart in one.charts.items():
            for p in chart.points:
                limits = (f"{value:.6g}" for value in (p.value, chart.centre or 0.0, p.lower, p.upper))
                rows.writerow([_as_text(one.scanner), name, p.day, p.series, *limits, p.signal or ""])
    return text.getvalue()


def _as_text(cell: str) -> str:
    """A name that a spreadsheet would take for a formula is quoted for it."""
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@")) else cell
