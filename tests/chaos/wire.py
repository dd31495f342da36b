"""Upper layer PDUs on a bare socket: what a real sender sent, to be sent again whole, in part, or damaged."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import ModalityPerformedProcedureStep, Verification

ASSOCIATE_AC, P_DATA_TF = 0x02, 0x04


def recorded(send: Callable[[int], object]) -> list[bytes]:
    """Each PDU that `send` sends to an archive that takes everything (it gets the port to send to), in order."""
    entity = AE(ae_title="QCNODE")
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
    entity.add_supported_context(Verification)
    entity.add_supported_context(ModalityPerformedProcedureStep)
    handlers: list[evt.EventHandlerType] = [
        (evt.EVT_C_STORE, lambda event: 0x0000),
        (evt.EVT_N_CREATE, lambda event: (0x0000, None)),
        (evt.EVT_N_SET, lambda event: (0x0000, None)),
    ]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None  # block=False returns it
    stream = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as relay:
        relaying = threading.Thread(target=_relay, args=(relay, server.server_address[1], stream))
        relaying.start()
        try:
            send(relay.getsockname()[1])
        finally:
            relaying.join(30)
            server.shutdown()
    return pdus(bytes(stream))


def pdus(stream: bytes) -> list[bytes]:
    """The stream cut into PDUs (PS3.8 Section 9.3.1: type, reserved, four bytes of length)."""
    found = []
    while stream:
        length = 6 + int.from_bytes(stream[2:6], "big")
        found.append(stream[:length])
        stream = stream[length:]
    return found


@contextmanager
def established(port: int, request: bytes) -> Iterator[socket.socket]:
    """A connection whose association request was accepted; closed at the end, without a release."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request)
        assert read_pdu(connection)[:1] == bytes([ASSOCIATE_AC])
        yield connection


def conversation(connection: socket.socket, requests: Sequence[bytes]) -> None:
    """Send P-DATA-TF PDUs, and take an answer after each that ends a data set."""
    for one in requests:
        connection.sendall(one)
        if one[0] == P_DATA_TF and one[11] & 0b11 == 0b10:  # the last fragment of a data set (PS3.8 Annex E.2)
            read_pdu(connection)


def read_pdu(connection: socket.socket) -> bytes:
    """One PDU; less than one where the peer ended before."""
    header = _read(connection, 6)
    return header + _read(connection, int.from_bytes(header[2:6], "big"))


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := connection.recv(size - len(data))):
        data += more
    return data


def _relay(listening: socket.socket, port: int, stream: bytearray) -> None:
    """Pass one connection on to the port, keeping what goes there."""
    near, _ = listening.accept()
    with near, socket.create_connection(("127.0.0.1", port)) as far:
        back = threading.Thread(target=_copy, args=(far, near, bytearray()))
        back.start()
        _copy(near, far, stream)
        back.join()


def _copy(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
    try:
        while data := source.recv(65536):
            kept += data
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:  # one side ended it
        return
