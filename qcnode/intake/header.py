"""The wanted elements of a Part 10 file, straight from its bytes: all that arrives is read so, under Python's lock.

Byte order follows the transfer syntax. Whether VRs are explicit is seen at each first element: some data sets differ
from their syntax there, and the items of an element of VR UN may (PS3.5 Section 6.2.2). What is damaged is refused,
unless it lies within an element that nobody wants and that says where it ends.
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from qcnode.errors import PermanentError

DEEPEST = 32  # sequences within sequences; functional groups and reports nest a handful
LARGEST_INFLATED_BYTES = 128 * 1024 * 1024
_INFLATING = threading.Lock()  # one at a time, however many are sent at once

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LAST_OF_META, _LAST_BEFORE_PIXELS, _LAST_OF_ITEM = 0x0002FFFF, 0x7FE00007, _ITEM_END - 1
# VRs with a length of four bytes (PS3.5 Section 7.1.2)
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))

ByteOrder = Literal["little", "big"]
Wanted = Mapping[int, str]  # tag → keyword
_NOTHING: Wanted = {}


class DataSet(dict[str, "bytes | Items"]):
    """Values by keyword, as the bytes have them, conformant or not."""

    def text(self, keyword: str) -> str | None:
        """The value without its padding; None where it is missing or empty."""
        value = self.get(keyword)
        return value.decode("ascii", "replace").strip(" \0") or None if isinstance(value, bytes) else None

    def sequence(self, keyword: str) -> Sequence[DataSet]:
        """The items of a sequence that were kept; none where it is missing or empty."""
        return self._items(keyword).kept

    def count(self, keyword: str) -> int | None:
        """How many items a sequence has, kept or not; None where it is missing."""
        return self._items(keyword).count if keyword in self else None

    def _items(self, keyword: str) -> Items:
        value = self.get(keyword, b"")
        if isinstance(value, bytes) and value:
            raise DamagedError
        return value if isinstance(value, Items) else Items()


@dataclass
class Items:
    """The items of a sequence: how many there are, and the first of them."""

    count: int = 0
    kept: list[DataSet] = field(default_factory=list)


@dataclass(frozen=True)
class Header:
    """The file meta and the data set, as far as they were wanted."""

    meta: DataSet
    data_set: DataSet
    byte_order: ByteOrder


class DamagedError(PermanentError):
    """The bytes are no data set."""

    def __init__(self) -> None:
        super().__init__("The data set cannot be parsed; send it again from its source.")


def wanted(*keywords: str) -> Wanted:
    """The elements of these keywords, at whatever depth, and the transfer syntax."""
    return {int(Tag(keyword)): keyword for keyword in ("TransferSyntaxUID", *keywords)}


def read_header(part10: bytes, wanted: Wanted, keep: int = 1) -> Header:
    """What stands before the pixels; of each sequence, `keep` items.

    It takes linear time, and little more memory than what is wanted. Raises PermanentError for what is damaged, nested
    too deep, or inflates to too much.
    """
    if part10[128:132] != b"DICM":
        raise DamagedError
    meta, start = _Walk(part10, "little", keep).elements(132, len(part10), wanted, _LAST_OF_META)
    syntax = meta.text("TransferSyntaxUID")
    order: ByteOrder = "big" if syntax == ExplicitVRBigEndian else "little"
    if syntax != DeflatedExplicitVRLittleEndian:
        return Header(meta, _before_pixels(part10, start, wanted, order, keep), order)
    with _INFLATING:
        return Header(meta, _before_pixels(_inflated(part10, start), 0, wanted, order, keep), order)


def _before_pixels(data: bytes, start: int, wanted: Wanted, order: ByteOrder, keep: int) -> DataSet:
    return _Walk(data, order, keep).elements(start, len(data), wanted, _LAST_BEFORE_PIXELS)[0]


def _inflated(part10: bytes, start: int) -> bytes:
    """What the deflated bytes stand for; PermanentError when that is more than the node takes."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        found = inflater.decompress(memoryview(part10)[start:], LARGEST_INFLATED_BYTES)
    except zlib.error as error:
        raise DamagedError from error
    if inflater.unconsumed_tail:
        raise PermanentError("The deflated data set grows beyond 128 MiB; send it in another syntax.")
    if not inflater.eof:
        raise DamagedError
    return found


class _Walk:
    """One way through the bytes of a data set: each is passed once, at a bounded depth."""

    def __init__(self, data: bytes, order: ByteOrder, keep: int) -> None:
        mark = "<" if order == "little" else ">"
        self._data = data
        self._keep = keep
        self._explicit = struct.Struct(mark + "HH2sH").unpack_from
        self._implicit = struct.Struct(mark + "HHL").unpack_from
        self._length = struct.Struct(mark + "L").unpack_from
        self._item, self._sequence_end = (struct.pack(mark + "HH", 0xFFFE, number) for number in (0xE000, 0xE0DD))

    def elements(
        self, at: int, end: int, wanted: Wanted, last: int, *, is_implicit: bool = False, depth: int = 0
    ) -> tuple[DataSet, int]:
        """What is wanted from one place to another, or up to the last tag; and where that was."""
        data = self._data
        found = DataSet()
        is_implicit = is_implicit or not b"AA" <= data[at + 4 : at + 6] <= b"ZZ"
        while at + 8 <= end:
            group, element, vr, length = self._explicit(data, at)
            tag = group << 16 | element
            if tag > last:
                break
            at += 8
            if is_implicit or not b"AA" <= vr <= b"ZZ":
                vr, (length,) = b"UN", self._length(data, at - 4)
            elif vr in _LONG:
                if at + 4 > end:
                    break
                (length,) = self._length(data, at)
                at += 4
            keyword = wanted.get(tag)
            is_open = length == _UNDEFINED  # up to a delimiter
            stop = end if is_open else min(at + length, end)
            if vr == b"SQ" or (vr == b"UN" and (is_open or data[at : at + 4] == self._item)):
                inner = wanted if keyword else _NOTHING
                try:
                    value, stop = self._sequence(at, stop, inner, is_open, is_implicit=is_implicit, depth=depth + 1)
                except DamagedError:
                    if keyword or is_open:
                        raise
                else:
                    if keyword:
                        found[keyword] = value
            elif is_open:
                stop = self._behind_fragments(at, end)
            elif keyword:
                found[keyword] = data[at:stop]
            at = stop
        return found, at

    def _sequence(
        self, at: int, end: int, wanted: Wanted, is_open: bool, *, is_implicit: bool, depth: int
    ) -> tuple[Items, int]:
        """The items of a sequence that begins and, unless it is open, ends at these places; and where it ended."""
        if depth > DEEPEST:
            raise PermanentError("Its sequences are nested too deep; mend the sender.")
        found = Items()
        while at + 8 <= end:
            group, element, length = self._implicit(self._data, at)
            tag = group << 16 | element
            at += 8
            if tag == _SEQUENCE_END:
                return found, at if is_open else end
            if tag == _ITEM:
                inner = wanted if found.count < self._keep else _NOTHING
                stop = end if length == _UNDEFINED else min(at + length, end)
                item, behind = self.elements(at, stop, inner, _LAST_OF_ITEM, is_implicit=is_implicit, depth=depth)
                at = behind if length == _UNDEFINED else stop
                found.count += 1
                if inner:
                    found.kept.append(item)
            elif tag != _ITEM_END:  # of an item of undefined length
                raise DamagedError
        if is_open or at < end:
            raise DamagedError
        return found, end

    def _behind_fragments(self, at: int, end: int) -> int:
        """Where an icon's compressed pixels end, each fragment of which is an item of bytes (PS3.5 Section A.4)."""
        while at + 8 <= end and self._data[at : at + 4] == self._item:
            at += 8 + self._length(self._data, at + 4)[0]
        at = self._data.find(self._sequence_end, at, end)
        if at < 0:
            raise DamagedError
        return at + 8
