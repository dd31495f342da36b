"""Ways to damage bytes: any bytes, those of DICOM elements, and those of upper layer PDUs. All from one generator."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Sequence

_VALUES = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_SHORT = rb"AE|AS|CS|DA|DS|DT|FL|FD|IS|LO|LT|PN|SH|SL|SS|ST|TM|UI|UL|US"
_LONG = rb"OB|OW|OF|OD|SQ|UN|UC|UR|UT"
_ELEMENT = re.compile(
    rb"[\x00-\xff]{4}(?:(" + _SHORT + rb")([\x00-\xff]{2})|(" + _LONG + rb")\0\0([\x00-\xff]{4}))", re.S
)
_TEXTS = (
    *(b"nan", b"inf", b"-inf", b"1e400", b"-1e-400", b"1e308", b"0", b"-0", b"-1", b"1" * 60, b"0x10", b"1,5", b"1_0"),
    *(b"\\", b"\\\\\\\\", b"", b" ", b"\0", b"..", b"../../../x", b"1.2.", b"0", b"\xff\xfe", "é".encode(), b"\x1b$B"),
    *(b"MR", b"CT", b"MOSAIC", b"PALETTE COLOR", b"RGB", b"YBR_FULL", b"ORIGINAL\\PRIMARY", b"99999999999999999999"),
)
_VRS = (
    b"SQ",
    b"UN",
    b"OB",
    b"OW",
    b"US",
    b"UI",
    b"DS",
    b"IS",
    b"PN",
    b"AT",
    b"FD",
    b"XX",
    b"\0\0",
    b"UC",
    b"OV",
    b"SV",
)

Mutation = Callable[[bytearray, random.Random], None]


def mutated(data: bytes, generator: random.Random, mutations: Sequence[Mutation]) -> bytes:
    """The bytes after one to five of the mutations."""
    changed = bytearray(data)
    for _ in range(generator.choice((1, 1, 1, 2, 2, 3, 5))):
        if changed:
            generator.choice(mutations)(changed, generator)
    return bytes(changed)


def flip(data: bytearray, generator: random.Random) -> None:
    """Another bit."""
    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)


def lie(data: bytearray, generator: random.Random) -> None:
    """A number with a meaning to whoever takes it for a length or a count."""
    size = generator.choice((1, 2, 4))
    at = generator.randrange(max(1, len(data) - size))
    data[at : at + size] = (generator.choice(_VALUES) & (256**size - 1)).to_bytes(
        size, generator.choice(("little", "big"))
    )


def cut(data: bytearray, generator: random.Random) -> None:
    """Nothing after a place."""
    del data[generator.randrange(len(data)) :]


def drop(data: bytearray, generator: random.Random) -> None:
    """A piece is missing."""
    at = generator.randrange(len(data))
    del data[at : at + generator.choice((1, 2, 4, 8, generator.randrange(1, 400)))]


def repeat(data: bytearray, generator: random.Random) -> None:
    """A piece comes twice, or very often."""
    at = generator.randrange(len(data))
    piece = bytes(data[at : at + generator.randrange(1, 200)])
    data[at:at] = piece * generator.choice((1, 1, 2, 50))


def noise(data: bytearray, generator: random.Random) -> None:
    """A piece of chance."""
    at = generator.randrange(len(data))
    data[at : at + generator.randrange(0, 40)] = generator.randbytes(generator.randrange(1, 40))


GENERAL: tuple[Mutation, ...] = (flip, lie, cut, drop, repeat, noise)


def element_length(data: bytearray, generator: random.Random) -> None:
    """An element of explicit VR that lies about its length."""
    if element := _element(data, generator):
        group, size = (2, 2) if element.group(1) else (4, 4)
        at = element.start(group)
        near = int.from_bytes(data[at : at + size], "little") + generator.choice((-2, -1, 1, 2, 100))
        value = generator.choice((near, generator.choice(_VALUES))) & (256**size - 1)
        data[at : at + size] = value.to_bytes(size, "little")


def element_value(data: bytearray, generator: random.Random) -> None:
    """A value that its attribute should not have, of a length of its own."""
    if (element := _element(data, generator)) and element.group(1):
        length = int.from_bytes(element.group(2), "little")
        text = generator.choice(_TEXTS)
        if generator.random() < 0.3:
            text = struct.pack("<I", generator.choice(_VALUES))[: length or 2]
        text += b" " * (len(text) % 2)
        data[element.start(2) : element.end() + length] = struct.pack("<H", len(text)) + text


def element_type(data: bytearray, generator: random.Random) -> None:
    """Another VR than the attribute's."""
    if element := _element(data, generator):
        at = element.start(1) if element.group(1) else element.start(3)
        data[at : at + 2] = generator.choice(_VRS)


def element_gone(data: bytearray, generator: random.Random) -> None:
    """An element is missing, or comes twice."""
    if (element := _element(data, generator)) and element.group(1):
        end = element.end() + int.from_bytes(element.group(2), "little")
        data[element.start() : end] = bytes(data[element.start() : end]) * generator.choice((0, 0, 2))


def element_tag(data: bytearray, generator: random.Random) -> None:
    """Another element of the same file in its place, or the end of a sequence where none is."""
    if (element := _element(data, generator)) and (other := _element(data, generator)):
        markers = (b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0", b"\xfe\xff\x00\xe0")
        data[element.start() : element.start() + 4] = generator.choice((other.group()[:4], generator.choice(markers)))


def nested(data: bytearray, generator: random.Random) -> None:
    """Sequences in sequences, many deep, of undefined length."""
    if element := _element(data, generator):
        depth = generator.choice((1, 10, 200, 3000))
        data[element.start() : element.start()] = (
            element.group()[:4] + b"SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
        ) * depth


ELEMENTS: tuple[Mutation, ...] = (
    *(element_length, element_value, element_value, element_type, element_gone, element_tag, nested),
    *GENERAL,
)


def _element(data: bytearray, generator: random.Random) -> re.Match[bytes] | None:
    """One of the headers that look like an element's; from the front, as what matters most stands there."""
    start = generator.randrange(132, max(133, min(len(data), 6000)))
    return _ELEMENT.search(bytes(data[: start + 4000]), start)
