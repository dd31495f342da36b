"""The page *System*: how the node stands; who may, asks a destination whether it is there, and revives dead letters."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Response
from fastapi.responses import RedirectResponse

from qcnode.clock import utc_now
from qcnode.delivery import dicom
from qcnode.errors import QcnodeError
from qcnode.ledger.people import Person
from qcnode.ledger.store import Store
from qcnode.web.auth import Seen, Visitor
from qcnode.web.forms import Fields, Refused
from qcnode.web.health import Health
from qcnode.web.login import SEE_OTHER
from qcnode.web.running import Running
from qcnode.web.state import node_state
from qcnode.web.templating import Pages

SHOWN_ASSOCIATIONS = 10


@dataclass(frozen=True)
class Echo:
    """What became of a C-ECHO."""

    destination: str
    answered: bool
    says: str


def system(store: Store, pages: Pages, running: Running | None) -> APIRouter:
    """The page and its two forms."""
    router, health = APIRouter(prefix="/system"), Health(store, running)

    def shown(visitor: Visitor, echo: Echo | None = None) -> Response:
        state = node_state(store, health, running)
        unusual = store.overview.unusual_associations(SHOWN_ASSOCIATIONS)
        return pages.page("system.html", visitor, state=state, unusual=unusual, echo=echo)

    @router.get("")
    def state(visitor: Seen) -> Response:
        """Everything at one moment."""
        return shown(visitor)

    @router.post("/echo")
    def echo(visitor: Seen, fields: Fields) -> Response:
        """Ask one destination with a C-ECHO, and show what it answered."""
        if visitor.person is None or not visitor.may_speak:
            raise Refused(403, "Your account may look, but not ask a destination; ask for the role technologist.")
        asked = _echoed(fields.get("destination", ""), running)
        detail = {"destination": asked.destination, "answered": asked.answered}
        store.event("echo", None, detail, utc_now(), {"by": visitor.person.name})
        return shown(visitor, asked)

    @router.post("/retry")
    def retry(visitor: Seen, fields: Fields) -> Response:
        """Send dead letters on their way again: those of one series, or all."""
        person, now, uid = _admin(visitor), utc_now(), fields.get("series") or None
        revived = store.deliveries.revive(now, uid)
        store.event("retry", uid, {"deliveries": revived}, now, {"by": person.name})
        if running is not None:
            running.wake()
        return RedirectResponse("/system#dead", SEE_OTHER)

    return router


def _admin(visitor: Visitor) -> Person:
    if visitor.person is None or not visitor.person.role.may_run:
        raise Refused(403, "Your account may look, but not send dead letters again; ask for the role admin.")
    return visitor.person


def _echoed(name: str, running: Running | None) -> Echo:
    destinations = {one.name: one for one in running.settings.destinations} if running else {}
    if running is None or name not in destinations:
        raise Refused(404, "The configuration names no such destination; open the page again.")
    try:
        seconds = dicom.echo(destinations[name], running.settings.dicom.ae_title)
    except QcnodeError as error:
        return Echo(name, False, str(error))
    return Echo(name, True, f"It answered in {seconds * 1000:.0f} ms.")
