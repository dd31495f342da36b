"""The system's clock, and how to tell that somebody moved it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

NOTICED = timedelta(seconds=2)  # below this a clock is being steered, and nothing that we wait for minds


def utc_now() -> datetime:
    """The time, with its zone; everything inside takes it as an argument."""
    return datetime.now(UTC)


class Jumps:
    """Watches the clock by another that nobody can set, which only counts on."""

    def __init__(
        self, clock: Callable[[], datetime] = utc_now, steady_seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock, self._steady = clock, steady_seconds
        self._offset = self._read()

    def moved(self) -> timedelta:
        """How far the clock was set forward (or back: negative) since this was last asked; zero when it was not."""
        offset, self._offset = self._offset, self._read()
        by = self._offset - offset
        return by if abs(by) >= NOTICED else timedelta(0)

    def _read(self) -> timedelta:
        """How far the clock is ahead of the steady one's count."""
        return self._clock() - datetime.fromtimestamp(0, UTC) - timedelta(seconds=self._steady())
