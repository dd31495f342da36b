"""PDUs of the DICOM upper layer as an acceptor reads and writes them (PS3.8 Section 9.3), none of them trusted."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from enum import IntEnum

from qcnode.errors import PermanentError
from qcnode.intake.transport import Connection

_HEADER = struct.Struct(">BxL")  # type, reserved, length of what follows
_PDV = struct.Struct(">LBB")  # length of what follows, presentation context, message control header
_LARGEST_REQUEST_BYTES = 1 << 20  # 128 presentation contexts with dozens of transfer syntaxes take some 100 KiB


class Type(IntEnum):
    """PDU types (PS3.8 Table 9-1)."""

    ASSOCIATE_RQ = 1
    ASSOCIATE_AC = 2
    ASSOCIATE_RJ = 3
    DATA = 4
    RELEASE_RQ = 5
    RELEASE_RP = 6
    ABORT = 7


class Abort(IntEnum):
    """Why the service provider aborts (PS3.8 Table 9-26)."""

    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNIZED_PARAMETER = 4
    INVALID_PARAMETER = 6


class Violation(PermanentError):  # noqa: N818 - the peer's, of the protocol
    """The peer said what the upper layer's protocol does not allow; the association has to be aborted."""

    def __init__(self, why: str, reason: Abort) -> None:
        super().__init__(why)
        self.reason = reason


def read(connection: Connection, maximum_bytes: int, seconds: float) -> tuple[Type, bytearray]:
    """The next PDU's type and what follows its header; a P-DATA-TF of more than `maximum_bytes` is a Violation.

    The peer has `seconds` to begin it, and as many to end it.
    """
    number, length = _HEADER.unpack(connection.take(_HEADER.size, time.monotonic() + seconds))
    try:
        kind = Type(number)
    except ValueError as error:
        raise Violation(f"there is no PDU type {number}", Abort.UNRECOGNIZED_PDU) from error
    limit = {Type.DATA: maximum_bytes, Type.ASSOCIATE_RQ: _LARGEST_REQUEST_BYTES}.get(kind, 4)
    if length > limit:
        raise Violation(f"a PDU of {length} bytes is longer than agreed", Abort.INVALID_PARAMETER)
    return kind, connection.take(length, time.monotonic() + seconds)


def values(data: bytearray) -> Iterator[tuple[int, bool, bool, memoryview]]:
    """The presentation data values of a P-DATA-TF: context, whether of a command, whether its last, and the bytes."""
    view, at = memoryview(data), 0
    while at < len(view):
        if len(view) - at < _PDV.size:
            raise Violation("a presentation data value is cut off", Abort.INVALID_PARAMETER)
        length, context, control = _PDV.unpack_from(view, at)
        end = at + 4 + length
        if length < 2 or end > len(view):
            raise Violation("a presentation data value lies about its length", Abort.INVALID_PARAMETER)
        yield context, bool(control & 1), bool(control & 2), view[at + _PDV.size : end]
        at = end


def data(context: int, command: bytes) -> bytes:
    """A P-DATA-TF of one whole command set."""
    pdv = _PDV.pack(len(command) + 2, context, 3) + command
    return _HEADER.pack(Type.DATA, len(pdv)) + pdv


def rejection(result: int, source: int, reason: int) -> bytes:
    """An A-ASSOCIATE-RJ (PS3.8 Table 9-21)."""
    return _HEADER.pack(Type.ASSOCIATE_RJ, 4) + bytes((0, result, source, reason))


def release_reply() -> bytes:
    """An A-RELEASE-RP."""
    return _HEADER.pack(Type.RELEASE_RP, 4) + bytes(4)


def abort(reason: Abort | None = None) -> bytes:
    """An A-ABORT: of the service provider for its reason, of the service user without one."""
    return _HEADER.pack(Type.ABORT, 4) + bytes((0, 0, 2 if reason else 0, reason or 0))
