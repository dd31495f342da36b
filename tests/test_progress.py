"""How long training will still take, as its log tells it."""

from __future__ import annotations

from train.progress import Pace


def test_what_is_left_takes_as_long_as_the_epochs_that_were_trained() -> None:
    pace = Pace(epochs=4)
    assert pace.left(0, seconds=50) == "?"  # before the first step: nothing was trained yet
    assert pace.left(1, seconds=600) == "00:30:00"
    assert pace.left(2, seconds=300) == "00:15:00"
    assert pace.left(4, seconds=300) == "00:00:00"


def test_a_process_that_goes_on_tells_from_its_own_epochs() -> None:
    assert Pace(epochs=100).left(61, seconds=9000.5) == "97:30:20"


def test_of_no_epochs_nothing_is_left() -> None:
    assert Pace(epochs=0).left(0, seconds=3) == "00:00:00"
