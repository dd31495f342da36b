"""What associations brought, on its way from the spool into the ledger."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Sequence

from qcnode.intake.associations import AssociationEvent
from qcnode.intake.storing import Received

Arrival = Received | AssociationEvent


class Backlog:
    """A queue that knows which series it holds instances of: none of those is complete as the ledger has it."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Arrival | None] = queue.SimpleQueue()
        self._waiting: Counter[str] = Counter()  # instances by series, those being recorded too
        self._lock = threading.Lock()

    def add(self, one: Arrival) -> None:
        """From an association's thread."""
        if isinstance(one, Received):
            with self._lock:
                self._waiting[one.facts.series_instance_uid] += 1
        self._queue.put(one)

    def end(self) -> None:
        """Nothing more will come."""
        self._queue.put(None)

    def take(self, most: int) -> tuple[list[Arrival], bool]:
        """Wait for what is next, take all there is then, `most` at the most; and whether that was the end."""
        taken: list[Arrival] = []
        while not taken or (len(taken) < most and not self._queue.empty()):
            if (one := self._queue.get()) is None:
                return taken, True
            taken.append(one)
        return taken, False

    def recorded(self, taken: Sequence[Arrival]) -> None:
        """The ledger has them."""
        with self._lock:
            self._waiting.subtract(one.facts.series_instance_uid for one in taken if isinstance(one, Received))
            self._waiting += Counter()  # keeps what is above zero

    def series(self) -> frozenset[str]:
        """Of which the ledger lacks instances that are here."""
        with self._lock:
            return frozenset(self._waiting)
