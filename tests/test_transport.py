"""Sockets that acknowledge at once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from pynetdicom import AE, build_context

from qcnode.intake.transport import PromptAssociationServer, PromptSocket

VERIFICATION = "1.2.840.10008.1.1"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, PromptSocket]]:
    """A peer's socket, and ours that accepted it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        peer = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
        with peer, PromptSocket(accepted, 0.2) as ours:
            yield peer, ours


def test_small_segments_are_sent_at_once(pair: tuple[socket.socket, PromptSocket]) -> None:
    assert pair[1].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="this system has no TCP_QUICKACK")
def test_each_read_acknowledges_at_once(
    pair: tuple[socket.socket, PromptSocket], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, ours = pair
    options: list[int] = []
    real = socket.socket.setsockopt

    def setsockopt(self: socket.socket, *arguments: int) -> None:
        options.append(arguments[1])
        real(self, *arguments)

    monkeypatch.setattr(PromptSocket, "setsockopt", setsockopt)
    for part in (b"one", b"two"):
        peer.sendall(part)
        assert ours.recv(4096) == part
    assert options == [socket.TCP_QUICKACK] * 2


def test_a_peer_that_stops_within_a_pdu_is_given_up(pair: tuple[socket.socket, PromptSocket]) -> None:
    peer, ours = pair
    peer.sendall(b"\x04")
    assert ours.recv(1) == b"\x04"
    with pytest.raises(TimeoutError):
        ours.recv(1)


def test_taking_a_connection_over_leaves_one_owner() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as peer:
        accepted, address = listening.accept()
        with PromptSocket(accepted, None) as ours:
            assert accepted.fileno() == -1
            assert ours.getpeername() == address == peer.getsockname()


def test_pynetdicom_takes_the_server_as_its_own() -> None:
    ae = AE()
    ae.network_timeout = 7.0
    server = ae.make_server(
        ("127.0.0.1", 0), contexts=[build_context(VERIFICATION)], server_class=PromptAssociationServer
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    peer = AE()
    peer.add_requested_context(VERIFICATION)
    association = peer.associate("127.0.0.1", server.server_address[1])
    assert association.is_established
    assert association.send_c_echo().Status == 0x0000
    [acceptor] = server.active_associations
    accepted = acceptor.dul.socket.socket
    assert isinstance(accepted, PromptSocket)
    assert accepted.gettimeout() == 7.0
    server.shutdown()
    thread.join()
    assert association.send_c_echo().Status == 0x0000  # who is here already goes on
    association.release()
    acceptor.join(10)
    assert not acceptor.is_alive()
