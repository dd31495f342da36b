"""What is behind the doors: associations, each in a thread, that store into the spool and tell their node.

An association is refused before any presentation context is looked at, with the reasons that PS3.8 Table 9-21 offers:

- called AE title not recognised: another one than ours, where the configuration asks for ours;
- calling AE title not recognised: one that is not listed, and equally a peer from outside the listed networks, as
  PS3.8 has no reason that names an address;
- local limit exceeded (transient): more associations than allowed, or a disk without enough free space.

Most of a thread's time goes into waiting for the peer and the disk, without Python's lock.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address
from typing import Protocol

from pynetdicom import _config, build_context

from qcnode.config import Dicom
from qcnode.errors import trail
from qcnode.intake import dimse, mpps, negotiation
from qcnode.intake.association import SUCCESS, UNRECOGNIZED_OPERATION, Answer, Association, Ending, Limits
from qcnode.intake.associations import AssociationEvent, Kind
from qcnode.intake.completeness import AssociationState
from qcnode.intake.negotiation import Accepted, Proposal, Rejection
from qcnode.intake.room import MEGABYTE, Room
from qcnode.intake.spool import Spool
from qcnode.intake.storing import Received, Storing
from qcnode.intake.transport import Connection
from qcnode.tls import server_context

log = logging.getLogger(__name__)

# pynetdicom's documented switch; its own log of PDUs and data sets would hold patient data.
_config.LOG_HANDLER_LEVEL = "none"
logging.getLogger("pynetdicom").setLevel(logging.WARNING)

VERIFICATION = "1.2.840.10008.1.1"
_REQUEST_SECONDS = 30.0  # the ARTIM timer of PS3.8 Section 9.1.5, at the most
_PATIENCE = 5  # by so much is an association's thread nicer than the rest: a verdict is waited for beside a child


class Home(Protocol):
    """The node that it receives for; called from the associations' threads, in the order of what happens to each.

    An association is known by the number of its connection.
    """

    def opened(self, number: int) -> bool:
        """Whether there may be one more; it counts from now on."""

    def arrived(self, number: int, one: Received) -> None:
        """An instance is in the spool for good; its sender does not know yet."""

    def ended(self, number: int, state: AssociationState) -> None:
        """The association is over; it counts no more."""

    def happened(self, number: int, event: AssociationEvent) -> None:
        """For the log and the record."""

    def perform(
        self, request: dimse.Request, transfer_syntax: str, data: Sequence[bytes | memoryview], calling_ae: str
    ) -> Answer:
        """Take a scanner's word on its procedure step."""

    def left(self, number: int) -> None:
        """The connection is closed."""


class Reception:
    """Serves connections that were let in, until stop()."""

    def __init__(self, settings: Dicom, spool: Spool, room: Room, home: Home, *, offers_steps: bool) -> None:
        self._settings = settings
        self._room = room
        self._home = home
        self._offers_steps = offers_steps
        self._storing = Storing(spool, room, settings.maximum_instance_mb * MEGABYTE, self._arrived)
        self._serving: dict[threading.Thread, Association] = {}
        self._lock = threading.Lock()

    @property
    def ready(self) -> int:
        """How many processes take connections: this one."""
        return 1

    @property
    def connections(self) -> int:
        """How many are open, with or without an association."""
        return len(self._serving)

    def start(self) -> None:
        """There is nothing to start."""

    def serve(self, connected: socket.socket, address: str, number: int, tls: ssl.SSLContext | None) -> None:
        """Serve the association of this connection, which is taken over, in a thread of its own."""
        seconds = self._settings.network_timeout_seconds
        limits = Limits(self._settings.maximum_pdu_bytes, min(_REQUEST_SECONDS, seconds), seconds)
        association = Association(Connection(connected), address, self, limits, tls, number)

        def run() -> None:
            os.nice(_PATIENCE)  # of this thread alone
            try:
                association.serve()
            except Exception as error:  # one association's failure must not be another's
                log.error("association_failed why=%s where=%r", type(error).__name__, trail(error))
            finally:
                with self._lock:
                    del self._serving[thread]
                self._home.left(number)

        thread = threading.Thread(target=run, name=f"association-{address}", daemon=True)
        with self._lock:
            self._serving[thread] = association
        thread.start()

    def stop(self, drain_seconds: float) -> None:
        """Give open associations this long to come to their end, then abort what is left."""
        with self._lock:
            serving = dict(self._serving)
        for association in serving.values():
            if not association.is_established:
                association.abort()  # nothing was begun that could be lost
        deadline = time.monotonic() + drain_seconds
        for thread, association in serving.items():
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                association.abort()
        for thread in serving:
            thread.join(self._settings.network_timeout_seconds)

    # What associations ask

    def admit(self, association: Association, proposal: Proposal) -> Accepted | Rejection:
        """Refuse a peer that is not allowed, or too many; to any other, offer to store what it proposes."""
        settings = self._settings
        if not self._is_near(association.address):
            return negotiation.PEER_NETWORK
        if settings.calling_ae_titles and association.calling_ae not in settings.calling_ae_titles:
            return negotiation.CALLING_AE_TITLE
        if settings.require_called_ae_title and association.called_ae != settings.ae_title:
            return negotiation.CALLED_AE_TITLE
        if not self._room.has():
            return negotiation.DISK_FLOOR
        services = [build_context(VERIFICATION), *([mpps.context()] if self._offers_steps else [])]
        accepted = proposal.accepted(settings.maximum_pdu_bytes, services)
        if not self._home.opened(association.number):
            return negotiation.LOCAL_LIMIT
        return accepted

    def established(self, association: Association) -> None:
        """Tell that it was accepted."""
        self._tell("established", association)

    def refuse(self, association: Association, request: dimse.Request, size: int) -> Answer | None:
        """What there is no room for is not kept."""
        answer = self._storing.refuse(association, request, size)
        if self._offers_steps and request.field in mpps.FIELDS:
            answer = mpps.refuse(size, has_room=answer is None)
            if answer is not None:
                self._storing.forget(association)
        return answer

    def perform(
        self, association: Association, request: dimse.Request, transfer_syntax: str, data: Sequence[memoryview]
    ) -> Answer:
        """Answer an echo, store an instance, take a scanner's word on its procedure step."""
        if request.field == dimse.Field.C_ECHO:
            return Answer(SUCCESS)
        if request.field == dimse.Field.C_STORE:
            return self._storing.store(association, request, transfer_syntax, data)
        if self._offers_steps and request.field in mpps.FIELDS:
            self._storing.forget(association)
            return self._home.perform(request, transfer_syntax, data, association.calling_ae)
        return Answer(UNRECOGNIZED_OPERATION)

    def ended(self, association: Association, kind: Ending, why: str) -> None:
        """Its series remember how it ended, before anybody is told."""
        self._storing.forget(association)
        if association.is_established:
            released = kind == "released"
            self._home.ended(association.number, AssociationState.RELEASED if released else AssociationState.ABORTED)
        if association.is_established or kind == "rejected":
            self._tell(kind, association, why)
        else:
            log.info("connection_ended address=%s why=%r", association.address, why)

    def _arrived(self, association: Association, one: Received) -> None:
        self._home.arrived(association.number, one)

    def _is_near(self, address: str) -> bool:
        peer = ip_address(address)
        if isinstance(peer, IPv6Address) and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped
        networks = self._settings.peer_networks
        return not networks or any(peer.version == network.version and peer in network for network in networks)

    def _tell(self, kind: Kind, association: Association, reason: str = "") -> None:
        calling, called, address = association.calling_ae, association.called_ae, association.address
        event = AssociationEvent(kind, calling, called, address, datetime.now(UTC), reason)
        self._home.happened(association.number, event)


def tls_of(settings: Dicom) -> ssl.SSLContext | None:
    """How to speak TLS, where the configuration has it; ConfigError for certificates that cannot be used."""
    if settings.tls_certificate is None:
        return None
    return server_context(
        settings.tls_certificate, settings.tls_key or settings.tls_certificate, settings.tls_client_ca
    )
