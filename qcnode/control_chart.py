"""Figures over days against the limits of their own past: Shewhart's control charts. Pure arithmetic.

W. A. Shewhart, Economic Control of Quality of Manufactured Product, Van Nostrand 1931. D. C. Montgomery, Introduction
to Statistical Quality Control, 7th ed., Wiley 2013: individuals in Section 6.4, shares (p chart, samples of varying
size) in Section 7.2, eight in a row among the sensitizing rules in Section 5.3.6. Higher is worse in all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from itertools import pairwise

FALSE_ALARM = 0.00135  # beyond three standard deviations of a normal distribution, on one side
IN_A_ROW = 8
_SIGMA_OF_RANGE = 1.128  # d2: mean range of two values in standard deviations (Montgomery, Appendix VI)


class Signal(StrEnum):
    """Why a day is worth a look."""

    ABOVE = "above"  # beyond its upper limit
    RUN = "run"  # the eighth, or a later one, in a row above the centre


@dataclass(frozen=True)
class Point:
    """One day's figure, how many series it is of, and the limits that chance keeps to on such a day."""

    day: date
    series: int
    value: float
    lower: float
    upper: float
    signal: Signal | None


@dataclass(frozen=True)
class Chart:
    """The points in the order of their days, and the mean that they vary about; None without any."""

    centre: float | None
    points: tuple[Point, ...]

    @property
    def signals(self) -> tuple[Point, ...]:
        """The days that are worth a look."""
        return tuple(point for point in self.points if point.signal)


def share_chart(days: Mapping[date, tuple[int, int]]) -> Chart:
    """The share of a day's series that have something: (how many have it, of how many).

    The limits are those of the binomial distribution itself that chance passes as seldom as three standard deviations:
    a day has few series, and for few the usual p ± 3 √(p (1 - p) / n) cries wolf at the first one.
    """
    counted = [(day, have, of) for day, (have, of) in sorted(days.items()) if of]
    total = sum(of for _, _, of in counted)
    if not total:
        return Chart(None, ())
    centre = sum(have for _, have, _ in counted) / total
    limits = {of: _binomial_limits(centre, of) for of in {of for _, _, of in counted}}
    return _chart(centre, [(day, of, have / of, *limits[of]) for day, have, of in counted])


def value_chart(days: Mapping[date, tuple[float, int]]) -> Chart:
    """One figure a day, none below 0: (the figure, of how many series).

    The limits are three standard deviations off, as the mean difference of successive days tells them.
    """
    found = [(day, value, of) for day, (value, of) in sorted(days.items())]
    if not found:
        return Chart(None, ())
    values = [value for _, value, _ in found]
    centre = math.fsum(values) / len(values)
    steps = [abs(after - before) for before, after in pairwise(values)]
    spread = 3 * math.fsum(steps) / len(steps) / _SIGMA_OF_RANGE if steps else 0.0
    lower, upper = max(0.0, centre - spread), centre + spread
    return _chart(centre, [(day, of, value, lower, upper) for day, value, of in found])


def _chart(centre: float, rows: Sequence[tuple[date, int, float, float, float]]) -> Chart:
    points, in_a_row = [], 0
    for day, series, value, lower, upper in rows:
        in_a_row = in_a_row + 1 if value > centre else 0
        signal = Signal.ABOVE if value > upper else Signal.RUN if in_a_row >= IN_A_ROW else None
        points.append(Point(day, series, value, lower, upper, signal))
    return Chart(centre, tuple(points))


def _binomial_limits(share: float, of: int) -> tuple[float, float]:
    """The smallest and the largest share of so many that chance leaves with no more than FALSE_ALARM on each side."""
    if share in (0.0, 1.0):
        return share, share
    lowest, up_to = 0, 0.0
    for have in range(of + 1):
        ways = math.lgamma(of + 1) - math.lgamma(have + 1) - math.lgamma(of - have + 1)  # logarithms: they are many
        up_to += math.exp(ways + have * math.log(share) + (of - have) * math.log1p(-share))
        if up_to <= FALSE_ALARM:
            lowest = have + 1
        if up_to >= 1 - FALSE_ALARM:
            return lowest / of, have / of
    return lowest / of, 1.0
