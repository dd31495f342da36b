"""The listener: C-ECHO, C-STORE and MPPS SCP. Success is answered only for what a power cut can no longer lose.

It keeps the doors and the count: it accepts connections, and knows which associations there are and what they carried.
What is behind the doors (`reception.py`) runs in receiving processes (`receivers.py`), as Python's lock lets a process
use one core; or, where there is to be one alone, in the node's own.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable, Sequence

from qcnode.config import Dicom
from qcnode.intake import mpps
from qcnode.intake.association import Answer
from qcnode.intake.associations import AssociationEvent, Associations
from qcnode.intake.completeness import AssociationState
from qcnode.intake.dimse import Request
from qcnode.intake.receivers import Receivers
from qcnode.intake.reception import Reception, tls_of
from qcnode.intake.room import MEGABYTE, Figures, Room
from qcnode.intake.spool import Spool
from qcnode.intake.storing import Received

__all__ = ["AssociationEvent", "Associations", "Listener", "Received"]

log = logging.getLogger(__name__)

MOST_PROCESSES = 4  # without a setting: beyond it, the disk is the limit
_WAITING_CONNECTIONS = 128  # that accept() has not seen yet: a console may open one for each instance
_UNASSOCIATED = 128  # connections that may be without an association yet, or any more
_POLL_SECONDS = 0.1  # until stop() is noticed


class Listener:
    """Receives instances into the spool; `received` and `on_event` are called from its threads and must not block.

    Without `steps`, it offers no MPPS. holding: see Receivers.
    """

    def __init__(
        self,
        settings: Dicom,
        spool: Spool,
        received: Callable[[Received], None],
        on_event: Callable[[AssociationEvent], None] = lambda event: None,
        steps: mpps.ProcedureSteps | None = None,
        holding: int | None = None,
    ) -> None:
        self.associations = Associations()
        self.processes = settings.processes or min(len(os.sched_getaffinity(0)), MOST_PROCESSES)
        self._settings = settings
        self._received = received
        self._on_event = on_event
        self._steps = steps
        self._numbers = itertools.count(1)
        figures = Figures(Room.FIRST + self.processes)
        self._room = Room(spool.folder, settings.minimum_free_mb * MEGABYTE, figures)
        offers_steps = steps is not None
        self._behind: Reception | Receivers
        if self.processes == 1:
            self._behind = Reception(settings, spool, self._room, self, offers_steps=offers_steps)
        else:
            self._behind = Receivers(
                settings, spool, figures, self, self.processes, offers_steps=offers_steps, holding=holding
            )
        self._doors: list[tuple[socket.socket, ssl.SSLContext | None]] = []
        self._accepting: list[threading.Thread] = []
        self._stopping = threading.Event()

    @property
    def port(self) -> int:
        """The port that it listens on, also where the configuration left the choice to the system."""
        return self._port(tls=False, configured=self._settings.port)

    @property
    def listens(self) -> bool:
        """Whether somebody is at every door, and behind them."""
        return bool(self._accepting) and all(thread.is_alive() for thread in self._accepting) and self.ready > 0

    @property
    def ready(self) -> int:
        """How many of the `processes` take connections."""
        return self._behind.ready

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
            if (context := tls_of(settings)) is not None:
                self._doors.append((_listening(settings.host, settings.tls_port), context))
        except BaseException:
            self._close_doors()
            raise
        self._behind.start()
        for door, tls in self._doors:
            name = "dicom-listener-tls" if tls else "dicom-listener"
            self._accepting.append(threading.Thread(target=self._accept, args=(door, tls), name=name, daemon=True))
            self._accepting[-1].start()
            log.info(
                "listener_started ae=%r host=%s port=%d tls=%s processes=%d",
                *(settings.ae_title, settings.host, door.getsockname()[1], "yes" if tls else "no", self.processes),
            )

    def stop(self, drain_seconds: float = 5.0) -> None:
        """Accept nobody new, give open associations this long to come to their end, then abort what is left."""
        if not self._doors:
            return
        self._stopping.set()
        for thread in self._accepting:
            thread.join()
        self._close_doors()
        self._behind.stop(drain_seconds)
        self._accepting.clear()
        log.info("listener_stopped ae=%r", self._settings.ae_title)

    # What is told and asked from behind the doors

    def opened(self, number: int) -> bool:
        """Whether there may be one more association; it counts from now on."""
        return self.associations.opened(number, self._settings.maximum_associations)

    def arrived(self, number: int, one: Received) -> None:
        """An instance is in the spool for good: its association carries the series before the node hears of it."""
        self.associations.carries(number, one.facts.series_instance_uid)
        self._received(one)

    def adopted(self, one: Received) -> None:
        """An instance lies in the spool that a process stored which died before it told."""
        self.associations.aborted(one.facts.series_instance_uid)
        self._received(one)

    def ended(self, number: int, state: AssociationState) -> None:
        """The association is over; it counts no more."""
        self.associations.ended(number, state)

    def happened(self, number: int, event: AssociationEvent) -> None:
        """For the log and the record."""
        log.info(
            "association_%s calling=%r called=%r address=%s%s",
            *(event.kind, event.calling_ae, event.called_ae, event.address),
            f" reason={event.reason!r}" if event.reason else "",
        )
        self._on_event(event)

    def perform(
        self, request: Request, transfer_syntax: str, data: Sequence[bytes | memoryview], calling_ae: str
    ) -> Answer:
        """Take a scanner's word on its procedure step."""
        assert self._steps is not None, "it is not offered"
        return self._steps.perform(request, transfer_syntax, data, calling_ae)

    def left(self, number: int) -> None:
        """The connection is closed."""

    # At the doors

    def _accept(self, door: socket.socket, tls: ssl.SSLContext | None) -> None:
        while not self._stopping.is_set():
            if not self.ready:  # who comes waits in the queue of the system
                self._stopping.wait(_POLL_SECONDS)
                continue
            try:
                connected, address = door.accept()
            except TimeoutError:
                continue
            except OSError as error:  # out of file descriptors, or the peer is gone already
                log.error("accept_failed why=%r", error.strerror)
                self._stopping.wait(_POLL_SECONDS)
                continue
            if self._behind.connections >= self._settings.maximum_associations + _UNASSOCIATED:
                log.warning("connection_refused address=%s why='too many connections'", address[0])
                connected.close()
                continue
            self._behind.serve(connected, address[0], next(self._numbers), tls)

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
