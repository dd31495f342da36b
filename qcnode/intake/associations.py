"""Which associations there are and were, and what they carried: completeness and the record ask.

An association has the number of its connection; no other connection of the same node has the same.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from qcnode.intake.completeness import AssociationState

_REMEMBERED_SERIES = 4096

Kind = Literal["established", "released", "aborted", "rejected"]


@dataclass(frozen=True)
class AssociationEvent:
    """What became of an association, for the record."""

    kind: Kind
    calling_ae: str
    called_ae: str
    address: str
    at: datetime
    reason: str = ""  # of a rejection or an abort


class Associations:
    """Which series came over which association, and how that ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, set[str]] = {}
        self._ended: OrderedDict[str, AssociationState] = OrderedDict()

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    def opened(self, number: int, at_most: int) -> bool:
        """Count the association in, unless there are `at_most` already."""
        with self._lock:
            if len(self._open) >= at_most:
                return False
            self._open[number] = set()
            return True

    def carries(self, number: int, series_uid: str) -> None:
        """An instance of the series arrived over this association."""
        with self._lock:
            self._open[number].add(series_uid)

    def ended(self, number: int, state: AssociationState) -> None:
        """The association is over; its series remember how, until so many others came that nobody asks any more."""
        with self._lock:
            for series_uid in self._open.pop(number, ()):
                self._remember(series_uid, state)

    def aborted(self, series_uid: str) -> None:
        """One that carried the series was aborted, and nobody can say which."""
        with self._lock:
            self._remember(series_uid, AssociationState.ABORTED)

    def state(self, series_uid: str) -> AssociationState:
        """OPEN while any association that carried the series is open, else how the latest one ended."""
        with self._lock:
            if any(series_uid in carried for carried in self._open.values()):
                return AssociationState.OPEN
            return self._ended.get(series_uid, AssociationState.UNKNOWN)

    def _remember(self, series_uid: str, state: AssociationState) -> None:
        self._ended[series_uid] = state
        self._ended.move_to_end(series_uid)
        while len(self._ended) > _REMEMBERED_SERIES:
            self._ended.popitem(last=False)
