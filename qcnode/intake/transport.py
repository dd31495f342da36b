"""A fast way in: sockets that acknowledge at once.

A sender that keeps Nagle's algorithm on (DCMTK's default) holds back its last small segment until the one before is
acknowledged; a receiver that delays its acknowledgements makes that 40 ms or more for each instance. Acknowledging at
once cures it from our side.
"""

from __future__ import annotations

import socket
import socketserver
from typing import Any

from pynetdicom.transport import ThreadedAssociationServer


class PromptSocket(socket.socket):
    """A connected TCP socket that neither delays its acknowledgements nor its own small segments."""

    def __init__(self, connected: socket.socket, timeout_seconds: float | None) -> None:
        """Takes the connection over from `connected`; a peer silent for `timeout_seconds` within a PDU is given up."""
        super().__init__(connected.family, connected.type, connected.proto, fileno=connected.detach())
        self.settimeout(timeout_seconds)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Read; the kernel drops TCP_QUICKACK by itself (tcp(7)), so each read sets it anew."""
        if hasattr(socket, "TCP_QUICKACK"):
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return super().recv(bufsize, flags)


class PromptAssociationServer(ThreadedAssociationServer):
    """pynetdicom's server of associations, on prompt sockets."""

    request_queue_size = 128  # connections that may wait for accept(): a console may open one for each instance

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        connected, address = super().get_request()
        return PromptSocket(connected, self.ae.network_timeout), address

    def shutdown(self) -> None:
        """Stop accepting and close the listening socket; associations that are open go on."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()
