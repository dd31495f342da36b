"""Headers read from their bytes, held against pydicom; and bytes made to harm."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import pydicom
import pytest
from dicom_instances import classic_slice, enhanced, part10
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from qcnode.errors import PermanentError
from qcnode.intake.facts import Facts, read_facts
from qcnode.intake.header import DEEPEST, DataSet, read_header, wanted

UNCOMPRESSED = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
SYNTAXES = [*UNCOMPRESSED, JPEG2000Lossless, RLELossless]
ITEM, SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
MACROS = {
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "ImagePositionPatient": "PlanePositionSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
}
lengths = st.integers(-9999, 9999).map(lambda number: number / 8)
counts = st.integers(0, 65535)
ELEMENTS: dict[str, st.SearchStrategy[Any]] = {
    "ImagePositionPatient": st.lists(lengths, min_size=3, max_size=3),
    "ImageOrientationPatient": st.sampled_from([[1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [0.6, 0.8, 0, 0, 0, 1]]),
    "SliceThickness": lengths,
    "SpacingBetweenSlices": lengths,
    "ImagesInAcquisition": counts,
    "NumberOfSeriesRelatedInstances": counts,
    "ConcatenationUID": st.sampled_from(["1.2", "1.2.3"]),
    "InConcatenationNumber": counts,
    "InConcatenationTotalNumber": counts,
    "DeviceSerialNumber": st.sampled_from(["A", "AB", "77 b"]),
    "Rows": counts,
    "Columns": counts,
}


def unknown(ds: Dataset, inner: Dataset, value: bytes) -> None:
    ds.add_new(0x00189998, "UN", value)


def private(ds: Dataset, inner: Dataset, value: bytes) -> None:
    block = ds.private_block(0x0029, "HOUSE", create=True)
    block.add_new(0x10, "OB", value)
    block.add_new(0x11, "SQ", [inner])
    block.add_new(0x12, "UN", value)


def nested(ds: Dataset, inner: Dataset, value: bytes) -> None:
    inner.SeriesInstanceUID, inner.Rows = "9.9.9", 9
    ds.ReferencedSeriesSequence = [inner, Dataset()]


def icon(ds: Dataset, inner: Dataset, value: bytes) -> None:
    inner.Rows = 9
    inner.add_new("PixelData", "OB", encapsulate([value + ITEM, SEQUENCE_END * 2]))
    inner["PixelData"].is_undefined_length = True
    ds.IconImageSequence = [inner]


def long(ds: Dataset, inner: Dataset, value: bytes) -> None:
    ds.add_new("PixelDataProviderURL", "UR", "https://example.org/" + "x" * 70_000)
    ds.add_new("EncapsulatedDocument", "OB", value)


ODDITIES: list[Callable[[Dataset, Dataset, bytes], None]] = [unknown, private, nested, long]
values = st.binary(max_size=9).map(lambda b: b + bytes(len(b) % 2)) | st.sampled_from(
    [ITEM, ITEM * 6, SEQUENCE_END * 2]
)


@st.composite
def odd(draw: st.DrawFn, ds: Dataset, syntax: str, depth: int = 3) -> Dataset:
    """The data set with elements in it, and in items in it, that are nobody's concern."""
    compressed = [icon] if UID(syntax).is_compressed and not UID(syntax).is_deflated else []
    for oddity in draw(st.lists(st.sampled_from([*ODDITIES, *compressed]), max_size=depth, unique=True)):
        oddity(ds, draw(odd(Dataset(), syntax, depth - 1)), draw(values))
    return ds


@st.composite
def instances(draw: st.DrawFn) -> bytes:
    syntax = draw(st.sampled_from(SYNTAXES))
    ds = draw(st.builds(classic_slice, st.integers(1, 9)) | st.builds(enhanced, st.integers(1, 3)))
    if UID(syntax).is_encapsulated:
        ds.add_new("PixelData", "OB", encapsulate([b"\xff\x4f" * 8]))
        ds["PixelData"].is_undefined_length = True
    for keyword in draw(st.sets(st.sampled_from(list(ELEMENTS)))):
        setattr(ds, keyword, draw(ELEMENTS[keyword] | st.none()))
    draw(odd(ds, syntax))
    for place in [ds, *(ds.get("SharedFunctionalGroupsSequence") or [])]:
        draw(odd(place, syntax, 1))

    def either_length(_: Dataset, element: pydicom.DataElement) -> None:
        if element.VR == "SQ":
            element.is_undefined_length = draw(st.booleans())
            for item in element.value:
                item.is_undefined_length_sequence_item = draw(st.booleans())

    ds.walk(either_length)
    return part10(ds, syntax)


def by_pydicom(data: bytes) -> Facts:
    """The facts of a conformant instance."""
    ds = pydicom.dcmread(BytesIO(data))
    groups = [
        ds[name][0] for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence") if ds.get(name)
    ]

    def numbers(keyword: str) -> tuple[float, ...] | None:
        items = [group[MACROS[keyword]][0] for group in groups if MACROS[keyword] in group]
        found = next((item[keyword].value for item in [*items, ds] if item.get(keyword) is not None), None)
        return None if found is None else tuple(map(float, found if isinstance(found, Sequence) else [found]))

    def length(keyword: str) -> float | None:
        found = numbers(keyword)
        return abs(found[0]) or None if found else None

    frames = ds.get("NumberOfFrames") or 1
    position = ds.get("ImagePositionPatient") if not groups else numbers("ImagePositionPatient")
    described = ds.get("PerFrameFunctionalGroupsSequence")
    return Facts(
        sop_class_uid=ds.SOPClassUID,
        sop_instance_uid=ds.SOPInstanceUID,
        series_instance_uid=ds.SeriesInstanceUID,
        study_instance_uid=ds.StudyInstanceUID,
        transfer_syntax_uid=ds.file_meta.TransferSyntaxUID,
        modality=ds.Modality,
        rows=ds.Rows,
        columns=ds.Columns,
        number_of_frames=frames,
        frames_described=None if described is None else len(described),
        orientation=numbers("ImageOrientationPatient") or None,
        position=(tuple(position) or None) if position is not None and frames == 1 else None,
        spacing_between_slices_mm=length("SpacingBetweenSlices"),
        slice_thickness_mm=length("SliceThickness"),
        images_in_acquisition=ds.get("ImagesInAcquisition"),
        number_of_series_related_instances=ds.get("NumberOfSeriesRelatedInstances"),
        concatenation_uid=ds.get("ConcatenationUID") or None,
        in_concatenation_number=ds.get("InConcatenationNumber"),
        in_concatenation_total_number=ds.get("InConcatenationTotalNumber"),
        device_serial_number=ds.get("DeviceSerialNumber") or None,
    )


@given(instances())
def test_the_facts_are_those_that_pydicom_reads(data: bytes) -> None:
    assert read_facts(data) == by_pydicom(data)


def element(tag: int, value: bytes, vr: bytes = b"") -> bytes:
    """An element of little endian with a length of four bytes: with its VR, or of implicit VR."""
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + (vr and vr + b"\0\0") + struct.pack("<L", len(value)) + value


def item(value: bytes) -> bytes:
    return ITEM + struct.pack("<L", len(value)) + value


def opened(sequence: bytes) -> bytes:
    """The same sequence or item of explicit VR, of undefined length."""
    at = 4 if sequence.startswith(ITEM) else 8
    end = b"\xfe\xff\x0d\xe0" if at == 4 else SEQUENCE_END
    return sequence[:at] + b"\xff\xff\xff\xff" + sequence[at + 4 :] + end + bytes(4)


def with_element(added: bytes, syntax: str = ExplicitVRLittleEndian, ds: Dataset | None = None) -> bytes:
    """An instance with these bytes before its Modality."""
    whole = part10(ds or classic_slice(1), syntax)
    at = whole.index(b"\x08\x00\x60\x00")
    return whole[:at] + added + whole[at:]


@pytest.mark.parametrize("is_open", [True, False], ids=["undefined", "defined"])
@pytest.mark.parametrize("vr", [b"SQ", b"UN"])
def test_sequences_may_be_nested_so_deep_and_no_deeper(vr: bytes, is_open: bool) -> None:
    def nest(depth: int) -> bytes:
        inner = b""
        for _ in range(depth):
            inner = element(0x00081140, opened(item(inner)) if is_open else item(inner), vr)
            inner = opened(inner) if is_open else inner
        return inner

    assert read_facts(with_element(nest(DEEPEST))) == read_facts(part10(classic_slice(1)))
    for depth in (DEEPEST + 1, 3000):
        with pytest.raises(PermanentError, match="too deep"):
            read_facts(with_element(nest(depth)))


BROKEN = [
    item(b"") + b"xx",
    b"\x08\x00\x60\x00CS\0\0",
    item(opened(element(0x00081140, b"x" * 9, b"SQ"))),
    item(b"") * 40 + b"x",
]


@pytest.mark.parametrize("broken", BROKEN)
def test_damage_within_what_nobody_wants_does_no_harm(broken: bytes) -> None:
    for vr in (b"SQ", b"UN", b"OB"):
        assert read_facts(with_element(element(0x00081140, broken, vr))) == read_facts(part10(classic_slice(1)))


@pytest.mark.parametrize("broken", BROKEN)
def test_damage_is_refused_where_it_hides_what_is_wanted_or_where_it_ends(broken: bytes) -> None:
    for damaged in (element(0x52009229, broken, b"SQ"), opened(element(0x00081140, broken, b"SQ"))):
        with pytest.raises(PermanentError, match="cannot be parsed"):
            read_facts(with_element(damaged))


def test_fragments_end_where_they_say_or_are_damage() -> None:
    pixels = opened(element(0x7FE00010, item(SEQUENCE_END * 2), b"OB"))
    icon = opened(element(0x00880200, opened(item(pixels)), b"SQ"))
    assert read_facts(with_element(icon)) == read_facts(part10(classic_slice(1)))
    pixels = opened(element(0x7FE00010, item(b"xx"), b"OB"))
    with pytest.raises(PermanentError, match="cannot be parsed"):
        read_facts(with_element(opened(element(0x00880200, opened(item(pixels[:-8])), b"SQ"))))


@pytest.mark.parametrize("is_open", [True, False], ids=["undefined", "defined"])
def test_functional_groups_that_somebody_did_not_know_are_read(is_open: bool) -> None:
    """As UN, which leaves implicit VR in the items (PS3.5 Section 6.2.2)."""
    position = element(0x00209113, item(element(0x00200032, b"1\\2\\3 ")))
    frames = element(0x52009230, item(position) * 3 + item(bytes(0)), b"UN")
    facts = read_facts(with_element(opened(frames) if is_open else frames))
    assert (facts.frames_described, facts.position) == (4, (1.0, 2.0, 3.0))


@pytest.mark.parametrize(("said", "encoded"), [(0, 1), (1, 0)], ids=["not-implicit", "not-explicit"])
def test_an_encoding_that_is_not_the_transfer_syntaxs_is_seen(said: int, encoded: int) -> None:
    whole = [part10(enhanced(2), syntax) for syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian)]
    starts = [data.index(b"\x08\x00\x16\x00") for data in whole]
    mixed = whole[said][: starts[said]] + whole[encoded][starts[encoded] :]
    facts = read_facts(mixed)
    assert facts.to_json() | {"transfer_syntax_uid": ""} == read_facts(whole[0]).to_json() | {"transfer_syntax_uid": ""}


@pytest.mark.parametrize("syntax", UNCOMPRESSED, ids=lambda uid: uid.name)
@given(st.integers(0, 4), st.integers(1, 4))
def test_all_items_are_counted_and_as_many_kept_as_are_asked_for(syntax: str, count: int, keep: int) -> None:
    ds = classic_slice(1)
    ds.PerformedSeriesSequence = [Dataset() for _ in range(count)]
    for number, one in enumerate(ds.PerformedSeriesSequence):
        one.InstanceNumber = number
    read = read_header(part10(ds, syntax), wanted("PerformedSeriesSequence", "InstanceNumber"), keep).data_set
    kept = [DataSet(InstanceNumber=b"%d " % number) for number in range(min(keep, count))]
    assert read.count("PerformedSeriesSequence") == count
    assert read.sequence("PerformedSeriesSequence") == kept
    assert (read.text("InstanceNumber"), read.text("PerformedSeriesSequence")) == ("1", None)
