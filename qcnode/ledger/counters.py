"""How much of everything there is, as numbers that a monitor can take."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from qcnode.ledger.models import Tally
from qcnode.states import DeliveryState, State
from qcnode.verdict import Decision


@dataclass(frozen=True)
class Counters:
    """The ledger in numbers, at one moment. Only `queues` goes up and down; the others grow, or move between labels."""

    instances: int
    series: dict[State, int]
    verdicts: dict[Decision, int]
    deliveries: dict[tuple[str, str, DeliveryState], int]  # (destination, kind, state)

    @property
    def delivery_states(self) -> dict[DeliveryState, int]:
        """The deliveries in each state, whatever they are and wherever they go."""
        counted: Counter[DeliveryState] = Counter()
        for (_, _, state), count in self.deliveries.items():
            counted[state] += count
        return {state: counted[state] for state in DeliveryState}

    @property
    def dead(self) -> int:
        """The dead letters."""
        return self.delivery_states[DeliveryState.DEAD]

    @property
    def queues(self) -> dict[str, int]:
        """How many wait, for each kind of work."""
        waiting = {"complete": State.RECEIVING, "assess": State.READY, "finish": State.ASSESSING}
        return {work: self.series[state] for work, state in waiting.items()} | {
            "deliver": self.delivery_states[DeliveryState.PENDING]
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


def counters(session: Session) -> Counters:
    """How much of everything there is, from the tally, which PostgreSQL counts when it is asked."""
    found = [row for row in session.execute(select(*Tally.__table__.columns)) if row.rows]
    words = {(row.counted, row.word): row.rows for row in found if row.counted != "delivery"}
    return Counters(
        instances=words.get(("instance", ""), 0),
        series={state: words.get(("series", state.value), 0) for state in State},
        verdicts={decision: words.get(("assessment", decision.value), 0) for decision in Decision},
        deliveries={
            (row.destination, row.kind, DeliveryState(row.word)): row.rows for row in found if row.counted == "delivery"
        },
    )
