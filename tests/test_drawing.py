"""Charts as lines: everything is inside the picture, where its figure says, and labelled with round figures."""

from __future__ import annotations

import re
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcnode.control_chart import Chart, Signal, share_chart, value_chart
from qcnode.web.drawing import HEIGHT, LEFT, RIGHT, WIDTH, drawing

FIRST, LAST = date(2026, 3, 1), date(2026, 3, 30)
figures = st.dictionaries(
    st.integers(0, 29).map(lambda number: FIRST + timedelta(days=number)), st.tuples(st.integers(0, 20), st.just(20))
)


def numbers(path: str) -> list[float]:
    return [float(number) for number in re.findall(r"[\d.]+", path)]


@given(figures)
def test_nothing_leaves_the_picture_and_higher_is_higher(found: dict[date, tuple[int, int]]) -> None:
    chart = share_chart(found)
    drawn = drawing(chart, FIRST, LAST, percent=True)
    assert len(drawn.marks) == len(found)
    for path in (drawn.line, drawn.limit, drawn.band):
        assert all(0 <= x <= WIDTH - RIGHT for x in numbers(path)[::2])
        assert all(0 <= y <= HEIGHT for y in numbers(path)[1::2])
    assert all(LEFT <= mark.x <= WIDTH - RIGHT for mark in drawn.marks)
    by_value = sorted(zip((p.value for p in chart.points), (-mark.y for mark in drawn.marks), strict=True))
    assert [height for _, height in by_value] == sorted(height for _, height in by_value)


@pytest.mark.parametrize("largest", [0.0004, 0.03, 0.9, 1.0, 7.2, 95.0, 3600.0])
def test_the_axis_is_labelled_with_three_or_four_steps_that_hold_everything(largest: float) -> None:
    drawn = drawing(value_chart({FIRST: (largest, 1), LAST: (0.0, 1)}), FIRST, LAST, percent=False)
    assert 4 <= len(drawn.rows) <= 5
    assert drawn.rows[0].label == "0 s"
    heights = [row.at for row in drawn.rows]
    assert heights == sorted(heights, reverse=True)
    assert drawn.marks[0].y >= heights[-1]


def test_a_share_is_labelled_in_percent_and_never_beyond_a_hundred() -> None:
    drawn = drawing(share_chart({FIRST: (4, 4)}), FIRST, LAST, percent=True)
    assert [row.label for row in drawn.rows] == ["0 %", "25 %", "50 %", "75 %", "100 %"]
    assert drawn.marks[0].says == "2026-03-01: 100 % of 4 series"
    small = drawing(share_chart({FIRST: (0, 400)}), FIRST, LAST, percent=True)
    assert 0 < float(small.rows[-1].label.removesuffix(" %")) < 10


def test_a_signal_is_marked_and_an_empty_chart_is_empty() -> None:
    chart = share_chart({FIRST + timedelta(days=n): (0, 9) for n in range(29)} | {LAST: (9, 9)})
    drawn = drawing(chart, FIRST, LAST, percent=True)
    assert [mark.signal for mark in drawn.marks] == [None] * 29 + [Signal.ABOVE]
    empty = drawing(Chart(None, None, ()), FIRST, FIRST, percent=True)
    assert (empty.line, empty.band, empty.marks, empty.centre) == ("", "", (), None)
    assert [column.label for column in empty.columns] == ["1 Mar"]
