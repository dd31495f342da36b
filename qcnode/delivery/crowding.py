"""Alerts to one address: few enough to be read, and none lost."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from qcnode.config import Alert
from qcnode.delivery import notify
from qcnode.delivery.outcome import ACCEPTED, UNTRIED, Answer, Outcome
from qcnode.errors import PermanentError, TransientError
from qcnode.ledger.records import DueDelivery

_LINE = 200  # characters of one alert among others


class AlertSender:
    """Sends what is due to one address. Where that is more than it may get, the last message that it may get is of all
    that is left; where it may get none, everything stays due until it may.

    It counts by a clock that nobody can set. A restart of the node forgets the count.
    """

    def __init__(
        self,
        alert: Alert,
        turn: Callable[[], Callable[[], bool]],
        steady_seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """`turn` begins a turn, and returns what tells whether it took long enough."""
        self._alert, self._turn, self._steady = alert, turn, steady_seconds
        self._sent: deque[float] = deque()

    def __call__(self, due: Sequence[DueDelivery]) -> Sequence[Outcome]:
        """One turn."""
        enough, free = self._turn(), self._free()
        alone = due if len(due) <= free else due[: max(free - 1, 0)]
        outcomes: list[Outcome] = []
        for delivery in alone:
            outcomes.append(UNTRIED if outcomes and enough() else self._send(delivery.title or "", delivery.body or ""))
        if rest := due[len(alone) :]:
            put_off = not free or (outcomes and enough())
            outcomes += [UNTRIED if put_off else self._send(*summary(rest))] * len(rest)
        return outcomes

    def _free(self) -> int:
        """How many messages it may get now."""
        since = self._steady() - 60 * self._alert.per_minutes
        while self._sent and self._sent[0] <= since:
            self._sent.popleft()
        return self._alert.at_most - len(self._sent)

    def _send(self, title: str, body: str) -> Outcome:
        try:
            notify.notify(self._alert.url, title, body)
        except TransientError as error:
            return Outcome(Answer.UNREACHABLE, str(error))
        except PermanentError as error:
            return Outcome(Answer.REFUSED, str(error))
        self._sent.append(self._steady())
        return ACCEPTED


def summary(alerts: Sequence[DueDelivery]) -> tuple[str, str]:
    """Title and body of one message in place of these, with a line for each."""
    if len(alerts) == 1:
        return alerts[0].title or "", alerts[0].body or ""
    lines = [f"{alert.title}: {' '.join((alert.body or '').split())}" for alert in alerts]
    short = [line if len(line) <= _LINE else f"{line[: _LINE - 1]}…" for line in lines]
    return f"{len(alerts)} alerts in one", "\n".join(short)
