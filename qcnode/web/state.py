"""How the node stands at this moment: what the page *System* and the interface for programs both show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qcnode import __version__
from qcnode.ledger.counters import Counters
from qcnode.ledger.store import Store
from qcnode.states import DeliveryState, State
from qcnode.verdict import Decision
from qcnode.web.health import Health
from qcnode.web.running import Running

MOST_DEAD_LETTERS = 100


@dataclass(frozen=True)
class Receiver:
    """A destination or an alert's address, and what is on its way there.

    Without an AE title it is no DICOM peer: an alert, or something that the configuration names no more.
    """

    name: str
    alert: bool
    ae_title: str | None
    address: str | None  # host and port; an alert's URL may hold a secret, and is not shown
    tls: bool
    waiting: int
    sent: int
    dead: int


@dataclass(frozen=True)
class DeadLetter:
    """Deliveries of one series that nobody took, all for the same reason."""

    series_uid: str
    destination: str
    kind: str
    count: int
    attempts: int
    error: str | None


@dataclass(frozen=True)
class Disk:
    """What the node can still write, and what has to stay free, in bytes."""

    free_bytes: int
    floor_bytes: int


@dataclass(frozen=True)
class NodeState:
    """The node at one moment; what a page without its node cannot know is None."""

    version: str
    faults: Sequence[str]  # a sentence each; without any the node is ready
    ensemble: str | None
    shadow: str | None
    associations: int | None
    maximum_associations: int | None
    disk: Disk | None
    series: Mapping[State, int]
    verdicts: Mapping[Decision, int]
    queues: Mapping[str, int]
    receivers: Sequence[Receiver]
    dead: int
    dead_letters: Sequence[DeadLetter]

    @property
    def ready(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


def node_state(store: Store, health: Health, running: Running | None) -> NodeState:
    """Everything of it; a few small queries."""
    counters = store.overview.counters()
    letters = store.overview.dead_letters(MOST_DEAD_LETTERS) if counters.dead else []
    room = running.listener.room if running else None
    return NodeState(
        version=__version__,
        faults=health.faults(),
        ensemble=running.ensemble() if running else None,
        shadow=running.shadow if running else None,
        associations=len(running.listener.associations) if running else None,
        maximum_associations=running.settings.dicom.maximum_associations if running else None,
        disk=Disk(room.free_bytes, room.floor_bytes) if room else None,
        series=counters.series,
        verdicts=counters.verdicts,
        queues=counters.queues,
        receivers=_receivers(counters, running),
        dead=counters.dead,
        dead_letters=[
            DeadLetter(one.series_uid, one.destination, one.kind, count, one.attempts, one.error)
            for one, count in letters
        ],
    )


def _receivers(counters: Counters, running: Running | None) -> list[Receiver]:
    """Those of the configuration in its order, then those that only the ledger knows any more."""
    peers = {one.name: one for one in running.settings.destinations} if running else {}
    alerts = list(running.settings.alert_names()) if running else []
    known = [*peers, *alerts]
    names = known + sorted({destination for destination, _, _ in counters.deliveries} - set(known))
    found = []
    for name in names:
        of_name = dict.fromkeys(DeliveryState, 0)
        for (destination, _, state), count in counters.deliveries.items():
            of_name[state] += count * (destination == name)
        peer = peers.get(name)
        found.append(
            Receiver(
                name,
                alert=name in alerts,
                ae_title=peer.ae_title if peer else None,
                address=f"{peer.host}:{peer.port}" if peer else None,
                tls=peer.tls if peer else False,
                waiting=of_name[DeliveryState.PENDING],
                sent=of_name[DeliveryState.SENT],
                dead=of_name[DeliveryState.DEAD],
            )
        )
    return found
