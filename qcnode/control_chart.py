"""Figures over days against the limits of their own past: Shewhart's control charts. Pure arithmetic.

W. A. Shewhart, Economic Control of Quality of Manufactured Product, Van Nostrand 1931. D. C. Montgomery, Introduction
to Statistical Quality Control, 7th ed., Wiley 2013: individuals in Section 6.4, shares (p chart, samples of varying
size) in Section 7.2, moving averages, which find a lasting rise, in Section 9.3. Higher is worse in all of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from functools import lru_cache
from itertools import pairwise
from typing import TypeVar

_Row = TypeVar("_Row")
FALSE_ALARM = 0.00135  # beyond three standard deviations of a normal distribution, on one side
TOGETHER = 7  # points that are looked at together
_SIGMA_OF_RANGE = 1.128  # d2: mean range of two values in standard deviations (Montgomery, Appendix VI)


class Signal(StrEnum):
    """Why a day is worth a look."""

    ABOVE = "above"  # beyond its upper limit
    RISEN = "risen"  # it and the six before, taken together, are beyond theirs


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
    """The points in the order of their days, their mean, and the level that they are held against; None without any.

    The level is that of the first half of the points: what rose since must not raise its own limit. Of fewer than two
    times seven points it is that of all.
    """

    mean: float | None
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
    if not counted:
        return Chart(None, None, ())
    before = _before(counted)
    total = sum(of for _, _, of in before)
    # Where none of them, or all, had it: as if half a series were otherwise, for nothing is impossible.
    centre = min(max(sum(have for _, have, _ in before), 0.5), total - 0.5) / total
    points = []
    for number, (day, have, of) in enumerate(counted, 1):
        lower, upper = _binomial_limits(centre, of)
        window = counted[max(0, number - TOGETHER) : number]
        of_all = sum(of for _, _, of in window)
        share_of_all = sum(have for _, have, _ in window) / of_all
        risen = number >= TOGETHER and share_of_all > _binomial_limits(centre, of_all)[1]
        points.append(_point(day, of, have / of, lower, upper, risen=risen))
    mean = sum(have for _, have, _ in counted) / sum(of for _, _, of in counted)
    return Chart(mean, centre, tuple(points))


def value_chart(days: Mapping[date, tuple[float, int]]) -> Chart:
    """One figure a day, none below 0: (the figure, of how many series).

    The limits are three standard deviations off, as the mean difference of successive days tells them.
    """
    found = [(day, value, of) for day, (value, of) in sorted(days.items())]
    if not found:
        return Chart(None, None, ())
    before = [value for _, value, _ in _before(found)]
    centre = math.fsum(before) / len(before)
    steps = [abs(after - earlier) for earlier, after in pairwise(before)]
    spread = 3 * math.fsum(steps) / len(steps) / _SIGMA_OF_RANGE if steps else 0.0
    lower, upper = max(0.0, centre - spread), centre + spread
    points = []
    for number, (day, value, of) in enumerate(found, 1):
        window = [value for _, value, _ in found[max(0, number - TOGETHER) : number]]
        limit = centre + spread / math.sqrt(TOGETHER)
        risen = number >= TOGETHER and math.fsum(window) / TOGETHER > limit
        points.append(_point(day, of, value, lower, upper, risen=risen))
    return Chart(math.fsum(value for _, value, _ in found) / len(found), centre, tuple(points))


def _before(rows: Sequence[_Row]) -> Sequence[_Row]:
    """The rows that tell the level."""
    return rows if len(rows) < 2 * TOGETHER else rows[: len(rows) // 2]


def _point(day: date, series: int, value: float, lower: float, upper: float, *, risen: bool) -> Point:
    signal = Signal.ABOVE if value > upper else Signal.RISEN if risen else None
    return Point(day, series, value, lower, upper, signal)


@lru_cache(4096)
def _binomial_limits(share: float, of: int) -> tuple[float, float]:
    """The smallest and the largest share of so many that chance leaves with no more than FALSE_ALARM on each side."""
    lowest, up_to = 0, 0.0
    for have in range(of + 1):
        ways = math.lgamma(of + 1) - math.lgamma(have + 1) - math.lgamma(of - have + 1)  # logarithms: they are many
        up_to += math.exp(ways + have * math.log(share) + (of - have) * math.log1p(-share))
        if up_to <= FALSE_ALARM:
            lowest = have + 1
        if up_to >= 1 - FALSE_ALARM:
            return lowest / of, have / of
    return lowest / of, 1.0
