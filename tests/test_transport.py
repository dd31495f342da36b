"""Connections that acknowledge at once, wait for nobody for ever, and close for certain."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import pytest

from qcnode.intake.transport import Connection, ConnectionEnded, PeerSilent


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket, Connection]]:
    """A peer's socket, the one that accepted it, and ours over that."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
        ours = Connection(accepted)
        with peer:
            yield peer, accepted, ours
        ours.close()


def soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


def test_small_segments_are_sent_at_once(pair: tuple[socket.socket, socket.socket, Connection]) -> None:
    assert pair[1].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="this system has no TCP_QUICKACK")
def test_each_read_acknowledges_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    options: list[int] = []

    class Watched(socket.socket):
        def setsockopt(self, *arguments: int) -> None:  # type: ignore[override]
            options.append(arguments[1])
            super().setsockopt(*arguments)

    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as peer:
        accepted, _ = listening.accept()
        ours = Connection(Watched(fileno=accepted.detach()))
        for part in (b"one", b"two"):
            peer.sendall(part)
            assert ours.take(3, soon()) == part
        ours.close()
    assert options == [socket.TCP_NODELAY, socket.TCP_QUICKACK, socket.TCP_QUICKACK]


def test_what_is_taken_does_not_depend_on_how_it_was_sent(
    pair: tuple[socket.socket, socket.socket, Connection],
) -> None:
    peer, _, ours = pair
    peer.sendall(b"abcdef")
    assert [bytes(ours.take(n, soon())) for n in (1, 2, 3)] == [b"a", b"bc", b"def"]


def test_a_promise_takes_no_memory_and_a_silent_peer_no_time(
    pair: tuple[socket.socket, socket.socket, Connection],
) -> None:
    peer, _, ours = pair
    peer.sendall(b"\x04")
    began = time.monotonic()
    with pytest.raises(PeerSilent):
        ours.take(1 << 40, time.monotonic() + 0.2)
    assert time.monotonic() - began < 2


def test_a_peer_that_takes_no_answer_is_given_up(pair: tuple[socket.socket, socket.socket, Connection]) -> None:
    with pytest.raises(PeerSilent):
        pair[2].send(bytes(1 << 26), time.monotonic() + 0.2)


@pytest.mark.parametrize("goodbye", [True, False])
def test_a_connection_that_was_reset_is_closed_all_the_same(
    pair: tuple[socket.socket, socket.socket, Connection], goodbye: bool
) -> None:
    """shutdown() fails on it, and a socket left open then would be found by the garbage collector."""
    peer, accepted, ours = pair
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    with pytest.raises(ConnectionEnded):
        ours.take(1, soon())
    ours.close(goodbye=goodbye)
    assert accepted.fileno() == -1
