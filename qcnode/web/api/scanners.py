"""The scanners' figures, by program."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Query

from qcnode.artifacts import Plane
from qcnode.clock import utc_now
from qcnode.control_chart import Signal
from qcnode.ledger.store import Store
from qcnode.web.access import Caller
from qcnode.web.api.series import NEEDS_TOKEN
from qcnode.web.api.shapes import Shape
from qcnode.web.figures import Period, figures


class Point(Shape):
    """One day, or one week of a period of 120 days or more."""

    day: date
    """The day, or the week's first."""
    series: int
    """How many series the value is of."""
    value: float
    """A share from 0 to 1, seconds, or the noise over the head's signal."""
    lower: float
    upper: float
    """Beyond it chance goes once in 741 days."""
    signal: Signal | None
    """above: beyond the upper limit; risen: with the six points before it, taken together, beyond theirs."""


class Chart(Shape):
    """A control chart."""

    mean: float | None
    """Of the period."""
    centre: float | None
    """The level that the limits are about: that of the first half of the points, of few points that of all."""
    points: list[Point]


class Scanner(Shape):
    """One scanner over the period."""

    scanner: str
    series: int
    """With a verdict."""
    rescans: int
    seconds: float | None
    """Median, from the last instance to the verdict."""
    charts: dict[str, Chart]
    """Rescan and each artifact: the share of series; Seconds to verdict and Noise level: the day's median."""


def router(store: Store) -> APIRouter:
    """The address /scanners."""
    routes = APIRouter(tags=["scanners"], responses=NEEDS_TOKEN)

    @routes.get("/scanners")
    def charts(
        _: Caller,
        scanner: Annotated[str | None, Query(max_length=120)] = None,
        plane: Plane | None = None,
        days: Annotated[int, Query(ge=1, le=366, description="Up to today, by UTC.")] = 30,
    ) -> list[Scanner]:
        """Control charts of each scanner's rescans, times to the verdict, noise levels and artifacts, day by day."""
        found = figures(store, Period(days, utc_now().date()), plane, scanner)
        return [Scanner.model_validate(one) for one in found]

    return routes
