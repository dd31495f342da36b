"""Control charts: what chance does is quiet, what changed is said, and few series cry no wolf."""

from __future__ import annotations

import random
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcnode.control_chart import FALSE_ALARM, Chart, Signal, share_chart, value_chart

FIRST = date(2026, 3, 1)
counts = st.lists(st.integers(1, 60).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))), min_size=1)


def days(figures):
    return {FIRST + timedelta(days=number): figure for number, figure in enumerate(figures)}


def test_without_series_there_is_no_chart() -> None:
    for chart in (share_chart({}), share_chart({FIRST: (0, 0)}), value_chart({})):
        assert chart == Chart(None, None, ())


@given(counts)
def test_the_mean_is_the_share_of_all_series_and_the_level_lies_between_the_limits(
    figures: list[tuple[int, int]],
) -> None:
    chart = share_chart(days(figures))
    assert chart.mean == sum(have for have, _ in figures) / sum(of for _, of in figures)
    assert chart.centre is not None
    assert 0 < chart.centre < 1
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
    quiet = {FIRST - timedelta(days=1): (round(share * 10_000), 10_000)}  # so many that the level stays
    (_, point) = share_chart(quiet | {FIRST: (0, of)}).points
    generator = random.Random(1)
    draws = [sum(generator.random() < share for _ in range(of)) / of for _ in range(20_000)]
    assert sum(value > point.upper for value in draws) / len(draws) < 2 * FALSE_ALARM


def test_the_first_flaw_of_a_quiet_scanner_is_no_alarm_and_many_at_once_are() -> None:
    quiet = [(0, 4)] * 29
    assert share_chart(days([*quiet, (1, 2)])).signals == ()
    (point,) = share_chart(days([*quiet, (4, 4)])).signals
    assert (point.signal, point.value, point.series) == (Signal.ABOVE, 1.0, 4)


def test_a_rate_that_rises_is_found_within_days_however_few_series_a_day_has() -> None:
    generator = random.Random(5)
    rates = [0.08] * 18 + [0.45] * 12
    chart = share_chart(days([(sum(generator.random() < rate for _ in range(5)), 5) for rate in rates]))
    assert not any(point.signal for point in chart.points[:18])
    first = next(number for number, point in enumerate(chart.points) if point.signal)
    assert 18 <= first <= 18 + 5
    assert all(point.signal for point in chart.points[24:]), "and it stays said"


def test_a_steady_rate_is_hardly_ever_said_to_have_risen() -> None:
    said = 0
    for seed in range(200):
        generator = random.Random(seed)
        known = [(8000, 100_000)] * 15  # so that the level is no guess
        chart = share_chart(days(known + [(sum(generator.random() < 0.08 for _ in range(5)), 5) for _ in range(15)]))
        said += any(point.signal is Signal.RISEN for point in chart.points[22:])
    assert said / 200 < 0.05


def test_a_value_beyond_what_days_differ_by_is_above_and_a_lasting_rise_is_found() -> None:
    steady = [(10.0 + number % 2, 5) for number in range(20)]
    assert value_chart(days(steady)).signals == ()
    (point,) = value_chart(days([*steady, (15.0, 5)])).signals
    assert (point.signal, point.value) == (Signal.ABOVE, 15.0)
    risen = value_chart(days([*steady, *((value + 1.5, of) for value, of in steady[:10])]))
    assert {point.signal for point in risen.points[-3:]} == {Signal.RISEN}


def test_one_day_alone_is_its_own_level() -> None:
    chart = value_chart({FIRST: (4.0, 2)})
    (point,) = chart.points
    assert (chart.mean, chart.centre, point.lower, point.upper, point.signal) == (4.0, 4.0, 4.0, 4.0, None)


def test_thousands_of_series_a_day_are_counted_too() -> None:
    (point,) = share_chart({FIRST: (500, 5000)}).points
    assert 0.08 < point.lower < 0.1 < point.upper < 0.12
