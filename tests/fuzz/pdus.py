"""Damaged associations: what a real sender sent, its PDUs cut, lying, out of order, to a node that listens."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

from instances import series
from mutation import ELEMENTS, GENERAL, mutated
from performed_steps import perform
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pynetdicom import AE
from pynetdicom.sop_class import Verification
from wire import ASSOCIATE_AC, recorded

PATIENCE_SECONDS = 0.5  # for the answer to the first PDU
ANSWER_SECONDS = 10.0  # on a loaded machine; what takes longer than SLOW_SECONDS is counted
SLOW_SECONDS = 1.0
_TYPES = tuple(range(0, 9))


@dataclass(frozen=True)
class Answered:
    """How an association ended: the types of the PDUs that came back, and how long after our end the peer's came."""

    types: tuple[int, ...]
    seconds: float


@cache
def streams() -> tuple[tuple[bytes, ...], ...]:
    """The PDUs of real associations: an echo, a procedure step, slices, an enhanced object, a compressed one."""
    return (
        tuple(recorded(_echo)),
        tuple(recorded(_perform)),
        *(tuple(recorded(lambda port, s=s: _store(port, s))) for s in _sent()),
    )


def damaged(generator: random.Random) -> tuple[bytes, ...]:
    """One of the associations after something happened to its PDUs."""
    chosen = list(generator.choice(streams()))
    for _ in range(generator.choice((1, 1, 2))):
        generator.choice((_content, _content, _content, _length, _order, _type, _chance))(chosen, generator)
    return tuple(chosen)


def played(port: int, requests: Sequence[bytes]) -> Answered:
    """Send them, the rest after the first one's answer, as a sender would; end, and see how soon the peer ends too.

    TimeoutError where it does not: what waits for the rest of a PDU is told here that no more will come.
    """
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(ConnectionError):
            connection.sendall(requests[0])
            with suppress(TimeoutError):  # it waits for more than was sent, rightly or because the length says so
                answer = connection.recv(65536)
            if answer[:1] == bytes([ASSOCIATE_AC]):
                connection.sendall(b"".join(requests[1:]))
            connection.shutdown(socket.SHUT_WR)
        ended = time.monotonic()
        connection.settimeout(ANSWER_SECONDS)
        with suppress(ConnectionError):
            while more := connection.recv(65536):
                answer += more
    return Answered(_types(answer), time.monotonic() - ended)


def _content(chosen: list[bytes], generator: random.Random) -> None:
    at = generator.randrange(len(chosen))
    body = mutated(chosen[at][6:], generator, ELEMENTS if chosen[at][0] == 4 and len(chosen[at]) > 200 else GENERAL)
    chosen[at] = chosen[at][:2] + struct.pack(">I", len(body)) + body


def _length(chosen: list[bytes], generator: random.Random) -> None:
    at = generator.randrange(len(chosen))
    length = generator.choice((0, 1, 5, max(0, len(chosen[at]) - 7), len(chosen[at]), 0x7FFFFFFF, 0xFFFFFFFF, 200_000))
    chosen[at] = chosen[at][:2] + struct.pack(">I", length) + chosen[at][6:]


def _order(chosen: list[bytes], generator: random.Random) -> None:
    kind = generator.randrange(4)
    if kind == 0:
        generator.shuffle(chosen)
    elif kind == 1:
        chosen.insert(generator.randrange(len(chosen)), generator.choice(chosen))
    elif kind == 2 and len(chosen) > 1:
        del chosen[generator.randrange(len(chosen))]
    else:
        del chosen[generator.randrange(1, len(chosen) + 1) :]


def _type(chosen: list[bytes], generator: random.Random) -> None:
    at = generator.randrange(len(chosen))
    chosen[at] = bytes([generator.choice((*_TYPES, 0xFF))]) + chosen[at][1:]


def _chance(chosen: list[bytes], generator: random.Random) -> None:
    chosen.insert(generator.randrange(len(chosen) + 1), generator.randbytes(generator.randrange(1, 64)))


def _types(answer: bytes) -> tuple[int, ...]:
    found = []
    while len(answer) >= 6:
        found.append(answer[0])
        answer = answer[6 + int.from_bytes(answer[2:6], "big") :]
    return tuple(found)


def _sent() -> list[tuple[bytes, ...]]:
    return [series()[0][:3], series()[1], series()[5]]


def _echo(port: int) -> None:
    entity = AE()
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", port)
    association.send_c_echo()
    association.release()


def _perform(port: int) -> None:
    perform(port, {"1.2.3": ["1.2.3.1", "1.2.3.2"]})


def _store(port: int, instances: Sequence[bytes]) -> None:
    datasets = [dcmread(DicomBytesIO(one)) for one in instances]
    entity = AE()
    entity.add_requested_context(datasets[0].SOPClassUID, datasets[0].file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port)
    for one in datasets:
        association.send_c_store(one)
    association.release()
