"""How the node stands, by program."""

from __future__ import annotations

from fastapi import APIRouter

from qcnode.ledger.store import Store
from qcnode.states import State
from qcnode.verdict import Decision
from qcnode.web.access import Caller
from qcnode.web.api.series import NEEDS_TOKEN
from qcnode.web.api.shapes import Shape
from qcnode.web.health import Health
from qcnode.web.running import Running
from qcnode.web.state import node_state


class Disk(Shape):
    """The disk under the spool."""

    free_bytes: int
    floor_bytes: int
    """With less free than this, everything is refused."""


class Receiver(Shape):
    """A destination or an alert's address."""

    name: str
    alert: bool
    ae_title: str | None
    """Null for an alert, and for a destination that the configuration names no more."""
    address: str | None
    tls: bool
    waiting: int
    sent: int
    dead: int


class DeadLetter(Shape):
    """Deliveries of one series that nobody took, all for the same reason."""

    series_uid: str
    destination: str
    kind: str
    count: int
    attempts: int
    error: str | None


class System(Shape):
    """The node at this moment."""

    version: str
    ready: bool
    faults: list[str]
    """Why it is not ready, a sentence each."""
    ensemble: str | None
    """The weights that are loaded."""
    shadow: str | None
    """The weights on trial."""
    associations: int | None
    """DICOM associations that are open."""
    maximum_associations: int | None
    disk: Disk | None
    series: dict[State, int]
    verdicts: dict[Decision, int]
    """Of all revisions."""
    queues: dict[str, int]
    """What waits: complete (for its last instances), assess, finish, deliver."""
    receivers: list[Receiver]
    dead: int
    dead_letters: list[DeadLetter]
    """The newest hundred kinds of them."""


def router(store: Store, running: Running | None) -> APIRouter:
    """The address /system."""
    routes = APIRouter(tags=["system"], responses=NEEDS_TOKEN)
    health = Health(store, running)

    @routes.get("/system")
    def state(_: Caller) -> System:
        """Readiness, queues, destinations, dead letters, disk, weights and version."""
        return System.model_validate(node_state(store, health, running))

    return routes
