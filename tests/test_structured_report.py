from __future__ import annotations

from io import BytesIO

import pytest
from highdicom.sr import CodedConcept, Comprehensive3DSR
from pydicom import Dataset, dcmread
from reporting_cases import (
    ASSESSMENTS,
    AT,
    CLEAN,
    MODERATE,
    SEVERE,
    as_bytes,
    assessment,
    classic,
    in_slices,
    swoop,
    ungraded,
)

from qcnode.artifacts import ARTIFACT_CONCEPTS, SEVERITY_CONCEPTS, Artifact, Concept, Severity
from qcnode.reporting.evidence import Evidence, evidence
from qcnode.reporting.structured_report import coded, structured_report
from qcnode.verdict import Assessment


def source(*series: Dataset, revision: int = 1) -> Evidence:
    return evidence(as_bytes(*(series or (swoop(),))), revision=revision, ensemble="briqa-3f9a12c4", at=AT)


def read_back(report: Dataset) -> Comprehensive3DSR:
    buffer = BytesIO()
    report.save_as(buffer, enforce_file_format=True)
    return Comprehensive3DSR.from_dataset(dcmread(BytesIO(buffer.getvalue())))


def group_of(report: Dataset) -> Dataset:
    (group,) = read_back(report).content.get_image_measurement_groups()
    return group


def evaluations(report: Dataset) -> dict[str, Dataset]:
    """The coded items of the group, by the value of their name."""
    items = (item for item in group_of(report)[0].ContentSequence if item.ValueType == "CODE")
    return {item.ConceptNameCodeSequence[0].CodeValue: item for item in items}


def texts(report: Dataset) -> list[str]:
    return [item.TextValue for item in group_of(report)[0].ContentSequence if item.ValueType == "TEXT"]


def value(item: Dataset) -> str:
    return str(item.ConceptCodeSequence[0].CodeValue)


@pytest.mark.parametrize("severity", Severity)
@pytest.mark.parametrize("artifact", Artifact)
def test_each_artifact_is_read_back_with_its_severity(artifact: Artifact, severity: Severity) -> None:
    grade = {Severity.NONE: CLEAN, Severity.MODERATE: MODERATE, Severity.SEVERE: SEVERE}[severity]
    group = group_of(structured_report(assessment(**{artifact.value: grade}), source()))
    (found,) = group.get_qualitative_evaluations(name=coded(ARTIFACT_CONCEPTS[artifact]))
    assert found[0].value == coded(SEVERITY_CONCEPTS[severity])


def test_the_probabilities_of_all_severities_and_the_certainty_are_there_in_percent() -> None:
    motion = evaluations(structured_report(assessment(Motion=SEVERE), source()))[
        ARTIFACT_CONCEPTS[Artifact.MOTION].value
    ]
    numbers = {
        item.ConceptNameCodeSequence[0].CodeMeaning: float(item.MeasuredValueSequence[0].NumericValue)
        for item in motion.ContentSequence
    }
    assert numbers == {
        "Certainty of Finding": 95.6,
        "Probability of none": 1.1,
        "Probability of moderate": 3.3,
        "Probability of severe": 95.6,
    }
    assert {item.RelationshipType for item in motion.ContentSequence} == {"HAS PROPERTIES"}


@pytest.mark.parametrize(
    ("name", "overall"), [("accept", "111237"), ("review", "111236"), ("rescan", "111235"), ("not_assessable", None)]
)
def test_the_overall_quality_follows_the_verdict_and_is_absent_where_it_is_unknown(
    name: str, overall: str | None
) -> None:
    found = evaluations(structured_report(ASSESSMENTS[name], source()))
    assert value(found["verdict"]) == name
    assert ("111050" in found) == (overall is not None)
    if overall is not None:
        assert value(found["111050"]) == overall


@pytest.mark.parametrize("one", ASSESSMENTS.values(), ids=ASSESSMENTS)
def test_every_reason_is_a_conclusion(one: Assessment) -> None:
    report = structured_report(one, source())
    items = [item for item in group_of(report)[0].ContentSequence if item.ValueType == "TEXT"]
    conclusions = [i.TextValue for i in items if i.ConceptNameCodeSequence[0].CodeMeaning == "Conclusion"]
    assert conclusions == list(one.verdict.reasons)


def test_what_is_not_assessable_has_no_grades_but_its_reason() -> None:
    report = structured_report(ungraded("Slice 17 of 36 is missing — send the series again."), source())
    assert not set(evaluations(report)) & {concept.value for concept in ARTIFACT_CONCEPTS.values()}
    assert "Slice 17 of 36 is missing - send the series again." in texts(report)


def test_the_report_is_complete_and_unverified_and_says_who_made_it() -> None:
    report = structured_report(assessment(), source())
    assert (report.CompletionFlag, report.VerificationFlag, report.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )
    assert (report.Manufacturer, report.DeviceSerialNumber) == ("qcnode", "briqa-3f9a12c4")
    assert {"qcnode BRIQA ensemble", "briqa-3f9a12c4"} < set(texts(report))


def test_every_private_code_s_scheme_is_declared() -> None:
    report = structured_report(assessment(), source())
    used = {
        item.CodingSchemeDesignator
        for _, item in walk(report)
        if "CodingSchemeDesignator" in item and "CodeValue" in item
    }
    declared = {item.CodingSchemeDesignator for item in report.CodingSchemeIdentificationSequence}
    assert {scheme for scheme in used if scheme.startswith("99")} == declared == {"99QCNODE"}


def walk(dataset: Dataset) -> list[tuple[int, Dataset]]:
    inner = [(depth + 1, item) for e in dataset if e.VR == "SQ" for child in e.value for depth, item in walk(child)]
    return [(0, dataset), *inner]


def test_the_source_images_are_referenced_as_evidence_and_in_the_group() -> None:
    series = classic(5)
    report = structured_report(assessment(), source(*series))
    uids = [str(ds.SOPInstanceUID) for ds in series]
    assert [str(uid) for _, _, uid, _ in read_back(report).get_evidence()] == uids
    assert [image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for image in group_of(report).source_images] == uids


def illustrations(report: Dataset, artifact: Artifact) -> list[Dataset]:
    found = evaluations(report)[ARTIFACT_CONCEPTS[artifact].value].ContentSequence
    images = [item for item in found if item.ValueType == "IMAGE"]
    assert all(item.RelationshipType == "INFERRED FROM" for item in images)
    return [item.ReferencedSOPSequence[0] for item in images]


def test_the_images_that_carry_a_grade_are_referenced_by_it() -> None:
    series = classic(5)
    report = structured_report(in_slices(*series[::-1], slices=(1, 3)), source(*series))
    in_space = sorted(series, key=lambda ds: ds.ImagePositionPatient[2])
    referenced = illustrations(report, Artifact.ZIPPER)
    assert [str(one.ReferencedSOPInstanceUID) for one in referenced] == [in_space[i].SOPInstanceUID for i in (1, 3)]
    assert {str(one.ReferencedSOPClassUID) for one in referenced} == {str(series[0].SOPClassUID)}
    assert not any("ReferencedFrameNumber" in one for one in referenced)
    assert len(illustrations(report, Artifact.NOISE)) == 1
    assert illustrations(report, Artifact.MOTION) == illustrations(report, Artifact.BANDING) == []


def test_the_frames_that_carry_a_grade_are_referenced_by_it() -> None:
    series = swoop(12)
    (one,) = illustrations(structured_report(in_slices(series, slices=(4, 5, 9)), source(series)), Artifact.ZIPPER)
    frames = sorted(
        range(1, 13),
        key=lambda n: series.PerFrameFunctionalGroupsSequence[n - 1].PlanePositionSequence[0].ImagePositionPatient[2],
    )
    assert one.ReferencedSOPInstanceUID == series.SOPInstanceUID
    assert sorted(one.ReferencedFrameNumber) == sorted(frames[i] for i in (4, 5, 9))


def test_only_what_is_evidence_is_referenced() -> None:
    """As where a series names two studies, of which a document may refer to one alone."""
    report = structured_report(in_slices(*classic(5)), source(swoop()))
    assert illustrations(report, Artifact.ZIPPER) == []


def test_a_later_revision_names_the_report_that_it_supersedes() -> None:
    first = structured_report(assessment(), source(revision=1))
    second = structured_report(assessment(Motion=SEVERE), source(revision=2), first.SOPInstanceUID)
    (study,) = second.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (instance,) = series.ReferencedSOPSequence
    assert study.StudyInstanceUID == first.StudyInstanceUID
    assert series.SeriesInstanceUID == first.SeriesInstanceUID == second.SeriesInstanceUID
    assert instance.ReferencedSOPInstanceUID == first.SOPInstanceUID != second.SOPInstanceUID
    assert instance.ReferencedSOPClassUID == first.SOPClassUID
    assert f"Supersedes the report {first.SOPInstanceUID} of this series." in texts(second)
    assert "PredecessorDocumentsSequence" not in first


def test_revisions_are_tracked_as_one_thing() -> None:
    tracking = [group_of(structured_report(assessment(), source(revision=r))).tracking_uid for r in (1, 2)]
    assert tracking[0] == tracking[1]


def test_a_concept_is_written_as_it_is() -> None:
    assert coded(Concept("24590-2", "LN", "Brain MRI")) == CodedConcept("24590-2", "LN", "Brain MRI")
