"""Control charts: what chance does is quiet, what changed is said, and few series cry no wolf."""

from __future__ import annotations

import random
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcnode.control_chart import FALSE_ALARM, Signal, share_chart, value_chart

FIRST = date(2026, 3, 1)
counts = st.lists(st.integers(1, 60).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))), min_size=1)


def days(figures):
    return {FIRST + timedelta(days=number): figure for number, figure in enumerate(figures)}


def test_without_series_there_is_no_chart() -> None:
    for chart in (share_chart({}), share_chart({FIRST: (0, 0)}), value_chart({})):
        assert (chart.centre, chart.points) == (None, ())


@given(counts)
def test_the_centre_is_the_share_of_all_series_and_lies_between_the_limits(figures: list[tuple[int, int]]) -> None:
    chart = share_chart(days(figures))
    assert chart.centre == sum(have for have, _ in figures) / sum(of for _, of in figures)
    for point in chart.points:
        assert 0 <= point.lower <= point.upper <= 1
        assert point.lower - 1 / point.series < chart.centre < point.upper + 1 / point.series
    assert share_chart(dict(reversed(days(figures).items()))) == chart, "the order in which days come is of no matter"


@given(share=st.floats(0.05, 0.95), of=st.integers(2000, 9000))
def test_for_many_series_the_limits_are_three_standard_deviations(share: float, of: int) -> None:
    have = round(share * of)
    (point,) = share_chart({FIRST: (have, of)}).points
    sigma = (have / of * (1 - have / of) / of) ** 0.5
    assert point.upper == pytest.approx(have / of + 3 * sigma, abs=0.1 * sigma + 2 / of)
    assert point.lower == pytest.approx(have / of - 3 * sigma, abs=0.1 * sigma + 2 / of)


@pytest.mark.parametrize(("share", "of"), [(0.02, 2), (0.1, 5), (0.3, 8), (0.5, 20)])
def test_chance_passes_the_limit_no_more_often_than_it_may(share: float, of: int) -> None:
    quiet = {FIRST - timedelta(days=1): (round(share * 10_000), 10_000)}  # so many that the centre stays
    (_, point) = share_chart(quiet | {FIRST: (0, of)}).points
    generator = random.Random(1)
    draws = [sum(generator.random() < share for _ in range(of)) / of for _ in range(20_000)]
    assert sum(value > point.upper for value in draws) / len(draws) < 2 * FALSE_ALARM


def test_the_first_flaw_of_a_quiet_scanner_is_no_alarm_and_many_at_once_are() -> None:
    quiet = [(0, 4)] * 29
    assert share_chart(days([*quiet, (1, 2)])).signals == ()
    (point,) = share_chart(days([*quiet, (4, 4)])).signals
    assert (point.signal, point.value, point.series) == (Signal.ABOVE, 1.0, 4)


def test_a_rate_that_has_risen_is_said_from_the_eighth_day_on() -> None:
    chart = share_chart(days([(1, 10)] * 12 + [(3, 10)] * 10))
    assert [point.signal for point in chart.points[-10:]] == [None] * 7 + [Signal.RUN] * 3
    assert not any(point.signal for point in chart.points[:12])


def test_a_value_beyond_what_days_differ_by_is_above() -> None:
    steady = [(10.0 + number % 2, 5) for number in range(20)]
    assert value_chart(days(steady)).signals == ()
    (point,) = value_chart(days([*steady, (30.0, 5)])).signals
    assert (point.signal, point.value) == (Signal.ABOVE, 30.0)


def test_one_day_alone_is_its_own_centre() -> None:
    chart = value_chart({FIRST: (4.0, 2)})
    (point,) = chart.points
    assert (chart.centre, point.lower, point.upper, point.signal) == (4.0, 4.0, 4.0, None)


def test_thousands_of_series_a_day_are_counted_too() -> None:
    (point,) = share_chart({FIRST: (500, 5000)}).points
    assert 0.08 < point.lower < 0.1 < point.upper < 0.12
