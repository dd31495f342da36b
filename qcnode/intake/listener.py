"""The listener: C-ECHO, C-STORE and MPPS SCP. Success is answered only for what a power cut can no longer lose.

It refuses an association before any presentation context is looked at, with the reasons that PS3.8 Table 9-21 offers:

- called AE title not recognised: another one than ours, where the configuration asks for ours;
- calling AE title not recognised: one that is not listed, and equally a peer from outside the listed networks, as
  PS3.8 has no reason that names an address;
- local limit exceeded (transient): more associations than allowed, or a disk without enough free space.

Each association has a thread; most of its time goes into waiting for the peer and the disk, without Python's lock.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address

from pynetdicom import _config, build_context

from qcnode.config import Dicom
from qcnode.errors import trail
from qcnode.intake import dimse, mpps, negotiation
from qcnode.intake.association import SUCCESS, UNRECOGNIZED_OPERATION, Answer, Association, Ending, Limits
from qcnode.intake.associations import AssociationEvent, Associations, Kind
from qcnode.intake.completeness import AssociationState
from qcnode.intake.negotiation import Accepted, Proposal, Rejection
from qcnode.intake.spool import Spool
from qcnode.intake.storing import MEGABYTE, Received, Room, Storing
from qcnode.intake.transport import Connection
from qcnode.tls import server_context

__all__ = ["AssociationEvent", "Associations", "Listener", "Received"]

log = logging.getLogger(__name__)

# pynetdicom's documented switch; its own log of PDUs and data sets would hold patient data.
_config.LOG_HANDLER_LEVEL = "none"
logging.getLogger("pynetdicom").setLevel(logging.WARNING)

VERIFICATION = "1.2.840.10008.1.1"
_REQUEST_SECONDS = 30.0  # the ARTIM timer of PS3.8 Section 9.1.5, at the most
_WAITING_CONNECTIONS = 128  # that accept() has not seen yet: a console may open one for each instance
_UNASSOCIATED = 128  # connections that may be without an association yet, or any more
_POLL_SECONDS = 0.1  # until stop() is noticed
_PATIENCE = 5  # by so much is an association's thread nicer than the rest: a verdict is waited for beside a child


class Listener:
    """Receives instances into the spool; `received` and `on_event` are called from its threads and must not block.

    Without `steps`, it offers no MPPS.
    """

    def __init__(
        self,
        settings: Dicom,
        spool: Spool,
        received: Callable[[Received], None],
        on_event: Callable[[AssociationEvent], None] = lambda event: None,
        steps: mpps.ProcedureSteps | None = None,
    ) -> None:
        self.associations = Associations()
        self._settings = settings
        self._on_event = on_event
        self._steps = steps
        self._room = Room(spool.folder, settings.minimum_free_mb * MEGABYTE)
        self._storing = Storing(spool, self._room, settings.maximum_instance_mb * MEGABYTE, received)
        self._doors: list[tuple[socket.socket, ssl.SSLContext | None]] = []
        self._accepting: list[threading.Thread] = []
        self._serving: dict[threading.Thread, Association] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    @property
    def port(self) -> int:
        """The port that it listens on, also where the configuration left the choice to the system."""
        return self._port(tls=False, configured=self._settings.port)

    @property
    def listens(self) -> bool:
        """Whether somebody is at every door."""
        return bool(self._accepting) and all(thread.is_alive() for thread in self._accepting)

    @property
    def room(self) -> Room:
        """The disk under the spool."""
        return self._room

    @property
    def tls_port(self) -> int:
        """The port that it listens on for TLS."""
        return self._port(tls=True, configured=self._settings.tls_port)

    def start(self) -> None:
        """Listen; OSError when an address is taken, ConfigError for certificates that cannot be used."""
        settings = self._settings
        self._stopping.clear()
        try:
            if settings.plain:
                self._doors.append((_listening(settings.host, settings.port), None))
            if settings.tls_certificate is not None:
                key = settings.tls_key or settings.tls_certificate
                context = server_context(settings.tls_certificate, key, settings.tls_client_ca)
                self._doors.append((_listening(settings.host, settings.tls_port), context))
        except BaseException:
            self._close_doors()
            raise
        for door, tls in self._doors:
            name = "dicom-listener-tls" if tls else "dicom-listener"
            self._accepting.append(threading.Thread(target=self._accept, args=(door, tls), name=name, daemon=True))
            self._accepting[-1].start()
            log.info(
                "listener_started ae=%r host=%s port=%d tls=%s",
                *(settings.ae_title, settings.host, door.getsockname()[1], "yes" if tls else "no"),
            )

    def stop(self, drain_seconds: float = 5.0) -> None:
        """Accept nobody new, give open associations this long to come to their end, then abort what is left."""
        if not self._doors:
            return
        self._stopping.set()
        for thread in self._accepting:
            thread.join()
        self._close_doors()
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
        self._accepting.clear()
        log.info("listener_stopped ae=%r", self._settings.ae_title)

    # What associations ask of the listener

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
        services = [build_context(VERIFICATION), *([mpps.context()] if self._steps is not None else [])]
        accepted = proposal.accepted(settings.maximum_pdu_bytes, services)
        if not self.associations.opened(association, settings.maximum_associations):
            return negotiation.LOCAL_LIMIT
        return accepted

    def established(self, association: Association) -> None:
        """Tell that it was accepted."""
        self._tell("established", association)

    def refuse(self, association: Association, request: dimse.Request, size: int) -> Answer | None:
        """What there is no room for is not kept."""
        answer = self._storing.refuse(association, request, size)
        if request.field in mpps.FIELDS and self._steps is not None:
            answer = self._steps.refuse(size, has_room=answer is None)
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

            def carries(series_uid: str) -> None:
                self.associations.carries(association, series_uid)

            return self._storing.store(association, request, transfer_syntax, data, carries)
        if request.field in mpps.FIELDS and self._steps is not None:
            self._storing.forget(association)
            return self._steps.perform(request, transfer_syntax, data, association.calling_ae)
        return Answer(UNRECOGNIZED_OPERATION)

    def ended(self, association: Association, kind: Ending, why: str) -> None:
        """Its series remember how it ended, before anybody is told."""
        self._storing.forget(association)
        if association.is_established:
            released = kind == "released"
            self.associations.ended(association, AssociationState.RELEASED if released else AssociationState.ABORTED)
        if association.is_established or kind == "rejected":
            self._tell(kind, association, why)
        else:
            log.info("connection_ended address=%s why=%r", association.address, why)

    # Behind the doors

    def _accept(self, door: socket.socket, tls: ssl.SSLContext | None) -> None:
        while not self._stopping.is_set():
            try:
                connected, address = door.accept()
            except TimeoutError:
                continue
            except OSError as error:  # out of file descriptors, or the peer is gone already
                log.error("accept_failed why=%r", error.strerror)
                self._stopping.wait(_POLL_SECONDS)
                continue
            with self._lock:
                too_many = len(self._serving) >= self._settings.maximum_associations + _UNASSOCIATED
            if too_many:
                log.warning("connection_refused address=%s why='too many connections'", address[0])
                connected.close()
                continue
            self._serve(connected, address[0], tls)

    def _serve(self, connected: socket.socket, address: str, tls: ssl.SSLContext | None) -> None:
        """Serve the association in a thread of its own."""
        seconds = self._settings.network_timeout_seconds
        limits = Limits(self._settings.maximum_pdu_bytes, min(_REQUEST_SECONDS, seconds), seconds)
        association = Association(Connection(connected), address, self, limits, tls)

        def run() -> None:
            os.nice(_PATIENCE)  # of this thread alone
            try:
                association.serve()
            except Exception as error:  # one association's failure must not be another's
                log.error("association_failed why=%s where=%r", type(error).__name__, trail(error))
            finally:
                with self._lock:
                    del self._serving[thread]

        thread = threading.Thread(target=run, name=f"association-{address}", daemon=True)
        with self._lock:
            self._serving[thread] = association
        thread.start()

    def _is_near(self, address: str) -> bool:
        peer = ip_address(address)
        if isinstance(peer, IPv6Address) and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped
        networks = self._settings.peer_networks
        return not networks or any(peer.version == network.version and peer in network for network in networks)

    def _tell(self, kind: Kind, association: Association, reason: str = "") -> None:
        calling, called, address = association.calling_ae, association.called_ae, association.address
        log.info(
            "association_%s calling=%r called=%r address=%s%s",
            *(kind, calling, called, address, f" reason={reason!r}" if reason else ""),
        )
        self._on_event(AssociationEvent(kind, calling, called, address, datetime.now(UTC), reason))

    def _close_doors(self) -> None:
        for door, _ in self._doors:
            door.close()
        self._doors.clear()

    def _port(self, *, tls: bool, configured: int) -> int:
        ports = [door.getsockname()[1] for door, context in self._doors if (context is not None) is tls]
        return int(ports[0]) if ports else configured


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        door = socket.create_server((host, port), family=family, backlog=_WAITING_CONNECTIONS)
    except OSError as error:  # there are two doors: say which
        why = str(error.strerror).split(" (while")[0]
        raise OSError(error.errno, why, f"{host}:{port}") from error
    door.settimeout(_POLL_SECONDS)
    return door
