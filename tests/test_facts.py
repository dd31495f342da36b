"""Header facts of an instance."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from dicom_instances import SERIES, STUDY, classic_slice, enhanced, part10
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
)

from qcnode.errors import PermanentError
from qcnode.intake.facts import DataSetMismatch, Facts, is_uid, read_facts

UNCOMPRESSED = [
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
]


@pytest.mark.parametrize("transfer_syntax", UNCOMPRESSED, ids=lambda uid: uid.name)
def test_the_transfer_syntax_changes_no_fact_but_its_own(transfer_syntax: pydicom.uid.UID) -> None:
    ds = classic_slice(3, SpacingBetweenSlices=6.0, ImagesInAcquisition=12)
    facts = read_facts(part10(ds, transfer_syntax))
    assert facts == Facts(
        sop_class_uid=MRImageStorage,
        sop_instance_uid=f"{SERIES}.3",
        series_instance_uid=SERIES,
        study_instance_uid=STUDY,
        transfer_syntax_uid=transfer_syntax,
        modality="MR",
        rows=16,
        columns=16,
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        position=(-100.0, -100.0, 15.0),
        spacing_between_slices_mm=6.0,
        slice_thickness_mm=5.0,
        images_in_acquisition=12,
    )
    assert facts.position_along_normal_mm == 15.0


@pytest.mark.parametrize(
    ("serial", "fact"),
    [("HF-1234", "HF-1234"), (" 77 ", "77"), ("0000", None), ("XXXX", None), ("", None), ("a\tb", None), (None, None)],
)
def test_a_serial_number_tells_scanners_apart_unless_somebody_emptied_it(serial: str | None, fact: str | None) -> None:
    elements = {} if serial is None else {"DeviceSerialNumber": serial}
    assert read_facts(part10(classic_slice(1, **elements))).device_serial_number == fact


@pytest.mark.parametrize("transfer_syntax", UNCOMPRESSED, ids=lambda uid: uid.name)
def test_an_enhanced_object_says_its_frames_and_its_part(transfer_syntax: pydicom.uid.UID) -> None:
    part = {"ConcatenationUID": "1.2.3", "InConcatenationNumber": 2, "InConcatenationTotalNumber": 300}
    facts = read_facts(part10(enhanced(4, ImagePositionPatient=[1, 2, 3], **part), transfer_syntax))
    assert facts.sop_class_uid == EnhancedMRImageStorage
    assert (facts.number_of_frames, facts.frames_described) == (4, 4)
    assert facts.is_multi_frame
    assert facts.has_all_frames
    assert facts.position is None
    assert facts.slice_thickness_mm == 5.0
    assert facts.orientation == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    assert (facts.concatenation_uid, facts.in_concatenation_number) == ("1.2.3", 2)
    assert facts.in_concatenation_total_number == 300


def test_functional_groups_are_believed_before_the_top_level() -> None:
    facts = read_facts(part10(enhanced(1, ImagePositionPatient=[9, 9, 9], SliceThickness=1.0)))
    assert facts.position == (-100.0, -100.0, 0.0)
    assert facts.slice_thickness_mm == 5.0
    assert not facts.is_multi_frame


def test_a_frame_that_is_not_described_is_missed() -> None:
    assert not read_facts(part10(enhanced(4, described=3))).has_all_frames


def test_facts_survive_json() -> None:
    for ds in (classic_slice(1), enhanced(3)):
        facts = read_facts(part10(ds))
        assert Facts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


def test_no_fact_holds_patient_data() -> None:
    text = json.dumps(read_facts(part10(classic_slice(1))).to_json())
    assert SERIES in text
    assert "Doe" not in text
    assert "0815" not in text


@pytest.mark.parametrize("orientation", [[1, 0, 0, 1, 0, 0], [2, 0, 0, 0, 1, 0], [0, 0, 0, 0, 0, 0]])
def test_an_implausible_orientation_gives_no_position_along_the_normal(orientation: list[float]) -> None:
    facts = read_facts(part10(classic_slice(1, ImageOrientationPatient=orientation)))
    assert facts.orientation is None
    assert facts.position_along_normal_mm is None


@pytest.mark.parametrize(
    ("keyword", "fact"),
    [
        ("Modality", "modality"),
        ("ImagePositionPatient", "position"),
        ("StudyInstanceUID", "study_instance_uid"),
        ("Rows", "rows"),
        ("SliceThickness", "slice_thickness_mm"),
    ],
)
def test_what_is_missing_or_empty_is_none(keyword: str, fact: str) -> None:
    whole = read_facts(part10(classic_slice(1)))
    assert getattr(whole, fact) is not None
    missing = classic_slice(1, **{keyword: None})
    empty = classic_slice(1)
    empty[keyword].value = None
    for ds in (missing, empty):
        assert read_facts(part10(ds)) == replace(whole, **{fact: None})


def test_no_series_is_refused() -> None:
    with pytest.raises(PermanentError, match="no SeriesInstanceUID"):
        read_facts(part10(classic_slice(1, SeriesInstanceUID=None)))


@pytest.mark.parametrize("uid", ["..", ".", "../1.2", "1.2/3", "a.1", "1" * 65, "1.2 3", "", "1.2\n", "١.٢"])
def test_what_is_not_a_uid_names_no_file(uid: str) -> None:
    assert not is_uid(uid)


def test_a_series_that_is_no_uid_is_refused() -> None:
    whole = part10(classic_slice(1, series="1.2.3.4"))
    broken = whole.replace(b"UI\x08\x001.2.3.4\0", b"UI\x08\x00../../4\0")
    assert broken != whole
    with pytest.raises(PermanentError, match="SeriesInstanceUID is not a UID"):
        read_facts(broken)


def test_another_sop_class_than_the_file_meta_says_is_a_mismatch() -> None:
    ds = classic_slice(1)
    data = part10(ds)
    other = data.replace(
        b"UI\x1a\x00" + MRImageStorage.encode() + b"\0", b"UI\x1a\x00" + b"1.2.840.10008.5.1.4.1.1.7\0", 1
    )
    assert other != data
    with pytest.raises(DataSetMismatch):
        read_facts(other)


def test_another_instance_uid_than_the_file_meta_says_is_told() -> None:
    data = part10(classic_slice(1))
    name = f"{SERIES}.1".encode()
    facts = read_facts(data.replace(name, name[:-1] + b"2", 1))  # the first is the file meta's
    assert facts.sop_instance_uid == f"{SERIES}.2"
    assert facts.data_set_sop_instance_uid == f"{SERIES}.1"
    assert read_facts(data).data_set_sop_instance_uid is None


@pytest.mark.parametrize("data", [b"", b"not DICOM", bytes(4096)], ids=["empty", "text", "zeros"])
def test_what_is_not_dicom_is_refused_in_one_sentence(data: bytes) -> None:
    with pytest.raises(PermanentError, match=r"^[^.]+\.$"):
        read_facts(data)


WHOLE = part10(enhanced(2))


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # pydicom's, about what it finds in the damaged bytes
@given(place=st.integers(132, len(WHOLE) - 1), byte=st.integers(0, 255), end=st.integers(132, len(WHOLE)))
def test_damage_is_refused_or_read_and_nothing_else(place: int, byte: int, end: int) -> None:
    damaged = bytearray(WHOLE[:end])
    if place < end:
        damaged[place] = byte
    try:
        facts = read_facts(bytes(damaged))
    except PermanentError:
        return
    assert is_uid(facts.series_instance_uid)
    assert is_uid(facts.sop_instance_uid)
    json.dumps(facts.to_json())


def test_a_group_length_of_five_bytes_is_damage() -> None:
    broken = bytearray(WHOLE)
    broken[138] = 5
    with pytest.raises(PermanentError, match="no MediaStorageSOPClassUID"):
        read_facts(bytes(broken))


def test_a_sequence_that_ends_within_a_tag_is_damage() -> None:
    place = WHOLE.index(b"\x00\x52\x29\x92SQ\0\0") + 8  # SharedFunctionalGroupsSequence's length
    cut = WHOLE[:place] + (2).to_bytes(4, "little") + WHOLE[place + 4 : place + 6]
    with pytest.raises(PermanentError, match="cannot be parsed"):
        read_facts(cut)


def test_pixels_are_not_looked_at() -> None:
    whole = part10(classic_slice(1))
    assert read_facts(whole[:-100]) == read_facts(whole)


@pytest.mark.real_data
def test_every_real_header_has_its_facts(real_data: Path) -> None:
    seen = 0
    for path in sorted((real_data / "dicom").rglob("*.dcm")):
        data = path.read_bytes()
        facts = read_facts(data)
        ds = pydicom.dcmread(BytesIO(data), stop_before_pixels=True)
        assert facts.series_instance_uid == ds.SeriesInstanceUID
        assert facts.number_of_frames == int(ds.get("NumberOfFrames", 1))
        assert (facts.rows, facts.columns) == (ds.Rows, ds.Columns)
        assert facts.has_all_frames
        if "PerFrameFunctionalGroupsSequence" not in ds and "ImagePositionPatient" in ds:
            assert facts.position == tuple(float(x) for x in ds.ImagePositionPatient)
        seen += 1
    assert seen > 100
