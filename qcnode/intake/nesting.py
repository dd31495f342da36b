"""Data sets made to harm: sequences nested thousands deep, and deflated bytes that grow without end."""

from __future__ import annotations

import struct
import threading
import zlib

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from qcnode.errors import PermanentError

DEEPEST = 32  # sequences within sequences; functional groups and reports nest a handful
LARGEST_INFLATED_BYTES = 128 * 1024 * 1024
_INFLATING = threading.Lock()  # one at a time, however many are sent at once

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
_PIXELS = (0x7FE0, 0x0010)
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))


def check_harmless(part10: bytes) -> None:
    """PermanentError for a data set that would take more memory or depth to read than any honest one does.

    Of a damaged data set, what comes before the damage is judged.
    """
    if part10[132:136] != b"\x02\x00\x00\x00":
        return  # without its meta information's length (PS3.10 Section 7.1) it is not one that the listener wrote
    start = 144 + int.from_bytes(part10[140:144], "little")
    meta, data_set = part10[144:start], memoryview(part10)[start:]
    at = meta.find(b"\x02\x00\x10\x00UI") + 6
    syntax = meta[at + 2 : at + 2 + int.from_bytes(meta[at : at + 2], "little")].decode("ascii", "replace").strip(" \0")
    if syntax == DeflatedExplicitVRLittleEndian:
        with _INFLATING:
            _check_nesting(_inflated(data_set), ExplicitVRLittleEndian)
    else:
        _check_nesting(data_set, syntax)


def _inflated(deflated: memoryview) -> bytes:
    """What the deflated bytes stand for; PermanentError when that is more than the node takes."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    found = inflater.decompress(deflated, LARGEST_INFLATED_BYTES)
    if inflater.unconsumed_tail:
        raise PermanentError("The deflated data set grows beyond 128 MiB; send it in another syntax.")
    return found


def _check_nesting(data_set: bytes | memoryview, syntax: str) -> None:
    """Each level needs an item's tag, so that most data sets are let through for having too few of them."""
    is_little_endian = syntax != ExplicitVRBigEndian
    item = struct.pack("<HH" if is_little_endian else ">HH", *_ITEM)
    if bytes(data_set).count(item) <= DEEPEST:
        return
    if _depth(data_set, syntax == ImplicitVRLittleEndian, is_little_endian) > DEEPEST:
        raise PermanentError("Its sequences are nested too deep; mend the sender.")


def _depth(data: bytes | memoryview, is_implicit: bool, is_little_endian: bool) -> int:
    """How deep items lie within items, up to one more than the deepest allowed."""
    order = "<" if is_little_endian else ">"
    tag_and_length, short = struct.Struct(order + "HHL"), struct.Struct(order + "H")
    ends: list[int | None] = []  # where each open item or sequence ends; None: at its delimiter
    items: list[bool] = []  # which of them are items
    at = 0
    while at + 8 <= len(data):
        while ends and ends[-1] is not None and at >= ends[-1]:
            ends.pop()
            items.pop()
        group, element, length = tag_and_length.unpack_from(data, at)
        tag = (group, element)
        at += 8
        if tag in (_ITEM_END, _SEQUENCE_END):
            if ends:
                ends.pop()
                items.pop()
            continue
        if tag == _ITEM:
            ends.append(None if length == _UNDEFINED else at + length)
            items.append(True)
            if sum(items) > DEEPEST:
                return sum(items)
            continue
        is_sequence = False
        if not is_implicit:
            vr = bytes(data[at - 4 : at - 2])
            length = short.unpack_from(data, at - 2)[0]
            if vr in _LONG:
                if at + 4 > len(data):
                    break
                length = int.from_bytes(data[at : at + 4], "little" if is_little_endian else "big")
                at += 4
            is_sequence = vr == b"SQ"
        if tag == _PIXELS and not ends:
            break
        starts_item = data[at : at + 4] == struct.pack(order + "HH", *_ITEM)
        if length == _UNDEFINED or is_sequence or (length >= 8 and starts_item):
            ends.append(None if length == _UNDEFINED else at + length)
            items.append(False)
        else:
            at += length
    return sum(items)
