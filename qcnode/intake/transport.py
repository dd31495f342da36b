"""A fast way in: connections that acknowledge at once, and wait for nobody longer than they were told to.

A sender that keeps Nagle's algorithm on (DCMTK's default) holds back its last small segment until the one before is
acknowledged; a receiver that delays its acknowledgements makes that 40 ms or more for each instance. Acknowledging at
once cures it from our side.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time

from qcnode.errors import TransientError

_CHUNK_BYTES = 256 * 1024
_GOODBYE_SECONDS = 1.0  # for the peer to close first, so that our last words are not lost in a reset


class ConnectionEnded(TransientError):  # noqa: N818 - what happened, and no fault
    """The peer closed the connection, or it broke."""


class PeerSilent(ConnectionEnded):
    """The peer said nothing, or not all, within the time that it had."""


class Connection:
    """A connected TCP socket that neither delays its acknowledgements nor its own small segments.

    One thread takes; any thread may send or close. Deadlines are in the seconds of time.monotonic().
    """

    def __init__(self, connected: socket.socket) -> None:
        """Takes the socket over."""
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connected
        self._chunk = memoryview(bytearray(_CHUNK_BYTES))
        self._received = bytearray()
        self._sending = threading.Lock()

    def secure(self, context: ssl.SSLContext, deadline: float) -> None:
        """Shake hands as a TLS server; ConnectionEnded, with OpenSSL's reason, where that fails."""
        try:
            self._socket.settimeout(_left(deadline))
            self._socket = context.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
            self._socket.do_handshake()
        except TimeoutError as error:
            raise PeerSilent("the peer did not finish the TLS handshake") from error
        except ssl.SSLError as error:
            raise ConnectionEnded(f"TLS refused: {(error.reason or 'no reason given').lower()}") from error
        except OSError as error:
            raise ConnectionEnded("the peer left within the TLS handshake") from error

    def take(self, count: int, deadline: float) -> bytearray:
        """The next `count` bytes. Memory grows with what came, never with what was promised."""
        while len(self._received) < count:
            self._receive(deadline)
        taken = self._received[:count]
        del self._received[:count]
        return taken

    def send(self, data: bytes, deadline: float) -> None:
        """Send all of it."""
        with self._sending:
            try:
                self._socket.settimeout(_left(deadline))
                self._socket.sendall(data)
            except TimeoutError as error:
                raise PeerSilent("the peer takes no answer") from error
            except OSError as error:
                raise ConnectionEnded("the connection broke") from error

    def hang_up(self) -> None:
        """End the connection from another thread: the one that takes finds it ended, and closes."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self, *, goodbye: bool = False) -> None:
        """Close for certain; with `goodbye`, let the peer close first, for a moment."""
        try:
            if goodbye:
                self._linger()
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it was reset: closing is all that is left to do
        finally:
            self._socket.close()

    def _linger(self) -> None:
        socket.socket.shutdown(self._socket, socket.SHUT_WR)
        deadline = time.monotonic() + _GOODBYE_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            if not self._socket.recv_into(self._chunk):
                return

    def _receive(self, deadline: float) -> None:
        try:
            if hasattr(socket, "TCP_QUICKACK"):  # the kernel drops it by itself (tcp(7)), so each read sets it anew
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            self._socket.settimeout(_left(deadline))
            count = self._socket.recv_into(self._chunk)
        except TimeoutError as error:
            raise PeerSilent("the peer fell silent") from error
        except OSError as error:
            raise ConnectionEnded("the connection broke") from error
        if not count:
            raise ConnectionEnded("the peer closed the connection")
        self._received += self._chunk[:count]


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)
