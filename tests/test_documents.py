from __future__ import annotations

import re
import sys
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from subprocess import run
from time import perf_counter

import pytest
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian
from reporting_cases import ASSESSMENTS, AT, as_bytes, classic, in_slices, run_tool, swoop

from qcnode.errors import PermanentError
from qcnode.reporting.documents import Document, documents
from qcnode.verdict import Assessment

SAME = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID")
SAME += ("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName")
each_assessment = pytest.mark.parametrize("one", ASSESSMENTS.values(), ids=ASSESSMENTS)


def make(one: Assessment, instances: list[bytes], revision: int = 1, predecessor: str | None = None) -> list[Document]:
    return list(documents(one, instances, revision=revision, at=AT, predecessor_uid=predecessor))


def read(document: Document) -> Dataset:
    return dcmread(BytesIO(document.data))


def files(made: list[Document], folder: Path) -> list[Path]:
    paths = [folder / f"{document.kind}.dcm" for document in made]
    for path, document in zip(paths, made, strict=True):
        path.write_bytes(document.data)
    return paths


def full_source() -> Dataset:
    """An instance that has what a Swoop leaves out."""
    source = swoop()
    source.PatientBirthDate, source.PatientSex, source.AccessionNumber = "20240229", "F", "A-17"
    source.ReferringPhysicianName, source.SpecificCharacterSet = "Müller^Zoë", "ISO_IR 100"
    source.PatientAge, source.StudyDescription = "024M", "Brain"
    return source


@each_assessment
def test_twice_the_same_is_byte_identical_in_any_order(one: Assessment) -> None:
    instances = as_bytes(*classic(5))
    made = make(one, instances)
    assert made == make(one, instances[::-1] + instances[:2])
    assert all(read(document).SOPInstanceUID == document.sop_instance_uid for document in made)


def test_a_revision_an_ensemble_or_a_series_makes_other_objects() -> None:
    one, instances = ASSESSMENTS["rescan"], as_bytes(swoop())
    variants = [
        make(one, instances),
        make(one, instances, revision=2),
        make(replace(one, ensemble="other"), instances),
        make(one, as_bytes(*classic(5))),
    ]
    uids = [document.sop_instance_uid for made in variants for document in made]
    assert len(set(uids)) == len(uids) == 12


def test_the_hour_changes_the_time_in_a_document_but_not_its_uid() -> None:
    one, instances = ASSESSMENTS["rescan"], as_bytes(swoop())
    later = documents(one, instances, revision=1, at=AT + timedelta(hours=1), predecessor_uid=None)
    for before, after in zip(make(one, instances), later, strict=True):
        assert before.sop_instance_uid == after.sop_instance_uid
        assert read(before).ContentTime != read(after).ContentTime


@each_assessment
def test_a_flag_is_made_for_rescan_only(one: Assessment) -> None:
    kinds = [document.kind for document in make(one, as_bytes(swoop()))]
    assert kinds == (["report", "flag", "capture"] if one.verdict.decision == "rescan" else ["report", "capture"])


def test_an_excluded_series_gets_no_document() -> None:
    one = replace(ASSESSMENTS["not_assessable"], excluded="A localizer is not for assessment.")
    assert make(one, as_bytes(swoop())) == []


def test_without_a_readable_instance_there_is_nothing_to_report_on() -> None:
    with pytest.raises(PermanentError, match="readable header"):
        make(ASSESSMENTS["not_assessable"], [b"", b"junk"])


@pytest.mark.parametrize("source", [swoop(), full_source()], ids=["swoop", "full"])
def test_patient_and_study_are_the_source_s(source: Dataset) -> None:
    for document in map(read, make(ASSESSMENTS["rescan"], as_bytes(source))):
        for keyword in SAME:
            assert keyword in document  # type 2: present, if only empty
            assert document[keyword].value == (source[keyword].value if keyword in source else "") or (
                keyword not in source and not document[keyword].value
            )
        assert document.get("SpecificCharacterSet") == source.get("SpecificCharacterSet")
        assert document.SeriesInstanceUID != source.SeriesInstanceUID


def test_the_three_documents_lie_in_three_series() -> None:
    made = [read(document) for document in make(ASSESSMENTS["rescan"], as_bytes(swoop()))]
    assert [document.Modality for document in made] == ["SR", "KO", "OT"]
    assert len({document.SeriesInstanceUID for document in made}) == 3
    assert len({document.SeriesNumber for document in made}) == 3


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientSex", b"Y "),
        ("PatientBirthDate", b"unknown "),
        ("StudyDate", b"01/02/26"),
        ("PatientName", b"\xff=\xe9^"),
    ],
)
def test_what_breaks_the_standard_in_a_source_stays_as_it_is_and_out_of_the_log(
    keyword: str, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    source = swoop()
    place = tag_for_keyword(keyword)
    assert place is not None
    source[place] = RawDataElement(Tag(place), dictionary_VR(place), len(value), value, 0, False, True)
    made = make(ASSESSMENTS["rescan"], as_bytes(source))
    for document in map(read, made):
        element = document.get_item(place)
        assert isinstance(element, RawDataElement)
        assert element.value == value
    assert len(made) == 3
    assert not caplog.records


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian], ids=lambda uid: uid.name
)
def test_the_source_s_encoding_does_not_matter(syntax: UID) -> None:
    plain_source, encoded = full_source(), full_source()
    for source in (plain_source, encoded):
        source.PixelData = b""
    encoded.file_meta.TransferSyntaxUID = syntax
    one = ASSESSMENTS["rescan"]
    assert make(one, as_bytes(encoded)) == make(one, as_bytes(plain_source))


@each_assessment
@pytest.mark.parametrize("source", [[swoop()], [full_source()], classic(5)], ids=["swoop", "full", "classic"])
def test_dciodvfy_finds_no_error(one: Assessment, source: list[Dataset], tmp_path: Path) -> None:
    made = make(one, as_bytes(*source), revision=2, predecessor="2.25.17")
    for path in files(made, tmp_path):
        findings = run_tool("dciodvfy", path)
        assert not [line for line in findings.splitlines() if line.startswith("Error")], findings
        assert re.search(r"Comprehensive3DSR|KeyObjectSelectionDocument|SCImage", findings)


@pytest.mark.parametrize("source", [[swoop(12)], classic(5)], ids=["swoop", "classic"])
def test_references_to_slices_pass_the_checkers_and_are_the_same_twice(source: list[Dataset], tmp_path: Path) -> None:
    one, instances = in_slices(*source), as_bytes(*source)
    made = make(one, instances)
    assert made == make(in_slices(*source[::-1]), instances[::-1])
    for path in files(made, tmp_path):
        findings = run_tool("dciodvfy", path)
        assert not [line for line in findings.splitlines() if line.startswith("Error")], findings
    text = run_tool("dsrdump", "+Pl", tmp_path / "report.dcm")
    count = 2 if len(source) == 1 else 3  # one item names both frames
    assert text.count('<inferred from IMAGE:(,,"Best illustration of finding")=(') == count
    (tmp_path / "source.dcm").write_bytes(instances[0])
    assert "Error" not in run_tool("dcentvfy", tmp_path / "source.dcm", tmp_path / "report.dcm")


def test_dcentvfy_finds_the_source_s_patient_and_study(tmp_path: Path) -> None:
    made = make(ASSESSMENTS["rescan"], as_bytes(full_source()))
    (tmp_path / "source.dcm").write_bytes(*as_bytes(full_source()))
    findings = run_tool("dcentvfy", tmp_path / "source.dcm", *files(made, tmp_path))
    assert "Error" not in findings
    other = replace_patient(made[0])
    (tmp_path / "report.dcm").write_bytes(other)
    assert "Error" in run_tool("dcentvfy", tmp_path / "source.dcm", tmp_path / "report.dcm")


def replace_patient(document: Document) -> bytes:
    changed, buffer = read(document), BytesIO()
    changed.PatientSex = "M"
    changed.save_as(buffer)
    return buffer.getvalue()


def test_dsrdump_reads_the_report_and_the_flag(tmp_path: Path) -> None:
    report, flag, _ = files(make(ASSESSMENTS["rescan"], as_bytes(swoop()), 2, "2.25.17"), tmp_path)
    text = run_tool("dsrdump", "+Pl", report)
    for expected in (
        'CODE:(,,"Verdict")=(rescan,99QCNODE,"Rescan")',
        'TEXT:(,,"Conclusion")="Severe motion. Repeat this scan; settle the child first."',
        '(111235,DCM,"Unusable - Quality renders image unusable")',
        '(24484000,SCT,"Severe")',
        '"Probability of severe")="95.6" (%,UCUM,"Percent")',
        'TEXT:(,,"Comment")="Supersedes the report 2.25.17 of this series."',
    ):
        assert expected in text
    assert 'CONTAINER:(,,"Quality Issue")' in run_tool("dsrdump", "+Pl", flag)


def test_nothing_but_the_standard_s_elements_names_the_patient() -> None:
    source = swoop()
    source.PatientName, source.PatientID = "Secret^Name", "ID-4711"
    for document in map(read, make(ASSESSMENTS["rescan"], as_bytes(source))):
        del document.PatientName, document.PatientID
        document.pop("PixelData", None)
        assert not re.search("Secret|4711", str(document))


def test_a_swoop_object_s_documents_are_quick_and_need_no_torch() -> None:
    instances = as_bytes(swoop(frames=36))
    make(ASSESSMENTS["rescan"], instances)  # highdicom reads its tables once
    start = perf_counter()
    make(ASSESSMENTS["rescan"], instances)
    assert perf_counter() - start < 2.0  # about 0.1 s where nothing else runs
    loaded = "import sys, qcnode.reporting.documents; sys.exit('torch' in sys.modules)"
    assert run([sys.executable, "-c", loaded], check=False, timeout=60).returncode == 0


@pytest.mark.real_data
@pytest.mark.parametrize("folder", ["dicom2nifti_tests/hyperfine", "siemens_skyra_3yo_T1"])
def test_documents_about_real_scans_pass_the_checkers(folder: str, real_data: Path, tmp_path: Path) -> None:
    sources = sorted((real_data / "dicom" / folder).rglob("*.dcm"))
    instances = [path.read_bytes() for path in sources]
    made = make(ASSESSMENTS["rescan"], instances)
    paths = files(made, tmp_path)
    for path in paths:
        findings = run_tool("dciodvfy", path)
        assert not [line for line in findings.splitlines() if line.startswith("Error")], findings
    assert "Error" not in run_tool("dcentvfy", sources[0], *paths)
    source = dcmread(BytesIO(instances[0]), stop_before_pixels=True)
    assert read(made[0]).PatientName == source.PatientName
    (study,) = read(made[0]).CurrentRequestedProcedureEvidenceSequence
    assert len(study.ReferencedSeriesSequence[0].ReferencedSOPSequence) == len(instances)
