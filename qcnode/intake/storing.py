"""C-STORE: from a message's bytes to an instance that a power cut can no longer lose, and the status that says so."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION

from qcnode.errors import PermanentError, trail
from qcnode.intake.association import SUCCESS, Answer, Association
from qcnode.intake.dimse import Element, Field, Request
from qcnode.intake.facts import DataSetMismatch, Facts, is_uid, read_facts
from qcnode.intake.room import Room
from qcnode.intake.spool import Outcome, Receipt, Spool

log = logging.getLogger(__name__)

# C-STORE status codes, PS3.4 Table B.2-1
OUT_OF_RESOURCES = 0xA700
DATA_SET_MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
UNEXPECTED = 0xC001

_WRITTEN = (Field.C_STORE, Field.N_CREATE, Field.N_SET)  # what is for the disk
_FULL = Answer(OUT_OF_RESOURCES, "The disk has too little free space; send it again later.")
_BUSY = Answer(OUT_OF_RESOURCES, "Too much is arriving at once; send it again later.")
_TOO_LARGE = Answer(OUT_OF_RESOURCES, "The instance is larger than the node accepts.")


@dataclass(frozen=True)
class Received:
    """An instance that is in the spool for good, and who sent it when."""

    facts: Facts
    receipt: Receipt
    calling_ae: str
    at: datetime


class Storing:
    """The storage service; `arrived` is called with what is in the spool for good, before its sender hears of it."""

    def __init__(
        self, spool: Spool, room: Room, maximum_bytes: int, arrived: Callable[[Association, Received], None]
    ) -> None:
        self._spool = spool
        self._room = room
        self._maximum_bytes = maximum_bytes
        self._arrived = arrived

    def refuse(self, association: Association, request: Request, size: int) -> Answer | None:
        """The answer to what is too large, or has no room, before anything of it is written; None to go on."""
        arriving = self._room.arriving(association, size)
        answer = None
        if size > self._maximum_bytes:
            answer = _TOO_LARGE
        elif arriving > 2 * self._maximum_bytes:
            answer = _BUSY
        elif request.field in _WRITTEN and not self._room.has(arriving):
            answer = _FULL
        if answer is not None:
            self.forget(association)
            log.warning("instance_refused sop=%s why=%s", _named(request), answer.comment)
        return answer

    def forget(self, association: Association) -> None:
        """It holds no instance in memory any more."""
        self._room.arrived(association)

    def store(
        self,
        association: Association,
        request: Request,
        transfer_syntax: str,
        data: Sequence[memoryview],
    ) -> Answer:
        """Answer Success only when a power cut can no longer lose the instance (PS3.4 Table B.2-1)."""
        sop, calling_ae = _named(request), association.calling_ae
        try:
            self._keep(association, b"".join((part10_header(request, transfer_syntax, calling_ae), *data)))
        except DataSetMismatch as error:
            log.warning("instance_refused sop=%s why=%s", sop, error)
            return Answer(DATA_SET_MISMATCH, str(error))
        except PermanentError as error:
            log.warning("instance_refused sop=%s why=%s", sop, error)
            return Answer(CANNOT_UNDERSTAND, str(error))
        except OSError as error:
            log.error("instance_refused sop=%s why=%r where=%r", sop, error.strerror, trail(error))
            return Answer(OUT_OF_RESOURCES, "The node cannot write it now; send it again later.")
        except Exception as error:  # whatever it is, the sender must not take the instance for safe
            log.error("instance_refused sop=%s why=%s where=%r", sop, type(error).__name__, trail(error))
            return Answer(UNEXPECTED, "The node failed on this instance; see its log.")
        finally:
            self.forget(association)
        return Answer(SUCCESS)

    def _keep(self, association: Association, part10: bytes) -> None:
        facts = read_facts(part10)

        def told(receipt: Receipt) -> None:
            self._arrived(association, Received(facts, receipt, association.calling_ae, datetime.now(UTC)))

        receipt = self._spool.put(part10, facts.series_instance_uid, facts.sop_instance_uid, told)
        if receipt.outcome is Outcome.CONFLICT:
            log.warning("instance_conflict series=%s sop=%s", facts.series_instance_uid, facts.sop_instance_uid)
        if facts.data_set_sop_instance_uid is not None:
            log.warning("instance_renamed series=%s sop=%s", facts.series_instance_uid, facts.sop_instance_uid)


def part10_header(request: Request, transfer_syntax: str, calling_ae: str) -> bytes:
    """What a Part 10 file has before the data set, its sender in the file meta (PS3.10 Section 7.1)."""
    meta = b"".join(
        (
            b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01",
            _element(0x0002, b"UI", request.uid(Element.AFFECTED_SOP_CLASS_UID), b"\0"),
            _element(0x0003, b"UI", request.uid(Element.AFFECTED_SOP_INSTANCE_UID), b"\0"),
            _element(0x0010, b"UI", transfer_syntax, b"\0"),
            _element(0x0012, b"UI", PYNETDICOM_IMPLEMENTATION_UID, b"\0"),
            _element(0x0013, b"SH", PYNETDICOM_IMPLEMENTATION_VERSION, b" "),
            _element(0x0016, b"AE", calling_ae, b" ") if calling_ae else b"",
        )
    )
    return bytes(128) + b"DICM\x02\x00\x00\x00UL\x04\x00" + len(meta).to_bytes(4, "little") + meta


def _element(number: int, vr: bytes, text: str, padding: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    value += padding * (len(value) % 2)
    return struct.pack("<HH2sH", 2, number, vr, len(value)) + value


def _named(request: Request) -> str:
    uid = request.uid(Element.AFFECTED_SOP_INSTANCE_UID)
    return uid if is_uid(uid) else "invalid"
