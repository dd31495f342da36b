"""Control charts as lines and points of an inline SVG: only numbers, which the template puts in their places."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from datetime import date

from qcnode.control_chart import Chart, Signal

WIDTH, HEIGHT = 480, 170
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 10, 24
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_DAY_LABELS = 4
_MINUTES_FROM = 120.0  # seconds


@dataclass(frozen=True)
class Mark:
    """A point of the chart, and what it says when it is pointed at."""

    x: float
    y: float
    signal: Signal | None
    says: str


@dataclass(frozen=True)
class Tick:
    """A label at an axis, and where."""

    at: float
    label: str


@dataclass(frozen=True)
class Drawing:
    """A chart in the user units of its view box; paths as the attribute `d` takes them."""

    line: str
    limit: str  # the upper limit, in steps
    band: str  # between the limits, closed
    centre: float | None
    marks: tuple[Mark, ...]
    rows: tuple[Tick, ...]
    columns: tuple[Tick, ...]

    @property
    def box(self) -> str:
        """The view box."""
        return f"0 0 {WIDTH} {HEIGHT}"


def drawing(chart: Chart, first: date, last: date, *, percent: bool) -> Drawing:
    """The chart over these days; percent: its figures are shares, shown as such, else seconds."""
    usual_limit = statistics.median(point.upper for point in chart.points) if chart.points else 0.0
    largest = max((point.value for point in chart.points), default=0.0)
    largest = max(largest, usual_limit)  # the limit of a day with few series may leave the picture
    unit = 60.0 if not percent and largest >= _MINUTES_FROM else 1.0
    top, rows = _scale(largest / unit, percent=percent)
    top, rows = unit * top, [unit * row for row in rows]
    days = max(1, (last - first).days)
    half = (WIDTH - LEFT - RIGHT) / days / 2

    def x(day: date) -> float:
        return round(LEFT + (day - first).days / days * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - min(value, top) / top * (HEIGHT - TOP - BOTTOM), 1)

    marks = tuple(
        Mark(x(p.day), y(p.value), p.signal, f"{p.day}: {_figure(p.value, percent=percent)} of {p.series} series")
        for p in chart.points
    )
    edges = [(max(LEFT, x(p.day) - half), min(WIDTH - RIGHT, x(p.day) + half)) for p in chart.points]
    upper = [(edge, y(p.upper)) for p, pair in zip(chart.points, edges, strict=True) for edge in pair]
    lower = [(edge, y(p.lower)) for p, pair in zip(chart.points, edges, strict=True) for edge in pair]
    return Drawing(
        line=_path([(mark.x, mark.y) for mark in marks]),
        limit=_path(upper),
        band=f"{_path([*upper, *reversed(lower)])}Z" if upper else "",
        centre=y(chart.centre) if chart.centre is not None else None,
        marks=marks,
        rows=tuple(Tick(y(value), _figure(value, percent=percent)) for value in rows),
        columns=tuple(Tick(x(day), f"{day:%-d %b}") for day in _labelled(first, last)),
    )


def _scale(largest: float, *, percent: bool) -> tuple[float, list[float]]:
    """The top of the axis, and the figures to label on it: three or four round ones."""
    least = 0.05 if percent else 1.0
    wanted = max(largest * 1.08, least) / 3
    magnitude = (
        10.0 ** (len(str(int(wanted))) - 1)
        if wanted >= 1
        else 10.0 ** -next(power for power in range(1, 9) if wanted * 10**power >= 1)
    )
    step = next(factor * magnitude for factor in _STEPS if factor * magnitude >= wanted * 0.999)
    if percent and step * 3 > 1:
        return 1.04, [0.0, 0.25, 0.5, 0.75, 1.0]
    return step * 3, [step * number for number in range(4)]


def _labelled(first: date, last: date) -> list[date]:
    days = (last - first).days
    count = min(_DAY_LABELS, days)
    return [first + (last - first) * number / count for number in range(count + 1)] if count else [first]


def _path(points: list[tuple[float, float]]) -> str:
    return "".join(f"{'L' if number else 'M'}{x:g} {y:g}" for number, (x, y) in enumerate(points))


def _figure(value: float, *, percent: bool) -> str:
    if percent:
        return f"{100 * value:.3g} %"
    return f"{value:.3g} s" if value < _MINUTES_FROM else f"{value / 60:.3g} min"
