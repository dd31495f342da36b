"""Whose turn it is to write: SQLite has one writer at a time, and lets the others poll, so that the busiest wins."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

PATIENCE_SECONDS = 0.5


class Turns:
    """Lets one thread of this process in at a time, in the order in which they came.

    Those that can wait give way to who comes within PATIENCE_SECONDS after them, and to nobody later: a stream of
    others must not keep them out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._queue: list[tuple[float, int, threading.Lock]] = []
        self._numbers = count()

    @contextmanager
    def turn(self, *, patient: bool, seconds: float) -> Iterator[None]:
        """Wait for the turn, hold it, hand it on. TimeoutError when it does not come within so many seconds."""
        mine = threading.Lock()
        mine.acquire()
        entry = (time.monotonic() + PATIENCE_SECONDS * patient, next(self._numbers), mine)
        with self._lock:
            if self._taken:
                heapq.heappush(self._queue, entry)
            else:
                self._taken = True
                mine.release()
        if not mine.acquire(timeout=seconds) and not self._came_after_all(entry):
            raise TimeoutError
        try:
            yield
        finally:
            with self._lock:
                if self._queue:
                    heapq.heappop(self._queue)[-1].release()
                else:
                    self._taken = False

    def _came_after_all(self, entry: tuple[float, int, threading.Lock]) -> bool:
        """Whether the turn was handed over while its waiter gave up; if not, it waits no more."""
        with self._lock:
            if entry not in self._queue:
                return True
            self._queue.remove(entry)
            heapq.heapify(self._queue)
            return False
