"""Command sets of DIMSE messages (PS3.7 Section 6.3.1): always implicit VR little endian, and small."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from qcnode.intake.pdu import Abort, Violation

LARGEST_COMMAND_BYTES = 1 << 16
NO_DATA_SET = 0x0101
_ELEMENT = struct.Struct("<HHL")
_RESPONSE = 0x8000


class Field(IntEnum):
    """What a request asks for (PS3.7 Table E.1-1, Command Field)."""

    C_STORE = 0x0001
    C_ECHO = 0x0030
    N_SET = 0x0120
    N_CREATE = 0x0140
    C_CANCEL = 0x0FFF


class Element(IntEnum):
    """Elements of group 0000 (PS3.7 Annex E)."""

    GROUP_LENGTH = 0x0000
    AFFECTED_SOP_CLASS_UID = 0x0002
    REQUESTED_SOP_CLASS_UID = 0x0003
    COMMAND_FIELD = 0x0100
    MESSAGE_ID = 0x0110
    MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
    COMMAND_DATA_SET_TYPE = 0x0800
    STATUS = 0x0900
    ERROR_COMMENT = 0x0902
    ERROR_ID = 0x0903
    AFFECTED_SOP_INSTANCE_UID = 0x1000
    REQUESTED_SOP_INSTANCE_UID = 0x1001


@dataclass(frozen=True)
class Request:
    """A command set that was received."""

    elements: Mapping[int, bytes]

    @property
    def field(self) -> int:
        """The Command Field: which of the services."""
        return self._number(Element.COMMAND_FIELD)

    @property
    def has_data_set(self) -> bool:
        """Whether a data set follows."""
        return self._number(Element.COMMAND_DATA_SET_TYPE) != NO_DATA_SET

    def uid(self, element: Element) -> str:
        """A UID as it came, "" where it is missing."""
        return self.elements.get(element, b"").decode("ascii", "replace").strip(" \0")

    def _number(self, element: Element) -> int:
        return int.from_bytes(self.elements.get(element, b"")[:2], "little")


def decode(data: bytes | bytearray) -> Request:
    """The command set's elements of group 0000; a Violation where the bytes are none."""
    elements: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        if len(data) - at < _ELEMENT.size:
            raise Violation("a command set is cut off", Abort.INVALID_PARAMETER)
        group, element, length = _ELEMENT.unpack_from(data, at)
        at += _ELEMENT.size
        if group != 0 or length > len(data) - at:
            raise Violation("a command set is damaged", Abort.INVALID_PARAMETER)
        elements[element] = bytes(data[at : at + length])
        at += length
    if Element.COMMAND_FIELD not in elements:
        raise Violation("a command set has no Command Field", Abort.INVALID_PARAMETER)
    return Request(elements)


def response(request: Request, status: int, comment: str = "", error_id: int | None = None) -> bytes:
    """The command set that answers the request; `comment`, and a service's own `error_id`, say why it failed."""
    sop_class = request.uid(Element.AFFECTED_SOP_CLASS_UID) or request.uid(Element.REQUESTED_SOP_CLASS_UID)
    instance = request.uid(Element.AFFECTED_SOP_INSTANCE_UID) or request.uid(Element.REQUESTED_SOP_INSTANCE_UID)
    elements = {
        Element.AFFECTED_SOP_CLASS_UID: _padded(sop_class, b"\0"),
        Element.COMMAND_FIELD: _us(request.field | _RESPONSE),
        Element.MESSAGE_ID_BEING_RESPONDED_TO: request.elements.get(Element.MESSAGE_ID, b"\0\0"),
        Element.COMMAND_DATA_SET_TYPE: _us(NO_DATA_SET),
        Element.STATUS: _us(status),
        Element.ERROR_COMMENT: _padded(comment[:64], b" "),  # LO
        Element.ERROR_ID: b"" if error_id is None else _us(error_id),
        Element.AFFECTED_SOP_INSTANCE_UID: _padded(instance, b"\0"),
    }
    body = b"".join(_ELEMENT.pack(0, tag, len(value)) + value for tag, value in elements.items() if value)
    return _ELEMENT.pack(0, Element.GROUP_LENGTH, 4) + len(body).to_bytes(4, "little") + body


def _us(value: int) -> bytes:
    return value.to_bytes(2, "little")


def _padded(text: str, padding: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    return value + padding * (len(value) % 2)
