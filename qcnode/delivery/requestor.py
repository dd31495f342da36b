"""The side of an association that asks for it, with what pynetdicom's own leaves open.

Its sockets are prompt and closed for certain, no answer of the peer gets lost, and a failure of TLS has its reason.
"""

from __future__ import annotations

import socket
import ssl
import threading
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationSocket

from qcnode.config import Destination
from qcnode.tls import client_context


class Requestor(AE):
    """Our AE on its way to one destination."""

    def __init__(self, calling_ae: str, destination: Destination) -> None:
        super().__init__(ae_title=calling_ae)
        self.tls_failure: str | None = None
        self._destination = destination
        self._made: _Socket | None = None
        self._connection: socket.socket | None = None

    def call(self, contexts: list[PresentationContext]) -> Association:
        """Ask for an association; it may come back unestablished. ConfigError when the files for TLS do not fit."""
        to = self._destination
        tls = (self._tls(), to.host) if to.tls else None
        return self.associate(to.host, to.port, contexts, ae_title=to.ae_title, tls_args=tls)

    def close(self) -> None:
        """Close the connection, if there was one: pynetdicom leaves it open when the peer did not take it."""
        for connection in (self._connection, self._made and self._made.socket):
            if connection is not None:
                connection.close()

    def _tls(self) -> ssl.SSLContext:
        to, requestor = self._destination, self

        class Telling(ssl.SSLSocket):
            """Keeps what pynetdicom only logs."""

            def do_handshake(self, block: bool = False) -> None:
                try:
                    super().do_handshake(block)
                except OSError as error:  # ssl.SSLError among them
                    self.close()
                    reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or error.strerror
                    requestor.tls_failure = str(reason).replace("_", " ").rstrip(".").lower()
                    raise

        context = client_context(to.tls_ca, to.tls_certificate, to.tls_key, check_host_name=to.tls_check_host_name)
        context.sslsocket_class = Telling
        return context

    def _create_socket(self, association: Association, address: Any, tls: Any) -> AssociationSocket:
        association._reactor_checkpoint = Checkpoint(association)
        self._made = _Socket(association, address=address)
        self._made.tls_args = tls
        self._connection = self._made.socket
        if self._connection is not None:
            self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._made


class Checkpoint(threading.Event):
    """Where the association's own thread stands still while ours sends and awaits the answer.

    pynetdicom's may let that thread run on when both come to it at once; it then takes the peer's answer away, ours
    waits in vain, and an object that was accepted is sent again. Here clear() returns only once the other stands still.
    """

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association
        self._changed = threading.Condition()
        self._open, self._stands = True, False

    def set(self) -> None:
        """Let it go on."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Have it stand still, unless it has ended, or is the one that asks."""
        with self._changed:
            self._open = False
            while not self._stands and self._association.is_alive():
                if threading.current_thread() is self._association:
                    return
                self._changed.wait(0.01)

    def wait(self, timeout: float | None = None) -> bool:
        """Pass, or stand still until set()."""
        with self._changed:
            self._stands = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._open, timeout)
            self._stands = False
            return self._open


class _Socket(AssociationSocket):
    """Sees what TLS has decrypted already: select(), which pynetdicom asks, knows of the network's bytes only."""

    @property
    def ready(self) -> bool:
        """Whether there is something to read."""
        waiting = isinstance(self.socket, ssl.SSLSocket) and self._is_connected and self.socket.pending() > 0
        return waiting or super().ready
