"""How much of everything there is, as numbers that a monitor can take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from qcnode.ledger.models import AssessmentRow, Delivery, Instance, Series
from qcnode.states import DeliveryState, State
from qcnode.verdict import Decision

Label = TypeVar("Label")


@dataclass(frozen=True)
class Counters:
    """The ledger in numbers, at one moment. Only `queues` goes up and down; the others grow, or move between labels."""

    instances: int
    series: dict[State, int]
    verdicts: dict[Decision, int]
    deliveries: dict[tuple[str, str, DeliveryState], int]  # (destination, kind, state)

    @property
    def dead(self) -> int:
        """The dead letters."""
        return self._deliveries(DeliveryState.DEAD)

    @property
    def queues(self) -> dict[str, int]:
        """How many wait, for each kind of work."""
        waiting = {"complete": State.RECEIVING, "assess": State.READY, "finish": State.ASSESSING}
        return {work: self.series[state] for work, state in waiting.items()} | {
            "deliver": self._deliveries(DeliveryState.PENDING)
        }

    def to_json(self) -> dict[str, Any]:
        """As JSON; a number with several labels is a list of them."""
        return {
            "instances": self.instances,
            "series": {state.value: count for state, count in self.series.items()},
            "verdicts": {decision.value: count for decision, count in self.verdicts.items()},
            "deliveries": [
                {"destination": destination, "kind": kind, "state": state.value, "count": count}
                for (destination, kind, state), count in sorted(self.deliveries.items())
            ],
            "dead": self.dead,
            "queues": self.queues,
        }

    def _deliveries(self, wanted: DeliveryState) -> int:
        return sum(count for (_, _, state), count in self.deliveries.items() if state is wanted)


def counters(session: Session) -> Counters:
    """Count it all; each figure reads one index."""
    series = select(Series.state, func.count()).group_by(Series.state)
    verdicts = select(AssessmentRow.decision, func.count()).group_by(AssessmentRow.decision)
    key = (Delivery.state, Delivery.destination, Delivery.kind)
    ways = session.execute(select(*key, func.count()).group_by(*key))
    return Counters(
        instances=session.scalar(select(func.count()).select_from(Instance)) or 0,
        series=_counted(State, session.execute(series)),
        verdicts=_counted(Decision, session.execute(verdicts)),
        deliveries={(destination, kind, state): count for state, destination, kind, count in ways},
    )


def _counted(labels: Iterable[Label], rows: Iterable[Any]) -> dict[Label, int]:
    """A number for each label, 0 for those that no row names."""
    return dict.fromkeys(labels, 0) | {row[0]: row[1] for row in rows}
