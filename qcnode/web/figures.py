"""The scanners' figures as control charts: what the page *Scanners*, its CSV and the interface for programs show."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from qcnode.artifacts import Artifact, Plane
from qcnode.control_chart import Chart, share_chart, value_chart
from qcnode.ledger.listing import Wanted
from qcnode.ledger.scanners import Day
from qcnode.ledger.store import Store
from qcnode.verdict import Decision

PERIODS = (7, 30, 90, 365)
WEEKLY_FROM = 120  # days; a longer period has a point for each week
RESCAN, SECONDS, NOISE = "Rescan", "Seconds to verdict", "Noise level"


@dataclass(frozen=True)
class Figures:
    """One scanner over the period; the charts by what they show: rescans, times, noise levels, the artifacts."""

    scanner: str
    series: int
    rescans: int
    seconds: float | None  # median, from the last instance to the verdict
    charts: Mapping[str, Chart]

    @property
    def rescan_share(self) -> float:
        """Of the series with a verdict, how many should be repeated."""
        return self.rescans / self.series

    @property
    def signals(self) -> dict[str, int]:
        """What is worth a look, and on how many days."""
        return {name: len(chart.signals) for name, chart in self.charts.items() if chart.signals}


@dataclass(frozen=True)
class Period:
    """So many days, the last of them today, in UTC."""

    days: int
    last: date

    @property
    def first(self) -> date:
        """The first day."""
        return self.last - timedelta(days=self.days - 1)

    @property
    def weekly(self) -> bool:
        """Whether a point is a week."""
        return self.days >= WEEKLY_FROM

    def point(self, day: date) -> date:
        """The day that stands for this one: itself, or the week's Monday, but none before the first."""
        return max(self.first, day - timedelta(days=day.weekday())) if self.weekly else day

    @property
    def since(self) -> datetime:
        """When the first day begins."""
        return datetime(self.first.year, self.first.month, self.first.day, tzinfo=UTC)


def figures(store: Store, period: Period, plane: Plane | None = None, scanner: str | None = None) -> list[Figures]:
    """Each scanner that sent a series which got a verdict in the period, the one with most series first."""
    days = store.scanners.days(Wanted(plane=plane, scanner=scanner, since=period.since))
    points = {name: _joined(of, period) for name, of in days.items()}
    return sorted((_figures(name, of) for name, of in points.items()), key=lambda one: (-one.series, one.scanner))


def _joined(days: Mapping[date, Day], period: Period) -> Mapping[date, Day]:
    """The days by the points that they are drawn in."""
    points: dict[date, Day] = {}
    for of, day in days.items():
        points.setdefault(period.point(of), Day()).add(day)
    return points


def _figures(scanner: str, days: Mapping[date, Day]) -> Figures:
    seconds = [value for day in days.values() for value in day.seconds]
    rescans = {of: (day.verdicts.get(Decision.RESCAN, 0), day.assessed) for of, day in days.items()}
    charts = {
        RESCAN: share_chart(rescans),
        SECONDS: value_chart(_medians({of: day.seconds for of, day in days.items()})),
        NOISE: value_chart(_medians({of: day.noise for of, day in days.items()})),
    }
    for artifact in Artifact:
        charts[artifact.value] = share_chart(
            {of: (day.flawed.get(artifact, 0), day.graded) for of, day in days.items()}
        )
    return Figures(
        scanner,
        series=sum(day.assessed for day in days.values()),
        rescans=sum(having for having, _ in rescans.values()),
        seconds=statistics.median(seconds) if seconds else None,
        charts=charts,
    )


def _medians(days: Mapping[date, Sequence[float]]) -> dict[date, tuple[float, int]]:
    """Of each day that has a value: the median, and of how many."""
    return {of: (statistics.median(values), len(values)) for of, values in days.items() if values}
