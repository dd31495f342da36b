from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import pytest
from highdicom.ko import KeyObjectSelectionDocument
from pydicom import Dataset, dcmread
from pydicom.sr.codedict import codes
from reporting_cases import ASSESSMENTS, AT, CLEAN, MODERATE, SEVERE, as_bytes, assessment, classic

from qcnode.artifacts import Artifact
from qcnode.reporting.evidence import Evidence, evidence
from qcnode.reporting.key_object import causes, recall_flag, rejection
from qcnode.verdict import Condition, Rule, Severity, verdict


@pytest.fixture
def source() -> Evidence:
    return evidence(as_bytes(*classic(5)), revision=1, ensemble="briqa", at=AT)


def modifiers(flag: Dataset) -> list[str]:
    items = [item for item in flag.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "113011"]
    assert {item.RelationshipType for item in items} == {"HAS CONCEPT MOD"}
    return [item.ConceptCodeSequence[0].CodeValue for item in items]


@pytest.mark.parametrize("name", ["rescan", "rescan for everything"])
def test_a_flag_says_quality_issue_and_never_rejects(name: str, source: Evidence) -> None:
    flag = recall_flag(ASSESSMENTS[name], source)
    assert flag.ConceptNameCodeSequence[0].CodeValue == "113010"
    assert "113001" not in str(flag)


@pytest.mark.parametrize("name", ASSESSMENTS)
def test_a_rejection_is_another_object_in_a_person_s_name_whatever_the_verdict(name: str, source: Evidence) -> None:
    rejected = rejection(ASSESSMENTS[name], source, "mira")
    assert rejected.ConceptNameCodeSequence[0].CodeValue == "113001"
    assert modifiers(rejected), "its reason, from CID 7011"
    observers = [item.PersonName for item in rejected.ContentSequence if "PersonName" in item]
    assert [str(one).strip("^") for one in observers] == ["mira"]
    assert rejected.SOPInstanceUID == rejection(ASSESSMENTS[name], source, "omar").SOPInstanceUID
    flag = recall_flag(ASSESSMENTS["rescan"], source)
    assert rejected.SOPInstanceUID != flag.SOPInstanceUID
    assert rejected.SeriesInstanceUID != flag.SeriesInstanceUID
    assert rejected.StudyInstanceUID == flag.StudyInstanceUID


@pytest.mark.parametrize("name", ["accept", "review", "not_assessable"])
def test_no_other_verdict_can_make_a_flag(name: str, source: Evidence) -> None:
    with pytest.raises(ValueError, match="recall flag is for rescan"):
        recall_flag(ASSESSMENTS[name], source)


@pytest.mark.parametrize("artifact", Artifact)
def test_each_artifact_gives_a_modifier_of_cid_7011(artifact: Artifact, source: Evidence) -> None:
    allowed = {code.value for code in (getattr(codes.cid7011, name) for name in codes.cid7011.dir())}
    found = modifiers(recall_flag(assessment(**{artifact.value: SEVERE}), source))
    assert len(found) == 1
    assert set(found) <= allowed
    expected = {Artifact.MOTION: "111210", Artifact.POSITIONING: "111209"}.get(artifact, "111207")
    assert found == [expected]


def test_each_cause_is_named_once_and_what_only_wants_a_look_is_none(source: Evidence) -> None:
    assert modifiers(recall_flag(ASSESSMENTS["rescan for everything"], source)) == ["111207", "111209", "111210"]
    assert modifiers(recall_flag(assessment(Motion=SEVERE, Positioning=MODERATE), source)) == ["111210"]


def test_the_causes_follow_the_policy_not_the_severity() -> None:
    scores = dict.fromkeys(Artifact, CLEAN) | {Artifact.MOTION: MODERATE, Artifact.NOISE: SEVERE}
    policy = {Artifact.MOTION: Rule(rescan=Condition(Severity.MODERATE)), Artifact.NOISE: Rule(rescan=None)}
    one = replace(assessment(), grades=scores, verdict=verdict(scores, policy))
    assert [cause.value for cause in causes(one)] == ["111210"]


def test_the_flag_refers_to_every_image_and_carries_the_reasons(source: Evidence) -> None:
    one = ASSESSMENTS["rescan"]
    buffer = BytesIO()
    recall_flag(one, source).save_as(buffer, enforce_file_format=True)
    flag = KeyObjectSelectionDocument.from_dataset(dcmread(BytesIO(buffer.getvalue())))
    uids = [item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for item in flag.content.get_references()]
    assert uids == [header.SOPInstanceUID for header in source.headers]
    assert all(flag.resolve_reference(uid)[1] == source.series_uid for uid in uids)
    (description,) = (i for i in flag.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "113012")
    assert description.TextValue.splitlines() == list(one.verdict.reasons)
