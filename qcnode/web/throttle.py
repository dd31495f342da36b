"""How often a password may be tried."""

from __future__ import annotations

import threading
from collections import deque

WINDOW_SECONDS = 300.0
# A name at one address is a person who mistypes; one address, a guesser; one name, a guesser with many addresses.
EACH, ADDRESS, NAME = 5, 30, 50


class Throttle:
    """Counts the attempts of the last five minutes in memory; time, in seconds, comes in as an argument."""

    def __init__(self) -> None:
        self._attempts: dict[tuple[str | None, str | None], deque[float]] = {}
        self._lock = threading.Lock()

    def wait(self, name: str, address: str, now: float) -> float:
        """Count an attempt and return 0, or, where there were too many, the seconds until the next may be made."""
        limits = {(name, address): EACH, (None, address): ADDRESS, (name, None): NAME}
        with self._lock:
            self._forget(now)
            full = [past for key, limit in limits.items() if len(past := self._attempts.get(key, deque())) >= limit]
            if full:
                return max(past[0] for past in full) + WINDOW_SECONDS - now
            for key in limits:
                self._attempts.setdefault(key, deque()).append(now)
            return 0.0

    def forgive(self, name: str, address: str) -> None:
        """The password was right: what this name at this address mistyped before counts no more."""
        with self._lock:
            self._attempts.pop((name, address), None)

    def _forget(self, now: float) -> None:
        for key, past in list(self._attempts.items()):
            while past and past[0] <= now - WINDOW_SECONDS:
                past.popleft()
            if not past:
                del self._attempts[key]
