"""C-STORE: from a message's bytes to an instance that a power cut can no longer lose, and the status that says so."""

from __future__ import annotations

import logging
import os
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pynetdicom import PYNETDICOM_IMPLEMENTATION_UID, PYNETDICOM_IMPLEMENTATION_VERSION

from qcnode.errors import PermanentError, trail
from qcnode.intake.association import SUCCESS, Answer, Association
from qcnode.intake.dimse import Element, Field, Request
from qcnode.intake.facts import DataSetMismatch, Facts, is_uid, read_facts
from qcnode.intake.spool import Outcome, Receipt, Spool

log = logging.getLogger(__name__)

# C-STORE status codes, PS3.4 Table B.2-1
OUT_OF_RESOURCES = 0xA700
DATA_SET_MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
UNEXPECTED = 0xC001

MEGABYTE = 1_000_000
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


class Room:
    """Whether the disk of a folder has more free space than the floor; a change is a line in the log.

    The floor is never more than a twentieth of the disk, so that a small one can be used at all.
    """

    def __init__(self, folder: Path, floor_bytes: int) -> None:
        self._folder = folder
        self._floor_bytes = floor_bytes
        self._lock = threading.Lock()
        self._was_there = True

    @property
    def free_bytes(self) -> int:
        """What can still be written."""
        return self._measured()[0]

    @property
    def floor_bytes(self) -> int:
        """What has to stay free."""
        return self._measured()[1]

    def has(self, size: int = 0) -> bool:
        """Whether so many bytes can come and leave the floor free."""
        free, floor = self._measured()
        there = free - size >= floor
        with self._lock:
            if there is not self._was_there:
                self._was_there = there
                log.log(
                    logging.INFO if there else logging.ERROR,
                    "intake_%s free_mb=%d floor_mb=%d",
                    *("resumed" if there else "refused", free // MEGABYTE, floor // MEGABYTE),
                )
        return there

    def _measured(self) -> tuple[int, int]:
        disk = os.statvfs(self._folder)
        return disk.f_bavail * disk.f_frsize, min(self._floor_bytes, disk.f_blocks * disk.f_frsize // 20)


class Storing:
    """The storage service of a listener."""

    def __init__(self, spool: Spool, room: Room, maximum_bytes: int, received: Callable[[Received], None]) -> None:
        self._spool = spool
        self._room = room
        self._maximum_bytes = maximum_bytes
        self._received = received
        self._arriving: dict[Association, int] = {}  # bytes that each holds in memory of what it is being sent

    def refuse(self, association: Association, request: Request, size: int) -> Answer | None:
        """The answer to what is too large, or has no room, before anything of it is written; None to go on."""
        self._arriving[association] = size
        answer = None
        if size > self._maximum_bytes:
            answer = _TOO_LARGE
        elif sum(list(self._arriving.values())) > 2 * self._maximum_bytes:
            answer = _BUSY
        elif request.field in _WRITTEN and not self._room.has(size):
            answer = _FULL
        if answer is not None:
            self.forget(association)
            log.warning("instance_refused sop=%s why=%s", _named(request), answer.comment)
        return answer

    def forget(self, association: Association) -> None:
        """It holds no instance in memory any more."""
        self._arriving.pop(association, None)

    def store(
        self,
        association: Association,
        request: Request,
        transfer_syntax: str,
        data: Sequence[memoryview],
        carries: Callable[[str], None],
    ) -> Answer:
        """Answer Success only when a power cut can no longer lose the instance (PS3.4 Table B.2-1).

        `carries` is told the series as soon as the instance is kept, before the node hears of it.
        """
        sop, calling_ae = _named(request), association.calling_ae
        try:
            self._keep(b"".join((part10_header(request, transfer_syntax, calling_ae), *data)), calling_ae, carries)
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

    def _keep(self, part10: bytes, calling_ae: str, carries: Callable[[str], None]) -> None:
        facts = read_facts(part10)
        receipt = self._spool.put(part10, facts.series_instance_uid, facts.sop_instance_uid)
        carries(facts.series_instance_uid)
        if receipt.outcome is Outcome.CONFLICT:
            log.warning("instance_conflict series=%s sop=%s", facts.series_instance_uid, facts.sop_instance_uid)
        if facts.data_set_sop_instance_uid is not None:
            log.warning("instance_renamed series=%s sop=%s", facts.series_instance_uid, facts.sop_instance_uid)
        self._received(Received(facts, receipt, calling_ae, datetime.now(UTC)))


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
