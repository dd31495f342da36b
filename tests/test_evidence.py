from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import UID
from reporting_cases import AT, as_bytes, classic, swoop

from qcnode.errors import PermanentError
from qcnode.reporting.evidence import Evidence, derived_uid, evidence, plain


def identified(source: Dataset) -> Dataset:
    """An object with the source's identity, written and read again."""
    document, buffer = Dataset(), BytesIO()
    document.SOPClassUID, document.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    read(*as_bytes(source)).identify(document)
    dcmwrite(buffer, document, implicit_vr=False, little_endian=True, enforce_file_format=False)
    return dcmread(BytesIO(buffer.getvalue()), force=True)


def read(*instances: bytes, at: datetime = AT) -> Evidence:
    return evidence(instances, revision=1, ensemble="briqa", at=at)


@given(st.lists(st.text(alphabet="0123456789.abc-", max_size=12), max_size=4))
def test_a_derived_uid_is_valid_and_always_the_same(parts: list[str]) -> None:
    uid = UID(derived_uid(*parts))
    assert uid.is_valid
    assert uid.startswith("2.25.")
    assert uid == derived_uid(*parts)


def test_each_part_changes_the_derived_uid() -> None:
    parts = [("1.2", "1", "briqa", "report"), ("1.2", "1", "briqa", "flag"), ("1.2", "2", "briqa", "report")]
    parts += [("1.2", "1", "other", "report"), ("1.21", "", "briqa", "report"), ("1.2", "1briqa", "", "report")]
    assert len({derived_uid(*p) for p in parts}) == len(parts)


@given(st.text(max_size=60))
def test_plain_text_is_ascii_and_ascii_stays(text: str) -> None:
    assert plain(text).isascii()
    assert plain(plain(text)) == plain(text)


def test_order_and_duplicates_change_nothing() -> None:
    instances = as_bytes(*classic(6))
    ordered = read(*instances)
    mixed = read(*instances[::-1], instances[2])
    assert [int(h.InstanceNumber) for h in ordered.headers] == [1, 2, 3, 4, 5, 6]
    assert [h.SOPInstanceUID for h in mixed.headers] == [h.SOPInstanceUID for h in ordered.headers]


def test_pixels_and_frames_are_dropped_and_absent_type_2_attributes_are_empty() -> None:
    source = swoop()
    (header,) = read(*as_bytes(source)).headers
    assert "PatientBirthDate" not in source
    assert header.PatientBirthDate == header.PatientSex == header.AccessionNumber == header.ReferringPhysicianName == ""
    assert "PixelData" not in header
    assert "PerFrameFunctionalGroupsSequence" not in header


def test_the_stored_instance_is_not_touched() -> None:
    (instance,) = as_bytes(swoop())
    before = bytes(instance)
    read(instance)
    assert instance == before


def test_unreadable_instances_are_left_out() -> None:
    good = as_bytes(*classic(3))
    headers = read(b"", b"not DICOM", good[0], good[1][:200], good[2][:-30]).headers
    assert [int(h.InstanceNumber) for h in headers] == [1, 3]  # a cut pixel array leaves its header whole


def test_an_instance_that_does_not_name_its_series_is_left_out() -> None:
    nameless = swoop()
    del nameless.SeriesInstanceUID
    with pytest.raises(PermanentError, match="send the series again"):
        read(*as_bytes(nameless))


def test_of_two_studies_that_a_series_names_the_commoner_one_holds() -> None:
    slices = classic(5)
    slices[0].StudyInstanceUID = "1.2.3"
    source = read(*as_bytes(*slices))
    assert [header.StudyInstanceUID for header in source.headers] == [slices[1].StudyInstanceUID] * 4


def test_an_instance_that_lost_its_own_name_is_known_by_the_request_s() -> None:
    source = swoop()
    (instance,) = as_bytes(source)
    lost = instance.replace(b"\x08\x00\x18\x00UI", b"\x08\x00\x19\x00UI")  # no element of the standard
    assert lost != instance
    assert read(lost).references[0].SOPInstanceUID == source.SOPInstanceUID


@pytest.mark.parametrize("element", ["InstanceNumber", "SeriesNumber", "PatientName", "TimezoneOffsetFromUTC"])
def test_an_element_with_a_damaged_value_representation_does_not_stop_the_documents(element: str) -> None:
    source = swoop()
    source.TimezoneOffsetFromUTC = "+0530"
    tag = source[element].tag
    start = tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little")
    (instance,) = as_bytes(source)
    damaged = instance.replace(start + source[element].VR.encode(), start + b"I\xff")
    assert damaged != instance
    found = read(damaged)
    found.identify(Dataset())
    found.placement("report", 91)
    assert found.references[0].SOPInstanceUID == source.SOPInstanceUID


@pytest.mark.parametrize(
    ("charset", "name"),
    [("ISO_IR 192", "Ngũgĩ^Wanjirũ"), ("ISO_IR 100", "Müller^Zoë"), (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎")],
)
def test_a_name_in_any_character_set_is_kept(charset: str | list[str], name: str) -> None:
    source = swoop()
    source.SpecificCharacterSet = charset
    source.PatientName = name
    document = identified(source)
    assert str(document.PatientName) == name
    assert document.SpecificCharacterSet == charset


def test_time_is_written_in_the_scanner_s_zone() -> None:
    source = swoop()
    source.TimezoneOffsetFromUTC = "+0530"
    document = Dataset()
    read(*as_bytes(source), at=datetime(2026, 3, 1, 20, 0, tzinfo=UTC)).identify(document)
    assert (document.ContentDate, document.ContentTime) == ("20260302", "013000")
    assert document.TimezoneOffsetFromUTC == "+0530"


def test_without_the_scanner_s_zone_time_is_local() -> None:
    local = AT.astimezone()
    document = Dataset()
    read(*as_bytes(swoop())).identify(document)
    assert (document.ContentDate, document.ContentTime) == (f"{local:%Y%m%d}", f"{local:%H%M%S}")


def test_series_numbers_keep_clear_of_the_scanner_s() -> None:
    source = read(*as_bytes(swoop(series_number=10)))
    assert source.placement("report", 91)["series_number"] == 1091


def test_a_header_that_is_nested_without_end_is_left_out() -> None:
    [good, *_] = as_bytes(classic(2)[0])
    start = 144 + int.from_bytes(good[140:144], "little")
    nest = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 5000
    with pytest.raises(PermanentError, match="readable header"):
        read(good[:start] + nest + good[start:])
