"""The report: Comprehensive 3D SR, TID 1500 Measurement Report with one TID 1501 group for the series."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    ImageContentItem,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    NumContentItem,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import Comprehensive3DSRStorage

from qcnode.artifacts import ARTIFACT_CONCEPTS, PRIVATE_SCHEME, SEVERITY_CONCEPTS, Concept, Plane, Severity
from qcnode.reporting.evidence import MANUFACTURER, VERSION, Evidence, derived_uid, plain
from qcnode.verdict import Assessment, Decision, Grade

_CATEGORY = Concept("111101", "DCM", "Image Quality")
_FINDING = Concept("130550", "DCM", "Imaging Series Quality")
_QUALITY_ASSESSMENT = Concept("111050", "DCM", "Quality Assessment")
_CERTAINTY = Concept("111012", "DCM", "Certainty of Finding")
_CONCLUSION = Concept("121077", "DCM", "Conclusion")
_COMMENT = Concept("121106", "DCM", "Comment")
_ILLUSTRATION = Concept("121080", "DCM", "Best illustration of finding")
_SCAN_PLANE = Concept("130546", "DCM", "Cross-sectional scan plane orientation")
_BRAIN_MRI = Concept("24590-2", "LN", "Brain MRI")
_PERCENT = Concept("%", "UCUM", "Percent")

# CID 6044. A series without grades has no overall quality: unknown is not unusable.
_OVERALL: dict[Decision, Concept] = {
    Decision.ACCEPT: Concept("111237", "DCM", "Usable - Meets the quality control standard"),
    Decision.REVIEW: Concept("111236", "DCM", "Usable - Does not meet the quality control standard"),
    Decision.RESCAN: Concept("111235", "DCM", "Unusable - Quality renders image unusable"),
}
_VERDICT = Concept("verdict", PRIVATE_SCHEME, "Verdict")
_VERDICTS: dict[Decision, Concept] = {
    Decision.ACCEPT: Concept("accept", PRIVATE_SCHEME, "Accept"),
    Decision.REVIEW: Concept("review", PRIVATE_SCHEME, "Review"),
    Decision.RESCAN: Concept("rescan", PRIVATE_SCHEME, "Rescan"),
    Decision.NOT_ASSESSABLE: Concept("not_assessable", PRIVATE_SCHEME, "Not assessable"),
}
_PROBABILITIES: dict[Severity, Concept] = {
    Severity.NONE: Concept("probability-none", PRIVATE_SCHEME, "Probability of none"),
    Severity.MODERATE: Concept("probability-moderate", PRIVATE_SCHEME, "Probability of moderate"),
    Severity.SEVERE: Concept("probability-severe", PRIVATE_SCHEME, "Probability of severe"),
}
_PLANES: dict[Plane, Concept] = {  # CID 6312
    Plane.AXIAL: Concept("24422004", "SCT", "Axial"),
    Plane.CORONAL: Concept("81654009", "SCT", "Coronal"),
    Plane.SAGITTAL: Concept("30730003", "SCT", "Sagittal"),
}


def structured_report(assessment: Assessment, source: Evidence, predecessor_uid: str | None = None) -> Dataset:
    """The verdict, its reasons, the seven severities and their probabilities: coded, complete and unverified.

    predecessor_uid: the SOP Instance UID of the previous revision's report, which lies in the same series as this one.
    """
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer(source)),
        procedure_reported=coded(_BRAIN_MRI),
        imaging_measurements=[_group(assessment, source, predecessor_uid)],
        title=codes.DCM.ImagingMeasurementReport,
    )
    document: Dataset = Comprehensive3DSR(
        evidence=source.references,
        content=report,
        is_complete=True,
        is_final=False,
        is_verified=False,
        previous_versions=None if predecessor_uid is None else [_predecessor(source, predecessor_uid)],
        series_description="Image quality",
        coding_schemes=[
            CodingSchemeIdentificationItem(PRIVATE_SCHEME, "qcnode", responsible_organization=MANUFACTURER)
        ],
        **source.placement("report", series_number=91),
    )
    source.identify(document)
    return document


def coded(concept: Concept) -> CodedConcept:
    """The concept as highdicom writes it."""
    return CodedConcept(value=concept.value, scheme_designator=concept.scheme, meaning=concept.meaning)


def observer(source: Evidence) -> ObserverContext:
    """Who looked: this software with these weights (TID 1004)."""
    return ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=derived_uid("device", source.ensemble),
            name=MANUFACTURER,
            manufacturer_name=MANUFACTURER,
            model_name=f"{MANUFACTURER} {VERSION}",
        ),
    )


def _group(
    assessment: Assessment, source: Evidence, predecessor_uid: str | None
) -> MeasurementsAndQualitativeEvaluations:
    """TID 1501. The template has rows for codes only; the sentences join it as text, for it is extensible."""
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=derived_uid(source.series_uid, "tracking"), identifier="Image quality of the series"
        ),
        finding_category=coded(_CATEGORY),
        finding_type=coded(_FINDING),
        algorithm_id=AlgorithmIdentification(
            name="qcnode BRIQA ensemble",
            version=plain(assessment.ensemble) or VERSION,
            manufacturer=MANUFACTURER,
            family=codes.DCM.ArtificialIntelligence,
        ),
        source_images=[
            SourceImageForMeasurementGroup(reference.SOPClassUID, reference.SOPInstanceUID)
            for reference in source.references
        ],
    )
    content = group[0].ContentSequence
    first_image = len(content) - len(source.headers)
    for place, item in enumerate(_evaluations(assessment, source, predecessor_uid), first_image):
        content.insert(place, item)
    return group


def _evaluations(assessment: Assessment, source: Evidence, predecessor_uid: str | None) -> Iterator[Dataset]:
    """The content items of the group, in the order in which a person would want to read them."""
    decision = assessment.verdict.decision
    yield _evaluation(_VERDICT, _VERDICTS[decision])
    for reason in assessment.verdict.reasons:
        yield _text(_CONCLUSION, reason)
    if decision in _OVERALL:
        yield _evaluation(_QUALITY_ASSESSMENT, _OVERALL[decision])
    if assessment.plane is not None:
        yield _evaluation(_SCAN_PLANE, _PLANES[assessment.plane])
    for artifact, grade in assessment.grades.items():
        details = ContentSequence([*_probabilities(grade), *_illustrations(assessment, grade, source)])
        yield _evaluation(ARTIFACT_CONCEPTS[artifact], SEVERITY_CONCEPTS[grade.severity], details)
    if predecessor_uid is not None:
        yield _text(_COMMENT, f"Supersedes the report {predecessor_uid} of this series.")
    yield _text(_COMMENT, "Research use. The machine proposes; a person decides.")


def _illustrations(assessment: Assessment, grade: Grade, source: Evidence) -> Iterator[Dataset]:
    """The images, or the frames of them, that carry the grade; none where it is the whole series'."""
    frames: dict[str, list[int]] = {}
    for number in grade.slices or ():
        if number < len(assessment.sources):
            uid, frame = assessment.sources[number]
            frames.setdefault(uid, []).extend([] if frame is None else [frame])
    classes = {str(reference.SOPInstanceUID): reference.SOPClassUID for reference in source.references}
    for uid in filter(classes.__contains__, frames):
        yield ImageContentItem(
            name=coded(_ILLUSTRATION),
            referenced_sop_class_uid=classes[uid],
            referenced_sop_instance_uid=uid,
            referenced_frame_numbers=sorted(frames[uid]) or None,
            relationship_type=RelationshipTypeValues.INFERRED_FROM,
        )


def _probabilities(grade: Grade) -> Iterator[Dataset]:
    """The certainty of the severity given, and the probability of each, in percent."""
    numbers = [(_CERTAINTY, grade.probabilities[grade.severity])]
    numbers += [(_PROBABILITIES[severity], grade.probabilities[severity]) for severity in Severity]
    for concept, probability in numbers:
        yield NumContentItem(
            name=coded(concept),
            value=round(100 * float(probability), 1),
            unit=coded(_PERCENT),
            relationship_type=RelationshipTypeValues.HAS_PROPERTIES,
        )


def _evaluation(name: Concept, value: Concept, properties: ContentSequence | None = None) -> Dataset:
    item: Dataset
    (item,) = QualitativeEvaluation(coded(name), coded(value))
    if properties is not None:
        item.ContentSequence = properties
    return item


def _text(name: Concept, text: str) -> Dataset:
    item: Dataset = TextContentItem(
        name=coded(name), value=plain(text), relationship_type=RelationshipTypeValues.CONTAINS
    )
    return item


def _predecessor(source: Evidence, predecessor_uid: str) -> Dataset:
    predecessor = deepcopy(source.references[0])
    predecessor.SOPClassUID = Comprehensive3DSRStorage
    predecessor.SOPInstanceUID = predecessor_uid
    predecessor.SeriesInstanceUID = source.document_series_uid("report")
    return predecessor
